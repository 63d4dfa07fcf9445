"""The Train widget in a real viewer, used as a person would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image as PillowImage
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter

from napari_cfsr import psnr
from napari_cfsr.core.image.degradation import degrade
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.process import remote_training
from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.results import Report, ReportRow, TrainedRefiner
from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card
from napari_cfsr.core.weights.weight_files import bundled_path, data_folder, sha256_of
from napari_cfsr.widgets.training.fields import NOISY, PRESET, SOURCES, TOOLTIPS
from napari_cfsr.widgets.training.widget import TrainWidget
from napari_cfsr.widgets.upscaling.widget import UpscaleWidget
from tests.helpers import fake_training
from tests.helpers.closing import close, leftovers
from tests.helpers.faults import run_python

Opened = tuple["object", TrainWidget]
QUICK = {"placement": "output", "steps": 30, "batch": 4, "patch": 32, "every": 10, "held_out": 0.2}


@pytest.fixture
def opened(make_napari_viewer) -> Callable[..., Opened]:
    """Open a viewer with images, all of them chosen, and the widget from its menu entry."""

    def open_with(*images: np.ndarray, show: bool = False, **arguments) -> Opened:
        viewer = make_napari_viewer(show=show)
        for i, image in enumerate(images):
            viewer.add_image(image, name=f"cells {i}", **arguments)
        _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", "Train")
        widget.form.layers.value = list(viewer.layers)
        return viewer, widget

    return open_with


def nuclei(seed: int) -> np.ndarray:
    """A fluorescence image of 128x128 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    image = np.zeros((128, 128))
    for _ in range(15):
        (top, left), (height, width) = rng.uniform(0, 128, 2), rng.uniform(5, 11, 2)
        inside = ((y - top) / height) ** 2 + ((x - left) / width) ** 2 < 1
        image = np.maximum(image, inside * rng.uniform(0.3, 1))
    texture = gaussian_filter(rng.normal(0, 1, image.shape), 3)
    image = gaussian_filter(image * (1 + 0.15 * texture / texture.std()), 1.2)
    return np.rint(255 * image / image.max()).astype(np.uint8)


@pytest.fixture(scope="session")
def cells() -> list[np.ndarray]:
    return [nuclei(i) for i in range(4)]


@pytest.fixture
def fake(monkeypatch) -> Callable[..., None]:
    """A training without a network, in the real child process, that does what it is told."""

    def with_options(widget: TrainWidget, **options) -> None:
        load = widget.form.load_arguments
        monkeypatch.setattr(widget.form, "load_arguments", lambda: {**load(), **options})

    monkeypatch.setattr(remote_training, "COMMAND", fake_training.COMMAND)
    return with_options


@pytest.fixture
def started(opened, fake, qtbot) -> Callable[..., Opened]:
    """Start a training that does not end by itself, and wait for a first result."""

    def start(show: bool = False, **arguments) -> Opened:
        viewer, widget = opened(noise(128, 128), show=show, **arguments)
        fake(widget, steps=100_000, seconds=0.005)
        widget.controls.start_button.click()
        qtbot.waitUntil(lambda: widget.plot.best() is not None, timeout=60_000)
        return viewer, widget

    return start


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def choose(widget: TrainWidget, **values) -> None:
    for name, value in values.items():
        getattr(widget.form, name).value = value


def wait(qtbot, widget: TrainWidget, timeout: int = 120_000) -> None:
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=timeout)


def click(qtbot, widget: TrainWidget, button, timeout: int = 120_000) -> str:
    """Click a button and wait for the end; what the form says then."""
    assert button.isEnabled(), button.toolTip()
    button.click()
    wait(qtbot, widget, timeout)
    return widget.controls.status.text()


def train(qtbot, widget: TrainWidget) -> str:
    """Click Train and wait for the end."""
    assert widget.controls.start_button.isEnabled(), widget.controls.reason.text()
    return click(qtbot, widget, widget.controls.start_button)


def outcome(improved: bool = True) -> TrainedRefiner:
    """A refiner for the bundled backbone, as a training returns it."""
    card = RefinerCard(2, "output", sha256_of(bundled_path(2)), gain=1.25)
    values = (("bicubic", 30.5, 0.81), ("denoised", 31.5, 0.85), ("sharpened", 30.1, 0.8),
              ("baseline", 31.0, 0.86), ("delta", 32.25, 0.855))  # fmt: skip
    rows = tuple(ReportRow(*row) for row in values)
    report = Report(rows, "gray", 2, ("cells 3",), (1.25,))
    state = RefineNet(torch.Generator().manual_seed(0)).state_dict()
    arrays = {name: value.numpy() for name, value in state.items()}
    verdict = "+1.25 dB over the frozen backbone." if improved else "No reliable gain."
    return TrainedRefiner(arrays, card, report, improved, verdict, ("A note.",))


