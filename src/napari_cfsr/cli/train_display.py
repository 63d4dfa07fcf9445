"""Progress of a training on a terminal, and its reaction to Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import say

if TYPE_CHECKING:
    from napari_cfsr.core.training import TrainProgress

REFRESH = 0.1  # seconds
STOPPING = (
    "stopping: the best refiner so far is kept and measured; Ctrl-C again ends at once and keeps "
    "nothing"
)
LINE_INTERVAL = 30.0  # seconds between two lines if there is no terminal


class Interrupts:
    """Ctrl-C: the first stops the training and keeps the best so far, the second ends the program.

    While there is nothing to keep, the first one ends the program.
    """

    def __init__(self) -> None:
        self._has_best = self._stopping = self._announced = False

    def stop(self) -> bool:
        """Whether the training should stop."""
        return self._stopping

    def update(self, progress: TrainProgress) -> bool:
        """Note a step; true if the user should be told that the training stops.

        The handler itself must not print: it may have interrupted another print.
        """
        self._has_best = self._has_best or progress.best is not None
        is_news = self._stopping and not self._announced
        self._announced = self._stopping
        return is_news

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle Ctrl-C; `KeyboardInterrupt` is raised inside when the program should end."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach only the main thread
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        if self._stopping or not self._has_best:
            raise KeyboardInterrupt
        self._stopping = True


class Display:
    """A line that is updated on a terminal; elsewhere a line for each stage and every half minute.

    Parameters
    ----------
    bar : tqdm
        Disabled if there is no terminal.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._gain: float | None = None
        self._best: float | None = None
        self._section: tuple[str, str | None] | None = None
        self._shown = self._printed = -float("inf")

    def show(self, progress: TrainProgress) -> None:
        """Show a step, if it is time for an update."""
        section, now = (progress.stage, progress.placement), time.monotonic()
        is_new = section != self._section
        if is_new and progress.placement is not None:
            self._gain = None  # of the other placement; the best is the best of both
        self._section = section
        if progress.gain is not None:
            self._gain = progress.gain
        if progress.best is not None:
            self._best = progress.best.gain
        if not self._bar.disable:
            self._draw(progress, now, is_new)
        elif is_new or now - self._printed >= LINE_INTERVAL:
            self._printed = now
            say(self._text(progress))

    def say(self, text: str) -> None:
        """Print a line above the one that is updated."""
        self._bar.clear()
        say(text)

    def _draw(self, progress: TrainProgress, now: float, is_new: bool) -> None:
        if not is_new and now - self._shown < REFRESH:
            return
        self._shown = now
        self._bar.n = round(100 * progress.fraction, 1)
        self._bar.set_description_str(self._text(progress), refresh=False)
        self._bar.refresh()

    def _text(self, progress: TrainProgress) -> str:
        """Text for 80 columns; the rest is cut off on the right."""
        parts = [progress.text]
        if progress.stage == "training":
            parts = [f"{progress.placement} step {progress.step}"]
        if progress.seconds_left is not None and round(progress.seconds_left):
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        if progress.stage == "training":
            parts += [f"gain {self._gain:+.2f}"] if self._gain is not None else []
            parts += [f"best {self._best:+.2f} dB"] if self._best is not None else []
            parts += [f"loss {progress.loss:.2g}"] if progress.loss is not None else []
            parts.append(progress.text)
        return ", ".join(parts)


@contextlib.contextmanager
def training_display() -> Iterator[Display]:
    from tqdm import tqdm

    form = "{percentage:3.0f}%|{bar:6}| {desc}"
    with tqdm(total=100, bar_format=form, disable=None, leave=False) as bar:
        yield Display(bar)
