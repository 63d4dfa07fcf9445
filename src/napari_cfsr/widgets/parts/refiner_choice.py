"""Refiner and outputs: what can be chosen for a backbone, and what that makes possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container

from napari_cfsr.core.weights import Kind, RefinerCard, refiner_cards
from napari_cfsr.widgets.parts.backbone_choice import FROM_FILE, BackboneChoice
from napari_cfsr.widgets.parts.run_widget import narrow, path_edit

TOOLTIPS = {
    "refiner": "The small network that corrects the backbone for your images. auto: the one that "
    "belongs to the backbone, if there is one.",
    "refiner_file": "A refiner (.safetensors) that was trained on this backbone.",
    "baseline": "Output of the backbone.",
    "delta": "Output corrected by the refiner.",
    "difference": "delta - baseline, signed; blue is negative, orange is positive.",
}


class RefinerChoice:
    """The widgets `refiner`, `refiner_file`, `baseline`, `delta` and `difference` of a form.

    Parameters
    ----------
    backbone : BackboneChoice
        What the refiners have to belong to.
    """

    def __init__(self, backbone: BackboneChoice) -> None:
        self._backbone = backbone
        self.refiner = ComboBox(choices=self._names)
        self.refiner_file = path_edit("r", "*.safetensors")
        self.baseline = CheckBox(text="baseline", value=True)
        self.delta = CheckBox(text="delta", value=True)
        self.difference = CheckBox(text="difference", value=True)
        self.outputs = Container(
            widgets=[self.baseline, self.delta, self.difference],
            layout="horizontal",
            labels=False,
            label="outputs",
        )
        self.outputs.margins = (0, 0, 0, 0)
        self.outputs.native.layout().setSpacing(4)
        narrow(self.refiner.native)

    def _names(self, _: Any) -> list[tuple[str, str]]:
        named = [(_title(path, kind, card), path.stem) for path, kind, card in self._cards()]
        return [("auto", "auto"), ("none", "none"), *named, (FROM_FILE, FROM_FILE)]

    def _cards(self) -> list[tuple[Path, Kind, RefinerCard]]:
        """Refiners of the chosen backbone and scale; none while the backbone is not known."""
        wanted = self._backbone.scale.value, self._backbone.sha256()
        return [c for c in refiner_cards() if (c[2].scale, c[2].backbone_sha256) == wanted]

    @property
    def there(self) -> bool:
        """Whether the choice stands for a refiner that is there."""
        if self.refiner.value == "auto":
            return any(k == "bundled" and c.extra.get("default") for _, k, c in self._cards())
        if self.refiner.value == FROM_FILE:
            return bool(self.refiner_file.value and self.refiner_file.value.is_file())
        return bool(self.refiner.value != "none")

    @property
    def value(self) -> str | None:
        """As `load_model` takes it."""
        if self.refiner.value == FROM_FILE:
            return str(self.refiner_file.value)
        return None if self.refiner.value == "none" else str(self.refiner.value)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The outputs that are chosen and can be made."""
        refined = self.there
        wanted = {
            "baseline": self.baseline.value,
            "delta": self.delta.value and refined,
            "difference": self.difference.value and refined,
        }
        return tuple(name for name, yes in wanted.items() if yes)

    def update(self) -> None:
        """Offer what there is now, and show what matters."""
        self.refiner.reset_choices()
        self.refiner_file.visible = self.refiner.value == FROM_FILE
        for box in (self.delta, self.difference):
            box.enabled = self.there

    def reason(self) -> str:
        """Why nothing can be made of it; empty if it can."""
        if self.refiner.value == FROM_FILE and not self.there:
            return "Choose a refiner file."
        return "" if self.wanted else "Choose at least one output."


def _title(path: Path, kind: Kind, card: RefinerCard) -> str:
    """What a refiner that ships is for; the name of the user's own, and what they are for."""
    if kind == "bundled" and card.description:
        return card.description
    return f"{path.stem}: {card.description}".rstrip(": ")
