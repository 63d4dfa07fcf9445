"""Estimation of a degradation from real LR images: noise, offset and blur.

Noise is white, detail is not. In blocks of 8x8 pixels, the finest DCT coefficients are mostly noise
and the coarser ones show how much detail there is; for each intensity, the blocks with the least
detail are used, as by M. Ponomarenko et al. ("Methods and Algorithms for Blind Estimation of
Noise", 2007). If even in those the finer coefficients are weaker than the coarser ones, they are
detail and get less weight. To these variances the curve of shot and read noise is fitted, clipped
at 0 and 1 like a camera (A. Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting
for Single-Image Raw-Data", 2008).

Blur is the Gaussian that turns the mean power spectrum of the cleanly reduced HR images into that
of the LR images without their white noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.optimize import least_squares
from scipy.special import gammaln, ndtr, xlogy

from napari_cfsr.core.image.degradation import Degradation, Kernel, to_unit
from napari_cfsr.errors import ImageError, OptionError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Images = NDArray[Any] | Sequence[NDArray[Any]]

BLOCK = 8
LEAST = 32  # pixels in each direction
MOST_BLOCKS = 2**16  # more would not be more accurate
BINS = 12  # of intensity
FLATTEST = 0.15  # share of the blocks of a bin that are used
DUST = 1e-7  # variance far below that of rounding to 8 bits
NEARLY_WHITE = (
    1.6  # coarser coefficients this much stronger than the finest are no longer white noise
)
CLEARLY = 3.0  # decrease of the cost that justifies one more kind of noise

LIGHT = np.concatenate([[0.0], np.geomspace(1e-4, 1.6, 60)])  # where the noise curve is computed
FEW = 100  # photons; above, their distribution is nearly normal
MANY = 10_000  # photons; above, shot noise is below 1 % even at intensity 1

FREQUENCIES = np.linspace(0.02, 0.5, 33)  # edges, in cycles per LR pixel
SLIGHT = 0.1  # blur, in LR pixels, that weakens the finest detail by less than 5 %


@dataclass(frozen=True)
class Estimate:
    """Estimated degradation of LR images."""

    # mean number of photons per pixel at intensity 1; None if no shot noise is visible
    photons: float | None
    read_noise: float  # sigma, as a fraction of the full range
    offset: float  # intensity of darkness
    blur: float  # sigma of a Gaussian, in LR pixels
    notes: tuple[str, ...] = ()  # what could not be estimated, or only roughly, in whole sentences

    def degradation(self, kernel: Kernel = "bicubic") -> Degradation:
        """The degradation with these values."""
        return Degradation(kernel, self.blur, self.photons, self.read_noise, offset=self.offset)


def estimate_degradation(
    lr: Images, hr: Images | None = None, scale: int | None = None
) -> Estimate:
    """Estimate noise, offset and blur of LR images.

    Sources: M. Ponomarenko et al., "Methods and Algorithms for Blind Estimation of Noise", 2007;
    A. Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image
    Raw-Data", 2008.

    Parameters
    ----------
    lr : array [y,x] or [y,x,3], or a list of them
        LR images of one camera: float in [0,1], uint8 or uint16. More pixels are more accurate.
    hr : array [Y,X] or [Y,X,3], or a list of them, optional
        HR images, preferably of the same scenes, otherwise of the same kind. Needed for blur.
    scale : int, optional
        HR size / LR size; needed with `hr`.

    Returns
    -------
    Estimate
        Assuming a gain of 1.

    Raises
    ------
    ImageError
        An image can't be used or is too small, or all pixels have the same value.
    OptionError
        There are HR images but no scale.
    """
    low = _listed(lr, "LR")
    if max(float(image.max()) for image in low) == min(float(image.min()) for image in low):
        raise ImageError(f"expected LR images with contrast, got {low[0].flat[0]:g} everywhere")
    if hr is None:
        noise = _estimated_noise(low, None)
        return Estimate(*noise[:3], 0.0, (*noise[3], "Blur cannot be estimated without HR images."))
    if scale is None:
        raise OptionError("expected the scale of the HR images, got None")
    reduced = [Degradation().clean(image, scale) for image in _listed(hr, "HR")]
    noise = _estimated_noise(low, _dark_level(reduced))
    blur, notes = _estimated_blur(low, _checked_size(reduced, "reduced HR"))
    return Estimate(*noise[:3], blur, (*noise[3], *notes))


def _listed(images: Images, name: str) -> list[Float32]:
    """Checked images in [0,1]."""
    several = [images] if isinstance(images, np.ndarray) else list(images)
    if not several:
        raise ImageError(f"expected at least one {name} image, got none")
    return _checked_size([to_unit(np.asarray(image)) for image in several], name)


def _checked_size(images: list[Float32], name: str) -> list[Float32]:
    for image in images:
        if min(image.shape[:2]) < LEAST:
            raise ImageError(
                f"expected {name} images of at least {LEAST}x{LEAST} pixels, got {image.shape}"
            )
    return images


def planes_of(images: Sequence[Float32]) -> list[Float32]:
    """All channels of all images, each [y,x]."""
    return [p for im in images for p in ([im] if im.ndim == 2 else np.moveaxis(im, 2, 0))]


# noise


@dataclass(frozen=True)
class Bins:
    """Statistics of the flattest blocks of each intensity; arrays with one value per bin."""

    mean: Float64
    variance: Float64  # of the noise, if it is white
    colour: Float64  # ratio of coarser to finest coefficients: 1 for white noise, more for detail
    dark: Float64  # share of pixels at 0
    count: Float64  # independent coefficients

    @property
    def error(self) -> Float64:
        """Relative error of the variance: from statistics, model and detail."""
        detail = 0.2 * np.maximum(self.colour - 1.2, 0)
        return np.asarray(np.sqrt(0.05**2 + 2 / self.count + detail**2))


def _estimated_noise(
    images: Sequence[Float32], hr_dark: float | None
) -> tuple[float | None, float, float, tuple[str, ...]]:
    """Photons, read noise, offset and notes."""
    bins = noise_bins(images)
    notes = []
    saturated = float(np.mean([np.mean(image >= 1) for image in images]))
    if saturated > 0.01:
        notes.append(f"{100 * saturated:.0f} % of the pixels are saturated and were ignored.")
    visible = bins.variance > DUST
    if not np.any(visible & (bins.colour < NEARLY_WHITE)):
        notes.append("No white noise is visible: there is none, or the image was smoothed.")
        return None, 0.0, 0.0, tuple(notes)
    fit, offset = fit_with_offset(bins, images, hr_dark)
    if offset:
        notes.append("The offset may in fact be background light.")
    without = NoiseFit.of(bins, offset, shot=False)
    if without.cost - fit.cost < CLEARLY or (fit.photons or 0) > MANY:
        fit = without
    if fit.uncertainty > 0.25:
        notes.append("Read noise is small beside shot noise: the read-noise estimate is uncertain.")
    return fit.photons, fit.read_noise, offset, tuple(notes)


def fit_with_offset(
    bins: Bins, images: Sequence[Float32], hr_dark: float | None
) -> tuple[NoiseFit, float]:
    """The fit without offset, unless the darkest blocks and the noise both suggest one."""
    plain = NoiseFit.of(bins, 0.0)
    offset = _dark_level(images) - (hr_dark or 0.0)
    clipped = bins.dark[0] > 0.01  # an offset would have prevented that
    if offset < 0.005 or clipped:
        return plain, 0.0
    raised = NoiseFit.of(bins, offset)
    known = hr_dark is not None and offset > 0.01
    return (raised, offset) if known or plain.cost - raised.cost > CLEARLY else (plain, 0.0)


def _dark_level(images: Sequence[Float32]) -> float:
    """Mean of the darkest blocks."""
    means = [blocks_of(plane).mean((1, 2)) for plane in planes_of(images)]
    return float(np.quantile(np.concatenate(means), 0.005))


def blocks_of(plane: Float32, step: int = BLOCK // 2) -> Float32:
    """Overlapping blocks [n,8,8]."""
    blocks = np.lib.stride_tricks.sliding_window_view(plane, (BLOCK, BLOCK))[::step, ::step]
    return np.ascontiguousarray(blocks).reshape(-1, BLOCK, BLOCK)


@lru_cache(maxsize=1)
def bands() -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Coarse coefficients without the mean, medium ones (mostly noise), and the finest."""
    u, v = np.mgrid[:BLOCK, :BLOCK]
    coarse = (u + v >= 1) & (u + v <= 5)
    middle = (u >= 3) & (v >= 3) & (u + v <= 8)
    return coarse, middle, (u >= 5) & (v >= 5)


