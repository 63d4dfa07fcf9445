"""The process that trains a refiner for napari: `napari_cfsr.core.process.training_server`.

It takes one request, then commands; it sends progress and the result, and ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

from napari_cfsr.core.process.server import RequestServer
from napari_cfsr.core.training import TrainedRefiner, TrainProgress, TrainRequest
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.errors import CancelledError, OutOfMemoryError

EVENT_SECONDS = 0.1  # between two reports of progress


class Controls:
    """The user's commands, from the listening thread to the training."""

    def __init__(self) -> None:
        self.stopping = False  # whether to end with the best refiner so far
        self.paused_seconds = 0.0  # how long the training was paused
        self._cancelled = False
        self._go = threading.Event()
        self._go.set()

    def obey(self, command: str) -> None:
        """Take a command: `pause`, `resume`, `stop` or `cancel`. The last two end a pause."""
        self._cancelled |= command == "cancel"
        self.stopping |= command == "stop"
        if command == "pause" and not self.stopping and not self._cancelled:
            self._go.clear()
        else:
            self._go.set()

    @property
    def paused(self) -> bool:
        return not self._go.is_set()

    def wait(self) -> None:
        """Return when not paused; raises `CancelledError`."""
        if self.paused:
            began = time.perf_counter()
            self._go.wait()  # without a timeout, so that it costs nothing
            self.paused_seconds += time.perf_counter() - began
        self.check()

    def check(self) -> None:
        """Raise `CancelledError` if the training was cancelled."""
        if self._cancelled:
            raise CancelledError("cancelled")


class Reports:
    """Sends progress ten times a second at most, but never drops what happens only once."""

    def __init__(self, send: Callable[[str, TrainProgress], None]) -> None:
        self._send = send
        self._waiting: TrainProgress | None = None
        self._sent = -EVENT_SECONDS
        self._about: object = None

    def add(self, progress: TrainProgress) -> None:
        """Send it, or keep it until it is due; a later one of the same kind replaces it."""
        about = progress.stage, progress.placement
        if about != self._about:
            self.flush()  # the last of the stage before
        once = (progress.gain, progress.best, progress.preview)
        self._waiting = progress
        if about != self._about or any(x is not None for x in once):
            self._about = about
            self.flush()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        if time.perf_counter() - self._sent >= EVENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        progress, self._waiting = self._waiting, None
        if progress is not None:
            self._sent = time.perf_counter()
            self._send("progress", progress)


class TrainingServer(RequestServer):
    """Trains one refiner; commands come meanwhile."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        super().__init__(source, sink)
        self._controls = Controls()
        self._reports = Reports(self.send)

    def receive(self, message: tuple[Any, ...]) -> None:
        if message[0] == "train":
            super().receive(message)
        else:
            self._controls.obey(message[0])

    def do_train(self, request: TrainRequest) -> TrainedRefiner:
        from napari_cfsr.core.engine import keep_freed_memory
        from napari_cfsr.core.training import iter_train  # imports torch

        self.finished = True
        keep_freed_memory()
        controls = self._controls
        steps = iter_train(request, self._check, lambda: controls.stopping)
        try:
            result = exhaust(steps, self._report)
        except MemoryError as error:  # as `OutOfMemoryError` is, too
            raise _explained(error) from error
        self._reports.flush()
        return replace(result, seconds=result.seconds - controls.paused_seconds)

    def _report(self, progress: TrainProgress) -> None:
        self._reports.add(progress)
        if self._controls.paused:
            self._reports.flush()
        # here and not in `_check`, which is called within steps that are timed
        self._controls.wait()

    def _check(self) -> None:
        """Called often: raises when cancelled, reports in time."""
        self._controls.check()
        self._reports.flush_if_due()


def _explained(error: MemoryError) -> OutOfMemoryError:
    """Lack of memory in the words of a training."""
    first = f" ({error})" if str(error) else ""
    return OutOfMemoryError(
        f"the training ran out of memory{first}: close other programs, or train on fewer or "
        "smaller images, or with a smaller batch or patch"
    )


def main() -> None:
    """Train once."""
    TrainingServer.run()


if __name__ == "__main__":
    main()
