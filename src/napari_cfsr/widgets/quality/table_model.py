"""The table of a measurement: sorted numerically, with the best values in bold."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSize, Qt
from qtpy.QtGui import QFont, QFontMetrics
from qtpy.QtWidgets import QAbstractItemView, QSizePolicy, QTableView

from napari_cfsr.core.metrics import COLUMNS, TITLES, Line, QualityTable, short_names, shown

HEADINGS = {"psnr": "PSNR\ndB", "ssim": "SSIM", "psnr_gain": "gain\ndB", "ssim_gain": "gain\nSSIM"}
LEAST_NAME = 48  # pixels for the names of the layers
LEAST_WIDTH = 320  # of all; the dock is no wider than that of Upscale
AROUND = 8  # pixels beside a number
ARROW = 16  # for the sort arrow
ROW = 24  # pixels, of a line
MOST_ROWS = 10  # that are visible without scrolling
NO_PARENT = QModelIndex()
Index: TypeAlias = QModelIndex | QPersistentModelIndex
Role = Qt.ItemDataRole


class QualityModel(QAbstractTableModel):
    """Lines of a `QualityTable`, in an order of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.table: QualityTable | None = None
        self.lines: list[Line] = []
        self.columns: list[Any] = []  # "layer", "slice" and those of numbers
        self._short: list[str] = []

    def show_lines(self, table: QualityTable, lines: list[Line], gains: bool) -> None:
        """Show these lines in this order, with the gains or without."""
        self.beginResetModel()
        self.table, self.lines = table, list(lines)
        self._short = short_names([row.name for row in table.rows])
        slices = ["slice"] if any(line.at is not None for line in lines) else []
        self.columns = ["layer", *slices, *(c for c in COLUMNS if gains or not c.endswith("gain"))]
        self.endResetModel()

    def rowCount(self, parent: Index = NO_PARENT) -> int:  # noqa: N802 - Qt's name
        return 0 if parent.isValid() else len(self.lines)

    def columnCount(self, parent: Index = NO_PARENT) -> int:  # noqa: N802 - Qt's name
        return 0 if parent.isValid() else len(self.columns)

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole
    ) -> Any:
        if role != Role.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        name = self.columns[section]
        return HEADINGS.get(name, name)

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        line, column = self.lines[index.row()], self.columns[index.column()]
        if role == Role.DisplayRole:
            return self.text(line, column)
        if role == Role.TextAlignmentRole and column in COLUMNS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Role.FontRole and column in line.best:
            font = QFont()
            font.setBold(True)
            return font
        if role == Role.ToolTipRole:
            return self._tip(line, column)
        return None

    def text(self, line: Line, column: Any) -> str:
        """The text of a cell."""
        if column == "layer":
            return self._short[line.row]
        if column == "slice":
            return line.slice_name
        return shown(line.values[column], column)

    def _tip(self, line: Line, column: Any) -> str:
        fault = self.table.rows[line.row].fault if self.table is not None else ""
        if fault or column in ("layer", "slice"):
            return fault or f"{line.name} {line.slice_name}".strip()
        best = ", the best" if column in line.best else ""
        return f"{TITLES[column]} {line.values[column]:.6f}{best}"

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Numerically where there are numbers; lines without one come last in either order."""
        if not 0 <= column < len(self.columns):
            return
        name, down = self.columns[column], order == Qt.SortOrder.DescendingOrder
        places = list(range(len(self.lines)))
        places.sort(key=lambda i: self._key(self.lines[i], name), reverse=down)
        places.sort(key=lambda i: name in COLUMNS and math.isnan(self.lines[i].values[name]))
        self.layoutAboutToBeChanged.emit()
        old = self.persistentIndexList()
        moved = {place: row for row, place in enumerate(places)}
        self.lines = [self.lines[i] for i in places]
        new = [self.index(moved[i.row()], i.column()) for i in old]
        self.changePersistentIndexList(old, new)
        self.layoutChanged.emit()

    def _key(self, line: Line, column: str) -> Any:
        if column in COLUMNS:
            return line.values[column]
        if column == "slice":
            return (-1 if line.at is None else line.at, line.row)
        return self.text(line, column).casefold()


class QualityView(QTableView):
    """A table as high as its rows; the name column takes the remaining width."""

    def __init__(self, model: QualityModel) -> None:
        super().__init__()
        self.setModel(model)
        self.setSortingEnabled(True)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setWordWrap(False)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(24)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignCenter)
        header.sortIndicatorChanged.connect(lambda *_: self.fit())
        self.verticalHeader().setDefaultSectionSize(ROW)
        model.modelReset.connect(self.fit)

    def fit(self) -> None:
        """Columns as wide as their numbers, the first takes the rest; as high as the rows."""
        model, header = self.model(), self.horizontalHeader()
        font = self.font()
        font.setBold(True)
        metrics = QFontMetrics(font)
        for column in range(1, model.columnCount()):
            title = str(model.headerData(column, Qt.Orientation.Horizontal)).split("\n")
            cells = [model.index(i, column).data() for i in range(model.rowCount())]
            arrow = ARROW * (column == header.sortIndicatorSection())
            widths = [metrics.horizontalAdvance(text) + arrow for text in title]
            widths += [metrics.horizontalAdvance(text) for text in cells]
            header.resizeSection(column, max(widths) + AROUND)
        self._fit_first()
        self.updateGeometry()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._fit_first()
        self.updateGeometry()

    def _fit_first(self) -> None:
        header = self.horizontalHeader()
        others = sum(header.sectionSize(i) for i in range(1, header.count()))
        if header.count():
            header.resizeSection(0, max(LEAST_NAME, self.viewport().width() - others))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        rows = min(max(self.model().rowCount(), 1), MOST_ROWS)
        height = rows * self.verticalHeader().defaultSectionSize() + 2 * self.frameWidth()
        height += self.horizontalHeader().sizeHint().height()
        if self.horizontalHeader().length() > self.viewport().width():
            height += self.horizontalScrollBar().sizeHint().height()
        return QSize(LEAST_WIDTH, height)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return self.sizeHint()
