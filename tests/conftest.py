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
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
# before napari is imported: the preferences of whoever runs the tests are neither read nor changed
os.environ["NAPARI_CONFIG"] = ""

from napari_cfsr.core.weights import weight_files

if TYPE_CHECKING:  # .ci/run also runs some tests where torch is not installed
    from pytestqt.qtbot import QtBot

    from napari_cfsr.core.engine.model import SRModel

settings.register_profile("default", deadline=None)  # a busy machine is not an error
settings.load_profile("default")

TINY = {"embed_dim": 8, "depths": (1, 1), "kernel_size": 3}  # a CFSR of a hundredth of the work

SHARED = Path(os.environ.get("NAPARI_CFSR_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `docs` unless the expression of `-m` names them."""
    if "docs" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("docs")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("docs")]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what test modules import out of garbage collection, which each viewer asks for twice."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def _need(path: Path) -> Path:
    if path.is_dir():
        return path
    reason = f"needs {path.name} in the folder that NAPARI_CFSR_SHARED names"
    if os.environ.get("NAPARI_CFSR_REQUIRE_DATA"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache, data and settings of this test only; weights elsewhere are not found."""
    folder = tmp_path_factory.mktemp("of_the_test") / "home"
    monkeypatch.setenv(weight_files.HOME_VARIABLE, str(folder))
    monkeypatch.delenv(weight_files.WEIGHTS_VARIABLE, raising=False)
    # a download that a test does not serve itself fails at once
    monkeypatch.setenv(weight_files.URL_VARIABLE, "http://127.0.0.1:9/")
    return folder


@pytest.fixture(scope="session")
def engine_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what engines of this run's tests keep, shared by the workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engines"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def compiled_networks(home: Path, engine_files: Path) -> Iterator[None]:
    """Networks that earlier tests compiled: a process loads one in a quarter of the time then.

    Tests that open a viewer have them; others ask for them by `usefixtures`.
    """
    own = home / "cache" / "engines"  # of napari_cfsr.core.weights.engine_cache
    _link_files(engine_files, own)
    yield
    _link_files(own, engine_files)


def _link_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.bin"):
        with contextlib.suppress(FileExistsError):
            os.link(file, target / file.name)


@pytest.fixture(autouse=True)
def no_process_left(request: pytest.FixtureRequest, home: Path) -> Iterator[None]:
    """No process outlives the window that started it: the next test would not know whose it is."""
    if "make_napari_viewer" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("compiled_networks")
    yield
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
    """For tests that must not depend on which weights this version ships."""
    monkeypatch.setattr(weight_files, "BUNDLED", tmp_path_factory.getbasetemp() / "nothing")


@pytest.fixture(scope="session")
def official_folder() -> Path:
    """Folder with the official weights."""
    return _need(SHARED / "weights" / "official")


@pytest.fixture
def official(official_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and searched for weights."""
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(official_folder))
    return official_folder


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with benchmark, microscopy, training and validation images."""
    return _need(SHARED / "data")


@pytest.fixture(scope="session")
def models(official_folder: Path) -> dict[int, SRModel]:
    """Official backbones without refiner, by scale."""
    from napari_cfsr.core.engine import keep_freed_memory, load_model

    keep_freed_memory()
    return {
        scale: load_model(scale, official_folder / f"CFSR_x{scale}.pth", refiner=None, device="cpu")
        for scale in (2, 3, 4)
    }


@pytest.fixture(scope="session")
def bundled_models() -> dict[int, SRModel]:
    """The backbones that ship, without refiner, by scale."""
    from napari_cfsr.core.engine import keep_freed_memory, load_model

    keep_freed_memory()
    return {scale: load_model(scale, "bundled", refiner=None, device="cpu") for scale in (2, 3, 4)}


@pytest.fixture(scope="session")
def tiny_backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of untrained networks by scale: for tests that do not ask what is predicted.

    `load_model(2, tiny_backbones[2], refiner=None, device="cpu")` runs one in any engine.
    """
    import torch
    from safetensors.torch import save_file

    from napari_cfsr.core.network import CFSR, CFSRConfig

    folder, files = tmp_path_factory.mktemp("tiny"), {}
    for scale in (2, 3, 4):
        with torch.random.fork_rng():
            torch.manual_seed(scale)
            network = CFSR(CFSRConfig(scale=scale, layer_scale=0.1, **TINY))
        files[scale] = folder / f"tiny_x{scale}.safetensors"
        save_file(network.state_dict(), files[scale])
    return files


@pytest.fixture(scope="session")
def tiny_models(tiny_backbones: dict[int, Path]) -> dict[int, SRModel]:
    """The same networks, loaded without refiner, by scale."""
    from napari_cfsr.core.engine import load_model

    return {
        scale: load_model(scale, path, refiner=None, device="cpu")
        for scale, path in tiny_backbones.items()
    }


@pytest.fixture(scope="session")
def torch_model(official_folder: Path) -> SRModel:
    """The official x2 backbone without refiner, run by torch."""
    from napari_cfsr.core.engine import load_model

    path = official_folder / "CFSR_x2.pth"
    return load_model(2, path, refiner=None, device="cpu", engine="torch")


@pytest.fixture
def qtbot(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> QtBot:
    """Waits longer than five seconds: other tests may run beside this one."""
    monkeypatch.setattr(qtbot, "waitUntil", partial(qtbot.waitUntil, timeout=30_000))
    return qtbot


@pytest.fixture
def stalls() -> Iterator[list[float]]:
    """Seconds between turns of the event loop while the test runs."""
    from qtpy.QtCore import QTimer  # most tests need no Qt

    gaps, last = [], [time.perf_counter()]

    def tick() -> None:
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

    gc.collect()
    gc.freeze()  # collecting what a thousand tests left behind takes a tenth of a second
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(tick)
    timer.start()
    yield gaps
    timer.stop()
