"""napari's Preferences page of this plugin, and what comes of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import napari.settings
import numpy as np
import pytest
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QWidget

from napari_cfsr import load_model
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import TrainData, array_sources
from napari_cfsr.core.training.train import iter_train
from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.model_files import backbone_of_refiner, find_model
from napari_cfsr.core.weights.weight_files import (
    OFFICIAL_SHA256,
    WEIGHTS_VARIABLE,
    official_name,
    official_path,
)
from napari_cfsr.errors import WeightsNotFoundError
from napari_cfsr.widgets.parts import preferences
from napari_cfsr.widgets.parts.preferences import write_settings
from tests.widgets.test_upscale import make_refiner, photo, press

PAGE = "CFSR super-resolution"
FORMS = ("Upscale", "Batch", "Train")


@pytest.fixture
def page() -> Iterator[Any]:
    """What the page shows, at its defaults before and after."""
    settings = napari.settings.get_plugin_settings("napari-cfsr")
    settings.reset()
    yield settings
    settings.reset()


@pytest.fixture
def opened(make_napari_viewer, page) -> Callable[..., QWidget]:
    viewers: dict[str, Any] = {}

    def open_one(name: str) -> QWidget:
        if not viewers or name in viewers:  # a viewer has one widget of a kind
            viewers[name] = make_napari_viewer()
            viewers[name].add_image(photo(), name="photo")
        viewer = viewers[name] = viewers.get(name) or next(iter(viewers.values()))
        return viewer.window.add_plugin_dock_widget("napari-cfsr", name)[1]

    return open_one


@pytest.fixture
def dialog(page, qtbot) -> PreferencesDialog:
    """napari's own dialog, on our page."""
    with warnings.catch_warnings():  # of napari's own actions
        warnings.filterwarnings("ignore", "Could not resolve type hint")
        dialog = PreferencesDialog()
    qtbot.addWidget(dialog)
    titles = [dialog._list.item(i).text() for i in range(dialog._list.count())]
    dialog._list.setCurrentRow(titles.index(PAGE))
    return dialog


def test_the_page_has_a_control_for_each_preference(dialog) -> None:
    labels = [x.text() for x in dialog._stack.currentWidget().findChildren(QLabel) if x.text()]
    assert labels == ["Scale", "Backbone", "Device", "Precision", "Folder"]
    choices = [
        [combo.itemText(i) for i in range(combo.count())]
        for combo in dialog._stack.currentWidget().findChildren(QComboBox)
    ]
    assert choices == [
        ["as last used", "x2", "x3", "x4"],
        ["as last used", "auto", "official", "bundled"],
        ["as last used", "auto", "cpu", "cuda", "mps"],
        ["as last used", "float32", "fast"],
    ]
    shown = dialog._stack.currentWidget()
    fields = [*shown.findChildren(QComboBox), *shown.findChildren(QLineEdit)]
    assert len(fields) == 5
    assert all(x.toolTip().endswith(".") for x in fields)  # each says what it is for


def test_a_widget_starts_with_the_settings_of_the_page(dialog, opened, page, tmp_path) -> None:
    page.config_path = tmp_path / "napari-cfsr.yaml"
    dialog._settings.config_path = tmp_path / "settings.yaml"
    combos = dialog._stack.currentWidget().findChildren(QComboBox)
    for combo, text in zip(combos, ("x3", "bundled", "cpu", "fast"), strict=True):
        combo.setCurrentText(text)
    dialog._button_ok.click()
    form = opened("Upscale").form
    chosen = [x.value for x in (form.scale, form.backbone, form.device, form.precision)]
    assert chosen == [3, "bundled", "cpu", "fast"]
    assert "scale: x3" in page.config_path.read_text()  # for the next session
    page.config_path = dialog._settings.config_path = None


def test_choices_of_the_page_are_those_that_are_read(page) -> None:
    """Each choice of the page is a choice of the forms, once it is read."""
    fields = type(page.forms).model_fields
    assert set(fields) == {"scale", "backbone", "device", "precision"}
    for name, of_page in fields.items():
        words = of_page.json_schema_extra["enum"]
        assert words[0] == of_page.default == preferences.LAST_USED
        if name == "scale":
            assert [preferences.SCALES[word] for word in words[1:]] == list(weight_files.SCALES)


