"""Where real weights and images are, and a home of its own for every test."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as our programs do
# before napari is imported: the preferences of whoever runs the tests are neither read nor changed
os.environ["NAPARI_CONFIG"] = ""

from napari_cfsr.core.weights import weight_files

if TYPE_CHECKING:  # .ci/run runs tests that need no torch where it is not to be had
    from pytestqt.qtbot import QtBot

    from napari_cfsr.core.engine.model import SRModel

settings.register_profile("default", deadline=None)  # a busy machine is no fault
settings.load_profile("default")

SHARED = Path(os.environ.get("NAPARI_CFSR_SHARED", Path(__file__).parents[2] / "shared"))


def _need(path: Path) -> Path:
    if path.is_dir():
        return path
    reason = f"needs {path.name} in the folder that NAPARI_CFSR_SHARED names"
    if os.environ.get("NAPARI_CFSR_REQUIRE_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache, data and settings of this test only; no weights are found from outside."""
    folder = tmp_path_factory.mktemp("of_the_test") / "home"
    monkeypatch.setenv(weight_files.HOME_VARIABLE, str(folder))
    monkeypatch.delenv(weight_files.WEIGHTS_VARIABLE, raising=False)
    # a download that a test does not serve itself fails at once
    monkeypatch.setenv(weight_files.URL_VARIABLE, "http://127.0.0.1:9/")
    return folder


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, home: Path) -> Iterator[None]:
    """No process outlives the window that started it: the next test would not know whose it is."""
    yield
    if "make_napari_viewer" not in request.fixturenames:
        return
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    until, left = time.monotonic() + 5, _our_processes()
    while left and time.monotonic() < until:
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        QApplication.processEvents()
        time.sleep(0.02)
        left = _our_processes()
    for process in left:
        process.kill()
    assert not left


def _our_processes() -> list[psutil.Process]:
    """Running children that are modules of this package."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(word.startswith("napari_cfsr.") for word in child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def nothing_bundled(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For tests that do not depend on which weights of its own this version ships."""
    monkeypatch.setattr(weight_files, "BUNDLED", tmp_path_factory.getbasetemp() / "nothing")


@pytest.fixture(scope="session")
def official_folder() -> Path:
    """Folder with the official weights."""
    return _need(SHARED / "weights" / "official")


@pytest.fixture
def official(official_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and named so that it is looked in."""
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(official_folder))
    return official_folder


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with benchmark, microscopy, training and validation images."""
    return _need(SHARED / "data")


@pytest.fixture(scope="session")
def models(official_folder: Path) -> dict[int, SRModel]:
    """Official backbones without refiner, by scale."""
    from napari_cfsr.core.engine.model import load_model
    from napari_cfsr.core.engine.registry import keep_freed_memory

    keep_freed_memory()
    return {
        scale: load_model(scale, official_folder / f"CFSR_x{scale}.pth", refiner=None, device="cpu")
        for scale in (2, 3, 4)
    }


@pytest.fixture(scope="session")
def torch_model(official_folder: Path) -> SRModel:
    """The official x2 without refiner, run by torch."""
    from napari_cfsr.core.engine.model import load_model

    path = official_folder / "CFSR_x2.pth"
    return load_model(2, path, refiner=None, device="cpu", engine="torch")


@pytest.fixture
def qtbot(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> QtBot:
    """With more patience than five seconds: other tests may run beside this one."""
    monkeypatch.setattr(qtbot, "waitUntil", partial(qtbot.waitUntil, timeout=30_000))
    return qtbot


@pytest.fixture
def stalls() -> Iterator[list[float]]:
    """Seconds between turns of the event loop while the test runs."""
    from qtpy.QtCore import QTimer  # most tests do without Qt

    gaps, last = [], [time.perf_counter()]

    def tick() -> None:
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

    gc.collect()
    gc.freeze()  # what a thousand tests left behind takes a tenth of a second to look through
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(tick)
    timer.start()
    yield gaps
    timer.stop()
    gc.unfreeze()