def refiner(name: str) -> Path:
    return data_folder() / "refiners" / f"{name}.safetensors"


def cell(widget: TrainWidget, row: int, column: int):
    return widget.result.table.item(row, column)


# training, and what comes of it


def test_train_save_and_upscale_give_the_gain_of_the_card(opened, cells, qtbot) -> None:
    viewer, widget = opened(*cells)
    choose(widget, kernel="area", blur=1.0, **QUICK)
    assert widget.form.name.value == "cells 0 x2"
    train(qtbot, widget)
    assert widget.pages.currentIndex() == 2
    outcome = widget.result.outcome
    assert outcome.improved
    assert widget.controls.status.text() == outcome.verdict == widget.result.verdict.text()
    assert "over the frozen backbone" in outcome.verdict
    rows = {row.name: i for i, row in enumerate(outcome.report.rows)}
    assert {"bicubic", "baseline", "delta"} <= set(rows)
    difference = [float(cell(widget, rows[n], 0).text()) for n in ("delta", "baseline")]
    assert difference[0] - difference[1] == pytest.approx(outcome.gain, abs=0.011)
    assert outcome.gain > 0.2
    click(qtbot, widget, widget.result.save_button)
    card = read_refiner_card(refiner("cells 0 x2"))
    assert card.gain == pytest.approx(outcome.gain, abs=1e-4)
    assert card.extra["degradation"]["blur"] == 1.0
    # the same with the Upscale widget, on the image that was held out
    (held_out,) = outcome.report.images
    reference = viewer.layers[held_out].data
    lr = degrade(reference, 2, "area", blur=1.0)
    viewer.add_image(lr, name="LR")
    widget.result.use_button.click()
    upscale = viewer.window.dock_widgets["Upscale (napari-cfsr)"]
    assert isinstance(upscale, UpscaleWidget)
    assert upscale.form.load_arguments()["refiner"] == "cells 0 x2"
    assert upscale.form.scale.value == 2
    upscale.form.layer.value = "LR"
    upscale.form.intensity.value = "dtype"
    upscale.controls.start_button.click()
    qtbot.waitUntil(lambda: not upscale.controls.running and not upscale._pending, timeout=60_000)
    found = [
        psnr(viewer.layers[f"LR x2 {name}"].data, reference / 255.0, 2, "gray")
        for name in ("delta", "baseline")
    ]
    assert found[0] - found[1] == pytest.approx(card.gain, abs=0.01)


def test_the_result_page_says_it_all_and_never_overwrites(opened, qtbot) -> None:
    _, widget = opened(noise(64, 64))
    trained, result = outcome(), widget.result
    widget._show_outcome(trained)
    assert widget.pages.currentIndex() == 2
    table = result.table
    assert [table.verticalHeaderItem(i).text() for i in range(table.rowCount())] == [
        row.name for row in trained.report.rows
    ]
    assert len(trained.report.rows) == 5
    for column, name in enumerate(("psnr", "ssim")):
        values = [getattr(row, name) for row in trained.report.rows]
        bold = [cell(widget, i, column).font().bold() for i in range(5)]
        assert bold == [v == max(values) for v in values]
    assert "1 held-out image (gray, 2 pixels" in result.heading.text()
    result.copy_button.click()
    copied = QApplication.clipboard().text()
    assert copied.startswith(trained.report.table())
    assert trained.verdict in copied
    assert not result.use_button.isEnabled()
    result.name.setText("a/b")
    assert "'/'" in result.reason.text()
    assert not result.save_button.isEnabled()
    result.name.setText("mine")
    click(qtbot, widget, result.save_button)
    assert widget.controls.status.text() == f"Saved {refiner('mine')}"
    assert result.use_button.isEnabled()
    assert not result.save_button.isEnabled()
    card, written = read_refiner_card(refiner("mine")), refiner("mine").stat().st_mtime_ns
    result.show_outcome(trained)
    assert "There is already a refiner 'mine'" in result.reason.text()
    assert not result.save_button.isEnabled()
    result.overwrite.setChecked(True)
    click(qtbot, widget, result.save_button)
    assert read_refiner_card(refiner("mine")) == card
    assert refiner("mine").stat().st_mtime_ns > written
    widget._show_outcome(outcome(improved=False))
    assert "No reliable gain" in widget.result.verdict.text()
    assert not widget.result.save_button.isEnabled()
    assert "does not beat the frozen backbone" in widget.result.reason.text()
    assert not widget.result.name.isEnabled()
    assert widget.controls.start_button.isEnabled()


