"""Core generators as napari workers. A worker knows arrays and frozen requests, never a widget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from napari.qt.threading import GeneratorWorker, create_worker
from numpy.typing import NDArray
from qtpy.QtCore import Qt

from napari_cfsr.core.process import RemoteModel, RemoteTraining
from napari_cfsr.core.training import Checkpoint, TrainedRefiner, TrainProgress, TrainRequest
from napari_cfsr.core.upscale import UpscaleOptions, UpscaleResult, WithResult, iter_upscale
from napari_cfsr.core.weights import WeightsFile, find_backbone
from napari_cfsr.errors import CancelledError, CFSRError, UnexpectedError
from napari_cfsr.layers import ImageInput, TrainJob, extremes, shown_difference, training_data
from napari_cfsr.workers.steps import Step

Result = TypeVar("Result")
Check = Callable[[], None]
Steps = Callable[[Check], Generator[Any, None, Any]]

BEAT = 0.1  # seconds between two checks whether to stop


@dataclass(frozen=True, eq=False)
class UpscaleRequest:
    """Everything that a run needs, read on the GUI thread."""

    image: ImageInput
    load: dict[str, Any]  # arguments of `load_model`
    options: UpscaleOptions


@dataclass(frozen=True, eq=False)
class UpscaleOutcome:
    """A finished run, with what takes time to compute before it can be shown."""

    request: UpscaleRequest
    result: UpscaleResult
    difference: NDArray[np.float32] | None
    limits: tuple[float, float]


@dataclass(frozen=True)
class Failure:
    """A run that failed with an error that its message explains."""

    message: str
    best: Checkpoint | None = None  # the best refiner of a training that failed later


class CancelToken:
    """Set on the GUI thread, checked by the worker."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise CancelledError("cancelled")


def step_worker(name: str, steps: Steps, token: CancelToken) -> GeneratorWorker:
    """Worker that yields what the generator `steps(check)` yields, such as `Step`.

    Returns what the generator returns, `Failure`, or None when cancelled.
    """
    return _worker(name, steps(token.check))


def call_worker(text: str, function: Callable[[], Any], token: CancelToken) -> GeneratorWorker:
    """Worker that calls a function; returns what it returns, `Failure`, or None when cancelled."""
    return _worker(text, _call(text, function, token.check))


def train_worker(job: TrainJob, training: RemoteTraining, token: CancelToken) -> GeneratorWorker:
    """Worker that trains a refiner; yields `TrainProgress`, and None where nothing is new.

    Returns `TrainedRefiner`, `Failure`, or None when it was cancelled, or stopped before anything
    was trained. Pause, resume and stop it with the methods of `training`.
    """
    training.reset()
    worker = _worker("a training", _train(job, training, token))
    # `quit`, which napari's task manager calls, leaves the generator where it stands. In the
    # worker's own thread, since that of the window may be about to end.
    worker.aborted.connect(training.close, Qt.ConnectionType.DirectConnection)
    return worker


class _Task(partial[Any]):
    """A function that napari's task manager shows by a name instead of an address."""

    name: str

    def __repr__(self) -> str:
        return f"{self.name} by napari-cfsr"


def _worker(name: str, steps: Generator[Any, None, Any]) -> GeneratorWorker:
    """Worker that has not been started; see `_guarded`."""
    task = _Task(_guarded, steps)
    task.name = name
    return create_worker(task, _start_thread=False)


def _guarded(steps: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    """Run to the end. None when cancelled, `Failure` for errors of this package.

    Unexpected errors are raised, and napari shows them with their traceback; but no RuntimeError,
    which would make the worker hang without a signal.
    """
    try:
        return (yield from steps)
    except CancelledError:
        return None
    except CFSRError as error:
        return Failure(str(error))
    except RuntimeError as error:
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error


def upscale_layer(
    request: UpscaleRequest, model: RemoteModel, check: Check
) -> Generator[Step, None, UpscaleOutcome]:
    """Upscale into memory."""
    yield Step("Loading the model")
    with model.loaded(request.load, check) as info:
        yield Step(f"Loaded {info.backbone}; reading intensities")
        steps = WithResult(iter_upscale(request.image.data, model, request.options, check))
        for step in steps:
            yield Step(step.note or "Upscaling", step.fraction, step.seconds_left)
    check()
    difference = shown_difference(steps.result)
    limits = extremes(difference) if difference is not None else (0.0, 0.0)
    return UpscaleOutcome(request, steps.result, difference, limits)


def fetch_weights(scale: int, check: Check) -> Generator[Step, None, WeightsFile]:
    """Download the official weights."""
    fraction: float | None = None

    def progress(done: int, total: int) -> None:
        nonlocal fraction
        fraction = done / total if total else None
        check()

    # progress is called from inside one call: the worker can't yield there
    fetch = partial(find_backbone, scale, "official", True, progress)
    waiting = WithResult(_in_thread(fetch, check))
    for _ in waiting:
        yield Step(f"Downloading the official x{scale} weights", fraction)
    return waiting.result[0]


def _in_thread(function: Callable[[], Result], check: Check) -> Generator[None, None, Result]:
    """Call it in a thread of its own and yield meanwhile; abandoned if `check` raises."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised below
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(BEAT)
        check()
        yield
    if errors:
        raise errors[0]
    return results[0]


def _call(text: str, function: Callable[[], Any], check: Check) -> Generator[Step, None, Any]:
    waiting = WithResult(_in_thread(function, check))
    for _ in waiting:
        yield Step(text)
    return waiting.result


def _train(
    job: TrainJob, training: RemoteTraining, token: CancelToken
) -> Generator[TrainProgress | None, None, TrainedRefiner | Failure]:
    def check() -> None:
        token.check()
        training.check()

    try:
        yield TrainProgress("preparing", "Reading the images", 0.0)
        data = yield from _in_thread(lambda: training_data(job.data, job.config, check), check)
        request = TrainRequest(data, job.load, job.config)
        del data
        steps = training.steps(request, token.check)
        del request
        return (yield from steps)
    except CancelledError:
        raise
    except CFSRError as error:
        return Failure(str(error), training.best)
