"""The Batch widget: upscale a folder of files, see what became of each, keep a summary."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFileDialog, QPushButton, QSplitter, QVBoxLayout, QWidget

from napari_cfsr.core.process import RemoteModel
from napari_cfsr.errors import CFSRError
from napari_cfsr.widgets.batch.form import BatchForm
from napari_cfsr.widgets.batch.table import BatchTable
from napari_cfsr.widgets.parts.accessible import explain_all, make_accessible
from napari_cfsr.widgets.parts.preferences import preferred
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import BeforeChoice, FormArea, RunWidget
from napari_cfsr.widgets.parts.settings import read_settings, write_settings
from napari_cfsr.workers import (
    BatchNews,
    BatchOutcome,
    CancelToken,
    Failure,
    batch_worker,
    call_worker,
    list_inputs,
)

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchStep

SETTINGS = "batch"
LOOKING = "Looking at what is there"
FILTER = "Summaries (*.csv *.json)"
START = "Upscale all images of the folder that are not there already."
TOOLTIPS = {
    "table": "What becomes of each image. Press Enter on one that is done, or double-click it, to "
    "open its results.",
    "summary_button": "Write what became of each image: CSV for tables, JSON with all that is "
    "needed to make the results again.",
}


class BatchWidget(RunWidget):
    """Upscale the images of a folder.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    _fault = ""  # of the folder that is named; events come before the widget is made

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = RemoteModel()
        super().__init__(napari_viewer, RunControls("Upscale all", START), model.close)
        self._model = model
        self._looking = False  # into that folder
        self._listed: Path | None = None
        self._outcome: BatchOutcome | None = None
        self.form = BatchForm(self._on_form)
        self.table = BatchTable()
        self.summary_button = QPushButton("Save summary...")
        self._arrange()
        explain_all(self, TOOLTIPS, {"table": "state of each image"})
        self.controls.started.connect(self._start)
        self.summary_button.clicked.connect(self._save)
        self.table.opened.connect(self._open)
        self._before_choice = BeforeChoice(self.form.refiner.native, self.reload_refiners)
        wanted = preferred("scale", "backbone", "device", "precision")
        self.form.restore(read_settings(SETTINGS) | wanted)
        self._follow_weights()
        self._refresh()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.form.main.native)
        column.addStretch()
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(FormArea(inside))
        split.addWidget(self.table)
        split.setSizes([300, 160])
        layout = QVBoxLayout(self)
        layout.addWidget(split, 1)
        layout.addWidget(self.fetch_button)
        layout.addWidget(self.controls)
        layout.addWidget(self.summary_button)

    def _on_form(self) -> None:
        if self.form.folder != self._listed:
            self._list()
        self._refresh()

    def _list(self) -> None:
        """Look into the folder, beside the window: it may be large, or far away."""
        self._listed, self._outcome = self.form.folder, None
        self._fault = ""
        self.table.show_paths(())
        self._looking = self._listed is not None
        if self._listed is None:
            return
        worker = call_worker("a look", partial(_look, self._listed), CancelToken())
        worker.returned.connect(self._on_listed)
        worker.errored.connect(self._on_unlisted)
        worker.start()

    def _on_listed(self, listed: Failure | tuple[Path, list[Path], str] | None) -> None:
        """Show what is in the folder, unless another was chosen meanwhile."""
        if not isinstance(listed, tuple) or listed[0] != self._listed or self.controls.running:
            return
        self._looking = False
        _, found, self._fault = listed
        self.table.show_paths(found)
        self._refresh()

    def _on_unlisted(self, error: BaseException) -> None:
        self._looking, self._fault = False, f"Unexpected fault: {error!r}"
        self._refresh()

    def event(self, event: QEvent) -> bool:
        """A folder in which there was nothing may have been filled by another program."""
        kinds = (QEvent.Type.WindowActivate, QEvent.Type.Enter, QEvent.Type.Show)
        if event.type() in kinds and self._fault and not self.controls.running:
            self._list()
            self._refresh()
        return bool(super().event(event))

    def _refresh(self) -> None:
        """Enable what can be done; say why where it can't."""
        running = self.controls.running
        self.fetch_button.setVisible(self.form.backbone_choice.fetchable)
        self.fetch_button.setEnabled(not running)
        self.controls.block(self._reason())
        self.summary_button.setEnabled(self._outcome is not None and not running)

    def _reason(self) -> str:
        if self.form.folder is None:
            return "Choose a folder with images."
        if not self.form.folder.is_dir():
            return f"There is no folder {self.form.folder}."
        if self._looking:
            return f"Looking into {self.form.folder}"
        if self._fault:
            return self._fault
        return self.form.backbone_choice.reason() or self.form.refiner_choice.reason()

    def reload_refiners(self) -> None:
        """Offer the refiners that there are now."""
        if not self.controls.running:
            self.form.update()
            self._refresh()

    # a run

    def _start(self) -> None:
        folder = self.form.folder
        if folder is None:
            return
        write_settings(SETTINGS, self.form.remembered())
        self._outcome = None
        token = CancelToken()
        worker = batch_worker(self.form.request(folder), self._model, token)
        worker.returned.connect(self._on_result)
        self._run(worker, token)

    def _on_step(self, news: Any) -> None:
        if not isinstance(news, BatchNews):
            super()._on_step(news)
        elif news.step is None:
            self.table.show_paths(news.paths)
            self.controls.show_step(LOOKING)
        else:
            self._show(news.step)

    def _show(self, step: BatchStep) -> None:
        self.table.show_step(step)
        if step.state == "waiting":
            self.controls.show_step(step.text or LOOKING)
            return
        over, count = self.table.over, self.table.rowCount()
        fraction = (over + (step.fraction if step.state == "running" else 0)) / max(count, 1)
        text = f"{min(over + 1, count)} of {count}: {step.path.name}"
        self.controls.show_step(text, fraction, step.seconds_left)

    def _on_result(self, outcome: BatchOutcome | Failure | None) -> None:
        if outcome is None or isinstance(outcome, Failure):
            self._end("Cancelled." if outcome is None else outcome.message)
            return
        from napari_cfsr.core.batch import summary_line

        self._outcome = outcome
        self.table.show_records(outcome.records)
        text = summary_line(outcome.records, outcome.seconds)
        again = " Upscale all again goes on with the rest." if outcome.cancelled else ""
        self._end(f"{'Cancelled: ' if outcome.cancelled else ''}{text}.{again}")

    # afterwards

    def _save(self) -> None:
        start = str((self.form.folder or Path.home()) / "summary.csv")
        path, _ = QFileDialog.getSaveFileName(self, "Save summary", start, FILTER)
        if path:
            self.save_summary(Path(path))

    def save_summary(self, path: Path) -> None:
        """Write what became of each image; a name that was confirmed in the dialog is replaced."""
        from napari_cfsr.core.batch import write_summary

        if self._outcome is None:
            return
        try:
            write_summary(path, self._outcome.records, overwrite=True)
        except CFSRError as error:
            self.controls.status.setText(str(error))
        else:
            self.controls.status.setText(f"Saved {path}")

    def _open(self, paths: tuple[Path, ...]) -> None:
        """Open results in the viewer."""
        for path in paths:
            store = any((parent / "zarr.json").is_file() for parent in (path, path.parent))
            self._viewer.open(path, plugin="napari-cfsr" if store else "napari")


def _look(folder: Path) -> tuple[Path, list[Path], str]:
    """What there is to upscale in a folder, and what is wrong with it."""
    return (folder, *list_inputs((folder,)))
