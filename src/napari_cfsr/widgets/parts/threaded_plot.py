"""Plots that matplotlib draws in a thread.

It takes seconds to load, and tens of milliseconds for a drawing, or far more on a busy machine. The
window's thread only copies the picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

THREAD = "napari-cfsr plot"
SIZE = QSize(240, 280)  # at least

Picture = NDArray[np.uint8]  # [Y,X,4], RGBA


class Canvas(Protocol):
    """Draws one picture after the other; for one thread at a time."""

    def draw(self, drawing: Any) -> Picture: ...


class ThreadedPlot(QWidget):
    """Draws when something has changed, and only while it can be seen.

    Parameters
    ----------
    theme : str
        Name of napari's theme.
    canvas : callable
        Makes the canvas, in the thread that draws: importing it takes long.
    empty : str
        Shown until there is a picture.
    tick : int
        Milliseconds between two looks at whether there is something to do.
    redraw : float
        Seconds between two drawings at least.
    """

    def __init__(
        self,
        theme: str,
        canvas: Callable[[], Canvas],
        empty: str = "",
        tick: int = 50,
        redraw: float = 0.0,
    ) -> None:
        super().__init__()
        self.drawn = 0  # pictures shown
        self._theme = theme
        self._empty = empty
        self._changed = False
        self._painter = Painter(canvas, redraw)
        self._label = QLabel(empty)
        self._label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._label.setWordWrap(True)
        self._label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._label)
        self._timer = QTimer(self)
        self._timer.setInterval(tick)
        self._timer.timeout.connect(self._on_time)

    # for the plot of a kind

    def _drawing(self) -> Any:
        """All that a drawing needs, copied: it goes to a thread."""
        raise NotImplementedError

    def _has_content(self) -> bool:
        """Whether there is anything to draw."""
        raise NotImplementedError

    def _expects_more(self) -> bool:
        """Whether more is about to come, so that it is worth looking on."""
        return False

    # what all have in common

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

    def _place(self) -> tuple[tuple[int, int], float]:
        """Width and height of the picture, and pixels of the screen in one of them."""
        return (self._label.width(), self._label.height()), self.devicePixelRatioF()

    def _clear(self) -> None:
        """Show that there is nothing yet."""
        self._label.setText(self._empty)

    def _change(self) -> None:
        """There is something new to draw."""
        self._changed = self._has_content()
        if self._changed and not self._timer.isActive():
            self._timer.start()

    def _on_time(self) -> None:
        if self._painter.busy:
            return
        self._show(self._painter.take())
        wanted = self._changed and self.isVisible() and self._has_content()
        if wanted and self._painter.rested:
            self._changed = False
            self._painter.start(self._drawing())
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


class Painter:
    """Draws one picture after the other, each in a thread.

    Parameters
    ----------
    canvas, redraw
        As for `ThreadedPlot`.
    """

    def __init__(self, canvas: Callable[[], Canvas], redraw: float) -> None:
        self._make, self._redraw = canvas, redraw
        self._canvas: Canvas | None = None
        self._thread: threading.Thread | None = None
        self._loaded = False
        self._picture: Picture | str | None = None
        self._began = -redraw

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def rested(self) -> bool:
        return time.perf_counter() - self._began >= self._redraw

    def load(self, drawing: Any) -> None:
        """Load what the first drawing needs, by a drawing that is not shown."""
        if not self._loaded:
            self._loaded = True
            self._run(drawing, show=False)

    def start(self, drawing: Any) -> None:
        self._began = time.perf_counter()
        self._run(drawing, show=True)

    def take(self) -> Picture | str | None:
        """The picture that was drawn last, or why there is none; None if it was taken already."""
        picture, self._picture = self._picture, None
        return picture

    def _run(self, drawing: Any, show: bool) -> None:
        arguments = (drawing, show)
        self._thread = threading.Thread(target=self._draw, args=arguments, daemon=True, name=THREAD)
        self._thread.start()

    def _draw(self, drawing: Any, show: bool) -> None:
        try:
            if self._canvas is None:
                self._canvas = self._make()
            picture = self._canvas.draw(drawing)
            self._picture = picture if show else None
        except Exception as error:  # whatever it is, all else goes on without a plot
            self._picture = f"{type(error).__name__}: {error}"
