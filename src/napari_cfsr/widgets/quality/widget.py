"""The Quality widget: layers against a reference layer, in numbers, maps and by eye."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Labels, Layer, Shapes
from qtpy.QtWidgets import QApplication, QFileDialog, QVBoxLayout

from napari_cfsr.core.metrics import MapKind, csv_path, write_csv
from napari_cfsr.errors import ImageError
from napari_cfsr.layers import LayerSpec, QualityRequest, read_layer
from napari_cfsr.widgets.parts.accessible import make_accessible
from napari_cfsr.widgets.parts.form import fill, stacked, tabbed
from napari_cfsr.widgets.parts.region_choice import chosen_region
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import RunWidget, add_layer
from napari_cfsr.widgets.quality.compare import Blink, ComparePage
from napari_cfsr.widgets.quality.form import REGIONS, QualityForm
from napari_cfsr.widgets.quality.report import QualityPage
from napari_cfsr.widgets.quality.suggestions import candidate, comparable, record
from napari_cfsr.workers import QualityResult, map_layer, measure_layers

FILTER = "Tables (*.csv)"
START = "Measure PSNR and SSIM of the ticked layers."
PAGES = "What to compare with what; the measured values; and two layers shown in turn."
PARTS = dict(zip(REGIONS, ("whole image", "the current view", "the box"), strict=True))


class QualityWidget(RunWidget):
    """Measure how close layers of the viewer are to a reference layer.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    form: QualityForm

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        blink = Blink(napari_viewer, self._on_blink)
        super().__init__(napari_viewer, RunControls("Measure", START), blink.close)
        self._result: QualityResult | None = None
        # the layers behind the rows of the result, as long as they exist
        self._measured: list[tuple[weakref.ref[Layer], int]] = []
        self.form = QualityForm(self._comparable, self._boxes, self._on_form)
        self.result = QualityPage(napari_viewer.theme)
        self.compare = ComparePage(napari_viewer, self._images, blink)
        self._arrange()
        self._connect()
        self._follow_layers()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        setup = stacked(self.form.main)
        self.pages = tabbed(PAGES, Setup=setup, Result=self.result, Compare=self.compare)
        fill(QVBoxLayout(self), self.pages, self.controls, stretch=(1,))

    def _connect(self) -> None:
        self.controls.started.connect(self._start)
        self.result.mapped.connect(self._map)
        self.result.exported.connect(self._export)
        self.result.copied.connect(self._copy)
        self._cleanup.connect(self._viewer.events.theme, self._on_theme)

    # layers and choices

    def _images(self) -> list[Image]:
        return [x for x in self._viewer.layers if isinstance(x, Image) and x.ndim >= 2]

    def _comparable(self) -> list[Image]:
        return [x for x in self._images() if comparable(x)]

    def _boxes(self) -> list[Layer]:
        return [x for x in self._viewer.layers if isinstance(x, Shapes | Labels)]

    def _refresh_form(self) -> None:
        self.form.update()
        self._on_form()

    def _on_form(self) -> None:
        ticked = self.form.layers.ticked
        pair = (ticked[0], ticked[-1]) if len(ticked) > 1 else (self.form.reference.value, *ticked)
        self.compare.update_layers(pair)
        self._refresh()

    def hideEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().hideEvent(event)
        if not event.spontaneous():  # the dock closes; the window is not minimised
            self.compare.blink.stop()

    def _on_theme(self) -> None:
        self.result.plot.set_theme(self._viewer.theme)

    def _on_blink(self) -> None:
        self.compare.refresh()

    def _refresh(self) -> None:
        self.controls.block(self.form.reason())
        self.result.busy = self.controls.running
        self.result.refresh()

    # measuring

    def _start(self) -> None:
        with self._reported():
            measure = partial(measure_layers, self._read())
            self.form.chosen = True  # what was measured stays chosen
            layers = [(self.form.reference.value, 1), *self.form.sources]
            self._measured = [(weakref.ref(layer), factor) for layer, factor in layers]
            self._run_steps("a comparison", measure, self._on_measured)

    def _read(self) -> QualityRequest:
        form, layer = self.form, self.form.reference.value
        where = form.region.value, form.box_layer.value, form.slices.value
        return QualityRequest(
            reference=read_layer(layer),
            region=chosen_region(self._viewer, layer, *where),
            part=PARTS[form.region.value],
            candidates=tuple(candidate(x, factor) for x, factor in form.sources),
            channel=form.channel.value,
            shave=form.border,
            data_range=form.range(),
        )

    def _on_measured(self, outcome: QualityResult) -> str:
        self._result = outcome
        self.result.show_table(outcome.table, self._baseline())
        self.pages.setCurrentIndex(1)
        rows = outcome.table.rows
        done = sum(not row.fault for row in rows)
        text = f"Measured {done} of {len(rows)} layers." if done < len(rows) else "Measured."
        warnings = len(outcome.table.warnings)
        if warnings:
            text += " There is a warning." if warnings == 1 else f" There are {warnings} warnings."
        return text

    def _baseline(self) -> int | None:
        """The row that gains are over at first: the backbone alone, if there are others."""
        rows = self._result.table.rows if self._result is not None else ()
        if sum(not row.fault for row in rows) < 2:
            return None
        for i, (source, enlarge) in enumerate(self._measured[1:]):
            layer = source()
            own = layer is not None and record(layer).get("output") == "baseline"
            if own and enlarge == 1 and not rows[i].fault:
                return i
        return None

    # maps and tables

    def _map(self, kind: MapKind) -> None:
        """Map the selected layer, as it is now."""
        with self._reported():
            self._run_steps("a map", partial(map_layer, self._map_request(), kind), self._on_map)

    def _map_request(self) -> QualityRequest:
        line, result = self.result.selected, self._result
        if line is None or result is None:
            raise ImageError("expected a selected line of the table, got none: select one")
        table = result.table
        found = [self._measured[0], self._measured[1 + line.row]]
        names = (table.reference, table.rows[line.row].name)
        layers: list[Layer] = []
        for name, (source, _) in zip(names, found, strict=True):
            layer = source()
            if layer is None or layer not in self._viewer.layers:
                raise ImageError(f"expected '{name}', but that layer was removed: measure again")
            layers.append(layer)
        return QualityRequest(
            reference=read_layer(layers[0]),
            region=result.region,
            part=table.part,
            candidates=(candidate(layers[1], found[1][1]),),
            channel=table.options.channel,
            shave=0,
            data_range=table.options.data_range,
        )

    def _on_map(self, outcome: LayerSpec) -> str:
        layer = add_layer(self._viewer, outcome)
        low, high = outcome.arguments["contrast_limits"]
        return f"Added '{layer.name}', shown from {low:g} to {high:.4g}."

    def _export(self) -> None:
        table = self.result.table
        if table is None:
            return
        suggested = str(Path.home() / f"{table.reference} quality.csv")
        chosen, _ = QFileDialog.getSaveFileName(self, "Export the table", suggested, FILTER)
        if not chosen:
            return
        # the dialog has asked about exactly this name, but not about the one with a suffix
        path = csv_path(chosen)
        asked = path == Path(chosen)
        task = partial(write_csv, path, table.csv(self.result.over.value), asked)
        self._task("Writing", task, lambda written: f"Wrote {written}")

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.result.text())
        self._viewer.status = "Copied the table"
