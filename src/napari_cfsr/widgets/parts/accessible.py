"""Widgets that work with the keyboard alone, with screen readers, and in any theme.

napari's style shows neither the focus nor, in the light theme, the selected line of a list, and
Qt's focus order is the order in which controls were created.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import napari
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, QPoint, QRect, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QLabel,
    QLayout,
    QListView,
    QPushButton,
    QScrollArea,
    QSplitter,
    QTableView,
    QTabWidget,
    QWidget,
)

WIDTH = 2  # pixels, of the focus frame
LOST = (QEvent.Type.FocusOut, QEvent.Type.Hide)
MOVED = (QEvent.Type.Move, QEvent.Type.Resize)
BY_KEY = (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
SELECTED = "QAbstractItemView::item:selected {{ background-color: {ground}; color: {text} }}"


# names and tooltips


def native_of(control: Any) -> QWidget:
    """The Qt widget of a control."""
    return control if isinstance(control, QWidget) else control.native


def name_control(control: Any, name: str) -> None:
    """Name a control for screen readers. They read the text of a button without a name."""
    if hasattr(control, "choose_btn"):  # a file: a text field and a button
        name_control(control.line_edit, name)
        name_control(control.choose_btn, f"{name}: choose")
    else:
        native_of(control).setAccessibleName(name)


def explain(control: Any, tooltip: str) -> None:
    """Set the tooltip of a control."""
    if hasattr(control, "choose_btn"):
        for part in (control.line_edit, control.choose_btn):
            part.tooltip = tooltip
    native_of(control).setToolTip(tooltip)


def explain_all(owner: object, tooltips: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Set tooltips and names of the attributes of an object."""
    for attribute, tooltip in tooltips.items():
        explain(getattr(owner, attribute), tooltip)
    for attribute, name in names.items():
        name_control(getattr(owner, attribute), name)


# a whole widget


def make_accessible(widget: QWidget, viewer: napari.viewer.Viewer) -> None:
    """Make a finished widget usable with the keyboard alone, with a visible focus."""
    for button in widget.findChildren(QPushButton):
        button.setAutoDefault(True)  # Enter presses it, as the space bar does
    for table in widget.findChildren(QTableView):
        table.setTabKeyNavigation(False)  # else Tab goes through all cells
    for label in widget.findChildren(QLabel):
        if label.buddy() is not None and not label.toolTip():
            label.setToolTip(label.buddy().toolTip())
    controls = list(in_order(widget))
    for one, next_one in pairwise(controls):
        QWidget.setTabOrder(one, next_one)
    _FocusIndicator(widget, controls, viewer)


def in_order(part: QWidget | QLayout | None) -> Iterator[QWidget]:
    """All controls of a part that can have the focus, from top to bottom and left to right."""
    if isinstance(part, QLayout):
        for i in range(part.count()):
            item = part.itemAt(i)
            inside = item.widget()  # false for an empty list widget
            yield from in_order(item.layout() if inside is None else inside)
    if not isinstance(part, QWidget):
        return
    if part.focusPolicy() & Qt.FocusPolicy.TabFocus and part.focusProxy() is None:
        yield part
    if isinstance(part, QTabWidget | QSplitter):
        if isinstance(part, QTabWidget):
            yield from in_order(part.tabBar())
        for i in range(part.count()):
            yield from in_order(part.widget(i))
    elif isinstance(part, QScrollArea):
        yield from in_order(part.widget())
    elif not isinstance(part, QAbstractItemView):
        yield from in_order(part.layout())


class _FocusFrame(QWidget):
    """A frame around the focus. Qt's own is cut off at the margins of the parent."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.color = QColor()
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def surround(self, control: QWidget) -> None:
        parent = control.parentWidget()
        while isinstance(parent, QSplitter):  # a splitter would make room for it
            parent = parent.parentWidget()
        place = QRect(control.mapTo(parent, QPoint()), control.size())
        if self.parentWidget() is not parent:
            self.setParent(parent)
        self.setGeometry(place.adjusted(-WIDTH, -WIDTH, WIDTH, WIDTH) & parent.rect())
        self.raise_()
        self.show()

    def paintEvent(self, _: Any) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.setPen(QPen(self.color, WIDTH))
        painter.drawRect(self.rect().adjusted(1, 1, -1, -1))
        painter.end()


class _FocusIndicator(QObject):
    """Shows the keyboard focus and the selection in the theme's colours."""

    def __init__(
        self, widget: QWidget, controls: list[QWidget], viewer: napari.viewer.Viewer
    ) -> None:
        super().__init__(widget)
        self._widget, self._viewer, self._theme = widget, viewer, ""
        self._views = [x for x in controls if isinstance(x, QListView | QTableView)]
        self._frame = _FocusFrame(widget)
        self._framed: QWidget | None = None
        for watched in (widget, *controls):
            watched.installEventFilter(self)
        self._set_colors()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        kind = event.type()
        if watched is self._widget:
            if kind == QEvent.Type.StyleChange:
                self._set_colors()
        elif kind == QEvent.Type.FocusIn:
            self._show_frame(watched if event.reason() in BY_KEY else None)
        elif watched is self._framed and kind in LOST:
            self._show_frame(None)
        elif watched is self._framed and kind in MOVED:
            self._show_frame(self._framed)
        return bool(super().eventFilter(watched, event))

    def _show_frame(self, control: QWidget | None) -> None:
        self._framed = control
        with contextlib.suppress(RuntimeError):  # the frame was destroyed with the window
            if control is None:
                self._frame.hide()
            else:
                self._frame.surround(control)

    def _set_colors(self) -> None:
        theme = self._viewer.theme
        if theme == self._theme:
            return
        self._theme = theme
        colors = get_theme(theme)
        ground, text = colors.current.as_hex(), colors.text.as_hex()
        self._frame.color = QColor(text)
        for view in self._views:
            view.setStyleSheet(SELECTED.format(ground=ground, text=text))
