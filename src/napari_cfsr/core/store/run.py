"""Upscaling to an OME-Zarr store, block by block: images and results of any size.

All runs go through `iter_upscale_to_zarr`. One block with its halo and the network are in memory,
whatever the size of the image and the number of slices.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import ArrayLike, Limits, Mode, PixelSpace
from napari_cfsr.core.io import read_store_metadata
from napari_cfsr.core.store.growing_store import writing
from napari_cfsr.core.store.layout import ShardIndex
from napari_cfsr.core.store.plan import StorePlan, plan_store
from napari_cfsr.core.upscale import (
    Noise,
    UpscaleOptions,
    UpscaleProgress,
    UpscaleResult,
    WithResult,
    exhaust,
    noise_option,
    record_provenance,
    run_block,
)
from napari_cfsr.errors import FileFormatError

Array = NDArray[Any]


@dataclass(frozen=True)
class StoreProgress(UpscaleProgress):
    """How far a run into a store is.

    Attributes
    ----------
    earlier : int
        LR pixels of `done` that an earlier, interrupted run wrote.
    """

    earlier: int = 0

    @property
    def seconds_left(self) -> float | None:
        now = self.done - self.earlier
        return self.seconds / now * (self.total - self.done) if now else None


@dataclass(frozen=True, eq=False)
class StoreResult:
    """A finished store.

    Attributes
    ----------
    path : Path
    images : dict of str to Path
        Each output: the store itself if it is the only one, else a group in it.
    result : UpscaleResult
        As from `upscale`, but with None for the arrays.
    blocks, resumed : int
        How many there are, and how many of them an earlier run wrote.
    """

    path: Path
    images: dict[str, Path]
    result: UpscaleResult
    blocks: int
    resumed: int


def upscale_to_zarr(
    image: ArrayLike,
    model: Model,
    path: str | os.PathLike[str],
    axes: str | None = None,
    ensemble: bool = False,
    tile: int | None = None,
    progress: Callable[[StoreProgress], None] | None = None,
    *,
    rgb: bool | None = None,
    outputs: tuple[str, ...] | None = None,
    back_projection: bool = False,
    halo: int | Literal["exact"] | None = None,
    intensity: Mode | Limits = "auto",
    region: tuple[Limits, Limits] | None = None,
    refiner_ensemble: bool = False,
    noise: Noise = None,
    space: PixelSpace | None = None,
    omero: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> StoreResult:
    """Upscale an image of any size to an OME-Zarr store on disk, with its pyramid.

    Parameters
    ----------
    image, model, axes, ensemble, tile, rgb, outputs, back_projection, halo, intensity, region, \
    refiner_ensemble, noise
        As for `upscale`.
    path : str or path
        The store, a folder. An interrupted run of the same call is resumed.
    progress : callable, optional
        Called with a `StoreProgress` after each batch of tiles; may raise to stop.
    space : PixelSpace, optional
        Pixel sizes, position and units of `image`.
    omero : dict, optional
        How OME-Zarr names and shows the channels of `image`; kept unchanged.
    overwrite : bool
        Whether a store at that path may be replaced. It is removed before the first block, unless
        it is an interrupted run of the same call, which is resumed all the same.

    Returns
    -------
    StoreResult

    Raises
    ------
    ImageError, OptionError, OutOfMemoryError
        As `upscale`; also for axes that OME-Zarr can't hold, and for a store that exists or was
        begun with other options.
    FileFormatError
        The disk is full or can't be written. Finished blocks are kept.
    """
    options = UpscaleOptions(
        axes, rgb, outputs, ensemble, back_projection, tile, halo, intensity, region,
        refiner_ensemble, noise_option(noise),
    )  # fmt: skip
    steps = iter_upscale_to_zarr(
        image, model, path, options, space=space, omero=omero, overwrite=overwrite
    )
    return exhaust(steps, progress)


def iter_upscale_to_zarr(
    image: ArrayLike,
    model: Model,
    path: str | os.PathLike[str],
    options: UpscaleOptions | None = None,
    check: Check = lambda: None,
    *,
    space: PixelSpace | None = None,
    omero: Mapping[str, Any] | None = None,
    source: str = "",
    overwrite: bool = False,
) -> Generator[StoreProgress, None, StoreResult]:
    """Upscale to a store step by step: yields progress after each batch of tiles.

    It may be closed, cancelled or killed at any time; the next call with the same arguments resumes
    with the first unfinished block, and writes the same store.

    Parameters
    ----------
    image, model, path, options, space, omero, overwrite
        As for `upscale_to_zarr`.
    check : callable
        Called several times a second; an exception from it ends the run, which can be resumed.
    source : str
        What the image is called in the store's record.
    """
    options = options or UpscaleOptions()
    plan = plan_store(
        image, model, path, options, check,
        space=space, omero=omero, source=source, overwrite=overwrite,
    )  # fmt: skip
    run = StoreRun(image, model, plan, check)
    yield from run.shards()
    return run.finish()


class StoreRun:
    """One run into a store: opens it, writes the shards that are missing, completes it.

    `written` is called with each block that was written, and its outputs; `notes` are what the user
    should know at the end. Other parameters are those of `iter_upscale_to_zarr`.
    """

    def __init__(
        self,
        image: ArrayLike,
        model: Model,
        plan: StorePlan,
        check: Check = lambda: None,
        written: Callable[[ShardIndex, Mapping[str, Array]], None] | None = None,
    ) -> None:
        self.image, self.model, self.plan, self.check = image, model, plan, check
        self.written = written
        self.notes: list[str] = []
        self.store = plan.open()
        self._metadata = read_store_metadata(plan.path)
        done = [shard for shard in self.store.done if shard.level == 0]
        self.resumed, self.earlier = len(done), sum(map(self._pixels, done))

    def _pixels(self, shard: ShardIndex) -> int:
        """LR pixels of a shard of level 0."""
        return self.plan.blocks.pixels(self.plan.layout.block(shard))

    def missing(self) -> list[ShardIndex]:
        """The shards that are not written, each after those that it is made from."""
        return [shard for shard in self.plan.shards if shard not in self.store.done]

    def start(self) -> StoreProgress:
        """Start the clock."""
        self._done = self.earlier
        self._began = time.perf_counter()
        return self.progress()

    def progress(self, more: int = 0, note: str = "") -> StoreProgress:
        """How far it is, with `more` LR pixels of the current block."""
        seconds = time.perf_counter() - self._began
        total = self.plan.blocks.total
        return StoreProgress(self._done + more, total, seconds, note, self.earlier)

    def shards(self) -> Generator[StoreProgress, None, None]:
        """Write the missing shards."""
        yield self.start()
        for shard in self.missing():
            self.check()
            if shard.level == 0:
                yield from self._write_block(shard)
            else:
                self._check_store()
                with self.writing():
                    self.store.write_level(shard)
                self.enter(shard)

    def _write_block(self, shard: ShardIndex) -> Generator[StoreProgress, None, None]:
        outputs = yield from self._outputs(shard)
        self._check_store()
        with self.writing():
            self.store.write_block(shard, outputs)
        if self.written is not None:
            self.written(shard, outputs)
        self.enter(shard)
        yield self.progress()

    def _outputs(self, shard: ShardIndex) -> Generator[StoreProgress, None, dict[str, Array]]:
        """Upscale the block of a shard of level 0."""
        plan, index = self.plan, self.plan.layout.block(shard)
        pixels = np.asarray(self.image[plan.blocks.read(index)])
        steps = WithResult(
            run_block(plan.blocks, index, pixels, plan.mapping, self.model, self.check)
        )
        for step in steps:
            if step.note:
                self.notes.append(step.note)
            if 0 < step.done < step.total or step.note:
                yield self.progress(step.done, step.note)
        return steps.result

    def enter(self, shard: ShardIndex) -> None:
        """Enter a shard that is written in the journal, and count it."""
        with self.writing():
            self.store.enter(shard)
        if shard.level == 0:
            self._done += self._pixels(shard)

    def writing(self) -> AbstractContextManager[None]:
        """`FileFormatError` for what the file system reports, with how much is written."""
        done = sum(shard.level == 0 for shard in self.store.done)
        kept = f"{done} of {self.block_count} blocks are written and kept"
        return writing(self.plan.path, f"; {kept}: make room and run the same again")

    @property
    def block_count(self) -> int:
        return math.prod(self.plan.blocks.grid)

    def _check_store(self) -> None:
        """Raise an error unless the store is still that of this run."""
        if read_store_metadata(self.plan.path) != self._metadata:
            raise FileFormatError(
                f"{self.plan.path}: the store that this run began was removed, replaced or "
                "finished by another run: repeat the call, with no other run into this store"
            )

    def finish(self, device: str | None = None) -> StoreResult:
        """Make the store an image; what was done. The network ran on `device`, if that is given."""
        self._check_store()
        done = self.result(device)
        record = record_provenance(done.result, self.plan.source, "image", "OUT.zarr")
        del record["seconds"]  # of this run only, where there were several
        with self.writing():
            self.store.finish(record)
        return done

    def result(self, device: str | None = None) -> StoreResult:
        """What was done."""
        plan, info = self.plan, self.model.info
        result = UpscaleResult(
            None,
            None,
            None,
            axes=plan.blocks.part,
            info=replace(info, device=device or info.device),
            options=plan.blocks.options,
            mapping=plan.mapping,
            seconds=time.perf_counter() - plan.started,
            notes=info.notes + tuple(dict.fromkeys(self.notes)),
        )
        groups = dict(self.store.groups)
        return StoreResult(plan.path, groups, result, self.block_count, self.resumed)