def block_step(planes: Sequence[Float32]) -> int:
    """Pixels from block to block, so that there are not too many."""
    total = sum(plane.size for plane in planes)
    return max(BLOCK // 2, int(np.ceil((total / MOST_BLOCKS) ** 0.5)))


def noise_bins(images: Sequence[Float32]) -> Bins:
    """Statistics of the flattest blocks of each intensity."""
    planes = planes_of(images)
    step = block_step(planes)
    zero = min(float(plane[plane > 0].min(initial=1.0)) for plane in planes) / 2
    parts = [_block_statistics(blocks_of(plane, step), zero) for plane in planes]
    mean, coarse, middle, fine, dark = np.concatenate(parts, axis=1)
    number = int(np.clip(len(mean) // 60, 1, BINS))
    even = np.linspace(mean.min(), mean.max(), number + 1)
    edges = np.unique(np.concatenate([np.quantile(mean, np.linspace(0, 1, number + 1)), even]))
    rows = []
    for low, high in pairwise(edges):
        inside = np.flatnonzero((mean >= low) & (mean <= high))
        if len(inside) >= min(30, len(mean) // 2):
            flat = inside[np.argsort(coarse[inside])[: max(8, int(FLATTEST * len(inside)))]]
            variance = fine[flat].mean()
            colour = middle[flat].mean() / max(variance, DUST)
            count = len(flat) * bands()[2].sum() * min(1.0, (step / BLOCK) ** 2)
            rows.append((mean[flat].mean(), variance, colour, dark[flat].mean(), count))
    return Bins(*np.array(rows, np.float64).T)


def _block_statistics(blocks: Float32, zero: float) -> Float64:
    """Mean, power of the three bands, and share of pixels at 0 of each block."""
    power = powers_of(blocks)
    means = [power[:, band].mean(1) for band in bands()]
    dark = (blocks < zero).mean((1, 2))
    return np.stack([blocks.mean((1, 2)), *means, dark]).astype(np.float64)


def powers_of(blocks: Float32) -> Float32:
    """Squared DCT coefficients of blocks [n,8,8]."""
    once = dct(np.eye(BLOCK), axis=0, norm="ortho").astype(np.float32)
    return np.asarray(np.square(once @ blocks @ once.T))


@dataclass(frozen=True)
class NoiseFit:
    """The best-fitting noise curve."""

    photons: float | None
    read_noise: float
    uncertainty: float  # of the read noise, relative
    cost: float

    @classmethod
    def of(cls, bins: Bins, offset: float, shot: bool = True) -> NoiseFit:
        """Fit read noise, and photons if `shot`."""

        def residuals(values: Float64) -> Float64:
            return _residuals(bins, np.exp(values[0]) if shot else np.inf, values[-1], offset)

        photons = np.log([8.0, 40.0, 200.0, 1000.0, 10_000.0]) if shot else [0.0]
        starts = [np.array([p, r][not shot :]) for p in photons for r in (0.003, 0.015, 0.05)]
        # there are several minima: the best fit from the best starting points
        starts.sort(key=lambda start: float(np.sum(np.sqrt(1 + residuals(start) ** 2))))
        bounds = ([0.0, 0.0][not shot :], [np.log(1e6), 0.5][not shot :])
        scale = [1.0, 0.01][not shot :]
        ends = [
            least_squares(
                residuals, s, loss="soft_l1", bounds=bounds, x_scale=scale, diff_step=1e-3
            )
            for s in starts[:3]
        ]
        best = min(ends, key=lambda end: float(end.cost))
        variance = np.linalg.pinv(best.jac.T @ best.jac)[-1, -1]
        read_noise = float(best.x[-1])
        return cls(
            float(np.exp(best.x[0])) if shot else None,
            read_noise,
            float(np.sqrt(variance)) / max(read_noise, 1e-4),
            float(best.cost),
        )


def _residuals(bins: Bins, photons: float, read_noise: float, offset: float) -> Float64:
    """Residuals of the bins from a noise curve, in units of their errors."""
    mean, variance, dark = _curve(photons, read_noise, offset)
    order = np.argsort(mean)
    expected = np.interp(bins.mean, mean[order], variance[order])
    residual = np.log((bins.variance + DUST) / (expected + DUST)) / bins.error
    residual = np.where(residual > 0, 0.7 * residual, residual)  # detail can only add variance
    # pixels at 0 distinguish few photons (often none) from strong read noise
    shares = np.interp(bins.mean, mean[order], dark[order])
    odds = _log_odds(bins.dark) - _log_odds(shares)
    return np.concatenate([residual, 0.5 * odds / np.sqrt(0.1**2 + 2 / bins.count)])


def _log_odds(share: Float64) -> Float64:
    return np.asarray(np.log((share + 0.005) / (1 - share + 0.005)))


def _curve(photons: float, read_noise: float, offset: float) -> tuple[Float64, Float64, Float64]:
    """Mean, variance and share at 0 of clipped pixels, at all values of `LIGHT`."""
    if photons > FEW:
        sigma = np.sqrt(LIGHT / photons + read_noise**2)
        first, second, dark = _clipped(LIGHT + offset, sigma)
    else:
        expected = photons * LIGHT[:, None]
        counts = np.arange(int(1.6 * photons + 10 * np.sqrt(1.6 * photons)) + 8)
        chance = np.exp(xlogy(counts, expected) - expected - gammaln(counts + 1))
        levels = _clipped(counts / photons + offset, np.full(len(counts), read_noise))
        first, second, dark = (chance @ level for level in levels)
    return first, np.maximum(second - first**2, 0), dark


def _clipped(mean: Float64, sigma: Float64) -> tuple[Float64, Float64, Float64]:
    """First and second moment of normal values clipped to [0,1], and the share at 0."""
    sigma = np.maximum(sigma, 1e-6)
    low, high = -mean / sigma, (1 - mean) / sigma
    below, above = ndtr(low), ndtr(-high)
    at_low, at_high = (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) for z in (low, high))
    inside = 1 - below - above
    first = mean * inside + sigma * (at_low - at_high) + above
    second = (mean**2 + sigma**2) * inside + above
    second = second + 2 * mean * sigma * (at_low - at_high)
    second = second + sigma**2 * (low * at_low - high * at_high)
    return first, second, below


# blur


def _estimated_blur(
    low: Sequence[Float32], reduced: Sequence[Float32]
) -> tuple[float, tuple[str, ...]]:
    """Sigma, and notes."""
    seen, clean = _spectrum(low), _spectrum(reduced)
    if clean.min() <= 0 or seen.min() <= 0:
        return 0.0, ("Blur cannot be estimated: an image is empty.",)
    squared, error = _fitted_blur(seen, clean)
    if squared < 2 * error:
        sigma = np.sqrt(max(squared, 0) + 2 * error)
        return 0.0, (
            "No blur beyond that of the HR images was found; "
            f"blur below {sigma:.1f} px cannot be ruled out.",
        )
    sigma = float(np.sqrt(squared))
    if sigma < SLIGHT:
        return 0.0, ()
    spread = error / (2 * sigma)
    return sigma, (
        () if spread < 0.1 else (f"The blur estimate is uncertain by about {spread:.1f} px.",)
    )


def _spectrum(images: Sequence[Float32]) -> Float64:
    """Mean power at each of the frequencies."""
    return np.asarray(np.mean([_radial_power(plane) for plane in planes_of(images)], axis=0))


def _radial_power(plane: Float32) -> Float64:
    """Power in rings of the Fourier plane; a Hann window hides the border."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in plane.shape))
    spectrum = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2 / np.sum(window**2)
    y, x = np.fft.fftfreq(plane.shape[0]), np.fft.rfftfreq(plane.shape[1])
    ring = np.digitize(np.hypot(y[:, None], x).ravel(), FREQUENCIES)
    power = np.bincount(ring, spectrum.ravel(), len(FREQUENCIES) + 1)
    count = np.bincount(ring, minlength=len(FREQUENCIES) + 1)
    return np.asarray(power / np.maximum(count, 1))[1 : len(FREQUENCIES)]


def _fitted_blur(seen: Float64, clean: Float64) -> tuple[float, float]:
    """Square of sigma, which may be negative, and its standard error."""
    frequency = (FREQUENCIES[1:] + FREQUENCIES[:-1]) / 2

    def residuals(values: Float64) -> Float64:
        gain, squared, noise = values
        passed = np.exp(gain - 4 * np.pi**2 * squared * frequency**2)
        return np.asarray(np.log(seen / (passed * clean + np.exp(noise))))

    gain, noise = np.log(seen[:4].mean() / clean[:4].mean()), np.log(0.9 * seen[-3:].min())
    bounds = ([gain - 5, -1, noise - 30], [gain + 5, 16, noise + 5])
    ends = [
        least_squares(residuals, [gain, start, noise], loss="soft_l1", f_scale=0.1, bounds=bounds)
        for start in (0.0, 0.5, 2.0)
    ]
    best = min(ends, key=lambda end: float(end.cost))
    spread = np.sum(residuals(best.x) ** 2) / (len(frequency) - 3)
    variance = spread * np.linalg.pinv(best.jac.T @ best.jac)[1, 1]
    # errors of neighbouring rings are correlated: about four count as one
    return float(best.x[1]), float(2 * np.sqrt(variance))
