"""Refiner, outputs and quality: the choices for a backbone, in the forms of Upscale and Batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox

from napari_cfsr.core.weights import Kind, RefinerCard, refiner_cards
from napari_cfsr.widgets.parts.backbone_choice import TOOLTIPS as BACKBONE_TOOLTIPS
from napari_cfsr.widgets.parts.backbone_choice import BackboneForm
from napari_cfsr.widgets.parts.form import FROM_FILE, Rows, narrow, path_edit, together

QUALITIES = {  # self-ensemble, back-projection
    "standard": (False, False),
    "self-ensemble (8 times slower)": (True, False),
    "back-projection (bicubic-reduced input)": (False, True),
    "self-ensemble and back-projection": (True, True),
}
PRECISIONS = ("float32", "fast")
LETTERS = 20  # of the name of a refiner
LOAD_ORDER = (  # in copied Python
    "scale", "backbone", "refiner", "device", "precision", "download", "weights_folder",
)  # fmt: skip

TOOLTIPS = {
    **BACKBONE_TOOLTIPS,
    "refiner": "The small network that corrects the backbone for your images. auto: the one that "
    "belongs to the backbone, if there is one.",
    "refiner_file": "A refiner (.safetensors) that was trained on this backbone.",
    "baseline": "Output of the backbone alone.",
    "delta": "Output corrected by the refiner.",
    "difference": "delta - baseline, signed; blue is negative, orange is positive.",
    "quality": "Self-ensemble averages over eight flips and rotations. Back-projection (x4 only) "
    "is for images that were reduced bicubically from larger ones.",
    "precision": "fast: float16 on GPUs, bfloat16 on CPUs that have it, float32 on others; differs "
    "by about one grey level.",
}


class NetworkForm(BackboneForm):
    """The network and how it runs: fields that Upscale and Batch share."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(changed, scale=4)
        self.refiner = ComboBox(choices=self._refiners)
        self.refiner_file = path_edit("r", "*.safetensors")
        self.baseline = CheckBox(text="baseline: network alone", value=True)
        self.delta = CheckBox(text="delta: refined", value=True)
        self.difference = CheckBox(text="difference: refiner's changes", value=True)
        self.outputs = together(self.baseline, self.delta, self.difference, vertical=True)
        self.quality = ComboBox(choices=self._qualities)
        self.precision = ComboBox(choices=PRECISIONS)
        narrow(self.refiner, LETTERS)
        narrow(self.quality)
        self.main = Rows()

    def _qualities(self, _: Any) -> list[str]:
        return [q for q, (_, back) in QUALITIES.items() if not back or self.scale.value == 4]

    def _refiners(self, _: Any) -> list[tuple[str, str]]:
        named = [(_title(path, kind, card), path.stem) for path, kind, card in self._cards()]
        return [("auto", "auto"), ("none", "none"), *named, (FROM_FILE, FROM_FILE)]

    def _cards(self) -> list[tuple[Path, Kind, RefinerCard]]:
        """Refiners of the chosen backbone and scale; none if the backbone is not known yet."""
        scale, sha256 = self.scale.value, self.backbone_sha256()
        return [found for found in refiner_cards() if found[2].fits(scale, sha256)]

    @property
    def refined(self) -> bool:
        """Whether a refiner is chosen and exists."""
        if self.refiner.value == "auto":
            return any(k == "bundled" and c.extra.get("default") for _, k, c in self._cards())
        if self.refiner.value == FROM_FILE:
            return bool(self.refiner_file.value and self.refiner_file.value.is_file())
        return bool(self.refiner.value != "none")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The chosen outputs that are possible."""
        refined = self.refined
        wanted = {
            "baseline": self.baseline.value,
            "delta": self.delta.value and refined,
            "difference": self.difference.value and refined,
        }
        return tuple(name for name, yes in wanted.items() if yes)

    def _update(self) -> None:
        """Offer what exists now, and the outputs that are possible."""
        for combo in (self.backbone, self.quality, self.refiner):
            combo.reset_choices()
        for box in (self.delta, self.difference):
            box.enabled = self.refined
        self.main.show_row("backbone_file", self.own_backbone)
        self.main.show_row("refiner_file", self.refiner.value == FROM_FILE)

    def network_reason(self) -> str:
        """Why nothing can be upscaled with the network; empty if it can."""
        if reason := super().network_reason():
            return reason
        if self.refiner.value == FROM_FILE and not self.refined:
            return "Choose a refiner file."
        return "" if self.wanted else "Choose at least one output."

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`; downloads are requested separately."""
        refiner = self.refiner_file.value if self.refiner.value == FROM_FILE else self.refiner.value
        chosen = None if refiner == "none" else str(refiner)
        found = super().load_arguments() | {"refiner": chosen, "precision": self.precision.value}
        return {name: found[name] for name in LOAD_ORDER}


def _title(path: Path, kind: Kind, card: RefinerCard) -> str:
    """What a bundled refiner is for; the name and purpose of the user's own."""
    if kind == "bundled" and card.description:
        return card.description
    return f"{path.stem}: {card.description}".rstrip(": ")
