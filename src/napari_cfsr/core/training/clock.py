"""How far a training is, and how long it will take: from what its parts have taken so far."""

from __future__ import annotations

import time
from dataclasses import dataclass

from napari_cfsr.core.training.config import Recipe, TrainConfig
from napari_cfsr.core.training.windows import TrainingImages, Window

WARM_VALIDATIONS = 5
LR_PIXEL, SR_PIXEL = 5e-6, 1e-7  # seconds that backbone and refiner take on two cores: a guess


@dataclass
class Work:
    """One kind of work.

    Attributes
    ----------
    items : int
        How many there are to do.
    guess : float
        Seconds that one takes, until it is known.
    """

    items: int
    guess: float
    done: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        each = self.seconds / self.done if self.done else self.guess
        return each * max(0, self.items - self.done)


class Clock:
    """Adds up what was done, kind by kind; waiting between `tick` and `start` does not count."""

    def __init__(self, plan: dict[str, Work]) -> None:
        self.plan = plan
        self.spent = 0.0
        self._began = time.perf_counter()
        self._fraction = 0.0

    def start(self) -> None:
        """What follows counts."""
        self._began = time.perf_counter()

    def tick(self, kind: str, items: int = 1) -> None:
        """Since `start` or the last `tick`, items of this kind were done."""
        now = time.perf_counter()
        work = self.plan[kind]
        work.done += items
        work.seconds += now - self._began
        self.spent += now - self._began
        self._began = now

    def drop(self, kind: str) -> None:
        """No more of this kind will be done."""
        self.plan[kind].items = self.plan[kind].done

    def drop_all_but(self, kind: str) -> None:
        """Of all kinds, only this one will be done."""
        for other in self.plan.keys() - {kind}:
            self.drop(other)

    @property
    def seconds_left(self) -> float:
        return sum(work.left for work in self.plan.values())

    @property
    def fraction(self) -> float:
        """Of all there is to do, in time; never goes back."""
        total = self.spent + self.seconds_left
        self._fraction = max(self._fraction, self.spent / total if total else 0.0)
        return min(1.0, self._fraction)


def planned(config: TrainConfig, images: TrainingImages, scale: int) -> dict[str, Work]:
    """All there is to do once the images are there, with a guess of what it takes."""
    picked, held, train = (
        _pixels(windows) for windows in (images.pick, images.held_out, images.train)
    )
    plan = {
        "baseline": Work(len(images.pick), picked * LR_PIXEL / len(images.pick)),
        "measure": Work(len(images.held_out), 5 * held * LR_PIXEL / len(images.held_out)),
        "prepare input": Work(0, 0.0),
        "prepare output": Work(0, train * LR_PIXEL / len(images.train)),
    }
    if "output" in config.placements:
        plan["prepare output"].items = len(images.train)
    for placement in config.placements:
        recipe = config.recipe(placement)
        at_input = placement == "input"
        plan |= _steps(placement, recipe, several=len(config.placements) > 1)
        each = picked * (LR_PIXEL if at_input else SR_PIXEL * scale**2)
        warm = WARM_VALIDATIONS if at_input and recipe.warm_steps else 0
        plan[f"validate {placement}"] = Work(-(-recipe.steps // recipe.every) + warm, each)
    return plan


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


def _pixels(windows: tuple[Window, ...]) -> int:
    """LR pixels of all."""
    return sum(window.lr[0].size for window in windows)
