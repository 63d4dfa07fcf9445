"""Buttons in the form of the Train widget: simulate, estimate, measure a shift."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Image

from napari_cfsr.layers import ImageInput, LayerSpec, read_layer
from napari_cfsr.widgets.parts.region_choice import shown_slice
from napari_cfsr.widgets.parts.run_widget import NetworkWidget, add_layer
from napari_cfsr.widgets.training.form import TrainForm
from napari_cfsr.widgets.training.preview_layers import look_at, simulated_layer
from napari_cfsr.widgets.training.tasks import Simulated, estimate, measure_shift, simulate

if TYPE_CHECKING:
    from napari_cfsr.core.image import Estimate, Shift


class TrainAids(NetworkWidget):
    """A widget with these buttons."""

    form: TrainForm
    _simulated: weakref.ref[Image] | None = None  # the layer of the last simulation

    def _connect_aids(self) -> None:
        self.form.preview_button.clicked.connect(self._simulate)
        self.form.estimate_button.clicked.connect(self._estimate)
        self.form.shift_button.clicked.connect(self._measure_shift)

    def _refresh(self) -> None:
        super()._refresh()
        idle, form = not self.controls.running, self.form
        has_data = idle and not form.data_reason()
        form.preview_button.setEnabled(has_data)
        form.shift_button.setEnabled(has_data)
        form.estimate_button.setEnabled(idle and form.real_layer is not None)

    # simulate

    def _simulate(self) -> None:
        with self._reported():
            form = self.form
            source: Path | tuple[ImageInput, ImageInput] | None = form.chosen_folder
            if source is None:
                first = form.chosen[0]
                source = read_layer(first), shown_slice(self._viewer, first)
            task = partial(simulate, source, form.config(), form.scale.value)
            self._task("Simulating an LR image", task, self._on_simulated)

    def _on_simulated(self, simulated: Simulated) -> str:
        spec = simulated_layer(simulated, self.form.real_layer)
        self._show_simulated(spec)
        size = "x".join(str(n) for n in spec.data.shape[: spec.data.ndim - spec.arguments["rgb"]])
        return f"Simulated {size} pixels: {simulated.degradation.describe()}."

    def _show_simulated(self, spec: LayerSpec) -> None:
        """Add the layer, or update the last one if it is of the same kind."""
        layer = self._simulated() if self._simulated is not None else None
        if layer is not None and layer in self._viewer.layers and self._is_like(layer, spec):
            layer.data = spec.data
            for name in ("scale", "translate", "rotate", "shear", "affine", "units", "metadata"):
                if name in spec.arguments:
                    setattr(layer, name, spec.arguments[name])
            return
        layer = add_layer(self._viewer, spec)
        self._simulated = weakref.ref(layer)
        if self.form.real_layer is not None:
            look_at(self._viewer, [self.form.real_layer, layer])

    @staticmethod
    def _is_like(layer: Image, spec: LayerSpec) -> bool:
        ndim = spec.data.ndim - spec.arguments["rgb"]
        same = layer.name == spec.arguments["name"] and layer.ndim == ndim
        return bool(same and layer.rgb == spec.arguments["rgb"])

    # estimate

    def _estimate(self) -> None:
        layer = self.form.real_layer
        if layer is None:
            return
        with self._reported():
            form = self.form
            real = read_layer(layer), shown_slice(self._viewer, layer)
            hr = tuple(shown_slice(self._viewer, x) for x in form.chosen if x is not layer)
            sharp = form.chosen_folder or hr
            task = partial(estimate, real, sharp, form.config(), form.scale.value)
            self._task("Estimating noise and blur", task, self._on_estimated)

    def _on_estimated(self, found: Estimate) -> str:
        self.form.set_degradation(found)
        text = self.form.config().degradation.describe()  # rounded, as in the form
        notes = " ".join(found.notes)
        return f"Estimated: {text}. This is a starting point: edit it. {notes}".rstrip()

    # shift

    def _measure_shift(self) -> None:
        with self._reported():
            lr, hr = (shown_slice(self._viewer, layer) for layer in self.form.chosen)
            task = partial(measure_shift, lr, hr, self.form.config(), self.form.scale.value)
            self._task("Measuring the shift", task, self._on_shift)

    def _on_shift(self, shift: Shift) -> str:
        from napari_cfsr.core.image import LEAST_CORRELATION

        text = f"dy {shift.dy:+.2f}, dx {shift.dx:+.2f}"
        self.form.shift_text.setText(text)
        doubt = ""
        if shift.correlation < LEAST_CORRELATION:
            doubt = " They look very different: do they show the same scene?"
        return (
            f"Move the HR image by {text} LR pixels to align it with the LR image (standard "
            f"error {shift.uncertainty:.2g}, correlation {shift.correlation:.2f}).{doubt}"
        )
