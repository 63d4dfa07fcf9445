"""The curves of a training, drawn with matplotlib. Importing this takes long."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from napari.utils.theme import get_theme
from numpy.typing import NDArray

from napari_cfsr.widgets.training.plot import Curve, Drawing

FONT = 8  # points
DPI = 100
COLORS = {  # of the placements, on dark and on light ground
    "dark": {"input": "#f5a04a", "output": "#5db3ff"},
    "light": {"input": "#b85a00", "output": "#0b63b8"},
}


class Curves:
    """Two axes above each other: loss, and gain over the backbone. For one thread at a time."""

    def __init__(self) -> None:
        self._figure = Figure(dpi=DPI)
        self._canvas = FigureCanvasAgg(self._figure)
        self._figure.subplots_adjust(0.17, 0.1, 0.97, 0.94, hspace=0.2)
        self._loss, self._gain = self._figure.subplots(2, 1, sharex=True)
        self._loss.set_yscale("log")
        self._loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
        self._loss.yaxis.set_minor_locator(NullLocator())
        self._loss.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        self._gain.yaxis.set_major_locator(MaxNLocator(4))
        self._gain.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        self._gain.set_xlabel("step", fontsize=FONT)
        self._gain.xaxis.set_label_coords(0.5, -0.11)  # else it is measured each time
        _above(self._loss, 0, "left", "training loss")
        _above(self._gain, 0, "left", "gain (dB)")
        self._zero = self._gain.axhline(0, linewidth=1, linestyle="--")
        (self._star,) = self._gain.plot([], [], marker="*", markersize=10, linestyle="", zorder=3)
        self._best = _above(self._gain, 1, "right", "")
        self._names = {
            "input": _above(self._loss, 0.7, "right", ""),
            "output": _above(self._loss, 1, "right", ""),
        }
        self._lines: dict[str, tuple[Any, Any]] = {}
        self._theme = ""

    def draw(self, drawing: Drawing) -> NDArray[np.uint8]:
        """The picture [height,width,4], RGBA."""
        width, height = (max(100, n) / DPI for n in drawing.size)
        self._figure.set_dpi(DPI * drawing.ratio)
        self._figure.set_size_inches(width, height)
        if drawing.curves.keys() != self._lines.keys():
            self._make_lines(drawing.curves)
        self._set_colors(drawing.theme)
        for placement, curve in drawing.curves.items():
            loss, gain = self._lines[placement]
            loss.set_data(*curve.thinned())
            gain.set_data(curve.gain_steps, curve.gains)
        best = drawing.best
        self._star.set_data(*(([], []) if best is None else ([best[1]], [best[2]])))
        self._best.set_text("" if best is None else f"best {best[2]:+.2f} dB")
        for axes in (self._loss, self._gain):
            axes.relim()
            axes.autoscale_view()
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]

    def _make_lines(self, curves: dict[str, Curve]) -> None:
        for lines in self._lines.values():
            for line in lines:
                line.remove()
        self._lines = {}
        for placement in curves:
            (loss,) = self._loss.plot([], [], linewidth=1)
            (gain,) = self._gain.plot([], [], linewidth=1.3, marker=".")
            self._lines[placement] = loss, gain
        for placement, name in self._names.items():
            name.set_text(f"on {placement}" if placement in curves else "")
        self._theme = ""

    def _set_colors(self, theme: str) -> None:
        """Those of a theme of napari."""
        if theme == self._theme:
            return
        self._theme = theme
        colors = get_theme(theme)
        ground, text = colors.background.as_hex(), colors.text.as_hex()
        self._figure.set_facecolor(ground)
        for axes in (self._loss, self._gain):
            _color(axes, ground, text, colors.secondary.as_hex())
        self._zero.set_color(text)
        self._star.set_color(text)
        for placement, name in self._names.items():
            for artist in (name, *self._lines.get(placement, ())):
                artist.set_color(COLORS[colors.type][placement])


def _above(axes: Axes, x: float, side: Literal["left", "right"], text: str) -> Text:
    """Text above axes; cheaper to draw than a legend."""
    return axes.text(x, 1.02, text, transform=axes.transAxes, fontsize=FONT, ha=side, va="bottom")


def _color(axes: Axes, ground: str, text: str, grid: str) -> None:
    axes.set_facecolor(ground)
    axes.tick_params(colors=text, labelsize=FONT, length=3)
    for label in (axes.xaxis.label, *axes.texts):
        label.set_color(text)
    axes.grid(color=grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(grid)
