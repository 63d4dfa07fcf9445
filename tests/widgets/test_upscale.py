"""The Upscale widget in a real viewer, used as a person would."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.server
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from napari.layers import Image
from PIL import Image as PillowImage
from qtpy.QtWidgets import QApplication

from napari_cfsr import load_model, psnr, upscale
from napari_cfsr.cli import main
from napari_cfsr.core.engine.registry import choose_engine
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner
from napari_cfsr.core.weights.weight_files import URL_VARIABLE, bundled_path, data_folder, sha256_of
from napari_cfsr.widgets.parts.form import FROM_FILE
from napari_cfsr.widgets.parts.region_choice import SLICES
from napari_cfsr.widgets.quality.widget import QualityWidget
from napari_cfsr.widgets.training.widget import TrainWidget
from napari_cfsr.widgets.upscaling.form import REGIONS
from napari_cfsr.widgets.upscaling.widget import UpscaleWidget
from tests.helpers.closing import close, leftovers

Opened = tuple["object", UpscaleWidget]


@pytest.fixture
def opened(make_napari_viewer) -> Callable[..., Opened]:
    """Open a viewer with images, and the widget from the plugin's menu entry."""

    def open_with(*images: np.ndarray, show=False, refiner="", **arguments) -> Opened:
        viewer = make_napari_viewer(show=show)
        for image in images:
            viewer.add_image(image, **arguments)
        _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
        widget.form.refiner.value = refiner or widget.form.refiner.value
        return viewer, widget

    return open_with


def press(qtbot, widget: UpscaleWidget, timeout: int = 60_000) -> None:
    """Click Upscale and wait until the layers are there."""
    assert widget.controls.start_button.isEnabled(), widget.controls.reason.text()
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running and not widget._pending, timeout=timeout)


def start(qtbot, widget: UpscaleWidget, tile: int = 64) -> None:
    """Click Upscale and wait until it says how long it will take, which it does after a tile."""
    widget.form.tile.value, widget.form.halo.value = tile, 16
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: "left" in widget.controls.progress.format(), timeout=60_000)


