"""PSNR and SSIM of several results against one reference, in one pass.

The figures are those of `napari_cfsr.core.metrics`, PSNR to the last digit and SSIM to 1e-6, in a
quarter of the time: what depends on the reference alone is computed once, the two variances of SSIM
are needed as a sum only, its windows are matrix products in float32, and no array is larger than a
strip of rows, so all of them stay in the cache. An evaluation is to cost little beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.benchmark_report import Scores
from napari_cfsr.core.image_pair import Channel, Float64, ImagePair, luma
from napari_cfsr.core.metrics import SIGMA, WINDOW, check_windows, decibels

Float32 = NDArray[np.float32]

STRIP_VALUES = 2**17  # of a channel, in a strip
LARGEST_STRIP = 256  # rows
BLOCK = 22  # rows or columns that one matrix product gives: more has more zeros, less more calls
LARGEST_PRODUCT = 512  # columns; larger ones wake the threads of BLAS, which the model needs
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
        target = [_Plane.of(plane) for plane in _planes(_unit(strip.of(reference)), channel)]
        for name, image in images.items():
            part = strip.of(image)
            for total, seen in zip(totals[name], (part, _in_8_bits(part)), strict=True):
                for plane, wanted in zip(_planes(_unit(seen), channel), target, strict=True):
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


def _unit(image: NDArray[Any]) -> Float64:
    """In [0,1]."""
    if image.dtype.kind == "f":
        return image.astype(np.float64)
    values: Float64 = image / float(np.iinfo(image.dtype).max)
    return values


def _in_8_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """As `upscale` rounds: in the precision of the image."""
    rounded: NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
    return rounded


def _planes(image: Float64, channel: Channel) -> list[Float64]:
    """What is compared, a plane for each channel."""
    if channel == "Y":
        return [luma(image)]
    return [image] if image.ndim == 2 else [image[..., c] for c in range(image.shape[-1])]


def _weights() -> Float32:
    """Band matrix [BLOCK, BLOCK + WINDOW - 1]: a row for each window."""
    offset = np.arange(WINDOW) - WINDOW // 2
    gauss = np.exp(-(offset**2) / (2 * SIGMA**2))
    band = np.zeros((BLOCK, BLOCK + WINDOW - 1), np.float32)
    for row in range(BLOCK):
        band[row, row : row + WINDOW] = gauss / gauss.sum()
    return band


WEIGHTS = _weights()


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
        np.matmul(source, WEIGHTS[:n, : n + beyond].T, out=mean[:, left : left + n])
    return mean


@dataclass(frozen=True, eq=False)
class _Plane:
    """A plane of the reference, and what is needed of it for each image."""

    values: Float64
    centred: Float32
    squares: Float32
    mean: Float32
    mean_squared: Float32

    @classmethod
    def of(cls, values: Float64) -> _Plane:
        centred = values.astype(np.float32) - MIDDLE
        mean = _local(centred)
        return cls(values, centred, centred * centred, mean, mean * mean)


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
        similarity = _similarity(plane.astype(np.float32) - MIDDLE, wanted)
        self.similarity += float(similarity.sum(dtype=np.float64))
        self.windows += similarity.size

    @property
    def psnr(self) -> float:
        return decibels(self.error / self.values)

    @property
    def ssim(self) -> float:
        return self.similarity / self.windows


def _similarity(centred: Float32, wanted: _Plane) -> Float32:
    """SSIM of each window: ``(2 ab + C1) (2 cov + C2) / ((aa + bb + C1) (var a + var b + C2))``."""
    mean = _local(centred)
    product, squares = mean * wanted.mean, mean * mean + wanted.mean_squared
    shared = _local(centred * wanted.centred) - product
    spread = _local(centred * centred + wanted.squares) - squares
    # of the means, the middle was taken off: (a + m) (b + m) = ab + m (a + b) + m m
    rest = (mean + wanted.mean + MIDDLE) * MIDDLE
    above = (2 * (product + rest) + C1) * (2 * shared + C2)
    below = (squares + 2 * rest + C1) * (spread + C2)
    return (above / below).astype(np.float32, copy=False)