def test_without_preferences_a_form_starts_as_last_used(opened) -> None:
    write_settings("upscale", {"scale": 2, "backbone": "bundled", "precision": "fast"})
    form = opened("Upscale").form
    assert (form.scale.value, form.backbone.value, form.precision.value) == (2, "bundled", "fast")
    assert opened("Batch").form.scale.value == 4  # nothing is remembered there
    assert opened("Train").form.scale.value == 2


def test_settings_that_can_not_be_read_do_no_harm(opened) -> None:
    odd = {"scale": 9, "quality": 3, "tile": "x", "loss": 3, "steps": "x", "rate": 3, "jpeg": None}
    for name, scale in (("Upscale", 4), ("Batch", 4), ("Train", 2)):
        write_settings(name.lower(), {**odd, "previews": "no", "z": 1})
        form = opened(name).form
        assert form.scale.value == scale
        assert name != "Train" or form.config().steps is None


def test_a_preference_takes_precedence_over_the_last_use(opened, page) -> None:
    for name in FORMS:
        write_settings(name.lower(), {"scale": 2, "backbone": "official", "device": "cpu"})
        page.forms.scale, page.forms.backbone = "x3", "bundled"
        form = opened(name).form
        chosen = form.scale.value, form.backbone.value, form.device.value
        assert chosen == (3, "bundled", "cpu")  # the device is as it was last used
        page.forms.scale = "x2"
        assert form.scale.value == 3  # an open form does not change


def test_a_refiner_that_does_not_belong_to_the_preferred_scale_is_not_kept(opened, page) -> None:
    make_refiner(4, backbone=OFFICIAL_SHA256[4])
    write_settings("upscale", {"scale": 4, "backbone": "official", "refiner": "mine"})
    page.forms.scale = "x2"
    assert opened("Upscale").form.refiner.value == "auto"


def test_a_napari_without_such_a_page_is_fine(opened, monkeypatch) -> None:
    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    write_settings("upscale", {"scale": 3})
    assert opened("Upscale").form.scale.value == 3
    assert preferences.weights_folder() is None
    assert preferences.folder_fault() == ""
    assert preferences.folder_changed() is None


def test_a_plugin_that_napari_does_not_know_is_fine(monkeypatch) -> None:
    monkeypatch.setattr(napari.settings, "get_plugin_settings", {}.__getitem__)
    assert preferences.preferred("scale") == {}
    assert preferences.weights_folder() is None


def test_the_folder_is_where_official_weights_are_found(
    opened, page, official_folder, tmp_path
) -> None:
    widget = opened("Upscale")
    widget.form.backbone.value = "official"
    assert not widget.controls.start_button.isEnabled()
    assert "are not on this machine yet" in widget.controls.reason.text()
    assert not widget.fetch_button.isHidden()
    page.weights.folder = str(tmp_path)
    assert f", nor is CFSR_x4.pth in {tmp_path}." in widget.controls.reason.text()
    page.weights.folder = str(official_folder)  # while the widget is open
    assert widget.controls.start_button.isEnabled()
    assert widget.fetch_button.isHidden()


def test_the_model_process_finds_them(opened, model_process, page, qtbot, official_folder) -> None:
    widget = opened("Upscale")
    widget.form.refiner.value = "none"
    widget.form.backbone.value = "bundled"
    press(qtbot, widget)  # the process runs already
    page.weights.folder = str(official_folder)
    widget.form.backbone.value = "official"
    code = widget.python()
    press(qtbot, widget)
    layer = widget._viewer.layers[-1]
    record = layer.metadata["napari_cfsr"]
    assert record["backbone"] == "official CFSR_x4.pth"
    # the folder is napari's: elsewhere the call has to say where the weights are
    for call in (code, record["python"]):
        found: dict[str, Any] = {"viewer": SimpleNamespace(layers=widget._viewer.layers)}
        exec(call, found)
        np.testing.assert_array_equal(found["result"].baseline, layer.data)


