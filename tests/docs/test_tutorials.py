"""The tutorials, followed literally in a real window, with nothing but what ships.

The training of the first one is short here; with `-m docs` it is the one that the page describes.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QTimer
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QLabel,
    QMainWindow,
    QMenu,
    QMenuBar,
    QTabBar,
)

from napari_cfsr import psnr
from napari_cfsr.core.weights.refiner_library import refiner_cards
from napari_cfsr.widgets.training.form import TrainForm
from tests.helpers.documented import PAGES, ROOT

DOCS = ROOT / "docs"
PICTURES = DOCS / "images" / "tutorials"
Followed = tuple[Any, dict[str, set[str]]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the steps, without the pauses that pictures need."""
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("screenshot_tools", "tutorial_steps"):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "pause", lambda seconds: QApplication.processEvents())
    return module


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for seconds, whatever the form says."""
    config = TrainForm.config
    few = {"placement": "input", "warm_steps": 200, "steps": 1, "every": 1}
    monkeypatch.setattr(TrainForm, "config", lambda form: replace(config(form), **few))


@pytest.fixture
def follow(
    steps: ModuleType, make_napari_viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Followed]:
    """Do what a tutorial says; gives the viewer, and the window's texts at each picture."""

    def follow(name: str) -> Followed:
        monkeypatch.chdir(tmp_path)
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1366, 768)
        seen: dict[str, set[str]] = {"meanwhile": set()}
        timer = QTimer()  # texts of buttons change between two pictures
        timer.timeout.connect(lambda: seen["meanwhile"].update(texts()))
        timer.start(500)
        for picture in getattr(steps, name)(viewer):
            seen[picture] = texts()
        timer.stop()
        return viewer, seen

    return follow


def texts() -> set[str]:
    """All texts of the window, including closed menus and lists."""
    found: list[str] = []
    for window in QApplication.topLevelWidgets():
        if not (isinstance(window, QMainWindow) and window.isVisible()):
            continue
        for kind in (QLabel, QAbstractButton, QAction):
            found += [part.text() for part in window.findChildren(kind)]
        for combo in window.findChildren(QComboBox):
            found += [combo.itemText(i) for i in range(combo.count())]
        for tabs in window.findChildren(QTabBar):
            found += [tabs.tabText(i) for i in range(tabs.count())]
    return {text.replace("&", "").strip() for text in found}


def check_page(name: str, seen: dict[str, set[str]]) -> None:
    """Check that the page shows these pictures in this order, and quotes texts of the window."""
    page = (DOCS / "tutorials" / f"{name}.md").read_text("utf-8")
    shown = re.findall(r"\(\.\./images/tutorials/([\w-]+)\.png\)", page)
    everything = set().union(*seen.values())
    assert ["meanwhile", *shown] == list(seen)
    bold = {" ".join(words.split()) for words in re.findall(r"\*\*([^*]+)\*\*", page)}
    assert bold - everything == set()
    for picture in shown:
        with Image.open(PICTURES / f"{picture}.png") as image:
            assert image.size == (1366, 768)
        assert (PICTURES / f"{picture}.png").stat().st_size <= 300_000


def menu_paths(menu: QMenu | QMenuBar) -> Iterator[str]:
    """All paths through a menu, such as `Layers > Filter > Upscale ...`."""
    for action in menu.actions():
        text = action.text().replace("&", "")
        yield text
        if action.menu():
            action.menu().aboutToShow.emit()  # it is filled when it is opened
            yield from (f"{text} > {path}" for path in menu_paths(action.menu()))


def test_every_menu_path_on_a_page_exists(make_napari_viewer) -> None:
    make_napari_viewer()
    (window,) = (w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow))
    paths = list(menu_paths(window.menuBar()))
    named = {
        (page.name, " ".join(path.split()))
        for page in PAGES
        for path in re.findall(
            r"(?<!\*)\*((?:File|Layers|Plugins) > [^*]+)\*", page.read_text("utf-8")
        )
    }
    assert len(named) > 10
    missing = {pair for pair in named if not any(path.startswith(pair[1]) for path in paths)}
    assert missing == set()


@pytest.mark.timeout(600)
def test_microscopy(follow, short_training) -> None:
    noisy, ready, own = check_microscopy(*follow("microscopy"))
    assert noisy + 4 < ready
    assert noisy + 2 < own


@pytest.mark.docs
@pytest.mark.timeout(1200)
def test_microscopy_at_full_length(follow) -> None:
    viewer, seen = follow("microscopy")
    noisy, ready, own = check_microscopy(viewer, seen)
    assert "Worth using" in " ".join(seen["microscopy-6-result"])
    assert noisy + 4 < ready < own
    assert own > 25.4  # 25.8 on the page


def check_microscopy(viewer: Any, seen: dict[str, set[str]]) -> list[float]:
    """Check page, layers, and refiner; PSNR without refiner, with a ready one, with one's own."""
    check_page("microscopy", seen)
    layers = {layer.name: layer for layer in viewer.layers}
    assert list(layers)[-3:] == [
        "nuclei camera x2 baseline", "nuclei camera x2 delta", "nuclei camera x2 delta [1]",
    ]  # fmt: skip
    truth = layers["nuclei truth"]
    scores = []
    for name in list(layers)[-3:]:
        np.testing.assert_allclose(layers[name].extent.world, truth.extent.world)
        image = layers[name].data
        scores.append(psnr(image, truth.data, shave=2, channel="gray", data_range=4095))
    (mine,) = [card for path, kind, card in refiner_cards() if path.stem == "dim nuclei"]
    assert mine.placement == "input"
    assert "orth using" in " ".join(seen["microscopy-6-result"])  # or not worth
    return scores


@pytest.mark.timeout(600)
def test_photos(follow, tmp_path: Path) -> None:
    viewer, seen = follow("photos")
    check_page("photos", seen)
    assert sorted(path.name for path in (tmp_path / "larger").glob("*.jpg")) == [
        "astronaut_x4_delta.jpg", "coffee_x4_delta.jpg", "rocket_x4_delta.jpg",
    ]  # fmt: skip
    assert [layer.name for layer in viewer.layers] == ["astronaut_x4_delta"]
    assert viewer.layers[0].data.shape == (1024, 1024, 3)
    assert "Now: cat LR x4 delta" in seen["photos-2-compared"]