def test_a_disk_that_can_not_be_written_loses_nothing(opened, fake, qtbot) -> None:
    _, widget = opened(noise(128, 128))
    fake(widget, steps=20)
    train(qtbot, widget)
    in_the_way = data_folder() / "refiners"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where the folder should be")
    assert "can't be written" in click(qtbot, widget, widget.result.save_button)
    in_the_way.unlink()
    assert click(qtbot, widget, widget.result.save_button).startswith("Saved ")
    assert refiner("cells 0 x2").is_file()


# pause, stop, cancel, and what goes wrong


def test_pause_takes_no_processor_time_and_resume_goes_on(started, qtbot) -> None:
    _, widget = started()
    assert widget.controls.stop_button.isVisibleTo(widget)
    child = psutil.Process(widget._training.pid)
    widget.controls.pause_button.click()
    assert widget.controls.pause_button.text() == "Resume"

    def at_rest() -> bool:
        step = widget.plot.curves["input"].steps[-1]
        qtbot.wait(300)
        return widget.plot.curves["input"].steps[-1] == step

    qtbot.waitUntil(at_rest)
    steps, used = list(widget.plot.curves["input"].steps), sum(child.cpu_times()[:2])
    qtbot.wait(1500)
    assert widget.plot.curves["input"].steps == steps
    assert sum(child.cpu_times()[:2]) - used <= 0.02
    assert widget.controls.status.text().startswith("Paused")
    widget.controls.pause_button.click()
    assert widget.controls.pause_button.text() == "Pause"
    qtbot.waitUntil(lambda: len(widget.plot.curves["input"].steps) > len(steps))
    widget.controls.pause_button.click()
    qtbot.wait(300)
    widget.controls.stop_button.click()  # also ends the pause
    assert not widget.controls.pause_button.isChecked()
    assert widget.controls.pause_button.text() == "Pause"
    wait(qtbot, widget)
    assert widget.controls.status.text() == "Worth it."


@pytest.mark.alone
def test_cancel_is_prompt_and_keeps_the_best_at_hand(started, qtbot) -> None:
    _, widget = started()
    began = time.perf_counter()
    click(qtbot, widget, widget.controls.cancel_button, 5_000)
    assert time.perf_counter() - began < 2
    assert widget.controls.status.text().startswith("Cancelled. The best refiner so far")
    assert "was not measured on held-out images" in widget.result.heading.text()
    assert widget.result.save_button.isEnabled()
    assert not widget.result.table.isVisibleTo(widget.result)
    widget.controls.start_button.click()
    qtbot.wait(100)
    click(qtbot, widget, widget.controls.cancel_button, 5_000)
    assert widget.controls.status.text() == "Cancelled; nothing was trained."
    assert widget.result.save_button.isEnabled()  # the earlier one is not lost


def test_cancelling_a_small_task_leaves_the_result_alone(opened, fake, qtbot, monkeypatch) -> None:
    _, widget = opened(noise(128, 128))
    fake(widget, steps=20)
    train(qtbot, widget)
    outcome, go_on, ended = widget.result.outcome, threading.Event(), threading.Event()

    def simulate(*_: object, **__: object) -> None:
        go_on.wait(30)
        ended.set()

    monkeypatch.setattr("napari_cfsr.widgets.training.assist.simulate", simulate)
    widget.form.preview_button.click()
    click(qtbot, widget, widget.controls.cancel_button)
    assert not ended.is_set()  # the window does not wait for it
    assert widget.controls.status.text() == "Cancelled."
    go_on.set()
    qtbot.waitUntil(ended.is_set)
    assert widget.result.outcome is outcome


def test_a_killed_child_is_reported_and_its_best_can_be_saved(started, qtbot) -> None:
    _, widget = started()
    psutil.Process(widget._training.pid).kill()
    wait(qtbot, widget, 10_000)
    assert "the process that trains the refiner ended" in widget.controls.status.text()
    assert "was killed" in widget.controls.status.text()
    best = widget.result.outcome
    assert f"step {best.step}: {best.gain:+.2f} dB" in widget.result.heading.text()
    click(qtbot, widget, widget.result.save_button)
    card = read_refiner_card(refiner("cells 0 x2"))
    assert card.gain is None
    assert card.backbone_sha256 == fake_training.CARD.backbone_sha256
    assert widget.controls.start_button.isEnabled()


