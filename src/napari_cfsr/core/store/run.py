"""Upscaling to an OME-Zarr store, block by block: images and results of any size.

`iter_upscale_to_zarr` is the one way through. In memory are one block with its halo and the
network, whatever the size of the image and the number of slices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import (
    ArrayLike,
    IntensityMapping,
    Limits,
    Mode,
    PixelSpace,
    pixel_space,
)
from napari_cfsr.core.io import colour_channels, image_metadata, read_store_metadata, store_status
from napari_cfsr.core.store.fingerprint import check_same, store_request
from napari_cfsr.core.store.growing_store import GrowingStore, remove_store, stores_read, writing
from napari_cfsr.core.store.layout import ShardIndex, plan_layout
from napari_cfsr.core.upscale import (
    BlockPlan,
    UpscaleOptions,
    UpscaleProgress,
    UpscaleResult,
    WithResult,
    exhaust,
    plan_blocks,
    record_provenance,
    run_block,
)
from napari_cfsr.errors import FileFormatError, OptionError, StoreExistsError

Array = NDArray[Any]


@dataclass(frozen=True)
class StoreProgress(UpscaleProgress):
    """How far a run into a store is.

    Attributes
    ----------
    earlier : int
        LR pixels of `done` that an earlier, interrupted run had done.
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
        Each output: the store itself if there is one, else a group in it.
    result : UpscaleResult
        What `upscale` would tell, but for the arrays, which are None.
    blocks, resumed : int
        How many there are, and how many of them an earlier run had done.
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
    space: PixelSpace | None = None,
    omero: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> StoreResult:
    """Upscale an image of any size to an OME-Zarr store on disk, with its pyramid.

    Parameters
    ----------
    image, model, axes, ensemble, tile, rgb, outputs, back_projection, halo, intensity, region
        As for `upscale`.
    path : str or path
        The store, a folder. If an earlier run was interrupted there, this one goes on with it.
    progress : callable, optional
        Called with a `StoreProgress` after each batch of tiles; may raise to stop.
    space : PixelSpace, optional
        Sizes of the pixels of `image`, where it lies, and in which shards.
    omero : dict, optional
        How OME-Zarr names and shows the channels of `image`; kept as it is.
    overwrite : bool
        Whether a store at that path may be replaced. It is removed before the first block, unless
        it is an interrupted run of the same call, which is gone on with all the same.

    Returns
    -------
    StoreResult

    Raises
    ------
    ImageError, OptionError, OutOfMemoryError
        As `upscale`; also for axes that OME-Zarr can't hold, and for a store that exists or was
        begun with other options.
    FileFormatError
        The disk is full or can't be written. What was written before is kept.
    """
    options = UpscaleOptions(
        axes, rgb, outputs, ensemble, back_projection, tile, halo, intensity, region
    )
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

    It may be closed, cancelled or killed at any time; the next call with the same arguments goes on
    with the block that was not finished, and the store comes out the same.

    Parameters
    ----------
    image, model, path, options, space, omero, overwrite
        As for `upscale_to_zarr`.
    check : callable
        Called several times a second; an exception from it ends the run, resumably.
    source : str
        What the image is called in the record that the store keeps.
    """
    run = StoreRun(image, model, Path(path), options or UpscaleOptions(), check, source)
    run.prepare(space, omero, overwrite)
    yield from run.shards()
    return run.finish()


@dataclass(eq=False)
class StoreRun:
    """State of one run into a store."""

    image: ArrayLike
    model: Model
    path: Path
    asked: UpscaleOptions
    check: Check
    source: str
    # told of each block that was written, with its outputs
    watch: Callable[[ShardIndex, Mapping[str, Array]], None] | None = field(
        default=None, init=False
    )

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.notes: list[str] = []

    def prepare(
        self, space: PixelSpace | None, omero: Mapping[str, Any] | None, overwrite: bool
    ) -> None:
        """Check everything, then begin a store or go on with one."""
        self.omero = omero
        plan = plan_blocks(self.image, self.model, self.asked)
        plan_layout(plan)  # raises for axes that it can't hold
        if plan.part.is_empty:
            raise OptionError(f"expected pixels to write, got an image of shape {plan.axes.shape}")
        letters = plan.axes.names.replace("S", "")
        self.space = (space or pixel_space(letters)).along(letters)
        status = self._status(overwrite)
        request = store_request(self.image, self.model.info, plan, self.asked, self.space)
        if status == "partial" and self._is_same(request, overwrite):
            with writing(self.path):
                self._resume()
        else:
            mapping = plan.known_mapping() or plan.find_mapping(self.image, self.check)
            with writing(self.path):
                if status != "absent":
                    remove_store(self.path)
                self._begin(plan, mapping, request)
        self.mark = read_store_metadata(self.path)
        self.earlier = self._pixels_done()

    def _status(self, overwrite: bool) -> str:
        """What is at the path, if it may be written to: `partial` is what to go on with."""
        status = store_status(self.path)
        here = self.path.resolve()
        for there in (root.resolve() for root in stores_read(self.image)):
            if here in (there, *there.parents):
                raise OptionError(f"expected another store than the image's own, got {self.path}")
        if status in ("complete", "other") and not overwrite:
            raise StoreExistsError(f"{self.path} exists: pass overwrite=True to replace it")
        return status

    def _begin(
        self, plan: BlockPlan, mapping: tuple[IntensityMapping, ...], request: dict[str, Any]
    ) -> None:
        self.plan, self.mapping = plan, mapping
        self._make_store()
        found = {
            "tile": plan.options.tile,
            "sides": list(plan.sides),
            "mapping": [asdict(m) for m in mapping],
        }
        self.store.begin({"request": request, "plan": found, "source": self.source})

    def _is_same(self, request: dict[str, Any], overwrite: bool) -> bool:
        """Whether the store was begun with the same request; raises if it may not be replaced."""
        try:
            check_same(self.path, read_store_metadata(self.path) or {}, request)
        except OptionError:
            if overwrite:
                return False
            raise
        return True

    def _resume(self) -> None:
        """Go on with what was found when the store was begun: tile, blocks and intensities."""
        found = (read_store_metadata(self.path) or {})["plan"]
        plan = plan_blocks(self.image, self.model, replace(self.asked, tile=found["tile"]))
        self.plan = replace(plan, sides=tuple(found["sides"]))
        self.mapping = tuple(IntensityMapping(**m) for m in found["mapping"])
        self._make_store()
        self.store.resume()

    def _make_store(self) -> None:
        self.layout = plan_layout(self.plan)
        specs, alpha = self.plan.specs, self.plan.axes.has_alpha
        images = {name: self._metadata(name) for name in specs}
        self.store = GrowingStore(self.path, self.layout, specs, alpha, images)
        shape = self.plan.part.scaled(self.plan.scale)
        self.todo = list(self.layout.shards(shape))

    def _pixels_done(self) -> int:
        done = [shard for shard in self.todo if shard.level == 0 and shard in self.store.done]
        self.resumed = len(done)
        return sum(self.plan.pixels(self.layout.block(shard)) for shard in done)

    # pixels

    def shards(self) -> Generator[StoreProgress, None, None]:
        """Write what is not there yet."""
        yield self.start()
        for shard in self.todo:
            self.check()
            if shard in self.store.done:
                continue
            if shard.level == 0:
                outputs = yield from self._outputs(shard)
                self._check_store()
                with writing(self.path, self._kept()):
                    self.store.write_block(shard, outputs)
                if self.watch is not None:
                    self.watch(shard, outputs)
                del outputs
            else:
                self._check_store()
                with writing(self.path, self._kept()):
                    self.store.write_level(shard)
            self.enter(shard)
            if shard.level == 0:
                yield self.progress()

    def _check_store(self) -> None:
        """Raise an error unless the store is still that of this run."""
        if read_store_metadata(self.path) != self.mark:
            raise FileFormatError(
                f"{self.path}: expected the store that this run began, it was removed, replaced "
                "or finished by another run: repeat the call, with no other run into this store"
            )

    def start(self) -> StoreProgress:
        """Begin to count."""
        self.pixels_done = self.earlier
        self.began = time.perf_counter()
        return self.progress()

    def enter(self, shard: ShardIndex) -> None:
        """Say in the journal that a shard is written, and count it."""
        with writing(self.path, self._kept()):
            self.store.enter(shard)
        if shard.level == 0:
            self.pixels_done += self.plan.pixels(self.layout.block(shard))

    def _outputs(self, shard: ShardIndex) -> Generator[StoreProgress, None, dict[str, Array]]:
        """Upscale the block that a shard of level 0 is."""
        index = self.layout.block(shard)
        pixels = np.asarray(self.image[self.plan.read(index)])
        steps = WithResult(
            run_block(self.plan, index, pixels, self.mapping, self.model, self.check)
        )
        for step in steps:
            if step.note:
                self.notes.append(step.note)
            if 0 < step.done < step.total or step.note:
                yield self.progress(step.done, step.note)
        return steps.result

    def progress(self, more: int = 0, note: str = "") -> StoreProgress:
        """How far it is, with `more` LR pixels of the block under way."""
        seconds = time.perf_counter() - self.began
        done = self.pixels_done + more
        return StoreProgress(done, self.plan.total, seconds, note, self.earlier)

    def _kept(self) -> str:
        blocks = sum(shard.level == 0 for shard in self.store.done)
        of = sum(shard.level == 0 for shard in self.todo)
        return f"; {blocks} of {of} blocks are written and kept: make room and run the same again"

    def finish(self) -> StoreResult:
        """Make it an image, and say what was done."""
        self._check_store()
        done = self.result()
        record = record_provenance(done.result, self.source, "image", "OUT.zarr")
        del record["seconds"]  # of this run only, where there were several
        with writing(self.path, self._kept()):
            self.store.finish(record)
        return done

    def result(self) -> StoreResult:
        """What was done."""
        result = UpscaleResult(
            None,
            None,
            None,
            axes=self.plan.part,
            info=self.model.info,
            options=self.plan.options,
            mapping=self.mapping,
            seconds=time.perf_counter() - self.started,
            notes=self.model.info.notes + tuple(dict.fromkeys(self.notes)),
        )
        blocks = sum(shard.level == 0 for shard in self.todo)
        return StoreResult(self.path, dict(self.store.groups), result, blocks, self.resumed)

    def _metadata(self, name: str) -> dict[str, Any]:
        """The `ome` attribute of one output."""
        plan, omero = self.plan, self.omero
        if "S" in self.layout.axes and name != "difference":
            dtype = np.dtype(plan.dtype)
            low, high = self.mapping[0].low, self.mapping[0].high
            omero = colour_channels(plan.axes.samples, dtype, low, high)
        elif name == "difference":
            omero = None
        return image_metadata(
            f"{self.path.stem} {name}",
            self.layout.axes,
            self.space.enlarged(plan.scale, plan.request.region),
            len(self.layout.sizes),
            omero,
        )
