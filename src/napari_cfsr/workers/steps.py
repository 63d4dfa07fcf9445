"""What there is to show while a run is under way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Something to show while a run is under way."""

    text: str
    fraction: float | None = None  # None: not known
    seconds_left: float | None = None
