"""The process that runs the network for napari: `python -m napari_cfsr.core.process.model_server`.

Requests come on standard input, answers go to standard output, both as in `pipes`. The process
ends when its input does, that is when whoever started it is gone, and after some idle minutes.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, BinaryIO

from napari_cfsr.core.engine import SRModel, keep_freed_memory, load_model
from napari_cfsr.core.process.child import error_message, give_way, leave, listen, own_pipes
from napari_cfsr.core.process.pipes import send
from napari_cfsr.errors import CancelledError, ModelProcessError

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
        listen(self._source, self._receive)
        while True:
            try:
                # a run may take its time between two tiles; only between runs is this idle
                timeout = IDLE_SECONDS if self._resting else None
                (name, *arguments), arrays = self._requests.get(timeout=timeout)
            except queue.Empty:
                return
            try:
                answer, out = getattr(self, f"do_{name}")(*arguments, **arrays)
            except Exception as error:
                send(self._sink, error_message(error))
            else:
                send(self._sink, ("answer", answer), out)

    def _receive(self, message: Any, arrays: dict[str, Any]) -> None:
        if message[0] == "cancel":
            self._cancelled.set()
        else:
            self._cancelled.clear()
            self._requests.put((message, arrays))

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("cancelled")

    def do_load(self, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        def progress(done: int, total: int) -> None:
            self._check()
            send(self._sink, ("download", done, total))

        self._resting, self._model = True, None  # also if the load fails: nothing will run then
        self._model = load_model(**arguments, progress=progress)
        self._resting = False
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


def main() -> None:
    """Serve until nobody listens."""
    source, sink = own_pipes()
    keep_freed_memory()
    give_way()
    Server(source, sink).serve()
    leave(sink)


if __name__ == "__main__":
    main()
