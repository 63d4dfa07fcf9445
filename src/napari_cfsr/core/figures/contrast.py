"""From values to what is seen: black and white, colours of a difference, numbers as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.figures.comparison import Comparison, Score
from napari_cfsr.core.figures.crops import Crop
from napari_cfsr.core.image import Limits, Mode, parse_axes, resolve_mapping

Array = NDArray[Any]
Pixels = NDArray[np.uint8]  # [Y,X,3]
Mark = Literal["", "best", "second"]

# blue below zero and orange above, as the widget shows it, on the white of paper
DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (230, 137, 50), (127, 59, 8))
UNKNOWN = (128, 128, 128)  # gray: where there is no difference to tell
STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # of round numbers


@dataclass(frozen=True)
class Contrast:
    """Values that are black and white in every panel; a straight line between them.

    Attributes
    ----------
    low, high : float
        In units of the data.
    """

    low: float
    high: float

    @classmethod
    def of(cls, comparison: Comparison, mode: Mode | Limits) -> Contrast:
        """That of the reference, or of the input if there is none."""
        image = comparison.lr if comparison.hr is None else comparison.hr
        axes = parse_axes("YXS" if comparison.in_colour else "YX", image.shape)
        if mode == "auto":
            plain = comparison.in_colour or image.dtype.kind == "b" or image.dtype == np.uint8
            mode = "dtype" if plain and image.dtype.kind != "f" else "percentile"
            if comparison.in_colour and image.dtype.kind == "f":
                mode = "auto"
        (mapping,) = resolve_mapping(image, axes, mode)
        return cls(mapping.low, mapping.high)

    def pixels(self, image: Array) -> Pixels:
        """An image [Y,X] or [Y,X,3] as 8-bit RGB."""
        unit = (image.astype(np.float64) - self.low) / (self.high - self.low)
        shown = np.rint(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8)
        return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)


@dataclass(frozen=True)
class Diverging:
    """Colours of signed values: from -limit over 0 to limit.

    Attributes
    ----------
    limit : float
        In units of the data.
    """

    limit: float

    @classmethod
    def of(cls, difference: Array, crops: Sequence[Crop]) -> Diverging:
        """The least round limit that holds all that the crops show."""
        parts = [np.abs(crop.of(difference)) for crop in crops]
        finite = [float(part[np.isfinite(part)].max(initial=0)) for part in parts]
        return cls(round_up(max(finite)))

    def pixels(self, difference: Array) -> Pixels:
        """A difference [Y,X] as 8-bit RGB; what is not finite is gray."""
        at = np.clip(np.nan_to_num(difference / self.limit), -1, 1)
        stops = np.linspace(-1, 1, len(DIVERGING))
        channels = [np.interp(at, stops, [c[i] for c in DIVERGING]) for i in range(3)]
        shown = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
        shown[~np.isfinite(difference)] = UNKNOWN
        return shown

    def bar(self) -> Pixels:
        """A row from -limit to limit."""
        return self.pixels(np.linspace(-self.limit, self.limit, 255)[None])


def round_up(value: float) -> float:
    """The next round number; 1 for 0."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next(step for step in STEPS if step * power >= value * (1 - 1e-9))


def psnr_text(score: Score) -> str:
    if math.isinf(score.psnr):
        return "∞"
    return "n/a" if math.isnan(score.psnr) else f"{score.psnr:.2f}"


def ssim_text(score: Score) -> str:
    return "n/a" if score.ssim is None or math.isnan(score.ssim) else f"{score.ssim:.4f}"


def marks(texts: Mapping[str, str]) -> dict[str, Mark]:
    """Which is best and which is second, as far as the numbers shown tell them apart."""
    values = {name: _number(text) for name, text in texts.items()}
    order = sorted((v for v in values.values() if not math.isnan(v)), reverse=True)
    alone = [v for v in order[:2] if order.count(v) == 1]
    best = order[0] if len(order) > 1 and order[0] in alone else None
    second = order[1] if best is not None and len(order) > 2 and order[1] in alone else None
    return {
        name: "best" if value == best else "second" if value == second else ""
        for name, value in values.items()
    }


def _number(text: str) -> float:
    return {"∞": math.inf, "n/a": math.nan}.get(text) or float(text)