def fetch(qtbot, widget: UpscaleWidget) -> None:
    widget.fetch_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=20_000)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a server of the files in a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def photo(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def make_refiner(
    scale: int = 4, name: str = "mine", placement: str = "output", backbone: str = ""
) -> Path:
    """A refiner that does something, among the user's; of the bundled backbone by default."""
    folder = data_folder() / "refiners"
    folder.mkdir(parents=True, exist_ok=True)
    network = RefineNet(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.body[-1].weight.mul_(300)
    card = RefinerCard(scale, placement, backbone or sha256_of(bundled_path(scale)), "for tests")
    save_refiner(folder / f"{name}.safetensors", network.state_dict(), card)
    return folder / f"{name}.safetensors"


def test_upscale_adds_aligned_layers_and_says_what_ran(opened, qtbot) -> None:
    make_refiner()
    viewer, widget = opened(photo(), name="photo", scale=(2, 2), translate=(5, 7), refiner="mine")
    press(qtbot, widget)
    names = [layer.name for layer in viewer.layers]
    assert names == ["photo", "photo x4 baseline", "photo x4 delta", "photo x4 difference"]
    for layer in viewer.layers[1:]:
        np.testing.assert_allclose(layer.scale, 0.5)
        np.testing.assert_allclose(layer.translate, [5 - 2 * 3 / 8, 7 - 2 * 3 / 8])
        np.testing.assert_allclose(
            layer.extent.world, np.add(viewer.layers[0].extent.world, [[-0.75] * 2, [0.75] * 2])
        )
    status = widget.controls.status.text()
    assert status.startswith("x4 in ")
    assert (
        "bundled cfsr_x4.safetensors; refiner imported mine.safetensors; "
        f"{choose_engine('auto', 'cpu')} on cpu, float32" in status
    )
    low, high = viewer.layers[3].data.min(), viewer.layers[3].data.max()
    assert f"difference of luma {low:+.3g} to {high:+.3g} grey levels" in status
    assert low < 0 < high
    assert widget.form.layer.value == "photo"  # not one of the results


def test_gui_command_line_and_python_give_identical_arrays(
    opened, model_process, qtbot, tmp_path
) -> None:
    refiner = make_refiner()
    image = photo(40, 50)
    viewer, widget = opened(image, name="photo", refiner="mine")
    widget.form.tile.value = 32
    press(qtbot, widget)
    model = load_model(4, "bundled", refiner)
    result = upscale(image, model, axes="YXC", tile=32)
    PillowImage.fromarray(image).save(tmp_path / "photo.png")
    status = main(
        ["upscale", str(tmp_path / "photo.png"), "--refiner", str(refiner), "--tile", "32",
         "--baseline", "--delta"]
    )  # fmt: skip
    assert status == 0
    for name in ("baseline", "delta"):
        array = getattr(result, name)
        np.testing.assert_array_equal(viewer.layers[f"photo x4 {name}"].data, array)
        file = tmp_path / f"photo_x4_{name}.png"
        np.testing.assert_array_equal(np.asarray(PillowImage.open(file)), array)
    luma = result.difference @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_array_equal(viewer.layers["photo x4 difference"].data, luma)


def test_copied_python_makes_the_same_arrays(opened, qtbot) -> None:
    make_refiner(2, placement="input")
    stack = np.random.default_rng(0).integers(0, 4095, (2, 3, 30, 40)).astype(np.uint16)
    viewer, widget = opened(stack, name="stack", axis_labels=("t", "c", "y", "x"))
    for name, value in (
        ("scale", 2), ("refiner", "mine"), ("quality", "self-ensemble (8 times slower)"),
        ("intensity", "percentile"), ("halo", 16), ("slices", SLICES[1]),
    ):  # fmt: skip
        getattr(widget.form, name).value = value
    viewer.dims.set_point((0, 1), (1, 2))
    press(qtbot, widget)
    widget.copy_button.click()
    code = QApplication.clipboard().text()
    assert "viewer.layers['stack'].data[1:2, 2:3, :, :]" in code
    there = {"viewer": viewer}
    exec(code, there)
    for name, array in there["result"].arrays().items():
        np.testing.assert_array_equal(viewer.layers[f"stack x2 {name}"].data, array)
    assert viewer.layers["stack x2 delta"].metadata["napari_cfsr"]["python"] == code


def test_only_image_layers_are_offered_and_the_reason_is_shown_without_one(opened) -> None:
    viewer, widget = opened()
    viewer.add_labels(np.zeros((5, 5), int))
    viewer.add_points([[1, 1]])
    viewer.add_shapes()
    assert widget.form.layer.choices == ()
    assert not widget.controls.start_button.isEnabled()
    assert "no image layer" in widget.controls.reason.text()
    viewer.add_image(photo(), name="first")
    assert widget.form.layer.choices == ("first",)
    assert widget.controls.start_button.isEnabled()
    viewer.layers["first"].name = "renamed"
    assert widget.form.layer.choices == ("renamed",)
    viewer.add_image(photo(), name="second")
    assert widget.form.layer.value == "second"
    viewer.layers["second"].name = "still chosen"
    assert widget.form.layer.value == "still chosen"
    assert widget.form.layer.choices == ("renamed", "still chosen")
    viewer.layers.selection.active = viewer.layers["renamed"]
    assert widget.form.layer.value == "renamed"
    viewer.layers.clear()
    assert not widget.controls.start_button.isEnabled()


def test_without_weights_it_says_so_and_fetches_them_on_request(
    opened, official_folder, nothing_bundled, qtbot, monkeypatch
) -> None:
    _, widget = opened(photo(32, 32))
    assert not widget.controls.start_button.isEnabled()
    assert "not on this machine yet" in widget.controls.reason.text()
    assert not widget.fetch_button.isHidden()
    assert "no licence" in widget.fetch_button.toolTip()
    fetch(qtbot, widget)  # nobody serves them yet
    assert "could not be downloaded" in widget.controls.status.text()
    with served(official_folder) as address:
        monkeypatch.setenv(URL_VARIABLE, address)
        fetch(qtbot, widget)
    assert widget.controls.status.text().startswith("Downloaded ")
    assert widget.fetch_button.isHidden()
    press(qtbot, widget)


def test_without_official_weights_the_bundled_ones_are_used_and_named(
    opened, official_folder, qtbot, monkeypatch
) -> None:
    """The main job in the first minute, offline; one click and the official ones take over."""
    viewer, widget = opened(photo(32, 32), name="photo")
    press(qtbot, widget)
    status = widget.controls.status.text()
    assert "bundled cfsr_x4.safetensors" in status
    assert "the official weights are not on this machine" in status
    record = viewer.layers["photo x4 baseline"].metadata["napari_cfsr"]
    assert record["backbone"] == "bundled cfsr_x4.safetensors"
    assert record["backbone_sha256"] == sha256_of(bundled_path(4))
    assert "1.3 MB, from GitHub" in widget.fetch_button.text()
    assert not widget.fetch_button.isHidden()
    with served(official_folder) as address:
        monkeypatch.setenv(URL_VARIABLE, address)
        fetch(qtbot, widget)
    assert widget.fetch_button.isHidden()
    press(qtbot, widget)
    assert "official CFSR_x4.pth" in widget.controls.status.text()
    widget.form.backbone.value = "bundled"
    assert widget.fetch_button.isHidden()


def test_scale_without_bundled_weights_is_disabled_with_the_reason(
    opened, official, nothing_bundled
) -> None:
    _, widget = opened(photo(32, 32))
    widget.form.backbone.value = "bundled"
    assert not widget.controls.start_button.isEnabled()
    assert "has no bundled x4 backbone" in widget.controls.start_button.toolTip()
    widget.form.backbone.value = "auto"
    assert widget.controls.start_button.isEnabled()
    widget.form.baseline.value = False
    widget.form.refiner.value = "none"
    assert "Choose at least one output" in widget.controls.start_button.toolTip()


def test_ready_refiners_are_offered_by_what_they_are_for(opened, official, qtbot) -> None:
    viewer, widget = opened(photo(32, 32), name="photo")
    widget.form.scale.value = 2
    titles = dict(widget.form._refiners(None))
    name = titles["Fluorescence at low light, 25 to 100 photons where it is brightest"]
    assert name == "fluorescence_low_light_official_x2"
    widget.form.refiner.value = name
    assert widget.form.refiner.native.currentText().startswith("Fluorescence at low light")
    press(qtbot, widget)
    record = viewer.layers["photo x2 delta"].metadata["napari_cfsr"]
    assert record["refiner"] == "bundled fluorescence_low_light_official_x2.safetensors"
    widget.form.backbone.value = "bundled"  # the same for another backbone
    assert name not in widget.form.refiner.choices
    widget.form.scale.value = 4
    assert "fluorescence_low_light_bundled_x4" in widget.form.refiner.choices


def test_what_needs_a_refiner_and_what_needs_x4(opened, qtbot) -> None:
    make_refiner(3, "three")
    viewer, widget = opened(photo(31, 31), name="photo", refiner="none")
    assert not widget.form.delta.enabled
    assert not widget.form.difference.enabled
    assert len(widget.form.quality.choices) == 4
    widget.form.quality.value = "back-projection (bicubic-reduced input)"
    widget.form.scale.value = 3
    assert widget.form.quality.choices == ("standard", "self-ensemble (8 times slower)")
    assert widget.form.quality.value == "standard"
    assert any("three: for tests" in str(c) for c in widget.form._refiners(None))
    widget.form.refiner.value = "three"
    assert widget.form.delta.enabled
    widget.form.scale.value = 4  # the refiner belongs to another backbone
    assert widget.form.refiner.value != "three"
    widget.form.refiner.value = "none"
    press(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == ["photo", "photo x4 baseline"]


def test_region_of_a_shape_and_of_the_view(opened, qtbot) -> None:
    viewer, widget = opened(photo(100, 100), name="photo", show=True, refiner="none")
    viewer.add_shapes([np.array([[10, 20], [10, 39], [29, 39], [29, 20]])], name="roi")
    widget.form.region.value = REGIONS[2]
    assert widget.form.box_layer.choices == ("roi",)
    press(qtbot, widget)
    out = viewer.layers["photo x4 baseline"]
    assert out.data.shape == (80, 80, 3)
    np.testing.assert_allclose(out.translate, [10 - 0.375, 20 - 0.375])
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0.0, 30.0, 40.0), 20.0
    widget.form.layer.value = "photo"
    widget.form.region.value = REGIONS[1]
    qtbot.waitUntil(lambda: viewer.layers["photo"].corner_pixels[0, 0] > 0)
    corners = viewer.layers["photo"].corner_pixels
    press(qtbot, widget)
    out = viewer.layers["photo x4 baseline [1]"]
    assert out.data.shape[:2] == tuple((corners[1] + 1 - corners[0]) * 4)
    np.testing.assert_allclose(out.translate, corners[0] - 0.375)
    viewer.layers["roi"].data = []
    widget.form.region.value = REGIONS[2]
    widget.controls.start_button.click()
    assert "draw one first" in widget.controls.status.text()
    assert not widget.controls.running


def test_current_view_of_a_pyramid_is_that_of_a_plain_layer(opened, qtbot) -> None:
    viewer, widget = opened(show=True)
    levels = [np.zeros((4096 >> i, 4096 >> i), np.uint8) for i in range(4)]
    viewer.add_image(levels, name="pyramid", multiscale=True, scale=(2, 2))
    viewer.add_image(levels[0], name="plain", scale=(2, 2))
    widget.form.region.value = REGIONS[1]
    for center, zoom in (((4000.0, 4100.0), 0.09), ((1000.0, 1500.0), 0.7)):
        viewer.scene.camera.center, viewer.scene.camera.zoom = (0.0, *center), zoom
        qtbot.wait(200)
        parts = []
        for name in ("pyramid", "plain"):
            widget.form.layer.value = name
            parts.append(np.array(widget._read()[0].part))
        assert np.abs(parts[0] - parts[1]).max() <= 1
        assert parts[0].min() > 0


def test_a_wrong_backbone_file_is_reported_and_the_form_works_again(
    opened, qtbot, tmp_path
) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    viewer, widget = opened(photo(32, 32), refiner="none")
    widget.form.backbone.value = FROM_FILE
    assert "Choose a backbone file" in widget.controls.reason.text()
    widget.form.backbone_file.value = tmp_path / "broken.pth"
    press(qtbot, widget)
    assert "broken.pth" in widget.controls.status.text()
    assert "no complete PyTorch file" in widget.controls.status.text()
    assert len(viewer.layers) == 1
    widget.form.backbone.value = "bundled"
    press(qtbot, widget)
    assert len(viewer.layers) == 2


@pytest.mark.alone
def test_cancel_takes_effect_within_a_second(opened, model_process, qtbot) -> None:
    viewer, widget = opened(photo(1500, 1500), refiner="none")
    start(qtbot, widget, tile=448)
    assert not widget.controls.start_button.isEnabled()
    began = time.perf_counter()
    widget.controls.cancel_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=10_000)
    assert time.perf_counter() - began < 1
    assert widget.controls.status.text() == "Cancelled; nothing was added."
    assert len(viewer.layers) == 1
    assert widget.controls.start_button.isEnabled()


def test_a_killed_model_process_is_reported_and_the_form_works_again(
    opened, model_process, qtbot
) -> None:
    viewer, widget = opened(photo(1000, 1000))
    viewer.add_image(photo(32, 32), name="small")
    widget.form.refiner.value = "none"
    widget.form.layer.value = viewer.layers[0].name
    start(qtbot, widget)
    psutil.Process(widget._model.pid).kill()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=10_000)
    assert "the process that runs the network ended" in widget.controls.status.text()
    widget.form.layer.value = "small"
    press(qtbot, widget)
    assert len(viewer.layers) == 3