def test_bad_images_are_refused_with_the_reason(opened, fake, qtbot) -> None:
    _, widget = opened(noise(64, 64))
    fake(widget, fault_at=1, fault="image")
    train(qtbot, widget)
    assert widget.controls.status.text() == "expected an image with contrast, got black"
    assert widget.result.outcome is None
    assert widget.controls.start_button.isEnabled()


@pytest.mark.parametrize("how", ["viewer", "dock", "viewer in a pause"])
def test_closing_in_mid_training_leaves_nothing_behind(started, qtbot, how) -> None:
    viewer, widget = started(show=True)
    child = psutil.Process(widget._training.pid)
    assert leftovers()
    if how == "viewer in a pause":
        widget.controls.pause_button.click()
        qtbot.wait(300)
    close(viewer, widget, how)
    qtbot.waitUntil(lambda: not child.is_running() and not leftovers(), timeout=10_000)
    if how == "dock":
        viewer.theme = "light"
        viewer.add_image(noise(8, 8), name="after").name = "renamed"
        viewer.layers.clear()


def test_deleting_the_layers_in_mid_training_does_no_harm(started, qtbot) -> None:
    viewer, widget = started()
    qtbot.waitUntil(lambda: "preview delta" in viewer.layers, timeout=30_000)
    viewer.layers.clear()
    qtbot.wait(500)
    assert len(viewer.layers) == 0  # not even the previews come back
    click(qtbot, widget, widget.controls.stop_button, 5_000)
    assert widget.controls.status.text() == "Worth it."
    assert "Choose one or more" in widget.controls.reason.text()


@pytest.mark.alone
@pytest.mark.slow
def test_the_event_loop_never_waits(opened, cells, qtbot, stalls) -> None:
    viewer, widget = opened(*cells, show=True)
    choose(widget, photons=50, read_noise=0.01, **{**QUICK, "steps": 100})
    qtbot.wait(500)
    stalls.clear()
    train(qtbot, widget)
    # each of the three preview layers takes napari about a tenth of a second to add
    assert max(stalls) < 1
    assert len(viewer.layers) == 7
    worst = []
    # what the program does wrong it does every time; what other programs do to it, it does not
    while (not worst or worst[-1] >= 0.1) and len(worst) < 3:
        stalls.clear()
        drawn = widget.plot.drawn
        train(qtbot, widget)
        assert len(stalls) > 100
        assert widget.plot.drawn > drawn
        worst.append(max(stalls))
    assert min(worst) < 0.1, worst


# the plot and the previews


def test_the_plot_shows_losses_and_gains_in_either_theme(opened, fake, qtbot) -> None:
    viewer, widget = opened(noise(128, 128), show=True)
    fake(widget, steps=200, seconds=0.01)
    widget.controls.start_button.click()
    assert widget.pages.currentIndex() == 1
    qtbot.waitUntil(lambda: widget.plot.drawn > 0, timeout=30_000)
    wait(qtbot, widget)
    curve = widget.plot.curves["input"]
    assert curve.gain_steps == list(range(10, 201, 10))
    assert len(curve.steps) > 10
    assert widget.plot.best() == ("input", 200, 2.0)
    widget.pages.setCurrentIndex(1)
    pictures = []
    for theme in ("dark", "light"):
        viewer.theme = theme
        drawn = widget.plot.drawn
        qtbot.waitUntil(lambda before=drawn: widget.plot.drawn > before, timeout=5_000)
        pictures.append(widget.plot._label.pixmap().toImage().pixelColor(2, 2).lightness())
    assert pictures[0] < 60 < 200 < pictures[1]
    qtbot.waitUntil(lambda: not widget.plot._timer.isActive(), timeout=5_000)


def test_a_long_loss_curve_is_averaged_to_what_can_be_seen() -> None:
    from napari_cfsr.widgets.training.plot import MOST_POINTS, Curve

    curve = Curve(list(range(1000)), [float(i) for i in range(1000)])
    steps, losses = curve.thinned()
    assert len(steps) <= MOST_POINTS
    np.testing.assert_allclose(steps, losses)
    assert losses[0] == 1.5
    assert losses[-1] == pytest.approx(np.mean(range(996, 1000)))


