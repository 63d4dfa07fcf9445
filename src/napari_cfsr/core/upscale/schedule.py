"""Which tiles run next and how many at a time, with whatever memory there is."""

from __future__ import annotations

import gc
import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable

from napari_cfsr.core.engine import SMALLEST_TILE, Model
from napari_cfsr.core.image import ALIGN, Plane, Region, Tile, tile_grid
from napari_cfsr.core.upscale.resolve import ResolvedRequest
from napari_cfsr.errors import OutOfMemoryError

Job = tuple[Plane, Tile]


class TileSchedule:
    """The tiles that are still to be run.

    The model says how much memory is free, and moves to the CPU when all else fails. With a `grid`,
    the tiles of each plane, of the size that the request names, batches do not depend on the free
    memory, so that neither does the result. By default the planes are cut here.
    """

    def __init__(
        self, request: ResolvedRequest, model: Model, grid: list[Tile] | None = None
    ) -> None:
        self._request, self._model = request, model
        self._fixed_batch = grid is not None
        self._choose_tile()  # sets `tile`, the side of a tile, LR pixels
        tiles = self._cut(request.region) if grid is None else grid
        # what has not been taken yet
        self.jobs = deque((plane, tile) for plane in request.axes.planes() for tile in tiles)
        self.left = _pixels(self.jobs)  # LR pixels that are not finished yet

    def take(self) -> list[Job]:
        """The next tiles of one shape and crop that fit into memory together."""
        batch = [self.jobs.popleft()]
        first = batch[0][1]
        most = self._batch_pixels // math.prod(first.read_shape)
        while self.jobs and len(batch) < most and self.jobs[0][1].alike(first):
            batch.append(self.jobs.popleft())
        return batch

    def finish(self, batch: list[Job]) -> None:
        """Count tiles as finished."""
        self.left -= _pixels(batch)

    def put_back(self, batch: list[Job]) -> None:
        """Put tiles that were taken back to the front."""
        self.jobs.extendleft(reversed(batch))

    def use_less_memory(self, batch: list[Job], error: Exception) -> str:
        """Put back a batch that ran out of memory, and take less at a time from now on.

        Fewer tiles at once, then smaller ones, then the CPU. Returns what the user should know;
        raises `OutOfMemoryError` if there is nothing left to try.
        """
        self.put_back(batch)
        gc.collect()  # what failed may hold memory in cycles
        if len(batch) > 1:
            self._batch_pixels = len(batch) // 2 * math.prod(batch[0][1].read_shape)
            return f"out of memory: continuing with {len(batch) // 2} tiles at a time"
        side = min(self.tile, max(batch[0][1].read_shape))  # the image may be smaller than a tile
        if side > SMALLEST_TILE:
            self._halve(side)
            note = f"out of memory: continuing with tiles of {self.tile} pixels"
        else:
            note = self._move_to_cpu(error)
        self.left = _pixels(self.jobs)
        return note

    def _choose_tile(self) -> None:
        """Choose tile and batch: as many small images at a time as one large tile has pixels."""
        halo, tile = self._request.halo, self._request.options.tile
        largest = self._model.info.largest_tile(self._model.free_memory(), halo)
        self.tile = tile or largest
        side = self.tile if self._fixed_batch else max(largest, self.tile)
        self._batch_pixels = (side + 2 * halo) ** 2

    def _halve(self, side: int) -> None:
        """Cut what is left into tiles of half a side, one of which is as much as runs at a time."""
        self.tile = max(SMALLEST_TILE, side // 2 // ALIGN * ALIGN)
        self._batch_pixels = (self.tile + 2 * self._request.halo) ** 2
        self.jobs = deque((plane, part) for plane, t in self.jobs for part in self._cut(t.write))

    def _move_to_cpu(self, error: Exception) -> str:
        device = self._model.info.device
        if not self._model.to_cpu():
            raise OutOfMemoryError(
                f"out of memory with a tile of {self.tile} pixels on {device}: close other "
                "programs or choose another device"
            ) from error
        self._choose_tile()
        self.jobs = deque(self._large_again(self.jobs))
        return f"out of memory on {device} with the smallest tile: continuing on the CPU"

    def _large_again(self, jobs: Iterable[Job]) -> list[Job]:
        """Tiles of the present size that cover what is left; the rest of each runs once more."""
        cut = self._cut(self._request.region)
        large = {(tile.write[0].start, tile.write[1].start): tile for tile in cut}
        tops, lefts = (sorted({start[i] for start in large}) for i in (0, 1))
        needed = dict.fromkeys(
            (plane, top, left)
            for plane, small in jobs
            for top in _covering(tops, small.write[0])
            for left in _covering(lefts, small.write[1])
        )
        return [(plane, large[top, left]) for plane, top, left in needed]

    def _cut(self, within: Region) -> list[Tile]:
        """Tiles of the present size that write a part of a plane."""
        axes = self._request.axes
        return tile_grid(axes.height, axes.width, self.tile, self._request.halo, within=within)


def _pixels(jobs: Iterable[Job]) -> int:
    return sum(tile.pixels for _, tile in jobs)


def _covering(starts: list[int], part: slice) -> list[int]:
    """Starts, of those in order, of the stretches that a part lies in."""
    return starts[bisect_right(starts, part.start) - 1 : bisect_left(starts, part.stop)]
