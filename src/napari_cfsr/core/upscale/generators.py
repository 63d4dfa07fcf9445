"""Generators that report their progress and return a result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Generic, TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")


class WithResult(Generic[Step, Result]):
    """A generator for a `for` loop that keeps what the generator returns.

    Attributes
    ----------
    result
        What the generator returned; set when the loop has ended.
    """

    result: Result

    def __init__(self, generator: Generator[Step, None, Result]) -> None:
        self._generator = generator

    def __iter__(self) -> Generator[Step, None, None]:
        self.result = yield from self._generator


def exhaust(
    generator: Generator[Step, None, Result], progress: Callable[[Step], object] | None = None
) -> Result:
    """What a generator returns; `progress` is called with what it yields.

    If `progress` raises, the generator is closed, with all that it runs, before the exception is
    passed on: whoever keeps the exception does not keep a network running.
    """
    steps = WithResult(generator)
    with closing(generator):
        for step in steps:
            if progress is not None:
                progress(step)
    return steps.result
