"""Showing a store while it grows.

A level of the pyramid is read from disk where it is written, and elsewhere from a small image in
memory, so that each block is seen as soon as it is done, even when zoomed out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.store.growing_store import GrowingStore
from napari_cfsr.core.store.layout import ShardIndex

Array = NDArray[Any]
Slices = tuple[slice, ...]
Group = tuple[int, ...]  # of planes that are written together: a shard's index but for Y and X


class StorePreview:
    """The outputs of a store in their current state; read in one thread, updated in another.

    The store is new or resumed; call `put` with each block that is written from now on.
    """

    def __init__(self, store: GrowingStore) -> None:
        self.store = store
        self.layout = store.layout
        self.top = len(self.layout.sizes) - 1
        self.complete = False
        self._group: Group = ()
        self._preview: dict[str, Array] = {}  # of the current group of planes
        self._restore()

    @property
    def count(self) -> int:
        """Number of shards that are written."""
        return len(self.store.done)

    def levels(self, name: str) -> list[GrowingLevel]:
        """The pyramid of an output, full resolution first."""
        return [GrowingLevel(self, name, level) for level in range(self.top + 1)]

    def finish(self) -> None:
        """Note that the store is complete."""
        self.complete = True
        self._preview = {}

    def put(self, shard: ShardIndex, outputs: Mapping[str, Array]) -> None:
        """Show the outputs of a block that was written, axes in the order of the image."""
        for name, values in outputs.items():
            self._draw(name, shard, values.transpose(self.layout.order))

    def preview(self, name: str, level: int, where: Slices) -> Array | None:
        """A part of a level, from the small image; None if that shows other planes."""
        sides = self.layout.sides
        group = tuple(s.start // side for s, side in zip(where[:-2], sides, strict=False))
        small = self._preview.get(name) if group == self._group else None
        if small is None:
            return None
        part = small[self._planes(where, group)]
        shift = self.top - level
        for axis, s in zip((-2, -1), where[-2:], strict=True):
            # on the GUI thread: `take` twice is six times as fast as both at once
            part = part.take(np.arange(s.start, s.stop) >> shift, axis, mode="clip")
        return part

    def _planes(self, where: Slices, group: Group) -> Slices:
        """The planes of a part, relative to the first of their group."""
        firsts = [i * side for i, side in zip(group, self.layout.sides, strict=False)]
        return tuple(slice(s.start - n, s.stop - n) for s, n in zip(where, firsts, strict=False))

    def _draw(self, name: str, shard: ShardIndex, values: Array) -> None:
        """Draw a shard of any level into the small image, subsampled."""
        if self.top == 0:
            return
        group = shard.index[:-2]
        if group != self._group:
            # in this order: the GUI thread may read in between
            self._preview = {}
            self._group = group
        form = self.store.form(name, shard.level)
        where = self.layout.where(shard, form)
        if name not in self._preview:
            planes = [s.stop - s.start for s in where[:-2]]
            self._preview[name] = np.zeros([*planes, *self.layout.sizes[-1]], values.dtype)
        step = 2 ** (self.top - shard.level)
        y, x = (s.start for s in where[-2:])
        part = values[..., -y % step :: step, -x % step :: step]
        top, left = -(-y // step), -(-x // step)
        rows, columns = part.shape[-2:]
        self._preview[name][..., top : top + rows, left : left + columns] = part

    def _restore(self) -> None:
        """Draw what an interrupted run wrote of its last planes."""
        store = self.store
        begun = {s.index[:-2] for s in store.done if s.level < self.top}
        begun -= {s.index[:-2] for s in store.done if s.level == self.top}
        if not begun:
            return
        done = {s for s in store.done if s.index[:-2] == max(begun)}
        for shard in sorted(done):
            *planes, y, x = shard.index
            if ShardIndex(shard.level + 1, (*planes, y // 2, x // 2)) in done:
                continue
            for name in store.specs:
                where = self.layout.where(shard, store.form(name, shard.level))
                self._draw(name, shard, np.asarray(store.arrays[name, shard.level][where]))


class GrowingLevel:
    """One level of one output, axes in stored order; sliced with slices of step 1."""

    def __init__(self, preview: StorePreview, name: str, level: int) -> None:
        self._preview, self._name, self._level = preview, name, level
        self._form = preview.store.form(name, level)
        self._array = preview.store.arrays[name, level]
        self.shape = self._form.shape
        self.dtype = np.dtype(preview.store.specs[name][1])

    def __getitem__(self, where: Slices) -> Array:
        if self._preview.complete:
            return np.asarray(self._array[where])
        result = np.zeros([s.stop - s.start for s in where], self.dtype)
        for shard in self._touched(where):
            own = self._preview.layout.where(shard, self._form)
            part = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(own, where, strict=True)
            )
            if shard in self._preview.store.done:
                values: Array | None = np.asarray(self._array[part])
            else:
                values = self._preview.preview(self._name, self._level, part)
            if values is not None:
                inside = tuple(
                    slice(a.start - b.start, a.stop - b.start)
                    for a, b in zip(part, where, strict=True)
                )
                result[inside] = values
        return result

    def _touched(self, where: Slices) -> Iterator[ShardIndex]:
        """The shards that a part overlaps."""
        spans = [
            range(s.start // side, -(-s.stop // side) if s.stop > s.start else 0)
            for s, side in zip(where, self._preview.layout.sides, strict=True)
        ]
        for index in itertools.product(*spans):
            yield ShardIndex(self._level, index)
