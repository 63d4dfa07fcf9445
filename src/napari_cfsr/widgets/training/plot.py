"""A live plot of a training: its loss, and what is gained over the frozen backbone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.training import TrainProgress
from napari_cfsr.widgets.parts.threaded_plot import Canvas, ThreadedPlot

TICK = 100  # milliseconds between two looks at whether there is something to do
REDRAW = 0.5  # seconds between two drawings at least
EMPTY = "The curves of a training appear here."
MOST_POINTS = 300  # of a loss curve; more are averaged


@dataclass
class Curve:
    """What is known of one placement.

    Attributes
    ----------
    steps, losses : list
        Of the steps that were reported.
    gain_steps, gains : list
        Of the validations.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gain_steps: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)

    def copy(self) -> Curve:
        return Curve(*(list(values) for values in vars(self).values()))

    def thinned(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps and losses, averaged where there are very many."""
        steps, losses = np.array(self.steps, float), np.array(self.losses, float)
        group = -(-len(steps) // MOST_POINTS)
        if group <= 1:
            return steps, losses
        first = np.arange(0, len(steps), group)
        counts = np.diff(np.append(first, len(steps)))
        return np.add.reduceat(steps, first) / counts, np.add.reduceat(losses, first) / counts


@dataclass(frozen=True)
class Drawing:
    """All that a drawing needs.

    Attributes
    ----------
    curves : dict of str to Curve
        By placement.
    best : (str, int, float) or None
        Placement, step and gain of the best validation.
    theme : str
        Name of napari's theme.
    size : (int, int)
        Width and height.
    ratio : float
        Pixels of the screen in one of `size`.
    """

    curves: dict[str, Curve]
    best: tuple[str, int, float] | None
    theme: str
    size: tuple[int, int]
    ratio: float


class TrainingPlot(ThreadedPlot):
    """Shows what it is told, drawn twice a second at most.

    Parameters
    ----------
    theme : str
        Name of napari's theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__(theme, _canvas, EMPTY, TICK, REDRAW)
        self.curves: dict[str, Curve] = {}
        self._over = False

    def begin(self) -> None:
        """A training begins: load matplotlib while the training process starts as well."""
        self.curves.clear()
        self._over = False
        self._clear()
        curve = Curve([1, 2], [1.0, 0.1], [2], [0.1])
        self._painter.load(Drawing({"input": curve}, ("input", 2, 0.1), "dark", (300, 300), 1.0))

    def add(self, progress: TrainProgress) -> None:
        """Take note of a step."""
        if progress.placement is None or progress.stage != "training":
            return
        curve = self.curves.setdefault(progress.placement, Curve())
        if progress.loss is not None and np.isfinite(progress.loss) and progress.loss > 0:
            curve.steps.append(progress.step)
            curve.losses.append(progress.loss)
        if progress.gain is not None and np.isfinite(progress.gain):
            curve.gain_steps.append(progress.step)
            curve.gains.append(progress.gain)
        self._change()

    def end(self) -> None:
        """No more steps; what came last is still drawn."""
        self._over = True

    def best(self) -> tuple[str, int, float] | None:
        """Placement, step and gain of the best validation, if it gained something."""
        found = [
            (gain, step, placement)
            for placement, curve in self.curves.items()
            for step, gain in zip(curve.gain_steps, curve.gains, strict=True)
            if gain > 0
        ]
        if not found:
            return None
        gain, step, placement = max(found, key=lambda f: f[0])
        return placement, step, gain

    def _has_content(self) -> bool:
        return bool(self.curves)

    def _expects_more(self) -> bool:
        return not self._over

    def _drawing(self) -> Drawing:
        curves = {name: curve.copy() for name, curve in self.curves.items()}
        return Drawing(curves, self.best(), self._theme, *self._place())


def _canvas() -> Canvas:
    from napari_cfsr.widgets.training.curves import Curves

    return Curves()
