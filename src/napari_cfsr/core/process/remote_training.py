"""A training in a process of its own, for the reasons given in `remote_model`. Needs no torch."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Generator

from napari_cfsr.core.process.child import Child
from napari_cfsr.core.training import Checkpoint, TrainedRefiner, TrainProgress, TrainRequest
from napari_cfsr.errors import CancelledError, CFSRError, OutOfMemoryError, UnexpectedError

# -P: a file in the working directory must not shadow a module
COMMAND = ("-P", "-m", "napari_cfsr.core.process.training_server")
THREAD = "napari-cfsr training"
POLL_SECONDS = 0.05
CANCEL_SECONDS = 0.7  # for the process to stop before it is killed

Commands = queue.SimpleQueue["str | None"]
Steps = Generator[TrainProgress | None, None, TrainedRefiner]


class RemoteTraining:
    """Trains refiners, one after the other, each in a process that ends with its training.

    `steps` is for one thread; everything else may be called from any thread and returns at once.

    Attributes
    ----------
    best : Checkpoint or None
        The best refiner that came from the training under way, or from the last one. It is in this
        process: it stays when the other one dies.
    """

    def __init__(self) -> None:
        self.best: Checkpoint | None = None
        self._child: Child | None = None
        self.reset()

    def reset(self) -> None:
        """Forget an earlier training: its best refiner, and the commands to it."""
        self.best = None
        self._forget_commands()

    def _forget_commands(self) -> None:
        self._stopping = self._has_begun = False
        self._commands: Commands = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        """Process number while the process is there."""
        child = self._child
        return child.pid if child is not None else None

    def pause(self) -> None:
        """Pause the training, without using the processor, until `resume` or `stop`."""
        self._commands.put("pause")

    def resume(self) -> None:
        """Go on after `pause`."""
        self._commands.put("resume")

    def stop(self) -> None:
        """End with the best refiner so far; before there can be one, this cancels."""
        self._stopping = True
        self._commands.put("stop")

    def check(self) -> None:
        """Raise `CancelledError` if `stop` was called before anything was trained."""
        if self._stopping and not self._has_begun:
            raise CancelledError("stopped before anything was trained")

    def close(self) -> None:
        """Kill the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            self._commands.put(None)  # the writing thread ends
            self._forget_commands()

    def steps(self, request: TrainRequest, check: Callable[[], None] = lambda: None) -> Steps:
        """Train as `iter_train` does; yields None where there is no news, 20 times a second.

        Parameters
        ----------
        request : TrainRequest
        check : callable
            Called as often; may raise to cancel the training.

        Raises
        ------
        ModelProcessError
            The process died. `best` is what it had found until then.
        CFSRError
            What `iter_train` raises, and `OutOfMemoryError`.
        """
        self.best = None
        child, commands = None, self._commands
        try:
            check()
            self.check()
            child = self._child = Child(COMMAND, "trains the refiner", THREAD)
            images = [request]
            del request  # the images are no longer needed once they are sent
            arguments = (child, images, commands)
            threading.Thread(target=_write, args=arguments, daemon=True, name=THREAD).start()
            return (yield from self._follow(child, commands, check))
        finally:  # of an abandoned generator this comes late, perhaps during the next training
            commands.put(None)
            if child is not None:
                child.close()
            if self._commands is commands:
                self._forget_commands()

    def _follow(self, child: Child, commands: Commands, check: Callable[[], None]) -> Steps:
        yield TrainProgress("preparing", "Starting the training process", 0.0)
        while True:
            try:
                check()
                self.check()
            except CFSRError:
                _cancel(child, commands)
                raise
            try:
                answer = child.answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if answer is None:
                raise child.died(self._advice())
            kind, *content = answer
            if kind == "error":
                raise content[0](content[1])
            if kind == "answer":
                result: TrainedRefiner = content[0]
                return result
            yield self._noted(content[0])

    def _noted(self, progress: TrainProgress) -> TrainProgress:
        """The same progress; its best refiner is kept."""
        self._has_begun |= progress.stage != "preparing"
        if progress.best is not None:
            self.best = progress.best
            self._has_begun = True
        return progress

    def _advice(self) -> str:
        if self.best is None:
            return (
                "It had found no refiner yet. Try again, with fewer or smaller images if memory is "
                "short"
            )
        return (
            f"The best refiner so far is kept: that of step {self.best.step}, "
            f"{self.best.gain:+.2f} dB over the backbone on the validation images"
        )


def _write(child: Child, requests: list[TrainRequest], commands: Commands) -> None:
    """Send the request, which may take seconds, and then the commands as they come."""
    with contextlib.suppress(OSError):  # it has died, and the other thread says so
        try:
            child.send(("train", requests.pop()))
        except OSError:
            raise
        except Exception as error:  # the process would wait for the rest for ever
            child.answers.put(("error", *_fault(error)))
            return
        while (command := commands.get()) is not None:
            child.send((command,))


def _fault(error: Exception) -> tuple[type[CFSRError], str]:
    if isinstance(error, MemoryError):
        return OutOfMemoryError, (
            "no memory is left to send the images to the training: close other programs, or train "
            "on fewer or smaller images"
        )
    return UnexpectedError, f"the images could not be sent to the training ({error!r})"


def _cancel(child: Child, commands: Commands) -> None:
    """Give the process time to end, which removes its temporary files."""
    commands.put("cancel")
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(CANCEL_SECONDS)