def test_previews_are_added_once_updated_and_kept_as_the_user_wants(started, fake, qtbot) -> None:
    viewer, widget = started(scale=(0.5, 0.5), units=("um", "um"))
    qtbot.waitUntil(lambda: "preview delta" in viewer.layers, timeout=30_000)
    qtbot.waitUntil(lambda: widget._preview._begun, timeout=10_000)
    names = ["preview reference", "preview baseline", "preview delta"]
    assert [x.name for x in viewer.layers] == ["cells 0", *names]
    layers = [viewer.layers[n] for n in names]
    lefts = [x.extent.world[0, 1] for x in layers]
    rights = [x.extent.world[1, 1] for x in (viewer.layers[0], *layers)]
    assert all(left > right for left, right in zip(lefts, rights, strict=False))
    assert all(str(u) == "micrometer" for x in layers for u in x.units)
    assert viewer.layers.selection.active.name == "cells 0"
    first = layers[2].data.copy()
    viewer.layers.remove("preview baseline")
    qtbot.waitUntil(lambda: (layers[2].data != first).any(), timeout=10_000)
    assert "preview baseline" not in viewer.layers
    click(qtbot, widget, widget.controls.stop_button, 5_000)
    assert len(viewer.layers) == 3
    fake(widget, steps=20)
    train(qtbot, widget)
    qtbot.waitUntil(lambda: len(viewer.layers) == 4, timeout=5_000)  # the missing one is back
    widget.form.previews.value = False
    for name in names:
        viewer.layers.remove(name)
    train(qtbot, widget)
    qtbot.wait(500)
    assert [x.name for x in viewer.layers] == ["cells 0"]


# the form


def test_it_says_what_is_missing_before_anything_starts(
    opened, official, nothing_bundled, tmp_path
) -> None:
    viewer, widget = opened()
    assert "high-resolution image layers" in widget.controls.reason.text()
    assert not widget.form.preview_button.isEnabled()
    viewer.add_image(noise(64, 64), name="first")
    assert widget.form.layers.value == [viewer.layers[0]]
    assert widget.controls.start_button.isEnabled()
    assert widget.form.name.value == "first x2"
    viewer.layers[0].name = "renamed"
    assert widget.form.layers.value == [viewer.layers[0]]
    assert widget.form.name.value == "renamed x2"
    viewer.add_image(noise(64, 64), name="second")
    assert len(widget.form.layers.value) == 1
    for name, value, message in (
        ("source", SOURCES[1], "Choose a folder"),
        ("folder", tmp_path, ""),
        ("name", "", "Expected a name"),
        ("name", "auto", "has a meaning of its own"),
        ("name", "mine", ""),
        ("patch", 8, "Expected patch as a whole number of at least 16"),
        ("patch", 0, ""),
        ("rate", "fast", "Expected rate as a number, got 'fast'"),
        ("rate", "7", "Expected a rate in (0, 1]"),
        ("rate", "1e-4", ""),
        ("gain", 0.0, "Expected gain as a number from"),
        ("gain", 1.0, ""),
        ("backbone", "bundled", "has no bundled x2 backbone"),
        ("backbone", "auto", ""),
    ):
        getattr(widget.form, name).value = value
        assert message in widget.controls.reason.text()
        assert widget.controls.start_button.isEnabled() == (not message)


def test_the_fields_set_the_configuration(opened) -> None:
    _, widget = opened(noise(64, 64))
    config = widget.form.config()
    assert config == TrainConfig()  # what the command line and Python do, unless told otherwise
    choose(
        widget, kernel="area", blur=0.7, photons=80, read_noise=0.02, offset=0.1, gain=2,
        jpeg=70, seed=0, reduce=2, preset="benchmark", placement="input", loss="l1+fft",
        rate="2e-4", schedule="one-cycle", steps=7, batch=3, patch=20, every=2, patience=4,
        ema="0.5", warm_steps=0, held_out=0.3, intensity="percentile", memory=64,
    )  # fmt: skip
    config = widget.form.config()
    assert config.degradation.describe() == (
        "area, blur 0.7 px, 80 photons, read noise 0.02, gain 2, offset 0.1, JPEG 70"
    )
    recipe = config.recipe("input")
    assert (recipe.loss, recipe.rate, recipe.schedule) == ("l1+fft", 2e-4, "one-cycle")
    assert (recipe.steps, recipe.batch, recipe.patch, recipe.every) == (7, 3, 20, 2)
    assert (recipe.patience, recipe.ema, recipe.warm_steps) == (4, 0.5, 0)
    assert (config.seed, config.reduce, config.held_out) == (0, 2, 0.3)
    assert (config.intensity, config.memory, config.preset) == (
        "percentile",
        64 * 2**20,
        "benchmark",
    )


