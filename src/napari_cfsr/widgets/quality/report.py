"""The result page of the Quality widget: table, plot, maps, export."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpacerItem,
    QVBoxLayout,
    QWidget,
)

from napari_cfsr.core.metrics import Line, QualityTable, short_names
from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.form import fill, narrow
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.widgets.quality.plot import SlicePlot
from napari_cfsr.widgets.quality.table_model import LEAST_WIDTH, QualityModel, QualityView

NOTHING = "The measured values appear here."
NONE = "none"

TOOLTIPS = {
    "view": "The measured values of each layer; the best are bold. Select a row to map it; click "
    "a heading to sort.",
    "plot": "PSNR and SSIM of each slice; the line of the selected layer is thicker.",
    "over": "Show how much better each layer is than this one.",
    "every": "A row for each slice, instead of the mean of all slices.",
    "error_button": "Add the absolute error of the selected row's layer at each pixel, in the "
    "units of the data, as a new layer over the reference.",
    "ssim_button": "Add the SSIM of the selected row's layer around each pixel as a new layer "
    "over the reference.",
    "export_button": "Write means and slices, with the measurement settings, to a CSV file.",
    "copy_button": "Copy the table as tab-separated text, for a spreadsheet.",
}


class QualityPage(QWidget):
    """The measured values, and buttons; emits clicks."""

    mapped = Signal(str)  # the `MapKind`
    exported = Signal()
    copied = Signal()

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.table: QualityTable | None = None
        self.busy = False
        self.heading, self.warnings, self.notes = (paragraph(fixed=True) for _ in range(3))
        font = self.warnings.font()
        font.setBold(True)
        self.warnings.setFont(font)
        self.model = QualityModel()
        self.view = QualityView(self.model)
        self.over = ComboBox(choices=lambda _: self._rows())
        self.every = CheckBox(text="every slice", value=False)
        self.plot = SlicePlot(theme)
        self.error_button = QPushButton("Add error map")
        self.ssim_button = QPushButton("Add SSIM map")
        self.export_button = QPushButton("Export CSV...")
        self.copy_button = QPushButton("Copy table")
        self._arrange()
        self._connect()
        self._show()

    def _arrange(self) -> None:
        narrow(self.over, 8)
        grid, label = QGridLayout(), QLabel("gain over")
        label.setBuddy(self.over.native)
        row = fill(QHBoxLayout(), label, self.over.native, self.every.native, stretch=(0, 1))
        buttons = (self.error_button, self.ssim_button, self.copy_button, self.export_button)
        for i, button in enumerate(buttons):
            grid.addWidget(button, i // 2, i % 2)
        parts = (self.heading, self.warnings, self.view, row, grid, self.plot, self.notes)
        layout = fill(QVBoxLayout(self), *parts)
        layout.setContentsMargins(4, 6, 4, 6)
        layout.addItem(QSpacerItem(LEAST_WIDTH, 0))  # the dock does not widen when a table comes
        layout.addStretch()
        explain_all(self, TOOLTIPS, {"view": "measured values", "over": "gain over"})

    def _connect(self) -> None:
        self.over.changed.connect(self._fill)
        self.every.changed.connect(self._fill)
        self.error_button.clicked.connect(lambda: self.mapped.emit("error"))
        self.ssim_button.clicked.connect(lambda: self.mapped.emit("SSIM"))
        self.export_button.clicked.connect(self.exported)
        self.copy_button.clicked.connect(self.copied)
        self.view.selectionModel().selectionChanged.connect(self._on_selection)

    def _rows(self) -> list[tuple[str, int | None]]:
        """The rows that gains can be over."""
        rows = self.table.rows if self.table is not None else ()
        names = short_names([row.name for row in rows])
        able = [(name, i) for i, name in enumerate(names) if not rows[i].fault]
        return [(NONE, None), *able]

    def show_table(self, table: QualityTable, over: int | None) -> None:
        """Show a table; `over` is the row that gains are over at first."""
        self.table = table
        with self.over.changed.blocked():
            self.over.reset_choices()
            self.over.value = over
        self._show()

    def _show(self) -> None:
        table = self.table
        stack = table is not None and len(table.slice_names) > 1
        warnings = [f"⚠ {w}." for w in table.warnings] if table else []
        notes = [f"{n[0].upper()}{n[1:]}." for n in table.notes] if table else []
        texts = table.describe if table else NOTHING, "\n".join(warnings), "\n".join(notes)
        for label, text in zip((self.heading, self.warnings, self.notes), texts, strict=True):
            label.setText(text)
            label.setVisible(bool(text))
        self.view.setVisible(table is not None)
        self.every.visible = stack
        if not stack:
            self.every.value = False
        self.plot.setVisible(stack)
        if table is not None:
            self.view.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
            self._fill()
            self.plot.show_table(table if stack else None)
        self.refresh()

    def _fill(self) -> None:
        """Fill the table; selection and order are kept."""
        if self.table is None:
            return
        selected, header = self.selected, self.view.horizontalHeader()
        column, order = header.sortIndicatorSection(), header.sortIndicatorOrder()
        name = self.model.columns[column] if 0 <= column < len(self.model.columns) else ""
        lines = self.table.lines(self.over.value, bool(self.every.value))
        self.model.show_lines(self.table, lines, self.over.value is not None)
        again = self.model.columns.index(name) if name in self.model.columns else -1
        self.view.sortByColumn(again, order)
        row = selected.row if selected is not None else self._first()
        self.view.selectRow(next((i for i, x in enumerate(self.model.lines) if x.row == row), 0))

    def _first(self) -> int:
        """The last layer that could be measured: usually delta."""
        rows = self.table.rows if self.table is not None else ()
        return next((i for i in reversed(range(len(rows))) if not rows[i].fault), 0)

    @property
    def selected(self) -> Line | None:
        """The selected line."""
        rows = self.view.selectionModel().selectedRows()
        return self.model.lines[rows[0].row()] if rows else None

    def _on_selection(self) -> None:
        self.plot.emphasize(self.selected.row if self.selected is not None else None)
        self.refresh()

    def refresh(self) -> None:
        """Enable what is possible."""
        measured, selected = self.table is not None, self.selected
        rows = self.table.rows if self.table is not None else ()
        able = selected is not None and not rows[selected.row].fault
        for button in (self.error_button, self.ssim_button):
            button.setEnabled(able and not self.busy)
        self.export_button.setEnabled(measured and not self.busy)
        self.copy_button.setEnabled(measured)
        self.over.enabled = self.every.enabled = measured

    def text(self) -> str:
        """The table as shown, as tab-separated text."""
        return self.table.text(self.model.lines) if self.table is not None else ""
