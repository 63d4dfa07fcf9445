"""A form of labelled rows, some of which are hidden while they have no meaning."""

from __future__ import annotations

from typing import TypeAlias

from magicgui.widgets import Widget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QSpinBox, QWidget

from napari_cfsr.widgets.parts.accessible import name_control, native_of


class IntegerField:
    """A whole number; at its least it can mean something else, which magicgui's can't.

    Parameters
    ----------
    value, low, high : int
    lowest : str
        What `low` means, where it means something else.
    """

    name = ""

    def __init__(self, value: int, low: int, high: int, lowest: str = "") -> None:
        self.native = QSpinBox()
        self.native.setRange(low, high)
        self.native.setSpecialValueText(lowest)
        self.native.setValue(value)
        self.changed = self.native.valueChanged

    @property
    def value(self) -> int:
        return int(self.native.value())

    @value.setter
    def value(self, value: int) -> None:
        self.native.setValue(value)

    @property
    def is_least(self) -> bool:
        return self.value == self.native.minimum()

    @property
    def tooltip(self) -> str:
        return str(self.native.toolTip())

    @tooltip.setter
    def tooltip(self, text: str) -> None:
        self.native.setToolTip(text)


Field: TypeAlias = Widget | IntegerField | QWidget


class Rows(QWidget):
    """Labels on the left, aligned; what is chosen on the right."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(6, 2, 6, 2)
        self._layout.setVerticalSpacing(4)
        self._layout.setHorizontalSpacing(8)
        self._layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._rows: dict[str, QWidget] = {}

    def heading(self, text: str, name: str = "") -> None:
        """Begin a section."""
        label = QLabel(f"<b>{text}</b>")
        label.setContentsMargins(0, 6, 0, 0)
        self._layout.addRow(label)
        self._rows[name or text] = label

    def add(self, name: str, field: Field, label: str | None = None) -> None:
        """Add a row, labelled with its name unless another label is given."""
        self._rows[name] = native = native_of(field)
        text = name.replace("_", " ") if label is None else label
        self._layout.addRow(text, native)
        if isinstance(text, str) and text.strip():
            name_control(field, text)

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide a row with its label."""
        self._layout.setRowVisible(self._rows[name], visible)


def side_by_side(*fields: Field) -> QWidget:
    """Widgets in one row; the first takes the room that is left."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, field in enumerate(fields):
        layout.addWidget(native_of(field), 1 if i == 0 else 0)
    return box
