"""Conventional methods, which need no training: for noisy or blurred LR images.

A refiner that learned to remove noise and blur has to be compared with methods that remove them
too, not only with the bare backbone. Each method here restores the LR image, which is then enlarged
by `bicubic` or by the backbone like any other image.

Before denoising, the noise gets unit variance at all intensities: by the Anscombe transform,
generalised to shot and read noise, with its exact unbiased inverse (M. Makitalo, A. Foi, "Optimal
Inversion of the Generalized Anscombe Transformation for Poisson-Gaussian Noise", 2013).

The settings were chosen on fluorescence images (structured illumination, halved, x2, 20 to 200
photons) and photographs (x4, sigma 5 to 20 of 255), by PSNR after bicubic enlargement. For
non-local means, patches of 5 pixels are better than of 3 or 7, by 0.2 to 0.7 dB in fluorescence and
0.1 dB in photographs; searching further than 6 pixels gains nothing. Total variation is worse, by
0.4 dB in fluorescence and 0.9 dB in photographs, and left out. If there is blur, deconvolution
gains most: 1 to 3 dB with noise, up to 10 dB without. docs/decisions/0006 says which methods are
stronger than these, and why they are not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image.degradation import Degradation, to_unit
from napari_cfsr.core.image.estimation import estimate_degradation
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.errors import ImageError

Float32 = NDArray[np.float32]

PATCH, DISTANCE, STRENGTH = 5, 6, 0.6  # non-local means; strength in units of sigma
SMALLEST = 8  # pixels in each direction
LEAST_NOISE = 5e-4  # rounding to 8 bits is noise as well


def bicubic(lr: NDArray[Any], scale: int, degradation: Degradation | None = None) -> Float32:
    """Enlarge an LR image with MATLAB's bicubic: the simplest conventional method.

    Parameters
    ----------
    lr : array [y,x] or [y,x,3]
        Float in [0,1], uint8 or uint16.
    scale : int
        SR size / LR size.
    degradation : Degradation, optional
        Its gain and offset are undone, so that the result has the intensities of the HR image.

    Returns
    -------
    array [y * scale, x * scale] or with 3 channels, float32
        Clipped to [0,1].
    """
    image = to_unit(lr)
    if degradation is not None:
        image = degradation.undo_levels(image)
    result: Float32 = np.clip(imresize(image, scale), 0, 1)
    return result


def denoise(lr: NDArray[Any], degradation: Degradation | None = None) -> dict[str, Float32]:
    """Remove noise and blur from an LR image with conventional methods.

    Sources: A. Buades et al., "A Non-Local Algorithm for Image Denoising", 2005, after the
    generalised Anscombe transform of M. Makitalo, A. Foi, 2013; N. Wiener, "Extrapolation,
    Interpolation, and Smoothing of Stationary Time Series", 1949, for deconvolution.

    Parameters
    ----------
    lr : array [y,x] or [y,x,3]
        Float in [0,1], as `Degradation.apply` gives it, uint8 or uint16.
    degradation : Degradation, optional
        How it was made, where kernel and JPEG are ignored. By default photons, read noise and
        offset are estimated (see `estimate_degradation`).

    Returns
    -------
    dict of array [y,x] or [y,x,3] of float32
        By method: ``non-local means`` if there is noise, and, after it, ``deconvolution`` if there
        is blur; in [0,1] with the intensities of the HR image. Empty for an image of one value.

    Raises
    ------
    ImageError
        The image has another shape, dtype or range, or is too small.
    """
    image = _checked(lr)
    if np.ptp(image) == 0:
        return {}
    if degradation is None:
        degradation = estimate_degradation(image).degradation()
    image = degradation.undo_levels(image, clip=False)  # clipping makes noise in the dark one-sided
    results = {}
    if not degradation.noise_free:
        noise = _Noise(degradation.photons, degradation.read_noise)
        image = noise.restore(_non_local_means(noise.stabilise(image)))
        results["non-local means"] = image
    if degradation.blur:
        results["deconvolution"] = _deconvolved(image, degradation)
    return {name: np.clip(result, 0, 1) for name, result in results.items()}


@dataclass(frozen=True)
class _Noise:
    """Shot and read noise, and the transform that gives it unit variance."""

    photons: float | None
    sigma: float  # of the read noise, in intensity

    @property
    def _floor(self) -> float:
        """The constant under the square root, in photons squared."""
        return 3 / 8 + ((self.photons or 0) * self.sigma) ** 2

    def stabilise(self, image: Float32) -> Float32:
        """Noise of unit variance."""
        if self.photons is None:
            return np.divide(image, self.sigma, dtype=np.float32)
        root = image * np.float32(self.photons) + np.float32(self._floor)
        result: Float32 = 2 * np.sqrt(np.maximum(root, 0))
        return result

    def restore(self, stable: Float32) -> Float32:
        """Back to intensities: the exact unbiased inverse for means."""
        if self.photons is None:
            return np.multiply(stable, self.sigma, dtype=np.float32)
        root = np.float32(math.sqrt(1.5))
        d = np.maximum(stable, root)  # darkness without read noise; below, the series fails
        # closed-form approximation; its constant is 1/8 plus the variance of the read noise
        series = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + root * 5 / 8 / d**3
        return np.divide(series + (1 / 4 - self._floor), self.photons, dtype=np.float32)


def _checked(lr: NDArray[Any]) -> Float32:
    """The LR image as float32 in [0,1]; raises `ImageError`."""
    if min(lr.shape[:2], default=0) < SMALLEST:
        raise ImageError(f"expected at least {SMALLEST}x{SMALLEST} pixels, got shape {lr.shape}")
    return to_unit(lr)


def _non_local_means(stable: Float32) -> Float32:
    """Non-local means (A. Buades et al., 2005) with noise of unit variance."""
    from skimage.restoration import denoise_nl_means  # late: a slow import

    result: Float32 = denoise_nl_means(
        stable,
        patch_size=PATCH,
        patch_distance=DISTANCE,
        h=STRENGTH,
        sigma=1.0,
        fast_mode=True,
        channel_axis=2 if stable.ndim == 3 else None,
    )
    return result


def _deconvolved(image: Float32, degradation: Degradation) -> Float32:
    """Undo the blur with a Wiener filter, as far as the noise allows.

    The noise-to-signal ratio is the sigma at mean intensity, for all frequencies. For sigma from
    0.002 to 0.05 that was within 0.3 dB of the best constant, twice as far for nuclei.
    """
    shot = max(float(image.mean()), 0) / (degradation.photons or np.inf)
    ratio = max(math.sqrt(shot + degradation.read_noise**2), LEAST_NOISE)
    margin = 4 * math.ceil(degradation.blur) + SMALLEST  # the Fourier transform is periodic
    edges = ((margin, margin), (margin, margin), (0, 0))[: image.ndim]
    padded = np.pad(image, edges, mode="symmetric")
    y, x = np.fft.fftfreq(padded.shape[0]), np.fft.rfftfreq(padded.shape[1])
    passed = np.exp(-2 * np.pi**2 * degradation.blur**2 * (y[:, None] ** 2 + x**2))
    wiener = passed * (1 + ratio) / (passed**2 + ratio)
    spectrum = np.fft.rfft2(padded, axes=(0, 1))
    spectrum *= wiener.reshape(wiener.shape + (1,) * (image.ndim - 2))
    result = np.fft.irfft2(spectrum, padded.shape[:2], axes=(0, 1))
    return result[margin:-margin, margin:-margin].astype(np.float32)
