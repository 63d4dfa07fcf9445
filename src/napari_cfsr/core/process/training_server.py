"""The process that trains a refiner for napari: `napari_cfsr.core.process.training_server`.

One request comes on standard input, then commands; progress and the result go to standard output.
The process ends after the result, and when its input does, that is when whoever started it is gone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any, BinaryIO

from napari_cfsr.core.process.child import (
    Arrays,
    error_message,
    give_way,
    leave,
    listen,
    own_pipes,
    pack,
    unpack,
)
from napari_cfsr.core.process.pipes import send
from napari_cfsr.core.training import TrainedRefiner, TrainProgress
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.errors import CancelledError, OutOfMemoryError

EVENT_SECONDS = 0.1  # between two reports of progress


class Controls:
    """What the user wants: heard by the listening thread, obeyed by the training.

    Attributes
    ----------
    paused_seconds : float
        How long the training has waited.
    stopping : bool
        Whether the best so far is enough.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.paused_seconds = 0.0
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
        """Raise `CancelledError` if that is what the user wants."""
        if self._cancelled:
            raise CancelledError("cancelled")


class Reports:
    """Sends progress, ten times a second at most, but all of it that happens once."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._waiting: TrainProgress | None = None
        self._sent = -EVENT_SECONDS
        self._about: object = None

    def add(self, progress: TrainProgress) -> None:
        """Send it, or keep it until it is time; a later one like it takes its place."""
        about = progress.stage, progress.placement
        if about != self._about:
            self.flush()  # the last of what is over
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
            self.send("progress", progress)

    def send(self, kind: str, value: Any) -> None:
        packed, arrays = pack(value)
        send(self._sink, (kind, packed), arrays)


class Session:
    """One training, from the request to the result."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._requests: queue.Queue[tuple[bytes, Arrays]] = queue.Queue()
        self._controls = Controls()
        self._reports = Reports(sink)

    def run(self) -> None:
        """Wait for the request, train, send the result or the fault."""
        listen(self._source, self._receive)
        try:
            result = self._train(*self._requests.get())
        except Exception as error:
            send(self._sink, error_message(_explained(error)))
        else:
            self._reports.send("answer", result)

    def _receive(self, message: Any, arrays: Arrays) -> None:
        name, *arguments = message
        if name == "train":
            self._requests.put((arguments[0], arrays))
        else:
            self._controls.obey(name)

    def _train(self, packed: bytes, arrays: Arrays) -> TrainedRefiner:
        # only now, so that the images come in while torch is being imported
        from napari_cfsr.core.engine import keep_freed_memory
        from napari_cfsr.core.training import iter_train

        keep_freed_memory()
        controls = self._controls
        request = unpack(packed, arrays)
        steps = iter_train(request, self._check, lambda: controls.stopping)
        return self._follow(steps)

    def _follow(self, steps: Generator[TrainProgress, None, TrainedRefiner]) -> TrainedRefiner:
        result = exhaust(steps, self._report)
        self._reports.flush()
        return replace(result, seconds=result.seconds - self._controls.paused_seconds)

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


def _explained(error: Exception) -> Exception:
    """The fault itself; in words of its own if it is a lack of memory."""
    if not isinstance(error, MemoryError):  # as `OutOfMemoryError` is, too
        return error
    first = f" ({error})" if str(error) else ""
    return OutOfMemoryError(
        f"the training ran out of memory{first}: close other programs, or train on fewer or "
        "smaller images, or with a smaller batch or patch"
    )


def main() -> None:
    """Train once."""
    source, sink = own_pipes()
    give_way()
    Session(source, sink).run()
    leave(sink)


if __name__ == "__main__":
    main()