def test_a_batch_finds_them(opened, page, qtbot, official_folder, tmp_path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(photo(20, 30)).save(tmp_path / "images" / "a.png")
    page.weights.folder, page.forms.backbone = str(official_folder), "official"
    widget = opened("Batch")
    widget.form.images.value = tmp_path / "images"
    qtbot.waitUntil(lambda: widget.controls.start_button.isEnabled(), timeout=10_000)
    widget.controls.start_button.click()
    qtbot.waitUntil(lambda: not widget.controls.running, timeout=60_000)
    assert widget.controls.status.text().startswith("1 upscaled in ")
    assert "official CFSR_x4.pth" in widget.table.item(0, 3).text()


def test_the_training_process_gets_the_folder(opened, page, official_folder) -> None:
    page.weights.folder, page.forms.backbone = str(official_folder), "official"
    widget = opened("Train")
    assert widget.form.load_arguments()["weights_folder"] == str(official_folder)


def test_a_training_finds_them(official_folder) -> None:
    hr = np.random.default_rng(0).random((6, 64, 64)).astype(np.float32)
    data = TrainData(tuple(array_sources(hr, "cells", "ZYX", "dtype", rgb=False)))
    load = {"scale": 2, "backbone": "official", "download": False, "device": "cpu"}
    config = TrainConfig(placement="output", steps=1, patch=16, batch=1, every=1)
    with pytest.raises(WeightsNotFoundError):
        list(iter_train(TrainRequest(data, load, config)))
    load["weights_folder"] = str(official_folder)
    assert list(iter_train(TrainRequest(data, load, config)))


def test_what_the_environment_names_comes_first(tmp_path, monkeypatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / official_name(2)).touch()
    (tmp_path / "b" / official_name(3)).touch()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "a"))
    assert official_path(2, tmp_path / "b") == tmp_path / "a" / official_name(2)
    assert official_path(3, tmp_path / "b") == tmp_path / "b" / official_name(3)
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    assert official_path(2, str(tmp_path / "b")) == tmp_path / "b" / official_name(2)
    assert official_path(2) is None


def test_the_array_api_takes_a_folder(official_folder) -> None:
    with pytest.raises(WeightsNotFoundError):
        find_model(2, "official", download=False)
    files = find_model(2, "official", None, download=False, weights_folder=official_folder)
    assert files.backbone.path == official_folder / "CFSR_x2.pth"
    model = load_model(2, refiner=None, download=False, weights_folder=official_folder)
    assert model.info.backbone == "official CFSR_x2.pth"  # auto finds them too
    make_refiner(2, backbone=OFFICIAL_SHA256[2])
    assert backbone_of_refiner(2, "mine") is None
    found = backbone_of_refiner(2, "mine", official_folder)
    assert found is not None
    assert found.kind == "official"


def test_a_folder_that_is_not_there_is_reported(opened, page, tmp_path) -> None:
    page.weights.folder = str(tmp_path / "nowhere")
    for name in FORMS:
        widget = opened(name)
        form = widget.form
        if name == "Batch":
            form.images.value = tmp_path
        for backbone in ("official", "auto"):
            form.backbone.value = backbone
            assert form.network_reason() == (
                f"There is no folder {tmp_path / 'nowhere'}, which is set in Preferences for the "
                "official weights: correct it there, or choose the backbone bundled."
            )
            assert not widget.controls.start_button.isEnabled()
        if name != "Batch":  # which looks into the folder first
            assert widget.controls.reason.text() == form.network_reason()
        form.backbone.value = "bundled"
        assert form.network_reason() == ""


def test_a_folder_that_is_not_there_does_no_harm_where_the_weights_are(
    opened, page, official
) -> None:
    page.weights.folder = "/nowhere"
    widget = opened("Upscale")
    widget.form.backbone.value = "official"
    assert widget.controls.start_button.isEnabled()
    assert "weights_folder" not in widget.form.load_arguments()


def test_an_incomplete_path_is_not_a_folder(opened, page) -> None:
    widget = opened("Upscale")
    for text in ("  ", "~nobody-of-that-name/x", "x" * 5000, "a\0b"):
        page.weights.folder = text
        assert preferences.weights_folder() is None
        assert bool(widget.form.network_reason()) == bool(text.strip())


def test_a_home_folder_may_be_short(page, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    page.weights.folder = "~"
    assert preferences.weights_folder() == tmp_path


def test_a_destroyed_widget_is_disconnected(opened, page, qtbot) -> None:
    widget = opened("Upscale")
    event = page.weights.events.folder
    heard = len(event.callbacks)
    widget._viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: len(event.callbacks) == heard - 1)
    page.weights.folder = "/nowhere"


def test_the_command_line_does_not_read_them(page, official_folder, capsys) -> None:
    from napari_cfsr.cli import main

    page.weights.folder = str(official_folder)
    assert main(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["path"] for r in rows if r["kind"] == "official"] == [None, None, None]
