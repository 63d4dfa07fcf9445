"""Parts of a layer: the current view, a box of another layer, the current slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Shapes
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError
from napari_cfsr.layers.image_input import (
    Region,
    layer_axes,
    layer_shape,
    layer_to_world,
    level_zero,
)

if TYPE_CHECKING:
    from napari.layers import Layer

QUICK_PIXELS = 2**24  # labels that are searched while the user fills in a form

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]  # low and high corner of a box


def visible_region(
    layer: Image, displayed: Sequence[int], canvas: tuple[Sequence[float], Sequence[float]]
) -> Region:
    """The part of a layer that the canvas shows, in data pixels.

    napari knows what it has loaded; of a pyramid that is more, so the canvas decides.

    Parameters
    ----------
    layer : Image
    displayed : sequence of int
        Dimensions of the layer that the canvas shows.
    canvas : (sequence of float, sequence of float)
        Upper left and lower right corner of the canvas, in world coordinates of `displayed`.

    Raises
    ------
    ImageError
        The canvas shows three dimensions, or nothing of the layer is in view.
    """
    if len(displayed) != 2:
        raise ImageError("expected a 2D display for the current view, got 3D: switch to 2D")
    factors = layer.downsample_factors[layer.data_level] if layer.multiscale else 1
    low, high = layer.corner_pixels[0] * factors, (layer.corner_pixels[1] + 1) * factors
    if layer.multiscale:
        corners = _corners(np.array(canvas[0]), np.array(canvas[1]))
        own = _in_data(layer, corners, list(displayed)) + 0.5
        low, high = np.maximum(low, own.min(0)), np.minimum(high, own.max(0))
    bounds = [
        (float(low[i]), float(high[i])) if i in displayed else (0.0, np.inf)
        for i in range(layer.ndim)
    ]
    return _clipped(layer, bounds, "the current view")


def _in_data(layer: Image, world: NDArray[Any], where: Any) -> NDArray[np.float64]:
    """World coordinates on these axes to data coordinates; others are at the layer's centre."""
    centre = [(s - 1) / 2 for s in layer_shape(layer)]
    full = np.repeat([np.asarray(layer_to_world(layer)(np.array(centre, float)))], len(world), 0)
    full[:, where] = world
    return np.asarray(layer_to_world(layer).inverse(full))


def box_region(layer: Image, selection: Layer) -> Region:
    """The box around the selected shapes, or around the selected label, in pixels of `layer`.

    Axes other than Y and X stay whole.

    Raises
    ------
    ImageError
        Nothing is selected, or the box lies outside the layer.
    """
    if isinstance(selection, Shapes):
        low, high = _shape_bounds(selection)
    elif isinstance(selection, Labels):
        low, high = _label_bounds(selection)
    else:
        raise ImageError(f"expected a shapes or labels layer, got '{selection.name}'")
    world = np.asarray(layer_to_world(selection)(_corners(low, high)))
    n = min(layer.ndim, selection.ndim)
    own = _in_data(layer, world[:, -n:], slice(-n, None))
    axes = layer_axes(layer)
    bounds = [
        (float(own[:, i].min()) + 0.5, float(own[:, i].max()) + 0.5)
        if axes[i] in "YX" and i >= layer.ndim - n
        else (0.0, np.inf)
        for i in range(layer.ndim)
    ]
    return _clipped(layer, bounds, f"the box in '{selection.name}'")


def box_is_quick(selection: Layer) -> bool:
    """Whether the box of a layer is found quickly: no large stack of labels has to be read."""
    if not isinstance(selection, Labels):
        return True
    data = level_zero(selection)
    return isinstance(data, np.ndarray) and data.size <= QUICK_PIXELS


def _shape_bounds(layer: Shapes) -> Bounds:
    chosen = sorted(layer.selected_data) or range(len(layer.data))
    if not chosen:
        raise ImageError(f"expected a shape in '{layer.name}', got none: draw one first")
    points = np.concatenate([layer.data[i] for i in chosen])
    return points.min(0), points.max(0)


def _label_bounds(layer: Labels) -> Bounds:
    """Outer edges of the selected label's box; plane by plane, since stacks are large."""
    data = level_zero(layer)
    low, high = np.full(data.ndim, np.inf), np.full(data.ndim, -np.inf)
    for index in np.ndindex(data.shape[:-2]):
        mask = np.asarray(data[index]) == layer.selected_label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            first, last = [*index, rows[0], columns[0]], [*index, rows[-1], columns[-1]]
            low, high = np.minimum(low, first), np.maximum(high, last)
    if not np.isfinite(low).all():
        raise ImageError(
            f"expected pixels with label {layer.selected_label} in '{layer.name}', got none: "
            "select a label that is painted"
        )
    return low - 0.5, high + 0.5


def current_slices(
    layer: Image, region: Region | None, point: Sequence[float], displayed: Sequence[int]
) -> Region:
    """`region` restricted to what the sliders show, on every axis that is not Y, X or displayed.

    Parameters
    ----------
    layer : Image
    region : tuple of slice, optional
        All of the layer by default.
    point : sequence of float
        Positions of the sliders, in world coordinates.
    displayed : sequence of int
        Dimensions of the layer that the canvas shows.
    """
    axes, shape = layer_axes(layer), layer_shape(layer)
    region = region or tuple(slice(0, n) for n in shape)
    world = np.asarray(point, float)[-layer.ndim :]
    at = np.rint(np.asarray(layer_to_world(layer).inverse(world))).astype(int)
    at = np.clip(at, 0, np.array(shape) - 1)
    return tuple(
        r if axes[i] in "YX" or i in displayed else slice(int(at[i]), int(at[i]) + 1)
        for i, r in enumerate(region)
    )


def _corners(low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.float64]:
    """All corners [2**n,n] of a box."""
    n = len(low)
    choice = np.array(np.meshgrid(*[(0, 1)] * n, indexing="ij")).reshape(n, -1).T
    return np.where(choice, high, low).astype(float)


def _clipped(layer: Image, bounds: Sequence[tuple[float, float]], what: str) -> Region:
    """Whole pixels within bounds and the layer; at least one on each axis."""
    region = []
    for (low, high), length in zip(bounds, layer_shape(layer), strict=True):
        start = int(np.clip(np.floor(low + 1e-6), 0, length))
        stop = int(min(np.ceil(high - 1e-6), length))
        if stop <= start:
            raise ImageError(
                f"expected {what} to overlap '{layer.name}', got none of its pixels: move it there"
            )
        region.append(slice(start, stop))
    return tuple(region)
