"""A level of a stored pyramid for a viewer: axes in the image's order, read when sliced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import ArrayLike, Axes
from napari_cfsr.core.io import LazyImage

Array = NDArray[Any]
LUMA = (0.299, 0.587, 0.114)  # BT.601
RANGE_PIXELS = 2**23  # at most, to find a range, unless one plane has more


class LevelView:
    """An array with its axes in another order; reads only what is sliced.

    The source is sliced with one slice of step 1 for each axis; `order` is, for each of its axes,
    the axis in the view. `luma`: colour samples, the last axis, are reduced to luma.
    """

    def __init__(self, source: ArrayLike, order: Sequence[int], luma: bool = False) -> None:
        self._source = source
        self._axis = [list(order).index(i) for i in range(len(order))]  # of the source
        self._whole = tuple(source.shape[i] for i in self._axis)
        # gray and alpha is left as it is
        self._luma = (LUMA if self._whole[-1] == 3 else (1.0,)) if luma else ()
        self.shape = self._whole[:-1] if luma else self._whole
        self.dtype = np.dtype(np.float32) if luma else np.dtype(source.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __dask_tokenize__(self) -> str:
        return f"level-{id(self)}"  # without reading it

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> Array:
        """Index as in numpy: integers, slices, an ellipsis, and lists of integers."""
        read: list[slice] = []
        then: list[Any] = []
        for k, n in zip(_filled(key, self.ndim), self.shape, strict=True):
            if isinstance(k, slice) and (k.step or 1) > 0:
                start, stop, step = k.indices(n)
                read.append(slice(start, max(start, stop)))
                then.append(slice(None, None, step))
            elif isinstance(k, int | np.integer):
                if not -n <= k < n:
                    raise IndexError(f"expected an index below {n}, got {k}")
                read.append(slice(int(k) % n, int(k) % n + 1))
                then.append(0)
            else:
                read.append(slice(0, n))
                then.append(k)
        if self._luma:
            read.append(slice(0, len(self._luma)))
        where = [slice(0)] * len(read)
        for part, axis in zip(read, self._axis, strict=True):
            where[axis] = part
        values = np.asarray(self._source[tuple(where)]).transpose(self._axis)
        if self._luma:
            values = values @ np.array(self._luma, np.float32)
        result: Array = values[tuple(then)]
        return result


def _filled(key: Any, ndim: int) -> tuple[Any, ...]:
    """A key for each dimension."""
    keys = key if isinstance(key, tuple) else (key,)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    before, after = keys[:at], keys[at + 1 :]
    missing = ndim - len(before) - len(after)
    if missing < 0:
        raise IndexError(f"expected at most {ndim} indices, got {len(before) + len(after)}")
    return (*before, *[slice(None)] * missing, *after)


def viewed(image: LazyImage, luma: bool = False) -> tuple[list[LevelView], str]:
    """The levels of an image with colour samples last, and a letter for each of their axes."""
    axes = image.axes.replace("S", "") + "S" * ("S" in image.axes)
    order = [axes.index(name) for name in image.axes]
    levels = [LevelView(level, order, luma) for level in image.levels]
    return levels, axes.replace("S", "") if luma else axes


def level_range(level: LevelView, axes: str) -> tuple[float, float]:
    """Minimum and maximum of the finite values of a level, from all planes or a sample; else zeros.

    A stack has as many planes at its smallest level as at its largest, which may not fit in memory.
    """
    layout = Axes(axes, level.shape)
    planes = list(layout.planes())
    chosen = min(len(planes), max(1, RANGE_PIXELS * len(planes) // max(level.size, 1)))
    low, high = np.inf, -np.inf
    for n in np.linspace(0, len(planes) - 1, chosen).round().astype(int).tolist():
        plane = level[layout.index(planes[n], slice(None), slice(None))]
        finite = plane[np.isfinite(plane)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)
