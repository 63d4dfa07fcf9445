"""Start, pause, stop and cancel of a training."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton

from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.run_controls import RunControls

TOOLTIPS = {
    "pause_button": "Let the training wait; it takes no processor time meanwhile.",
    "stop_button": "End the training, measure the best refiner so far on held-out images, and "
    "offer it.",
}


class TrainControls(RunControls):
    """As `RunControls`, with what only a training can do."""

    paused = Signal(bool)  # False: go on
    stopped = Signal()

    is_training = False  # whether the run is one, and not a small task
    _extra: tuple[QPushButton, ...] = ()

    def __init__(self) -> None:
        super().__init__("Train", "Train a refiner. Nothing is saved until you press Save.")
        self.pause_button = QPushButton("Pause")
        self.stop_button = QPushButton("Stop and keep best")
        self._extra = (self.pause_button, self.stop_button)
        self.pause_button.setCheckable(True)
        explain_all(self, TOOLTIPS, {})
        row = QHBoxLayout()
        row.addWidget(self.pause_button, 1)
        row.addWidget(self.stop_button, 2)
        self.add_row(row)
        self.pause_button.toggled.connect(self._on_pause)
        self.stop_button.clicked.connect(self._on_stop)
        self._update()

    @property
    def is_paused(self) -> bool:
        return bool(self.pause_button.isChecked())

    def end(self, text: str) -> None:
        self.is_training = False
        self.pause_button.setChecked(False)
        super().end(text)

    def _on_pause(self, paused: bool) -> None:
        self.pause_button.setText("Resume" if paused else "Pause")
        if self.is_training:
            self.paused.emit(paused)

    def _on_stop(self) -> None:
        self.stop_button.setEnabled(False)
        self.pause_button.setEnabled(False)
        with QSignalBlocker(self.pause_button):  # to stop ends a pause
            self.pause_button.setChecked(False)
        self.pause_button.setText("Pause")
        self.stopped.emit()

    def _update(self) -> None:
        super()._update()
        for button in self._extra:
            button.setVisible(self.is_training)
            button.setEnabled(self.is_training)
