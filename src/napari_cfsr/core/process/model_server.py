"""The process that runs the network for napari: `python -m napari_cfsr.core.process.model_server`.

It also ends after some idle minutes between two runs.
"""

from __future__ import annotations

import threading
from typing import Any, BinaryIO

from napari_cfsr.core.engine import (
    Float32,
    ModelInfo,
    PredictOptions,
    SRModel,
    keep_freed_memory,
    load_model,
)
from napari_cfsr.core.process.server import RequestServer
from napari_cfsr.errors import CancelledError, ModelProcessError

IDLE_SECONDS = 300.0


class ModelServer(RequestServer):
    """Loads models and runs them."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        super().__init__(source, sink)
        self._cancelled = threading.Event()
        self._model: SRModel | None = None
        self.idle_seconds = IDLE_SECONDS

    def receive(self, message: tuple[Any, ...]) -> None:
        if message[0] == "cancel":
            self._cancelled.set()
        else:
            self._cancelled.clear()
            super().receive(message)

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("cancelled")

    def do_load(self, arguments: dict[str, Any]) -> ModelInfo:
        def progress(done: int, total: int) -> None:
            self._check()
            self.send("download", done, total)

        # without a model nothing will run; with one, a run may take its time between two tiles
        self._model, self.idle_seconds = None, IDLE_SECONDS
        self._model = load_model(**arguments, progress=progress)
        self.idle_seconds = None
        return self._model.info

    def do_predict(self, how: PredictOptions, batch: Float32) -> dict[str, Float32]:
        return self._loaded().predict(batch, how, self._check)

    def do_rest(self) -> None:
        self.idle_seconds = IDLE_SECONDS

    def do_free_memory(self) -> int:
        return self._loaded().free_memory()

    def do_to_cpu(self) -> tuple[bool, ModelInfo]:
        return self._loaded().to_cpu(), self._loaded().info

    def _loaded(self) -> SRModel:
        if self._model is None:
            raise ModelProcessError("expected a loaded model, got none: load one first")
        return self._model


def main() -> None:
    """Serve until nobody listens."""
    keep_freed_memory()
    ModelServer.run()


if __name__ == "__main__":
    main()
