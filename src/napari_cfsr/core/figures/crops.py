"""The squares that a figure magnifies: given, or where the detail is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import OptionError

SHARE = 4  # of the shorter side that a square takes by default
SMALLEST, LARGEST = 48, 128  # HR pixels; sides by default, where the image is large enough


@dataclass(frozen=True)
class Crop:
    """A square, in HR pixels.

    Attributes
    ----------
    top, left : int
        Its first row and column.
    side : int
    """

    top: int
    left: int
    side: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """A crop from `Y,X,SIZE`; raises `OptionError` for any other text."""
        parts = text.split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise OptionError(f"expected --crop Y,X,SIZE in HR pixels, got {text!r}")
        top, left, side = (int(part) for part in parts)
        return cls(top, left, side)

    def check(self, height: int, width: int) -> None:
        """Raise `OptionError` unless it has pixels and lies within an image of this size."""
        inside = self.top + self.side <= height and self.left + self.side <= width
        if self.side < 1 or self.top < 0 or self.left < 0 or not inside:
            raise OptionError(
                f"expected a crop within {height}x{width} HR pixels, got {self}: its first row, "
                "first column and side"
            )

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """That part of an image [Y,X] or [Y,X,C]; a view."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def __str__(self) -> str:
        return f"{self.top},{self.left},{self.side}"


def default_side(height: int, width: int, scale: int) -> int:
    """A side that shows detail and still is easy to find in the whole; a multiple of the scale."""
    shorter = min(height, width)
    side = min(max(shorter // SHARE, SMALLEST), LARGEST, max(shorter // 2, 1))
    return max(side // scale * scale, min(scale, shorter))


def busiest(image: NDArray[Any], side: int, scale: int = 1) -> Crop:
    """The square with the most detail, its corner on a whole LR pixel.

    Parameters
    ----------
    image : array [Y,X] or [Y,X,C]
        Values that are not finite count as 0.
    side : int
        At most the shorter side of the image.
    scale : int
        The corner is a multiple of it.
    """
    gray = image.astype(np.float64)
    gray = gray.mean(-1) if gray.ndim == 3 else gray
    gray[~np.isfinite(gray)] = 0
    detail = np.zeros_like(gray)
    detail[:-1] += np.abs(np.diff(gray, axis=0))
    detail[:, :-1] += np.abs(np.diff(gray, axis=1))
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    )[::scale, ::scale]
    top, left = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return Crop(int(top) * scale, int(left) * scale, side)
