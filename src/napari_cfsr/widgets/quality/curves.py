"""PSNR and SSIM over the slices of a stack, drawn with matplotlib. Importing this takes long."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from napari.utils.theme import get_theme
from numpy.typing import NDArray

from napari_cfsr.widgets.quality.plot import SliceDrawing

FONT = 8  # points
DPI = 100
LETTER = 0.62 * FONT / 72  # inches
BESIDE = 0.15  # inches beside a number
LETTERS = 40  # of a name in the legend
NARROW = 16  # letters of names of which two go side by side
COLORS = {  # told apart by the colour-blind, on dark and on light ground
    "dark": ("#f5a04a", "#5db3ff", "#4fd1a5", "#f2e34c", "#e58ac0", "#c8c8c8"),
    "light": ("#b85a00", "#0b63b8", "#007a56", "#8a7400", "#a3337a", "#505050"),
}


class SliceCurves:
    """Two axes above each other, and the names of the layers. For one thread at a time."""

    def __init__(self) -> None:
        self._figure = Figure(dpi=DPI)
        self._canvas = FigureCanvasAgg(self._figure)

    def draw(self, drawing: SliceDrawing) -> NDArray[np.uint8]:
        """The picture [height,width,4], RGBA."""
        width, height = (max(100, n) / DPI for n in drawing.size)
        self._figure.clear()
        self._figure.set_dpi(DPI * drawing.ratio)
        self._figure.set_size_inches(width, height)
        colors = get_theme(drawing.theme)
        ground, text = colors.background.as_hex(), colors.text.as_hex()
        self._figure.set_facecolor(ground)
        shared = self._figure.subplots(2, 1, sharex=True)
        for i, (axes, title) in enumerate(zip(shared, ("PSNR (dB)", "SSIM"), strict=True)):
            self._curves(axes, i, drawing, COLORS[colors.type])
            axes.set_title(title, fontsize=FONT, color=text, loc="left", pad=3)
            _color(axes, ground, text, colors.secondary.as_hex())
        bottom = shared[-1]
        bottom.set_xlabel(drawing.axis, fontsize=FONT, color=text, labelpad=1)
        bottom.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        handles, names = bottom.get_legend_handles_labels()
        columns = 2 if all(len(name) <= NARROW for name in names) else 1
        space = 0.165 * -(-len(names) // columns) / height
        self._figure.legend(
            handles, names, loc="lower left", bbox_to_anchor=(0.02, 0.0), fontsize=FONT,
            frameon=False, labelcolor=text, ncols=columns, borderpad=0, labelspacing=0.2,
            handlelength=1.5,
        )  # fmt: skip
        left = max(0.16, max(_room(axes) for axes in shared) / width)
        self._figure.subplots_adjust(left, 0.37 / height + space, 0.97, 0.93, hspace=0.3)
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]

    def _curves(
        self, axes: Axes, which: int, drawing: SliceDrawing, colors: tuple[str, ...]
    ) -> None:
        for i, (name, *both) in enumerate(drawing.curves):
            values = both[which]
            if not len(values):
                continue  # it could not be compared
            axes.plot(
                drawing.places,
                np.where(np.isfinite(values), values, np.nan),  # infinite: a gap
                color=colors[i % len(colors)],
                linewidth=2.2 if i == drawing.emphasis else 1.1,
                marker="." if len(values) <= 50 else "",
                label=name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…",
                zorder=3 if i == drawing.emphasis else 2,
            )
        axes.yaxis.set_major_locator(MaxNLocator(4))


def _room(axes: Axes) -> float:
    """Inches for the numbers on the left: those that are nearly equal have many digits."""
    numbers = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
    return max((len(number) for number in numbers), default=0) * LETTER + BESIDE


def _color(axes: Axes, ground: str, text: str, grid: str) -> None:
    axes.set_facecolor(ground)
    axes.tick_params(colors=text, labelsize=FONT, length=3)
    for offset in (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
        offset.set_color(text)
        offset.set_fontsize(FONT)
    axes.grid(color=grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(grid)
