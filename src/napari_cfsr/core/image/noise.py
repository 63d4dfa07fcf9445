"""Noise of a camera: its model, its estimate from images, and images split into independent parts.

A pixel that counts photons can be split at random into two images of the same scene whose noise is
independent, which is what training and measuring without clean images need. It takes the right
noise model, and noise that is white: independent from pixel to pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image.axes import ArrayLike, Axes
from napari_cfsr.core.image.estimation import (
    BLOCK,
    DUST,
    LEAST,
    MANY,
    NEARLY_WHITE,
    Bins,
    NoiseFit,
    bands,
    block_step,
    blocks_of,
    fit_with_offset,
    noise_bins,
    planes_of,
    powers_of,
)
from napari_cfsr.core.image.intensity import IntensityMapping, dtype_range
from napari_cfsr.errors import ImageError, OptionError

Array = NDArray[Any]
Float32 = NDArray[np.float32]

SIGMA = 0.25  # standard deviation of stabilised noise
# power of noise that is fine along one axis only, over that of noise fine along both: 1 for white
# noise, 1.8 where neighbours correlate by 0.25, 5 by 0.5; measured on 40 images of 120x120
WHITE = 1.4
UNSURE = 2.0  # added to that limit, over the root of the number of blocks
FLATTEST = 0.1  # share of the blocks of an intensity in which noise is examined, `FEWEST` at least
FEWEST = 6
LEVELS = 8  # of intensity
FINE = 5  # the first of the finest of the eight DCT coefficients along an axis
DETAIL = 0.05  # of the power of detail in coarser coefficients, what is in the finest
ROUNDING = 0.25  # variance, in grey levels, of which rounding explains a third
CLIPPED = 0.01  # share of pixels at the least value from which values count as clipped
MOST_CUT = 0.3  # variance of read noise over that of shot noise where values are cut off
NEXT, FAR = 20, 20.0  # a fill value is so many times as far from the next values as these are
SATURATED = 1e-4  # share of pixels at the greatest value of the dtype, likewise
BRIGHTEST = 99.9  # percentile
PLANES, SIDE = 8, 512  # of an array, and pixels of each, that are examined
GRID_BLOCKS = 256  # in which the grid of JPEG is searched
VANISHED = 0.5 / 255  # largest DCT coefficient that JPEG may have rounded to zero
GRID = 3.0  # times as many of those in blocks of JPEG as in blocks that lie otherwise

NOT_VISIBLE = "no white noise is visible in it: it is clean, or was smoothed or resized"
CORRELATED = (
    "its noise is not independent from pixel to pixel, as after resizing, denoising or "
    "demosaicing, or in some cameras"
)
CUT_OFF = "values below darkness were cut off, and its read noise is too strong to do without them"
JPEG = "it was stored as JPEG, which removes part of the noise"


@dataclass(frozen=True)
class NoiseModel:
    """Shot and read noise of a camera, in the units of its data.

    A pixel that receives n photons on average has the value ``offset + gain * N + read_noise * z``
    with N drawn from a Poisson distribution of mean n and z from a standard normal one.

    Attributes
    ----------
    gain : float
        Data value of a photoelectron: the inverse of the conversion factor in electrons per ADU
        that cameras state. 0: no shot noise.
    read_noise : float
        Standard deviation, in data values. Cameras state it in electrons: multiply by the gain.
    offset : float
        Data value of darkness.

    Raises
    ------
    OptionError
        A value is not finite or negative where it can't be, or there is no noise at all.
    """

    gain: float
    read_noise: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "read_noise", "offset"):
            value = float(getattr(self, name))
            if not np.isfinite(value) or (value < 0 and name != "offset"):
                raise OptionError(f"expected {name} as a number of at least 0, got {value:g}")
            object.__setattr__(self, name, value)
        if self.gain == self.read_noise == 0:
            raise OptionError("expected a gain or read noise above 0, got 0 for both")

    @classmethod
    def of_camera(cls, conversion: float, offset: float, read_noise: float) -> NoiseModel:
        """From what cameras state: electrons per ADU, ADU in darkness, read noise in electrons.

        Raises `OptionError` if a value can't be used.
        """
        if not 0 < conversion < np.inf:
            raise OptionError(f"expected electrons per ADU above 0, got {conversion:g}")
        return cls(1 / conversion, read_noise / conversion, offset)

    def variance(self, values: Float32) -> Float32:
        """Variance of the noise where the expected data value is that."""
        signal = np.maximum(values - np.float32(self.offset), 0)
        return np.asarray(self.gain * signal + self.read_noise**2, np.float32)

    def mapped(self, mapping: IntensityMapping) -> NoiseModel:
        """The noise of the data after an intensity mapping."""
        width = mapping.high - mapping.low
        return NoiseModel(
            self.gain / width, self.read_noise / width, (self.offset - mapping.low) / width
        )

    def unmapped(self, mapping: IntensityMapping) -> NoiseModel:
        """The noise of the data before it, the inverse of `mapped`."""
        width = mapping.high - mapping.low
        offset = mapping.low + self.offset * width
        return NoiseModel(self.gain * width, self.read_noise * width, offset)

    def stabilise(self, values: Float32) -> Float32:
        """Values in which noise has the standard deviation `SIGMA` everywhere; darkness is 0.

        The generalised Anscombe transform: M. Makitalo, A. Foi, "Optimal Inversion of the
        Generalized Anscombe Transformation for Poisson-Gaussian Noise", 2013.
        """
        signal = values - np.float32(self.offset)
        stable: Float32 = stabilise(signal, np.float32(self.gain), np.float32(self.read_noise**2))
        return stable

    def restore(self, stable: Float32) -> Float32:
        """What `stabilise` was given: its algebraic inverse."""
        variance = np.float32(self.read_noise**2)
        signal: Float32 = restore(stable, np.float32(self.gain), variance)
        return signal + np.float32(self.offset)

    def of_share(self, share: float) -> NoiseModel:
        """The noise of one part of an image that was split, on the scale of the whole."""
        return NoiseModel(self.gain / share, self.read_noise / share**0.5, self.offset)


def stabilise(signal: Any, gain: Any, read_variance: Any) -> Any:
    """As `NoiseModel.stabilise`, of values above darkness; arrays of numpy or torch."""
    floor = 0.375 * gain**2 + read_variance
    under = gain * signal + floor
    root = ((under + abs(under)) / 2) ** 0.5
    return 2 * SIGMA * signal / (root + floor**0.5)


def restore(stable: Any, gain: Any, read_variance: Any) -> Any:
    """The inverse of `stabilise`, which is linear far below darkness."""
    u = stable / SIGMA
    floor = (0.375 * gain**2 + read_variance) ** 0.5
    root = floor + gain * u / 2
    return u * ((root + abs(root)) / 2 + floor) / 2


def split(
    image: Float32,
    noise: NoiseModel,
    share: float | Float32,
    rng: np.random.Generator,
    counts_only: bool = False,
) -> tuple[Float32, Float32]:
    """Split a noisy image into two of the same scene with independent noise.

    Photons are drawn one by one, as a beam splitter would do; the read noise is split with the help
    of fresh noise (`counts_only`: not at all, for images where shot noise prevails and values below
    darkness were clipped, which would tie the two parts). Without shot noise, fresh Gaussian noise
    is added to one part and subtracted from the other.

    Parameters
    ----------
    image : array of float32
        Of any shape, in the units of the noise model.
    noise : NoiseModel
    share : float or array that fits the shape
        Of the photons, in (0, 1), that go to the second part.
    rng : numpy.random.Generator
    counts_only : bool

    Returns
    -------
    first, second : array of float32
        Each with the expected values of the image; their noise is that of ``1 - share`` and
        ``share`` of the photons, see `NoiseModel.of_share`.

    References
    ----------
    Count splitting: A. Neufeld et al., "Inference after latent variable estimation for single-cell
    RNA sequencing data", Biostatistics 25 (2024). Gaussian noise: T. Pang et al.,
    "Recorrupted-to-Recorrupted", CVPR 2021.
    """
    if noise.gain == 0:
        sigma = np.float32(noise.read_noise)
        z = sigma * rng.standard_normal(image.shape, dtype=np.float32)
        odds = np.sqrt(np.asarray(share, np.float32) / (1 - np.asarray(share, np.float32)))
        return image + z * odds, image - z / odds
    gain, offset = np.float32(noise.gain), np.float32(noise.offset)
    counts = (image - offset) / gain
    whole = np.maximum(np.rint(counts), 0)
    drawn = rng.binomial(whole.astype(np.int64), share).astype(np.float32)
    share = np.asarray(share, np.float32)
    if counts_only:
        counts = whole
    else:
        sigma = np.float32(noise.read_noise / noise.gain)
        z = rng.standard_normal(image.shape, dtype=np.float32)
        drawn += share * (counts - whole) - np.sqrt(share * (1 - share)) * sigma * z
    first, second = (counts - drawn) / (1 - share), drawn / share
    return first * gain + offset, second * gain + offset


@dataclass(frozen=True)
class NoiseEstimate:
    """What images tell about their noise.

    Attributes
    ----------
    noise : NoiseModel or None
        In data values; None if no white noise is visible.
    clipped : bool
        Whether values below darkness were cut off.
    brightest : float
        Photons of the brightest pixels; infinity without shot noise.
    level : float
        Mean data value.
    fault : str
        Why images can't be split with a noise model, as in "image 3: ..."; empty if they can.
    """

    noise: NoiseModel | None
    clipped: bool = False
    brightest: float = np.inf
    level: float = 0.0
    fault: str = ""


def estimate_noise(images: Sequence[Array]) -> NoiseEstimate:
    """Estimate the noise of images of one camera; saturated pixels are left out.

    Sources: as `napari_cfsr.core.image.estimation.estimate_degradation`, of which this is the part
    about noise, with shot noise wherever it fits at all, as photons always have it.

    Parameters
    ----------
    images : list of array [y,x] or [y,x,3]
        In data values of any dtype, at least 32 pixels each way. More pixels are more accurate: for
        50 photons, 2 % from 45 images of 120x120, 12 % from one.

    Returns
    -------
    NoiseEstimate

    Raises
    ------
    ImageError
        There is no image, one is too small, or all pixels have the same value.
    """
    if not images:
        raise ImageError("expected at least one image, got none")
    if len({image.dtype for image in images}) > 1:
        raise ImageError("expected images of one dtype, got several: the noise is that of a camera")
    images = [part for image in images for part in _without_padding(image)]
    mapping = _range(images)
    units = [mapping.to_unit(image) for image in images]
    if min(min(unit.shape[:2]) for unit in units) < LEAST:
        raise ImageError(f"expected images of at least {LEAST}x{LEAST} pixels")
    clipped = bool(np.mean([np.mean(image <= mapping.low) for image in images]) > CLIPPED)
    level = float(np.mean([image.mean() for image in images]))
    noise = _fitted(units)
    found = noise and noise.unmapped(mapping)
    if noise is None or found is None or _is_rounding(images, found):
        return NoiseEstimate(None, clipped, level=level, fault=NOT_VISIBLE)
    top = float(np.percentile(np.concatenate([u.ravel()[::7] for u in units]), BRIGHTEST))
    brightest = max(top - noise.offset, 0) / noise.gain if noise.gain else np.inf
    signal = noise.gain * max(float(np.mean([u.mean() for u in units])) - noise.offset, 0)
    fault = ""
    if _is_jpeg(units):
        fault = JPEG
    elif not _is_white(units):
        fault = CORRELATED
    elif clipped and noise.read_noise**2 > MOST_CUT * signal:
        fault = CUT_OFF
    return NoiseEstimate(found, clipped, float(brightest), level, fault)


def _without_padding(image: Array) -> list[Array]:
    """The image, or squares of it that hold nothing of a fill value far below all others."""
    low = image.min()
    filled = image == low
    if filled.ndim == 3:
        filled = filled.all(-1)
    if not CLIPPED < filled.mean() < 1:
        return [image]
    inside = image[~filled].astype(np.float64)
    values = np.unique(inside)[:NEXT]
    spacing = float(values[-1] - values[0]) / max(len(values) - 1, 1)
    if values[0] - float(low) <= FAR * spacing:
        return [image]
    squares = []
    for y, x in np.ndindex(image.shape[0] // LEAST, image.shape[1] // LEAST):
        at = slice(y * LEAST, (y + 1) * LEAST), slice(x * LEAST, (x + 1) * LEAST)
        if not filled[at].any():
            squares.append(image[at])
    return squares or [image]


def _fitted(units: Sequence[Float32]) -> NoiseModel | None:
    """The noise of images in [0,1]; None if no white noise is visible."""
    bins = _without_detail(noise_bins(units))
    if not np.any((bins.variance > DUST) & (bins.colour < NEARLY_WHITE)):
        return None
    fit, offset = fit_with_offset(bins, units, None)
    if (fit.photons or MANY) >= MANY:
        fit = NoiseFit.of(bins, offset, shot=False)
    return NoiseModel(1 / fit.photons if fit.photons else 0.0, max(fit.read_noise, 1e-9), offset)


def _is_rounding(images: Sequence[Array], noise: NoiseModel) -> bool:
    """Whether the noise of integers is little more than rounding explains."""
    if images[0].dtype.kind not in "iu":
        return False
    means = [noise.variance(image.astype(np.float32)).mean() for image in images]
    return float(np.mean(means)) < ROUNDING


def sample_noise(
    array: ArrayLike, axes: Axes, check: Callable[[], None] = lambda: None
) -> list[NoiseEstimate]:
    """Estimate the noise of each channel of an array from the middle of some of its planes."""
    ys, xs = (slice(max(0, (n - SIDE) // 2), (n + SIDE) // 2) for n in (axes.height, axes.width))
    colours = axes.samples - axes.has_alpha
    parts: list[list[Array]] = [[] for _ in range(axes.channels)]
    planes = list(axes.planes())
    for channel, found in enumerate(parts):
        own = [plane for plane in planes if axes.channel_of(plane) == channel]
        for i in range(min(len(own), PLANES)):
            check()
            plane = own[i * len(own) // min(len(own), PLANES)]
            part = np.moveaxis(axes.read(array, plane, ys, xs)[:colours], 0, -1)
            if np.isfinite(part).all():
                found.append(part[..., 0] if colours == 1 else part)
    return [_sampled(images) for images in parts]


def _sampled(images: list[Array]) -> NoiseEstimate:
    """Of images that can't be used, that no noise is visible."""
    try:
        return estimate_noise(images)
    except ImageError as error:
        return NoiseEstimate(None, fault=str(error))