def test_fields_of_the_recipe_show_the_values_of_the_preset(opened) -> None:
    _, widget = opened(noise(64, 64))
    form = widget.form

    def shown() -> list[str]:
        combo = form.loss.native.currentText()
        return [combo, form.steps.native.text(), form.rate.native.placeholderText()]

    config = form.config()
    steps = {p: config.recipe(p).steps for p in ("input", "output")}
    assert shown()[1] == f"{PRESET} (input {steps['input']}, output {steps['output']})"
    form.placement.value = "output"
    assert shown()[1] == f"{PRESET} ({steps['output']})"
    assert form.placement.native.itemText(0) == "preset (auto)"
    form.preset.value = "benchmark"
    assert shown() == ["preset (l1)", "preset (2000)", "preset (1e-06)"]
    assert form.seed.native.text() == "preset (69)"
    assert form.photons.native.text() == form.jpeg.native.text() == "none"
    form.loss.value = "mse"
    form.preset.value = "adapt"
    assert form.loss.value == "mse"


def test_a_folder_can_be_trained_on(opened, fake, cells, qtbot, tmp_path) -> None:
    for i, image in enumerate(cells):
        PillowImage.fromarray(image).save(tmp_path / f"{i}.png")
    viewer, widget = opened()
    choose(widget, source=SOURCES[1], folder=tmp_path, blur=1.0, **QUICK)
    assert widget.form.name.value == f"{tmp_path.name} x2"
    click(qtbot, widget, widget.form.preview_button)
    assert viewer.layers["0.png simulated LR x2"].data.shape == (64, 64)
    fake(widget, steps=20)
    train(qtbot, widget)
    # what the training was sent
    assert widget.result.outcome.state["mean"] == pytest.approx(np.mean(cells) / 255, abs=1e-5)
    qtbot.waitUntil(lambda: len(viewer.layers) == 4)


def test_measured_pairs_are_checked_aligned_and_trained_on(opened, fake, cells, qtbot) -> None:
    hr = np.tile(np.concatenate(cells[:2]), (1, 2))[:, :200]
    lr = imresize(np.roll(hr, (4, -2), (0, 1)), 0.5)
    viewer, widget = opened(hr)
    viewer.add_image(lr[:, :-1], name="narrow")
    viewer.add_image(lr, name="LR")
    viewer.add_image(np.stack([lr] * 3, -1), name="colour")
    form = widget.form
    form.source.value = SOURCES[2]
    assert (form.lr_layer.value.name, form.hr_layer.value.name) == ("narrow", "cells 0")
    assert not form.photons.native.isVisibleTo(form.main)
    assert form.align.native.isVisibleTo(form.main)
    for name, message in (
        ("cells 0", "are the same"),
        (
            "narrow",
            "Expected an HR layer of 256x198 pixels, 2 times 'narrow' (128x99), got 256x200",
        ),
        ("colour", "'cells 0' is gray"),
        ("LR", ""),
    ):
        choose(widget, hr_layer=viewer.layers["cells 0"], lr_layer=viewer.layers[name])
        assert message in widget.controls.reason.text()
        assert widget.controls.start_button.isEnabled() == (not message)
    click(qtbot, widget, form.shift_button)
    assert form.shift_text.text() == "dy +2.00, dx -1.00"
    assert "Move the HR image by dy +2.00, dx -1.00 LR pixels" in widget.controls.status.text()
    form.lr_layer.value = viewer.layers["narrow"]
    assert form.shift_text.text() == ""
    form.lr_layer.value = viewer.layers["LR"]
    choose(widget, align=True)
    fake(widget, steps=20)
    train(qtbot, widget)
    assert widget.result.notes.text() == "1 measured LR image, to be aligned"


def test_settings_are_remembered(opened, fake, qtbot) -> None:
    _, widget = opened(noise(128, 128))
    fake(widget, steps=20)
    kept = {"scale": 3, "photons": 33, "blur": 0.8, "steps": 55, "rate": "0.002", "seed": 0}
    choose(widget, loss="l1", previews=False, **kept)
    train(qtbot, widget)
    _, again = opened(noise(128, 128))
    form = again.form
    assert {n: getattr(form, n).value for n in kept} == kept
    assert (form.loss.value, form.previews.value, form.patch.value) == ("l1", False, 0)


