"""The process that runs the network for napari: `python -m napari_cfsr.core.model_process`.

Requests come on standard input, answers go to standard output, both as in `pipes`. The process
ends when its input does, that is when whoever started it is gone, and after some idle minutes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from typing import Any, BinaryIO

import psutil

from napari_cfsr.core.engines import keep_freed_memory
from napari_cfsr.core.model import SRModel, load_model
from napari_cfsr.core.pipes import receive, send
from napari_cfsr.errors import CancelledError, CFSRError, ModelProcessError

IDLE_SECONDS = 300.0


class Server:
    """Answers one request after the other; a second thread listens for cancellation."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._requests: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()
        self._cancelled = threading.Event()
        self._model: SRModel | None = None
        self._resting = True

    def serve(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            try:
                # a run may take its time between two tiles; only between runs is this idle
                timeout = IDLE_SECONDS if self._resting else None
                (name, *arguments), arrays = self._requests.get(timeout=timeout)
            except queue.Empty:
                return
            try:
                answer, out = getattr(self, f"do_{name}")(*arguments, **arrays)
            except CFSRError as error:
                # the cause may hold what can't be pickled, and its text is in the message
                send(self._sink, ("error", type(error), str(error)))
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                send(self._sink, ("error", ModelProcessError, f"unexpected fault: {text}"))
            else:
                send(self._sink, ("answer", answer), out)

    def _listen(self) -> None:
        try:
            while True:
                message, arrays = receive(self._source)
                if message[0] == "cancel":
                    self._cancelled.set()
                else:
                    self._cancelled.clear()
                    self._requests.put((message, arrays))
        except (EOFError, OSError):
            os._exit(0)  # nobody is there any more, and the main thread may be in a long pass

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("cancelled")

    def do_load(self, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        def progress(done: int, total: int) -> None:
            self._check()
            send(self._sink, ("download", done, total))

        self._resting = False
        self._model = None
        self._model = load_model(**arguments, progress=progress)
        return self._model.info, {}

    def do_predict(self, how: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        return None, self._loaded().predict(batch, how, self._check)

    def do_rest(self) -> tuple[Any, dict[str, Any]]:
        self._resting = True
        return None, {}

    def do_free_memory(self) -> tuple[Any, dict[str, Any]]:
        return self._loaded().free_memory(), {}

    def do_to_cpu(self) -> tuple[Any, dict[str, Any]]:
        return (self._loaded().to_cpu(), self._loaded().info), {}

    def _loaded(self) -> SRModel:
        if self._model is None:
            raise ModelProcessError("expected a loaded model, got none: load one first")
        return self._model


def give_way() -> None:
    """Let the window of whoever waits for this process come first."""
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else 5)


def main() -> None:
    """Serve until nobody listens."""
    # what libraries print must not get between the answers
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    keep_freed_memory()
    give_way()
    Server(sys.stdin.buffer, sink).serve()
    sink.flush()
    os._exit(0)  # the other thread holds standard input, and the interpreter would abort over it


if __name__ == "__main__":
    main()
