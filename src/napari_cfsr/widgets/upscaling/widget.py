"""The Upscale widget: choose a layer, press Upscale, get layers that lie exactly over it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import napari
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QPushButton, QVBoxLayout

from napari_cfsr.core.process import RemoteModel
from napari_cfsr.core.upscale import UpscaleResult, duration, load_arguments, python_call
from napari_cfsr.errors import CFSRError
from napari_cfsr.layers import ImageInput, LayerSpec, box_is_quick, read_layer, result_layers
from napari_cfsr.widgets.parts.accessible import explain_all, make_accessible
from napari_cfsr.widgets.parts.form import FormArea, Section, fill, stacked
from napari_cfsr.widgets.parts.preferences import write_settings
from napari_cfsr.widgets.parts.region_choice import BOX, NO_BOX, chosen_region
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import LAYER_PAUSE, NetworkWidget
from napari_cfsr.widgets.upscaling.form import UpscaleForm
from napari_cfsr.widgets.upscaling.growing_layers import GrowingLayers
from napari_cfsr.workers import (
    Step,
    StoreOutcome,
    StoreRequest,
    StoreStep,
    UpscaleOutcome,
    UpscaleRequest,
    upscale_layer,
    upscale_to_store,
)

START = "Upscale the layer. The results are added as new layers."
NOT_ADDED = "Cancelled; nothing was added."
TOOLTIPS = {
    "copy_button": "Copy the Python call that makes the last result, or the next one.",
    "advanced": "Tiles, precision and intensities, which seldom need changing.",
}


class UpscaleWidget(NetworkWidget):
    """Upscale a layer of the viewer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    form: UpscaleForm
    SETTINGS = "upscale"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = RemoteModel()
        super().__init__(napari_viewer, RunControls("Upscale", START), model.close)
        self._model = model
        self._last_python = ""  # of the last result, until the form changes
        self._chosen: dict[str, Layer] = {}  # layers that the form names, by field
        self._pending: list[LayerSpec] = []
        self._adding = False
        self._growing = GrowingLayers(napari_viewer, self)
        self._cleanup.close.append(self._growing.cleanup())
        self._store: Path | None = None  # that the run under way writes
        self.form = UpscaleForm(self._image_names, self._box_names, self._on_form)
        self.copy_button = QPushButton("Copy as Python")
        self._arrange()
        explain_all(self, TOOLTIPS, {})
        self.controls.started.connect(self._start)
        self.copy_button.clicked.connect(self._copy)
        self._restore()
        self._follow_layers()
        selection = napari_viewer.layers.selection
        self._cleanup.connect(selection.events.active, self._on_active)
        self._on_active()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        self.advanced = Section("Advanced", self.form.advanced)
        area = FormArea(stacked(self.form.main, self.advanced))
        parts = self.form.note, self.fetch_button, self.controls, self.copy_button
        fill(QVBoxLayout(self), area, *parts, stretch=(1,))

    # layers and choices

    def _image_names(self) -> list[str]:
        return [x.name for x in self._viewer.layers if isinstance(x, Image)]

    def _box_names(self) -> list[str]:
        return [x.name for x in self._viewer.layers if isinstance(x, Shapes | Labels)]

    def _refresh_form(self) -> None:
        """Offer the layers that exist; one that was renamed stays chosen."""
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
        """Choose the layer that was selected in the viewer."""
        layer = self._viewer.layers.selection.active
        if isinstance(layer, Image) and not self.controls.running and not self._adding:
            self.form.update()
            self.form.layer.value = layer.name

    def _refresh(self) -> None:
        super()._refresh()
        form, layers = self.form, self._viewer.layers
        names = {"layer": form.layer.value, "box_layer": form.box_layer.value}
        self._chosen = {field: layers[name] for field, name in names.items() if name}
        reason = self._reason()
        self.controls.block(reason)
        form.note.setText("" if reason else self._where())
        form.note.setVisible(bool(form.note.text()))
        self.copy_button.setEnabled(bool(form.layer.value))

    def _reason(self) -> str:
        """Why nothing can be upscaled now; empty if it can."""
        form = self.form
        if not form.layer.value:
            return "Open an image first: there is no image layer to upscale."
        if reason := form.network_reason():
            return reason
        return NO_BOX if form.region.value == BOX and not form.box_layer.value else ""

    def _where(self) -> str:
        """A note on where the result goes, if that is known at once."""
        box = self._chosen.get("box_layer") if self.form.region.value == BOX else None
        if box is not None and not box_is_quick(box):
            return ""
        try:
            return self._read()[2]
        except CFSRError:
            return ""  # reported when Upscale is pressed

    def choose_backbone(self, backbone: str) -> None:
        """Choose `auto`, `official`, `bundled`, an imported name or a file."""
        self.form.choose_backbone(backbone)

    def choose_refiner(self, scale: int, backbone: str, refiner: str) -> None:
        """Choose a refiner, its backbone and scale."""
        self.form.scale.value = scale
        self.choose_backbone(backbone)
        self.reload_refiners()
        if refiner in self.form.refiner.choices:
            self.form.refiner.value = refiner

    # a run

    def _start(self) -> None:
        with self._reported():
            source, store, _ = self._read()
            write_settings(self.SETTINGS, self.form.remembered())
            asked = source, self.form.load_arguments(), self.form.options(source)
            if store is None:
                steps = partial(upscale_layer, UpscaleRequest(*asked), self._model)
                self._run_steps("an upscaling", steps, self._on_result, NOT_ADDED)
            else:
                to_store = partial(upscale_to_store, StoreRequest(*asked, store), self._model)
                self._run_steps("an upscaling to disk", to_store, self._on_stored, NOT_ADDED)

    def _on_step(self, step: Step | StoreStep) -> None:
        super()._on_step(step)
        if isinstance(step, StoreStep) and step.begun is not None:
            self._store = step.begun.path
            with self._adds():
                self._growing.begin(step.begun)

    def _read(self) -> tuple[ImageInput, Path | None, str]:
        """The chosen region of the layer; the store to write, None for memory, and a note on it."""
        form, layers = self.form, self._viewer.layers
        layer = layers[form.layer.value]
        box = layers[form.box_layer.value] if form.box_layer.value else None
        region = chosen_region(self._viewer, layer, form.region.value, box, form.slices.value)
        source = read_layer(layer, region)
        return source, *form.store(layer, source)

    def _on_result(self, outcome: UpscaleOutcome) -> str:
        image, result = outcome.request.image, outcome.result
        load = load_arguments(result.info)
        self._last_python = python_call(image.expression, load, result.options)
        self._pending = result_layers(result, image, outcome.difference, outcome.limits)
        QTimer.singleShot(LAYER_PAUSE, self._add_next)
        return summary(outcome)

    def _on_stored(self, outcome: StoreOutcome) -> str:
        image, done = outcome.begun.request.image, outcome.done
        load = load_arguments(done.result.info)
        self._last_python = python_call(image.expression, load, done.result.options, str(done.path))
        with self._adds():
            self._growing.finish(outcome)
        return stored(outcome)

    def _on_cancelled(self) -> None:
        if self._store is None:
            super()._on_cancelled()
        else:
            self._end(f"Cancelled. {self._store} keeps what is done: the same settings resume it.")

    def _end(self, text: str) -> None:
        self._store = None
        self._growing.discard()  # nothing, if they are finished
        super()._end(text)

    @contextlib.contextmanager
    def _adds(self) -> Iterator[None]:
        """Layers added inside are results, not the next layer to upscale."""
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
        QTimer.singleShot(LAYER_PAUSE, self._add_next)

    # as Python

    def _copy(self) -> None:
        text = self.python()
        if text:  # else the status line has the reason, and the clipboard is left alone
            QApplication.clipboard().setText(text)
            self._viewer.status = "Copied the Python call"

    def python(self) -> str:
        """The call that makes the last result; the next one's once the form has changed."""
        if self._last_python:
            return self._last_python
        try:
            source, store, _ = self._read()
        except CFSRError as error:
            self.controls.end(str(error))
            return ""
        load = {k: v for k, v in self.form.load_arguments().items() if k != "download"}
        return python_call(source.expression, load, self.form.options(source), str(store or ""))


# what the status line says of a run that is over


def stored(outcome: StoreOutcome) -> str:
    """What ran, and where the result is."""
    done = outcome.done
    parts = [*_ran(done.result), f"written to {done.path}"]
    if done.resumed:
        parts.append(f"{done.resumed} of {done.blocks} blocks were there from an earlier run")
    return "; ".join([*parts, *done.result.notes]) + "."


def summary(outcome: UpscaleOutcome) -> str:
    """What ran, in one line or two."""
    result = outcome.result
    parts = _ran(result)
    if outcome.difference is not None:
        low, high = outcome.limits
        unit = "units of the data" if result.mapping[0].dtype.startswith("float") else "grey levels"
        of_luma = " of luma" if "S" in result.axes.names else ""
        parts.append(f"difference{of_luma} {low:+.3g} to {high:+.3g} {unit}")
    return "; ".join([*parts, *result.notes]) + "."


def _ran(result: UpscaleResult) -> list[str]:
    """Scale, time, weights and engine."""
    info = result.info
    return [
        f"x{info.scale} in {duration(result.seconds)}",
        info.backbone,
        f"refiner {info.refiner}" if info.refiner else "no refiner for this backbone",
        f"{info.engine} on {info.device}, {info.precision}",
    ]
