"""All widgets by the keyboard alone, as a screen reader sees them, in both themes, on a laptop."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QPoint, QRect, Qt
from qtpy.QtGui import QColor, QFocusEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QTabBar,
    QWidget,
)

import napari_cfsr.widgets
from napari_cfsr.core.training.results import Report, ReportRow, TrainedRefiner, TrainProgress
from napari_cfsr.core.weights.checkpoints import RefinerCard
from napari_cfsr.widgets.batch.form import BatchForm
from napari_cfsr.widgets.batch.table import BatchTable
from napari_cfsr.widgets.parts.accessible import WIDTH, _FocusFrame, in_order
from napari_cfsr.widgets.parts.form import FROM_FILE, Rows
from napari_cfsr.widgets.parts.region_choice import BOX
from napari_cfsr.widgets.parts.threaded_plot import Look
from napari_cfsr.widgets.quality.plot import COLORS as SLICE_COLORS
from napari_cfsr.widgets.quality.plot import SliceCurves, SliceFigure
from napari_cfsr.widgets.training.fields import SOURCES
from napari_cfsr.widgets.training.plot import COLORS as TRAINING_COLORS
from napari_cfsr.widgets.upscaling.form import REGIONS
from tests.widgets.test_refiners import make, mine
from tests.widgets.test_upscale import photo

NAMES = ("Upscale", "Batch", "Train", "Refiners", "Quality")
LAPTOP = (1366, 768)
KEYS = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)
SOURCE = Path(napari_cfsr.widgets.__file__).parent
INTERACTIVE = (
    QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit, QAbstractSlider, QAbstractItemView,
    QTabBar, QPlainTextEdit,
)  # fmt: skip
# attributes of the same name in two widgets that stand for different things
DIFFERENT = {
    "advanced", "copy_button", "every", "export_button", "folder", "intensity", "layers",
    "lr_layer", "name", "overwrite", "region", "slices", "table",
}  # fmt: skip


class Opened:
    """A widget in a window as large as a small laptop's screen, in the narrowest dock."""

    def __init__(self, viewer: Any, name: str) -> None:
        self.viewer, self.name = viewer, name
        self.window = viewer.window._qt_window
        self.dock, self.widget = viewer.window.add_plugin_dock_widget("napari-cfsr", name)
        self.window.resize(*LAPTOP)
        self.lay_out()

    def lay_out(self) -> None:
        """Let everything be laid out, in the narrowest dock."""
        for _ in range(4):
            QApplication.processEvents()
        self.window.resizeDocks([self.dock], [1], Qt.Orientation.Horizontal)
        for _ in range(4):
            QApplication.processEvents()

    def states(self) -> Iterator[str]:
        """Put the widget into one state after the other, so that every control is seen once."""
        for state in getattr(self, f"_{self.name.lower()}")():
            self.lay_out()
            yield state

    def _upscale(self) -> Iterator[str]:
        form = self.widget.form
        yield "fresh"
        form.backbone.value = form.refiner.value = FROM_FILE
        form.region.value = REGIONS[2]
        yield "files and a box"
        form.backbone.value = form.refiner.value = "auto"
        form.region.value = REGIONS[0]
        self.widget.advanced.expand(animate=False)
        yield "advanced"

    def _batch(self) -> Iterator[str]:
        form = self.widget.form
        yield "fresh"
        form.backbone.value = form.refiner.value = FROM_FILE
        yield "files"

    def _train(self) -> Iterator[str]:
        widget, form = self.widget, self.widget.form
        yield "fresh"
        form.backbone.value = FROM_FILE
        for source in SOURCES[1:]:
            form.source.value = source
            yield source
        form.source.value, form.backbone.value = SOURCES[0], "auto"
        widget.advanced.expand(animate=False)
        yield "advanced"
        widget.advanced.collapse(animate=False)
        widget.pages.setCurrentIndex(1)
        yield "progress"
        widget.controls.is_training = True
        widget.controls.begin()
        yield "running"
        widget.controls.end("Over")
        widget.result.name.setText("cells")
        widget.result.show_outcome(outcome())
        widget.pages.setCurrentIndex(2)
        yield "result"
        widget.pages.setCurrentIndex(0)
        yield "setup"

    def _refiners(self) -> Iterator[str]:
        table = self.widget.table
        yield "fresh"
        table.selectRow(table.rowCount() - 1)
        self.widget.name.setText("another")
        yield "mine"

    def _quality(self) -> Iterator[str]:
        widget = self.widget
        yield "fresh"
        widget.form.region.value = BOX
        yield "box"
        widget.form.region.value = "whole image"
        widget.pages.setCurrentIndex(1)
        yield "nothing measured"
        self.measure()
        yield "result"
        widget.result.over.value = 0
        widget.result.every.value = True
        widget.result.view.sortByColumn(4, Qt.SortOrder.DescendingOrder)  # with its arrow
        yield "every slice"
        widget.pages.setCurrentIndex(2)
        yield "compare"
        widget.pages.setCurrentIndex(0)
        yield "setup"

    def measure(self) -> None:
        form = self.widget.form
        form.reference.value = next(x for x in self.viewer.layers if x.name == "stack")
        form.layers.tick([x for x in self.viewer.layers if x.name.startswith("stack ")])
        form.layers.changed.emit()
        self.widget.controls.start_button.click()
        for _ in range(1000):
            QTest.qWait(20)
            if not self.widget.controls.running:
                break
        assert self.widget.result.table is not None

    def controls(self) -> list[QWidget]:
        """What can be seen and operated."""
        return [
            x
            for x in self.widget.findChildren(QWidget)
            if isinstance(x, INTERACTIVE) and x.isVisible() and x.isEnabled() and not _inner(x)
        ]


