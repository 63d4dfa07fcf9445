"""A list of layers with boxes to tick."""

from __future__ import annotations

from collections.abc import Sequence

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QListWidget, QListWidgetItem, QSizePolicy

ROWS = 5  # that are seen without scrolling


class LayerList(QListWidget):
    """Layers to be compared; what is ticked stays so while layers come, go and are renamed."""

    changed = Signal()  # somebody has ticked or unticked one

    def __init__(self) -> None:
        super().__init__()
        self._layers: list[Image] = []
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.itemChanged.connect(lambda _: self.changed.emit())

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(super().sizeHint().width(), ROWS * self._row + 2 * self.frameWidth() + 4)

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
        """The layers that are ticked, in their order."""
        yes = Qt.CheckState.Checked
        return tuple(x for i, x in enumerate(self._layers) if self.item(i).checkState() == yes)

    def tick(self, layers: Sequence[Image]) -> None:
        """Tick these and no others."""
        with QSignalBlocker(self):
            for i, layer in enumerate(self._layers):
                self.item(i).setCheckState(_state(any(layer is x for x in layers)))


def _state(ticked: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
