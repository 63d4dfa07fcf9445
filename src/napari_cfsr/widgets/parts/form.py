"""Forms: labelled rows of fields, what depends on what, and what is remembered between sessions."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from magicgui.widgets import CheckBox, FileEdit, LineEdit, Widget
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QBoxLayout,
    QComboBox,
    QFormLayout,
    QLabel,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QSpinBox,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_cfsr.errors import OptionError
from napari_cfsr.widgets.parts.accessible import explain, name_control, native_of

FROM_FILE = "file..."  # the choice that shows a field for a file


class IntegerField:
    """An integer; unlike in magicgui's spin box, `lowest` can be shown in place of `low`."""

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


Field: TypeAlias = Widget | IntegerField | QWidget


class Rows(QWidget):
    """Aligned labels on the left, fields on the right; rows can be hidden with their labels."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(6, 2, 6, 2)
        self._layout.setVerticalSpacing(4)
        self._layout.setHorizontalSpacing(8)
        self._layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._rows: dict[str, QWidget] = {}

    def heading(self, text: str) -> None:
        """Start a section."""
        label = QLabel(f"<b>{text}</b>")
        label.setContentsMargins(0, 6, 0, 0)
        self._layout.addRow(label)
        self._rows[text] = label

    def add(self, name: str, field: Field, label: str | QWidget) -> None:
        """Add a row; a text label is also what a screen reader calls the field."""
        self._rows[name] = native = native_of(field)
        self._layout.addRow(label, native)
        if isinstance(label, str) and label.strip():
            name_control(field, label)

    def show_row(self, name: str, visible: bool) -> None:
        """Show or hide a row with its label."""
        self._layout.setRowVisible(self._rows[name], visible)


class Form:
    """Named fields in rows. A subclass makes its fields, lays them out, and calls `_connect`.

    `changed` is called after each change by the user.
    """

    TOOLTIPS: ClassVar[Mapping[str, str]]  # of all fields, by name
    LABELS: ClassVar[Mapping[str, str]] = {}  # where the name is not the label
    REMEMBERED: ClassVar[tuple[str, ...]] = ()  # fields whose values are kept between sessions

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._updating = False

    def _add(self, rows: Rows, *names: str) -> None:
        """Add a labelled row for each of these fields; a check box has its own text."""
        for name in names:
            field = getattr(self, name)
            label = " " if isinstance(field, CheckBox) else name.replace("_", " ")
            rows.add(name, field, self.LABELS.get(name, label))

    def _connect(self) -> None:
        """All fields are made: explain them and follow their changes."""
        for name, tooltip in self.TOOLTIPS.items():
            field = getattr(self, name)
            explain(field, tooltip)
            field.changed.connect(self._on_change)
        self.update()

    def _on_change(self) -> None:
        if not self._updating:
            self.update()
            self._changed()

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Changes of fields inside are not the user's."""
        before, self._updating = self._updating, True
        try:
            yield
        finally:
            self._updating = before

    def update(self) -> None:
        """Make everything that depends on something else consistent."""
        with self._quiet():
            self._update()

    def _update(self) -> None:
        raise NotImplementedError

    def remembered(self) -> dict[str, Any]:
        """Settings worth keeping; what belongs to one session only is not."""
        values = {name: getattr(self, name).value for name in self.REMEMBERED}
        return {k: v for k, v in values.items() if v not in (FROM_FILE, None)}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Set what was remembered, as far as it still exists."""
        with self._quiet():
            for name in self.REMEMBERED:
                if name in values:
                    _restore(getattr(self, name), values[name])
                    if name in ("scale", "backbone"):  # other choices depend on them
                        self._update()
        self.update()


def _restore(field: Any, value: Any) -> None:
    """Set a field, unless the value was written by another version."""
    if isinstance(field, CheckBox) != isinstance(value, bool):
        return
    if isinstance(field, LineEdit) and not isinstance(value, str):
        return
    if hasattr(field, "choices") and value not in field.choices:
        return
    with contextlib.suppress(ValueError, TypeError):
        field.value = value


# parts of forms


class FormArea(QScrollArea):
    """A form that scrolls vertically, and is always wide enough not to scroll sideways."""

    def __init__(self, form: QWidget) -> None:
        super().__init__()
        self._least = 0  # width of the last layout
        self.setWidget(form)
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            least = self.widget().minimumSizeHint().width()
            if least != self._least:  # rows that were hidden may be wider
                self._least = least
                self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(self.widget().minimumSizeHint().width() + bar, 120)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(self.minimumSizeHint().width(), self.widget().sizeHint().height())


class Section(QCollapsible):
    """A part of a form that is folded at first.

    Its arrow has the colour of its text, and folded fields are out of the keyboard's reach, too.
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__(title)
        self.setContent(content)
        self.collapse(animate=False)
        self._title, self._button = title, self.toggleButton()
        self._button.setAccessibleName(title)
        self.toggled.connect(self._show_arrow)
        self._show_arrow(False)

    def setToolTip(self, text: str) -> None:  # noqa: N802 - Qt's name
        self._button.setToolTip(text)

    def _show_arrow(self, open_: bool) -> None:
        self._button.setText(f"{'▾' if open_ else '▸'} {self._title}")
        self._button.setIcon(QIcon())  # superqt's is black in any theme
        self.content().setVisible(open_)