@pytest.mark.alone
@pytest.mark.slow
def test_the_event_loop_never_waits(opened, model_process, qtbot, stalls, tiny_backbones) -> None:
    """The results are large; how long the network takes to make them is another matter."""
    viewer, widget = opened(photo(1024, 1024), show=True)
    make_refiner(placement="input", backbone=sha256_of(tiny_backbones[4]))
    widget.form.backbone.value = FROM_FILE
    widget.form.backbone_file.value = tiny_backbones[4]
    widget.form.refiner.value = "mine"
    qtbot.wait(500)
    worst = []
    # what the program does wrong it does every time; what other programs do to it, it does not
    while (not worst or worst[-1] >= 0.1) and len(worst) < 3:
        stalls.clear()
        widget.controls.start_button.click()
        qtbot.waitUntil(lambda: not widget.controls.running, timeout=120_000)
        assert len(stalls) > 100
        worst.append(max(stalls))
        stalls.clear()
        qtbot.waitUntil(lambda: not widget._pending)
        qtbot.wait(500)
        # textures of 4096x4096 are drawn by the processor here
        assert max(stalls) < 1
        widget.form.layer.value = viewer.layers[0].name
    assert min(worst) < 0.1
    assert len(viewer.layers) == 1 + 3 * len(worst)


