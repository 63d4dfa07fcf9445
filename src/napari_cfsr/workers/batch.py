"""A batch as napari runs it: request, progress and outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.core.process import RemoteModel
from napari_cfsr.core.upscale import UpscaleOptions, WithResult

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchRecord, BatchStep


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """Everything that a batch needs, read on the GUI thread."""

    inputs: tuple[Path, ...]  # files, stores and folders
    output: Path | None  # a folder; None: beside each input
    load: dict[str, Any]  # arguments of `load_model`
    options: UpscaleOptions
    overwrite: bool


@dataclass(frozen=True, eq=False)
class BatchOutcome:
    """A batch that finished or was cancelled."""

    records: tuple[BatchRecord, ...]
    seconds: float

    @property
    def cancelled(self) -> bool:
        return any(record.state in ("waiting", "running") for record in self.records)


def list_inputs(inputs: tuple[Path, ...]) -> tuple[list[Path], str]:
    """The files that a batch of these inputs would upscale, and any faults of the inputs."""
    from napari_cfsr.core.batch import find_inputs

    found, faults = find_inputs(inputs)
    return list(found), "; ".join(fault.text for fault in faults)


def run_batch(
    request: BatchRequest, model: RemoteModel, check: Callable[[], None]
) -> Generator[tuple[Path, ...] | BatchStep, None, BatchOutcome]:
    """Run a batch; yields its paths, then its steps.

    Where `check` raises `CancelledError`, it ends with an outcome.

    Raises
    ------
    CFSRError
        There are no weights, or the model can't be loaded.
    """
    from napari_cfsr.core.batch import iter_batch, plan_batch
    from napari_cfsr.core.weights import find_model

    began = time.perf_counter()
    load = request.load
    files = find_model(
        load["scale"], load["backbone"], load["refiner"], download=False,
        weights_folder=load.get("weights_folder"),
    )  # fmt: skip
    plan = plan_batch(
        request.inputs, request.output, files, request.options, load["precision"],
        request.overwrite,
    )  # fmt: skip
    yield tuple(item.path for item in plan.items)

    with ExitStack() as run:

        def loaded() -> RemoteModel:
            run.enter_context(model.loaded(load, check))
            return model

        steps = WithResult(iter_batch(plan, loaded, check))
        yield from steps
    return BatchOutcome(tuple(steps.result), time.perf_counter() - began)
