"""The form of the Quality widget: reference, layers to compare, how and where to measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from napari.layers import Image, Layer

from napari_cfsr.core.metrics import Channel, default_range
from napari_cfsr.errors import OptionError
from napari_cfsr.layers import level_zero
from napari_cfsr.widgets.parts.accessible import explain, name_control
from napari_cfsr.widgets.parts.choices import BOX, NO_BOX, decimal
from napari_cfsr.widgets.parts.choices import TOOLTIPS as CHOICE_TOOLTIPS
from napari_cfsr.widgets.parts.rows import IntegerField, Rows
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.widgets.parts.run_widget import narrow
from napari_cfsr.widgets.quality.layer_list import LayerList
from napari_cfsr.widgets.quality.suggestions import Suggestion, known_scale, lr_layers, suggest

REGIONS = ("whole image", "current view", BOX)
SLICES = ("all slices", "current slice")
AUTO = -1  # of the shave, where 0 is a value

TOOLTIPS = {
    "reference": "The image that the others are compared with: the original, or the best there is.",
    "layers": "Layers to compare with the reference: tick any number. They are compared where they "
    "lie in the world.",
    "bicubic": "Compare a bicubic enlargement too, made of the low-resolution layer on the right: "
    "what is to be had without a network.",
    "lr_layer": "The low-resolution layer: the reference is 2 to 8 times larger.",
    "channel": "What is compared of colour images. Y: luma (BT.601), the convention of the "
    "literature. RGB: all three channels alike. Gray images have one channel only.",
    "shave": "Pixels at each border of what is compared that are left out. auto: the scale factor, "
    "where it is known from the layers; else 0.",
    "data_range": "What PSNR and SSIM refer to: the greatest possible value less the least, in the "
    "units of the data. Empty: by the reference, as the line below says.",
    "region": "What part of the reference is looked at.",
    "box_layer": CHOICE_TOOLTIPS["box_layer"],
    "slices": "All of a stack, each slice for itself, or only where the sliders stand now.",
}
LABELS = {"layers": "compare", "data_range": "data range", "box_layer": "box in"}


@dataclass(frozen=True, eq=False)
class QualityValues:
    """What the form says, read at one moment.

    Attributes
    ----------
    reference : Image
    layers : tuple of Image
    lr : (Image, int) or None
        To be enlarged bicubically, and by how much.
    channel : {"Y", "RGB", "gray"}
    shave : int
    data_range : float or None
    region, slices : str
    box_layer : Layer or None
    """

    reference: Image
    layers: tuple[Image, ...]
    lr: tuple[Image, int] | None
    channel: Channel
    shave: int
    data_range: float | None
    region: str
    box_layer: Layer | None
    slices: str

    @property
    def sources(self) -> list[tuple[Image, int]]:
        """What is compared, and by how much it is enlarged first: bicubic, then the layers."""
        return [*([self.lr] if self.lr else []), *((x, 1) for x in self.layers)]


class QualityForm:
    """Widgets by name, their choices, and what depends on what.

    Parameters
    ----------
    images, boxes : callable
        The layers that can be compared, and those that can select a box.
    changed : callable
        Called after anything was changed.
    """

    def __init__(
        self,
        images: Callable[[], Sequence[Image]],
        boxes: Callable[[], Sequence[Layer]],
        changed: Callable[[], None],
    ) -> None:
        self._images, self._boxes, self._changed = images, boxes, changed
        self._updating = False
        self._factors: list[tuple[Image, int]] = []
        self.chosen = False  # whether somebody has chosen what is compared with what
        self.reference = ComboBox(choices=lambda _: _named(images()), nullable=False)
        self.layers = LayerList()
        self.bicubic = CheckBox(text="bicubic of", value=False)
        self.lr_layer = ComboBox(choices=lambda _: _named([x for x, _ in self._factors]))
        self.channel = ComboBox(choices=self._channels)
        self.shave = IntegerField(AUTO, AUTO, 1024, "auto")
        self.data_range = LineEdit()
        self.data_range.native.setPlaceholderText("auto")
        self.words = paragraph()
        self.region = ComboBox(choices=REGIONS)
        self.box_layer = ComboBox(choices=lambda _: _named(boxes()))
        self.slices = ComboBox(choices=SLICES)
        self.main = Rows()
        self._lay_out()
        self._connect()
        self.update()

    def _lay_out(self) -> None:
        for combo in (self.reference, self.lr_layer, self.box_layer):
            narrow(combo.native)
        rows = self.main
        rows.add("reference", self.reference)
        rows.add("layers", self.layers, LABELS["layers"])
        rows.add("bicubic", self.lr_layer, self.bicubic.native)
        name_control(self.lr_layer, self.bicubic.text)
        for name in ("channel", "shave", "data_range"):
            rows.add(name, getattr(self, name), LABELS.get(name))
        rows.add("words", self.words, " ")
        for name in ("region", "box_layer", "slices"):
            rows.add(name, getattr(self, name), LABELS.get(name))

    def _connect(self) -> None:
        for name, tooltip in TOOLTIPS.items():
            field: Any = getattr(self, name)
            explain(field, tooltip)
            if not isinstance(field, LayerList):
                field.name = name
            chooses = name in ("reference", "layers", "bicubic", "lr_layer")
            field.changed.connect(self._on_choice if chooses else self._on_change)

    def _channels(self, _: Any) -> list[Channel]:
        reference = self.reference.value
        return ["Y", "RGB"] if reference is not None and reference.rgb else ["gray"]

    def _on_choice(self) -> None:
        if not self._updating:
            self.chosen = True
            self._on_change()

    def _on_change(self) -> None:
        if not self._updating:
            self.update()
            self._changed()

    def update(self) -> None:
        """Make everything that depends on something else fit."""
        if self._updating:
            return
        self._updating = True
        try:
            images = list(self._images())
            if not any(self.reference.value is x for x in images):
                self.chosen = False  # it was closed
            self.reference.reset_choices()
            if not self.chosen:
                self._choose(suggest(images), images)
            reference = self.reference.value
            self.layers.offer([x for x in images if x is not reference])
            self._factors = lr_layers(reference, images)
            for combo in (self.lr_layer, self.channel, self.box_layer):
                combo.reset_choices()
            self._show_what_counts(reference)
        finally:
            self._updating = False

    def _choose(self, suggestion: Suggestion, images: list[Image]) -> None:
        """Choose what is suggested."""
        if suggestion.reference is not None:
            self.reference.value = suggestion.reference
        self.layers.offer([x for x in images if x is not suggestion.reference])
        self.layers.tick(suggestion.layers)
        self._factors = lr_layers(suggestion.reference, images)
        self.lr_layer.reset_choices()
        known = suggestion.lr is not None and suggestion.lr in [x for x, _ in self._factors]
        if known:
            self.lr_layer.value = suggestion.lr
        self.bicubic.value = known and bool(suggestion.layers)

    def _show_what_counts(self, reference: Image | None) -> None:
        rows = self.main
        rows.show_row("box_layer", self.region.value == REGIONS[2])
        rows.show_row("slices", reference is not None and reference.ndim > 2)
        for part in (self.bicubic, self.lr_layer):
            part.enabled = bool(self._factors)
        self.bicubic.tooltip = TOOLTIPS["bicubic"]
        if not self._factors:
            self.bicubic.tooltip += " There is no layer now that is 2 to 8 times smaller."
        self.words.setText(self._words(reference))
        self.words.setVisible(bool(self.words.text()))

    def _lr(self) -> tuple[Image, int] | None:
        """The layer to be enlarged and by how much, if that is wanted."""
        lr = self.lr_layer.value
        factor = next((f for x, f in self._factors if x is lr), None)
        return (lr, factor) if factor and self.bicubic.value else None

    def _words(self, reference: Image | None) -> str:
        """What auto stands for."""
        if reference is None:
            return ""
        words, lr = [], self._lr()
        if self.shave.is_least:
            scale, name = known_scale(self.layers.ticked, lr[1] if lr else None)
            source = name if name.startswith("the ") else f"'{name}'"
            words.append(f"shave {scale}" + (f" (scale of {source})" if scale else ""))
        if not self.data_range.value.strip():
            words.append(f"data range {range_words(level_zero(reference).dtype)}")
        return f"auto: {'; '.join(words)}" if words else ""

    def reason(self) -> str:
        """Why nothing can be measured now; empty if it can."""
        if self.reference.value is None:
            return "Open an image first: there is no image layer to compare with."
        if not self.layers.ticked and self._lr() is None:
            return "Tick at least one layer to compare with the reference."
        if self.region.value == REGIONS[2] and self.box_layer.value is None:
            return NO_BOX
        try:
            self._range()
        except OptionError as error:
            return f"{error}."
        return ""

    def _range(self) -> float | None:
        text = self.data_range.value
        value = decimal("data range", text)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise OptionError(f"expected data range above 0, got {text.strip()!r}")
        return value

    def values(self) -> QualityValues:
        """What is chosen now.

        Raises
        ------
        OptionError
            The data range is no number above 0.
        """
        layers, lr = self.layers.ticked, self._lr()
        scale, _ = known_scale(layers, lr[1] if lr else None)
        return QualityValues(
            reference=self.reference.value,
            layers=layers,
            lr=lr,
            channel=self.channel.value,
            shave=scale if self.shave.is_least else self.shave.value,
            data_range=self._range(),
            region=self.region.value,
            box_layer=self.box_layer.value,
            slices=self.slices.value,
        )


def range_words(dtype: np.dtype[Any]) -> str:
    """What the data range is by default, as far as the dtype tells."""
    if dtype.kind == "b" or dtype == np.uint8:
        value, why = default_range(dtype, 0, 1)
        return f"{value:g} ({why})"
    if dtype.kind in "iu":
        return "of 8, 10, 12, 14 or 16 bits, by the greatest value of the reference"
    return "1 if the reference lies within [0, 1], else its greatest less its least value"


def _named(layers: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(x.name, x) for x in layers]
