"""Layers against a reference layer, plane by plane: PSNR and SSIM, and maps of error and SSIM."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.metrics import (
    MapKind,
    QualityOptions,
    QualityRow,
    QualityScores,
    QualityTable,
    default_range,
    quality_map,
    quality_scores,
    same_units,
)
from napari_cfsr.errors import ImageError
from napari_cfsr.layers import (
    Comparison,
    LayerSpec,
    QualityRequest,
    Region,
    extremes,
    of_levels,
    output_placement,
    pyramid,
    read_plane,
)
from napari_cfsr.workers.steps import Step

Check = Callable[[], None]

SAMPLED = 2**20  # values of a map that its contrast limits are computed from
BRIGHTEST = 99.9  # percentile of the errors that is shown brightest
COLORMAPS: dict[MapKind, str] = {"error": "magma", "SSIM": "viridis"}


@dataclass(frozen=True, eq=False)
class QualityResult:
    """What was measured."""

    table: QualityTable
    region: Region  # the measured part of the reference, which all images cover


def measure_layers(
    request: QualityRequest, check: Check = lambda: None
) -> Generator[Step, None, QualityResult]:
    """Measure PSNR and SSIM of all images, plane by plane.

    The row of an image that can't be compared gives the reason. `check` is called several times a
    second; it may raise to stop.

    Raises
    ------
    ImageError, OptionError
        None of the images can be compared, or the options do not fit them.
    """
    comparison = Comparison(request)
    data_range, words = yield from _data_range(comparison, check)
    options = QualityOptions(request.channel, request.shave, data_range)
    figures: dict[int, list[QualityScores]] = {i: [] for i in comparison.matches}
    began, slices = time.perf_counter(), comparison.slices
    for done, at in enumerate(slices):
        reference = comparison.reference_plane(at)
        for j, i in enumerate(comparison.matches):
            fraction = (done + j / len(comparison.matches)) / len(slices)
            name = request.candidates[i].name
            yield Step(f"Measuring '{name}'", fraction, _left(began, fraction))
            check()
            image = comparison.plane(i, at)
            if done == 0 and not same_units(image, reference):
                comparison.warnings.append(_unlike(name, image, request.reference.name, reference))
            figures[i].append(quality_scores(image, reference, options, check))
    return QualityResult(_table(comparison, figures, options, words), comparison.region)


def _left(began: float, fraction: float) -> float | None:
    passed = time.perf_counter() - began
    return passed * (1 / fraction - 1) if fraction and passed > 1 else None


def _data_range(comparison: Comparison, check: Check) -> Generator[Step, None, tuple[float, str]]:
    """The given range, or that of the planes of the reference, whole in Y and X."""
    request = comparison.request
    if request.data_range is not None:
        return request.data_range, "given"
    image, low, high = request.reference, math.inf, -math.inf
    if image.data.dtype.kind == "b" or image.data.dtype == np.uint8:
        return default_range(image.data.dtype, 0, 255)
    shape = dict(zip(image.axes, image.data.shape, strict=True))
    for at in comparison.slices:
        yield Step(f"Reading the range of '{image.name}'")
        check()
        box = zip(comparison.axes, comparison.box(at), strict=True)
        plane = read_plane(image, tuple(slice(0, shape[a]) if a in "YX" else s for a, s in box))
        if plane.dtype.kind != "f" or np.isfinite(plane).any():
            least, most = extremes(plane)
            low, high = min(low, least), max(high, most)
    if low > high:
        raise ImageError(f"expected finite pixels in '{image.name}', got none")
    return default_range(image.data.dtype, low, high)


def _unlike(name: str, image: NDArray[Any], reference_name: str, reference: NDArray[Any]) -> str:
    ranges = []
    for array in (image, reference):
        low, high = extremes(array)
        ranges.append(f"{array.dtype}, {low:.4g} to {high:.4g}")
    return (
        f"'{name}' ({ranges[0]}) and '{reference_name}' ({ranges[1]}) do not seem to be in the "
        "same units; they were compared as they are"
    )


def _table(
    comparison: Comparison,
    figures: dict[int, list[QualityScores]],
    options: QualityOptions,
    words: str,
) -> QualityTable:
    request, notes = comparison.request, list(comparison.notes)
    for i, measured in figures.items():
        if invalid := sum(f.invalid for f in measured):
            notes.append(
                f"'{request.candidates[i].name}': {invalid} pixels are NaN or infinite, in it or "
                "in the reference; they and the SSIM windows that contain them were left out"
            )
    images = [request.reference, *(c.image for c in request.candidates)]
    if any(x.rgb and x.data.shape[-1] == 4 for x in images):
        notes.append("alpha was left out")
    rows = tuple(
        QualityRow(c.name, tuple(figures.get(i, ())), comparison.faults.get(i, ""))
        for i, c in enumerate(request.candidates)
    )
    warnings = [*comparison.faults.values(), *comparison.warnings]
    return QualityTable(
        request.reference.name, request.part, options, words,
        tuple(comparison.slice_name(at) for at in comparison.slices), rows, tuple(notes),
        tuple(warnings),
    )  # fmt: skip


def map_layer(
    request: QualityRequest, kind: MapKind, check: Check = lambda: None
) -> Generator[Step, None, LayerSpec]:
    """Error or SSIM of one image at each pixel, as a layer over the region of the reference.

    The request has one candidate and a data range; `check` as for `measure_layers`.

    Raises
    ------
    ImageError, OptionError
        The image can't be compared, or the options do not fit.
    """
    comparison = Comparison(request)
    data_range, _ = yield from _data_range(comparison, check)
    options = QualityOptions(request.channel, 0, data_range)
    shape = tuple(s.stop - s.start for s in comparison.region)
    result = np.empty(shape, np.float32)
    axes = comparison.axes
    slices = comparison.slices
    for done, at in enumerate(slices):
        yield Step(f"Mapping '{request.candidates[0].name}'", done / len(slices))
        check()
        values = quality_map(
            comparison.plane(0, at), comparison.reference_plane(at), kind, options, check
        )
        box = zip(axes, comparison.box(at), comparison.region, strict=True)
        key = tuple(slice(None) if a in "YX" else s.start - r.start for a, s, r in box)
        ordered = values if axes.index("Y") < axes.index("X") else values.T
        result[key] = ordered
    return _spec(comparison, kind, result, options)


def _spec(
    comparison: Comparison, kind: MapKind, values: NDArray[np.float32], options: QualityOptions
) -> LayerSpec:
    """The map as a layer, bright where the error is large or the images are similar."""
    request = comparison.request
    source, name = request.reference, request.candidates[0].name
    axes = comparison.axes
    levels = pyramid(values, (axes.index("Y"), axes.index("X")))
    record = {
        "map": kind, "of": name, "reference": source.name, "channel": options.channel,
        "data_range": options.data_range,
    }  # fmt: skip
    arguments = {
        "name": f"{name} {kind} map",
        "colormap": COLORMAPS[kind],
        "contrast_limits": (0.0, _brightest(values)) if kind == "error" else (0.0, 1.0),
        "rgb": False,
        "metadata": {"napari_cfsr": record},
        **output_placement(replace(source, region=comparison.region), 1),
    }
    return of_levels(levels, arguments)


def _brightest(values: NDArray[np.float32]) -> float:
    """A robust maximum, above zero."""
    step = max(1, values.size // SAMPLED)
    flat = values.ravel()[::step]
    known = flat[np.isfinite(flat)]
    if not known.size:
        return 1.0
    return float(np.percentile(known, BRIGHTEST)) or float(known.max()) or 1.0
