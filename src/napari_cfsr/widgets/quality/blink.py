"""Two layers shown in turn, for the eye to find where they differ."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

import napari
from napari.layers import Image, Layer
from qtpy.QtCore import QTimer


class Blink:
    """Switches between two layers by their visibility, and puts everything back at the end.

    Other images are hidden meanwhile, for they might lie above. The name of the layer that is
    shown stands in the canvas. A layer that is removed ends it; so does the end of the widget,
    which this does not belong to.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    changed : callable
        Called whenever it starts, switches or stops.
    """

    def __init__(self, viewer: napari.viewer.Viewer, changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._changed: Callable[[], None] = changed
        self._pair: tuple[Layer, Layer] | None = None
        self._first = True  # which of the two is shown
        self._before: list[tuple[weakref.ref[Layer], bool, bool]] = []  # was, and was set to
        self._text: tuple[bool, str, str] | None = None
        self._timer = QTimer()
        self._timer.timeout.connect(self.switch)

    @property
    def active(self) -> bool:
        return self._pair is not None

    @property
    def shown(self) -> str:
        """Name of the layer that is shown now; empty if nothing runs."""
        return self._pair[not self._first].name if self._pair is not None else ""

    def start(self, first: Layer, second: Layer, seconds: float) -> None:
        """Show `first`, and the other after so many seconds, and so on."""
        self.stop()
        self._pair, self._first = (first, second), True
        self._remember()
        self._viewer.layers.events.removed.connect(self._on_removed)
        for layer in self._viewer.layers:
            if isinstance(layer, Image) and layer not in self._pair:
                layer.visible = False
        self.set_interval(seconds)
        self._show()

    def _remember(self) -> None:
        pair = self._pair or ()
        self._before = [
            (weakref.ref(x), bool(x.visible), x in pair)
            for x in self._viewer.layers
            if isinstance(x, Image)
        ]
        overlay = self._viewer.canvas.overlays.text
        self._text = (bool(overlay.visible), str(overlay.text), "")

    def set_interval(self, seconds: float) -> None:
        """Let each be shown for so many seconds; 0: until `switch` is called."""
        self._timer.stop()
        if self.active and seconds > 0:
            self._timer.start(round(1000 * seconds))

    def switch(self) -> None:
        """Show the other one, in full before the first is hidden: nothing shines through."""
        if self._pair is not None:
            self._first = not self._first
            self._show()

    def _show(self) -> None:
        if self._pair is None:
            return
        shown, hidden = self._pair if self._first else self._pair[::-1]
        shown.visible = True
        hidden.visible = False
        overlay = self._viewer.canvas.overlays.text
        overlay.text, overlay.visible = shown.name, True
        if self._text is not None:
            self._text = (*self._text[:2], shown.name)
        self._changed()

    def _on_removed(self, event: object) -> None:
        if self._pair is not None and getattr(event, "value", None) in self._pair:
            self.stop()

    def stop(self) -> None:
        """End it; what was visible is so again, unless somebody has changed it meanwhile."""
        if self._pair is None:
            return
        self._timer.stop()
        pair, self._pair = self._pair, None
        with contextlib.suppress(TypeError, ValueError):  # the viewer has let go of it already
            self._viewer.layers.events.removed.disconnect(self._on_removed)
        for reference, was, _ in self._before:
            layer = reference()
            if layer is not None and (layer in pair or not layer.visible):
                layer.visible = was
        self._before = []
        overlay = self._viewer.canvas.overlays.text
        if self._text is not None and overlay.text == self._text[2]:
            overlay.visible, overlay.text = self._text[0], self._text[1]
        self._text = None
        self._changed()

    def close(self) -> None:
        """The widget goes: put everything back and call nobody."""
        self._changed = lambda: None
        self.stop()
