"""A model in a process of its own.

Why: importing torch and running it would stop napari's event loop for a second at a time; the
memory is released when the process ends; on Windows torch may not load after Qt; and whatever
kills the process, such as the system when memory runs out, does not kill napari.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from typing import Any

from napari_cfsr.core.engine import Check, Float32, ModelInfo, PredictOptions
from napari_cfsr.core.process.child import Child
from napari_cfsr.core.weights import Progress
from napari_cfsr.errors import CancelledError, ModelProcessError

# -P: a file in the working directory must not shadow a module
COMMAND = ("-P", "-m", "napari_cfsr.core.process.model_server")
THREAD = "napari-cfsr model"
ADVICE = "Nothing was changed; try again, with a smaller tile or region if memory is short"
POLL_SECONDS = 0.05
CANCEL_SECONDS = 0.7  # for the process to stop before it is killed


class RemoteModel:
    """Runs models in another process, which starts at the first `load` and again after it died.

    Not for several threads at a time. `close` may be called from any thread.
    """

    def __init__(self) -> None:
        self._child: Child | None = None
        self._info: ModelInfo | None = None

    @contextlib.contextmanager
    def loaded(self, arguments: dict[str, Any], check: Check = lambda: None) -> Iterator[ModelInfo]:
        """Load a model for one run.

        After the run, or after a load that failed, the process ends when it has been idle for long.
        """
        try:
            yield self.load(arguments, check)
        finally:
            self.rest()

    def load(
        self,
        arguments: dict[str, Any],
        check: Check = lambda: None,
        progress: Progress | None = None,
    ) -> ModelInfo:
        """Load a model as `load_model(**arguments)` does; raises what that raises."""
        self._info = None
        if self.pid is None:
            self.close()
            self._child = Child(COMMAND, "runs the network", THREAD)
        info: ModelInfo = self._ask(("load", arguments), check, progress)
        self._info = info
        return info

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise ModelProcessError("expected a loaded model, got none: load one first")
        return self._info

    @property
    def pid(self) -> int | None:
        """Process number while the process is there."""
        child = self._child
        return child.pid if child is not None else None

    def predict(
        self,
        batch: Float32,
        how: PredictOptions = PredictOptions(),  # noqa: B008 - frozen
        check: Check = lambda: None,
    ) -> dict[str, Float32]:
        """As `SRModel.predict`."""
        predicted: dict[str, Float32] = self._ask(("predict", how, batch), check)
        return predicted

    def free_memory(self) -> int:
        """As `SRModel.free_memory`."""
        return int(self._ask(("free_memory",)))

    def to_cpu(self) -> bool:
        """As `SRModel.to_cpu`."""
        moved, self._info = self._ask(("to_cpu",))
        return bool(moved)

    def rest(self) -> None:
        """Say that a run is over: the process may end once it has been idle for long."""
        with contextlib.suppress(ModelProcessError, CancelledError):
            self._ask(("rest",))

    def close(self) -> None:
        """End the process now."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _ask(
        self,
        message: tuple[Any, ...],
        check: Check = lambda: None,
        progress: Progress | None = None,
    ) -> Any:
        """Send a request and wait for the answer; stops early if `check` raises."""
        child = self._child
        if child is None or child.closed:
            raise ModelProcessError("the process that runs the network was ended")
        self._send(child, message)
        while True:
            try:
                check()
                answer = child.answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            except BaseException:
                self._cancel(child)
                raise
            if answer is None:
                raise child.died(ADVICE)
            kind, *content = answer
            if kind == "answer":
                return content[0]
            if kind == "error":
                raise content[0](content[1])
            if progress is not None:
                progress(*content)

    def _send(self, child: Child, message: tuple[Any, ...]) -> None:
        try:
            child.send(message)
        except OSError as error:
            raise child.died(ADVICE) from error

    def _cancel(self, child: Child) -> None:
        """Stop the request under way, if need be by killing the process."""
        with contextlib.suppress(ModelProcessError, CancelledError):
            self._send(child, ("cancel",))
            with contextlib.suppress(queue.Empty):
                while True:
                    answer = child.answers.get(timeout=CANCEL_SECONDS)
                    if answer is None or answer[0] in ("answer", "error"):
                        return
        self.close()
