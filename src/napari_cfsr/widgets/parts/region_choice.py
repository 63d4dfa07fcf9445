"""Which part of a layer is meant: all of it, what the canvas shows, a box, or the current slice."""

from __future__ import annotations

import napari
from napari.layers import Image, Layer

from napari_cfsr.layers import (
    ImageInput,
    Region,
    box_region,
    current_slices,
    layer_shape,
    read_layer,
    visible_region,
)

VIEW, BOX = "current view", "box of a shape or label"
SLICES = ("all slices", "current slice")
NO_BOX = "Add a shapes or labels layer to select a box."

TOOLTIPS = {"box_layer": "The selected shapes, or all if none is selected; or the selected label."}


def chosen_region(
    viewer: napari.viewer.Viewer, layer: Image, region: str, box: Layer | None, slices: str
) -> Region:
    """The part of a layer that a form describes.

    `region` is `VIEW`, `BOX` (of the shapes or labels in `box`), or anything else for the whole
    layer; `slices` is one of `SLICES`.
    """
    displayed = displayed_axes(viewer, layer)
    part: Region = tuple(slice(0, n) for n in layer_shape(layer))
    if region == VIEW:
        part = visible_region(layer, displayed, canvas_box(viewer))
    elif region == BOX and box is not None:
        part = box_region(layer, box)
    if slices == SLICES[1]:
        part = current_slices(layer, part, viewer.dims.point, displayed)
    return part


def shown_slice(viewer: napari.viewer.Viewer, layer: Image) -> ImageInput:
    """The slice of a layer that the sliders show."""
    return read_layer(layer, chosen_region(viewer, layer, "", None, SLICES[1]))


def displayed_axes(viewer: napari.viewer.Viewer, layer: Image) -> list[int]:
    """Dimensions of a layer that the canvas shows, counted from the last as napari does."""
    extra = viewer.dims.ndim - layer.ndim
    return [d - extra for d in viewer.dims.displayed if d >= extra]


def canvas_box(viewer: napari.viewer.Viewer) -> tuple[list[float], list[float]]:
    """Corners of the canvas in world coordinates, for a 2D display."""
    camera = viewer.scene.camera
    sides = zip(camera.center[-2:], viewer.canvas.size, strict=True)
    halves = [(centre, length / camera.zoom / 2) for centre, length in sides]
    return [c - half for c, half in halves], [c + half for c, half in halves]
