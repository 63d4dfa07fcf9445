"""Snapshots of image layers: pixels, axes, transform and look, and where a result of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError

if TYPE_CHECKING:
    from napari.layers import Layer

Region = tuple[slice, ...]  # one slice for each dimension of the layer, colour samples left out

LOOK = ("blending", "opacity", "interpolation2d", "interpolation3d", "rendering", "projection_mode")
GRAY_LOOK = ("colormap", "gamma", "contrast_limits")


@dataclass(frozen=True, eq=False)
class ImageInput:
    """An image layer at the start of a run."""

    name: str
    data: Any  # the slices to upscale, whole in Y and X; not read yet if the layer is lazy
    axes: str  # a letter for each dimension of `data`; `S` for colour samples
    region: Region  # the part to upscale, in the layer's data
    # rows and columns (top, bottom), (left, right) for `upscale`; None for all
    part: tuple[tuple[int, int], tuple[int, int]] | None
    scale: NDArray[np.float64]  # of the layer, one for each dimension without colour samples
    translate: NDArray[np.float64]
    rotate: NDArray[np.float64]
    shear: NDArray[np.float64]
    affine: NDArray[np.float64]
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]
    look: dict[str, Any]  # colormap, contrast limits, blending and the like
    expression: str  # Python expression for `data` in napari's console

    @property
    def rgb(self) -> bool:
        return "S" in self.axes

    @property
    def contrast_limits(self) -> tuple[float, float] | None:
        """None for colour, which has none in napari."""
        if self.rgb:
            return None
        low, high = self.look["contrast_limits"]
        return float(low), float(high)


def layer_axes(layer: Image) -> str:
    """Axes of a layer's data: from its axis labels if these name Y and X, else Y and X last."""
    labels = [_letter(label) for label in layer.axis_labels]
    if labels.count("Y") != 1 or labels.count("X") != 1:
        labels[-2:] = ["Y", "X"]
        labels[:-2] = ["" if label in ("Y", "X") else label for label in labels[:-2]]
    free = [c for c in "ZTPQRUVW" if c not in labels][::-1]
    axes = ""
    for label in labels:
        known = label and label not in axes
        axes += label if known else free.pop()
    return axes + "S" * bool(layer.rgb)


def _letter(label: str) -> str:
    """The axis letter of a label, or nothing."""
    word = label.strip().lower()
    known = {"channel": "C", "channels": "C", "time": "T", "frame": "T", "frames": "T"}
    return known.get(word, word.upper() if len(word) == 1 and word in "tzcyxpqruvw" else "")


def level_zero(layer: Image) -> Any:
    """The full-resolution data of a layer; lazy unless it is in memory or a memory map."""
    data = layer.data[0] if layer.multiscale else layer.data
    data = getattr(data, "__wrapped__", data)  # a proxy, which dask can't handle
    if isinstance(data, np.ndarray | da.Array):
        return data
    inner = getattr(data, "data", None)  # xarray
    if isinstance(inner, np.ndarray | da.Array):
        return inner
    return da.asarray(data)


def layer_to_world(source: ImageInput | Layer) -> Affine:
    """Data to world of a layer or its snapshot; napari's `data_to_world` applies `affine` twice."""
    own = Affine(
        scale=source.scale, translate=source.translate, rotate=source.rotate, shear=source.shear
    )
    affine = np.asarray(getattr(source.affine, "affine_matrix", source.affine))
    return Affine(affine_matrix=affine @ np.asarray(own.affine_matrix))


def read_layer(layer: Image, region: Region | None = None) -> ImageInput:
    """Snapshot of a layer, on the GUI thread.

    Parameters
    ----------
    layer : Image
    region : tuple of slice, optional
        Part to upscale, in data coordinates; all of it by default.

    Raises
    ------
    ImageError
        The layer has fewer than two dimensions.
    """
    if layer.ndim < 2:
        raise ImageError(
            f"expected a layer with Y and X, got '{layer.name}' with {layer.ndim} axis"
        )
    data, axes = level_zero(layer), layer_axes(layer)
    whole = tuple(slice(0, n) for n in layer_shape(layer))
    region = region or whole
    # Y and X stay whole: the network sees the surroundings of the region
    slices = tuple(slice(None) if axes[i] in "YX" else r for i, r in enumerate(region))
    ys, xs = region[axes.index("Y")], region[axes.index("X")]
    part = ((ys.start, ys.stop), (xs.start, xs.stop))
    everything = all(region[i] == whole[i] for i in (axes.index("Y"), axes.index("X")))
    expression = f"viewer.layers[{layer.name!r}].data" + "[0]" * bool(layer.multiscale)
    if any(region[i] != whole[i] for i, s in enumerate(slices) if s != slice(None)):
        inside = (":" if s == slice(None) else f"{s.start}:{s.stop}" for s in slices)
        expression += f"[{', '.join(inside)}]"
    look = {name: getattr(layer, name) for name in (LOOK if layer.rgb else LOOK + GRAY_LOOK)}
    return ImageInput(
        name=layer.name,
        data=data[slices],
        axes=axes,
        region=region,
        part=None if everything else part,
        scale=np.array(layer.scale, float),
        translate=np.array(layer.translate, float),
        rotate=np.array(layer.rotate, float),
        shear=np.array(layer.shear, float),
        affine=np.array(layer.affine.affine_matrix, float),
        units=tuple(str(u) for u in layer.units),
        axis_labels=tuple(layer.axis_labels),
        look=look,
        expression=expression,
    )


def output_placement(source: ImageInput, scale: float) -> dict[str, Any]:
    """Transform of a result: every landmark keeps its world coordinates.

    A scale below 1 is for a reduced image.

    With pixel centres on whole numbers, output pixel q is input pixel (q + 1/2) / s - 1/2, so the
    origin lies (s - 1) / 2s input pixels before the first pixel of the region.
    """
    axes = source.axes.replace("S", "")
    factor = np.array([scale if name in "YX" else 1 for name in axes], float)
    origin = np.array([s.start for s in source.region], float) - (factor - 1) / (2 * factor)
    linear = Affine(scale=source.scale, rotate=source.rotate, shear=source.shear).linear_matrix
    return {
        "scale": source.scale / factor,
        "translate": source.translate + np.asarray(linear) @ origin,
        "rotate": source.rotate,
        "shear": source.shear,
        "affine": source.affine,
        "units": source.units,
        "axis_labels": source.axis_labels,
    }


def layer_shape(layer: Image) -> tuple[int, ...]:
    """Shape of the full-resolution data without colour samples."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    return tuple(shape[: layer.ndim])
