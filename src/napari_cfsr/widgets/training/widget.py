"""The Train widget: choose images, describe what the camera does to them, press Train."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, QTimer, Signal
from qtpy.QtWidgets import QApplication, QHBoxLayout, QPushButton, QVBoxLayout

from napari_cfsr.core.process import RemoteTraining
from napari_cfsr.core.training import Checkpoint, TrainedRefiner, TrainProgress
from napari_cfsr.core.weights import save_named
from napari_cfsr.layers import TrainInput, TrainJob, read_layer
from napari_cfsr.widgets.parts.accessible import explain, make_accessible
from napari_cfsr.widgets.parts.form import Section, fill, stacked, tabbed
from napari_cfsr.widgets.parts.preferences import write_settings
from napari_cfsr.widgets.parts.run_controls import RunControls
from napari_cfsr.widgets.parts.run_widget import offer_refiners, show_in_upscale
from napari_cfsr.widgets.training.assist import TrainAids
from napari_cfsr.widgets.training.form import TrainForm
from napari_cfsr.widgets.training.plot import TrainingPlot
from napari_cfsr.widgets.training.preview_layers import LivePreview
from napari_cfsr.widgets.training.report import ResultPage
from napari_cfsr.workers import Failure, train_worker

TOOLTIPS = {
    "advanced": "The training recipe: its fields override the preset.",
    "pause_button": "Pause training; it takes no processor time meanwhile.",
    "stop_button": "End training, measure the best refiner so far on held-out images, and offer "
    "to save it.",
}
PAGES = "What to train on and how; progress; and the result."
TICK = 100  # milliseconds between two updates of the progress bar


class TrainControls(RunControls):
    """Start, pause, stop and cancel."""

    paused = Signal(bool)  # False: resume
    stopped = Signal()

    is_training = False  # False during a small task
    _extra: tuple[QPushButton, ...] = ()

    def __init__(self) -> None:
        super().__init__("Train", "Train a refiner. Nothing is saved until you press Save.")
        self.pause_button = QPushButton("Pause")
        self.stop_button = QPushButton("Stop and keep best")
        self._extra = (self.pause_button, self.stop_button)
        self.pause_button.setCheckable(True)
        explain(self.pause_button, TOOLTIPS["pause_button"])
        explain(self.stop_button, TOOLTIPS["stop_button"])
        self._rows.addLayout(fill(QHBoxLayout(), *self._extra, stretch=(1, 2)))
        self.pause_button.toggled.connect(self._on_pause)
        self.stop_button.clicked.connect(self._on_stop)
        self._update()

    def end(self, text: str) -> None:
        self.is_training = False
        self.pause_button.setChecked(False)
        super().end(text)

    def _on_pause(self, paused: bool) -> None:
        self.pause_button.setText("Resume" if paused else "Pause")
        if self.is_training:
            self.paused.emit(paused)

    def _on_stop(self) -> None:
        self.stop_button.setEnabled(False)
        self.pause_button.setEnabled(False)
        with QSignalBlocker(self.pause_button):  # stopping ends a pause
            self.pause_button.setChecked(False)
        self.pause_button.setText("Pause")
        self.stopped.emit()

    def _update(self) -> None:
        super()._update()
        for button in self._extra:
            button.setVisible(self.is_training)
            button.setEnabled(self.is_training)


class TrainWidget(TrainAids):
    """Train a refiner on layers of the viewer, on a folder, or on a measured pair.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the widget belongs to.
    """

    controls: TrainControls
    SETTINGS = "train"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        training, preview = RemoteTraining(), LivePreview(napari_viewer)
        super().__init__(napari_viewer, TrainControls(), training.close, preview.close)
        self._training, self._preview = training, preview
        # of the current or the last training: arguments of `load_model`, name, live preview
        self._asked: tuple[dict[str, Any], str] = {}, ""
        self._previews = False
        self._load: dict[str, Any] = {}  # backbone of the refiner on the result page
        self._progress: TrainProgress | None = None  # not shown yet
        self.form = TrainForm(self._images, self._refresh)
        self.plot = TrainingPlot(napari_viewer.theme)
        self.result = ResultPage()
        self._timer = QTimer(self)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._show_progress)
        self._arrange()
        self._connect()
        self._restore()
        self._follow_layers()
        self._cleanup.connect(napari_viewer.layers.events.inserted, self._choose_first)
        self._choose_first()
        make_accessible(self, napari_viewer)

    def _arrange(self) -> None:
        self.advanced = Section("Advanced", self.form.advanced)
        explain(self.advanced, TOOLTIPS["advanced"])
        setup = stacked(self.form.main, self.advanced)
        self.pages = tabbed(PAGES, Setup=setup, Progress=self.plot, Result=self.result)
        fill(QVBoxLayout(self), self.pages, self.fetch_button, self.controls, stretch=(1,))

    def _connect(self) -> None:
        self.controls.started.connect(self._start)
        self.controls.paused.connect(self._pause)
        self.controls.stopped.connect(self._stop)
        self._connect_aids()
        self.result.save.connect(self._save)
        self.result.copy.connect(self._copy)
        self.result.use.connect(self._use)
        self._cleanup.connect(self._viewer.events.theme, self._on_theme)

    # layers and choices

    def _images(self) -> list[tuple[str, Image]]:
        return [(x.name, x) for x in self._viewer.layers if isinstance(x, Image)]

    def _on_theme(self) -> None:
        self.plot.set_theme(self._viewer.theme)

    def _choose_first(self) -> None:
        """Choose the first image that is not a result of this plugin."""
        own = [x for _, x in self._images() if "napari_cfsr" not in x.metadata]
        if not self.form.layers.value and own:
            self.form.layers.value = own[:1]

    def _refresh(self) -> None:
        super()._refresh()
        self.controls.block(self.form.reason())
        self.result.setEnabled(not self.controls.running)

    # a training

    def _start(self) -> None:
        form = self.form
        with self._reported():
            job = TrainJob(self._input(), form.load_arguments(), form.config())
            write_settings(self.SETTINGS, form.remembered())
            self._asked, self._previews = (job.load, form.name.value), form.previews.value
            self._preview.begin(form.chosen[-1] if form.chosen else None)
            self.plot.begin()
            self.pages.setCurrentIndex(1)
            self.controls.is_training = True
            self._run(partial(train_worker, job, self._training), self._on_trained)
            self._timer.start()

    def _input(self) -> TrainInput:
        noisy = self.form.noisy
        if self.form.chosen_folder is not None:
            return TrainInput(self.form.chosen_folder, noisy=noisy)
        images = tuple(read_layer(layer) for layer in self.form.chosen)
        if self.form.paired:
            return TrainInput(images[1:], images[:1])
        return TrainInput(images, noisy=noisy)

    def _on_step(self, step: Any) -> None:
        """Record the progress; the window shows it ten times a second."""
        if not isinstance(step, TrainProgress):
            if step is not None:
                super()._on_step(step)
            return
        self._progress = step
        self.plot.add(step)
        if step.preview is not None and self._previews:
            self._preview.show(step.preview)

    def _show_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is None or self._token is None:
            return
        text = "Paused" if self.controls.pause_button.isChecked() else _text(progress)
        best = self.plot.best()
        if best is not None:
            text += f"\nBest so far: {best[2]:+.2f} dB at step {best[1]} (placement {best[0]})"
        self.controls.show_step(text, progress.fraction, progress.seconds_left)

    def _pause(self, paused: bool) -> None:
        if paused:
            self._training.pause()
            self.controls.status.setText("Paused")
        else:
            self._training.resume()
            self.controls.status.setText("Resumed")

    def _stop(self) -> None:
        self._training.stop()
        self.controls.status.setText("Stopping; the best refiner so far will be measured")

    def _end(self, text: str) -> None:
        self._timer.stop()
        self.plot.end()
        self._preview.end()
        super()._end(text)

    def _on_cancelled(self) -> None:
        if not self.controls.is_training:
            self._end("Cancelled.")
            return
        best = self._training.best
        if best is None:
            self._end("Cancelled; nothing was trained.")
        else:
            self._end("Cancelled. The best refiner so far can still be saved.")
            self._show_outcome(best)

    def _on_trained(self, outcome: TrainedRefiner) -> str:
        self._show_outcome(outcome)
        return outcome.verdict

    def _on_failure(self, failure: Failure) -> None:
        super()._on_failure(failure)
        if failure.best is not None:
            self._show_outcome(failure.best)

    def _show_outcome(self, outcome: TrainedRefiner | Checkpoint) -> None:
        self._load, name = self._asked
        self.result.name.setText(name)
        self.result.show_outcome(outcome)
        self.pages.setCurrentIndex(2)

    # the result

    def _save(self) -> None:
        outcome, name = self.result.outcome, self.result.name.text().strip()
        if outcome is not None and not self.controls.running:
            overwrite = self.result.overwrite.isChecked()
            self._task("Saving", partial(save_named, outcome, name, overwrite), self._on_saved)

    def _on_saved(self, path: Path) -> str:
        self.result.set_saved(path.stem)
        if self.form.name.value == path.stem:
            self.form.suggest_another_name()
        offer_refiners(self._viewer)
        return f"Saved {path}"

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.result.text())
        self._viewer.status = "Copied the table"

    def _use(self) -> None:
        load = self._load
        show_in_upscale(self._viewer, load["scale"], load["backbone"], self.result.saved)


def _text(progress: TrainProgress) -> str:
    """The current stage, with the step if there is one."""
    if progress.stage != "training":
        return progress.text
    return f"{progress.text} (placement {progress.placement}, step {progress.step})"
