"""Plots that matplotlib draws in a thread.

Importing matplotlib takes seconds, and a drawing tens of milliseconds, or far more on a busy
machine. The GUI thread only copies the picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THREAD = "napari-cfsr plot"
SIZE = QSize(240, 280)  # minimum
FONT = 8  # points
DPI = 100

Picture = NDArray[np.uint8]  # [Y,X,4], RGBA


@dataclass(frozen=True)
class Look:
    """How a plot is drawn."""

    theme: str  # name of napari's theme
    size: tuple[int, int]  # width and height
    ratio: float  # screen pixels per pixel of `size`


class PlotFigure:
    """Two axes above each other in a theme of napari, drawn again and again by one thread.

    Subclasses fill the axes in `_plot`.
    """

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._figure = Figure(dpi=DPI)
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes: tuple[Axes, Axes] = tuple(self._figure.subplots(2, 1, sharex=True))

    def _plot(self, data: Any, look: Look) -> None:
        raise NotImplementedError

    def draw(self, data: Any, look: Look) -> Picture:
        """A picture of the data."""
        self._figure.set_dpi(DPI * look.ratio)
        width, height = (max(100, n) / DPI for n in look.size)
        self._figure.set_size_inches(width, height)
        self._plot(data, look)
        self._set_colors(look.theme)
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]

    def _set_colors(self, theme: str) -> None:
        colors = get_theme(theme)
        ground, text, grid = (
            color.as_hex() for color in (colors.background, colors.text, colors.secondary)
        )
        self._figure.set_facecolor(ground)
        for axes in self._axes:
            axes.set_facecolor(ground)
            axes.tick_params(colors=text, labelsize=FONT, length=3)
            offsets = axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()
            for label in (axes.xaxis.label, *offsets):
                label.set_color(text)
                label.set_fontsize(FONT)
            axes.grid(color=grid, linewidth=0.6)
            axes.set_axisbelow(True)
            for spine in axes.spines.values():
                spine.set_color(grid)


class ThreadedPlot(QWidget):
    """Draws after a change, and only while it is visible.

    The thread that draws also makes the figure: importing matplotlib takes long.
    """

    EMPTY: ClassVar[str] = ""  # shown until there is a picture
    TICK: ClassVar[int] = 50  # milliseconds between two checks for something to do
    REDRAW: ClassVar[float] = 0.0  # minimum seconds between two drawings

    def __init__(self, theme: str, figure: Callable[[], PlotFigure]) -> None:
        super().__init__()
        self.drawn = 0  # pictures shown
        self._theme = theme
        self._changed = False
        self._drawer = DrawingThread(figure, self.REDRAW)
        self._label = QLabel(self.EMPTY)
        self._label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._label.setWordWrap(True)
        self._label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._label)
        self._timer = QTimer(self)
        self._timer.setInterval(self.TICK)
        self._timer.timeout.connect(self._on_time)

    # what subclasses define

    def _data(self) -> Any:
        """What is plotted, copied: it goes to a thread."""
        raise NotImplementedError

    def _has_content(self) -> bool:
        """Whether there is anything to draw."""
        raise NotImplementedError

    def _expects_more(self) -> bool:
        """Whether more is about to come, so that checking goes on."""
        return False

    # shared by all

    def set_theme(self, theme: str) -> None:
        """Draw in the colours of another theme."""
        self._theme = theme
        self._change()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return SIZE

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        self._change()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().resizeEvent(event)
        self._change()

    def _change(self) -> None:
        """There is something new to draw."""
        self._changed = self._has_content()
        if self._changed and not self._timer.isActive():
            self._timer.start()

    def _on_time(self) -> None:
        if self._drawer.busy:
            return
        self._show(self._drawer.take())
        wanted = self._changed and self.isVisible() and self._has_content()
        if wanted and self._drawer.rested:
            self._changed = False
            size = self._label.width(), self._label.height()
            self._drawer.draw(self._data(), Look(self._theme, size, self.devicePixelRatioF()))
        elif not wanted and not self._expects_more():
            self._timer.stop()

    def _show(self, picture: Picture | str | None) -> None:
        if isinstance(picture, str):
            self._label.setText(f"There is no plot: {picture}")
        elif picture is not None:
            height, width = picture.shape[:2]
            kind = QImage.Format.Format_RGBA8888
            image = QImage(picture.tobytes(), width, height, 4 * width, kind)
            image.setDevicePixelRatio(self.devicePixelRatioF())
            self._label.setPixmap(QPixmap.fromImage(image))
            self.drawn += 1


class DrawingThread:
    """Draws one picture after the other, each in a thread, at least `redraw` seconds apart."""

    def __init__(self, figure: Callable[[], PlotFigure], redraw: float) -> None:
        self._make, self._redraw = figure, redraw
        self._figure: PlotFigure | None = None
        self._thread: threading.Thread | None = None
        self._picture: Picture | str | None = None
        self._began = -redraw

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def rested(self) -> bool:
        return time.perf_counter() - self._began >= self._redraw

    def load(self, data: Any) -> None:
        """Load everything the first picture needs, by a picture that is not shown."""
        if self._thread is None:
            self._start(data, Look("dark", (300, 300), 1.0), show=False)

    def draw(self, data: Any, look: Look) -> None:
        self._began = time.perf_counter()
        self._start(data, look, show=True)

    def take(self) -> Picture | str | None:
        """The last picture, or why there is none; None if it was taken already."""
        picture, self._picture = self._picture, None
        return picture

    def _start(self, *arguments: Any, show: bool) -> None:
        arguments = (*arguments, show)
        self._thread = threading.Thread(target=self._draw, args=arguments, daemon=True, name=THREAD)
        self._thread.start()

    def _draw(self, data: Any, look: Look, show: bool) -> None:
        try:
            if self._figure is None:
                self._figure = self._make()
            picture = self._figure.draw(data, look)
            self._picture = picture if show else None
        except Exception as error:  # whatever it is, everything else works without a plot
            self._picture = f"{type(error).__name__}: {error}"
