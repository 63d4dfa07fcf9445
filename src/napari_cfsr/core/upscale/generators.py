"""Running a generator that reports its progress to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")


def exhaust(
    steps: Generator[Step, None, Result], progress: Callable[[Step], object] | None = None
) -> Result:
    """What a generator returns; `progress` is called with what it yields.

    If `progress` raises, the generator has ended, with all that it runs, before the exception goes
    on: whoever keeps the exception does not keep a network running.
    """
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            if progress is not None:
                progress(step)
