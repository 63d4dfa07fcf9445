"""The Batch widget in a real viewer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from napari_cfsr import load_model, upscale
from napari_cfsr.core.batch.run import BatchRecord, BatchStep
from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.widgets.batch.table import BatchTable
from napari_cfsr.widgets.batch.widget import BatchWidget
from napari_cfsr.workers.batch import list_inputs
from tests.helpers.closing import leftovers
from tests.widgets.test_upscale import make_refiner, photo

Opened = tuple["object", BatchWidget]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three photos, one of them broken, and a text."""
    path = tmp_path / "images"
    path.mkdir()
    for i in (1, 3):
        Image.fromarray(photo(40, 50, seed=i)).save(path / f"cell {i}.png")
    (path / "cell 2.png").write_bytes((path / "cell 1.png").read_bytes()[:200])
    (path / "notes.txt").write_text("no image")
    return path


@pytest.fixture
def opened(make_napari_viewer, qtbot) -> Callable[..., Opened]:
    def open_with(folder: Path | None = None, results: Path | None = None) -> Opened:
        viewer = make_napari_viewer()
        _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", "Batch")
        widget.form.scale.value = 4
        widget.form.refiner.value = "none"
        if folder is not None:
            widget.form.images.value = folder
            qtbot.waitUntil(lambda: not widget._looking)
        if results is not None:
            widget.form.results.line_edit.value = str(results)
        return viewer, widget

    return open_with


def press(qtbot, widget: BatchWidget, timeout: int = 60_000) -> str:
    assert widget.controls.start_button.isEnabled(), widget.controls.reason.text()
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=timeout)
    return widget.controls.status.text()


def rows(widget: BatchWidget) -> list[tuple[str, str]]:
    """Name and state of each image."""
    table = widget.table
    return [(table.item(i, 0).text(), table.item(i, 1).text()) for i in range(table.rowCount())]


def test_a_folder_is_upscaled_in_spite_of_a_broken_file(opened, qtbot, folder, tmp_path) -> None:
    results = folder.parent / "results"
    viewer, widget = opened(folder, results)
    assert rows(widget) == [("cell 1.png", ""), ("cell 2.png", ""), ("cell 3.png", "")]
    assert not widget.summary_button.isEnabled()
    status = press(qtbot, widget)
    assert status.startswith("2 upscaled, 1 failed in ")
    assert rows(widget) == [
        ("cell 1.png", "done"), ("cell 2.png", "failed"), ("cell 3.png", "done"),
    ]  # fmt: skip
    message = widget.table.item(1, 3).text()
    assert message.startswith("can't be read")
    assert widget.table.item(1, 3).toolTip() == f"{folder / 'cell 2.png'}: {message}"
    model = load_model(4, "bundled", None)
    for i in (1, 3):
        written = np.asarray(Image.open(results / f"cell {i}_x4_baseline.png"))
        assert_array_equal(written, upscale(photo(40, 50, seed=i), model, "YXC").baseline)
    assert len(list(results.glob("*.png"))) == 2
    widget.table.cellDoubleClicked.emit(0, 0)
    assert [layer.name for layer in viewer.layers] == ["cell 1_x4_baseline"]
    widget.table.cellDoubleClicked.emit(1, 0)  # the broken one
    assert len(viewer.layers) == 1

    assert widget.summary_button.isEnabled()
    widget.save_summary(tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text("utf-8").splitlines()
    assert lines[0] == "input,state,outputs,seconds,message"
    assert [line.split(",")[1] for line in lines[1:]] == ["done", "failed", "done"]
    widget.save_summary(tmp_path / "a.json")
    records = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert records[0]["provenance"]["backbone"] == "bundled cfsr_x4.safetensors"
    widget.save_summary(tmp_path / "a.txt")
    assert "expected a summary ending in .csv or .json" in widget.controls.status.text()


def test_a_second_run_skips_existing_results(opened, qtbot, folder) -> None:
    make_refiner()
    viewer, widget = opened(folder)
    widget.form.refiner.value = "mine"
    widget.form.baseline.value = True
    press(qtbot, widget)
    widget.table.cellDoubleClicked.emit(0, 0)
    assert [layer.name for layer in viewer.layers] == ["cell 1_x4_baseline", "cell 1_x4_delta"]
    written = {p: p.stat().st_mtime_ns for p in folder.glob("*_x4_*")}
    assert len(written) == 4
    assert len(rows(widget)) == 3
    Image.fromarray(photo(40, 50, seed=2)).save(folder / "cell 2.png")
    status = press(qtbot, widget)
    assert status.startswith("1 upscaled, 2 already there in ")
    assert [state for _, state in rows(widget)] == ["already there", "done", "already there"]
    assert {p: p.stat().st_mtime_ns for p in written} == written
    widget.form.overwrite.value = True
    assert press(qtbot, widget).startswith("3 upscaled in ")
    assert all(p.stat().st_mtime_ns > time for p, time in written.items())


def test_a_cancelled_batch_keeps_its_results_and_resumes(opened, qtbot, tmp_path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(photo(150, 150, seed=i)).save(folder / f"{i}.png")
    _, widget = opened(folder)
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: ("0.png", "done") in rows(widget), timeout=60_000)
    widget.controls.cancel_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=10_000)
    status = widget.controls.status.text()
    assert status.startswith("Cancelled: ")
    assert "not done" in status
    done = len(list(folder.glob("*_x4_*")))
    assert 1 <= done < 4
    assert not list(folder.glob("*partial*"))
    status = press(qtbot, widget)
    assert status.startswith(f"{4 - done} upscaled, {done} already there in ")
    assert len(list(folder.glob("*_x4_*"))) == 4


