"""napari layers to arrays and back: what a layer is, and where a result lies in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_cfsr.core.upscale import UpscaleResult, record_provenance
from napari_cfsr.errors import ImageError

if TYPE_CHECKING:
    from napari.layers import Layer

Region = tuple[slice, ...]  # one slice for each dimension of the layer, colour samples left out

LARGEST_TEXTURE = 16384  # pixels; larger results are shown as a pyramid
DIFFERENCE_COLORMAP = Colormap(
    [[0.25, 0.6, 1.0], [0.0, 0.0, 0.0], [1.0, 0.5, 0.1]], name="difference"
)
LOOK = ("blending", "opacity", "interpolation2d", "interpolation3d", "rendering", "projection_mode")
GRAY_LOOK = ("colormap", "gamma", "contrast_limits")


@dataclass(frozen=True, eq=False)
class ImageInput:
    """An image layer as it was when the run began.

    Attributes
    ----------
    name : str
        Name of the layer.
    data : array
        The slices to upscale, whole in Y and X; not yet read where the layer is lazy.
    axes : str
        A letter for each dimension of `data`; `S` for colour samples.
    region : tuple of slice
        What is to be upscaled, in the layer's data.
    part : ((top, bottom), (left, right)) or None
        The rows and columns of it, for `upscale`; None for all.
    scale, translate : array
        Of the layer, one for each dimension without colour samples.
    rotate, shear, affine : array
        Of the layer.
    units, axis_labels : tuple of str
    look : dict
        Colormap, contrast limits, blending and the like.
    expression : str
        Python that gives `data` in napari's console.
    """

    name: str
    data: Any
    axes: str
    region: Region
    part: tuple[tuple[int, int], tuple[int, int]] | None
    scale: NDArray[np.float64]
    translate: NDArray[np.float64]
    rotate: NDArray[np.float64]
    shear: NDArray[np.float64]
    affine: NDArray[np.float64]
    units: tuple[str, ...]
    axis_labels: tuple[str, ...]
    look: dict[str, Any]
    expression: str

    @property
    def rgb(self) -> bool:
        return "S" in self.axes

    @property
    def contrast_limits(self) -> tuple[float, float] | None:
        """None for colour, which napari shows as it is."""
        if self.rgb:
            return None
        low, high = self.look["contrast_limits"]
        return float(low), float(high)


def layer_axes(layer: Image) -> str:
    """Axes of a layer's data, by its axis labels where these name Y and X, else Y and X last."""
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
    """The axis letter that a label stands for, or nothing."""
    word = label.strip().lower()
    if word in ("channel", "channels"):
        return "C"
    if word in ("time", "frame", "frames"):
        return "T"
    return word.upper() if len(word) == 1 and word in "tzcyxpqruvw" else ""


def level_zero(layer: Image) -> Any:
    """The full-resolution data of a layer; lazy unless it is in memory or a memory map."""
    data = layer.data[0] if layer.multiscale else layer.data
    data = getattr(data, "__wrapped__", data)  # napari hands plugins proxies, which dask upsets
    if isinstance(data, np.ndarray | da.Array):
        return data
    inner = getattr(data, "data", None)  # xarray
    if isinstance(inner, np.ndarray | da.Array):
        return inner
    return da.asarray(data)


def layer_to_world(source: ImageInput) -> Affine:
    """Data to world of an input, as of the layer that it was read from."""
    own = Affine(
        scale=source.scale, translate=source.translate, rotate=source.rotate, shear=source.shear
    )
    return Affine(affine_matrix=source.affine @ np.asarray(own.affine_matrix))


def data_to_world(layer: Layer) -> Affine:
    """Data to world of a layer; the public `data_to_world` applies `affine` twice."""
    own = Affine(
        scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear
    )
    return Affine(
        affine_matrix=np.asarray(layer.affine.affine_matrix) @ np.asarray(own.affine_matrix)
    )


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
    # Y and X stay whole: the network is to see what lies around the region
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
    """Transform of a result: the world coordinates of every landmark stay what they were.

    A scale below 1 is that of an image that was reduced.

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


def shown_difference(result: UpscaleResult) -> NDArray[np.float32] | None:
    """The difference as one channel: itself for gray, its luma (BT.601 weights) for colour."""
    difference, axes = result.difference, result.axes
    if difference is None or "S" not in axes.names:
        return difference
    if difference.shape[-1] == 1:
        return difference[..., 0]
    shown: NDArray[np.float32] = difference @ np.array([0.299, 0.587, 0.114], np.float32)
    return shown


def extremes(values: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest finite value; zeros if there is none. A row at a time: no large copies."""
    low, high = np.inf, -np.inf
    for row in values.reshape(-1, values.shape[-1]) if values.size else ():
        finite = row[np.isfinite(row)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class LayerSpec:
    """What `viewer.add_image` is called with."""

    data: Any
    arguments: dict[str, Any]


def result_layers(
    result: UpscaleResult,
    source: ImageInput,
    difference: NDArray[np.float32] | None,
    limits: tuple[float, float],
) -> list[LayerSpec]:
    """Layers for a result, in the order they are to be added.

    Parameters
    ----------
    result : UpscaleResult
    source : ImageInput
        What was upscaled.
    difference : array, optional
        As by `shown_difference`.
    limits : (float, float)
        Its extremes.
    """
    scale = result.info.scale
    record = record_provenance(result, source.name, source.expression)
    placement = output_placement(source, scale)
    axes = source.axes.replace("S", "")
    spatial = (axes.index("Y"), axes.index("X"))
    layers = []
    for name, array in result.arrays().items():
        if name == "difference":
            continue
        title = f"{source.name} x{scale} {name}"
        layers.append((_spec(array, title, source.look, source.rgb, spatial), name))
    if difference is not None:
        look = difference_look(source, limits)
        title = f"{source.name} x{scale} difference"
        layers.append((_spec(difference, title, look, False, spatial), "difference"))
    for layer, output in layers:
        layer.arguments.update(placement, metadata={"napari_cfsr": {**record, "output": output}})
    return [layer for layer, _ in layers]


def difference_look(source: ImageInput, limits: tuple[float, float]) -> dict[str, Any]:
    """How a difference with these extremes is shown: hidden at first, the same to both sides."""
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


def _spec(
    data: NDArray[Any], name: str, look: dict[str, Any], rgb: bool, spatial: tuple[int, int]
) -> LayerSpec:
    """One layer; a pyramid of views where one texture would be too large."""
    levels = pyramid(data, spatial)
    multiscale = len(levels) > 1
    return LayerSpec(
        levels if multiscale else data,
        {"name": name, "rgb": rgb, "multiscale": multiscale, **look},
    )


def pyramid(data: NDArray[Any], spatial: tuple[int, int]) -> list[NDArray[Any]]:
    """The array, then every second pixel of it, and so on: views, which take no memory."""
    levels = [data]
    step = 1
    while max(levels[-1].shape[i] for i in spatial) > (LARGEST_TEXTURE if step == 1 else 2048):
        step *= 2
        where = [slice(None)] * data.ndim
        for i in spatial:
            where[i] = slice(None, None, step)
        levels.append(data[tuple(where)])
    return levels


def layer_shape(layer: Image) -> tuple[int, ...]:
    """Shape of the full-resolution data without colour samples."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    return tuple(shape[: layer.ndim])
