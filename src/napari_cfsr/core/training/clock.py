"""Progress and remaining time of a training, from the time its parts have taken so far."""

from __future__ import annotations

import time
from dataclasses import dataclass

from napari_cfsr.core.training.config import Recipe, TrainConfig
from napari_cfsr.core.training.windows import TrainingImages, TrainingWindow

WARM_VALIDATIONS = 5
LR_PIXEL, SR_PIXEL = 5e-6, 1e-7  # seconds of backbone and refiner on two cores: initial guesses


@dataclass
class Work:
    """One kind of work."""

    items: int  # number in all
    guess: float  # seconds for one, used until the first is done
    done: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> float:
        """Seconds left."""
        each = self.seconds / self.done if self.done else self.guess
        return each * max(0, self.items - self.done)


class Clock:
    """Sums up the work done by kind; time between `tick` and `start` does not count."""

    def __init__(self, work: dict[str, Work]) -> None:
        self.work = work
        self.spent = 0.0
        self._began = time.perf_counter()
        self._fraction = 0.0

    def start(self) -> None:
        """Time counts from here on."""
        self._began = time.perf_counter()

    def tick(self, kind: str, items: int = 1) -> None:
        """The time since `start` or the last `tick` went into items of this kind."""
        now = time.perf_counter()
        work = self.work[kind]
        work.done += items
        work.seconds += now - self._began
        self.spent += now - self._began
        self._began = now

    def drop(self, kind: str) -> None:
        """No more of this kind will be done."""
        self.work[kind].items = self.work[kind].done

    def drop_all_but(self, kind: str) -> None:
        """No more of any other kind will be done."""
        for other in self.work.keys() - {kind}:
            self.drop(other)

    @property
    def seconds_left(self) -> float:
        return sum(work.left for work in self.work.values())

    @property
    def fraction(self) -> float:
        """Share of the total time that has passed; never decreases."""
        total = self.spent + self.seconds_left
        self._fraction = max(self._fraction, self.spent / total if total else 0.0)
        return min(1.0, self._fraction)


def expected_work(config: TrainConfig, images: TrainingImages, scale: int) -> dict[str, Work]:
    """All work after the images have been read, with a guess of the time it takes."""
    validation, held, train = (
        _pixels(windows) for windows in (images.validation, images.held_out, images.train)
    )
    work = {
        "baseline": Work(len(images.validation), validation * LR_PIXEL / len(images.validation)),
        "measure": Work(len(images.held_out), 5 * held * LR_PIXEL / len(images.held_out)),
        "prepare input": Work(0, 0.0),
        "prepare output": Work(0, train * LR_PIXEL / len(images.train)),
    }
    if "output" in config.placements:
        work["prepare output"].items = len(images.train)
    for placement in config.placements:
        recipe = config.recipe(placement)
        at_input = placement == "input"
        work |= _steps(placement, recipe, several=len(config.placements) > 1)
        each = validation * (LR_PIXEL if at_input else SR_PIXEL * scale**2)
        warm = WARM_VALIDATIONS if at_input and recipe.warm_steps else 0
        work[f"validate {placement}"] = Work(-(-recipe.steps // recipe.every) + warm, each)
    return work


def _steps(placement: str, recipe: Recipe, several: bool) -> dict[str, Work]:
    """Steps of each phase; forward and backward together cost about four times a pass."""
    patches = recipe.batch * recipe.patch**2
    each = patches * (4 * LR_PIXEL if placement == "input" else 4 * SR_PIXEL)
    warm = recipe.warm_batch * recipe.warm_patch**2 * 4 * SR_PIXEL
    trial = several and not recipe.warm_steps
    return {
        f"warm {placement}": Work(recipe.warm_steps, warm),
        f"trial {placement}": Work(recipe.trial_steps if trial else 0, each),
        f"main {placement}": Work(recipe.steps, each),
    }


def _pixels(windows: tuple[TrainingWindow, ...]) -> int:
    """LR pixels of all windows."""
    return sum(window.lr[0].size for window in windows)
