"""What the pages have in common: one run at a time, layers that come and go, and a clean end."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import napari
from napari.layers import Image, Layer
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_cfsr.core.weights import OFFICIAL_NOTICE
from napari_cfsr.errors import CFSRError
from napari_cfsr.layers import LayerSpec
from napari_cfsr.widgets.parts.accessible import explain
from napari_cfsr.widgets.parts.form import BeforeChoice
from napari_cfsr.widgets.parts.preferences import folder_changed, preferred, read_settings
from napari_cfsr.widgets.parts.refiner_choice import NetworkForm
from napari_cfsr.workers import (
    CancelToken,
    Failure,
    Step,
    StoreStep,
    call_worker,
    fetch_weights,
    step_worker,
)

if TYPE_CHECKING:
    from napari.qt.threading import GeneratorWorker

    from napari_cfsr.widgets.parts.backbone_choice import BackboneForm
    from napari_cfsr.widgets.parts.form import Form
    from napari_cfsr.widgets.parts.run_controls import RunControls
    from napari_cfsr.workers import Steps

PREFERENCES = ("scale", "backbone", "device", "precision")  # that forms start from
LAYER_PAUSE = 20  # milliseconds between two layers, so that the window can draw and respond


class WidgetCleanup:
    """What remains to be done when a widget is destroyed, without touching the widget.

    The functions `close` may be called twice.
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

    Subclasses have a `form` and a `_refresh` that enables what is possible. When the widget is
    destroyed, the functions `close` end what runs in other processes.
    """

    form: Form

    def __init__(
        self, viewer: napari.viewer.Viewer, controls: RunControls, *close: Callable[[], object]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._token: CancelToken | None = None
        self._then: Callable[[Any], str] | None = None  # what to do with the result of a run
        self._cancelled = ""  # status of a run that was cancelled
        self._followed: weakref.WeakSet[Layer] = weakref.WeakSet()  # layers, for their names
        self.controls = controls
        self.controls.cancelled.connect(self._cancel)
        self._cleanup = WidgetCleanup(*close)
        self._cleanup.watch(self)

    def _refresh(self) -> None:
        """Enable what is possible; give the reason where it is not."""
        raise NotImplementedError

    def _follow_layers(self) -> None:
        """Update the form now and whenever layers are added, removed, moved or renamed."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            self._cleanup.connect(event, self._on_layers)
        self._on_layers()

    def _on_layers(self) -> None:
        for layer in self._viewer.layers:
            if layer not in self._followed:
                self._followed.add(layer)
                self._cleanup.connect(layer.events.name, self._refresh_form)
        self._refresh_form()

    def _refresh_form(self) -> None:
        self.form.update()
        self._refresh()

    # a run

    def _run(
        self,
        make: Callable[[CancelToken], GeneratorWorker],
        then: Callable[[Any], str],
        cancelled: str = "Cancelled.",
    ) -> None:
        """Start a worker; `then` gets its result, never None or a failure, and returns a status."""
        self._token = self._cleanup.token = CancelToken()
        self._then, self._cancelled = then, cancelled
        worker = make(self._token)
        worker.returned.connect(self._on_returned)
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
        self._token = self._cleanup.token = None
        self.controls.end(text)
        self.form.update()
        self._refresh()

    def _on_returned(self, outcome: Any) -> None:
        then, self._then = self._then, None
        if isinstance(outcome, Failure):
            self._on_failure(outcome)
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

    def _on_failure(self, failure: Failure) -> None:
        self._end(failure.message)

    def _on_cancelled(self) -> None:
        self._end(self._cancelled)

    def _on_error(self, error: BaseException) -> None:
        self._end(f"Unexpected error: {error!r}")

    def _run_steps(
        self, name: str, steps: Steps, then: Callable[[Any], str], cancelled: str = "Cancelled."
    ) -> None:
        """Run the generator `steps(check)` in a worker; `then` and `cancelled` as for `_run`."""
        self._run(partial(step_worker, name, steps), then, cancelled)

    def _task(self, text: str, task: Callable[[], Any], then: Callable[[Any], str]) -> None:
        """Call `task` in a worker; `then` as for `_run`."""
        self._run(partial(call_worker, text, task), then)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Show errors of this package in the status line."""
        try:
            yield
        except CFSRError as error:
            self.controls.end(str(error))


class NetworkWidget(RunWidget):
    """A page with a backbone, whose official weights can be downloaded."""

    form: BackboneForm
    SETTINGS: ClassVar[str]  # name of the file with those of the last run

    def __init__(
        self, viewer: napari.viewer.Viewer, controls: RunControls, *close: Callable[[], object]
    ) -> None:
        super().__init__(viewer, controls, *close)
        self.fetch_button = QPushButton("Download official weights (1.3 MB, from GitHub)")
        explain(self.fetch_button, OFFICIAL_NOTICE)
        self.fetch_button.clicked.connect(self._fetch)

    def _restore(self) -> None:
        """Start from Preferences and the last run; another weights folder takes effect at once."""
        choices = [x for x in PREFERENCES if x in self.form.REMEMBERED]
        self.form.restore(read_settings(self.SETTINGS) | preferred(*choices))
        if isinstance(self.form, NetworkForm):  # other programs may add or remove refiners
            self._before_choice = BeforeChoice(self.form.refiner.native, self.reload_refiners)
        event = folder_changed()
        if event is not None:
            self._cleanup.connect(event, self.reload_refiners)

    def reload_refiners(self) -> None:
        """Offer the refiners that exist now."""
        if not self.controls.running:
            self._refresh_form()

    def _refresh(self) -> None:
        self.fetch_button.setVisible(self.form.fetchable)
        self.fetch_button.setEnabled(not self.controls.running)

    def _fetch(self) -> None:
        fetch = partial(fetch_weights, self.form.scale.value)
        self._run_steps("a download", fetch, lambda file: f"Downloaded {file.path}")


def add_layer(viewer: napari.viewer.Viewer, spec: LayerSpec) -> Image:
    """Add an image; the layer itself, not the proxy that napari gives to plugins.

    napari makes a new proxy each time, so a weak reference to one is dead at once.
    """
    added = viewer.add_image(spec.data, **spec.arguments)
    return next(layer for layer in viewer.layers if layer == added)


# messages between widgets


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
