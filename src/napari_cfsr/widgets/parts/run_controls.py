"""Start and Cancel, the reason why nothing can start, progress with time left, and a status."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_cfsr.core.upscale import duration
from napari_cfsr.widgets.parts.accessible import explain
from napari_cfsr.widgets.parts.form import fill

STEPS = 1000  # resolution of the progress bar
CANCEL = "Stop what is running now."


def paragraph(fixed: bool = False) -> QLabel:
    """A paragraph that can be copied; long words, such as paths, do not widen the dock.

    If `fixed`, it is plain text, exactly as high as it needs at its width.
    """
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.MinimumExpanding)
    if fixed:
        label.setTextFormat(Qt.TextFormat.PlainText)
        policy.setVerticalPolicy(QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    return label


class RunControls(QWidget):
    """Controls of one kind of run; emits clicks, and shows the state that it is given.

    While the start button is disabled, its tooltip is the reason.
    """

    started = Signal()
    cancelled = Signal()

    def __init__(self, start_text: str, start_tooltip: str) -> None:
        super().__init__()
        self._start_tooltip = start_tooltip
        self.start_button = QPushButton(start_text)
        self.cancel_button = QPushButton("Cancel")
        explain(self.cancel_button, CANCEL)
        self.progress = QProgressBar()
        self.progress.setAccessibleName("progress")
        self.reason = paragraph()
        self.status = paragraph()
        self.status.setMinimumHeight(4 * self.status.fontMetrics().lineSpacing())
        buttons = fill(QHBoxLayout(), self.start_button, self.cancel_button, stretch=(2, 1))
        self._rows = fill(QVBoxLayout(), buttons)
        layout = fill(QVBoxLayout(self), self.reason, self._rows, self.progress, self.status)
        layout.setContentsMargins(0, 0, 0, 0)
        self.start_button.clicked.connect(self.started)
        self.cancel_button.clicked.connect(self.cancelled)
        self.running = False
        self.progress.setTextVisible(True)
        self._update()

    def block(self, reason: str) -> None:
        """Disable Start with the reason shown; an empty reason enables it."""
        self.reason.setText(reason)
        self._update()

    def begin(self) -> None:
        self.running = True
        self.progress.setRange(0, 0)
        self.progress.setFormat("")
        self._update()

    def show_step(
        self, text: str, fraction: float | None = None, seconds_left: float | None = None
    ) -> None:
        """Show the progress of a run; without a fraction the bar shows activity only."""
        self.status.setText(text)
        if fraction is None:
            self.progress.setRange(0, 0)
            return
        self.progress.setRange(0, STEPS)
        self.progress.setValue(round(fraction * STEPS))
        left = "" if seconds_left is None else f" - {duration(seconds_left)} left"
        self.progress.setFormat(f"{fraction:.0%}{left}")

    def end(self, text: str) -> None:
        """The run is over, for whatever reason; the form can be used again."""
        self.running = False
        self.progress.setRange(0, STEPS)
        self.progress.setValue(0)
        self.progress.setFormat("")
        self.status.setText(text)
        self._update()

    def _update(self) -> None:
        reason = self.reason.text()
        self.start_button.setEnabled(not self.running and not reason)
        explain(self.start_button, reason or self._start_tooltip)
        self.reason.setVisible(bool(reason) and not self.running)
        self.cancel_button.setEnabled(self.running)
        self.progress.setVisible(self.running)
