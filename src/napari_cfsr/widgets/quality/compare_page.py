"""The Compare page of the Quality widget: two layers shown in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import napari
from magicgui.widgets import ComboBox, FloatSpinBox
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.choices import fitting
from napari_cfsr.widgets.parts.rows import Rows
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.widgets.parts.run_widget import narrow
from napari_cfsr.widgets.quality.blink import Blink

BY_HAND = "by hand"
SECONDS = 0.7  # that each layer is shown
HINT = (
    "Two layers are shown in turn, so that the eye finds where they differ. Zoom and move as you "
    "like meanwhile. Other images are hidden, and everything is as it was when it stops."
)
TOOLTIPS = {
    "first": "One of the two layers.",
    "second": "The other one.",
    "seconds": "Seconds that each is shown. At its least: they switch when you press Switch.",
    "blink_button": "Show the two layers in turn, or stop it.",
    "switch_button": "Show the other one now.",
}


class ComparePage(QWidget):
    """Two layers, how fast they alternate, start and stop.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    images : callable
        The layers that can be compared.
    blink : Blink
        Outlives the page; `refresh` is to be called when it changes.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        images: Callable[[], Sequence[Image]],
        blink: Blink,
    ) -> None:
        super().__init__()
        self._viewer, self._images, self.blink = viewer, images, blink
        self._chosen = self._updating = False  # whether somebody has chosen the two
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
        self.hint = paragraph()
        self._arrange()
        self.first.changed.connect(self._on_choice)
        self.second.changed.connect(self._on_choice)
        self.seconds.changed.connect(blink.set_interval)
        self.blink_button.clicked.connect(self._on_click)
        self.switch_button.clicked.connect(blink.switch)
        self.refresh()

    def _arrange(self) -> None:
        rows = Rows()
        for name in ("first", "second", "seconds"):
            field = getattr(self, name)
            rows.add(name, field, "each for" if name == "seconds" else name)
            if name != "seconds":
                narrow(field.native)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(6, 0, 6, 0)
        buttons.addWidget(self.blink_button, 2)
        buttons.addWidget(self.switch_button, 1)
        self.hint.setText(HINT)
        self.hint.setSizePolicy(fitting())
        self.hint.setContentsMargins(6, 6, 6, 0)
        self.now.setTextFormat(Qt.TextFormat.PlainText)
        self.now.setContentsMargins(6, 6, 6, 0)
        self.now.setMinimumWidth(1)  # a long name does not widen the dock
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows)
        layout.addLayout(buttons)
        layout.addWidget(self.now)
        layout.addWidget(self.hint)
        layout.addStretch()
        explain_all(self, TOOLTIPS, {})

    def _choices(self, _: Any) -> list[tuple[str, Image]]:
        return [(x.name, x) for x in self._images()]

    def update_layers(self, suggested: Sequence[Image | None] = ()) -> None:
        """Offer the layers that there are now.

        Parameters
        ----------
        suggested : sequence of Image
            The two to choose, unless somebody has chosen.
        """
        self._updating = True
        for combo in (self.first, self.second):
            combo.reset_choices()
        there = [x for x in suggested if x is not None and x in list(self._images())]
        if len(there) == 2 and not self._chosen and not self.blink.active:
            self.first.value, self.second.value = there
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
