"""One call at a time in a background thread, which ends with its `with` block."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Check = Callable[[], None]


class Stopped(Exception):  # noqa: N818 - never shown
    """The block has ended, so the call in the background stops."""


class Background:
    """Runs calls in a background thread of that name; to be used in a `with` block."""

    def __init__(self, thread: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread)
        self._call: Future[Any] | None = None
        self._ended = False

    def start(self, function: Callable[..., Any], argument: Any) -> None:
        """Call `function(argument, check)`; `check` raises when the block has ended."""
        self._call = self._pool.submit(function, argument, self._check)

    def result(self) -> Any:
        """Wait for what the call returns; raises what it raises."""
        assert self._call is not None
        call, self._call = self._call, None
        try:
            return call.result()
        finally:
            del call  # otherwise an exception would keep its frames and all that they hold

    def _check(self) -> None:
        if self._ended:
            raise Stopped

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._pool.shutdown()
