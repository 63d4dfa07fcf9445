"""A plot of PSNR and SSIM over the slices of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtCore import QSize

from napari_cfsr.core.metrics import QualityTable, short_names
from napari_cfsr.widgets.parts.threaded_plot import FONT, SIZE, Look, PlotFigure, ThreadedPlot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 0.62 * FONT / 72  # inches
BESIDE = 0.15  # inches beside a number
LETTERS = 40  # of a name in the legend
NARROW = 16  # letters of names of which two fit side by side
COLORS = {  # distinguishable for the colour-blind, on dark and on light ground
    "dark": ("#f5a04a", "#5db3ff", "#4fd1a5", "#f2e34c", "#e58ac0", "#c8c8c8"),
    "light": ("#b85a00", "#0b63b8", "#007a56", "#8a7400", "#a3337a", "#505050"),
}
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class SliceCurves:
    """What is plotted."""

    curves: tuple[tuple[str, Float64, Float64], ...]  # name, PSNR and SSIM of each slice
    positions: Float64  # of the slices on the axis
    axis: str  # its name, such as `Z`
    emphasis: int | None  # the curve that stands out


class SliceFigure(PlotFigure):
    """PSNR above, SSIM below, and the names of the layers."""

    def _plot(self, data: SliceCurves, look: Look) -> None:
        from matplotlib.ticker import MaxNLocator

        colors = get_theme(look.theme)
        text = colors.text.as_hex()
        for i, (axes, title) in enumerate(zip(self._axes, ("PSNR (dB)", "SSIM"), strict=True)):
            axes.clear()
            self._curves(axes, i, data, COLORS[colors.type])
            axes.set_title(title, fontsize=FONT, color=text, loc="left", pad=3)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        self._axes[0].tick_params(labelbottom=False)
        self._axes[1].set_xlabel(data.axis, fontsize=FONT, labelpad=1)
        self._axes[1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        self._lay_out(self._legend(text))

    def _curves(self, axes: Axes, which: int, data: SliceCurves, colors: tuple[str, ...]) -> None:
        for i, (name, *both) in enumerate(data.curves):
            values = both[which]
            if not len(values):
                continue  # it could not be compared
            axes.plot(
                data.positions,
                np.where(np.isfinite(values), values, np.nan),  # infinite: a gap
                color=colors[i % len(colors)],
                linewidth=2.2 if i == data.emphasis else 1.1,
                marker="." if len(values) <= 50 else "",
                label=name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…",
                zorder=3 if i == data.emphasis else 2,
            )

    def _legend(self, text: str) -> float:
        """Add the legend; its height in inches."""
        for legend in list(self._figure.legends):
            legend.remove()
        handles, names = self._axes[1].get_legend_handles_labels()
        columns = 2 if all(len(name) <= NARROW for name in names) else 1
        self._figure.legend(
            handles, names, loc="lower left", bbox_to_anchor=(0.02, 0.0), fontsize=FONT,
            frameon=False, labelcolor=text, ncols=columns, borderpad=0, labelspacing=0.2,
            handlelength=1.5,
        )  # fmt: skip
        return 0.165 * -(-len(names) // columns)

    def _lay_out(self, legend: float) -> None:
        """Make room for the numbers on the left and the legend below."""
        width, height = self._figure.get_size_inches()
        left = max(0.16, max(_number_width(axes) for axes in self._axes) / width)
        self._figure.subplots_adjust(left, (0.37 + legend) / height, 0.97, 0.93, hspace=0.3)


def _number_width(axes: Axes) -> float:
    """Inches for the numbers on the left: those that are nearly equal have many digits."""
    numbers = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
    return max((len(number) for number in numbers), default=0) * LETTER + BESIDE


class SlicePlot(ThreadedPlot):
    """Shows the quality table of a stack."""

    def __init__(self, theme: str) -> None:
        super().__init__(theme, SliceFigure)
        self._table: QualityTable | None = None
        self._emphasis: int | None = None

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return SIZE

    def show_table(self, table: QualityTable | None) -> None:
        """Plot this table; None: nothing."""
        self._table = table
        self._change()

    def emphasize(self, row: int | None) -> None:
        """Make the curve of a layer stand out."""
        if row != self._emphasis:
            self._emphasis = row
            self._change()

    def _has_content(self) -> bool:
        return self._table is not None

    def _data(self) -> SliceCurves:
        table = self._table
        rows = table.rows if table is not None else ()
        names = short_names([row.name for row in rows])
        curves = tuple(
            (name, np.array([f.psnr for f in row.figures]), np.array([f.ssim for f in row.figures]))
            for name, row in zip(names, rows, strict=True)
        )
        axis, positions = _positions(table.slice_names if table is not None else ())
        return SliceCurves(curves, positions, axis, self._emphasis)


def _positions(slice_names: tuple[str, ...]) -> tuple[str, Float64]:
    """Axis and positions of slices such as `Z=3`; for those on several axes, their number."""
    pairs = [name.split("=") for name in slice_names]
    if all(len(pair) == 2 for pair in pairs) and len({pair[0] for pair in pairs}) == 1:
        return pairs[0][0], np.array([float(pair[1]) for pair in pairs])
    return "slice", np.arange(len(slice_names), dtype=float)
