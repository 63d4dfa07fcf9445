"""Results as layers: placement, look, provenance, and pyramids of large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from napari_cfsr.core.upscale import UpscaleResult, record_provenance
from napari_cfsr.layers.image_input import LOOK, ImageInput, output_placement

LARGEST_TEXTURE = 16384  # pixels; larger results are shown as a pyramid
DIFFERENCE_COLORMAP = Colormap(
    [[0.25, 0.6, 1.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.1]], name="difference"
)


def shown_difference(result: UpscaleResult) -> NDArray[np.float32] | None:
    """The difference as one channel: unchanged for gray, its luma (BT.601 weights) for colour."""
    difference, axes = result.difference, result.axes
    if difference is None or "S" not in axes.names:
        return difference
    if difference.shape[-1] == 1:
        return difference[..., 0]
    shown: NDArray[np.float32] = difference @ np.array([0.299, 0.587, 0.114], np.float32)
    return shown


def extremes(values: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value; zeros if there is none. Row by row: no large copies."""
    low, high = np.inf, -np.inf
    for row in values.reshape(-1, values.shape[-1]) if values.size else ():
        finite = row[np.isfinite(row)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class LayerSpec:
    """Arguments of `viewer.add_image`."""

    data: Any
    arguments: dict[str, Any]


def result_layers(
    result: UpscaleResult,
    source: ImageInput,
    difference: NDArray[np.float32] | None,
    limits: tuple[float, float],
) -> list[LayerSpec]:
    """Layers of a result, in the order in which they are added.

    Parameters
    ----------
    result : UpscaleResult
    source : ImageInput
        The input.
    difference : array, optional
        From `shown_difference`.
    limits : (float, float)
        Its extremes.
    """
    scale = result.info.scale
    record = record_provenance(result, source.name, source.expression)
    placement = output_placement(source, scale)
    axes = source.axes.replace("S", "")
    spatial = (axes.index("Y"), axes.index("X"))
    looks = {name: (x, source.look, source.rgb) for name, x in result.arrays().items()}
    looks.pop("difference", None)
    if difference is not None:
        looks["difference"] = difference, difference_look(source, limits), False
    layers = []
    for name, (array, look, rgb) in looks.items():
        metadata = {"napari_cfsr": {**record, "output": name}}
        title = f"{source.name} x{scale} {name}"
        arguments = {"name": title, "rgb": rgb, **look, **placement, "metadata": metadata}
        layers.append(of_levels(pyramid(array, spatial), arguments))
    return layers


def difference_look(source: ImageInput, limits: tuple[float, float]) -> dict[str, Any]:
    """How a difference with these extremes is shown: hidden at first, with symmetric limits."""
    return {name: source.look[name] for name in LOOK} | signed_look(limits)


def signed_look(limits: tuple[float, float]) -> dict[str, Any]:
    """How signed values with these extremes are shown."""
    most = max(abs(limits[0]), abs(limits[1])) or 1.0
    return {
        "colormap": DIFFERENCE_COLORMAP,
        "contrast_limits": (-most, most),
        "gamma": 1.0,
        "visible": False,
    }


def of_levels(levels: Sequence[Any], arguments: dict[str, Any]) -> LayerSpec:
    """A layer of a pyramid, or of the only level."""
    multiscale = len(levels) > 1
    return LayerSpec(levels if multiscale else levels[0], {**arguments, "multiscale": multiscale})


def pyramid(data: NDArray[Any], spatial: tuple[int, int]) -> list[NDArray[Any]]:
    """The array, then every second pixel of it, and so on: views, without extra memory."""
    levels = [data]
    step = 1
    while max(levels[-1].shape[i] for i in spatial) > (LARGEST_TEXTURE if step == 1 else 2048):
        step *= 2
        where = [slice(None)] * data.ndim
        for i in spatial:
            where[i] = slice(None, None, step)
        levels.append(data[tuple(where)])
    return levels
