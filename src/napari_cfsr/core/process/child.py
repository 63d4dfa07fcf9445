"""A process that runs a module of this package, seen from the one that starts it."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO

from napari_cfsr.core.process.pipes import receive, send
from napari_cfsr.errors import CancelledError, ModelProcessError

LAST_SECONDS = 5.0  # for a process to end that has closed its output


class Child:
    """A running process. Its messages wait in `answers`; None comes after the last.

    `command` are arguments of the Python interpreter; `does` is for messages ("the process that
    `does` ended"), `thread` names the thread that listens. Raises `ModelProcessError` if it can't
    be started.
    """

    def __init__(self, command: tuple[str, ...], does: str, thread: str) -> None:
        self.closed = False
        self.answers: queue.Queue[Any] = queue.Queue()
        self._does, self._thread = does, thread
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                # threads that spin while they wait take the processor from the window, and from
                # each other: on a busy machine everything then takes twice as long, or worse
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        except OSError as error:
            self._errors.close()
            raise ModelProcessError(f"the process that {does} can't start: {error}") from error
        arguments = (self.process.stdout, self.answers)
        threading.Thread(target=_listen, args=arguments, daemon=True, name=thread).start()

    @property
    def alive(self) -> bool:
        return not self.closed and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process number while the process is there."""
        return self.process.pid if self.alive else None

    def send(self, message: Any) -> None:
        """Send a message; `OSError` if the process is gone."""
        stream: Any = self.process.stdin
        try:
            send(stream, message)
        except ValueError as error:
            if not stream.closed:
                raise
            raise BrokenPipeError(str(error)) from error

    def died(self, advice: str) -> ModelProcessError | CancelledError:
        """Why it ended unasked, with `advice` on what to do; closes it."""
        if self.closed:
            return CancelledError("cancelled")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)
        code = self.process.poll()
        text = self._last_words() if code != -9 else ""
        why = {
            None: "it was ended, because its answer can't be read",
            -9: "it was killed, most often for lack of memory",
        }.get(code, f"exit status {code}")
        self.close()
        return ModelProcessError(f"the process that {self._does} ended ({why}){text}. {advice}")

    def _last_words(self) -> str:
        """The last line of its standard error, after a colon; nothing if there is none."""
        with contextlib.suppress(ValueError):  # closed meanwhile
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            return f": {lines[-1]}" if lines else ""
        return ""

    def close(self) -> None:
        """End the process now, and wait until it is gone. From any thread, any number of times."""
        if self.closed:
            return
        self.closed = True
        self.process.kill()
        # when this process is ending, other threads have stopped where they were, with their locks
        if not sys.is_finalizing():
            self._clear()

    def kill(self) -> None:
        """As `close`, without waiting: freeing gigabytes takes the system some time."""
        if self.closed:
            return
        self.closed = True
        self.process.kill()
        with contextlib.suppress(RuntimeError):  # this process is ending: no more threads
            # no daemon: that would stop in `wait` with its lock when this process ends
            threading.Thread(target=self._clear, name=self._thread).start()

    def _clear(self) -> None:
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _listen(stream: BinaryIO, answers: queue.Queue[Any]) -> None:
    """Put each message into the queue; None when the process is gone."""
    try:
        while True:
            answers.put(receive(stream))
    except Exception:  # it is gone, or there is no memory for the message
        answers.put(None)
