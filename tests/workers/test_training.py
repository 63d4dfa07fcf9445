"""The worker that trains for the window, and the images it reads from layers and files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
from napari.layers import Image
from napari.utils.task_status import Status
from PIL import Image as PillowImage

from napari_cfsr.core.process import remote_training
from napari_cfsr.core.process.remote_training import THREAD, RemoteTraining
from napari_cfsr.core.training import data as training_data
from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.errors import CancelledError, FileFormatError, ImageError, OptionError
from napari_cfsr.layers.image_input import read_layer
from napari_cfsr.layers.training_input import TrainInput, TrainJob
from napari_cfsr.layers.training_input import training_data as read
from napari_cfsr.workers.run import CancelToken, Failure, train_worker
from tests.helpers import fake_training


def layers(*arrays: Any, **arguments: Any) -> tuple[Any, ...]:
    names = ("first", "second", "third")
    return tuple(
        read_layer(Image(array, name=name, **arguments))
        for name, array in zip(names, arrays, strict=False)
    )


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def test_layers_become_images_by_plane_and_channel() -> None:
    stack, photo = noise(3, 2, 20, 30, dtype=np.uint16), noise(25, 35, 4)
    images = (
        *layers(stack, axis_labels=("t", "c", "y", "x")),
        read_layer(Image(photo, rgb=True, name="photo")),
    )
    data = read(TrainInput(images), TrainConfig())
    assert [s.name for s in data.hr[:2]] == ["first [T0, C0]", "first [T0, C1]"]
    assert len(data.hr) == 7
    assert {s.group for s in data.hr} == {"first", "photo"}
    assert data.lr is None
    assert data.origin == "first, photo"
    channel = stack[:, 1].astype(np.float32)
    expected = (channel[2] - channel.min()) / (channel.max() - channel.min())
    np.testing.assert_allclose(data.hr[5].read(), expected, atol=1e-6)
    np.testing.assert_array_equal(data.hr[6].read(), photo[..., :3] / np.float32(255))


@pytest.mark.parametrize("lazy", [False, True])
def test_only_the_chosen_region_is_read(lazy) -> None:
    stack = noise(4, 50, 60)
    layer = Image(da.from_array(stack, chunks=(1, 50, 60)) if lazy else stack)
    image = read_layer(layer, (slice(1, 3), slice(10, 40), slice(5, 55)))
    data = read(TrainInput((image,)), TrainConfig(intensity="dtype"))
    assert len(data.hr) == 2
    np.testing.assert_array_equal(data.hr[0].pixels, stack[1, 10:40, 5:55])
    assert isinstance(data.hr[0].pixels, np.ndarray)


def test_pairs_of_layers_keep_their_order() -> None:
    lr, hr = noise(2, 10, 12), noise(2, 20, 24)
    (a, b), (c, d) = layers(lr, lr[0]), layers(hr, hr[0])
    data = read(TrainInput(hr=(c, d), lr=(a, b)), TrainConfig())
    assert [s.pixels.shape for s in data.hr] == [(20, 24)] * 3
    assert [s.pixels.shape for s in data.lr] == [(10, 12)] * 3
    np.testing.assert_array_equal(data.lr[1].pixels, lr[1])


def test_pairs_that_do_not_match_are_refused() -> None:
    lr, hr = layers(noise(3, 10, 12)), layers(noise(2, 20, 24))
    with pytest.raises(ImageError, match="got 3 in LR 'first' and 2 in HR 'first'"):
        read(TrainInput(hr, lr), TrainConfig())
    with pytest.raises(ImageError, match="an LR layer for each HR layer, got 1 LR and 2 HR"):
        read(TrainInput(hr * 2, lr), TrainConfig())
    for mixed in (TrainInput(hr, Path("lr")), TrainInput(Path("hr"), lr)):
        with pytest.raises(OptionError, match="both from layers or both from files"):
            read(mixed, TrainConfig())


def test_folders_and_files_are_read_as_the_command_line_does(tmp_path) -> None:
    for name, size in (("hr", (40, 30)), ("lr", (20, 15))):
        (tmp_path / name).mkdir()
        PillowImage.fromarray(noise(*size)).save(tmp_path / name / "a.png")
    data = read(TrainInput(tmp_path / "hr"), TrainConfig())
    assert [s.read().shape for s in data.hr] == [(40, 30)]
    data = read(TrainInput(tmp_path / "hr", tmp_path / "lr"), TrainConfig())
    assert data.lr[0].read().shape == (20, 15)
    with pytest.raises(FileFormatError):
        read(TrainInput(tmp_path / "nowhere"), TrainConfig())


def test_what_is_left_out_of_a_long_stack_is_said(monkeypatch) -> None:
    monkeypatch.setattr(training_data, "MOST_PLANES", 5)
    images = layers(noise(20, 8, 8), noise(4, 8, 8))
    data = read(TrainInput(images), TrainConfig())
    assert data.notes == ("first: 5 of its 20 planes are used, evenly spaced",)


def test_reading_can_be_stopped_between_planes() -> None:
    count = 0

    def check() -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        read(TrainInput(layers(noise(9, 8, 8))), TrainConfig(), check)
    assert count == 3


@pytest.fixture
def training(monkeypatch) -> Iterator[RemoteTraining]:
    monkeypatch.setattr(remote_training, "COMMAND", fake_training.COMMAND)
    training = RemoteTraining()
    yield training
    training.close()
    assert not [t for t in threading.enumerate() if t.name == THREAD and not joined(t)]


def joined(thread: threading.Thread) -> bool:
    thread.join(5)
    return not thread.is_alive()


class Run:
    """A worker with what it said."""

    def __init__(self, training: RemoteTraining, data: Any = None, **how: Any) -> None:
        data = layers(noise(20, 30)) if data is None else data
        self.token, self.said = CancelToken(), []
        self.progress: list[Any] = []
        self.ended: list[str] = []
        job = TrainJob(TrainInput(data), how, TrainConfig())
        self.worker = train_worker(job, training, self.token)
        self.worker.yielded.connect(self.on_progress)
        self.worker.returned.connect(self.said.append)
        for signal in ("errored", "aborted", "finished"):
            getattr(self.worker, signal).connect(lambda *_, name=signal: self.ended.append(name))
        self.worker.start()

    def on_progress(self, progress: Any) -> None:
        if progress is not None:
            self.progress.append(progress)

    @property
    def over(self) -> bool:
        return "finished" in self.ended

    def wait(self, qtbot: Any) -> Run:
        qtbot.waitUntil(lambda: self.over, timeout=20_000)
        return self

    @property
    def step(self) -> int:
        return self.progress[-1].step if self.progress else 0


def endless(training: RemoteTraining, qtbot: Any) -> Run:
    """A training that takes its first steps."""
    run = Run(training, steps=10**6, seconds=0.001)
    qtbot.waitUntil(lambda: run.step > 20, timeout=20_000)
    return run


def test_a_training_is_shown_and_returned(training, qtbot) -> None:
    run = Run(training, every=2).wait(qtbot)
    texts = [p.text for p in run.progress[:2]]
    assert texts == ["Reading the images", "Starting the training process"]
    assert {p.stage for p in run.progress} == {"preparing", "training", "measuring"}
    assert run.said[0].improved
    assert run.ended == ["finished"]
    assert training.best.step == 4


def lazy_stack(planes: int, read: Callable[[], Any]) -> tuple[Any, ...]:
    """A layer that calls `read` for each plane."""

    def block(block_info: Any = None) -> np.ndarray:
        read()
        return np.full((1, 20, 30), 7, np.uint8)

    chunks = ((1,) * planes, (20,), (30,))
    stack = da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty(0))
    return (read_layer(Image(stack, contrast_limits=(0, 255))),)


def test_lazy_layers_are_read_in_another_thread_than_the_window(training, qtbot) -> None:
    threads = set()
    run = Run(training, lazy_stack(3, lambda: threads.add(threading.get_ident())))
    threads.clear()  # napari looks at a plane itself
    run.wait(qtbot)
    assert run.said[0].state["mean"][0] == np.float32(7 / 255)
    assert threads
    assert threading.get_ident() not in threads


def test_faults_are_returned_with_the_best_so_far(training, qtbot) -> None:
    run = Run(training, steps=100, kill_at=75).wait(qtbot)
    failure = run.said[0]
    assert isinstance(failure, Failure)
    assert "The best refiner so far is kept: that of step 70" in failure.message
    assert failure.best.step == 70
    (image,) = layers(noise(5, 5))
    run = Run(training, (replace(image, data=image.data.astype(complex)),)).wait(qtbot)
    assert "expected bool, integer or real float pixels" in run.said[0].message
    assert run.said[0].best is None  # and not that of the training before
    run = Run(training).wait(qtbot)
    assert run.said[0].improved


def test_cancel_and_stop_end_it_while_images_are_being_read(training, qtbot) -> None:
    planes: list[None] = []
    for end in ("cancel", "stop", "quit"):
        planes.clear()
        run = Run(training, lazy_stack(100, lambda: planes.append(time.sleep(0.1))))
        qtbot.waitUntil(lambda run=run: len(run.progress) > 0)
        before = len(planes)
        {"cancel": run.token.cancel, "stop": training.stop, "quit": run.worker.quit}[end]()
        qtbot.waitUntil(lambda run=run: run.over)
        assert len(planes) < before + 15
        assert run.said in ([None], []) if end == "quit" else run.said == [None]
        assert training.pid is None
    run = Run(training).wait(qtbot)
    assert run.said[0].improved


def test_pause_stop_and_cancel(training, qtbot) -> None:
    run = endless(training, qtbot)

    def at_rest() -> bool:
        step = run.step
        qtbot.wait(500)
        return run.step == step

    training.pause()
    qtbot.waitUntil(at_rest)
    step = run.step
    training.resume()
    qtbot.waitUntil(lambda: run.step > step)
    training.pause()
    training.stop()
    run.wait(qtbot)
    assert run.said[0].state["step"][0] >= step
    run = endless(training, qtbot)
    run.token.cancel()
    run.wait(qtbot)
    assert run.said == [None]


def test_it_shows_in_the_task_manager_and_can_be_cancelled_there(
    training, qtbot, make_napari_viewer
) -> None:
    tasks = make_napari_viewer().window._qt_window._window._task_status_manager
    run = endless(training, qtbot)
    assert tasks.get_status() == ["napari-worker: Executing a training by napari-cfsr"]
    process = psutil.Process(training.pid)
    (task,) = (t for t in tasks._tasks.values() if t.state()[2] == Status.BUSY)
    task.cancel()
    qtbot.waitUntil(lambda: run.over, timeout=3_000)
    assert "aborted" in run.ended
    qtbot.waitUntil(lambda: not process.is_running(), timeout=3_000)
    assert not tasks.is_busy()
