"""Two images to compare: checked, cropped to fit, and read in strips of rows.

Only one strip at a time is held as float64, so images of any size need little memory, and a
computation can be stopped between two strips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError, OptionError

Channel = Literal["Y", "RGB", "gray"]
Float64 = NDArray[np.float64]

CHANNELS: tuple[Channel, ...] = ("Y", "RGB", "gray")
LUMA = (65.481, 128.553, 24.966)  # ITU-R BT.601, RGB in [0,1] to Y in [16,235], as in MATLAB
STRIP_VALUES = 2**18  # values of an image in a strip
MOST_EXCESS = 3  # pixels that HR at its original size has beyond LR size x 4, at most


def luma(image: NDArray[Any], whole: float = 1.0) -> Float64:
    """Luma in [16/255, 235/255] of RGB in [0, `whole`], [...,3], as by MATLAB's `rgb2ycbcr`.

    Source: ITU-R BT.601.
    """
    red, green, blue = (weight / 255.0 / whole for weight in LUMA)
    y: Float64 = np.multiply(image[..., 0], red, dtype=np.float64)
    part = np.multiply(image[..., 1], green, dtype=np.float64)
    y += part
    y += np.multiply(image[..., 2], blue, dtype=np.float64, out=part)
    y += 16.0 / 255.0
    return y


def row_strips(height: int, step: int, window: int = 1) -> Iterator[slice]:
    """Rows of each strip, from top to bottom, of at most `step` windows.

    Each window of rows lies within one strip: neighbouring strips overlap by one row less.
    """
    overlap = window - 1
    for start in range(0, height - overlap, step):
        yield slice(start, min(start + step + overlap, height))


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of both images."""

    a: Float64  # [rows,X] or [rows,X,C], in units of the data range
    b: Float64
    rows: slice  # which rows of the images, border left out

    @property
    def planes(self) -> Iterator[tuple[Float64, Float64]]:
        """Both images [rows,X], channel by channel."""
        if self.a.ndim == 2:
            yield self.a, self.b
            return
        for channel in range(self.a.shape[2]):
            yield self.a[..., channel], self.b[..., channel]


@dataclass(frozen=True, eq=False)
class ImagePair:
    """An image, its reference, and how to compare them.

    Raises
    ------
    ImageError
        The shapes differ, or nothing is left inside the border.
    OptionError
        An option does not exist or does not fit the images.
    """

    image: NDArray[Any]  # [Y,X] or [Y,X,C], in the units of `data_range`
    reference: NDArray[Any]
    shave: int = 0  # border pixels left out at each side
    channel: Channel = "RGB"
    data_range: float = 1.0  # greatest possible value minus the least

    def __post_init__(self) -> None:
        image, reference, shave = self.image, self.reference, self.shave
        if image.shape != reference.shape:
            raise ImageError(
                f"expected images of the same shape, got {image.shape} and {reference.shape}"
            )
        if self.channel not in CHANNELS:
            raise OptionError(f'expected channel "Y", "RGB" or "gray", got {self.channel!r}')
        if shave < 0 or not 0 < self.data_range < float("inf"):
            raise OptionError(
                f"expected shave >= 0 and data_range > 0, got {shave} and {self.data_range}"
            )
        if self.channel == "Y" and (image.ndim != 3 or image.shape[-1] < 3):
            raise OptionError(f'expected RGB images for channel "Y", got shape {image.shape}')
        if image.ndim < 2:
            raise ImageError(f"expected [Y,X] or [Y,X,C], got shape {image.shape}")
        if image.size == 0 or min(image.shape[:2]) <= 2 * shave:
            raise ImageError(f"expected pixels inside a border of {shave}, got shape {image.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """What is left: [Y,X], or [Y,X,C] if the channels are kept."""
        height, width = (n - 2 * self.shave for n in self.image.shape[:2])
        return height, width, *(() if self.channel == "Y" else self.image.shape[2:])

    def strips(self, check: Callable[[], None], window: int = 1) -> Iterator[Strip]:
        """All rows, from top to bottom; `check` is called before each and may raise to stop."""
        step = max(window, STRIP_VALUES // max(1, int(np.prod(self.image.shape[1:]))))
        for rows in row_strips(self.shape[0], step, window):
            check()
            yield Strip(self._values(self.image, rows), self._values(self.reference, rows), rows)

    def _values(self, image: NDArray[Any], rows: slice) -> Float64:
        """Rows of the channel, border left out, in units of the data range."""
        columns = slice(self.shave, image.shape[1] - self.shave)
        part = image[rows.start + self.shave : rows.stop + self.shave, columns]
        values: Float64 = part.astype(np.float64) / self.data_range
        return luma(values) if self.channel == "Y" else values


def mod_crop(
    image: NDArray[Any], reference: NDArray[Any], scale: int | None = None
) -> tuple[NDArray[Any], str]:
    """Crop the rows and columns of a reference that have no counterpart in the image.

    Data sets in the EDSR layout hold HR images at their original size, but their LR images were
    made after cropping HR to a multiple of the scale (the mod-crop rule). So an upscaled image is
    up to ``scale - 1`` pixels smaller at the bottom and right.

    With a known scale, the size of the image must be a multiple of it, and at most ``scale - 1``
    pixels are cropped; otherwise up to 3, which holds for x2, x3 and x4. Returns a view of the
    reference, and what was cropped (empty if the sizes are the same). Raises `ImageError` if the
    shapes differ in any other way.
    """
    shape, wanted = np.shape(reference), np.shape(image)
    if shape == wanted:
        return reference, ""
    most = MOST_EXCESS if scale is None else scale - 1
    excess = [n - m for n, m in zip(shape[:2], wanted[:2], strict=False)]
    fits = len(excess) == 2 and all(0 <= n <= most for n in excess) and shape[2:] == wanted[2:]
    if not fits or (scale is not None and any(n % scale for n in wanted[:2])):
        raise ImageError(
            f"expected images of the same shape, or a reference that is at most {most} pixel"
            f"{'s' * (most != 1)} larger in Y and X (HR at its original size), got image {wanted} "
            f"and reference {shape}: choose the HR image of the same scene, for the same scale"
        )
    height, width = wanted[:2]
    note = f"reference cropped from {shape[0]}x{shape[1]} to {height}x{width} (bottom and right)"
    return reference[:height, :width], note