def _without_detail(bins: Bins) -> Bins:
    """Less what detail adds to the finest coefficients, judged by the coarser ones."""
    detail = np.maximum(bins.colour - 1, 0) * DETAIL
    return replace(bins, variance=bins.variance * np.maximum(1 - detail, 0.5))


def _range(images: Sequence[Array]) -> IntensityMapping:
    """From darkness to the greatest value, as cameras clip them: what becomes 0 and 1."""
    dtype = images[0].dtype
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    cut_off = np.mean([np.mean(image == low) for image in images]) > CLIPPED
    if low == high:
        raise ImageError(f"expected images with contrast, got {low:g} everywhere")
    top = dtype_range(dtype)[1]
    full = np.mean([np.mean(image == top) for image in images]) > SATURATED
    # a range above all values: none of them is saturated
    return IntensityMapping(
        low if cut_off else min(low, 0.0), high if full else 1.05 * high, dtype.name
    )


def _is_white(units: Sequence[Float32]) -> bool:
    """Whether fine noise is as strong along both axes as along one, in the flattest blocks."""
    planes = planes_of(units)
    blocks = np.concatenate([blocks_of(plane, block_step(planes)) for plane in planes])
    blocks = blocks[(blocks.max((1, 2)) < 1) & (blocks.min((1, 2)) > 0)]
    if len(blocks) < LEVELS:
        return True
    powers, means = powers_of(blocks), blocks.mean((1, 2))
    detail = powers[:, bands()[0]].mean(1)
    ratios = []
    count = max(FEWEST, int(FLATTEST * len(blocks) / LEVELS))
    for low, high in pairwise(np.quantile(means, np.linspace(0, 1, LEVELS + 1))):
        inside = np.flatnonzero((means >= low) & (means <= high))
        power = powers[inside[np.argsort(detail[inside])[:count]]].mean(0)
        along = max(power[FINE:, 1:4].mean(), power[1:4, FINE:].mean())
        ratios.append(along / max(power[FINE:, FINE:].mean(), DUST**2))
    # detail can only add, and does so less at some intensities than at others
    return bool(min(ratios) < WHITE + UNSURE / count**0.5)


def _is_jpeg(units: Sequence[Float32]) -> bool:
    """Whether fine DCT coefficients vanish in blocks of one grid, but not of others."""
    largest = max(planes_of(units), key=lambda plane: float(plane.std()))
    shares = []
    for dy, dx in np.ndindex(BLOCK, BLOCK):
        blocks = blocks_of(largest[dy:, dx:], BLOCK)
        blocks = blocks[:: max(1, len(blocks) // GRID_BLOCKS)]
        fine = powers_of(blocks)[:, BLOCK // 2 :, BLOCK // 2 :]
        shares.append(float(np.mean(fine < VANISHED**2)))
    return bool(max(shares) > GRID * np.median(shares) + 0.02)