@pytest.mark.parametrize("closed", ["viewer", "dock"])
def test_closing_in_mid_run_leaves_nothing_behind(opened, model_process, qtbot, closed) -> None:
    viewer, widget = opened(photo(1500, 1500), refiner="none")
    start(qtbot, widget)
    process = psutil.Process(widget._model.pid)
    assert leftovers()
    close(viewer, widget, closed)
    qtbot.waitUntil(lambda: not process.is_running() and not leftovers(), timeout=5_000)
    if closed == "dock":  # the viewer goes on
        viewer.add_image(photo(), name="after").name = "renamed"
        viewer.layers.clear()


def test_results_are_released_with_their_layers(opened, qtbot) -> None:
    make_refiner()
    viewer, widget = opened(photo(), name="photo", refiner="mine")
    kept = []
    widget_result = widget._on_result
    widget._on_result = lambda outcome: (
        kept.append([weakref.ref(a) for a in outcome.result.arrays().values()])
        or widget_result(outcome)
    )
    press(qtbot, widget)
    assert len(kept[0]) == 3
    viewer.layers.clear()
    qtbot.wait(300)
    gc.collect()
    assert [ref() is None for ref in kept[0]] == [True] * 3


def test_contrast_limits_of_a_colour_layer_do_no_harm(opened, qtbot) -> None:
    viewer, widget = opened(photo(), name="photo", refiner="none")
    widget.form.intensity.value = "contrast limits"
    there = {"viewer": viewer}
    exec(widget.python(), there)  # it can be copied before the first run
    press(qtbot, widget)
    expected = upscale(viewer.layers["photo"].data, load_model(4, "bundled", None)).baseline
    np.testing.assert_array_equal(viewer.layers["photo x4 baseline"].data, expected)
    np.testing.assert_array_equal(there["result"].baseline, expected)


