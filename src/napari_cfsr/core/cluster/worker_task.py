"""What a worker of a cluster does: one shard of a store at a time, from file to file.

Client and workers share a file system. A task gets the names of image and store and a few numbers;
pixels and weights do not travel with it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.cluster.worker_model import MODELS, MissingWeights, ModelRecipe
from napari_cfsr.core.engine import Check
from napari_cfsr.core.image import ArrayLike, IntensityMapping
from napari_cfsr.core.io import open_image, read_store_metadata
from napari_cfsr.core.store import (
    GrowingStore,
    ShardIndex,
    fingerprint_pixels,
    plan_layout,
    writing,
)
from napari_cfsr.core.upscale import BlockPlan, exhaust, run_block, versions
from napari_cfsr.core.weights import HashedFile, keep_by_hash
from napari_cfsr.errors import CancelledError, CFSRError, ClusterError, FileFormatError

Array = NDArray[Any]

KEPT = "; what is written is kept: make room and run the same again"


@dataclass(frozen=True)
class Job:
    """A run, as workers have to know it.

    Attributes
    ----------
    image, store : str
        Absolute paths.
    fingerprint : str
        Of the image, so that another file under the same name is seen.
    mark : str
        What the store says of itself, so that a store of another run is seen.
    plan : BlockPlan
    mapping : tuple of IntensityMapping
    recipe : ModelRecipe
    """

    image: str
    store: str
    fingerprint: str
    mark: str
    plan: BlockPlan
    mapping: tuple[IntensityMapping, ...]
    recipe: ModelRecipe


@dataclass(frozen=True)
class TaskResult:
    """What became of a task.

    Attributes
    ----------
    worker : str
        Address.
    missing : tuple of str
        SHA-256 of weights that the worker has to be sent before it can do it.
    error : type of CFSRError, or None
        Why the run can't go on, with `text`.
    text : str
    notes : tuple of str
        What the user should know.
    device, torch : str
        What the network ran on.
    """

    worker: str
    missing: tuple[str, ...] = ()
    error: type[CFSRError] | None = None
    text: str = ""
    notes: tuple[str, ...] = ()
    device: str = ""
    torch: str = ""


def version_here() -> str:
    """Of this package, as it is installed."""
    return versions(("napari-cfsr",)).get("napari-cfsr", "unknown")


def mark_of(store: Path) -> str:
    """What a store says of itself, in one string; a run that was begun otherwise says another."""
    return json.dumps(read_store_metadata(store), sort_keys=True)


def run_shard(
    version: str, job: bytes, shard: tuple[int, ...], _after: object = None
) -> TaskResult:
    """Make one shard of the store: the task that workers run.

    Parameters
    ----------
    version : str
        Of this package, at the client.
    job : bytes
        A pickled `Job`; of another version, it could not be read.
    shard : tuple of int
        Level and index.
    _after : object
        Of a task that comes first.
    """
    from distributed import get_worker

    worker = get_worker().address
    if version_here() != version:
        text = (
            f"expected napari-cfsr {version} on every worker, as here, got {version_here()} on "
            f"{worker}: install the same version on all"
        )
        return TaskResult(worker, error=ClusterError, text=text)
    try:
        notes, ran = _opened(job).write(ShardIndex(shard[0], shard[1:]), stop_check())
    except MissingWeights as question:
        return TaskResult(worker, missing=question.missing)
    except CFSRError as error:
        return TaskResult(worker, error=type(error), text=f"{error} (on worker {worker})")
    return TaskResult(worker, notes=notes, device=ran, torch=versions(("torch",)).get("torch", ""))


def take_weights(file: HashedFile, content: bytes, _after: object = None) -> str:
    """Keep weights that were sent to this machine: the task that answers `TaskResult.missing`."""
    return keep_by_hash(file, content).name


def stop_check() -> Check:
    """Raises `CancelledError` when nobody waits for the task any more.

    That is when the run was cancelled, or the client is gone.
    """
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
    """A job with its files, opened once for all its tasks."""
    read: Job = pickle.loads(job)
    return OpenedJob(read)


class OpenedJob:
    """A job in a worker process."""

    def __init__(self, job: Job) -> None:
        self.job, self.path = job, Path(job.store)
        self.check_store()
        specs, alpha = job.plan.specs, job.plan.axes.has_alpha
        images: dict[str, dict[str, Any]] = {name: {} for name in specs}  # the client's business
        self.store = GrowingStore(self.path, plan_layout(job.plan), specs, alpha, images)
        self.store.open()

    def check_store(self) -> None:
        """Raise `ClusterError` unless the store is there, and still that of this run."""
        if mark_of(self.path) != self.job.mark:
            raise ClusterError(
                f"{self.path}: expected the store that the client began, it can't be seen or is "
                "another: image and store have to lie on a file system that client and workers "
                "share, under the same path"
            )

    @cached_property
    def image(self) -> ArrayLike:
        """The image, if it is the one that the client has."""
        job = self.job
        try:
            pixels = open_image(job.image).pixels
            axes = job.plan.axes
            same = tuple(pixels.shape) == axes.shape
            same = same and fingerprint_pixels(pixels, axes) == job.fingerprint
        except FileFormatError as error:
            raise ClusterError(f"{error}: workers have to see the image under this path") from error
        if not same:
            raise ClusterError(f"{job.image}: expected the image that the client has, got another")
        return pixels

    def write(self, shard: ShardIndex, check: Check) -> tuple[tuple[str, ...], str]:
        """Make a shard and write it; what the user should know, and the device of the network."""
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
        """Upscale the block that a shard of level 0 is."""
        job, index = self.job, self.store.layout.block(shard)
        pixels = np.asarray(self.image[job.plan.read(index)])
        notes: list[str] = []
        with MODELS.model(job.recipe, check) as model:
            steps = run_block(job.plan, index, pixels, job.mapping, model, check)
            outputs = exhaust(steps, lambda step: notes.append(step.note))
            return outputs, tuple(filter(None, notes)), model.info.device
