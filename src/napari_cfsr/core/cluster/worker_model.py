"""The model of a worker process: which weights, which device, loaded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.core.engine import Check
from napari_cfsr.core.weights import HashedFile, find_by_hash, weight_files
from napari_cfsr.errors import WeightsError

if TYPE_CHECKING:
    from napari_cfsr.core.engine import SRModel

POLL_SECONDS = 0.2  # while a task waits for the model


@dataclass(frozen=True)
class ModelRecipe:
    """Which model to load, in terms that mean the same on every machine."""

    scale: int
    files: tuple[HashedFile, ...]  # the backbone, and the refiner if there is one
    # as for `load_model`; with `auto` and `cuda`, the workers of a machine share its GPUs
    device: str
    precision: str
    engine: str = "auto"  # as for `load_model`


class WorkerModelCache:
    """The model of this process: the last one requested, for one task at a time."""

    def __init__(self) -> None:
        self.loads = 0  # how many times one was loaded
        self._lock = threading.Lock()
        self._recipe: ModelRecipe | None = None
        self._model: SRModel | None = None

    @contextmanager
    def model(self, recipe: ModelRecipe, check: Check = lambda: None) -> Iterator[SRModel]:
        """The model of a recipe, within a `with` block.

        Raises `WeightsError` if this machine does not have the weights, and otherwise as
        `load_model`, and what `check` raises while another task has the model.
        """
        while not self._lock.acquire(timeout=POLL_SECONDS):
            check()
        try:
            if self._model is None or self._recipe != recipe:
                self._model = None  # two need not fit in memory
                self._model = _load(recipe)
                self._recipe = recipe
                self.loads += 1
            yield self._model
        finally:
            self._lock.release()


MODELS = WorkerModelCache()  # one for each worker process


def _load(recipe: ModelRecipe) -> SRModel:
    backbone, *refiners = (_find(file) for file in recipe.files)
    import torch

    from napari_cfsr.core.engine import keep_freed_memory, load_model

    keep_freed_memory()
    # by default a nanny sets OMP_NUM_THREADS=1, however many threads a worker may use
    threads = max(torch.get_num_threads(), _dask_threads())
    torch.set_num_threads(threads)
    precision: Any = recipe.precision
    return load_model(
        recipe.scale,
        backbone,
        refiners[0] if refiners else None,
        _device(recipe.device, torch.cuda.device_count()),
        precision,
        engine=recipe.engine,
        threads=threads,
    )


def _find(file: HashedFile) -> Path:
    path = find_by_hash(file)
    if path is None:
        raise WeightsError(
            f"the weights with SHA-256 {file.sha256} were sent to this machine and are not in its "
            f"cache: name a folder that can be written in {weight_files.HOME_VARIABLE}"
        )
    return path


def _dask_threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def _device(asked: str, count: int) -> str:
    """The device of this worker, on a machine where it sees `count` GPUs."""
    if asked not in ("auto", "cuda") or not count:
        return asked
    return f"cuda:{slot_here() % count if count > 1 else 0}"


def slot_here() -> int:
    """Which of the workers of its machine this one is, from 0; within a task."""
    import inspect

    from distributed import get_client, get_worker

    client = get_client()
    # some versions list five workers by default
    more = "n_workers" in inspect.signature(client.scheduler_info).parameters
    found = client.scheduler_info(**({"n_workers": -1} if more else {}))
    return slot_among(get_worker().address, found["workers"])


def slot_among(address: str, workers: Mapping[str, Mapping[str, Any]]) -> int:
    """The place of a worker among those of its host, in the order of their names.

    A nanny restarts a worker under its old name, so it keeps its place.
    """
    host = workers[address]["host"]
    beside = [(str(w["name"]), a) for a, w in workers.items() if w["host"] == host]
    # shorter names first: 2 comes before 10
    return [a for _, a in sorted(beside, key=lambda named: (len(named[0]), named))].index(address)
