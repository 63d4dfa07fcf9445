"""Choices and texts that several pages share."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QSizePolicy,
)

from napari_cfsr.errors import OptionError


def fitting() -> QSizePolicy:
    """For a paragraph that is as high as its text needs at the width that there is."""
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    policy.setHeightForWidth(True)
    return policy


def decimal(name: str, text: str) -> float | None:
    """The number that is written; None where nothing is."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise OptionError(f"expected {name} as a number, got {text!r}") from None


BOX = "box of a shape or label"


NO_BOX = "Add a shapes or labels layer to select a box."


QUALITIES = {
    "standard": (False, False),
    "self-ensemble (8 times slower)": (True, False),
    "back-projection (bicubic-reduced input)": (False, True),
    "self-ensemble and back-projection": (True, True),
}


PRECISIONS = ("float32", "fast")

TOOLTIPS = {
    "box_layer": "The selected shapes, or all if none is selected; or the selected label.",
    "quality": "Self-ensemble averages over eight flips and rotations. Back-projection (x4 only) "
    "is for images that were reduced bicubically from larger ones.",
    "precision": "fast: float16 on GPUs, bfloat16 on CPUs that have it, float32 on others; differs "
    "by about one grey level.",
}
