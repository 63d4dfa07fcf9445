"""A plot of PSNR and SSIM over the slices of a stack, drawn in a thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_cfsr.core.quality_table import QualityTable, short_names

THREAD = "napari-cfsr quality plot"
TICK = 50  # milliseconds between two looks at whether a drawing is ready
SIZE = QSize(240, 280)


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


class SlicePlot(QWidget):
    """Draws when something has changed and it can be seen.

    matplotlib takes seconds to load and tens of milliseconds to draw: in a thread, while the
    window's thread only copies the picture.

    Parameters
    ----------
    theme : str
        Name of napari's theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.drawn = 0  # pictures shown
        self._theme = theme
        self._table: QualityTable | None = None
        self._emphasis: int | None = None
        self._changed = False
        self._thread: threading.Thread | None = None
        self._picture: NDArray[np.uint8] | str | None = None
        self._canvas: Any = None
        self._label = QLabel()
        self._label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._label.setWordWrap(True)
        self._label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._label)
        self._timer = QTimer(self)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._on_time)
        self.setToolTip("PSNR and SSIM of each slice; the line of the selected layer is thicker.")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return SIZE

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
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

    def set_theme(self, theme: str) -> None:
        """Draw in the colours of another theme."""
        self._theme = theme
        self._change()

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._change()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._change()

    def _change(self) -> None:
        self._changed = self._table is not None
        if self._changed and not self._timer.isActive():
            self._timer.start()

    def _on_time(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._show()
        if self._changed and self.isVisible():
            self._changed = False
            arguments = (self._drawing(),)
            self._thread = threading.Thread(
                target=self._draw, args=arguments, daemon=True, name=THREAD
            )
            self._thread.start()
        else:
            self._timer.stop()

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
        size = self._label.width(), self._label.height()
        ratio = self.devicePixelRatioF()
        return SliceDrawing(curves, places, axis, self._emphasis, self._theme, size, ratio)

    def _show(self) -> None:
        picture, self._picture = self._picture, None
        if isinstance(picture, str):
            self._label.setText(f"There is no plot: {picture}")
        elif picture is not None:
            height, width = picture.shape[:2]
            kind = QImage.Format.Format_RGBA8888
            image = QImage(picture.tobytes(), width, height, 4 * width, kind)
            image.setDevicePixelRatio(self.devicePixelRatioF())
            self._label.setPixmap(QPixmap.fromImage(image))
            self.drawn += 1

    def _draw(self, drawing: SliceDrawing) -> None:
        try:
            if self._canvas is None:
                from napari_cfsr.widgets.quality_canvas import SliceCurves

                self._canvas = SliceCurves()
            self._picture = self._canvas.draw(drawing)
        except Exception as error:  # whatever it is, the table is there without a plot
            self._picture = f"{type(error).__name__}: {error}"
