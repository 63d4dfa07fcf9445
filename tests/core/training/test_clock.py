"""Progress and remaining time of a training, with a clock that the test advances."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cfsr.core.training import TrainConfig
from napari_cfsr.core.training import clock as training_clock
from napari_cfsr.core.training.clock import WARM_VALIDATIONS, Clock, Work, expected_work
from napari_cfsr.core.training.windows import prepare
from tests.helpers.small_sets import request, spots


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(training_clock, "time", made)
    return made


def test_one_kind_of_work(time) -> None:
    clock = Clock({"step": Work(10, 5.0)})
    assert (clock.seconds_left, clock.fraction) == (50, 0)
    left = []
    for _ in range(10):
        time.now += 2
        clock.tick("step")
        left.append(clock.seconds_left)
    assert left == [18, 16, 14, 12, 10, 8, 6, 4, 2, 0]  # two seconds each, not five
    assert clock.fraction == 1


def test_waiting_does_not_count(time) -> None:
    clock = Clock({"step": Work(10, 5.0)})
    for _ in range(5):
        time.now += 1000
        clock.start()
        time.now += 2
        clock.tick("step")
    time.now += 1000
    assert (clock.spent, clock.seconds_left, clock.fraction) == (10, 10, 0.5)


def test_dropped_work_is_not_counted(time) -> None:
    clock = Clock({"step": Work(10, 1.0), "trial": Work(10, 1.0), "measure": Work(4, 1.0)})
    time.now += 2
    clock.tick("step", 2)
    assert (clock.seconds_left, clock.fraction) == (22, 2 / 24)
    clock.drop("trial")
    assert (clock.seconds_left, clock.fraction) == (12, 2 / 14)
    clock.drop_all_but("measure")
    assert (clock.seconds_left, clock.fraction) == (4, 2 / 6)


def test_the_fraction_never_decreases(time) -> None:
    """Even if there is more work, or it is slower than guessed."""
    rng = np.random.default_rng(0)
    clock = Clock({"step": Work(40, 0.1), "measure": Work(5, 0.1)})
    seen = []
    for step in range(45):
        time.now += rng.exponential(1 + step / 10)
        clock.tick("step" if step < 40 else "measure")
        if step == 20:
            clock.work["validate"] = Work(30, 3.0)
        if step == 30:
            clock.drop("validate")
        seen.append(clock.fraction)
    assert (np.diff(seen) >= 0).all()
    assert 0 < seen[0] < seen[-1] == 1
    assert clock.seconds_left == 0


def test_more_work_than_expected(time) -> None:
    clock = Clock({"step": Work(1, 1.0)})
    for _ in range(3):
        time.now += 1
        clock.tick("step")
    assert (clock.seconds_left, clock.fraction) == (0, 1)
    assert Clock({}).fraction == 0


def test_the_expected_work() -> None:
    """Number of steps of each kind, and a guess of the right order of magnitude."""
    images = prepare(request(spots(10, 128), photons=50))
    config = TrainConfig(photons=50, steps=70, every=20, warm_steps=300)
    work = expected_work(config, images, 2)
    assert {kind: one.items for kind, one in work.items()} == {
        "baseline": len(images.validation),
        "measure": len(images.held_out),
        "prepare input": 0,
        "prepare output": len(images.train),
        "warm input": 300,
        "trial input": 0,  # the warm steps stand in for it
        "main input": 70,
        "validate input": 4 + WARM_VALIDATIONS,
        "warm output": 0,
        "trial output": config.recipe("output").trial_steps,
        "main output": 70,
        "validate output": 4,
    }
    for placement in ("input", "output"):
        only = expected_work(TrainConfig(placement=placement, steps=70), images, 2)
        assert only["prepare output"].items == (len(images.train) if placement == "output" else 0)
        assert only[f"trial {placement}"].items == 0
        assert f"main {'output' if placement == 'input' else 'input'}" not in only
    assert 1 < sum(one.left for one in work.values()) < 200