def _inner(control: QWidget) -> bool:
    """Whether it is a part of a control, which speaks for it."""
    corner = control.metaObject().className() == "QTableCornerButton"
    if corner or isinstance(control, QScrollBar | QHeaderView):
        return True
    parent = control.parentWidget()
    return isinstance(parent, QAbstractSpinBox | QComboBox | QTabBar) or (
        isinstance(control, QAbstractItemView) and parent.inherits("QComboBoxPrivateContainer")
    )


def outcome() -> TrainedRefiner:
    rows = tuple(ReportRow(n, 20.0, 0.5) for n in ("bicubic", "baseline", "delta"))
    report = Report(rows, "gray", 2, ("a", "b"), (0.5, 0.75))
    notes = ("A note that is long enough to be broken into lines in any dock there may be.",)
    card = RefinerCard(2, "input", "0" * 64)
    return TrainedRefiner({}, card, report, True, "Worth it.", notes)


@pytest.fixture
def opened(make_napari_viewer) -> Callable[[str], Opened]:
    def open_one(name: str) -> Opened:
        make(mine("a refiner of mine with quite a long name"))
        viewer = make_napari_viewer()
        # with OpenGL in the window, the processor would draw all of it at each key
        viewer.window._qt_viewer.canvas.native.hide()
        viewer.window.show()
        if name in ("Upscale", "Train"):
            viewer.add_image(photo(), name="a layer with a name that is as long as names can be")
            viewer.add_image(photo(80, 120), name="another")
            viewer.add_shapes([[[1, 1], [9, 9]]], name="boxes")
        if name == "Quality":
            rng = np.random.default_rng(0)
            stack = rng.random((3, 40, 50)).astype(np.float32)
            viewer.add_image(stack, name="stack")
            for i in range(3):
                noisy = stack + rng.normal(0, 1e-4, stack.shape)
                viewer.add_image(noisy, name=f"stack with a name of some length {i}")
        return Opened(viewer, name)

    return open_one


def spoken(control: QWidget, labels: dict[QWidget, str]) -> str:
    """What a screen reader calls it, by the rules of Qt."""
    name = control.accessibleName()
    if not name and isinstance(control, QAbstractButton):
        name = control.text().replace("&", "")
    return str(name or labels.get(control, ""))


def labels_of(widget: QWidget) -> dict[QWidget, str]:
    return {x.buddy(): x.text() for x in widget.findChildren(QLabel) if x.buddy() is not None}


# what controls are for


def check_names(window: Opened, state: str) -> None:
    """Every control says what it is and what it does."""
    controls, labels = window.controls(), labels_of(window.widget)
    for control in controls:
        what = f"{state}: {type(control).__name__} {spoken(control, labels)!r}"
        assert control.toolTip().strip(), what
        assert spoken(control, labels).strip(), what
    # two of the same name can't be told apart
    names = Counter(spoken(x, labels) for x in controls)
    assert not [n for n, count in names.items() if count > 1], state


