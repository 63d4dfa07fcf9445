"""The task of a worker: one shard of a store at a time, from file to file.

Client and workers share a file system. A task gets the paths of image and store and a few numbers,
and no pixels.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.cluster.worker_model import MODELS, ModelRecipe
from napari_cfsr.core.engine import Check
from napari_cfsr.core.image import ArrayLike
from napari_cfsr.core.io import open_image, read_store_metadata
from napari_cfsr.core.store import GrowingStore, ShardIndex, StorePlan, fingerprint_pixels, writing
from napari_cfsr.core.upscale import exhaust, run_block, versions
from napari_cfsr.errors import CancelledError, CFSRError, ClusterError, FileFormatError

Array = NDArray[Any]

KEPT = "; what is written is kept: make room and run the same again"
POLL_SECONDS = 0.1
SEEN_SECONDS = 60.0  # for a network file system to show what another machine wrote


@dataclass(frozen=True)
class Job:
    """A run, as workers need to know it."""

    image: Path
    plan: StorePlan  # with an absolute path, as that of the image
    metadata: Mapping[str, Any]  # of the store, so that the store of another run is noticed
    recipe: ModelRecipe


@dataclass(frozen=True)
class TaskResult:
    """The outcome of a task."""

    worker: str  # its address
    error: type[CFSRError] | None = None  # why the run can't go on, with `text`
    text: str = ""
    notes: tuple[str, ...] = ()  # what the user should know
    device: str = ""  # that the network ran on
    torch: str = ""  # its version


def version_here() -> str:
    """The installed version of this package."""
    return versions(("napari-cfsr",)).get("napari-cfsr", "unknown")


def run_shard(
    version: str, job: bytes, index: tuple[int, ...], parts: Sequence[TaskResult] = ()
) -> TaskResult:
    """Write one shard of the store: the task that workers run.

    `version` is that of this package at the client, `job` a pickled `Job`, which could not be read
    in another version, `index` the level and index of the shard, and `parts` the results of the
    shards that this one was waiting for.
    """
    from distributed import get_worker

    worker = get_worker().address
    failed = next((part for part in parts if part.error is not None), None)
    if failed is not None:
        return failed
    if version_here() != version:
        text = (
            f"expected napari-cfsr {version} on every worker, as here, got {version_here()} on "
            f"{worker}: install the same version on all"
        )
        return TaskResult(worker, error=ClusterError, text=text)
    try:
        shard = ShardIndex(index[0], index[1:])
        notes, device = _opened(job).write(shard, stop_check())
    except CFSRError as error:
        return TaskResult(worker, error=type(error), text=f"{error} (on worker {worker})")
    return TaskResult(
        worker, notes=notes, device=device, torch=versions(("torch",)).get("torch", "")
    )


def wait_for_files(store: GrowingStore, shard: ShardIndex, check: Check, problem: str) -> None:
    """Wait until the files of a shard that another machine wrote are visible here."""
    deadline = time.monotonic() + SEEN_SECONDS
    while not store.has_files(shard):
        check()
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{store.path}: {problem}: the store has to be on a file system that client and "
                "workers share"
            )
        time.sleep(POLL_SECONDS)


def stop_check() -> Check:
    """Raises `CancelledError` once the task was cancelled, or its client is lost."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise CancelledError("cancelled")

    return check


@lru_cache(maxsize=2)
def _opened(job: bytes) -> OpenedJob:
    """A job with its files, opened once for all of its tasks."""
    read: Job = pickle.loads(job)
    return OpenedJob(read)


class OpenedJob:
    """A job in a worker process."""

    def __init__(self, job: Job) -> None:
        self.job, self.path = job, job.plan.path
        self.check_store()
        self.store = GrowingStore(self.path, job.plan.blocks)
        self.store.open()

    def check_store(self) -> None:
        """Raise `ClusterError` unless the store exists, and is still that of this run."""
        if read_store_metadata(self.path) != self.job.metadata:
            raise ClusterError(
                f"{self.path}: expected the store of the client, found none or another: image "
                "and store have to be on a file system that client and workers share, under the "
                "same path"
            )

    @cached_property
    def image(self) -> ArrayLike:
        """The image, if it is the same as the client's."""
        job = self.job
        try:
            pixels = open_image(job.image).pixels
            axes = job.plan.blocks.axes
            same = tuple(pixels.shape) == axes.shape
            same = same and fingerprint_pixels(pixels, axes) == job.plan.request["image"]
        except FileFormatError as error:
            raise ClusterError(f"{error}: workers have to see the image under this path") from error
        if not same:
            raise ClusterError(f"{job.image}: expected the image that the client has, got another")
        return pixels

    def write(self, shard: ShardIndex, check: Check) -> tuple[tuple[str, ...], str]:
        """Write a shard; what the user should know, and the device of the network."""
        self.check_store()
        for part in self.store.layout.parts(shard):
            wait_for_files(self.store, part, check, "a block that was written is not here")
        if shard.level:
            self._write(lambda: self.store.write_level(shard), check)
            return (), ""
        outputs, notes, device = self._outputs(shard, check)
        self._write(lambda: self.store.write_block(shard, outputs), check)
        return notes, device

    def _write(self, write: Callable[[], None], check: Check) -> None:
        check()
        self.check_store()  # it may have been replaced while the network ran
        with writing(self.path, KEPT):
            write()

    def _outputs(
        self, shard: ShardIndex, check: Check
    ) -> tuple[dict[str, Array], tuple[str, ...], str]:
        """Upscale the block of a shard of level 0."""
        job, index = self.job, self.store.layout.block(shard)
        plan = job.plan
        pixels = np.asarray(self.image[plan.blocks.read(index)])
        notes: list[str] = []
        with MODELS.model(job.recipe, check) as model:
            steps = run_block(plan.blocks, index, pixels, plan.mapping, model, check)
            outputs = exhaust(steps, lambda step: notes.append(step.note))
            return outputs, tuple(filter(None, notes)), model.info.device
