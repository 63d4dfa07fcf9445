"""What a child process does, whatever it serves: requests in, answers out. Needs no torch.

Requests come on standard input, answers go to standard output, both as in `pipes`. The process ends
when its input does, that is when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import traceback
from typing import Any, BinaryIO

import psutil

from napari_cfsr.core.process.pipes import receive, send
from napari_cfsr.errors import CFSRError, ModelProcessError, OutOfMemoryError


class RequestServer:
    """Answers one request after the other; a second thread listens.

    A request is a tuple `(name, *arguments)`, answered by the method `do_name`.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._requests: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.idle_seconds: float | None = None  # without a request, until it ends; None: for ever
        self.finished = False  # whether the process ends after the request under way

    @classmethod
    def run(cls) -> None:
        """Serve until there is nothing more to do, then end this process."""
        source, sink = _own_pipes()
        _give_way()
        cls(source, sink).serve()
        sink.flush()
        os._exit(0)  # the other thread holds standard input, and the interpreter would abort

    def serve(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while not self.finished:
            try:
                name, *arguments = self._requests.get(timeout=self.idle_seconds)
            except queue.Empty:
                return
            try:
                answer = getattr(self, f"do_{name}")(*arguments)
            except Exception as error:
                self.send(*error_message(error))
            else:
                self.send("answer", answer)

    def send(self, kind: str, *content: Any) -> None:
        """Send an answer, or progress before it."""
        send(self._sink, (kind, *content))

    def receive(self, message: tuple[Any, ...]) -> None:
        """Take a message, in the listening thread; subclasses obey those that can't wait."""
        self._requests.put(message)

    def _listen(self) -> None:
        """Take messages as they come; ends this process when the other one is gone."""
        try:
            while True:
                self.receive(receive(self._source))
        except (EOFError, OSError):
            os._exit(0)  # the main thread may be in a long pass
        except BaseException:  # no memory for the images, say: the other process has to know
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)


def error_message(error: Exception) -> tuple[str, type[CFSRError], str]:
    """An error as a message that can be pickled, which its cause may not be."""
    if isinstance(error, CFSRError):
        return "error", type(error), str(error)
    if isinstance(error, MemoryError):
        return "error", OutOfMemoryError, f"out of memory: {error}".rstrip(": ")
    text = f"unexpected fault: {type(error).__name__}: {error}"
    return "error", ModelProcessError, text


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Source and sink of messages; what libraries print goes to standard error instead."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, sink


def _give_way() -> None:
    """Let the window of the process that waits for this one come first."""
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else 5)
