"""PSNR and SSIM of several results against one reference, in one pass.

The figures are those of `napari_cfsr.core.metrics.image_metrics`, PSNR to the last digit and SSIM
to 1e-6, in a fraction of the time: what depends on the reference alone is computed once, the two
variances of SSIM are needed as a sum only, its windows are matrix products in float32, and no
array is larger than a strip of rows, so all of them stay in the cache. An evaluation is to cost
little beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.evaluate.report import Scores
from napari_cfsr.core.metrics import (
    SIGMA,
    WINDOW,
    Channel,
    Float64,
    ImagePair,
    check_windows,
    decibels,
    luma,
)

Float32 = NDArray[np.float32]

STRIP_VALUES = 2**17  # of a channel, in a strip
LARGEST_STRIP = 256  # rows
BLOCK = 32  # rows or columns that one matrix product gives: more has more zeros, less more calls
LARGEST_PRODUCT = 384  # columns; larger ones wake the threads of BLAS, which the model needs
MIDDLE = np.float32(0.5)  # is taken off before squaring, so that float32 has digits enough
C1, C2 = np.float32(0.01**2), np.float32(0.03**2)  # of SSIM


def measure(
    images: Mapping[str, NDArray[Any]],
    reference: NDArray[Any],
    channel: Channel = "Y",
    shave: int = 0,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Scores]:
    """PSNR and SSIM of each image as it is, and rounded to 8 bits.

    Parameters
    ----------
    images : dict of array [Y,X] or [Y,X,3] of float
        In [0,1], by name.
    reference : array of the same shape
        Float in [0,1], or uint8 or uint16, which are divided by 255 or 65535.
    channel, shave
        As for `psnr`.
    check : callable
        Called several times a second; an exception from it ends the computation.

    Raises
    ------
    ImageError, OptionError
        As for `ssim`.
    """
    for image in images.values():
        check_windows(ImagePair(image, reference, shave, channel))
    totals = {name: (_Total(), _Total()) for name in images}
    for strip in _strips(reference.shape, shave):
        check()
        target = [_Plane.of(plane) for plane in _planes(strip.of(reference), channel)]
        for name, image in images.items():
            part = strip.of(image)
            for total, seen in zip(totals[name], (part, _in_8_bits(part)), strict=True):
                for plane, wanted in zip(_planes(seen, channel), target, strict=True):
                    total.add(plane, wanted, strip.fresh)
    found = {}
    for name, (as_it_is, in_8_bits) in totals.items():
        found[name] = Scores(as_it_is.psnr, as_it_is.ssim, in_8_bits.psnr, in_8_bits.ssim)
    return found


@dataclass(frozen=True)
class _Strip:
    """Rows and columns of an image; each window of SSIM lies within one strip."""

    rows: slice
    columns: slice
    fresh: slice  # rows, of these, that no strip before has

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        part: NDArray[Any] = image[self.rows, self.columns]
        return part


def _strips(shape: tuple[int, ...], shave: int) -> Iterator[_Strip]:
    """All of them; neighbours overlap by the window less one row."""
    top, bottom = shave, shape[0] - shave
    columns = slice(shave, shape[1] - shave)
    step = min(max(WINDOW, STRIP_VALUES // shape[1]), LARGEST_STRIP)
    overlap = WINDOW - 1
    for start in range(top, bottom - overlap, step):
        stop = min(start + step + overlap, bottom)
        yield _Strip(slice(start, stop), columns, slice(overlap if start > top else 0, None))


def _whole(image: NDArray[Any]) -> float:
    """The value that stands for 1."""
    return 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)


def _in_8_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """As `upscale` rounds: in the precision of the image."""
    values = image * 255
    np.rint(values, out=values)
    rounded: NDArray[np.uint8] = values.astype(np.uint8)
    return rounded


def _planes(image: NDArray[Any], channel: Channel) -> list[Float64]:
    """What is compared, in [0,1], a plane for each channel."""
    if channel == "Y":
        return [luma(image, whole=_whole(image))]
    values = image / np.float64(_whole(image))
    return [values] if image.ndim == 2 else [values[..., c] for c in range(image.shape[-1])]


def _weights() -> Float32:
    """Band matrix [BLOCK, BLOCK + WINDOW - 1]: a row for each window."""
    offset = np.arange(WINDOW) - WINDOW // 2
    gauss = np.exp(-(offset**2) / (2 * SIGMA**2))
    band = np.zeros((BLOCK, BLOCK + WINDOW - 1), np.float32)
    for row in range(BLOCK):
        band[row, row : row + WINDOW] = gauss / gauss.sum()
    return band


WEIGHTS = _weights()
TURNED = np.ascontiguousarray(WEIGHTS.T)  # BLAS takes half as long again for a view of it


def _local(image: Float32) -> Float32:
    """Mean of each window that lies wholly within the image, weighted by a Gaussian."""
    beyond = WINDOW - 1
    height, width = (n - beyond for n in image.shape)
    columns = np.empty((height, width + beyond), np.float32)
    for top in range(0, height, BLOCK):
        n = min(BLOCK, height - top)
        for left in range(0, width + beyond, LARGEST_PRODUCT):
            part = slice(left, left + LARGEST_PRODUCT)
            source = image[top : top + n + beyond, part]
            np.matmul(WEIGHTS[:n, : n + beyond], source, out=columns[top : top + n, part])
    mean = np.empty((height, width), np.float32)
    for left in range(0, width, BLOCK):
        n = min(BLOCK, width - left)
        source = columns[:, left : left + n + beyond]
        np.matmul(source, TURNED[: n + beyond, :n], out=mean[:, left : left + n])
    return mean


@dataclass(frozen=True, eq=False)
class _Plane:
    """A plane of the reference, and what is needed of it for each image.

    Attributes
    ----------
    values : array [Y,X]
    twice, squares : array [Y,X]
        Of the values less the middle: ``2 b`` and ``b b``.
    twice_mean, mean_squared : array [Y,X], a window less
        Of their windows: ``2 mean b`` and ``mean b mean b - C2``.
    twice_light, light_squared : array [Y,X], a window less
        With the middle: ``2 (mean b + m)`` and ``(mean b + m) (mean b + m) + C1``.
    """

    values: Float64
    twice: Float32
    squares: Float32
    twice_mean: Float32
    mean_squared: Float32
    twice_light: Float32
    light_squared: Float32

    @classmethod
    def of(cls, values: Float64) -> _Plane:
        centred = _centred(values)
        mean = _local(centred)
        light = mean + MIDDLE
        return cls(
            values,
            twice=2 * centred,
            squares=centred * centred,
            twice_mean=2 * mean,
            mean_squared=mean * mean - C2,
            twice_light=2 * light,
            light_squared=light * light + C1,
        )


@dataclass
class _Total:
    """Adds up the strips of one image."""

    error: float = 0.0
    values: int = 0
    similarity: float = 0.0
    windows: int = 0

    def add(self, plane: Float64, wanted: _Plane, fresh: slice) -> None:
        """Another plane of another strip."""
        difference = plane[fresh] - wanted.values[fresh]
        difference *= difference
        self.error += float(difference.sum())
        self.values += difference.size
        similarity = _similarity(_centred(plane), wanted)
        self.similarity += float(similarity.sum(axis=1).sum(dtype=np.float64))
        self.windows += similarity.size

    @property
    def psnr(self) -> float:
        return decibels(self.error / self.values)

    @property
    def ssim(self) -> float:
        return self.similarity / self.windows


def _centred(plane: Float64) -> Float32:
    values = plane.astype(np.float32)
    values -= MIDDLE
    return values


def _similarity(centred: Float32, wanted: _Plane) -> Float32:
    """SSIM of each window: ``(2 ab + C1) (2 cov + C2) / ((aa + bb + C1) (var a + var b + C2))``.

    In place where it can be: an array that is new has to be fetched into the cache.
    """
    mean = _local(centred)
    covariance = _local(centred * wanted.twice)
    covariance -= mean * wanted.twice_mean
    covariance += C2
    squares = centred * centred
    squares += wanted.squares
    variances = _local(squares)
    squares = mean * mean
    squares += wanted.mean_squared
    variances -= squares
    mean += MIDDLE
    similarity = mean * wanted.twice_light
    similarity += C1
    similarity *= covariance
    mean *= mean
    mean += wanted.light_squared
    mean *= variances
    similarity /= mean
    return similarity