# simulate and estimate


def test_the_simulated_layer_lies_exactly_over_its_source(opened, cells, qtbot) -> None:
    image = np.pad(cells[0], ((0, 2), (0, 1)))
    viewer, widget = opened(image, scale=(0.2, 0.2), translate=(5, 7), units=("um", "um"))
    choose(widget, scale=3, reduce=2)
    click(qtbot, widget, widget.form.preview_button)
    layer = viewer.layers["cells 0 simulated LR x3"]
    assert layer.data.shape == (21, 21)
    assert layer.data.dtype == np.uint8
    np.testing.assert_allclose(layer.scale, 1.2)
    np.testing.assert_allclose(layer.translate, [5 + 0.2 * 2.5, 7 + 0.2 * 2.5])
    assert widget.controls.status.text() == "Simulated 21x21 pixels: bicubic."
    assert widget.form.layers.value == [viewer.layers[0]]
    # once more, with noise: the same layer
    choose(widget, photons=20, reduce=1, scale=2)
    layer.name = "cells 0 simulated LR x2"
    click(qtbot, widget, widget.form.preview_button)
    assert len(viewer.layers) == 2
    assert layer.data.shape == (65, 64)
    np.testing.assert_allclose(layer.scale, 0.4)
    clean = degrade(image[:130, :128], 2)
    assert np.std(layer.data / 255 - clean) > 0.05
    assert layer.metadata["napari_cfsr"]["degradation"] == "bicubic, 20 photons"
    # beside a real image it has the pixels of that
    viewer.add_image(cells[1][:50, :80], name="real", scale=(3, 3), translate=(10, 20))
    widget.form.real.value = viewer.layers["real"]
    click(qtbot, widget, widget.form.preview_button)
    np.testing.assert_allclose(layer.scale, 3)
    np.testing.assert_allclose(layer.translate, [10, 20 + 3 * 80 * 1.05])


def test_the_slice_in_view_is_simulated(opened, qtbot) -> None:
    stack = np.random.default_rng(0).integers(0, 4095, (3, 2, 40, 50)).astype(np.uint16)
    viewer, widget = opened(stack, axis_labels=("t", "c", "y", "x"))
    viewer.dims.set_point((0, 1), (2, 1))
    click(qtbot, widget, widget.form.preview_button)
    layer = viewer.layers["cells 0 simulated LR x2"]
    assert layer.data.shape == (1, 1, 20, 25)
    np.testing.assert_allclose(layer.translate, [2, 1, 0.5, 0.5])
    low, high = int(stack[:, 1].min()), int(stack[:, 1].max())
    unit = (stack[2, 1].astype(np.float32) - low) / (high - low)
    expected = degrade(np.clip(unit, 0, 1), 2) * (high - low) + low
    np.testing.assert_allclose(layer.data[0, 0], expected, atol=1)


def test_noise_is_estimated_in_the_units_of_the_whole_stack(opened, cells, qtbot) -> None:
    """A dim slice by itself would seem to have ten times the photons' noise."""
    viewer, widget = opened(*cells)
    assert not widget.form.estimate_button.isEnabled()
    rng = np.random.default_rng(0)
    clean = imresize(np.tile(np.concatenate(cells), (1, 2)) / 255, 0.5).clip(0, 1)
    slices = [rng.poisson(200 * part * clean) * 50.0 for part in (1.0, 0.5)]
    viewer.add_image(np.stack(slices).astype(np.uint16), name="real")
    choose(widget, gain=2, jpeg=50)
    widget.form.real.value = viewer.layers["real"]
    viewer.dims.set_current_step(0, 1)
    status = click(qtbot, widget, widget.form.estimate_button)
    assert status.startswith("Estimated: bicubic, ")
    assert "edit it" in status
    assert widget.form.read_noise.value < 0.03
    assert widget.form.blur.value < 0.5
    full = 200 * np.max(slices[0]) / (50.0 * 200)  # photons at the brightest of the stack
    assert widget.form.photons.value == pytest.approx(full, rel=0.35)
    assert (widget.form.gain.value, widget.form.jpeg.value) == (1, 0)
    viewer.add_image(np.zeros((64, 64), np.uint8), name="black")
    widget.form.real.value = viewer.layers["black"]
    assert "with contrast" in click(qtbot, widget, widget.form.estimate_button)
    assert widget.controls.start_button.isEnabled()


