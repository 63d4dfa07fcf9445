"""One run over all tiles of an array, whatever memory there is."""

from __future__ import annotations

import gc
import math
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_cfsr.core.engine import SMALLEST_TILE, Check, Model
from napari_cfsr.core.image import (
    ALIGN,
    ArrayLike,
    Axes,
    IntensityMapping,
    Plane,
    PreparedTile,
    Region,
    Tile,
    around,
    enlarged_alpha,
    prepare,
    put_back,
    resolve_mapping,
    scaled,
    tile_grid,
    without_missing,
)
from napari_cfsr.core.upscale.background import Background
from napari_cfsr.core.upscale.options import UpscaleOptions, UpscaleProgress
from napari_cfsr.core.upscale.resolve import cropped, output_bytes, output_specs, resolve_request
from napari_cfsr.errors import OutOfMemoryError

Array = NDArray[Any]
Float32 = NDArray[np.float32]
STRIP_VALUES = 2**16  # of a sample of an output that are made at a time: they stay in the cache


@dataclass(frozen=True, eq=False)
class _Batch:
    """Tiles that run at once, and their pixels."""

    tiles: list[tuple[Plane, Tile]]
    pixels: list[PreparedTile]


@dataclass
class TileRun:
    """State of one run: the tiles still to do, and the arrays they go into."""

    image: ArrayLike
    model: Model
    options: UpscaleOptions
    check: Check
    notes: list[str] = field(default_factory=list)
    mapping: tuple[IntensityMapping, ...] | None = None  # found from the image where not given
    grid: list[Tile] | None = None  # tiles of each plane; cut where not given

    def __post_init__(self) -> None:
        settled = resolve_request(self.image, self.model.info, self.options)
        self.axes, self.region, self.halo = settled.axes, settled.region, settled.halo
        self.how = settled.how
        self.fixed_tile = self.options.tile
        self.set_tile(self.options.tile)
        self.options = replace(settled.options, tile=self.tile)
        self.mappings = self.mapping or resolve_mapping(
            self.image, self.axes, self.options.intensity, self.check, self.region
        )
        self.arrays = self.allocate(settled.outputs)

    @property
    def part(self) -> Axes:
        """Axes of what is upscaled."""
        return cropped(self.axes, self.region)

    def set_tile(self, tile: int | None) -> None:
        """Choose tile and batch: as many small images at a time as one large tile has pixels."""
        free = self.model.free_memory()
        largest = self.model.info.largest_tile(free, self.halo)
        self.tile = tile or largest
        self.batch_pixels = (max(largest, self.tile) + 2 * self.halo) ** 2

    def allocate(self, outputs: tuple[str, ...]) -> dict[str, Array]:
        """Arrays for the outputs, if they fit."""
        specs = output_specs(self.part, self.image.dtype, self.model.info.scale, outputs)
        needed = output_bytes(specs)
        free = psutil.virtual_memory().available
        if needed > free:
            raise OutOfMemoryError(
                f"the result needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: upscale "
                "a region, fewer slices or fewer outputs, or to OME-Zarr on disk"
            )
        try:
            return {name: np.empty(s, d) for name, (s, d) in specs.items()}
        except MemoryError as error:  # of a container, say, which psutil does not see
            raise OutOfMemoryError(
                f"the result needs {needed / 1e9:.1f} GB, which this system does not give: upscale "
                "a region, fewer slices or fewer outputs, or to OME-Zarr on disk"
            ) from error

    def tiles(self) -> Generator[UpscaleProgress, None, None]:
        """Run all tiles; less memory than hoped for makes them smaller.

        While the network runs on one batch, the one before is written and the next one read.
        """
        axes, part = self.axes, self.part
        total, started = part.plane_count * part.height * part.width, time.perf_counter()
        if part.is_empty:
            return
        tiles = self.cut(self.region) if self.grid is None else self.grid
        jobs = deque((plane, tile) for plane in axes.planes() for tile in tiles)
        left = total
        yield UpscaleProgress(0, total, 0.0)
        with Background("napari-cfsr tiles") as background:
            running: _Batch | None = None
            while jobs or running is not None:
                self.check()
                following = self.prepare(self.take_batch(jobs)) if jobs else None
                done, predicted, note = running, dict[str, Float32](), ""
                if running is not None:
                    try:
                        predicted = background.result()
                    except (OutOfMemoryError, MemoryError) as error:
                        if following is not None:
                            jobs.extendleft(reversed(following.tiles))
                        note = self.use_less_memory(jobs, running.tiles, error)
                        self.notes.append(note)
                        left = sum(tile.pixels for _, tile in jobs)
                        following = done = None
                if following is not None:
                    background.start(self.predict, following)
                running = following
                if done is not None:
                    self.write(done, predicted)
                    left -= sum(tile.pixels for _, tile in done.tiles)
                if done is not None or note:
                    seconds = time.perf_counter() - started
                    yield UpscaleProgress(total - left, total, seconds, note)

    def cut(self, within: Region) -> list[Tile]:
        """Tiles of the present size that write a part of a plane."""
        return tile_grid(self.axes.height, self.axes.width, self.tile, self.halo, within=within)

    def take_batch(self, jobs: deque[tuple[Plane, Tile]]) -> list[tuple[Plane, Tile]]:
        """The next tiles of one shape and crop that fit together in memory."""
        batch = [jobs.popleft()]
        first = batch[0][1]
        most = self.batch_pixels // math.prod(first.read_shape)
        while jobs and len(batch) < most and jobs[0][1].alike(first):
            batch.append(jobs.popleft())
        return batch

    def use_less_memory(
        self, jobs: deque[tuple[Plane, Tile]], batch: list[tuple[Plane, Tile]], error: Exception
    ) -> str:
        """Put the tiles back and make what is left to do smaller, or move it to the CPU."""
        jobs.extendleft(reversed(batch))
        gc.collect()  # what failed may hold memory in cycles
        if len(batch) > 1:
            self.batch_pixels = len(batch) // 2 * math.prod(batch[0][1].read_shape)
            return f"out of memory: going on with {len(batch) // 2} tiles at a time"
        side = min(self.tile, max(batch[0][1].read_shape))  # the image may be smaller than a tile
        if side > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, side // 2 // ALIGN * ALIGN)
            note = f"out of memory: going on with tiles of {self.tile} pixels"
            left = [(plane, part) for plane, tile in jobs for part in self.cut(tile.write)]
        else:
            device = self.model.info.device
            if not self.model.to_cpu():
                raise OutOfMemoryError(
                    f"out of memory with a tile of {self.tile} pixels on {device}: close other "
                    "programs or choose another device"
                ) from error
            self.set_tile(self.fixed_tile)
            note = f"out of memory on {device} with the smallest tile: going on on the CPU"
            left = self.large_again(jobs)
        jobs.clear()
        jobs.extend(left)
        return note

    def large_again(self, jobs: Iterable[tuple[Plane, Tile]]) -> list[tuple[Plane, Tile]]:
        """Tiles of the present size that cover what is left; the rest of each is done once more."""
        large = {(t.write[0].start, t.write[1].start): t for t in self.cut(self.region)}
        tops, lefts = (sorted({start[i] for start in large}) for i in (0, 1))
        needed = dict.fromkeys(
            (plane, top, left)
            for plane, small in jobs
            for top in _covering(tops, small.write[0])
            for left in _covering(lefts, small.write[1])
        )
        return [(plane, large[top, left]) for plane, top, left in needed]

    def prepare(self, tiles: list[tuple[Plane, Tile]]) -> _Batch:
        """Read the pixels of tiles and make them ready for the network."""
        axes = self.axes
        pixels = []
        for plane, tile in tiles:
            where = around(tile, axes.height, axes.width)
            region = axes.read(self.image, plane, *where)
            mapping = self.mappings[axes.channel_of(plane)]
            pixels.append(prepare(region, where, tile, mapping, axes.has_alpha))
        return _Batch(tiles, pixels)

    def predict(self, batch: _Batch, check: Check) -> dict[str, Float32]:
        """Run the network."""

        def both() -> None:
            check()
            self.check()

        units = np.stack([pixels.unit for pixels in batch.pixels])
        how = replace(self.how, crop=batch.tiles[0][1].crop)
        return self.model.predict(units, how, both)

    def write(self, batch: _Batch, predicted: dict[str, Float32]) -> None:
        """Put tiles into each output, in the dtype of the output."""
        for i, ((plane, tile), own) in enumerate(zip(batch.tiles, batch.pixels, strict=True)):
            self.write_tile(plane, tile, own, {k: v[i] for k, v in predicted.items()})

    def write_tile(
        self, plane: Plane, tile: Tile, own: PreparedTile, parts: dict[str, Float32]
    ) -> None:
        scale, axes = self.model.info.scale, self.axes
        mapping = self.mappings[axes.channel_of(plane)]
        alpha = None if own.alpha is None else enlarged_alpha(own.alpha, tile, scale)
        done = 0
        for strip in tile.strips(STRIP_VALUES // scale**2):
            where = scaled(_relative(strip.write, self.region), scale)
            rows = slice(done, done + where[0].stop - where[0].start)
            done = rows.stop
            data = {name: mapping.to_data(part[:, rows]) for name, part in parts.items()}
            if "difference" in self.arrays:
                difference = data["delta"] - data["baseline"]
                difference = without_missing(difference, own, strip, scale)
                axes.write(self.arrays["difference"], plane, *where, difference)
            for name in data:
                if name in self.arrays:
                    values = put_back(mapping.rounded(data[name]), own, strip, scale)
                    if alpha is not None:
                        values = np.concatenate([values, alpha[:, rows]])
                    axes.write(self.arrays[name], plane, *where, values)


def _covering(starts: list[int], part: slice) -> list[int]:
    """Starts, of those in order, of the stretches that a part lies in."""
    return starts[bisect_right(starts, part.start) - 1 : bisect_left(starts, part.stop)]


def _relative(where: Region, region: Region) -> Region:
    """Rows and columns counted from the start of a region."""
    (ys, xs), (y, x) = where, region
    rows = slice(ys.start - y.start, ys.stop - y.start)
    return rows, slice(xs.start - x.start, xs.stop - x.start)
