"""A live plot of a training: its loss, and the gain over the frozen backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.utils.theme import get_theme
from numpy.typing import NDArray

from napari_cfsr.core.training import TrainProgress
from napari_cfsr.widgets.parts.threaded_plot import FONT, Look, PlotFigure, ThreadedPlot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

MOST_POINTS = 300  # of a loss curve; more are averaged
COLORS = {  # of the placements, on dark and on light ground
    "dark": {"input": "#f5a04a", "output": "#5db3ff"},
    "light": {"input": "#b85a00", "output": "#0b63b8"},
}


@dataclass
class Curve:
    """Progress of one placement."""

    steps: list[int] = field(default_factory=list)  # of the steps that were reported
    losses: list[float] = field(default_factory=list)
    gain_steps: list[int] = field(default_factory=list)  # of the validations
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


Curves = dict[str, Curve]  # by placement


def best_of(curves: Curves) -> tuple[str, int, float] | None:
    """Placement, step and gain of the best validation, if it gained something."""
    found = [
        (placement, step, gain)
        for placement, curve in curves.items()
        for step, gain in zip(curve.gain_steps, curve.gains, strict=True)
        if gain > 0
    ]
    return max(found, key=lambda f: f[2], default=None)


class TrainingFigure(PlotFigure):
    """Loss above, gain over the backbone below."""

    def __init__(self) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        super().__init__()
        self._figure.subplots_adjust(0.17, 0.1, 0.97, 0.94, hspace=0.2)
        loss, gain = self._axes
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
        loss.yaxis.set_minor_locator(NullLocator())
        loss.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        gain.yaxis.set_major_locator(MaxNLocator(4))
        gain.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        gain.set_xlabel("step")
        gain.xaxis.set_label_coords(0.5, -0.11)  # else it is measured each time
        titles = _above(loss, 0, "left", "training loss"), _above(gain, 0, "left", "gain (dB)")
        (self._star,) = gain.plot([], [], marker="*", markersize=10, linestyle="", zorder=3)
        self._best = _above(gain, 1, "right", "")
        zero = gain.axhline(0, linewidth=1, linestyle="--")
        self._in_text_color = (*titles, self._best, self._star, zero)
        self._names = {
            "input": _above(loss, 0.7, "right", ""),
            "output": _above(loss, 1, "right", ""),
        }
        self._lines: dict[str, tuple[Any, Any]] = {}

    def _plot(self, data: Curves, look: Look) -> None:
        if data.keys() != self._lines.keys():
            self._make_lines(data)
        for placement, curve in data.items():
            loss, gain = self._lines[placement]
            loss.set_data(*curve.thinned())
            gain.set_data(curve.gain_steps, curve.gains)
        best = best_of(data)
        self._star.set_data(*(([], []) if best is None else ([best[1]], [best[2]])))
        self._best.set_text("" if best is None else f"best {best[2]:+.2f} dB")
        for axes in self._axes:
            axes.relim()
            axes.autoscale_view()
        colors = get_theme(look.theme)
        for artist in self._in_text_color:
            artist.set_color(colors.text.as_hex())
        for placement, name in self._names.items():
            for artist in (name, *self._lines.get(placement, ())):
                artist.set_color(COLORS[colors.type][placement])

    def _make_lines(self, curves: Curves) -> None:
        for lines in self._lines.values():
            for line in lines:
                line.remove()
        self._lines = {}
        for placement in curves:
            (loss,) = self._axes[0].plot([], [], linewidth=1)
            (gain,) = self._axes[1].plot([], [], linewidth=1.3, marker=".")
            self._lines[placement] = loss, gain
        for placement, name in self._names.items():
            name.set_text(f"on {placement}" if placement in curves else "")


def _above(axes: Axes, x: float, side: Literal["left", "right"], text: str) -> Text:
    """Text above axes; faster to draw than a legend."""
    return axes.text(x, 1.02, text, transform=axes.transAxes, fontsize=FONT, ha=side, va="bottom")


class TrainingPlot(ThreadedPlot):
    """Shows the progress that it is given, drawn twice a second at most."""

    EMPTY = "The training curves appear here."
    TICK = 100
    REDRAW = 0.5

    def __init__(self, theme: str) -> None:
        super().__init__(theme, TrainingFigure)
        self.curves: Curves = {}
        self._over = False

    def begin(self) -> None:
        """A training starts: load matplotlib while the training process starts as well."""
        self.curves.clear()
        self._over = False
        self._label.setText(self.EMPTY)
        self._drawer.load({"input": Curve([1, 2], [1.0, 0.1], [2], [0.1])})

    def add(self, progress: TrainProgress) -> None:
        """Record a step."""
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
        """No more steps; the last ones are still drawn."""
        self._over = True

    def best(self) -> tuple[str, int, float] | None:
        return best_of(self.curves)

    def _has_content(self) -> bool:
        return bool(self.curves)

    def _expects_more(self) -> bool:
        return not self._over

    def _data(self) -> Curves:
        return {name: curve.copy() for name, curve in self.curves.items()}
