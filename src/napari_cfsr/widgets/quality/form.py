"""The form of the Quality widget: reference, layers to compare, how and where to measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from napari.layers import Image, Layer
from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QListWidget, QListWidgetItem, QSizePolicy

from napari_cfsr.core.metrics import Channel, default_range
from napari_cfsr.errors import OptionError
from napari_cfsr.layers import level_zero
from napari_cfsr.widgets.parts.accessible import name_control
from napari_cfsr.widgets.parts.form import Form, IntegerField, Rows, decimal, narrow
from napari_cfsr.widgets.parts.region_choice import BOX, NO_BOX, SLICES, VIEW
from napari_cfsr.widgets.parts.region_choice import TOOLTIPS as REGION_TOOLTIPS
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.widgets.quality.suggestions import Suggestion, known_scale, lr_layers, suggest

REGIONS = ("whole image", VIEW, BOX)
AUTO = -1  # of the border, where 0 is a value
VISIBLE_ROWS = 5  # of the list of layers, without scrolling

TOOLTIPS = {
    "reference": "The image that the others are compared with: the original, or the best "
    "available.",
    "layers": "Layers to compare with the reference: tick any number. They are compared at their "
    "positions in the world.",
    "bicubic": "Also compare a bicubic enlargement of the low-resolution layer on the right: the "
    "result without a network.",
    "lr_layer": "The low-resolution layer: the reference is 2 to 8 times larger.",
    "channel": "The channel of colour images to compare. Y: luma (BT.601), the convention of the "
    "literature. RGB: all three channels equally. Gray images have one channel only.",
    "shave": "Pixels to leave out at each border of what is compared. auto: the scale factor, "
    "if it is known from the layers; else 0.",
    "data_range": "The reference range of PSNR and SSIM: the largest possible value minus the "
    "smallest, in the units of the data. Empty: from the reference, as the line below says.",
    "region": "The part of the reference to measure.",
    **REGION_TOOLTIPS,
    "slices": "The whole stack, each slice separately, or only the slice that the sliders show.",
}


class LayerList(QListWidget):
    """Layers with check boxes; ticks are kept while layers are added, removed and renamed."""

    changed = Signal()  # the user has ticked or unticked one

    def __init__(self) -> None:
        super().__init__()
        self._layers: list[Image] = []
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.itemChanged.connect(lambda _: self.changed.emit())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(
            super().sizeHint().width(), VISIBLE_ROWS * self._row + 2 * self.frameWidth() + 4
        )

    @property
    def _row(self) -> int:
        return self.fontMetrics().height() + 6

    def offer(self, layers: Sequence[Image]) -> None:
        """Show these layers."""
        ticked = self.ticked
        with QSignalBlocker(self):
            self.clear()
            self._layers = list(layers)
            for layer in layers:
                item = QListWidgetItem(layer.name)
                item.setToolTip(layer.name)
                item.setSizeHint(QSize(0, self._row))
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(_state(any(layer is x for x in ticked)))
                self.addItem(item)

    @property
    def ticked(self) -> tuple[Image, ...]:
        """The ticked layers, in their order."""
        yes = Qt.CheckState.Checked
        return tuple(x for i, x in enumerate(self._layers) if self.item(i).checkState() == yes)

    def tick(self, layers: Sequence[Image]) -> None:
        """Tick exactly these."""
        with QSignalBlocker(self):
            for i, layer in enumerate(self._layers):
                self.item(i).setCheckState(_state(any(layer is x for x in layers)))


def _state(ticked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked


class QualityForm(Form):
    """Fields by name, their choices, and what depends on what.

    `images` are the layers that can be compared, `boxes` those that can select a box.
    """

    TOOLTIPS = TOOLTIPS
    LABELS = {"layers": "compare", "shave": "ignore border", "box_layer": "box in", "words": " "}

    def __init__(
        self,
        images: Callable[[], Sequence[Image]],
        boxes: Callable[[], Sequence[Layer]],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(changed)
        self._images = images
        self._factors: list[tuple[Image, int]] = []
        self.chosen = False  # whether the user has chosen the layers
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
        for field in (self.reference, self.layers, self.bicubic, self.lr_layer):
            field.changed.connect(self._on_choice)
        self._connect()

    def _lay_out(self) -> None:
        for combo in (self.reference, self.lr_layer, self.box_layer):
            narrow(combo)
        self._add(self.main, "reference", "layers")
        self.main.add("bicubic", self.lr_layer, self.bicubic.native)
        name_control(self.lr_layer, self.bicubic.text)
        self._add(
            self.main, "channel", "shave", "data_range", "words", "region", "box_layer", "slices"
        )

    def _channels(self, _: Any) -> list[Channel]:
        reference = self.reference.value
        return ["Y", "RGB"] if reference is not None and reference.rgb else ["gray"]

    def _on_choice(self) -> None:
        if not self._updating:
            self.chosen = True

    def _update(self) -> None:
        images = list(self._images())
        if not any(self.reference.value is x for x in images):
            self.chosen = False  # it was removed
        self.reference.reset_choices()
        if not self.chosen:
            self._choose(suggest(images), images)
        reference = self.reference.value
        self.layers.offer([x for x in images if x is not reference])
        self._factors = lr_layers(reference, images)
        for combo in (self.lr_layer, self.channel, self.box_layer):
            combo.reset_choices()
        self._show_fields(reference)

    def _choose(self, suggestion: Suggestion, images: list[Image]) -> None:
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

    def _show_fields(self, reference: Image | None) -> None:
        rows = self.main
        rows.show_row("box_layer", self.region.value == BOX)
        rows.show_row("slices", reference is not None and reference.ndim > 2)
        for part in (self.bicubic, self.lr_layer):
            part.enabled = bool(self._factors)
        self.bicubic.tooltip = TOOLTIPS["bicubic"]
        if not self._factors:
            self.bicubic.tooltip += " No layer is 2 to 8 times smaller now."
        self.words.setText(self._words(reference))
        self.words.setVisible(bool(self.words.text()))

    def _lr(self) -> tuple[Image, int] | None:
        """The layer to enlarge and the factor, if bicubic is ticked."""
        lr = self.lr_layer.value
        factor = next((f for x, f in self._factors if x is lr), None)
        return (lr, factor) if factor and self.bicubic.value else None

    def _words(self, reference: Image | None) -> str:
        """The values that auto gives."""
        if reference is None:
            return ""
        words = []
        if self.shave.is_least:
            scale, name = self._known_scale()
            source = name if name.startswith("the ") else f"'{name}'"
            words.append(f"border {scale}" + (f" (scale of {source})" if scale else ""))
        if not self.data_range.value.strip():
            words.append(f"data range {range_words(level_zero(reference).dtype)}")
        return f"auto: {'; '.join(words)}" if words else ""

    def reason(self) -> str:
        """Why nothing can be measured now; empty if it can."""
        if self.reference.value is None:
            return "Open an image first: there is no image layer to compare with."
        if not self.sources:
            return "Tick at least one layer to compare with the reference."
        if self.region.value == BOX and self.box_layer.value is None:
            return NO_BOX
        try:
            self.range()
        except OptionError as error:
            return f"{error}."
        return ""

    def range(self) -> float | None:
        """The data range that is chosen; `OptionError` if it is not a positive number."""
        text = self.data_range.value
        value = decimal("data range", text)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise OptionError(f"expected data range above 0, got {text.strip()!r}")
        return value

    @property
    def border(self) -> int:
        """Pixels to leave out at each border."""
        return self._known_scale()[0] if self.shave.is_least else self.shave.value

    @property
    def sources(self) -> list[tuple[Image, int]]:
        """The layers to compare and their enlargement: bicubic first, then the others."""
        lr = self._lr()
        return [*([lr] if lr else []), *((x, 1) for x in self.layers.ticked)]

    def _known_scale(self) -> tuple[int, str]:
        lr = self._lr()
        return known_scale(self.layers.ticked, lr[1] if lr else None)


def range_words(dtype: np.dtype[Any]) -> str:
    """The default data range, as far as the dtype tells."""
    if dtype.kind == "b" or dtype == np.uint8:
        value, why = default_range(dtype, 0, 1)
        return f"{value:g} ({why})"
    if dtype.kind in "iu":
        return "of 8, 10, 12, 14 or 16 bits, by the largest value of the reference"
    return "1 if the reference lies within [0, 1], else its largest minus its smallest value"


def _named(layers: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(x.name, x) for x in layers]
