"""The model of a worker process: which weights, which device, loaded once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cfsr.core.engine import Check
from napari_cfsr.core.weights import HashedFile, find_by_hash

if TYPE_CHECKING:
    from napari_cfsr.core.engine import SRModel

POLL_SECONDS = 0.2  # of a task that waits for the model


@dataclass(frozen=True)
class ModelRecipe:
    """What to load, in words that mean the same on every machine.

    Attributes
    ----------
    scale : int
    backbone : HashedFile
    refiner : HashedFile or None
    device : str
        As for `load_model`; `auto` and `cuda` share the GPUs of a machine out among its workers.
    precision : {"float32", "fast"}
    engine : str
        As for `load_model`.
    """

    scale: int
    backbone: HashedFile
    refiner: HashedFile | None
    device: str
    precision: str
    engine: str = "auto"

    @property
    def files(self) -> tuple[HashedFile, ...]:
        return (self.backbone,) if self.refiner is None else (self.backbone, self.refiner)


class MissingWeights(Exception):  # noqa: N818 - a question, which is answered
    """This machine has no file with those hashes."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(missing)
        self.missing = missing


class WorkerModelCache:
    """The model of this process: the last that was asked for, for one task at a time.

    Attributes
    ----------
    loads : int
        How many times one was loaded.
    """

    def __init__(self) -> None:
        self.loads = 0
        self._lock = threading.Lock()
        self._recipe: ModelRecipe | None = None
        self._model: SRModel | None = None

    @contextmanager
    def model(self, recipe: ModelRecipe, check: Check = lambda: None) -> Iterator[SRModel]:
        """The model of a recipe, for as long as the block lasts.

        Raises
        ------
        MissingWeights
            They have to be sent first.
        CFSRError
            As `load_model`, and whatever `check` raises while another task has it.
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


MODELS = WorkerModelCache()  # a worker process has one model, whatever tasks it gets


def _load(recipe: ModelRecipe) -> SRModel:
    found = {file.sha256: find_by_hash(file) for file in recipe.files}
    missing = tuple(sha256 for sha256, path in found.items() if path is None)
    if missing:
        raise MissingWeights(missing)
    import torch

    from napari_cfsr.core.engine import keep_freed_memory, load_model

    keep_freed_memory()
    # a nanny says OMP_NUM_THREADS=1 unless told otherwise, however many threads a worker may use
    threads = max(torch.get_num_threads(), _dask_threads())
    torch.set_num_threads(threads)
    precision: Any = recipe.precision
    return load_model(
        recipe.scale,
        found[recipe.backbone.sha256] or "",
        found[recipe.refiner.sha256] if recipe.refiner is not None else None,
        _device(recipe.device, torch.cuda.device_count()),
        precision,
        engine=recipe.engine,
        threads=threads,
    )


def _dask_threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def _device(asked: str, count: int) -> str:
    """The device of this worker where the machine has `count` GPUs that it can see."""
    if asked not in ("auto", "cuda") or not count:
        return asked
    return f"cuda:{slot_here() % count if count > 1 else 0}"


def slot_here() -> int:
    """Which of the workers of its machine this one is, from 0; for a task to ask."""
    import inspect

    from distributed import get_client, get_worker

    client = get_client()
    # some versions tell of five workers only unless asked for more
    more = "n_workers" in inspect.signature(client.scheduler_info).parameters
    told = client.scheduler_info(**({"n_workers": -1} if more else {}))
    return slot_among(get_worker().address, told["workers"])


def slot_among(address: str, workers: Mapping[str, Mapping[str, Any]]) -> int:
    """The place of a worker among those of its host, in the order of their names.

    A worker that was started again by its nanny has its old name, and so its old place.
    """
    host = workers[address]["host"]
    beside = [(str(w["name"]), a) for a, w in workers.items() if w["host"] == host]
    return [a for _, a in sorted(beside, key=_natural)].index(address)


def _natural(named: tuple[str, str]) -> list[tuple[int, str]]:
    """Names in the order in which a person counts: 2 comes before 10."""
    parts = re.split(r"(\d+)", named[0])
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
