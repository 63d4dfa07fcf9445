"""The tutorials, followed literally in a real window, with nothing but what ships."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
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
from tests.helpers.documented import PAGES, ROOT

DOCS = ROOT / "docs"
PICTURES = DOCS / "images" / "tutorials"
Followed = tuple[Any, dict[str, set[str]]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("tutorial_steps")


@pytest.fixture
def follow(
    steps: ModuleType, make_napari_viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Followed]:
    """Do what a tutorial says; the viewer, and the texts of the window at each picture."""

    def follow(name: str) -> Followed:
        monkeypatch.chdir(tmp_path)
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1366, 768)
        seen: dict[str, set[str]] = {"meanwhile": set()}
        timer = QTimer()  # buttons change their texts between two pictures
        timer.timeout.connect(lambda: seen["meanwhile"].update(texts()))
        timer.start(200)
        for picture in getattr(steps, name)(viewer):
            seen[picture] = texts()
        timer.stop()
        return viewer, seen

    return follow


def texts() -> set[str]:
    """All that a person could read in the window, closed menus and lists included."""
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
    """The page shows these pictures in this order, and names what was in the window."""
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


def ways(menu: QMenu | QMenuBar) -> Iterator[str]:
    """All ways through a menu, as `Layers > Filter > Upscale ...`."""
    for action in menu.actions():
        text = action.text().replace("&", "")
        yield text
        if action.menu():
            action.menu().aboutToShow.emit()  # it is filled when it is opened
            yield from (f"{text} > {way}" for way in ways(action.menu()))


def test_every_way_through_the_menus_that_a_page_names_is_there(make_napari_viewer) -> None:
    make_napari_viewer()
    (window,) = (w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow))
    there = list(ways(window.menuBar()))
    named = {
        (page.name, " ".join(way.split()))
        for page in PAGES
        for way in re.findall(
            r"(?<!\*)\*((?:File|Layers|Plugins) > [^*]+)\*", page.read_text("utf-8")
        )
    }
    assert len(named) > 10
    missing = {pair for pair in named if not any(way.startswith(pair[1]) for way in there)}
    assert missing == set()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_microscopy(follow) -> None:
    viewer, seen = follow("microscopy")
    check_page("microscopy", seen)
    layers = {layer.name: layer for layer in viewer.layers}
    assert list(layers)[-3:] == [
        "nuclei camera x2 baseline", "nuclei camera x2 delta", "nuclei camera x2 delta [1]",
    ]  # fmt: skip
    truth = layers["nuclei truth"]
    score = {}
    for name in list(layers)[-3:]:
        np.testing.assert_allclose(layers[name].extent.world, truth.extent.world)
        image = layers[name].data
        score[name] = psnr(image, truth.data, shave=2, channel="gray", data_range=4095)
    noisy, ready, own = score.values()
    assert noisy + 4 < ready < own
    assert own > 25.4  # 25.8 on the page
    (mine,) = [card for path, kind, card in refiner_cards() if path.stem == "dim nuclei"]
    assert mine.placement == "input"
    assert "Worth using" in " ".join(seen["microscopy-6-result"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_photos(follow, tmp_path: Path) -> None:
    viewer, seen = follow("photos")
    check_page("photos", seen)
    assert sorted(path.name for path in (tmp_path / "larger").glob("*.jpg")) == [
        "astronaut_x4_delta.jpg", "coffee_x4_delta.jpg", "rocket_x4_delta.jpg",
    ]  # fmt: skip
    assert [layer.name for layer in viewer.layers] == ["astronaut_x4_delta"]
    assert viewer.layers[0].data.shape == (1024, 1024, 3)
    assert "Now: cat LR x4 delta" in seen["photos-2-compared"]
