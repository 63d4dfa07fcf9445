"""The small print of a figure: how it was made and measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_cfsr.core.figures.content import Content
from napari_cfsr.core.figures.text import TIMES


def unit(dtype: np.dtype[Any]) -> str:
    """What a difference is told in."""
    return "grey levels" if dtype.kind in "iu" else "units of the data"


def small_print(content: Content) -> str:
    """All of it, in sentences."""
    parts = [
        f"Upscaled {TIMES}{content.comparison.scale}",
        *content.comparison.notes,
        _convention(content),
        _contrast(content),
        _difference(content),
        _crops(content),
        *content.notes,
    ]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def _convention(content: Content) -> str:
    """How PSNR and SSIM were measured."""
    comparison = content.comparison
    if not content.scores:
        return "" if comparison.hr is None else "No PSNR: the reference has no range of values"
    channel = "Y (BT.601)" if comparison.in_colour else "gray values"
    border = (
        f"{comparison.shave} border pixels left out" if comparison.shave else "no border left out"
    )
    text = (
        f"PSNR (dB) / SSIM of the whole image: {channel}, {border}, data range "
        f"{comparison.data_range:g}, results in {comparison.lr.dtype}"
    )
    if len(content.scores) > 1:
        text += "; best in bold, second underlined, unless equal as shown"
    if any(score.ssim is None for score in content.scores.values()):
        text += f"; SSIM n/a: smaller than its window of 11{TIMES}11 pixels"
    return text


def _contrast(content: Content) -> str:
    """Which values are black and white, unless it is the whole of 8 bits."""
    contrast, dtype = content.contrast, content.comparison.lr.dtype
    if dtype == np.uint8 and (contrast.low, contrast.high) == (0, 255):
        return ""
    return f"black to white: {contrast.low:.5g} to {contrast.high:.5g} in all images, gamma 1"


def _difference(content: Content) -> str:
    if content.diverging is None:
        return ""
    kind = "of the luma " if content.comparison.in_colour else ""
    return f"difference {kind}before rounding"


def _crops(content: Content) -> str:
    sides = sorted({crop.side for crop in content.crops})
    which = "crop" if len(content.crops) == 1 else "crops"
    return f"{which} of {', '.join(f'{s}{TIMES}{s}' for s in sides)} pixels"
