"""The images of a batch and the state of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_cfsr.core.upscale import duration

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchRecord, BatchStep

COLUMNS = ("image", "state", "time", "message")
STATES = {"skipped": "already there"}  # the others as they are


class BatchTable(QTableWidget):
    """A row for each image. Emits the results of a row that is double-clicked or entered."""

    opened = Signal(tuple)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self._outputs: dict[int, tuple[Path, ...]] = {}
        self.over = 0  # number of images that are done, failed or skipped
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setWordWrap(False)
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setResizeContentsPrecision(0)  # measure only visible rows: all would take seconds
        self.setColumnWidth(0, 140)
        self.setMinimumHeight(90)
        self.cellDoubleClicked.connect(self._open)

    def show_paths(self, paths: Sequence[Path]) -> None:
        """List images that have no state yet."""
        self._outputs, self.over = {}, 0
        self.setRowCount(len(paths))
        for row, path in enumerate(paths):
            self._set(row, 0, path.name, str(path))
            for column in (1, 2, 3):
                self._set(row, column, "")

    def show_step(self, step: BatchStep) -> None:
        """Show the progress of an image."""
        if step.record is not None:
            self.over += 1
            self._show_record(step.index, step.record)
        elif step.state == "running":
            self._set(step.index, 1, f"{step.fraction:.0%}")
            self.scrollToItem(self.item(step.index, 0))
            if step.text:
                self._set(step.index, 3, step.text, step.text)

    def show_records(self, records: Sequence[BatchRecord]) -> None:
        """Show the outcome of all images."""
        model = self.model()
        model.blockSignals(True)  # else each of thousands redraws the table
        for row, record in enumerate(records):
            self._show_record(row, record)
        model.blockSignals(False)
        for column in (1, 2):
            self.resizeColumnToContents(column)
        self.viewport().update()

    def _show_record(self, row: int, record: BatchRecord) -> None:
        self._outputs[row] = tuple(record.outputs.values())
        self._set(row, 1, STATES.get(record.state, record.state))
        self._set(row, 2, duration(record.seconds) if record.seconds else "")
        self._set(row, 3, record.message.removeprefix(f"{record.path}: "), record.message)

    def _set(self, row: int, column: int, text: str, tooltip: str = "") -> None:
        item = self.item(row, column)
        if item is None:
            item = QTableWidgetItem()
            self.setItem(row, column, item)
        item.setText(text)
        item.setToolTip(tooltip)

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._open(self.currentRow(), 0)
        else:
            super().keyPressEvent(event)

    def _open(self, row: int, _: int) -> None:
        if self._outputs.get(row):
            self.opened.emit(self._outputs[row])
