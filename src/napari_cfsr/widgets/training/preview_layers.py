"""Layers that the Train widget adds: the simulated LR image, and a live preview."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import napari
import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_cfsr.core.training import Preview
from napari_cfsr.layers import (
    GRAY_LOOK,
    LOOK,
    ImageInput,
    LayerSpec,
    layer_axes,
    output_placement,
    read_layer,
)
from napari_cfsr.widgets.parts.run_widget import add_layer
from napari_cfsr.widgets.training.tasks import Simulated

GAP = 0.05  # of the width, between images side by side
PAUSE = 100  # milliseconds between two layers: napari takes tens of them to add one
ROLES = ("reference", "baseline", "delta")
PERCENTILES = (0.1, 99.9)  # of the reference, shown as black and white


def simulated_layer(simulated: Simulated, beside: Image | None) -> LayerSpec:
    """The simulated LR image over its source layer, or beside a real LR image.

    Over its source, every landmark keeps its world coordinates. Beside a real image it has the
    pixel size of that image, so that the grain of the two can be compared.
    """
    source, pixels = simulated.source, simulated.pixels
    record = {
        "simulated from": simulated.name,
        "scale": simulated.scale,
        "degradation": simulated.degradation.describe(),
    }
    arguments: dict[str, Any] = {
        "name": f"{simulated.name} simulated LR x{simulated.scale}",
        "metadata": {"napari_cfsr": record},
    }
    if source is None:
        rgb = pixels.ndim == 3
    else:
        rgb = source.rgb
        arguments |= {name: source.look[name] for name in (LOOK if rgb else LOOK + GRAY_LOOK)}
    arguments["rgb"] = rgb
    if beside is not None:
        axes = source.axes if source is not None else "YXS"[: pixels.ndim]
        pixels = _plane(pixels, axes)
        arguments |= _beside(beside)
    elif source is not None:
        arguments |= output_placement(source, 1 / simulated.factor)
    return LayerSpec(pixels, arguments)


def _plane(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    """The first plane [Y,X] or [Y,X,S]."""
    left = [name for name in axes if name in "YXS"]
    plane = pixels[tuple(slice(None) if name in "YXS" else 0 for name in axes)]
    return plane.transpose([left.index(name) for name in "YXS" if name in left])


def _beside(layer: Image) -> dict[str, Any]:
    """Transform of a plane to the right of a layer, in its pixel grid."""
    axes = layer_axes(layer)
    where = [axes.index("Y"), axes.index("X")]
    source = read_layer(layer)
    shift = source.data.shape[where[1]] * (1 + GAP)
    start = [slice(0, 1), slice(shift, shift + 1)]
    # without the rotation of a stack, which may leave the plane
    placed = _flat(source, where) if layer.ndim > 2 else source
    arguments = output_placement(replace(placed, axes="YX", region=tuple(start)), 1)
    del arguments["axis_labels"]
    return arguments


def _flat(source: ImageInput, where: list[int]) -> ImageInput:
    """Y and X of a stack."""
    return replace(
        source,
        scale=source.scale[where],
        translate=source.translate[where],
        rotate=np.eye(2),
        shear=np.zeros(1),
        affine=np.eye(3),
        units=tuple(source.units[i] for i in where),
    )


class LivePreview:
    """Reference, baseline and delta of a validation image, side by side.

    They are added with the first preview of a training, and updated later. A layer that the user
    removes is not added again; the next training reuses the others.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._layers: dict[str, weakref.ref[Image]] = {}
        self._tasks: list[Callable[[], None]] = []
        self._preview: Preview | None = None
        self._like: Layer | None = None
        self._begun = False

    def begin(self, like: Layer | None) -> None:
        """A training starts; pixels get the size of those of the layer `like`."""
        self._tasks.clear()
        self._begun = False
        self._like = like

    def end(self) -> None:
        """A training is over; the last preview is still shown."""
        if not self._tasks:
            self._preview = self._like = None

    def close(self) -> None:
        """The widget is destroyed: nothing more is added."""
        self._tasks.clear()

    def show(self, preview: Preview) -> None:
        """Show a preview, a layer at a time, so that the window can draw between them."""
        self._preview = preview
        if self._tasks:
            return  # they show this one
        self._tasks = [partial(self._show, role) for role in ROLES]
        if not self._begun:
            self._limits = _limits(preview.reference)
            self._origin = self._free_corner()
            selected = self._viewer.layers.selection.active
            active = next((layer for layer in self._viewer.layers if layer == selected), None)
            # restore the user's selection; in a turn of its own, since this takes napari long
            self._tasks += [partial(self._select, active), self._look_at]
        QTimer.singleShot(PAUSE, self._next)

    def _next(self) -> None:
        if not self._tasks:
            return
        self._tasks.pop(0)()
        if self._tasks:
            QTimer.singleShot(PAUSE, self._next)
        else:
            self._begun = True
            self._preview = None

    def _existing(self, role: str) -> Image | None:
        """The layer of that role, unless the user has removed it."""
        layer = self._layers.get(role, lambda: None)()
        return layer if layer is not None and layer in self._viewer.layers else None

    def _show(self, role: str) -> None:
        if self._preview is None:
            return
        image, name = getattr(self._preview, role), self._preview.name
        layer = self._existing(role)
        if layer is not None and layer.rgb == (image.ndim == 3):
            if not self._begun:
                self._place(layer, role, image)
            layer.data = image
            layer.metadata = {"napari_cfsr": {"preview of": name}}
        elif not self._begun:
            self._add(role, image, name)

    def _add(self, role: str, image: NDArray[np.float32], name: str) -> None:
        rgb = image.ndim == 3
        known = self._preview is None or self._preview.has_reference or role != "reference"
        arguments = {
            "name": f"preview {role if known else 'input'}",
            "rgb": rgb,
            "metadata": {"napari_cfsr": {"preview of": name}},
            **({} if rgb else {"contrast_limits": self._limits}),
            **self._placement(role, image),
        }
        layer = add_layer(self._viewer, LayerSpec(image, arguments))
        self._layers[role] = weakref.ref(layer)

    def _place(self, layer: Image, role: str, image: NDArray[np.float32]) -> None:
        """Move a layer of an earlier training, unless it fits where it is."""
        scale, units = self._pixels()
        fits = layer.data.shape == image.shape and np.allclose(layer.scale, scale)
        if not fits or tuple(str(u) for u in layer.units) != units:
            for name, value in self._placement(role, image).items():
                setattr(layer, name, value)
        if not layer.rgb:
            layer.contrast_limits = self._limits

    def _placement(self, role: str, image: NDArray[np.float32]) -> dict[str, Any]:
        """Side by side, to the right of all other layers."""
        scale, units = self._pixels()
        step = image.shape[1] * (1 + GAP) * scale[1]
        return {
            "scale": scale,
            "translate": (self._origin[0], self._origin[1] + ROLES.index(role) * step),
            "units": units,
        }

    def _pixels(self) -> tuple[tuple[float, float], tuple[str, str]]:
        """Size and units of a pixel; without units a layer would take them from the viewer."""
        layer = self._like
        if layer is None or layer.ndim < 2:
            layer = next((x for x in self._viewer.layers if x.ndim >= 2), None)
        if layer is None:
            return (1.0, 1.0), ("pixel", "pixel")
        units = [str(u) for u in layer.units[-2:]]
        return (float(layer.scale[-2]), float(layer.scale[-1])), (units[0], units[1])

    def _free_corner(self) -> tuple[float, float]:
        """Upper left corner of the free space to the right of all other layers."""
        mine = [self._existing(role) for role in ROLES]
        others = [x for x in self._viewer.layers if x not in mine and x.ndim >= 2]
        if not others:
            return 0.0, 0.0
        boxes = [x.extent.world[:, -2:] for x in others]
        low, high = np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)
        return float(low[0]), float(high[1] + GAP * (high[1] - low[1]))

    def _select(self, layer: Layer | None) -> None:
        if layer is None or layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer

    def _look_at(self) -> None:
        look_at(self._viewer, [x for role in ROLES if (x := self._existing(role)) is not None])


def look_at(viewer: napari.viewer.Viewer, layers: Sequence[Layer]) -> None:
    """Fit the canvas to these layers."""
    if not layers or viewer.dims.ndisplay != 2:
        return
    boxes = np.array([layer.extent.world[:, -2:] for layer in layers])
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    size = np.maximum(high - low, 1e-9)
    camera = viewer.scene.camera
    camera.center = (camera.center[0], *((low + high) / 2))
    camera.zoom = float((np.array(viewer.canvas.size) / size).min() / (1 + 2 * GAP))


def _limits(reference: NDArray[np.float32]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(reference, PERCENTILES))
    return (low, high) if high > low else (0.0, 1.0)
