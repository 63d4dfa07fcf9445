"""The model in a process of its own: same numbers, and a clean end whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from textwrap import dedent

import numpy as np
import psutil
import pytest

from napari_cfsr import load_model, upscale
from napari_cfsr.core.process.remote_model import RemoteModel
from napari_cfsr.core.upscale import UpscaleOptions, iter_upscale
from napari_cfsr.errors import (
    CancelledError,
    ModelProcessError,
    OptionError,
    ScaleError,
    WeightsNotFoundError,
)

pytestmark = pytest.mark.usefixtures("compiled_networks")

LOAD = {"scale": 4, "backbone": "bundled", "refiner": None, "device": "cpu"}


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteModel]:
    """One for all tests: its process stays unless a test ends it."""
    model = RemoteModel()
    yield model
    pid = model.pid
    model.close()
    assert model.pid is None
    assert pid is None or not psutil.pid_exists(pid)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteModel]:
    """Its process ends when it has been idle for 0.3 s."""
    code = "import napari_cfsr.core.process.model_server as p; p.IDLE_SECONDS = 0.3; p.main()"
    monkeypatch.setattr("napari_cfsr.core.process.remote_model.COMMAND", ("-P", "-c", code))
    model = RemoteModel()
    yield model
    model.close()


def test_results_are_bit_identical_to_those_in_this_process(remote, tiny_backbones) -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    load = {**LOAD, "backbone": str(tiny_backbones[4])}
    info = remote.load(load)
    model = load_model(**load)
    assert info == model.info
    for options in ({}, {"tile": 32}, {"ensemble": True}, {"back_projection": True}):
        np.testing.assert_array_equal(
            upscale(image, remote, **options).baseline, upscale(image, model, **options).baseline
        )


def test_errors_of_loading_come_through_and_the_process_goes_on(remote) -> None:
    with pytest.raises(WeightsNotFoundError, match="none of them"):
        remote.load({**LOAD, "backbone": "nowhere.pth"})
    with pytest.raises(ScaleError, match="expected scale 2, 3 or 4, got 5"):
        remote.load({**LOAD, "scale": 5})
    pid = remote.pid
    with pytest.raises(OptionError, match="expected precision"):
        remote.load({**LOAD, "precision": "half"})
    remote.load(LOAD)
    assert remote.pid == pid
    with pytest.raises(ModelProcessError, match="expected a loaded model"):
        RemoteModel().info  # noqa: B018


def test_a_killed_process_is_named_and_the_next_load_starts_another(remote) -> None:
    remote.load(LOAD)
    pid = remote.pid
    threading.Timer(0.3, os.kill, (pid, signal.SIGTERM if os.name == "nt" else 9)).start()
    with pytest.raises(ModelProcessError, match="the process that runs the network ended"):
        upscale(np.zeros((2000, 2000), np.uint8), remote)
    remote.load(LOAD)
    assert remote.pid not in (None, pid)
    assert upscale(np.zeros((5, 5), np.uint8), remote).baseline.shape == (20, 20)


@pytest.mark.alone
@pytest.mark.parametrize("tile", [256, 1500])
def test_cancel_takes_effect_within_a_second_even_in_a_large_tile(remote, tile) -> None:
    remote.load(LOAD)
    pid, began = remote.pid, time.perf_counter()

    def check() -> None:
        if time.perf_counter() - began > 0.5:
            raise CancelledError("cancelled")

    steps = iter_upscale(np.zeros((1500, 1500), np.uint8), remote, UpscaleOptions(tile=tile), check)
    with pytest.raises(CancelledError):
        list(steps)
    assert time.perf_counter() - began < 1.5
    if tile == 256:
        assert remote.pid == pid  # it stopped and was not killed
    remote.load(LOAD)
    assert upscale(np.zeros((5, 5), np.uint8), remote).baseline.shape == (20, 20)


def test_close_from_another_thread_ends_a_run(remote) -> None:
    remote.load(LOAD)
    threading.Timer(0.3, remote.close).start()
    with pytest.raises(CancelledError):
        upscale(np.zeros((2000, 2000), np.uint8), remote)


def test_the_process_ends_with_the_one_that_started_it(home) -> None:
    code = (
        "import numpy as np, os, threading\n"
        "from napari_cfsr.core.process.remote_model import RemoteModel\n"
        "from napari_cfsr import upscale\n"
        f"m = RemoteModel(); m.load({LOAD!r}); print(m.pid, flush=True)\n"
        "threading.Timer(0.5, os._exit, (1,)).start()\n"
        "upscale(np.zeros((3000, 3000), np.uint8), m)\n"
    )
    process = psutil.Popen([sys.executable, "-c", code], stdout=-1, text=True)
    pid = int(process.stdout.readline())
    process.stdout.close()
    assert process.wait(20) == 1
    deadline = time.perf_counter() + 5
    while psutil.pid_exists(pid) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_prints_of_libraries_do_not_mix_with_answers(monkeypatch) -> None:
    code = """
    import napari_cfsr.core.process.model_server as p
    def load_model(**_):
        print("a library prints what it pleases", flush=True)
    p.load_model = load_model
    p.main()
    """
    monkeypatch.setattr("napari_cfsr.core.process.remote_model.COMMAND", ("-P", "-c", dedent(code)))
    model = RemoteModel()
    with pytest.raises(ModelProcessError, match="'NoneType' object has no attribute 'info'"):
        model.load({})
    model.close()


@pytest.mark.parametrize("enter", ["load", "loaded"])
def test_after_a_failed_load_the_idle_process_ends(impatient, enter) -> None:
    arguments = {**LOAD, "backbone": "nowhere.pth"}
    with pytest.raises(WeightsNotFoundError):
        impatient.load(arguments) if enter == "load" else impatient.loaded(arguments).__enter__()
    assert impatient._child.process.wait(10) == 0


def test_between_runs_the_idle_process_ends_cleanly(impatient) -> None:
    with impatient.loaded(LOAD):
        time.sleep(1)  # a slow image: the run is not over
        assert upscale(np.zeros((5, 5), np.uint8), impatient).baseline.shape == (20, 20)
        process = impatient._child.process
    assert process.wait(10) == 0
    with contextlib.suppress(CancelledError), impatient.loaded(LOAD):
        process = impatient._child.process
        raise CancelledError
    assert process.wait(10) == 0
