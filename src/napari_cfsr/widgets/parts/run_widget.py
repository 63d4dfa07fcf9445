"""What the widgets have in common: one run at a time, a form that scrolls, and a clean end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import napari
from magicgui.widgets import Container, FileEdit
from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QPushButton,
    QScrollArea,
    QWidget,
)
from superqt import QCollapsible

from napari_cfsr.core.weights import OFFICIAL_NOTICE, WeightsFile
from napari_cfsr.errors import CFSRError
from napari_cfsr.layers import LayerSpec
from napari_cfsr.widgets.parts.accessible import explain
from napari_cfsr.widgets.parts.preferences import folder_changed
from napari_cfsr.workers import CancelToken, Failure, Step, StoreStep, call_worker, fetch_worker

if TYPE_CHECKING:
    from napari.qt.threading import GeneratorWorker

    from napari_cfsr.widgets.parts.run_controls import RunControls

BREATH = 20  # milliseconds between two layers, so that the window can draw and answer


class FormArea(QScrollArea):
    """A form that scrolls up and down, and is always wide enough not to scroll sideways."""

    def __init__(self, form: QWidget) -> None:
        super().__init__()
        self._least = 0  # width, when it was laid out last
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

    Its arrow has the colour of its text, and what is folded is out of the keyboard's reach, too.

    Parameters
    ----------
    title : str
    content : QWidget
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


def narrow(combo: QComboBox, letters: int = 12) -> None:
    """Keep a long name in a list of choices from widening the dock."""
    combo.setMinimumContentsLength(letters)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)


def path_edit(mode: str, kinds: str = "") -> FileEdit:
    """A field for a file or a folder whose button leaves room for the path."""
    edit = FileEdit(mode=mode, filter=kinds or None)
    edit.choose_btn.text = "Choose..."
    return edit


class AlignedLabels(QObject):
    """Lets the fields of a form begin below each other, in whatever font its labels are.

    magicgui measures labels before they have napari's font.
    """

    def __init__(self, form: Container) -> None:
        super().__init__(form.native)
        self._form = form.native
        self._form.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() in (QEvent.Type.Show, QEvent.Type.StyleChange):
            self._align()
        return bool(super().eventFilter(watched, event))

    def _align(self) -> None:
        rows = [self._form.layout().itemAt(i).widget() for i in range(self._form.layout().count())]
        inside = [row.layout().itemAt(0).widget() for row in rows if row.layout() is not None]
        labels = [label for label in inside if isinstance(label, QLabel)]
        for label in labels:
            label.ensurePolished()
        width = max((label.sizeHint().width() for label in labels), default=0)
        for label in labels:
            label.setMinimumWidth(width)


class BeforeChoice(QObject):
    """Calls a function when somebody is about to open a list of choices."""

    def __init__(self, combo: QComboBox, action: Callable[[], None]) -> None:
        super().__init__(combo)
        self._action = action
        combo.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() in (QEvent.Type.MouseButtonPress, QEvent.Type.FocusIn):
            self._action()
        return bool(super().eventFilter(watched, event))


class WidgetCleanup:
    """What is to be done when a widget goes, without touching the widget, which is gone then.

    Parameters
    ----------
    *close : callable
        Called then; may be called twice.
    """

    def __init__(self, *close: Callable[[], object]) -> None:
        self.close = list(close)
        self.token: CancelToken | None = None
        self.connections: list[tuple[Any, Callable[..., None]]] = []

    def watch(self, widget: QWidget) -> None:
        """Act when the widget is destroyed, or the program ends."""
        widget.destroyed.connect(self)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self)

    def connect(self, event: Any, callback: Callable[..., None]) -> None:
        """Connect to an event that outlives the widget."""
        event.connect(callback)
        self.connections.append((event, callback))

    def __call__(self, *_: object) -> None:
        if self.token is not None:
            self.token.cancel()
        for close in self.close:
            close()
        for event, callback in self.connections:
            event.disconnect(callback)
        self.connections.clear()
        application = QApplication.instance()
        if application is not None:
            with contextlib.suppress(TypeError, RuntimeError):  # disconnected already
                application.aboutToQuit.disconnect(self)


class RunWidget(QWidget):
    """A widget that runs one worker at a time; after each, its form is usable again.

    Subclasses have a `form` and a `_refresh` that enables what can be done.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    controls : RunControls
    *close : callable
        Called when the widget goes: ends what runs outside this process.
    """

    form: Any

    def __init__(
        self, viewer: napari.viewer.Viewer, controls: RunControls, *close: Callable[[], object]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._token: CancelToken | None = None
        self._then: Callable[[Any], str] | None = None  # what to do with the result of a task
        self.controls = controls
        self.controls.cancelled.connect(self._cancel)
        self.fetch_button = QPushButton("Download official weights (1.3 MB, from GitHub)")
        explain(self.fetch_button, OFFICIAL_NOTICE)
        self.fetch_button.clicked.connect(self._fetch)
        self._ending = WidgetCleanup(*close)
        self._ending.watch(self)

    def _refresh(self) -> None:
        raise NotImplementedError

    def _follow_weights(self) -> None:
        """Another weights folder in Preferences counts at once."""
        event = folder_changed()
        if event is not None:
            self._ending.connect(event, self._on_weights)

    def _on_weights(self) -> None:
        if not self.controls.running:
            self.form.update()
            self._refresh()

    def _run(self, worker: GeneratorWorker, token: CancelToken) -> None:
        self._token = self._ending.token = token
        worker.yielded.connect(self._on_step)
        worker.errored.connect(self._on_error)
        worker.aborted.connect(self._on_cancelled)
        self.controls.begin()
        self._refresh()
        worker.start()

    def _cancel(self) -> None:
        if self._token is not None:
            self._token.cancel()
            self.controls.show_step("Cancelling")

    def _on_step(self, step: Step | StoreStep) -> None:
        self.controls.show_step(step.text, step.fraction, step.seconds_left)

    def _end(self, text: str) -> None:
        self._token = self._ending.token = None
        self.controls.end(text)
        self.form.update()
        self._refresh()

    def _on_cancelled(self) -> None:
        self._end("Cancelled; nothing was added.")

    def _on_error(self, error: BaseException) -> None:
        self._end(f"Unexpected fault: {error!r}")

    # small tasks

    def _task(self, text: str, task: Callable[[], Any], then: Callable[[Any], str]) -> None:
        """Call `task` in a worker; `then` takes what it returns, never None, and says what came."""
        self._then = then
        token = CancelToken()
        worker = call_worker(text, task, token)
        worker.returned.connect(self._on_task)
        self._run(worker, token)

    def _on_task(self, outcome: Any) -> None:
        then, self._then = self._then, None
        if isinstance(outcome, Failure):
            self._end(outcome.message)
        elif outcome is None or then is None:
            self._on_cancelled()
        else:
            text = ""
            try:
                text = then(outcome)
            except CFSRError as error:
                text = str(error)
            finally:  # whatever happens, the form is usable again
                self._end(text)

    def _fetch(self) -> None:
        token = CancelToken()
        worker = fetch_worker(self.form.backbone_choice.scale.value, token)
        worker.returned.connect(self._on_fetched)
        self._run(worker, token)

    def _on_fetched(self, file: WeightsFile | Failure | None) -> None:
        if isinstance(file, Failure):
            self._end(file.message)
        else:
            self._end("Cancelled." if file is None else f"Downloaded {file.path}")


def displayed_axes(viewer: napari.viewer.Viewer, layer: Image) -> list[int]:
    """Dimensions of a layer that the canvas shows, counted from the last as napari does."""
    extra = viewer.dims.ndim - layer.ndim
    return [d - extra for d in viewer.dims.displayed if d >= extra]


def canvas_box(viewer: napari.viewer.Viewer) -> tuple[list[float], list[float]]:
    """Corners of the canvas in world coordinates, for a 2D display."""
    camera = viewer.scene.camera
    sides = zip(camera.center[-2:], viewer.canvas.size, strict=True)
    halves = [(centre, length / camera.zoom / 2) for centre, length in sides]
    return [c - half for c, half in halves], [c + half for c, half in halves]


def add_layer(viewer: napari.viewer.Viewer, spec: LayerSpec) -> Image:
    """Add an image; the layer itself, not the proxy that napari gives to plugins.

    A proxy is made anew each time, so a weak reference to it is dead at once.
    """
    added = viewer.add_image(spec.data, **spec.arguments)
    return next(layer for layer in viewer.layers if layer == added)


# what one widget tells another


def offer_refiners(viewer: napari.viewer.Viewer) -> None:
    """Let the widgets of a viewer that list refiners read the list again."""
    for widget in viewer.window.dock_widgets.values():
        reload_refiners = getattr(widget, "reload_refiners", None)
        if reload_refiners is not None:
            reload_refiners()


def show_in_upscale(viewer: napari.viewer.Viewer, scale: int, backbone: str, refiner: str) -> None:
    """Open the Upscale widget, or find it, with a refiner chosen."""
    dock, upscale = viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
    upscale.choose_refiner(scale, backbone, refiner)
    dock.show()
    dock.raise_()