def text_constants() -> Iterator[tuple[Path, str]]:
    """Every longer text in the source of the widgets, without docstrings and parts of f-strings."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        inside = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr | ast.JoinedStr)
            for part in ast.walk(node)
            if isinstance(node, ast.JoinedStr) or part is node.value
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and text.count(" ") >= 3 and id(node) not in inside:
                yield path, text


def test_each_text_is_written_once() -> None:
    texts = list(text_constants())
    assert len(texts) > 100
    counts = Counter(text for _, text in texts)
    assert not [text for text, count in counts.items() if count > 1]


def test_a_control_is_explained_in_the_same_words_everywhere() -> None:
    words: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        module = importlib.import_module(".".join(["napari_cfsr.widgets", *parts]))
        for control, text in getattr(module, "TOOLTIPS", {}).items():
            words.setdefault(control, set()).add(text)
    assert len(words) > 60
    assert {name for name, texts in words.items() if len(texts) > 1} <= DIFFERENT
    assert not [t for texts in words.values() for t in texts if not t.endswith((".", "blurred."))]


# the keyboard


def tab(window: Opened, control: QWidget, back: bool = False) -> QWidget:
    """Press Tab, or Shift and Tab; what has the focus then."""
    shift = Qt.KeyboardModifier.ShiftModifier if back else Qt.KeyboardModifier.NoModifier
    QTest.keyClick(control, Qt.Key.Key_Backtab if back else Qt.Key.Key_Tab, shift)
    QApplication.processEvents()
    return window.window.focusWidget()


def comes_after(one: QWidget, other: QWidget, root: QWidget) -> bool:
    """Whether `other` lies below, or to the right of it in the same row, or inside of it."""
    if one.isAncestorOf(other):
        return True
    a, b = (QRect(x.mapTo(root, QPoint()), x.size()) for x in (one, other))
    same_row = a.top() <= b.center().y() <= a.bottom() or b.top() <= a.center().y() <= b.bottom()
    return b.left() > a.left() if same_row else b.top() > a.top()


def check_tab(window: Opened, state: str) -> None:
    """Tab goes through everything in the order that is seen."""
    widget = window.widget
    expected = [x for x in in_order(widget) if x.isVisible() and x.isEnabled()]
    focus = expected[0]
    focus.setFocus(Qt.FocusReason.TabFocusReason)
    QApplication.processEvents()
    path = [focus]
    while True:
        after = tab(window, focus)
        if not widget.isAncestorOf(after):
            break  # on to the rest of napari
        assert after not in path, f"{state}: {after} again"
        assert comes_after(focus, after, widget), f"{state}: {_words(focus)} -> {_words(after)}"
        path.append(focus := after)
    assert path == expected, state
    by_tab = [x for x in window.controls() if x.focusPolicy() & Qt.FocusPolicy.TabFocus]
    assert not set(by_tab) - set(path), state
    if hasattr(widget, "controls") and widget.controls.start_button.isEnabled():
        assert widget.controls.start_button in path
    focus.setFocus(Qt.FocusReason.TabFocusReason)
    back = [focus]
    while widget.isAncestorOf(before := tab(window, focus, back=True)):
        back.append(focus := before)
    assert back == path[::-1], state


def _words(control: QWidget) -> str:
    return f"{type(control).__name__} {control.accessibleName()!r} {control.geometry()}"


def press_buttons(window: Opened, done: list[QWidget], pressed: list[QWidget]) -> None:
    """Press each new button by each key; what they do is tested elsewhere."""
    for button in window.controls():
        if not isinstance(button, QPushButton) or button in done or button.isCheckable():
            continue
        if window.name == "Quality" and button is window.widget.controls.start_button:
            continue  # the next state needs it
        done.append(button)
        button.clicked.disconnect()
        button.clicked.connect(lambda *_, button=button: pressed.append(button))
        for key in KEYS:
            QTest.keyClick(button, key)


def test_a_section_opens_by_a_key(opened) -> None:
    widget = opened("Upscale").widget
    button = widget.advanced.toggleButton()
    assert button.text() == "▸ Advanced"
    QTest.keyClick(button, Qt.Key.Key_Return)
    QTest.qWait(400)  # it is animated
    assert widget.form.tile.native.isVisible()
    assert button.text() == "▾ Advanced"
    assert button.accessibleName() == "Advanced"


def test_results_of_a_batch_open_by_a_key(qtbot) -> None:
    table = BatchTable()
    qtbot.addWidget(table)
    table.show_paths([Path("a.png"), Path("b.png")])
    table._outputs = {1: (Path("b x4.png"),)}
    asked: list[tuple[Path, ...]] = []
    table.opened.connect(asked.append)
    table.selectRow(0)
    QTest.keyClick(table, Qt.Key.Key_Return)  # nothing came of it
    QTest.keyClick(table, Qt.Key.Key_Down)
    QTest.keyClick(table, Qt.Key.Key_Return)
    assert asked == [(Path("b x4.png"),)]


def check_frame(window: Opened, state: str) -> None:
    """What has the focus by the keyboard is framed."""
    (shown, *_) = window.widget.window().findChildren(_FocusFrame)
    for control in in_order(window.widget):
        if not (control.isVisible() and control.isEnabled()):
            continue
        control.setFocus(Qt.FocusReason.TabFocusReason)
        QApplication.sendEvent(control, _focus_in())  # the window may not be the active one
        QApplication.processEvents()
        around = QRect(shown.mapToGlobal(QPoint()), shown.size())
        inside = QRect(control.mapToGlobal(QPoint()), control.size())
        assert shown.isVisible(), state
        for one, other in ((inside, around), (around, inside)):
            assert one.adjusted(-WIDTH, -WIDTH, WIDTH, WIDTH).contains(other), state
        drawn = shown.grab().toImage()
        color = drawn.pixelColor(drawn.width() // 2, 0).getRgb()[:3]
        assert _close(color, get_theme(window.viewer.theme).text), state
    control.clearFocus()
    QApplication.sendEvent(control, _focus_in(Qt.FocusReason.MouseFocusReason))
    assert not shown.isVisible(), state


def _focus_in(reason: Any = Qt.FocusReason.TabFocusReason) -> QFocusEvent:
    return QFocusEvent(QEvent.Type.FocusIn, reason)


# a small screen


def check_room(window: Opened, state: str) -> None:
    """Nothing is cut off on a small laptop."""
    widget = window.widget
    assert (window.window.width(), window.window.height()) == LAPTOP, state
    bottom = widget.mapTo(window.window, QPoint(0, widget.height())).y()
    assert bottom <= LAPTOP[1], state
    for control in window.controls():
        what = f"{state}: {type(control).__name__} {control.accessibleName()!r}"
        for area in _areas(control, widget):
            left = control.mapTo(area, QPoint()).x()
            assert left >= 0, what
            assert left + control.width() <= area.width(), what
        if isinstance(control, QPushButton | QCheckBox):
            assert control.width() >= control.sizeHint().width(), f"{what} {control.text()}"
            assert control.height() >= control.minimumSizeHint().height(), what
    for area in widget.findChildren(QScrollArea):
        assert not area.horizontalScrollBar().isVisible(), state
    assert widget.width() <= 400, state  # enough is left for the image


def _areas(control: QWidget, root: QWidget) -> Iterator[QWidget]:
    """What a control may be cut off by: all that it lies in."""
    parent = control.parentWidget()
    while parent is not root:
        if isinstance(parent, QScrollArea):
            yield parent.viewport()
        parent = parent.parentWidget()
    yield root


def check_table(window: Opened, state: str) -> None:
    """Tables need no scrolling sideways for what counts, and show several lines."""
    if window.name == "Refiners":
        table, wanted = window.widget.table, range(4)
        assert table.viewport().height() >= 4 * table.rowHeight(0)
    elif window.name == "Quality" and state in ("result", "every slice"):
        table = window.widget.result.view
        wanted = range(table.horizontalHeader().count())
    else:
        return
    header = table.horizontalHeader()
    ends = [header.sectionViewportPosition(i) + header.sectionSize(i) for i in wanted]
    assert max(ends) <= table.viewport().width(), state
    for i in wanted[1:]:  # names may be cut short, figures not
        assert header.sectionSize(i) >= table.sizeHintForColumn(i), f"{state} {i}"


# themes


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it, 1 to 21."""

    def luminance(color: str) -> float:
        red, green, blue = (
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in QColor(color).getRgbF()[:3]
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_lines_of_plots_and_selected_lines_stand_out(theme) -> None:
    colors = get_theme(theme)
    ground = colors.background.as_hex()
    for line in (*SLICE_COLORS[theme], *TRAINING_COLORS[theme].values()):
        assert contrast(line, ground) >= 3, line
    assert contrast(colors.text.as_hex(), ground) >= 4.5
    assert contrast(colors.text.as_hex(), colors.current.as_hex()) >= 4.5


def picture(plot: QWidget) -> np.ndarray:
    image = plot._label.pixmap().toImage()
    return np.array([[image.pixelColor(x, y).getRgb()[:3] for x in range(0, image.width(), 2)]
                     for y in range(0, image.height(), 2)])  # fmt: skip


def rgb(color: Any) -> tuple[int, ...]:
    return QColor(color.as_hex()).getRgb()[:3]


def _close(pixel: Any, color: Any) -> bool:
    """The same, but for what a screen of 16 bits leaves of it."""
    return bool(np.abs(np.subtract(pixel, rgb(color))).max() <= 8)


@pytest.mark.parametrize("name", ["Train", "Quality"])
def test_plots_follow_the_theme_while_they_are_open(opened, qtbot, name) -> None:
    window = opened(name)
    widget = window.widget
    widget.pages.setCurrentIndex(1)
    if name == "Train":
        plot = widget.plot
        for step in range(1, 30):
            for placement in ("input", "output"):
                plot.add(TrainProgress("training", "", 0.5, None, placement, step, 1 / step, step))
    else:
        window.measure()
        plot = widget.result.plot
        # on a short screen the plot is below; it is drawn all the same
        assert plot.isVisible()
    qtbot.waitUntil(lambda: plot.drawn > 0, timeout=30_000)
    for theme in ("light", "dark"):
        before = plot.drawn
        window.viewer.theme = theme
        qtbot.waitUntil(lambda before=before: plot.drawn > before, timeout=30_000)
        QTest.qWait(700)
        colors, pixels = get_theme(theme), picture(plot)
        assert _close(pixels[0, 0], colors.background)
        distance = np.abs(pixels - np.array(rgb(colors.text))).sum(-1)
        assert distance.min() < 60, "no text in the colour of the theme's"


def test_a_plot_of_nearly_equal_values_has_room_for_their_digits() -> None:
    values = 0.9994 - np.linspace(0, 5e-5, 10)
    curves = (("a", 40 + values, values), ("b", 40 + values, values + 1e-6))
    figure = SliceFigure()
    figure.draw(SliceCurves(curves, np.arange(10.0), "Z", 0), Look("dark", (330, 280), 1.0))
    numbers = [x for axes in figure._axes for x in axes.get_yticklabels()]
    assert len(numbers) > 4
    assert max(len(x.get_text()) for x in numbers) >= 8
    assert min(x.get_window_extent().x0 for x in numbers) >= 0


def check_alignment(window: Opened, state: str) -> None:
    """The fields of a form begin below each other."""
    field, label = QFormLayout.ItemRole.FieldRole, QFormLayout.ItemRole.LabelRole
    for rows in window.widget.findChildren(Rows):
        layout = rows.layout()
        labelled = [i for i in range(layout.rowCount()) if layout.itemAt(i, label) is not None]
        fields = [layout.itemAt(i, field) for i in labelled]
        shown = [x.widget() for x in fields if x.widget().isVisible()]
        starts = {x.mapTo(window.widget, QPoint()).x() for x in shown}
        assert len(starts) <= 1, f"{state}: {starts}"


def check_selection(window: Opened, state: str) -> None:
    """A selected line has the colour that napari selects with."""
    views = {"Train": "form.layers.native", "Refiners": "table"}
    if window.name not in views or state not in ("fresh", "mine"):
        return
    view = attrgetter(views[window.name])(window.widget)
    place = view.visualRect(view.selectedIndexes()[0])
    image = view.viewport().grab(place).toImage()
    color = image.pixelColor(place.width() - 6, 2).getRgb()[:3]
    assert _close(color, get_theme(window.viewer.theme).current), state


# all of it


@pytest.mark.parametrize("name", NAMES)
def test_a_page_in_each_of_its_states(opened, name) -> None:
    window = opened(name)
    seen: set[QWidget] = set()
    looks = (check_room, check_table, check_selection)
    for state in window.states():
        for check in (check_names, check_tab, check_frame, check_alignment, *looks):
            check(window, state)
        seen |= set(window.controls())
    assert len(seen) > 5
    window.viewer.theme = "light"
    done: list[QWidget] = []
    pressed: list[QWidget] = []
    for state in window.states():
        for check in looks:
            check(window, state)
        press_buttons(window, done, pressed)
    assert len(done) >= 3
    assert pressed == [button for button in done for _ in KEYS]
    control = next(x for x in in_order(window.widget) if x.isVisible() and x.isEnabled())
    QApplication.sendEvent(control, _focus_in())
    window.viewer.window.remove_dock_widget(window.widget)  # while something has the focus
    window.widget.deleteLater()
    QApplication.processEvents()


def test_a_folder_of_images_reads_as_two_controls(qtbot) -> None:
    form = BatchForm(lambda: None)
    qtbot.addWidget(form.main)
    assert form.images.line_edit.native.accessibleName() == "images"
    assert form.images.choose_btn.native.accessibleName() == "images: choose"
    assert form.results.choose_btn.native.toolTip() == form.results.tooltip
