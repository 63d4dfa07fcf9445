"""A model in a process of its own.

Why: importing torch and running it would stop napari's event loop for a second at a time; the
memory goes back when the process ends; on Windows torch may not load after Qt; and what kills the
process, such as the system when memory runs out, does not kill napari.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO

from napari_cfsr.core.model import Check, Float32, ModelInfo, Prediction
from napari_cfsr.core.pipes import receive, send
from napari_cfsr.core.weights import Progress
from napari_cfsr.errors import CancelledError, ModelProcessError

# -P: a file in the working directory must not shadow a module
COMMAND = ("-P", "-m", "napari_cfsr.core.model_process")
THREAD = "napari-cfsr model"
POLL_SECONDS = 0.05
CANCEL_SECONDS = 0.7  # for the process to stop by itself, before it is killed


class RemoteModel:
    """Runs models in another process, which starts at the first `load` and again after it died.

    Not for several threads at a time. `close` may be called from any thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()
        self._errors: BinaryIO | None = None
        self._info: ModelInfo | None = None

    def load(
        self,
        arguments: dict[str, Any],
        check: Check = lambda: None,
        progress: Progress | None = None,
    ) -> ModelInfo:
        """Load a model as `load_model(**arguments)` does; raises what that raises."""
        self._info = None
        if self._process is None or self._process.poll() is not None:
            self._start()
        info: ModelInfo = self._ask(("load", arguments), check=check, progress=progress)[0]
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
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive and self._process else None

    def predict(
        self,
        batch: Float32,
        how: Prediction = Prediction(),  # noqa: B008 - frozen
        check: Check = lambda: None,
    ) -> dict[str, Float32]:
        """As `SRModel.predict`."""
        return self._ask(("predict", how), {"batch": batch}, check)[1]

    def free_memory(self) -> int:
        """As `SRModel.free_memory`."""
        return int(self._ask(("free_memory",))[0])

    def to_cpu(self) -> bool:
        """As `SRModel.to_cpu`."""
        moved, self._info = self._ask(("to_cpu",))[0]
        return bool(moved)

    def rest(self) -> None:
        """Say that a run is over: the process may end itself when it has been idle for long."""
        with contextlib.suppress(ModelProcessError, CancelledError):
            self._ask(("rest",))

    def close(self) -> None:
        """End the process now."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> None:
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                creationflags=flags,
                # threads that spin while they wait take the processor from the window, and from
                # each other: on a busy machine everything then takes twice as long, or worse
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        except (OSError, ValueError) as error:  # ValueError: `close` was called meanwhile
            raise ModelProcessError(f"the process for the network can't start: {error}") from error
        self._answers = queue.Queue()
        thread = threading.Thread(
            target=_listen,
            args=(self._process.stdout, self._answers),
            daemon=True,
            name=THREAD,
        )
        thread.start()

    def _ask(
        self,
        message: Any,
        arrays: dict[str, Any] | None = None,
        check: Check = lambda: None,
        progress: Progress | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Send a request and wait for the answer; stops early if `check` raises."""
        self._send(message, arrays)
        while True:
            try:
                check()
                answer = self._answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            except BaseException:
                self._cancel()
                raise
            if answer is None:
                raise self._died()
            (kind, *content), out = answer
            if kind == "answer":
                return content[0], out
            if kind == "error":
                raise content[0](content[1])
            if progress is not None:
                progress(*content)

    def _send(self, message: Any, arrays: dict[str, Any] | None = None) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise ModelProcessError("the process for the network was ended")
        try:
            send(process.stdin, message, arrays)  # type: ignore[arg-type]
        except (OSError, ValueError) as error:
            raise self._died() from error

    def _cancel(self) -> None:
        """Stop the request under way: politely, else by killing the process."""
        with contextlib.suppress(ModelProcessError):
            self._send(("cancel",))
            with contextlib.suppress(queue.Empty):
                while True:
                    answer = self._answers.get(timeout=CANCEL_SECONDS)
                    if answer is None or answer[0][0] in ("answer", "error"):
                        return
        self.close()

    def _died(self) -> ModelProcessError | CancelledError:
        process, errors = self._process, self._errors
        if process is None:  # `close` was called meanwhile
            return CancelledError("cancelled")
        code = process.wait()
        text = ""
        if errors is not None:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            text = f": {lines[-1]}" if lines else ""
        self.close()
        why = (
            "it was killed, most often for lack of memory" if code == -9 else f"exit status {code}"
        )
        return ModelProcessError(
            f"the process that runs the network ended ({why}){text}. Nothing was changed; try "
            "again, with a smaller tile or region if memory is short"
        )


def _listen(stream: BinaryIO, answers: queue.Queue[Any]) -> None:
    """Put each answer into the queue; None when the process is gone."""
    try:
        while True:
            answers.put(receive(stream))
    except (EOFError, OSError, ValueError):
        answers.put(None)
