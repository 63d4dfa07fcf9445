"""A training in a process of its own: same numbers, prompt obedience, and a clean end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy.ndimage import gaussian_filter

from napari_cfsr import load_model
from napari_cfsr.core.process import child, remote_training
from napari_cfsr.core.process.remote_training import THREAD, RemoteTraining
from napari_cfsr.core.training import TrainConfig, TrainProgress, TrainRequest
from napari_cfsr.core.training.data import array_data
from napari_cfsr.core.upscale.generators import exhaust
from napari_cfsr.errors import (
    CancelledError,
    ImageError,
    ModelProcessError,
    OutOfMemoryError,
    UnexpectedError,
)
from tests.helpers import fake_training

TERMINATE = signal.SIGTERM if os.name == "nt" else signal.SIGKILL


@pytest.fixture
def training() -> Iterator[RemoteTraining]:
    training = RemoteTraining()
    yield training
    training.close()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == THREAD])


@pytest.fixture
def fake(training: RemoteTraining, monkeypatch: pytest.MonkeyPatch) -> RemoteTraining:
    """With a training that needs no network, see `fake_training`."""
    monkeypatch.setattr(remote_training, "COMMAND", fake_training.COMMAND)
    return training


def wait_for(condition: Any, seconds: float = 10) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < deadline
        time.sleep(0.02)


def request(images: Any = None, **how: Any) -> TrainRequest:
    images = [np.full((20, 30), 51, np.uint8)] if images is None else images
    return TrainRequest(array_data(images), how, TrainConfig())


def finish(steps: remote_training.Steps) -> Any:
    """What a training returns."""
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
    pytest.fail("it does not end")


def until(steps: remote_training.Steps, step: int) -> TrainProgress:
    """Go on until a step is reported."""
    return next(p for p in steps if p is not None and p.step >= step)


def real_request(**how: Any) -> TrainRequest:
    """A training of a real network that takes seconds: six small images with structure."""
    rng = np.random.default_rng(0)
    images = [gaussian_filter(rng.random((96, 100)), 2) for _ in range(6)]
    images = [((x - x.min()) / (x.max() - x.min())).astype(np.float32) for x in images]
    how = {"batch": 4, "patch": 24, "every": 4, "photons": 50, "read_noise": 0.01} | how
    load = {"scale": 2, "backbone": "bundled", "device": "cpu"}
    return TrainRequest(array_data(images), load, TrainConfig(**how))


def test_images_and_results_go_through(fake) -> None:
    images = [
        np.random.default_rng(0).integers(0, 65535, (30, 40, 3)).astype(np.uint16)[:, ::-1],
        np.linspace(0, 1, 600).reshape(20, 30).astype(">f4"),
    ]
    sent = request(images)
    result = finish(fake.steps(sent))
    expected = np.mean([source.read().mean() for source in sent.data.hr])
    assert result.state["mean"][0] == np.float32(expected)
    assert result.card == fake_training.CARD
    assert result.gain == 0.5
    assert fake.pid is None


@pytest.mark.alone
def test_progress_is_thinned_out_but_nothing_that_happens_once_is_lost(fake) -> None:
    began = time.perf_counter()
    news = [p for p in fake.steps(request(steps=1003, seconds=0.001, every=100)) if p is not None]
    seconds = time.perf_counter() - began
    best = [p for p in news if p.best is not None]
    assert [p.step for p in best] == list(range(100, 1001, 100))
    for p in best:
        assert p.gain == p.best.gain == p.step / 100
        np.testing.assert_array_equal(p.best.state["body.0.weight"], np.full((32, 3), p.step))
        np.testing.assert_array_equal(p.preview.lr, np.full((4, 4), p.step))
        assert p.preview.delta.shape == (8, 8)
    assert fake.best is best[-1].best
    plain = [p for p in news if p.best is None]
    assert 3 < len(plain) < seconds * 10 + 4
    steps = [p.step for p in news if p.stage == "training"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 1003
    assert all(p.loss == 1 / p.step for p in news if p.stage == "training")
    assert news[-1].stage == "measuring"


@pytest.mark.alone
def test_a_last_step_that_waits_is_reported_before_a_pause(fake) -> None:
    steps = fake.steps(request(steps=10**6, seconds=0.01))
    until(steps, 10)
    fake.pause()
    time.sleep(0.5)
    seen = [p.step for p in (next(steps) for _ in range(20)) if p is not None]
    fake.resume()
    assert seen
    assert until(steps, 0).step <= seen[-1] + 12  # at most what a tenth of a second brings


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("image", ImageError, "expected an image with contrast, got black"),
        ("key", ModelProcessError, "unexpected fault: KeyError: 'weight'"),
        ("unpicklable", ModelProcessError, "unexpected fault: Odd: odd"),
        ("memory", OutOfMemoryError, "the training ran out of memory: close other programs"),
        ("engine memory", OutOfMemoryError, r"memory \(out of memory on cuda: 7 GB\): close"),
    ],
)
def test_faults_come_through(fake, fault, kind, text) -> None:
    with pytest.raises(kind, match=text):
        finish(fake.steps(request(steps=50, fault_at=30, fault=fault)))
    assert fake.best.step == 20  # from before the fault
    assert fake.pid is None


def test_a_killed_process_is_named_and_the_best_so_far_is_kept(fake) -> None:
    with pytest.raises(
        ModelProcessError,
        match=r"the process that trains the refiner ended .* The best refiner so far is kept: "
        r"that of step 20, \+0\.20 dB",
    ):
        finish(fake.steps(request(steps=50, kill_at=25)))
    assert fake.best.step == 20
    np.testing.assert_array_equal(fake.best.state["body.0.weight"], np.full((32, 3), 20))
    with pytest.raises(ModelProcessError, match="It had found no refiner yet"):
        finish(fake.steps(request(kill_at=5)))
    assert fake.best is None
    assert finish(fake.steps(request())).improved  # the next training works
    assert fake.best is None  # its five steps bring none


@pytest.mark.skipif(os.name == "nt", reason="the exit status says it on POSIX only")
def test_being_killed_is_distinguished_from_crashing(fake, monkeypatch) -> None:
    with pytest.raises(ModelProcessError, match="killed, most often for lack of memory"):
        finish(fake.steps(request(kill_at=1)))
    monkeypatch.setattr(remote_training, "COMMAND", ("-P", "-c", "raise SystemExit('no luck')"))
    with pytest.raises(ModelProcessError, match=r"\(exit status 1\): no luck\. It had found"):
        finish(fake.steps(request()))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (MemoryError(), OutOfMemoryError, "no memory is left to send the images"),
        (TypeError("no pickle"), UnexpectedError, r"could not be sent .*no pickle"),
    ],
)
def test_images_that_cannot_be_sent_end_a_training(fake, monkeypatch, error, kind, text) -> None:
    """Otherwise the process would wait for them, and the window for the process, for ever."""

    def fail(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(child, "send", fail)
        with pytest.raises(kind, match=text):
            finish(fake.steps(request()))
    assert finish(fake.steps(request())) is not None


def test_messages_that_cannot_be_read_end_a_training(fake, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        code = (
            "import napari_cfsr.core.process.server as server\n"
            "import napari_cfsr.core.process.training_server as process\n"
            "def receive(stream): raise MemoryError('Unable to allocate 90 GiB')\n"
            "server.receive = receive; process.main()"
        )
        patch.setattr(remote_training, "COMMAND", ("-P", "-c", code))
        with pytest.raises(ModelProcessError, match=r"1\): MemoryError: Unable to allocate 90 GiB"):
            finish(fake.steps(request()))

    def receive(stream: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(child, "receive", receive)
    monkeypatch.setattr(child, "LAST_SECONDS", 0.1)
    with pytest.raises(ModelProcessError, match="its answer can't be read"):
        finish(fake.steps(request(steps=10**6, seconds=0.001)))
    assert fake.pid is None


def test_a_process_that_cannot_start_is_named(training, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ModelProcessError, match="the process that trains the refiner can't start"):
        finish(training.steps(request()))


@pytest.mark.alone
@pytest.mark.parametrize("when", ["training", "paused", "measuring"])
def test_stop_takes_effect_within_two_seconds(fake, when) -> None:
    steps = fake.steps(request(steps=100 if when == "measuring" else 10**6, seconds=0.001))
    until(steps, 15)
    if when == "paused":
        fake.pause()
        time.sleep(0.3)
    if when == "measuring":
        next(p for p in steps if p is not None and p.stage == "measuring")
    fake.stop()
    fake.pause()  # comes too late
    began = time.perf_counter()
    result = finish(steps)
    assert time.perf_counter() - began < 2
    assert result.improved
    assert result.state["step"][0] >= 15


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_stop_before_anything_was_trained_cancels(fake, seconds) -> None:
    steps = fake.steps(request(preparing=60))
    next(steps)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(steps)
    fake.stop()
    began = time.perf_counter()
    with pytest.raises(CancelledError, match="stopped before anything was trained"):
        finish(steps)
    assert time.perf_counter() - began < 2
    assert fake.pid is None
    assert finish(fake.steps(request())).improved  # nothing of it is left


@pytest.mark.alone
@pytest.mark.parametrize("stage", ["preparing", "training"])
def test_pause_takes_no_processor_time_and_loses_nothing(fake, stage) -> None:
    how = {"preparing": 3} if stage == "preparing" else {"steps": 400, "seconds": 0.005}
    began = time.perf_counter()
    steps = fake.steps(request(**how))
    if stage == "training":
        until(steps, 20)
    else:
        next(p for p in steps if p is not None and p.text == "Preparing")
    fake.pause()
    time.sleep(0.5)
    process = psutil.Process(fake.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(1)
    assert sum(process.cpu_times()[:2]) - before < 0.05
    while next(steps) is not None:  # what it had sent before
        pass
    assert next(steps) is None
    fake.resume()
    result = finish(steps)
    assert result.state["step"][0] == how.get("steps", 5)
    assert result.seconds < time.perf_counter() - began - 1.5  # the pause does not count


@pytest.mark.alone
def test_cancelling_ends_the_process_at_once(fake) -> None:
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("cancelled")

    steps = fake.steps(request(steps=10**6, seconds=0.001), check)
    until(steps, 20)
    process = psutil.Process(fake.pid)
    fake.pause()
    cancelled.set()
    began = time.perf_counter()
    with pytest.raises(CancelledError):
        finish(steps)
    assert time.perf_counter() - began < 1
    assert not process.is_running()
    assert fake.best is not None


def test_close_from_another_thread_ends_a_training(fake) -> None:
    steps = fake.steps(request(steps=10**6, seconds=0.001))
    until(steps, 20)
    threading.Timer(0.3, fake.close).start()
    with pytest.raises(CancelledError):
        finish(steps)
    assert fake.pid is None


def test_an_abandoned_training_does_not_disturb_the_next_one(fake) -> None:
    first = fake.steps(request(steps=10**6, seconds=0.001))
    until(first, 20)
    fake.close()
    fake.reset()
    second = fake.steps(request(steps=50, seconds=0.02))
    until(second, 5)
    first.close()
    fake.stop()
    assert finish(second).state["step"][0] < 49


def test_after_bad_images_a_real_training_gives_bit_identical_results(
    training, tiny_backbones
) -> None:
    from napari_cfsr.core.training.train import iter_train

    asked = real_request(placement="input", steps=4, warm_steps=40)
    asked.load["backbone"] = str(tiny_backbones[2])
    bad = replace(asked, data=array_data([np.zeros((96, 96), np.uint8)] * 3))
    with pytest.raises(ImageError, match="expected"):
        finish(training.steps(bad))
    remote = finish(training.steps(asked))
    here = exhaust(iter_train(asked))
    assert remote.report == here.report
    assert remote.history == here.history
    assert len(here.history) > 2
    assert remote.card == here.card
    for name, array in here.state.items():
        np.testing.assert_array_equal(remote.state[name], array)


@pytest.mark.alone
def test_a_real_training_is_killed_paused_and_stopped(training, tmp_path, tiny_backbones) -> None:
    asked = real_request(placement="output", steps=100_000, patience=10**6)
    asked.load["backbone"] = str(tiny_backbones[2])
    steps = training.steps(asked)
    next(p for p in steps if p is not None and p.best is not None)
    os.kill(training.pid, TERMINATE)
    with pytest.raises(ModelProcessError, match="The best refiner so far is kept"):
        finish(steps)
    file = training.best.save(tmp_path / "best.safetensors")
    assert load_model(2, tiny_backbones[2], file, device="cpu").info.refiner is not None

    steps = training.steps(asked)
    until(steps, 6)
    training.pause()
    time.sleep(1)
    process = psutil.Process(training.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(1)
    assert sum(process.cpu_times()[:2]) - before < 0.05
    time.sleep(2)  # long enough to show in the time left, if it counted
    left = [p.seconds_left for p in (next(steps) for _ in range(9)) if p is not None][-1]
    training.resume()
    assert until(steps, 0).seconds_left < 1.5 * left
    training.pause()
    time.sleep(0.2)
    training.stop()
    began = time.perf_counter()
    next(p for p in steps if p is not None and p.stage == "measuring")
    assert time.perf_counter() - began < 2
    result = finish(steps)
    assert result.history[-1]["step"] < 1000
    assert result.seconds < 30


IN_TRAINING = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.core.process.test_remote_training import *
remote_training.COMMAND = fake_training.COMMAND
training = RemoteTraining()
steps = training.steps(request(steps=10**6, seconds=0.001))
until(steps, 20); print(training.pid, flush=True)
"""


