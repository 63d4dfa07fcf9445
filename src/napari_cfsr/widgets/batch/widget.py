"""The Batch widget: upscale a folder of images, see the state of each, save a summary."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFileDialog, QPushButton, QSplitter, QVBoxLayout

from napari_cfsr.core.process import RemoteModel
from napari_cfsr.errors import CFSRError
from napari_cfsr.widgets.batch.form import BatchForm
from napari_cfsr.widgets.batch.table import BatchTable
from napari_cfsr.widgets.parts.accessible import explain_all, make_accessible
from napari_cfsr.widgets.parts.form import FormArea, fill, stacked
from napari_cfsr.widgets.parts.preferences import write_settings
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import NetworkWidget
from napari_cfsr.workers import (
    BatchOutcome,
    CancelToken,
    Failure,
    Step,
    call_worker,
    list_inputs,
    run_batch,
)

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchStep

LOOKING = "Checking for existing results"
FILTER = "Summaries (*.csv *.json)"
START = "Upscale all images of the folder that have no results yet."
TOOLTIPS = {
    "table": "The state of each image. Press Enter on one that is done, or double-click it, to "
    "open its results.",
    "summary_button": "Write the outcome of each image to a file: CSV for spreadsheets, JSON with "
    "everything needed to reproduce the results.",
}


class BatchWidget(NetworkWidget):
    """Upscale the images of a folder.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    form: BatchForm
    SETTINGS = "batch"
    _fault = ""  # of the chosen folder; events come before the widget is complete

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        model = RemoteModel()
        super().__init__(napari_viewer, RunControls("Upscale all", START), model.close)
        self._model = model
        self._looking = False  # into the chosen folder
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
        self._restore()
        self._refresh()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(FormArea(stacked(self.form.main)))
        split.addWidget(self.table)
        split.setSizes([300, 160])
        parts = split, self.fetch_button, self.controls, self.summary_button
        fill(QVBoxLayout(self), *parts, stretch=(1,))

    def _on_form(self) -> None:
        if self.form.folder != self._listed:
            self._list()
        self._refresh()

    def _list(self) -> None:
        """Look into the folder in a worker: it may be large, or on a network."""
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
        self._looking, self._fault = False, f"Unexpected error: {error!r}"
        self._refresh()

    def event(self, event: QEvent) -> bool:
        """Look again into a folder that was empty: another program may have filled it."""
        kinds = (QEvent.Type.WindowActivate, QEvent.Type.Enter, QEvent.Type.Show)
        if event.type() in kinds and self._fault and not self.controls.running:
            self._list()
            self._refresh()
        return bool(super().event(event))

    def _refresh(self) -> None:
        super()._refresh()
        self.controls.block(self._reason())
        self.summary_button.setEnabled(self._outcome is not None and not self.controls.running)

    def _reason(self) -> str:
        if self.form.folder is None:
            return "Choose a folder with images."
        if not self.form.folder.is_dir():
            return f"There is no folder {self.form.folder}."
        if self._looking:
            return f"Looking into {self.form.folder}"
        if self._fault:
            return self._fault
        return self.form.network_reason()

    # a run

    def _start(self) -> None:
        folder = self.form.folder
        if folder is None:
            return
        write_settings(self.SETTINGS, self.form.remembered())
        self._outcome = None
        steps = partial(run_batch, self.form.request(folder), self._model)
        self._run_steps("a batch", steps, self._on_result)

    def _on_step(self, step: Any) -> None:
        if isinstance(step, Step):  # of a download
            super()._on_step(step)
        elif isinstance(step, tuple):
            self.table.show_paths(step)
            self.controls.show_step(LOOKING)
        else:
            self._show(step)

    def _show(self, step: BatchStep) -> None:
        self.table.show_step(step)
        if step.state == "waiting":
            self.controls.show_step(step.text or LOOKING)
            return
        over, count = self.table.over, self.table.rowCount()
        fraction = (over + (step.fraction if step.state == "running" else 0)) / max(count, 1)
        text = f"{min(over + 1, count)} of {count}: {step.path.name}"
        self.controls.show_step(text, fraction, step.seconds_left)

    def _on_result(self, outcome: BatchOutcome) -> str:
        from napari_cfsr.core.batch import summary_line

        self._outcome = outcome
        self.table.show_records(outcome.records)
        text = summary_line(outcome.records, outcome.seconds)
        rest = " Upscale all resumes with the rest." if outcome.cancelled else ""
        return f"{'Cancelled: ' if outcome.cancelled else ''}{text}.{rest}"

    # afterwards

    def _save(self) -> None:
        start = str((self.form.folder or Path.home()) / "summary.csv")
        path, _ = QFileDialog.getSaveFileName(self, "Save summary", start, FILTER)
        if path:
            self.save_summary(Path(path))

    def save_summary(self, path: Path) -> None:
        """Write the outcome of each image; the dialog has asked about an existing file."""
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
        for path in paths:
            store = any((parent / "zarr.json").is_file() for parent in (path, path.parent))
            self._viewer.open(path, plugin="napari-cfsr" if store else "napari")


def _look(folder: Path) -> tuple[Path, list[Path], str]:
    """The images of a folder, and what is wrong with it."""
    return (folder, *list_inputs((folder,)))
