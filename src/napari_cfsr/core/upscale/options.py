"""Options of a run, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_cfsr.core.image import Limits, Mode, NoiseModel

Noise = NoiseModel | tuple[NoiseModel | None, ...] | None
OUTPUTS = ("baseline", "delta", "difference")
DEFAULT_HALO = 32  # LR pixels: within 0.01 grey levels of the whole image


@dataclass(frozen=True)
class UpscaleOptions:
    """How to upscale; see `upscale` for each.

    Attributes
    ----------
    outputs : tuple of str or None
        None: all that the model can give.
    noise : tuple of NoiseModel or None
        Of each channel, or one for all.
    """

    axes: str | None = None
    rgb: bool | None = None
    outputs: tuple[str, ...] | None = None
    ensemble: bool = False
    back_projection: bool = False
    tile: int | None = None
    halo: int | Literal["exact"] | None = None
    intensity: Mode | Limits = "auto"
    region: tuple[Limits, Limits] | None = None
    refiner_ensemble: bool = False
    noise: tuple[NoiseModel | None, ...] | None = None


def noise_option(noise: Noise) -> tuple[NoiseModel | None, ...] | None:
    """The noise given as one model, or one for each channel, as `UpscaleOptions` holds it."""
    return (noise,) if isinstance(noise, NoiseModel) else noise


@dataclass(frozen=True)
class UpscaleProgress:
    """How far a run has got.

    Attributes
    ----------
    done, total : int
        LR pixels.
    seconds : float
        Since the first tile began.
    note : str
        What the user should know, such as a smaller tile after running out of memory.
    """

    done: int
    total: int
    seconds: float
    note: str = ""

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None before the first tile is done."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None


def duration(seconds: float) -> str:
    """A duration in words: `8.2 s`, `2 min 05 s`, `1 h 10 min`."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
