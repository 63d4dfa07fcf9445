"""The Refiners widget: the refiners on this machine; rename, delete, export and import them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cfsr.core.weights import (
    Kind,
    RefinerCard,
    delete_refiner,
    describe_card,
    export_path,
    export_refiner,
    import_refiner,
    is_taken,
    read_refiner_card,
    refiner_files,
    rename_refiner,
)
from napari_cfsr.errors import CFSRError, WeightsError
from napari_cfsr.widgets.parts.accessible import explain_all, make_accessible
from napari_cfsr.widgets.parts.form import fill
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.widgets.parts.run_widget import offer_refiners
from napari_cfsr.workers import CancelToken, Failure, call_worker

COLUMNS = ("name", "scale", "gain (dB)", "placement", "from", "date", "description")
VISIBLE = 4  # columns that fit the narrowest dock; the others by scrolling
LEAST_NAME = 110  # pixels for the names
LEAST_WIDTH = 330  # of all
ROW = 24  # pixels, of a line
ORIGINS = {"bundled": "the program"}
FILTER = "Refiners (*.safetensors)"

TOOLTIPS = {
    "table": "The refiners on this machine. Bundled ones can't be changed.",
    "card": "The refiner's card: its data, degradation, and results on held-out images.",
    "name": "The new name.",
    "rename_button": "Give the refiner the name on the left.",
    "delete_button": "Delete the refiner's file; asks first.",
    "export_button": "Write a copy of the refiner to a file, to share it.",
    "import_button": "Check a refiner file, and keep a copy of it on this machine.",
}
Refiner = tuple[Path, Kind, RefinerCard | str]  # its card, or why that can't be read
NAMES = {"table": "refiners", "card": "card", "name": "new name"}


class RefinersTable(QTableWidget):
    """A row for each refiner; the name column takes the remaining width."""

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setWordWrap(False)
        self.setMinimumWidth(LEAST_WIDTH)

    def fit(self) -> None:
        """Fit the columns to their contents and to the width."""
        for column in range(1, len(COLUMNS)):
            self.resizeColumnToContents(column)
        self._fit_names()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._fit_names()

    def _fit_names(self) -> None:
        others = sum(self.columnWidth(i) for i in range(1, VISIBLE))
        self.setColumnWidth(0, max(LEAST_NAME, self.viewport().width() - others))


class RefinersWidget(QWidget):
    """Lists the refiners on this machine, with their cards.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._refiners: list[Refiner] = []
        self._done: Callable[[Path], str] | None = None  # the status for the result of a task
        self._select = ""  # name to select once the list is read again
        self._busy = False
        self.table = RefinersTable()
        self.card = QPlainTextEdit()
        self.name = QLineEdit()
        self.rename_button = QPushButton("Rename")
        self.delete_button = QPushButton("Delete")
        self.export_button = QPushButton("Export...")
        self.import_button = QPushButton("Import...")
        self.status = paragraph()
        self._arrange()
        self.table.itemSelectionChanged.connect(self._on_selection)
        self.name.textChanged.connect(self._refresh)
        self.rename_button.clicked.connect(self._rename)
        self.delete_button.clicked.connect(self._delete)
        self.export_button.clicked.connect(self._export)
        self.import_button.clicked.connect(self._import)
        self.reload_refiners()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        explain_all(self, TOOLTIPS, NAMES)
        self.card.setReadOnly(True)
        self.card.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(self.table)
        split.addWidget(self.card)
        split.setSizes([200, 200])
        split.setStretchFactor(1, 1)
        renaming = fill(QHBoxLayout(), self.name, self.rename_button, stretch=(1,))
        three = self.import_button, self.export_button, self.delete_button
        files = fill(QHBoxLayout(), *three, stretch=(1, 1, 1))
        fill(QVBoxLayout(self), split, renaming, files, self.status, stretch=(1,))

    # the list

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self.reload_refiners()

    def reload_refiners(self) -> None:
        """List the refiners that exist now; the selection is kept."""
        selected = self._select or self.selected
        self._select = ""
        self._refiners = [(path, kind, _card(path)) for path, kind in refiner_files()]
        self.table.blockSignals(True)
        self.table.setRowCount(len(self._refiners))
        for row, (path, kind, card) in enumerate(self._refiners):
            for column, text in enumerate(_cells(path, kind, card)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)  # it may be elided
                self.table.setItem(row, column, item)
        self.table.fit()
        self.table.clearSelection()
        names = [path.stem for path, *_ in self._refiners]
        if names:
            self.table.selectRow(names.index(selected) if selected in names else 0)
        self.table.blockSignals(False)
        self._on_selection()

    @property
    def _current(self) -> Refiner | None:
        rows = self.table.selectionModel().selectedRows()
        return self._refiners[rows[0].row()] if rows else None

    @property
    def selected(self) -> str:
        """Name of the refiner that is selected; empty if none is."""
        return self._current[0].stem if self._current else ""

    def _on_selection(self) -> None:
        current = self._current
        self.name.setText(self.selected)
        if current is None:
            self.card.setPlainText("There are no refiners yet: train one, or import a file.")
        elif isinstance(current[2], str):
            self.card.setPlainText(current[2])
        else:
            self.card.setPlainText("\n".join(describe_card(current[2])))
        self._refresh()

    def _refresh(self) -> None:
        current, idle = self._current, not self._busy
        own = idle and current is not None and current[1] != "bundled"
        self.name.setEnabled(own)
        self.rename_button.setEnabled(own and self.name.text().strip() not in ("", self.selected))
        self.delete_button.setEnabled(own)
        readable = current is not None and isinstance(current[2], RefinerCard)
        self.export_button.setEnabled(idle and readable)
        self.import_button.setEnabled(idle)

    # actions

    def _rename(self) -> None:
        old, new = self.selected, self.name.text().strip()
        self._task(partial(rename_refiner, old, new), lambda path: f"{old} is now {path.stem}.")

    def _delete(self) -> None:
        name = self.selected
        question = f"Delete the refiner '{name}' and its file?"
        if self._agreed("Delete a refiner", question):
            self._task(partial(delete_refiner, name), lambda path: f"Deleted {path}.")

    def _export(self) -> None:
        name = self.selected
        suggested = str(Path.home() / f"{name}.safetensors")
        chosen, _ = QFileDialog.getSaveFileName(self, "Export a refiner", suggested, FILTER)
        if not chosen:
            return
        # the dialog has asked about exactly this name, but not about the one with a suffix
        try:
            asked = export_path(chosen, name) == Path(chosen)
        except CFSRError as error:
            self.status.setText(str(error))
            return
        task = partial(export_refiner, name, chosen, overwrite=asked)
        self._task(task, lambda path: f"Exported to {path}.")

    def _import(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Import a refiner", "", FILTER)
        if not chosen:
            return
        overwrite, name = False, Path(chosen).stem
        try:
            if is_taken(name):
                question = f"There is already a refiner '{name}'. Replace it with this file?"
                overwrite = self._agreed("Import a refiner", question)
                if not overwrite:
                    return
        except CFSRError as error:
            self.status.setText(str(error))
            return
        task = partial(import_refiner, chosen, overwrite)
        self._task(task, lambda path: f"Imported {path.stem}.")

    def _agreed(self, title: str, question: str) -> bool:
        answer = QMessageBox.question(self, title, question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _task(self, task: Callable[[], Path], done: Callable[[Path], str]) -> None:
        """Run it in a worker: disks may be slow."""
        self._done, self._busy = done, True
        self._refresh()
        worker = call_worker("", task, CancelToken())
        worker.returned.connect(self._on_task)
        worker.errored.connect(self._on_error)
        worker.start()

    def _on_task(self, outcome: Path | Failure | None) -> None:
        self._busy = False
        if isinstance(outcome, Path) and self._done is not None:
            self._select = outcome.stem
            self.status.setText(self._done(outcome))
        elif isinstance(outcome, Failure):
            self.status.setText(outcome.message)
        self._done = None
        self.reload_refiners()
        offer_refiners(self._viewer)

    def _on_error(self, error: BaseException) -> None:
        self._busy = False
        self.status.setText(f"Unexpected error: {error!r}")
        self._refresh()


def _card(path: Path) -> RefinerCard | str:
    try:
        return read_refiner_card(path)
    except WeightsError as error:
        return str(error)


def _cells(path: Path, kind: Kind, card: RefinerCard | str) -> list[str]:
    name, origin = path.stem, ORIGINS.get(kind, "this machine")
    if isinstance(card, str):
        return [name, "", "", "", origin, "", "can't be read"]
    decimals = 2 if abs(card.gain or 0) >= 0.1 else 4
    gain = "" if card.gain is None else f"{card.gain:+.{decimals}f}"
    date = str(card.extra.get("date", ""))[:10]
    scale = f"x{card.scale}" if card.scale else "any"
    return [name, scale, gain, card.placement, origin, date, card.description]