def test_why_nothing_can_start_is_reported(opened, qtbot, folder, tmp_path) -> None:
    _, widget = opened()
    assert widget.controls.reason.text() == "Choose a folder with images."
    (tmp_path / "empty").mkdir()
    widget.form.images.value = tmp_path / "empty"
    qtbot.waitUntil(lambda: "images in this folder, got none" in widget.controls.reason.text())
    assert not widget.controls.start_button.isEnabled()
    Image.fromarray(photo(40, 50)).save(tmp_path / "empty" / "late.png")
    QApplication.sendEvent(widget, QEvent(QEvent.Type.WindowActivate))  # back from the file manager
    qtbot.waitUntil(lambda: rows(widget) == [("late.png", "")])
    assert press(qtbot, widget).startswith("1 upscaled in ")
    widget.form.images.line_edit.value = str(tmp_path / "nowhere")
    widget.form.images.changed.emit(tmp_path / "nowhere")
    assert widget.controls.reason.text() == f"There is no folder {tmp_path / 'nowhere'}."
    assert not widget.controls.start_button.isEnabled()
    widget.form.images.value = folder
    qtbot.waitUntil(lambda: widget.controls.start_button.isEnabled())
    widget.form.baseline.value = False
    assert widget.controls.start_button.isEnabled()  # the only output there is
    assert widget.form.baseline.value
    (tmp_path / "file").write_text("no folder")
    widget.form.results.line_edit.value = str(tmp_path / "file")
    status = press(qtbot, widget)
    assert status.startswith("0 upscaled, 3 failed")
    assert (tmp_path / "file").read_text() == "no folder"
    assert widget.controls.start_button.isEnabled()


def test_settings_are_kept(opened, qtbot, folder) -> None:
    viewer, widget = opened(folder)
    widget.form.scale.value = 2
    widget.form.quality.value = "self-ensemble (8 times slower)"
    press(qtbot, widget)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    _, again = viewer.window.add_plugin_dock_widget("napari-cfsr", "Batch")
    assert again.form.scale.value == 2
    assert again.form.quality.value == "self-ensemble (8 times slower)"
    assert again.form.refiner.value == "none"


def test_closing_the_viewer_in_mid_run_leaves_nothing_behind(
    opened, model_process, qtbot, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(photo(1200, 1200)).save(folder / "large.png")
    viewer, widget = opened(folder)
    small = partial(UpscaleOptions, tile=64, halo=16)
    monkeypatch.setattr("napari_cfsr.widgets.batch.form.UpscaleOptions", small)
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: "left" in widget.controls.progress.format(), timeout=60_000)
    process = psutil.Process(widget._model.pid)
    viewer.close()
    qtbot.waitUntil(lambda: not process.is_running() and not leftovers(), timeout=5_000)
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == ["large.png"]


def test_the_window_does_not_wait_for_a_folder(opened, qtbot, folder, monkeypatch) -> None:
    go_on = threading.Event()

    def slow(inputs: tuple[Path, ...]) -> tuple[list[Path], str]:
        assert go_on.wait(10)
        return list_inputs(inputs)

    _, widget = opened()
    monkeypatch.setattr("napari_cfsr.widgets.batch.widget.list_inputs", slow)
    (other := folder.parent / "other").mkdir()
    widget.form.images.value = folder
    assert widget.controls.reason.text() == f"Looking into {folder}"
    assert not widget.controls.start_button.isEnabled()
    widget.form.images.value = other
    assert rows(widget) == []
    widget.form.images.value = folder
    go_on.set()
    qtbot.waitUntil(lambda: widget.controls.start_button.isEnabled())
    qtbot.waitUntil(lambda: not leftovers())
    assert [name for name, _ in rows(widget)] == ["cell 1.png", "cell 2.png", "cell 3.png"]


@pytest.mark.alone
def test_a_table_of_thousands_of_images_is_shown_at_once(qtbot) -> None:
    table = BatchTable()
    qtbot.addWidget(table)
    table.show()
    paths = [Path(f"/images/{i}.png") for i in range(3000)]
    table.show_paths(paths)
    qtbot.wait(50)
    began = time.perf_counter()
    table.show_records([BatchRecord(path, "waiting", message="not finished") for path in paths])
    assert time.perf_counter() - began < 1  # it took 20 s
    assert table.item(2999, 1).text() == "waiting"
    steps = [BatchStep(i, path, "running", 0.5, text="on") for i, path in enumerate(paths[:100])]
    began = time.perf_counter()
    for step in steps:
        table.show_step(step)
        QApplication.processEvents()
    assert time.perf_counter() - began < 1
