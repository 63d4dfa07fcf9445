"""The layout of results in an OME-Zarr store: order of axes, pyramid, chunks, shards.

A shard is one file and holds the result of one block, so a block is written whole and never touched
again; readers take its chunks one by one. Each level of the pyramid is the mean of 2x2 pixels of
the level before, in shards of the same size: four of them make one of the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.upscale import BlockPlan, Index
from napari_cfsr.errors import ImageError

Array = NDArray[Any]

STORED = "TCZYX"  # the order that OME-Zarr requires; colour samples and other axes are stored as C
CHUNK = 512  # pixels along Y and X, approximately
LEAST_CHUNK = 128
SMALLEST_LEVEL = 1024  # pixels; the pyramid ends there


@dataclass(frozen=True, order=True)
class ShardIndex:
    """One shard of one level, of each output: what is written at a time."""

    level: int  # 0 is full resolution
    index: Index  # one number for each stored axis


@dataclass(frozen=True)
class LevelShape:
    """One array of a pyramid, in the stored order of axes."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]


@dataclass(frozen=True)
class StoreLayout:
    """Where the outputs of a plan are stored."""

    axes: str  # letters in stored order; colour samples are `S`
    order: tuple[int, ...]  # for each stored axis, the dimension of the image
    sides: tuple[int, ...]  # of a shard in output pixels, stored order
    shape: tuple[int, ...]  # of the baseline, stored order
    sizes: tuple[tuple[int, int], ...]  # height and width of each level

    def stored(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values for each dimension of the image, in stored order."""
        return tuple(values[i] for i in self.order)

    def block(self, shard: ShardIndex) -> Index:
        """The block of the plan that a shard of level 0 holds."""
        return tuple(shard.index[self.order.index(i)] for i in range(len(self.order)))

    def level_shape(self, shape: tuple[int, ...], level: int) -> LevelShape:
        """The array of a level, for an output of this shape (in the image's order)."""
        stored = (*self.stored(shape)[:-2], *self.sizes[level])
        chunks = [1] * (len(stored) - 2) + [_chunk(side) for side in self.sides[-2:]]
        if "S" in self.axes:
            s = self.axes.index("S")
            chunks[s] = stored[s]
        shards = tuple(
            c if c == n else min(side, -(-n // c) * c)
            for c, side, n in zip(chunks, self.sides, stored, strict=True)
        )
        return LevelShape(stored, tuple(chunks), shards)

    def grid(self, level: int) -> tuple[int, ...]:
        """Number of shards along each stored axis of a level."""
        stored = (*self.shape[:-2], *self.sizes[level])
        return tuple(-(-n // side) for n, side in zip(stored, self.sides, strict=True))

    def where(self, shard: ShardIndex, level_shape: LevelShape) -> tuple[slice, ...]:
        """The part of a level's array that a shard covers."""
        return tuple(
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(shard.index, self.sides, level_shape.shape, strict=True)
        )

    def shards(self) -> Iterator[ShardIndex]:
        """All shards, each after those that it is made from."""
        top = len(self.sizes) - 1
        for index in np.ndindex(*self.grid(top)):
            yield from self._with_parts(ShardIndex(top, index))

    def _with_parts(self, shard: ShardIndex) -> Iterator[ShardIndex]:
        for part in self.parts(shard):
            yield from self._with_parts(part)
        yield shard

    def parts(self, shard: ShardIndex) -> list[ShardIndex]:
        """The shards of the level before that a shard is made from; none at level 0."""
        if shard.level == 0:
            return []
        rows, columns = self.grid(shard.level - 1)[-2:]
        *planes, y, x = shard.index
        return [
            ShardIndex(shard.level - 1, (*planes, i, j))
            for i, j in itertools.product((2 * y, 2 * y + 1), (2 * x, 2 * x + 1))
            if i < rows and j < columns
        ]


def plan_layout(plan: BlockPlan) -> StoreLayout:
    """How the outputs of a plan are stored.

    Raises
    ------
    ImageError
        The image has axes that OME-Zarr can't hold together.
    """
    axes = plan.axes
    stored = _stored_axes(axes.names)
    order = tuple(axes.names.index(name) for name in stored)
    spatial = [i in axes.spatial for i in order]
    sides = tuple(
        plan.sides[i] * (plan.scale if s else 1) for i, s in zip(order, spatial, strict=True)
    )
    shape = plan.part.scaled(plan.scale)
    stored_shape = tuple(shape[i] for i in order)
    sizes = [(stored_shape[-2], stored_shape[-1])]
    while max(sizes[-1]) > SMALLEST_LEVEL:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return StoreLayout(stored, order, sides, stored_shape, tuple(sizes))


def _stored_axes(names: str) -> str:
    """Letters in the order of OME-Zarr: time, then channels or similar, then space."""
    others = [name for name in names if name not in "TZYX"]
    if len(others) > 1:
        raise ImageError(
            f"expected at most one axis beside T, Z, Y and X for OME-Zarr, got axes {names} with "
            f"{' and '.join(others)}: store each index of one of them separately"
        )
    slots = {**{name: name for name in "TZYX" if name in names}, "C": "".join(others)}
    return "".join(slots.get(name, "") for name in STORED)


def _chunk(side: int) -> int:
    """The divisor of a shard's side nearest to `CHUNK`."""
    divisors = {d for i in range(1, math.isqrt(side) + 1) if side % i == 0 for d in (i, side // i)}
    return min(
        (d for d in divisors if d >= min(LEAST_CHUNK, side)), key=lambda d: abs(math.log(d / CHUNK))
    )


def halved(values: Array, samples: int | None = None) -> Array:
    """The mean of each 2x2 pixels along the last two axes, [..., ceil(h/2), ceil(w/2)], same dtype.

    A last row or column without a partner counts twice. `samples` is the axis of colour samples
    whose last is alpha, if there is one: colours are weighted with it.
    """
    height, width = values.shape[-2:]
    if height % 2 or width % 2:
        pad = [(0, 0)] * (values.ndim - 2) + [(0, height % 2), (0, width % 2)]
        values = np.pad(values, pad, mode="edge")
    wide = np.dtype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    quarters = [values[..., i::2, j::2].astype(wide) for i in (0, 1) for j in (0, 1)]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        mean = _sum(quarters) / 4
        if samples is not None:
            mean = _weighted(quarters, mean, samples)
        if values.dtype.kind == "b":
            return np.asarray(mean >= 0.5)
        if values.dtype.kind in "iu":
            mean = np.rint(mean)
            if values.dtype.itemsize == 8:  # the largest values would round up out of range
                info = np.iinfo(values.dtype)
                mean = np.clip(mean, info.min, np.nextafter(float(info.max), 0))
        return np.asarray(mean.astype(values.dtype))


def _sum(arrays: list[Array]) -> Array:
    total = arrays[0] + arrays[1]
    for array in arrays[2:]:
        total += array
    return total


def _weighted(quarters: list[Array], mean: Array, samples: int) -> Array:
    """Colours weighted by alpha; alpha itself, and colours where it is 0, by the plain mean."""
    last = [slice(None)] * mean.ndim
    last[samples] = slice(-1, None)
    alphas = [np.nan_to_num(q[tuple(last)], nan=0.0).clip(0) for q in quarters]
    total = _sum(alphas)
    colours = _sum([q * a for q, a in zip(quarters, alphas, strict=True)]) / total
    result: Array = np.where(total > 0, colours, mean)
    result[tuple(last)] = mean[tuple(last)]
    return result
