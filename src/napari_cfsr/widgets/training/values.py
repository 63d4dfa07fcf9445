"""What the Train form asks for, and how it says what a preset has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.layers import Image

from napari_cfsr.core.training import TrainConfig


@dataclass(frozen=True)
class TrainValues:
    """What the form says, read at one moment.

    Attributes
    ----------
    layers : tuple of Image
        HR layers; for a measured pair, the LR layer and the HR layer.
    folder : Path or None
    config : TrainConfig
    load : dict
        Arguments of `load_model`; downloads are asked for separately.
    name : str
    previews : bool
    """

    layers: tuple[Image, ...]
    folder: Path | None
    config: TrainConfig
    load: dict[str, Any]
    name: str
    previews: bool


def preset_text(values: dict[Any, Any]) -> str:
    """One value, or one for each placement."""
    if len(set(values.values())) == 1:
        return _short(next(iter(values.values())))
    return ", ".join(f"{placement} {_short(v)}" for placement, v in values.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