class BeforeChoice(QObject):
    """Calls a function when the user is about to open a list of choices."""

    def __init__(self, combo: QComboBox, action: Callable[[], None]) -> None:
        super().__init__(combo)
        self._action = action
        combo.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() in (QEvent.Type.MouseButtonPress, QEvent.Type.FocusIn):
            self._action()
        return bool(super().eventFilter(watched, event))


def fill(layout: QBoxLayout, *parts: QWidget | QLayout, stretch: Sequence[int] = ()) -> QBoxLayout:
    """Add widgets and layouts, the first ones with these stretch factors."""
    for part, factor in itertools.zip_longest(parts, stretch, fillvalue=0):
        (layout.addLayout if isinstance(part, QLayout) else layout.addWidget)(part, factor)
    return layout


def stacked(*parts: QWidget) -> QWidget:
    """Parts of a form below each other, at the top of the space there is."""
    form = QWidget()
    column = fill(QVBoxLayout(form), *parts)
    column.setContentsMargins(0, 0, 0, 0)
    column.addStretch()
    return form


def tabbed(tooltip: str, **pages: QWidget) -> QTabWidget:
    """Pages that scroll, under tabs of these names."""
    tabs = QTabWidget()
    explain(tabs.tabBar(), tooltip)
    name_control(tabs.tabBar(), "pages")
    for title, page in pages.items():
        area = FormArea(page)
        name_control(area, title)
        tabs.addTab(area, title)
    return tabs


def together(*fields: Field, vertical: bool = False) -> QWidget:
    """Several widgets as one field; side by side, the first takes the room that is left."""
    box = QWidget()
    box.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
    vertically = QBoxLayout.Direction.TopToBottom if vertical else QBoxLayout.Direction.LeftToRight
    layout = QBoxLayout(vertically, box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, field in enumerate(fields):
        layout.addWidget(native_of(field), 1 if i == 0 else 0)
    return box


def narrow(combo: Any, letters: int = 12) -> None:
    """Keep a long name in a list of choices from widening the dock."""
    combo.native.setMinimumContentsLength(letters)
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    combo.native.setSizeAdjustPolicy(policy)


def path_edit(mode: str, kinds: str = "") -> FileEdit:
    """A field for a file or a folder whose button leaves room for the path."""
    edit = FileEdit(mode=mode, filter=kinds or None)
    edit.choose_btn.text = "Choose..."
    return edit


def decimal(name: str, text: str) -> float | None:
    """The number in a text field; None if it is empty."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise OptionError(f"expected {name} as a number, got {text!r}") from None
