"""Upscaling to an OME-Zarr store on the workers of a dask cluster.

The client plans the run and keeps its journal, as a run in one process does; workers read the image
and write the store themselves, a shard at a time. The store comes out the same.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_cfsr.core.cluster.task_dispatcher import TaskDispatcher
from napari_cfsr.core.cluster.worker_model import ModelRecipe
from napari_cfsr.core.cluster.worker_task import Job, TaskResult, mark_of
from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.io import LazyImage, open_image
from napari_cfsr.core.store import (
    ShardIndex,
    StoreProgress,
    StoreResult,
    StoreRun,
    fingerprint_pixels,
)
from napari_cfsr.core.upscale import UpscaleOptions, versions
from napari_cfsr.core.weights import hashed_file
from napari_cfsr.errors import ClusterError

POLL_SECONDS = 0.1
SEEN_SECONDS = 60.0  # for a network file system to show what another machine wrote


def iter_upscale_on_cluster(
    image: LazyImage | str | os.PathLike[str],
    model: Model,
    path: str | os.PathLike[str],
    client: Any,
    options: UpscaleOptions | None = None,
    check: Check = lambda: None,
    *,
    device: str = "auto",
    engine: str = "auto",
    source: str | None = None,
    overwrite: bool = False,
) -> Generator[StoreProgress, None, StoreResult]:
    """Upscale an image to a store on a dask cluster: yields progress after each block.

    As `iter_upscale_to_zarr`, with the same bytes; a run that either began, either goes on with.

    Parameters
    ----------
    image : LazyImage or path
        From `open_image`, or what it would open. Workers open it by its path.
    model : Model
        Says which weights, scale and precision; workers load the same themselves, each once. The
        tile is chosen by the memory that is free where `model` is, unless `options` has one.
    path : str or path
        The store. It and the image have to lie where client and workers see them under the same
        absolute path.
    client : distributed.Client
        Of the cluster. Each worker is best a process of its own.
    options : UpscaleOptions, optional
        Without axes, those of the image.
    check : callable
        Called several times a second; an exception from it ends the run, resumably.
    device : str
        Of the workers, as for `load_model`. With `"auto"` and `"cuda"`, the workers of a machine
        share its GPUs out among them.
    engine : str
        Of the workers, as for `load_model`.
    source : str, optional
        What the image is called in the record that the store keeps; its path by default.
    overwrite : bool
        As for `upscale_to_zarr`.

    Returns
    -------
    StoreResult

    Raises
    ------
    ImageError, OptionError, OutOfMemoryError, FileFormatError
        As `upscale_to_zarr`.
    ClusterError
        The scheduler is gone, workers die again and again, do not see the files, or run another
        version of this package. What is written is kept, and the same call goes on with it.
    """
    if not isinstance(image, LazyImage):
        image = open_image(image)
    options = options or UpscaleOptions()
    if options.axes is None:
        options = replace(options, axes=image.axes, rgb=False)
    source = str(image.path) if source is None else source
    run = ClusterRun(
        image.pixels, model, Path(path), options, check, source, client, image.path, device, engine
    )
    run.prepare(image.space, image.omero, overwrite)
    yield from run.shards()
    return run.finish()


@dataclass(eq=False)
class ClusterRun(StoreRun):
    """A run into a store whose shards are made by workers.

    Attributes
    ----------
    client : distributed.Client
    image_path : Path
    device, engine : str
        As they were asked for.
    """

    client: Any
    image_path: Path
    device: str
    engine: str
    ran_on: set[str] = field(default_factory=set)  # devices of the workers

    def shards(self) -> Generator[StoreProgress, None, None]:
        """Have everything written that is not there yet."""
        yield self.start()
        dispatcher = TaskDispatcher(self.client, pickle.dumps(self.job()), self.weights())
        shape = self.plan.part.scaled(self.plan.scale)
        parts = {u: self.layout.parts(shape, u) for u in self.todo if u.level}
        queue = ReadyQueue((u for u in self.todo if u not in self.store.done), parts)
        try:
            while True:
                self.check()
                while dispatcher.has_room() and (shard := queue.next(self.store.done)) is not None:
                    dispatcher.submit(shard)
                if not dispatcher.under_way:
                    return
                if (done := dispatcher.poll(POLL_SECONDS)) is not None:
                    yield from self.take(*done)
                elif note := dispatcher.news():
                    yield self.progress(note=note)
        finally:
            dispatcher.close()

    def take(self, shard: ShardIndex, result: TaskResult) -> Generator[StoreProgress, None, None]:
        """Enter a shard that a worker wrote."""
        self._see(shard, result.worker)
        self.enter(shard)
        if shard.level:
            return
        self.ran_on.add(result.device.split(":")[0])
        notes = list(result.notes)
        if result.torch != versions(("torch",)).get("torch"):
            notes.append(f"some blocks were made with torch {result.torch}")
        fresh = [note for note in dict.fromkeys(notes) if note not in self.notes]
        self.notes += fresh
        yield self.progress(note="; ".join(fresh))

    def _see(self, shard: ShardIndex, worker: str) -> None:
        """Wait until the files of a shard can be seen from here."""
        deadline = time.monotonic() + SEEN_SECONDS
        while not self.store.is_there(shard):
            self.check()
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{self.path}: worker {worker} wrote a block that can't be seen here: the "
                    "store has to lie on a file system that client and workers share"
                )
            time.sleep(POLL_SECONDS)

    def job(self) -> Job:
        """What workers have to know."""
        info, files = self.model.info, list(self.weights())
        refiner = files[1] if len(files) > 1 else None
        recipe = ModelRecipe(
            info.scale, files[0], refiner, self.device, info.precision, self.engine
        )
        return Job(
            str(self.image_path.absolute()),
            str(self.path.absolute()),
            fingerprint_pixels(self.image, self.plan.axes),
            mark_of(self.path),
            self.plan,
            self.mapping,
            recipe,
        )

    def weights(self) -> dict[Any, Path]:
        """The files of backbone and refiner, here."""
        info = self.model.info
        named = [(info.backbone_path, info.backbone_sha256)]
        if info.refiner_path and info.refiner_sha256:
            named.append((info.refiner_path, info.refiner_sha256))
        return {hashed_file(Path(path), sha256): Path(path) for path, sha256 in named}

    def result(self) -> StoreResult:
        """What was done, and on which kind of device."""
        done = super().result()
        device = self.device if len(self.ran_on) > 1 else next(iter(self.ran_on), self.device)
        if device == "auto" and not self.ran_on:
            device = self.model.info.device  # nothing was left to do but to finish
        notes = done.result.notes
        if len(self.ran_on) > 1:
            notes = (*notes, f"blocks were made on {' and '.join(sorted(self.ran_on))}")
        info = replace(done.result.info, device=device)
        return replace(done, result=replace(done.result, info=info, notes=notes))


class ReadyQueue:
    """Units in their order, each not before those that it is made from are done.

    Parameters
    ----------
    todo : iterable of ShardIndex
    parts : dict of ShardIndex to list of ShardIndex
        What a shard is made from; those that are made from nothing may be left out.
    """

    def __init__(
        self, todo: Iterable[ShardIndex], parts: dict[ShardIndex, list[ShardIndex]]
    ) -> None:
        self._todo, self._parts = deque(todo), parts
        self._waiting: list[ShardIndex] = []  # their turn has come, their parts' not yet

    def next(self, done: set[ShardIndex]) -> ShardIndex | None:
        """The next that can be made; None if there is none now."""
        for shard in self._waiting:
            if done.issuperset(self._parts[shard]):
                self._waiting.remove(shard)
                return shard
        while self._todo:
            shard = self._todo.popleft()
            if done.issuperset(self._parts.get(shard, ())):
                return shard
            self._waiting.append(shard)
        return None