def test_blur_can_be_given_in_the_units_of_the_layer(opened) -> None:
    viewer, widget = opened(noise(64, 64), scale=(0.1, 0.1), units=("um", "um"))
    form = widget.form
    choose(widget, blur=1.5)
    assert form.blur_unit.choices == ("LR px", "micrometer", "micrometer FWHM")
    form.blur_unit.value = "micrometer"
    assert form.blur.value == pytest.approx(0.3)
    form.blur_unit.value = "micrometer FWHM"
    assert form.blur.value == pytest.approx(0.706, abs=1e-3)
    assert form.config().blur == pytest.approx(1.5, abs=1e-3)
    form.scale.value = 4  # a length stays a length
    assert form.blur.value == pytest.approx(0.706, abs=1e-3)
    assert form.config().blur == pytest.approx(0.75, abs=1e-3)
    assert form.blur_unit.native.isVisibleTo(form.main)
    viewer.layers.clear()
    assert not form.blur_unit.native.isVisibleTo(form.main)
    assert form.blur_unit.value == "LR px"
    assert form.config().blur == pytest.approx(0.75, abs=1e-3)


# with the other widgets, and the program


def test_upscale_offers_a_new_refiner_for_its_backbone_and_scale_only(opened, qtbot) -> None:
    viewer, widget = opened(noise(64, 64))
    _, upscale = viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
    widget._show_outcome(outcome())
    widget.result.name.setText("cells 0 x2")
    upscale.form.scale.value = 2
    assert "cells 0 x2" not in upscale.form.refiner.choices
    click(qtbot, widget, widget.result.save_button)
    assert "cells 0 x2" in upscale.form.refiner.choices
    upscale.form.scale.value = 3
    assert "cells 0 x2" not in upscale.form.refiner.choices
    upscale.form.scale.value = 2
    refiner("cells 0 x2").rename(refiner("by another program"))
    assert "by another program" not in upscale.form.refiner.choices
    qtbot.mousePress(upscale.form.refiner.native, Qt.MouseButton.LeftButton, pos=QPoint(5, 5))
    assert "by another program" in upscale.form.refiner.choices
    upscale.form.refiner.native.hidePopup()


def test_without_weights_it_says_so_and_offers_to_fetch_them(opened, nothing_bundled) -> None:
    _, widget = opened(noise(64, 64))
    assert "not on this machine yet" in widget.controls.reason.text()
    assert widget.fetch_button.isVisibleTo(widget)


def test_importing_the_widget_loads_neither_torch_nor_matplotlib() -> None:
    heavy = "{'torch', 'matplotlib'}"
    code = (
        f"import sys, napari_cfsr.widgets.training.widget as _; print({heavy} & {{*sys.modules}})"
    )
    assert run_python(code).strip() == "set()"


# noisy images alone


def test_noisy_layers_are_enough(opened, qtbot, cells) -> None:
    """From the layers to a saved refiner that Upscale offers at every scale."""
    rng = np.random.default_rng(0)
    dim = [rng.poisson(c / 255 * 40 + 2) * 10 + rng.normal(0, 5, c.shape) for c in cells[:2]]
    viewer, widget = opened(*(np.rint(d.clip(0)).astype(np.uint16) for d in dim))
    form = widget.form
    choose(widget, source=NOISY[0], size="small", steps=30)
    natives = {name: getattr(form, name).native for name in TOOLTIPS}
    shown = {name for name, x in natives.items() if x.isVisibleTo(x.parentWidget())}
    assert not shown & {"photons", "held_out", "preset", "dark_level", "lr_layer"}
    assert shown > {"layers", "conversion", "size", "init", "steps"}
    choose(widget, conversion=0.1, dark_level=0, camera_noise=0.5)
    assert form.dark_level.native.isVisibleTo(form.main)
    assert vars(form.config().noise) == {"gain": 10, "read_noise": 5, "offset": 0}
    choose(widget, conversion=0)
    said = train(qtbot, widget)
    assert "estimated from photons kept back in 2 noisy images" in said
    assert widget.result.heading.text().startswith("Estimated from photons kept back")
    assert widget.result.table.isColumnHidden(1)
    assert "preview input" in viewer.layers
    widget.result.name.setText("dim cells")
    assert "Saved" in click(qtbot, widget, widget.result.save_button)
    _, upscale = viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
    for scale in (2, 4):
        upscale.form.scale.value = scale
        assert "dim cells" in upscale.form.refiner.choices
