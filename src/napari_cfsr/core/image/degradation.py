"""Degradation: how LR images are simulated from HR images, as a camera would record them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_cfsr.core.image.resize import check_scale, imresize
from napari_cfsr.errors import ImageError, OptionError

Kernel = Literal["bicubic", "area"]
KERNELS: tuple[Kernel, ...] = ("bicubic", "area")
Float32 = NDArray[np.float32]

TOLERANCE = 1e-3  # intensities this far outside [0,1] are attributed to rounding


@dataclass(frozen=True)
class Degradation:
    """How LR images are simulated from HR images.

    In this order: blur and reduction (optics and pixels), shot noise (photons), read noise (of the
    sensor), gain and offset (of the digitiser), clipping to [0,1] (saturation), JPEG (8 bits per
    value). Intensities are in [0,1], noise and offset in fractions of that range. Source of the
    noise model: A. Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting for
    Single-Image Raw-Data", 2008.

    Attributes
    ----------
    kernel : {"bicubic", "area"}
        How the image is reduced: by MATLAB's antialiased bicubic, or by the mean of scale x scale
        pixels, like a sensor with larger pixels or binning.
    blur : float
        Sigma of a Gaussian before the reduction, in LR pixels; see `blur_in_pixels`.
    photons : float, optional
        Mean number of photons in an LR pixel of intensity 1; None: no shot noise.
    read_noise : float
        Sigma of Gaussian noise, independent of the intensity, before the gain.
    gain, offset : float
        The digitiser: ``gain * x + offset``.
    jpeg : int, optional
        JPEG quality, 1 to 95, with chroma at half resolution (4:2:0); None: no JPEG.

    Raises
    ------
    OptionError
        A value has the wrong type or is out of range.
    """

    kernel: Kernel = "bicubic"
    blur: float = 0.0
    photons: float | None = None
    read_noise: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    jpeg: int | None = None

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise OptionError(f'expected kernel "bicubic" or "area", got {self.kernel!r}')
        self._check("blur", 0, 100)
        self._check("read_noise", 0, 1)
        self._check("offset", -1, 1)
        self._check("gain", 1e-6, 1e6)
        if self.photons is not None:
            self._check("photons", 1e-3, 1e9)
        if self.jpeg is None:
            return
        whole = isinstance(self.jpeg, int | np.integer) and not isinstance(self.jpeg, bool)
        if not (whole and 1 <= self.jpeg <= 95):
            raise OptionError(f"expected jpeg as a whole number from 1 to 95, got {self.jpeg!r}")
        object.__setattr__(self, "jpeg", int(self.jpeg))

    def _check(self, name: str, low: float, high: float) -> None:
        """Check the range of a field and make it a plain float, for comparisons and JSON."""
        value = getattr(self, name)
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and low <= value <= high):  # also catches NaN
            raise OptionError(
                f"expected {name} as a number from {low:g} to {high:g}, got {value!r}"
            )
        object.__setattr__(self, name, float(value))

    @property
    def noise_free(self) -> bool:
        """Whether there is neither shot nor read noise."""
        return self.photons is None and self.read_noise == 0

    @property
    def is_clean(self) -> bool:
        """Whether there is only the bicubic reduction."""
        return self == Degradation()

    def describe(self) -> str:
        """One short line for a person, such as ``bicubic, 50 photons, read noise 0.01``."""
        parts = {
            f"blur {self.blur:g} px": self.blur > 0,
            f"{self.photons or 0:g} photons": self.photons is not None,
            f"read noise {self.read_noise:g}": self.read_noise > 0,
            f"gain {self.gain:g}": self.gain != 1,
            f"offset {self.offset:g}": self.offset != 0,
            f"JPEG {self.jpeg}": self.jpeg is not None,
        }
        return ", ".join([self.kernel, *(text for text, there in parts.items() if there)])

    def apply(self, hr: NDArray[Any], scale: int, rng: np.random.Generator) -> Float32:
        """Simulate an LR image [y,x] or [y,x,3] in [0,1]; see `degrade`."""
        return self.noise(self.clean(hr, scale, clip=False), rng)

    def clean(self, hr: NDArray[Any], scale: int, clip: bool = True) -> Float32:
        """Simulate the LR image without noise and JPEG: the costly part, the same at every call.

        Parameters
        ----------
        hr : array [Y,X] or [Y,X,3]
            Float in [0,1], or uint8 or uint16, which are divided by 255 or 65535. Rows and columns
            beyond a multiple of the scale are cropped at the bottom and right.
        scale : int
            HR size / LR size.
        clip : bool
            Whether the result is clipped to [0,1]. False for input of `noise`: gain and offset can
            move pixels beyond saturation.

        Returns
        -------
        array [y,x] or [y,x,3] of float32
            If there is only the bicubic reduction of uint8: `imresize` of uint8, divided by 255.

        Raises
        ------
        ImageError
            The image has another shape, dtype or range, values that are not finite, or is
            smaller than one LR pixel.
        OptionError
            The scale is not a whole number of at least 1.
        """
        check_image(hr)
        hr = _cropped(hr, scale)
        if hr.dtype == np.uint8 and self.is_clean:
            # like the files of the training data, which were rounded to 8 bits twice
            return imresize(hr, 1 / scale).astype(np.float32) / np.float32(255)
        light = to_unit(hr)
        if self.blur:
            sigma = (self.blur * scale, self.blur * scale, 0)[: light.ndim]
            light = gaussian_filter(light, sigma, mode="reflect")
        light = imresize(light, 1 / scale) if self.kernel == "bicubic" else _binned(light, scale)
        np.clip(light, 0, 1, out=light)  # bicubic overshoots at edges; light does not
        result = np.float32(self.gain) * light + np.float32(self.offset)
        return np.clip(result, 0, 1) if clip else result

    def noise(self, clean: Float32, rng: np.random.Generator) -> Float32:
        """Add fresh noise, saturation and JPEG to the result of `clean`: the cheap part.

        Parameters
        ----------
        clean : array of float32
            From `clean`, not clipped.
        rng : numpy.random.Generator

        Returns
        -------
        array of float32
            In [0,1], of the same shape.
        """
        result = clean.astype(np.float32)
        if self.photons is not None:
            electrons = (result - np.float32(self.offset)) * np.float32(self.photons / self.gain)
            drawn = rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
            result = drawn * np.float32(self.gain / self.photons) + np.float32(self.offset)
        if self.read_noise:
            normal = rng.standard_normal(result.shape, dtype=np.float32)
            result += np.float32(self.read_noise * self.gain) * normal
        np.clip(result, 0, 1, out=result)
        return result if self.jpeg is None else _jpeg(result, self.jpeg)

    def undo_levels(self, lr: NDArray[Any], clip: bool = True) -> Float32:
        """Undo gain and offset, so that an LR image has the intensities of the HR image."""
        result: Float32 = lr.astype(np.float32) - np.float32(self.offset)
        result /= np.float32(self.gain)
        return np.clip(result, 0, 1, out=result) if clip else result


def degrade(
    hr: NDArray[Any],
    scale: int = 4,
    kernel: Kernel = "bicubic",
    blur: float = 0.0,
    photons: float | None = None,
    read_noise: float = 0.0,
    gain: float = 1.0,
    offset: float = 0.0,
    jpeg: int | None = None,
    seed: int = 0,
) -> Float32:
    """Simulate the LR image that a camera would record.

    Source of the noise model: A. Foi et al., "Practical Poissonian-Gaussian Noise Modeling and
    Fitting for Single-Image Raw-Data", 2008.

    Parameters
    ----------
    hr : array [Y,X] or [Y,X,3]
        Float in [0,1], or uint8 or uint16, which are divided by 255 or 65535. Rows and columns
        beyond a multiple of the scale are cropped at the bottom and right.
    scale : int
        HR size / LR size.
    kernel, blur, photons, read_noise, gain, offset, jpeg
        See `Degradation`. The defaults are what the super-resolution literature calls bicubic
        degradation; for uint8, bit-identical to the usual LR files, divided by 255.
    seed : int
        Of the noise: the same seed gives the same image.

    Returns
    -------
    array [Y // scale, X // scale] or [Y // scale, X // scale, 3] of float32
        In [0,1].

    Raises
    ------
    ImageError
        The image has another shape, dtype or range, values that are not finite, or is smaller
        than one LR pixel.
    OptionError
        A value has the wrong type or is out of range.
    """
    degradation = Degradation(kernel, blur, photons, read_noise, gain, offset, jpeg)
    return degradation.apply(hr, scale, np.random.default_rng(seed))


def blur_in_pixels(fwhm: float, pixel_size: float, hr_fwhm: float = 0.0) -> float:
    """Sigma for `Degradation.blur` from the resolution of a microscope.

    ``sqrt(fwhm**2 - hr_fwhm**2) / sqrt(8 ln 2) / pixel_size``, for Gaussian blur.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum of the image of a point, in any unit of length; about
        0.51 wavelength / NA in fluorescence.
    pixel_size : float
        Of an LR pixel, in the same unit.
    hr_fwhm : float
        Width that the HR images already have, in the same unit. Squares of widths add up, so only
        the difference is applied.

    Returns
    -------
    float
        In LR pixels.

    Raises
    ------
    OptionError
        A length is negative or not finite, `pixel_size` is 0, or `hr_fwhm` exceeds `fwhm`.
    """
    if not (0 < pixel_size < np.inf and 0 <= hr_fwhm <= fwhm < np.inf):
        raise OptionError(
            "expected 0 <= hr_fwhm <= fwhm and pixel_size > 0 in the same unit, got "
            f"hr_fwhm {hr_fwhm}, fwhm {fwhm}, pixel_size {pixel_size}"
        )
    return float(np.sqrt(fwhm**2 - hr_fwhm**2) / np.sqrt(8 * np.log(2)) / pixel_size)


def check_image(image: NDArray[Any]) -> None:
    """Raise `ImageError` unless it is [Y,X] or [Y,X,3], of uint8, uint16 or float in [0,1]."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ImageError(f"expected an image [Y,X] or [Y,X,3], got shape {image.shape}")
    if image.size == 0:
        raise ImageError(f"expected an image with pixels, got shape {image.shape}")
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())  # NaN if any is
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise ImageError(
                f"expected finite intensities in [0,1], got {low:g} to {high:g}: map them first"
            )
    elif image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"expected pixels of float, uint8 or uint16, got {image.dtype}")


def to_unit(image: NDArray[Any]) -> Float32:
    """Check an image and convert it to float32 in [0,1]; integers by the maximum of their dtype."""
    check_image(image)
    if image.dtype.kind == "f":
        return image.astype(np.float32)
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def _cropped(hr: NDArray[Any], scale: int) -> NDArray[Any]:
    """The HR image without rows and columns that do not fill an LR pixel."""
    check_scale(scale)
    if min(hr.shape[:2]) < scale:
        raise ImageError(
            f"expected at least {scale}x{scale} pixels for scale {scale}, got shape {hr.shape}"
        )
    return hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]


def _binned(image: Float32, scale: int) -> Float32:
    """Mean of scale x scale pixels."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    blocks = image.reshape(height, scale, width, scale, *image.shape[2:])
    result: Float32 = blocks.mean((1, 3), dtype=np.float32)
    return result


def _jpeg(image: Float32, quality: int) -> Float32:
    """Through a JPEG file in memory and back."""
    file = io.BytesIO()
    values = np.rint(image * np.float32(255)).astype(np.uint8)
    Image.fromarray(values).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(np.float32) / np.float32(255)
