"""A module of this package run in a process of its own, and messages with it. Needs no torch.

`Child` is for whoever starts such a process; the functions below it are for the process itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_cfsr.core.process.pipes import receive, send
from napari_cfsr.errors import CancelledError, CFSRError, ModelProcessError, OutOfMemoryError

Arrays = dict[str, NDArray[Any]]

LAST_SECONDS = 5.0  # for a process to end that has closed its output


class Child:
    """A running process. What it says waits in `answers`; after the last of it comes None.

    Parameters
    ----------
    command : tuple of str
        What follows the name of the Python interpreter.
    does : str
        For messages: "the process that `does` ended".
    thread : str
        Name of the thread that listens.

    Raises
    ------
    ModelProcessError
        It can't be started.
    """

    def __init__(self, command: tuple[str, ...], does: str, thread: str) -> None:
        self.closed = False
        self.answers: queue.Queue[tuple[Any, Arrays] | None] = queue.Queue()
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

    def send(self, message: Any, arrays: Arrays | None = None) -> None:
        """Send a message; `OSError` if the process is gone."""
        try:
            send(self.process.stdin, message, arrays)  # type: ignore[arg-type]
        except ValueError as error:  # closed meanwhile
            raise BrokenPipeError(str(error)) from error

    def died(self, advice: str) -> ModelProcessError | CancelledError:
        """Why it ended without being asked to, with `advice` on what to do; closes it."""
        if self.closed:
            return CancelledError("cancelled")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_SECONDS)
        code = self.process.poll()
        text = self._last_words() if code != -9 else ""
        why = {
            None: "it was ended, because what it said can't be read",
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
        """As `close`, without waiting: the system takes its time to free gigabytes."""
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


def _listen(stream: BinaryIO, answers: queue.Queue[tuple[Any, Arrays] | None]) -> None:
    """Put each answer into the queue; None when the process is gone."""
    try:
        while True:
            answers.put(receive(stream))
    except Exception:  # it is gone, or there is no memory for what it says
        answers.put(None)


# values with large arrays somewhere inside them


class _Packer(pickle.Pickler):
    """Puts arrays aside instead of pickling them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: Arrays = {}

    def persistent_id(self, value: Any) -> str | None:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.ndim:
            return None
        name = str(len(self.arrays))
        self.arrays[name] = value
        return name


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: BinaryIO, arrays: Arrays) -> None:
        super().__init__(file)
        self._arrays = arrays

    def persistent_load(self, name: str) -> NDArray[Any]:
        return self._arrays[name]


def pack(value: Any) -> tuple[bytes, Arrays]:
    """A value as a small pickle and the arrays in it, for `send`.

    A pickle with the arrays inside would be made and read in one go, and no other thread, such as
    that of the window, could run meanwhile.
    """
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(value)
    return file.getvalue(), packer.arrays


def unpack(packed: bytes, arrays: Arrays) -> Any:
    """The value that was packed."""
    return _Unpacker(io.BytesIO(packed), arrays).load()


# for the process itself


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Where messages come from and go to; what libraries print goes to standard error instead."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, sink


def give_way() -> None:
    """Let the window of whoever waits for this process come first."""
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else 5)


def listen(source: BinaryIO, handle: Callable[[Any, Arrays], None]) -> None:
    """Hand each message to `handle`, in a thread; ends this process when nobody is there."""

    def loop() -> None:
        try:
            while True:
                handle(*receive(source))
        except (EOFError, OSError):
            os._exit(0)  # the main thread may be in a long pass
        except BaseException:  # such as no memory for the images: whoever waits is to know
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=loop, daemon=True).start()


def error_message(error: Exception) -> tuple[str, type[CFSRError], str]:
    """A fault as a message that can be pickled, which its cause may not be."""
    if isinstance(error, CFSRError):
        return "error", type(error), str(error)
    if isinstance(error, MemoryError):
        return "error", OutOfMemoryError, f"out of memory: {error}".rstrip(": ")
    text = f"unexpected fault: {type(error).__name__}: {error}"
    return "error", ModelProcessError, text


def leave(sink: BinaryIO) -> None:
    """End this process, with all that was sent."""
    sink.flush()
    os._exit(0)  # the other thread holds standard input, and the interpreter would abort over it
