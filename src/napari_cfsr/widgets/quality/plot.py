"""A plot of PSNR and SSIM over the slices of a stack, drawn in a thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize

from napari_cfsr.core.metrics import QualityTable, short_names
from napari_cfsr.widgets.parts.threaded_plot import SIZE, Canvas, ThreadedPlot

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class SliceDrawing:
    """All that a drawing needs.

    Attributes
    ----------
    curves : tuple of (str, array, array)
        Name, PSNR and SSIM of each slice.
    places : array
        Where the slices are on the axis.
    axis : str
        Its name, such as `Z`.
    emphasis : int or None
        The curve that is to stand out.
    theme : str
        Name of napari's theme.
    size : (int, int)
        Width and height.
    ratio : float
        Pixels of the screen in one of `size`.
    """

    curves: tuple[tuple[str, Float64, Float64], ...]
    places: Float64
    axis: str
    emphasis: int | None
    theme: str
    size: tuple[int, int]
    ratio: float


def places_of(slice_names: tuple[str, ...]) -> tuple[str, Float64]:
    """Axis and places of slices such as `Z=3`; of those on several axes, their number."""
    pairs = [name.split("=") for name in slice_names]
    if all(len(pair) == 2 for pair in pairs) and len({pair[0] for pair in pairs}) == 1:
        return pairs[0][0], np.array([float(pair[1]) for pair in pairs])
    return "slice", np.arange(len(slice_names), dtype=float)


class SlicePlot(ThreadedPlot):
    """Shows the table of a stack.

    Parameters
    ----------
    theme : str
        Name of napari's theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__(theme, _canvas)
        self._table: QualityTable | None = None
        self._emphasis: int | None = None

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return SIZE

    def show_table(self, table: QualityTable | None) -> None:
        """Draw this; None: nothing."""
        self._table = table
        self._change()

    def emphasize(self, row: int | None) -> None:
        """Let a layer stand out."""
        if row != self._emphasis:
            self._emphasis = row
            self._change()

    def _has_content(self) -> bool:
        return self._table is not None

    def _drawing(self) -> SliceDrawing:
        table = self._table
        rows = table.rows if table is not None else ()
        names = short_names([row.name for row in rows])
        curves = tuple(
            (
                name,
                np.array([f.psnr for f in row.figures]),
                np.array([f.ssim for f in row.figures]),
            )
            for name, row in zip(names, rows, strict=True)
        )
        axis, places = places_of(table.slice_names if table is not None else ())
        return SliceDrawing(curves, places, axis, self._emphasis, self._theme, *self._place())


def _canvas() -> Canvas:
    from napari_cfsr.widgets.quality.curves import SliceCurves

    return SliceCurves()
