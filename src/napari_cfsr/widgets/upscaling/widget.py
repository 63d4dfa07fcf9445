"""The Upscale widget: choose a layer, press Upscale, get layers that lie exactly over it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path

import napari
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QPushButton, QVBoxLayout, QWidget

from napari_cfsr.core.process import RemoteModel
from napari_cfsr.core.upscale import load_arguments, python_call
from napari_cfsr.errors import CFSRError
from napari_cfsr.layers import (
    ImageInput,
    LayerSpec,
    Region,
    box_is_quick,
    box_region,
    current_slices,
    read_layer,
    result_layers,
    visible_region,
)
from napari_cfsr.widgets.parts.accessible import explain_all, make_accessible
from napari_cfsr.widgets.parts.choices import NO_BOX
from napari_cfsr.widgets.parts.preferences import preferred
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import (
    BREATH,
    BeforeChoice,
    FormArea,
    RunWidget,
    Section,
    canvas_box,
    displayed_axes,
)
from napari_cfsr.widgets.parts.settings import read_settings, write_settings
from napari_cfsr.widgets.upscaling.form import REGIONS, SLICES, FormValues, UpscaleForm
from napari_cfsr.widgets.upscaling.growing_layers import GrowingLayers
from napari_cfsr.widgets.upscaling.report import stored, summary
from napari_cfsr.workers import (
    CancelToken,
    Failure,
    Step,
    StoreOutcome,
    StoreRequest,
    StoreStep,
    UpscaleOutcome,
    UpscaleRequest,
    store_worker,
    upscale_worker,
)

SETTINGS = "upscale"
START = "Upscale the layer. The results are added as new layers."
TOOLTIPS = {
    "copy_button": "Copy the call that makes the last result, or the next one.",
    "advanced": "Tiles, precision and intensities, which are seldom changed.",
}


class UpscaleWidget(RunWidget):
    """Upscale a layer of the viewer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = RemoteModel()
        super().__init__(napari_viewer, RunControls("Upscale", START), model.close)
        self._model = model
        self._last_python = ""  # of the last result, until the form changes
        self._chosen: dict[str, Layer] = {}  # layers that the form names, by field
        self._pending: list[LayerSpec] = []
        self._adding = False
        self._growing = GrowingLayers(napari_viewer, self)
        self._ending.close.append(self._growing.leaver())
        self._store: Path | None = None  # that the run under way writes
        self._named: weakref.WeakSet[Layer] = weakref.WeakSet()  # whose names are followed
        self.form = UpscaleForm(self._image_names, self._box_names, self._on_form)
        self.copy_button = QPushButton("Copy as Python")
        self._arrange()
        explain_all(self, TOOLTIPS, {})
        self.controls.started.connect(self._start)
        self.copy_button.clicked.connect(self._copy)
        # refiners may have come or gone meanwhile, by whatever program
        self._before_choice = BeforeChoice(self.form.refiner.native, self.reload_refiners)
        wanted = preferred("scale", "backbone", "device", "precision")
        self.form.restore(read_settings(SETTINGS) | wanted)
        self._follow_weights()
        layers = napari_viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            self._ending.connect(event, self._on_layers)
        self._ending.connect(layers.selection.events.active, self._on_active)
        self._on_layers()
        self._follow(layers.selection.active)
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        self.advanced = Section("Advanced", self.form.advanced.native)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.form.main.native)
        column.addWidget(self.advanced)
        column.addStretch()
        scroll = FormArea(inside)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.form.output_choice.note)
        layout.addWidget(self.fetch_button)
        layout.addWidget(self.controls)
        layout.addWidget(self.copy_button)

    # what is there

    def _image_names(self) -> list[str]:
        return [x.name for x in self._viewer.layers if isinstance(x, Image)]

    def _box_names(self) -> list[str]:
        return [x.name for x in self._viewer.layers if isinstance(x, Shapes | Labels)]

    def _on_layers(self) -> None:
        for layer in self._viewer.layers:
            if layer not in self._named:
                self._named.add(layer)
                self._ending.connect(layer.events.name, self._refresh_form)
        self._refresh_form()

    def _refresh_form(self) -> None:
        """Offer the layers there are; one that was renamed stays chosen."""
        chosen = dict(self._chosen)
        self.form.update()
        for field, layer in chosen.items():
            if layer in self._viewer.layers:
                self.form.choose(field, layer.name)
        self._refresh()

    def _on_form(self) -> None:
        self._last_python = ""
        self._refresh()

    def _on_active(self) -> None:
        self._follow(self._viewer.layers.selection.active)

    def _follow(self, layer: Layer | None) -> None:
        """Choose the layer that was selected in the viewer."""
        if isinstance(layer, Image) and not self.controls.running and not self._adding:
            self.form.update()
            self.form.layer.value = layer.name

    def _refresh(self) -> None:
        """Enable what can be done; say why where it can't."""
        values = self.form.values()
        names = {"layer": values.layer, "box_layer": values.box_layer}
        self._chosen = {k: self._viewer.layers[v] for k, v in names.items() if v}
        self.fetch_button.setVisible(self.form.backbone_choice.fetchable)
        self.fetch_button.setEnabled(not self.controls.running)
        reason = self._reason(values)
        self.controls.block(reason)
        self.form.output_choice.show("" if reason else self._where(values))
        self.copy_button.setEnabled(bool(values.layer))

    def _reason(self, values: FormValues) -> str:
        """Why nothing can be upscaled now; empty if it can."""
        if not values.layer:
            return "Open an image first: there is no image layer to upscale."
        if reason := self.form.backbone_choice.reason():
            return reason
        if reason := self.form.refiner_choice.reason():
            return reason
        if values.region == REGIONS[2] and not values.box_layer:
            return NO_BOX
        return ""

    def _where(self, values: FormValues) -> str:
        """What is to be said of where the result goes, if that can be known at once."""
        box = self._viewer.layers[values.box_layer] if values.region == REGIONS[2] else None
        if box is not None and not box_is_quick(box):
            return ""
        try:
            return self._target(values, self._read(values))[1]
        except CFSRError:
            return ""  # is said when Start is pressed

    def _target(self, values: FormValues, source: ImageInput) -> tuple[Path | None, str]:
        """The store that the result goes to, None for memory, and what to say of it."""
        layer = self._viewer.layers[values.layer]
        return self.form.output_choice.store(layer, source, values.outputs, values.scale)

    def choose_backbone(self, backbone: str) -> None:
        """Choose `auto`, `official`, `bundled`, an imported name or a file."""
        self.form.backbone_choice.choose(backbone)

    def reload_refiners(self) -> None:
        """Offer the refiners that there are now."""
        if not self.controls.running:
            self._refresh_form()

    def choose_refiner(self, scale: int, backbone: str, refiner: str) -> None:
        """Choose a refiner and what it belongs to."""
        self.form.scale.value = scale
        self.choose_backbone(backbone)
        self.reload_refiners()
        if refiner in self.form.refiner.choices:
            self.form.refiner.value = refiner

    # a run

    def _start(self) -> None:
        values = self.form.values()
        try:
            source = self._read(values)
            store, _ = self._target(values, source)
        except CFSRError as error:
            self.controls.end(str(error))
            return
        write_settings(SETTINGS, self.form.remembered())
        asked = source, values.load_arguments(), values.options(source)
        token = CancelToken()
        if store is None:
            worker = upscale_worker(UpscaleRequest(*asked), self._model, token)
            worker.returned.connect(self._on_result)
        else:
            worker = store_worker(StoreRequest(*asked, store), self._model, token)
            worker.returned.connect(self._on_stored)
        self._run(worker, token)

    def _on_step(self, step: Step | StoreStep) -> None:
        super()._on_step(step)
        if isinstance(step, StoreStep) and step.begun is not None:
            self._store = step.begun.path
            with self._adds():
                self._growing.begin(step.begun)

    def _read(self, values: FormValues) -> ImageInput:
        """Snapshot of the chosen region of the chosen layer."""
        layer = self._viewer.layers[values.layer]
        region: Region | None = None
        displayed = displayed_axes(self._viewer, layer)
        if values.region == REGIONS[1]:
            region = visible_region(layer, displayed, canvas_box(self._viewer))
        elif values.region == REGIONS[2]:
            region = box_region(layer, self._viewer.layers[values.box_layer])
        if values.slices == SLICES[1]:
            region = current_slices(layer, region, self._viewer.dims.point, displayed)
        return read_layer(layer, region)

    def _on_result(self, outcome: UpscaleOutcome | Failure | None) -> None:
        if outcome is None:
            self._on_cancelled()
            return
        if isinstance(outcome, Failure):
            self._end(outcome.message)
            return
        image, result = outcome.request.image, outcome.result
        load = load_arguments(result.info)
        self._last_python = python_call(image.expression, load, result.options)
        self._pending = result_layers(result, image, outcome.difference, outcome.limits)
        self._end(summary(outcome))
        QTimer.singleShot(BREATH, self._add_next)

    def _on_stored(self, outcome: StoreOutcome | Failure | None) -> None:
        if outcome is None or isinstance(outcome, Failure):
            self._growing.discard()
            if outcome is None:
                self._on_cancelled()
            else:
                self._end(outcome.message)
            return
        image, done = outcome.begun.request.image, outcome.done
        load = load_arguments(done.result.info)
        self._last_python = python_call(image.expression, load, done.result.options, str(done.path))
        with self._adds():
            self._growing.finish(outcome)
        self._store = None
        self._end(stored(outcome))

    def _on_cancelled(self) -> None:
        store, self._store = self._store, None
        if store is None:
            super()._on_cancelled()
        else:
            self._growing.discard()
            self._end(f"Cancelled. {store} keeps what was done: the same settings go on with it.")

    def _on_error(self, error: BaseException) -> None:
        self._store = None
        self._growing.discard()
        super()._on_error(error)

    @contextlib.contextmanager
    def _adds(self) -> Iterator[None]:
        """Layers that are added meanwhile are results, not the next thing to upscale."""
        self._adding = True
        try:
            yield
        finally:
            self._adding = False

    def _add_next(self) -> None:
        """Add the next layer, and the one after it when the event loop has had its turn."""
        if not self._pending:
            return
        spec = self._pending.pop(0)
        with self._adds():
            self._viewer.add_image(spec.data, **spec.arguments)
        QTimer.singleShot(BREATH, self._add_next)

    # beside a run

    def _copy(self) -> None:
        text = self.python()
        if text:  # else the reason is in the status line, and the clipboard stays
            QApplication.clipboard().setText(text)
            self._viewer.status = "Copied the Python call"

    def python(self) -> str:
        """The call that makes the last result; the next one's once the form has changed."""
        if self._last_python:
            return self._last_python
        values = self.form.values()
        try:
            source = self._read(values)
            store, _ = self._target(values, source)
        except CFSRError as error:
            self.controls.end(str(error))
            return ""
        load = {k: v for k, v in values.load_arguments().items() if k != "download"}
        return python_call(source.expression, load, values.options(source), str(store or ""))
