"""The Refiners widget in a real viewer, used as a person would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner
from napari_cfsr.core.weights.refiner_library import SHAPES
from napari_cfsr.core.weights.weight_files import OFFICIAL_SHA256, data_folder
from napari_cfsr.widgets.refiners import COLUMNS, RefinersWidget

REPORT = {
    "rows": [
        {"name": "baseline", "psnr": 22.5, "ssim": 0.5},
        {"name": "delta", "psnr": 30.75, "ssim": 0.875},
    ],
    "images": ["a", "b"],
}

REST = ("this machine", "2026-01-02", "cells: 50 photons")


def make(path: Path, gain: float | None = 8.25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {
        "backbone": "official CFSR_x2.pth", "data": "cells", "date": "2026-01-02",
        "degradation": {"photons": 50}, "report": REPORT,
    }  # fmt: skip
    card = RefinerCard(2, "input", OFFICIAL_SHA256[2], "cells: 50 photons", gain, extra)
    state = {k: np.zeros(v, np.float32) for k, v in SHAPES.items()}
    return save_refiner(path, state, card)


def mine(name: str) -> Path:
    return data_folder() / "refiners" / f"{name}.safetensors"


@pytest.fixture
def opened(make_napari_viewer, official) -> Callable[..., RefinersWidget]:
    def open_with(*names: str) -> RefinersWidget:
        for name in names:
            make(mine(name))
        viewer = make_napari_viewer()
        _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", "Refiners")
        return widget

    return open_with


def shown(widget: RefinersWidget) -> list[list[str]]:
    table = widget.table
    return [[table.item(i, j).text() for j in range(len(COLUMNS))] for i in range(table.rowCount())]


def select(widget: RefinersWidget, name: str) -> None:
    names = [row[0] for row in shown(widget)]
    widget.table.selectRow(names.index(name))
    assert widget.selected == name


def click(qtbot, widget: RefinersWidget, action: str) -> str:
    """Click the button of an action and wait; what the widget says then."""
    getattr(widget, f"{action}_button").click()
    qtbot.waitUntil(lambda: not widget._busy, timeout=10_000)
    return widget.status.text()


def test_refiners_are_listed_with_their_cards(opened) -> None:
    widget = opened("mine")
    assert ["mine", "x2", "+8.25", "input", *REST] in shown(widget)
    select(widget, "mine")
    card = widget.card.toPlainText()
    assert "bicubic, 50 photons" in card
    assert "placement:   input (before the backbone)" in card
    assert "gain:        +8.2500 dB on held-out images" in card
    assert f"{'delta':18}{30.75:10.2f}{0.875:9.4f}" in card
    assert OFFICIAL_SHA256[2] in card
    assert widget.card.isReadOnly()
    select(widget, "clean_official_x4")  # bundled refiners can only be exported
    assert {row[4] for row in shown(widget)} == {"the program", "this machine"}
    assert not widget.name.isEnabled()
    assert enabled(widget) == {"export", "import"}


def enabled(widget: RefinersWidget) -> set[str]:
    actions = ("rename", "delete", "export", "import")
    return {x for x in actions if getattr(widget, f"{x}_button").isEnabled()}


def test_without_refiners_it_says_so(opened, nothing_bundled) -> None:
    widget = opened()
    assert shown(widget) == []
    assert "There are no refiners yet" in widget.card.toPlainText()
    assert enabled(widget) == {"import"}


def test_a_refiner_is_renamed(opened, qtbot) -> None:
    widget = opened("mine", "other")
    _, upscale = widget._viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
    upscale.form.scale.value = 2
    assert "mine" in upscale.form.refiner.choices
    select(widget, "mine")
    assert not widget.rename_button.isEnabled()
    for name, message in (("other", "there is a refiner 'other'"), ("a/b", "which contains '/'")):
        widget.name.setText(name)
        assert message in click(qtbot, widget, "rename")
        assert mine("mine").is_file()
    widget.name.setText("better")
    assert click(qtbot, widget, "rename") == "mine is now better."
    assert widget.selected == "better"
    assert mine("better").is_file()
    assert not mine("mine").exists()
    assert "better" in upscale.form.refiner.choices  # it follows
    assert "mine" not in upscale.form.refiner.choices


def test_deleting_asks_first(opened, qtbot, monkeypatch) -> None:
    widget = opened("mine", "other")
    select(widget, "mine")
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    asked = []
    monkeypatch.setattr(
        QMessageBox, "question", lambda *a: asked.append(a[2]) or answers[len(asked) - 1]
    )
    widget.delete_button.click()
    assert mine("mine").is_file()
    click(qtbot, widget, "delete")
    assert "'mine'" in asked[0]
    assert not mine("mine").exists()
    assert widget.status.text() == f"Deleted {mine('mine')}."
    assert "mine" not in [row[0] for row in shown(widget)]
    assert mine("other").is_file()


def test_export_and_import_give_the_same_file(opened, qtbot, monkeypatch, tmp_path) -> None:
    widget = opened("mine")
    select(widget, "mine")
    chosen = [str(tmp_path / "passed on")]
    for dialog in ("getSaveFileName", "getOpenFileName"):
        monkeypatch.setattr(QFileDialog, dialog, lambda *_: (chosen[0], ""))
    click(qtbot, widget, "export")
    exported = tmp_path / "passed on.safetensors"
    assert widget.status.text() == f"Exported to {exported}."
    assert exported.read_bytes() == mine("mine").read_bytes()
    assert "exists" in click(
        qtbot, widget, "export"
    )  # the dialog has not asked about the file with the suffix
    chosen[0] = str(exported)
    click(qtbot, widget, "import")
    assert widget.selected == "passed on"
    assert mine("passed on").read_bytes() == mine("mine").read_bytes()
    chosen[0] = ""
    widget.import_button.click()  # cancelled
    assert widget.status.text() == "Imported passed on."


def test_importing_over_another_refiner_asks_first(opened, qtbot, monkeypatch, tmp_path) -> None:
    widget = opened("mine")
    file = make(tmp_path / "mine.safetensors", gain=1.0)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(file), ""))
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    click(qtbot, widget, "import")
    assert mine("mine").read_bytes() != file.read_bytes()
    click(qtbot, widget, "import")
    assert mine("mine").read_bytes() == file.read_bytes()
    assert ["mine", "x2", "+1.00", "input", *REST] in shown(widget)


def test_a_damaged_file_is_shown_and_can_be_deleted(opened, qtbot, monkeypatch, tmp_path) -> None:
    mine("broken").parent.mkdir(parents=True)
    mine("broken").write_bytes(b"nothing of the kind")
    widget = opened()
    select(widget, "broken")
    assert shown(widget)[-1][-1] == "can't be read"
    assert "no complete safetensors file" in widget.card.toPlainText()
    assert not widget.export_button.isEnabled()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    click(qtbot, widget, "delete")
    assert not mine("broken").exists()
    # nor is one imported
    (tmp_path / "x.safetensors").write_bytes(b"no")
    file = str(tmp_path / "x.safetensors")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (file, ""))
    before = shown(widget)
    assert "no complete safetensors file" in click(qtbot, widget, "import")
    assert shown(widget) == before
