"""How long a batch still takes, from the sizes of its files and what those before them took."""

from __future__ import annotations

import time
from collections.abc import Mapping

from napari_cfsr.core.store import StoreProgress
from napari_cfsr.core.upscale import UpscaleProgress


class BatchClock:
    """Measures files, one after the other.

    Attributes
    ----------
    seconds : float
        Of the last file that ended.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waiting: dict[int, int] = {}
        self._running = 0  # bytes
        self._worked = (0.0, 0.0)  # seconds, bytes

    def expect(self, sizes: Mapping[int, int]) -> None:
        """Bytes of each file that is to be upscaled, by its index."""
        self._waiting = {i: max(size, 1) for i, size in sizes.items()}

    def begin(self, index: int) -> None:
        """A file begins."""
        self._running = self._waiting.pop(index)
        self._began = time.perf_counter()

    def end(self, worked: bool = True) -> None:
        """It ended; one that failed says nothing of how long the others take."""
        self.seconds = time.perf_counter() - self._began
        if worked:
            seconds, size = self._worked
            self._worked = (seconds + self.seconds, size + self._running)
        self._running = 0

    def seconds_left(self, step: UpscaleProgress | None = None) -> float | None:
        """Of the whole batch; None before anything is known.

        Parameters
        ----------
        step : UpscaleProgress, optional
            How far the file is that is running.
        """
        seconds, size = self._worked
        waiting = float(sum(self._waiting.values()))
        now = step.seconds_left if step is not None else None
        if step is None or now is None:
            now, waiting = 0.0, waiting + self._running
        else:  # what an earlier run did of a store takes no time now
            earlier = step.earlier if isinstance(step, StoreProgress) else 0
            seconds += step.seconds + now
            size += self._running * (1 - earlier / max(step.total, 1))
        if not waiting:
            return now
        return now + seconds / size * waiting if size else None