def test_the_process_ends_with_the_one_that_started_it() -> None:
    for then in ("finish(steps)", "training.pause(); finish(steps)"):
        command = [sys.executable, "-c", IN_TRAINING + then]
        process = psutil.Popen(command, stdout=-1, text=True)
        trains = psutil.Process(int(process.stdout.readline()))
        process.stdout.close()
        time.sleep(0.3)
        assert trains.is_running()
        process.send_signal(TERMINATE)
        process.wait(10)
        wait_for(lambda trains=trains: not trains.is_running(), 5)


@pytest.mark.parametrize("end", ["", "training.close()", "steps.close()", "training.stop()"])
def test_this_process_can_end_in_mid_training(end) -> None:
    command = [sys.executable, "-c", IN_TRAINING + end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.returncode == 0
    wait_for(lambda: not psutil.pid_exists(int(done.stdout)), 5)


@pytest.mark.alone
def test_large_images_are_sent_without_holding_up_other_threads(fake) -> None:
    images = [np.random.default_rng(0).integers(0, 255, (5000, 5000, 4)).astype(np.uint8)] * 2
    images = [np.moveaxis(image, -1, 0) for image in images]  # not contiguous
    sent = TrainRequest(
        array_data([plane for image in images for plane in image]), {"steps": 1}, TrainConfig()
    )
    assert sum(source.pixels.nbytes for source in sent.data.hr) == 200_000_000
    longest = []
    for _ in range(3):  # a busy machine has gaps of its own, now and then
        ticks = [time.perf_counter()]
        done = threading.Event()

        def tick(ticks=ticks, done=done) -> None:
            while not done.wait(0.002):
                ticks.append(time.perf_counter())

        thread = threading.Thread(target=tick)
        thread.start()
        result = finish(fake.steps(sent))
        done.set()
        thread.join()
        assert result.state["mean"][0] == pytest.approx(0.498, abs=0.01)
        longest.append(max(np.diff(ticks)))
        if longest[-1] < 0.1:
            break
    assert min(longest) < 0.1


def test_images_are_released_once_they_are_sent(fake) -> None:
    sent = request([np.zeros((100, 100), np.uint8)])
    images = weakref.ref(sent.data)
    sent.load.update(steps=10**6, seconds=0.001)
    steps = fake.steps(sent)
    del sent
    until(steps, 1)
    gc.collect()
    assert images() is None
    steps.close()
