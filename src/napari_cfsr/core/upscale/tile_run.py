"""One run over all tiles of an array."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import (
    ArrayLike,
    Axes,
    IntensityMapping,
    NoiseModel,
    Plane,
    PreparedTile,
    Tile,
    around,
    prepare,
    resolve_mapping,
)
from napari_cfsr.core.upscale.background import Background
from napari_cfsr.core.upscale.options import UpscaleOptions, UpscaleProgress
from napari_cfsr.core.upscale.resolve import (
    allocate,
    check_memory,
    output_specs,
    resolve_noise,
    resolve_request,
)
from napari_cfsr.core.upscale.schedule import Job, TileSchedule
from napari_cfsr.core.upscale.tile_writer import TileWriter
from napari_cfsr.errors import OutOfMemoryError

Array = NDArray[Any]
Float32 = NDArray[np.float32]
OUT_OF_RANGE = (
    "pixels more than 1000 times outside the intensity range were enlarged without the network: "
    "to super-resolve them, choose a wider intensity range"
)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Tiles that run at once, and their pixels."""

    tiles: list[Job]
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
        info = self.model.info
        self.request = resolve_request(self.image, info, self.options)
        specs = output_specs(self.part, self.image.dtype, info.scale, self.request.outputs)
        check_memory(specs)  # before anything is read: that may take long
        self.mappings = self.mapping or resolve_mapping(
            self.image, self.request.axes, self.options.intensity, self.check, self.request.region
        )
        self.request, notes = resolve_noise(self.image, info, self.request, self.check)
        self.notes += notes
        self.arrays = allocate(specs)
        self.schedule = TileSchedule(self.request, self.model, self.grid)
        self.writer = TileWriter(self.request, info.scale, self.mappings, self.arrays)
        self.options = replace(self.request.options, tile=self.schedule.tile)

    @property
    def part(self) -> Axes:
        """Axes of what is upscaled."""
        return self.request.part

    @property
    def tile(self) -> int:
        """Side of a tile, which may have become smaller."""
        return self.schedule.tile

    def tiles(self) -> Generator[UpscaleProgress, None, None]:
        """Run all tiles; where memory is short, they become smaller.

        While the network runs on one batch, the one before is written and the next one read.
        """
        if self.part.is_empty:
            return
        schedule, started = self.schedule, time.perf_counter()
        total = schedule.left
        yield UpscaleProgress(0, total, 0.0)
        with Background("napari-cfsr tiles") as background:
            running: _Batch | None = None
            while schedule.jobs or running is not None:
                self.check()
                following = self.prepare(schedule.take()) if schedule.jobs else None
                done, predicted, note = running, dict[str, Float32](), ""
                if running is not None:
                    try:
                        predicted = background.result()
                    except (OutOfMemoryError, MemoryError) as error:
                        if following is not None:
                            schedule.put_back(following.tiles)
                        note = schedule.use_less_memory(running.tiles, error)
                        self.notes.append(note)
                        following = done = None
                if following is not None:
                    background.start(self.predict, following)
                running = following
                if done is not None:
                    note = self.finish(done, predicted)
                if done is not None or note:
                    seconds = time.perf_counter() - started
                    yield UpscaleProgress(total - schedule.left, total, seconds, note)

    def prepare(self, tiles: list[Job]) -> _Batch:
        """Read the pixels of tiles and make them ready for the network."""
        axes = self.request.axes
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
        tile = batch.tiles[0][1]
        origin = tile.read[0].start, tile.read[1].start
        noise = tuple(self._noise(plane) for plane, _ in batch.tiles)
        how = replace(self.request.how, crop=tile.crop, origin=origin, noise=noise)
        return self.model.predict(units, how, both)

    def _noise(self, plane: Plane) -> NoiseModel | None:
        """Of a plane, in [0,1]; None if there is none, or nothing needs to know it."""
        channel = self.request.axes.channel_of(plane)
        noise = (self.request.options.noise or {channel: None})[channel]
        return noise and noise.mapped(self.mappings[channel])

    def finish(self, batch: _Batch, predicted: dict[str, Float32]) -> str:
        """Write a batch; what the user should know of it, once for all of the run."""
        for i, ((plane, tile), pixels) in enumerate(zip(batch.tiles, batch.pixels, strict=True)):
            parts = {name: part[i] for name, part in predicted.items()}
            self.writer.write(plane, tile, pixels, parts)
        self.schedule.finish(batch.tiles)
        if OUT_OF_RANGE in self.notes or not any(
            pixels.out_of_range(tile)
            for (_, tile), pixels in zip(batch.tiles, batch.pixels, strict=True)
        ):
            return ""
        self.notes.append(OUT_OF_RANGE)
        return OUT_OF_RANGE
