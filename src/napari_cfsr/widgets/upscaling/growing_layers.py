"""Layers of a store in the viewer: shown while it grows, and kept when it is complete."""

from __future__ import annotations

from collections.abc import Callable

import napari
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer

from napari_cfsr.core.upscale import record_provenance
from napari_cfsr.widgets.parts.run_widget import add_layer
from napari_cfsr.workers import StoreBegun, StoreOutcome

REFRESH = 1000  # milliseconds between two refreshes
GROWING = " (growing)"  # ends the names of layers that are not complete


class GrowingLayers(QObject):
    """The layers of one run that writes a store; refreshed until the parent is destroyed."""

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: dict[str, Layer] = {}
        self._begun: StoreBegun | None = None
        self._seen = 0
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH)
        self._timer.timeout.connect(self.refresh)

    def begin(self, begun: StoreBegun) -> None:
        """Add the layers of a store that was created."""
        from napari_cfsr.layers import growing_layers

        self._begun, self._seen = begun, begun.preview.count
        specs = growing_layers(begun.request.image, begun.preview, begun.outputs, begun.scale)
        for name, spec in specs.items():
            spec.arguments["name"] += GROWING
            self._layers[name] = add_layer(self._viewer, spec)
        self._timer.start()

    def refresh(self) -> None:
        """Show what was written since the last time."""
        if self._begun is None or self._begun.preview.count == self._seen:
            return
        self._seen = self._begun.preview.count
        for layer in self._existing().values():
            _show_again(layer)

    def finish(self, outcome: StoreOutcome) -> None:
        """Everything is written: the layers are complete."""
        from napari_cfsr.layers import difference_layer

        begun, image = outcome.begun, outcome.begun.request.image
        existing = self._existing()
        self._end()
        if "difference" in begun.outputs and (existing or begun.outputs == ("difference",)):
            spec = difference_layer(image, begun.preview, begun.scale, outcome.limits)
            existing["difference"] = add_layer(self._viewer, spec)
        path = str(outcome.done.path)
        record = record_provenance(outcome.done.result, image.name, image.expression, path)
        for name, layer in existing.items():
            layer.name = layer.name.replace(GROWING, "")
            layer.metadata = {"napari_cfsr": {**record, "output": name, "store": path}}
            _show_again(layer)

    def discard(self) -> None:
        """Remove the layers of an unfinished run, so that nobody takes them for a result."""
        existing = self._existing()
        self._end()
        for layer in existing.values():
            self._viewer.layers.remove(layer)

    def cleanup(self) -> Callable[[], None]:
        """A function that does the same after this object was destroyed."""
        viewer, layers = self._viewer, self._layers

        def remove() -> None:
            for layer in list(layers.values()):
                if layer in viewer.layers:
                    viewer.layers.remove(layer)
            layers.clear()

        # later: the widget that is being destroyed still follows the layers
        return lambda: QTimer.singleShot(0, remove)

    def _existing(self) -> dict[str, Layer]:
        """The layers that the user has not removed."""
        return {name: x for name, x in self._layers.items() if x in self._viewer.layers}

    def _end(self) -> None:
        self._timer.stop()
        self._layers.clear()
        self._begun = None


def _show_again(layer: Layer) -> None:
    """Let napari read the pixels again: it caches those of the level used for the thumbnail.

    Setting the data clears that cache, even with the same data; a refresh alone does not.
    """
    layer.data = list(layer.data) if layer.multiscale else layer.data
