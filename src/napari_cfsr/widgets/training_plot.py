"""A live plot of a training: its loss, and what is gained over the frozen backbone."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_cfsr.core.trained import TrainProgress

THREAD = "napari-cfsr plot"
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


class TrainingPlot(QWidget):
    """Shows what it is told, drawn twice a second at most, and only while it can be seen.

    matplotlib draws in a thread: it takes seconds to load, and tens of milliseconds for a drawing,
    or far more on a busy machine. The window's thread only copies the picture.

    Parameters
    ----------
    theme : str
        Name of napari's theme.
    """

    def __init__(self, theme: str) -> None:
        super().__init__()
        self.curves: dict[str, Curve] = {}
        self.drawn = 0  # pictures shown
        self._theme = theme
        self._changed = self._over = False
        self._painter = _Painter()
        self._label = QLabel(EMPTY)
        self._label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._label.setWordWrap(True)
        self._label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._label)
        self._timer = QTimer(self)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._on_time)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(240, 280)

    def begin(self) -> None:
        """A training begins."""
        self.curves.clear()
        self._over = False
        self._label.setText(EMPTY)
        self._painter.load()

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
        """There is something new to draw, unless nothing was trained yet."""
        if self.curves or not self._over:
            self._changed = True
        if self.curves and not self._timer.isActive():
            self._timer.start()

    def _on_time(self) -> None:
        if self._painter.busy:
            return
        self._show(self._painter.take())
        if self._changed and self.isVisible() and self._painter.rested:
            self._changed = False
            curves = {name: curve.copy() for name, curve in self.curves.items()}
            size = self._label.width(), self._label.height()
            ratio = self.devicePixelRatioF()
            self._painter.start(Drawing(curves, self.best(), self._theme, size, ratio))
        elif self._over and not (self._changed and self.isVisible()):
            self._timer.stop()

    def _show(self, picture: NDArray[np.uint8] | str | None) -> None:
        if isinstance(picture, str):
            self._label.setText(f"There is no plot: {picture}")
        elif picture is not None:
            height, width = picture.shape[:2]
            kind = QImage.Format.Format_RGBA8888
            image = QImage(picture.tobytes(), width, height, 4 * width, kind)
            image.setDevicePixelRatio(self.devicePixelRatioF())
            self._label.setPixmap(QPixmap.fromImage(image))
            self.drawn += 1


class _Painter:
    """Draws one picture after the other, each in a thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loaded = False
        self._picture: NDArray[np.uint8] | str | None = None
        self._curves: Any = None
        self._began = -REDRAW

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def rested(self) -> bool:
        return time.perf_counter() - self._began >= REDRAW

    def load(self) -> None:
        """Load what the first drawing needs, while the training process starts as well."""
        if not self._loaded:
            self._loaded = True
            curve = Curve([1, 2], [1.0, 0.1], [2], [0.1])
            drawing = Drawing({"input": curve}, ("input", 2, 0.1), "dark", (300, 300), 1.0)
            self._run(drawing, show=False)

    def start(self, drawing: Drawing) -> None:
        self._began = time.perf_counter()
        self._run(drawing, show=True)

    def _run(self, drawing: Drawing, show: bool) -> None:
        arguments = (drawing, show)
        self._thread = threading.Thread(target=self._draw, args=arguments, daemon=True, name=THREAD)
        self._thread.start()

    def take(self) -> NDArray[np.uint8] | str | None:
        """The picture that was drawn last, or why there is none; None if it was taken already."""
        picture, self._picture = self._picture, None
        return picture

    def _draw(self, drawing: Drawing, show: bool) -> None:
        try:
            if self._curves is None:
                from napari_cfsr.widgets.training_canvas import Curves

                self._curves = Curves()
            picture = self._curves.draw(drawing)
            self._picture = picture if show else None
        except Exception as error:  # whatever it is, the training goes on without a plot
            self._picture = f"{type(error).__name__}: {error}"