def test_settings_are_remembered(opened, qtbot) -> None:
    _, widget = opened(photo(32, 32))
    widget.form.scale.value, widget.form.refiner.value = 3, "none"
    widget.form.quality.value = "self-ensemble (8 times slower)"
    widget.form.tile.value = 128
    press(qtbot, widget)
    _, again = opened(photo(32, 32))
    form = again.form
    assert (form.scale.value, form.load_arguments()["refiner"], form.tile.value) == (3, None, 128)
    assert form.quality.value == "self-ensemble (8 times slower)"


@pytest.mark.alone
def test_opening_a_widget_is_quick_and_draws_no_plot(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(photo())
    for kind in (UpscaleWidget, TrainWidget, QualityWidget):
        kind(viewer)  # what it imports does not count
        began = time.perf_counter()
        widget = kind(viewer)
        assert time.perf_counter() - began < 0.5
        assert kind is not TrainWidget or widget.plot._drawer._thread is None


def test_the_demo_window_upscales_the_photo(make_napari_viewer, official, qtbot) -> None:
    from napari_cfsr.demo import build

    viewer = make_napari_viewer()
    widget = build(viewer, 4, "official")
    press(qtbot, widget)
    assert viewer.canvas.overlays.scale_bar.visible
    hr, baseline = viewer.layers["cat HR"], viewer.layers["cat LR x4 baseline"]
    np.testing.assert_allclose(baseline.extent.world, hr.extent.world)
    assert psnr(baseline.data / 255, hr.data / 255, 4, "Y") == pytest.approx(32.545, abs=0.002)


def test_the_menus_and_the_command_palette_open_the_widgets(make_napari_viewer) -> None:
    from napari._app_model import get_app_model

    viewer, app = make_napari_viewer(), get_app_model()

    def commands(menu: str) -> set[str]:
        return {item.command.id for item in app.menus.get_menu(menu) if hasattr(item, "command")}

    for name, menu, kind in (
        ("upscale", "filter", UpscaleWidget),
        ("train", "filter", TrainWidget),
        ("quality", "measure", QualityWidget),
    ):
        assert f"napari-cfsr.{name}" in commands(f"napari/layers/{menu}")
        assert f"napari-cfsr.{name}" in commands(app.menus.COMMAND_PALETTE_ID)
        opened, _ = app.commands.execute_command(f"napari-cfsr.{name}").result()
        assert isinstance(opened, kind)
        assert opened._viewer is viewer


def test_samples_open_with_the_reduced_image_exactly_over_the_original(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    edges = np.array([[-1, -1], [1, 1]])  # extents lie at the centres of the outermost pixels
    for key in ("photo", "histology", "cell"):
        hr, lr = viewer.open_sample("napari-cfsr", key)
        assert isinstance(hr, Image)
        borders = [x.extent.world + edges * x.scale[0] / 2 for x in (hr, lr)]
        np.testing.assert_allclose(hr.scale, 1)
        np.testing.assert_allclose(*borders)
    sharp, truth, camera = viewer.open_sample("napari-cfsr", "low_light")
    np.testing.assert_allclose(camera.extent.world + edges, truth.extent.world + edges / 2)
    assert sharp.extent.world[1][1] + 1 == truth.extent.world[0][1]  # side by side
    assert {layer.dtype for layer in (sharp, truth, camera)} == {np.dtype("uint16")}
    assert truth.data.max() == 4095
    assert not truth.visible
