"""The result of a training: the report on held-out images, and buttons to save the refiner."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cfsr.core.training import Checkpoint, Report, TrainedRefiner
from napari_cfsr.core.upscale import duration
from napari_cfsr.core.weights import is_taken
from napari_cfsr.errors import CFSRError
from napari_cfsr.widgets.parts.accessible import explain, explain_all
from napari_cfsr.widgets.parts.form import fill
from napari_cfsr.widgets.parts.run_controls import paragraph

Outcome = TrainedRefiner | Checkpoint

HEADINGS = ("PSNR (dB)", "SSIM")

TOOLTIPS = {
    "name": "The name under which the refiner is saved when you press Save.",
    "overwrite": "Replace the existing refiner of this name.",
    "save_button": "Save the refiner on this machine.",
    "copy_button": "Copy the table, the verdict and the notes as text.",
    "use_button": "Open Upscale with this refiner and its backbone chosen.",
}


class ReportTable(QTableWidget):
    """PSNR and SSIM of each method on the held-out images; the best values are bold."""

    def __init__(self) -> None:
        super().__init__(0, len(HEADINGS))
        self.setHorizontalHeaderLabels(list(HEADINGS))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for header in (self.horizontalHeader(), self.verticalHeader()):
            header.setSectionsClickable(False)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)

    def show_report(self, report: Report) -> None:
        """Fill it."""
        self.setRowCount(len(report.rows))
        self.setVerticalHeaderLabels([row.name for row in report.rows])
        for column, (name, decimals) in enumerate((("psnr", 2), ("ssim", 4))):
            values = [getattr(row, name) for row in report.rows]
            self.setColumnHidden(column, None in values)
            for i, value in enumerate([] if None in values else values):
                self.setItem(i, column, self._cell(f"{value:.{decimals}f}", value == max(values)))
        rows = sum(self.rowHeight(i) for i in range(self.rowCount()))
        header = self.horizontalHeader().sizeHint().height()
        self.setFixedHeight(rows + header + 2 * self.frameWidth())

    def _cell(self, text: str, bold: bool) -> QTableWidgetItem:
        item = QTableWidgetItem(text)
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        font = item.font()
        font.setBold(bold)
        item.setFont(font)
        return item


class ResultPage(QWidget):
    """The report, the verdict, and buttons; emits clicks."""

    save = Signal()
    copy = Signal()
    use = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.outcome: Outcome | None = None
        self.saved = ""  # the name it was saved under
        self.heading, self.verdict, self.notes, self.reason = (
            paragraph(fixed=True) for _ in range(4)
        )
        font = self.verdict.font()
        font.setBold(True)
        self.verdict.setFont(font)
        self.table = ReportTable()
        self.name = QLineEdit()
        self.overwrite = QCheckBox("overwrite")
        self.save_button = QPushButton("Save")
        self.copy_button = QPushButton("Copy table")
        self.use_button = QPushButton("Use in Upscale")
        explain_all(self, TOOLTIPS, {"name": "name", "table": "report"})
        self._arrange()
        self.name.textChanged.connect(self.refresh)
        self.overwrite.toggled.connect(self.refresh)
        self.save_button.clicked.connect(self.save)
        self.copy_button.clicked.connect(self.copy)
        self.use_button.clicked.connect(self.use)
        self._show(None, "The training result appears here.", "", "")

    def _arrange(self) -> None:
        label = QLabel("name")
        label.setBuddy(self.name)
        named = fill(QHBoxLayout(), label, self.name, self.overwrite, stretch=(0, 1))
        three = self.save_button, self.copy_button, self.use_button
        buttons = fill(QHBoxLayout(), *three, stretch=(1, 1, 1))
        parts = self.heading, self.table, self.verdict, named, self.reason, buttons, self.notes
        layout = fill(QVBoxLayout(self), *parts)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addStretch()

    def show_outcome(self, outcome: Outcome) -> None:
        """Show a measured refiner, or the best so far of an unfinished training."""
        if isinstance(outcome, Checkpoint):
            gained = (
                f"{outcome.gain:.2f} dB less noise, estimated. It was"
                if "noise" in outcome.card.extra
                else f"{outcome.gain:+.2f} dB over the backbone on validation images. It was"
            )
            heading = (
                f"The best refiner so far, from step {outcome.step}: {gained} not measured on "
                "held-out images."
            )
            self._show(outcome, heading, "", "")
            return
        report = outcome.report
        count = len(report.images)
        images = f"image{'' if count == 1 else 's'}"
        how = (
            f"Estimated from photons kept back in {count} noisy {images}"
            if report.estimated
            else f"Mean of {count} held-out {images} ({report.channel}, {report.shave} pixels of "
            "border ignored)"
        )
        heading = f"{how}, trained in {duration(outcome.seconds)}."
        heading += f" Placement {outcome.card.placement}." if outcome.improved else ""
        self.table.show_report(report)
        gains = zip(report.images, report.gains, strict=False)
        each = "" if report.estimated else "\n".join(f"{n}: {gain:+.2f} dB" for n, gain in gains)
        explain(self.table, each or "estimated from all images together")
        self._show(outcome, heading, outcome.verdict, "\n".join(outcome.notes))

    def _show(self, outcome: Outcome | None, heading: str, verdict: str, notes: str) -> None:
        self.outcome, self.saved = outcome, ""
        self.table.setVisible(isinstance(outcome, TrainedRefiner))
        for label, text in ((self.heading, heading), (self.verdict, verdict), (self.notes, notes)):
            label.setText(text)
            label.setVisible(bool(text))
        self.overwrite.setChecked(False)
        self.refresh()

    def set_saved(self, name: str) -> None:
        """The refiner was saved under that name."""
        self.saved = name
        self.overwrite.setChecked(False)
        self.refresh()

    def refresh(self) -> None:
        """Enable what is possible; give the reason where it is not."""
        reason = self._reason()
        trained = self.outcome is not None
        self.save_button.setEnabled(trained and not reason)
        explain(self.save_button, reason or TOOLTIPS["save_button"])
        self.reason.setText(reason)
        self.reason.setVisible(trained and bool(reason))
        for part in (self.name, self.overwrite):
            part.setEnabled(trained and not self._worthless)
        self.copy_button.setEnabled(isinstance(self.outcome, TrainedRefiner))
        self.use_button.setEnabled(bool(self.saved))

    @property
    def _worthless(self) -> bool:
        return isinstance(self.outcome, TrainedRefiner) and not self.outcome.improved

    def _reason(self) -> str:
        """Why it can't be saved now; empty if it can."""
        if self.outcome is None:
            return "Nothing has been trained yet."
        if self._worthless:
            return "It can't be saved: it does not beat the frozen backbone on held-out images."
        name = self.name.text().strip()
        if self.saved == name:
            return f"It is saved as '{name}'."
        try:
            taken = is_taken(name)
        except CFSRError as error:
            return f"{error}."
        if taken and not self.overwrite.isChecked():
            return f"There is already a refiner '{name}': choose another name, or tick overwrite."
        return ""

    def text(self) -> str:
        """Table, verdict and notes as plain text."""
        if not isinstance(self.outcome, TrainedRefiner):
            return ""
        outcome = self.outcome
        return "\n".join([outcome.report.table(), "", outcome.verdict, *outcome.notes, ""])
