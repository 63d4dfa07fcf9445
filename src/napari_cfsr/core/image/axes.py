"""Axes of an array: which are space, which is colour, and which are looped over.

An axes string names every dimension, as in tifffile and OME: `Y` and `X` are the plane that is
upscaled, `S` colour samples (gray, gray+alpha, RGB, RGBA), `C` independent channels. All other
letters (`T`, `Z`, ...) are looped over. A last axis `C` of length 3 or 4 is taken for colour
samples, as photographs have them, unless `rgb=False`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError

Plane = tuple[int, ...]  # one index for each looped axis, in the order of the array


class ArrayLike(Protocol):
    """Anything with shape, dtype and slicing: numpy, dask and zarr arrays, memory maps."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Axes:
    """Axes of an array."""

    names: str  # one upper-case letter for each dimension; colour samples are `S`
    shape: tuple[int, ...]  # size of each dimension, in pixels or counts

    @property
    def height(self) -> int:
        return self.shape[self.names.index("Y")]

    @property
    def width(self) -> int:
        return self.shape[self.names.index("X")]

    @property
    def samples(self) -> int:
        """Colour samples per pixel, alpha included: 1, 2, 3 or 4."""
        return self.shape[self.names.index("S")] if "S" in self.names else 1

    @property
    def has_alpha(self) -> bool:
        return self.samples in (2, 4)

    @property
    def spatial(self) -> tuple[int, int]:
        """Positions of Y and X."""
        return self.names.index("Y"), self.names.index("X")

    @property
    def looped(self) -> tuple[int, ...]:
        """Dimensions that are looped over, in the order of the array."""
        return tuple(i for i, name in enumerate(self.names) if name not in "YXS")

    @property
    def channels(self) -> int:
        """Length of the axis of independent channels, 1 if there is none."""
        return self.shape[self.names.index("C")] if "C" in self.names else 1

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    def scaled(self, scale: int) -> tuple[int, ...]:
        """Shape of the array `scale` times larger in Y and X."""
        return tuple(n * scale if i in self.spatial else n for i, n in enumerate(self.shape))

    def planes(self) -> Iterator[Plane]:
        """Index of each plane; the last axis varies fastest."""
        return iter(np.ndindex(*(self.shape[i] for i in self.looped)))

    @property
    def plane_count(self) -> int:
        return math.prod(self.shape[i] for i in self.looped)

    def channel_of(self, plane: Plane) -> int:
        """The independent channel of a plane."""
        if "C" not in self.names:
            return 0
        return plane[self.looped.index(self.names.index("C"))]

    def index(self, plane: Plane, y: slice, x: slice) -> tuple[int | slice, ...]:
        """Index into the array of a region of one plane, all samples."""
        where: list[int | slice] = [slice(None)] * len(self.shape)
        for axis, i in zip(self.looped, plane, strict=True):
            where[axis] = i
        where[self.spatial[0]], where[self.spatial[1]] = y, x
        return tuple(where)

    def read(self, array: ArrayLike, plane: Plane, y: slice, x: slice) -> NDArray[Any]:
        """A region of one plane as [S,h,w], in the array's dtype and native byte order."""
        region = np.asarray(array[self.index(plane, y, x)])
        order = self._order()
        region = region.transpose(order) if "S" in self.names else region.transpose(order)[None]
        return region.astype(region.dtype.newbyteorder("="), copy=False)

    def write(
        self, array: NDArray[Any], plane: Plane, y: slice, x: slice, region: NDArray[Any]
    ) -> None:
        """Put [S,h,w] into a region of one plane of `array`."""
        target = array[self.index(plane, y, x)].transpose(self._order())
        samples = target if "S" in self.names else target[None]
        # one by one: numpy takes four times as long to interleave colours in one assignment
        for sample, values in zip(samples, region, strict=True):
            sample[...] = values

    def _order(self) -> tuple[int, ...]:
        """Transposition from the array's order of S, Y, X to S, Y, X."""
        here = [name for name in self.names if name in "SYX"]
        return tuple(here.index(name) for name in "SYX" if name in here)


def parse_axes(axes: str | None, shape: tuple[int, ...], rgb: bool | None = None) -> Axes:
    """Axes of an array from a string such as `"TZYX"`.

    Parameters
    ----------
    axes : str or None
        One letter for each dimension. May be None for [Y,X] and [Y,X,3 or 4].
    shape : tuple of int
        Shape of the array.
    rgb : bool, optional
        Whether `C` are the colour samples of one image (True) or independent channels (False).
        By default it is colour if it is the last axis and has length 3 or 4.

    Returns
    -------
    Axes

    Raises
    ------
    ImageError
        The string does not fit the shape, or Y or X is missing.
    """
    if axes is None:
        if len(shape) == 2:
            axes = "YX"
        elif len(shape) == 3 and shape[-1] in (3, 4):
            axes = "YXC"
        else:
            raise ImageError(
                f"expected axes for an array of shape {shape}, got none: name every dimension, "
                f'for example axes="{"TZCYX"[-len(shape) :]}"'
            )
    names = axes.upper()
    if len(names) != len(shape):
        raise ImageError(
            f"expected one letter for each of the {len(shape)} dimensions of {shape}, got "
            f'axes="{axes}"'
        )
    if len(set(names)) != len(names) or not names.isalpha():
        raise ImageError(f'expected different letters, got axes="{axes}"')
    if "Y" not in names or "X" not in names:
        raise ImageError(f'expected both Y and X among the axes, got axes="{axes}"')
    if "C" in names and "S" not in names:
        if rgb is None:
            rgb = names[-1] == "C" and shape[-1] in (3, 4)
        if rgb:
            names = names.replace("C", "S")
    result = Axes(names, tuple(int(n) for n in shape))
    if result.samples not in (1, 2, 3, 4) and not result.is_empty:
        raise ImageError(
            f"expected 1 to 4 colour samples (gray, gray+alpha, RGB, RGBA), got {result.samples} "
            f'on axes="{axes}": pass rgb=False if they are independent channels'
        )
    return result
