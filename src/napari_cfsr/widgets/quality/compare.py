"""The Compare page of the Quality widget: two layers shown in turn, to see where they differ."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import napari
from magicgui.widgets import ComboBox, FloatSpinBox
from napari.layers import Image, Layer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.form import Rows, fill, narrow
from napari_cfsr.widgets.parts.run_controls import paragraph

BY_HAND = "by hand"
SECONDS = 0.7  # that each layer is shown
HINT = (
    "Two layers are shown in turn, so that your eye finds where they differ. You can zoom and pan "
    "meanwhile. Other images are hidden; everything is restored when it stops."
)
TOOLTIPS = {
    "first": "One of the two layers.",
    "second": "The other layer.",
    "seconds": "Seconds that each is shown. At the minimum, they change when you press Switch.",
    "blink_button": "Show the two layers in turn, or stop it.",
    "switch_button": "Show the other layer now.",
}


class Blink:
    """Shows two layers in turn by their visibility, and restores everything at the end.

    Other images are hidden meanwhile, since they might cover these. The canvas shows the name of
    the visible layer. Removing one of the two layers ends it; so does closing the widget.
    `changed` is called whenever it starts, switches or stops.
    """

    def __init__(self, viewer: napari.viewer.Viewer, changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._changed: Callable[[], None] = changed
        self._pair: tuple[Layer, Layer] | None = None
        self._first = True  # which of the two is shown
        self._before: list[tuple[weakref.ref[Layer], bool]] = []  # and whether it was visible
        self._text: tuple[bool, str, str] | None = None
        self._timer = QTimer()
        self._timer.timeout.connect(self.switch)

    @property
    def active(self) -> bool:
        return self._pair is not None

    @property
    def shown(self) -> str:
        """Name of the layer that is shown now; empty if none blinks."""
        return self._pair[not self._first].name if self._pair is not None else ""

    def start(self, first: Layer, second: Layer, seconds: float) -> None:
        """Show `first`, after so many seconds the other, and so on."""
        self.stop()
        self._pair, self._first = (first, second), True
        images = [x for x in self._viewer.layers if isinstance(x, Image)]
        self._before = [(weakref.ref(x), bool(x.visible)) for x in images]
        overlay = self._viewer.canvas.overlays.text
        self._text = (bool(overlay.visible), str(overlay.text), "")
        self._viewer.layers.events.removed.connect(self._on_removed)
        for layer in images:
            if layer not in self._pair:
                layer.visible = False
        self.set_interval(seconds)
        self._show()

    def set_interval(self, seconds: float) -> None:
        """Show each for so many seconds; 0: until `switch` is called."""
        self._timer.stop()
        if self.active and seconds > 0:
            self._timer.start(round(1000 * seconds))

    def switch(self) -> None:
        """Show the other one, before the first is hidden: nothing flashes through."""
        if self._pair is not None:
            self._first = not self._first
            self._show()

    def _show(self) -> None:
        if self._pair is None:
            return
        shown, hidden = self._pair if self._first else self._pair[::-1]
        shown.visible = True
        hidden.visible = False
        overlay = self._viewer.canvas.overlays.text
        overlay.text, overlay.visible = shown.name, True
        if self._text is not None:
            self._text = (*self._text[:2], shown.name)
        self._changed()

    def _on_removed(self, event: object) -> None:
        if self._pair is not None and getattr(event, "value", None) in self._pair:
            self.stop()

    def stop(self) -> None:
        """End it, and restore the visibility, unless somebody has changed it meanwhile."""
        if self._pair is None:
            return
        self._timer.stop()
        pair, self._pair = self._pair, None
        with contextlib.suppress(TypeError, ValueError):  # the viewer has disconnected it already
            self._viewer.layers.events.removed.disconnect(self._on_removed)
        for reference, before in self._before:
            layer = reference()
            if layer is not None and (layer in pair or not layer.visible):
                layer.visible = before
        self._before = []
        overlay = self._viewer.canvas.overlays.text
        if self._text is not None and overlay.text == self._text[2]:
            overlay.visible, overlay.text = self._text[0], self._text[1]
        self._text = None
        self._changed()

    def close(self) -> None:
        """The widget is destroyed: restore everything and call nobody."""
        self._changed = lambda: None
        self.stop()


class ComparePage(QWidget):
    """Two layers, how fast they alternate, start and stop.

    `blink` outlives the page; whoever owns it calls `refresh` when it changes.
    """

    def __init__(
        self, viewer: napari.viewer.Viewer, images: Callable[[], Sequence[Image]], blink: Blink
    ) -> None:
        super().__init__()
        self._viewer, self._images, self.blink = viewer, images, blink
        self._chosen = self._updating = False  # whether the user has chosen the two
        self.first = ComboBox(choices=self._choices)
        self.second = ComboBox(choices=self._choices)
        self.seconds = FloatSpinBox(value=SECONDS, min=0, max=10, step=0.1)
        self.seconds.native.setSpecialValueText(BY_HAND)
        self.seconds.native.setSuffix(" s")
        self.seconds.native.setDecimals(1)
        self.blink_button = QPushButton("Blink")
        self.blink_button.setCheckable(True)
        self.switch_button = QPushButton("Switch")
        self.now = QLabel()
        self.hint = paragraph(fixed=True)
        self._arrange()
        self.first.changed.connect(self._on_choice)
        self.second.changed.connect(self._on_choice)
        self.seconds.changed.connect(blink.set_interval)
        self.blink_button.clicked.connect(self._on_click)
        self.switch_button.clicked.connect(blink.switch)
        self.refresh()

    def _arrange(self) -> None:
        rows = Rows()
        for name, field in (("first", self.first), ("second", self.second)):
            rows.add(name, field, name)
            narrow(field)
        rows.add("seconds", self.seconds, "each for")
        buttons = fill(QHBoxLayout(), self.blink_button, self.switch_button, stretch=(2, 1))
        buttons.setContentsMargins(6, 0, 6, 0)
        self.hint.setText(HINT)
        self.hint.setContentsMargins(6, 6, 6, 0)
        self.now.setTextFormat(Qt.TextFormat.PlainText)
        self.now.setContentsMargins(6, 6, 6, 0)
        self.now.setMinimumWidth(1)  # a long name does not widen the dock
        layout = fill(QVBoxLayout(self), rows, buttons, self.now, self.hint)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addStretch()
        explain_all(self, TOOLTIPS, {})

    def _choices(self, _: Any) -> list[tuple[str, Image]]:
        return [(x.name, x) for x in self._images()]

    def update_layers(self, suggested: Sequence[Image | None] = ()) -> None:
        """Offer the layers that exist now; choose the two suggested, unless the user has chosen."""
        self._updating = True
        for combo in (self.first, self.second):
            combo.reset_choices()
        images = list(self._images())
        pair = [x for x in suggested if x is not None and x in images]
        if len(pair) == 2 and not self._chosen and not self.blink.active:
            self.first.value, self.second.value = pair
        self._updating = False
        self.refresh()

    def _on_choice(self) -> None:
        if self._updating:
            return
        self._chosen = True
        if self.blink.active and self._able:
            self._start()
        self.refresh()

    @property
    def _able(self) -> bool:
        one, two = self.first.value, self.second.value
        return one is not None and two is not None and one is not two

    def _start(self) -> None:
        self.blink.start(self.first.value, self.second.value, self.seconds.value)

    def _on_click(self, on: bool) -> None:
        if on and self._able:
            self._start()
        else:
            self.blink.stop()
        self.refresh()

    def refresh(self) -> None:
        """Show whether it runs and what is shown."""
        active = self.blink.active
        self.blink_button.setChecked(active)
        self.blink_button.setText("Stop" if active else "Blink")
        self.blink_button.setEnabled(active or self._able)
        self.switch_button.setEnabled(active)
        if active:
            self.now.setText(f"Now: {self.blink.shown}")
        else:
            self.now.setText("" if self._able else "Choose two layers.")
