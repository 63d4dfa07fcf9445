"""Core generators as napari workers. A worker knows arrays and frozen requests, never a widget."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.qt.threading import GeneratorWorker, create_worker
from numpy.typing import NDArray

from napari_cfsr.core.inference import UpscaleResult, iter_upscale
from napari_cfsr.core.options import UpscaleOptions
from napari_cfsr.core.remote import RemoteModel
from napari_cfsr.core.weights import fetch_official
from napari_cfsr.errors import CancelledError, CFSRError, UnexpectedError
from napari_cfsr.layers import ImageInput, extremes, shown_difference


@dataclass(frozen=True, eq=False)
class UpscaleRequest:
    """All that a run needs, read on the GUI thread.

    Attributes
    ----------
    image : ImageInput
    load : dict
        Arguments of `load_model`.
    options : UpscaleOptions
    """

    image: ImageInput
    load: dict[str, Any]
    options: UpscaleOptions


@dataclass(frozen=True, eq=False)
class UpscaleOutcome:
    """A finished run, with what takes time to compute for showing it."""

    request: UpscaleRequest
    result: UpscaleResult
    difference: NDArray[np.float32] | None
    limits: tuple[float, float]


@dataclass(frozen=True)
class Failure:
    """A run that ended with a fault whose message says it all."""

    message: str


@dataclass(frozen=True)
class Step:
    """Something to show while a run is under way."""

    text: str
    fraction: float | None = None  # None: not known
    seconds_left: float | None = None


class CancelToken:
    """Set on the GUI thread, looked at by the worker."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise CancelledError("cancelled")


def upscale_worker(
    request: UpscaleRequest, model: RemoteModel, token: CancelToken
) -> GeneratorWorker:
    """Worker that yields `Step`; returns `UpscaleOutcome`, `Failure`, or None when cancelled."""
    return create_worker(_guarded, _upscale(request, model, token), _start_thread=False)


def fetch_worker(scale: int, token: CancelToken) -> GeneratorWorker:
    """Worker that downloads the official weights; returns `WeightsFile`, `Failure` or None."""
    return create_worker(_guarded, _fetch(scale, token), _start_thread=False)


def _guarded(steps: Generator[Step, None, Any]) -> Generator[Step, None, Any]:
    """Run to the end. None when cancelled, `Failure` for faults that are ours to explain.

    What is unexpected is raised, and napari shows it with its traceback; but no RuntimeError,
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


def _upscale(
    request: UpscaleRequest, model: RemoteModel, token: CancelToken
) -> Generator[Step, None, UpscaleOutcome]:
    yield Step("Loading the model")
    info = model.load(request.load, token.check)
    yield Step(f"Loaded {info.backbone}; reading intensities")
    try:
        result = yield from _tiles(request, model, token)
    finally:
        model.rest()
    token.check()
    difference = shown_difference(result)
    limits = extremes(difference) if difference is not None else (0.0, 0.0)
    return UpscaleOutcome(request, result, difference, limits)


def _tiles(
    request: UpscaleRequest, model: RemoteModel, token: CancelToken
) -> Generator[Step, None, UpscaleResult]:
    steps = iter_upscale(request.image.data, model, request.options, token.check)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result: UpscaleResult = end.value
            return result
        yield Step(progress.note or "Upscaling", progress.fraction, progress.seconds_left)


def _fetch(scale: int, token: CancelToken) -> Generator[Step, None, Any]:
    # pooch calls back from inside one call: the worker can't yield there, so a thread downloads
    state: dict[str, Any] = {}

    def progress(done: int, total: int) -> None:
        state["fraction"] = done / total if total else None
        token.check()

    def download() -> None:
        try:
            state["file"] = fetch_official(scale, progress)
        except BaseException as error:  # handed on below
            state["error"] = error

    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        token.check()
        yield Step(f"Downloading the official x{scale} weights", state.get("fraction"))
    if "error" in state:
        raise state["error"]
    return state["file"]
