"""Layers against a reference layer, a plane at a time: figures, and maps of error and SSIM."""

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
    LayerSpec,
    Plan,
    QualityRequest,
    Region,
    extremes,
    output_placement,
    pyramid,
    read_plane,
)
from napari_cfsr.workers.steps import Step

Check = Callable[[], None]

SAMPLED = 2**20  # values of a map that its contrast limits are taken from
MOST = 99.9  # percentile of the errors that is shown as the brightest
COLORMAPS: dict[MapKind, str] = {"error": "magma", "SSIM": "viridis"}


@dataclass(frozen=True, eq=False)
class QualityResult:
    """What was measured.

    Attributes
    ----------
    table : QualityTable
    region : tuple of slice
        The part of the reference that all images cover, which was measured.
    """

    table: QualityTable
    region: Region


def measure_layers(
    request: QualityRequest, check: Check = lambda: None
) -> Generator[Step, None, QualityResult]:
    """Measure PSNR and SSIM of all images, a plane at a time.

    An image that can't be compared is named, with the reason, in its row of the table.

    Parameters
    ----------
    request : QualityRequest
    check : callable
        Called several times a second; may raise to stop.

    Raises
    ------
    ImageError, OptionError
        None of the images can be compared, or the options do not fit them.
    """
    plan = Plan(request)
    data_range, words = yield from _data_range(plan, check)
    options = QualityOptions(request.channel, request.shave, data_range)
    figures: dict[int, list[QualityScores]] = {i: [] for i in plan.matches}
    began, slices = time.perf_counter(), plan.slices
    for done, at in enumerate(slices):
        reference = plan.reference_plane(at)
        for j, i in enumerate(plan.matches):
            fraction = (done + j / len(plan.matches)) / len(slices)
            name = request.candidates[i].name
            yield Step(f"Measuring '{name}'", fraction, _left(began, fraction))
            check()
            image = plan.plane(i, at)
            if done == 0 and not same_units(image, reference):
                plan.warnings.append(_unlike(name, image, request.reference.name, reference))
            figures[i].append(quality_scores(image, reference, options, check))
    return QualityResult(_table(plan, figures, options, words), plan.region)


def _left(began: float, fraction: float) -> float | None:
    passed = time.perf_counter() - began
    return passed * (1 / fraction - 1) if fraction and passed > 1 else None


def _data_range(plan: Plan, check: Check) -> Generator[Step, None, tuple[float, str]]:
    """The range that was given, or that of the planes of the reference, whole in Y and X."""
    request = plan.request
    if request.data_range is not None:
        return request.data_range, "given"
    image, low, high = request.reference, math.inf, -math.inf
    if image.data.dtype.kind == "b" or image.data.dtype == np.uint8:
        return default_range(image.data.dtype, 0, 255)
    shape = dict(zip(image.axes, image.data.shape, strict=True))
    for at in plan.slices:
        yield Step(f"Reading the range of '{image.name}'")
        check()
        box = zip(plan.axes, plan.box(at), strict=True)
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
    plan: Plan, figures: dict[int, list[QualityScores]], options: QualityOptions, words: str
) -> QualityTable:
    request, notes = plan.request, list(plan.notes)
    for i, measured in figures.items():
        if invalid := sum(f.invalid for f in measured):
            notes.append(
                f"'{request.candidates[i].name}': {invalid} pixels are NaN or infinite, there or "
                "in the reference; they were left out, with the SSIM windows that hold one"
            )
    images = [request.reference, *(c.image for c in request.candidates)]
    if any(x.rgb and x.data.shape[-1] == 4 for x in images):
        notes.append("alpha was left out")
    rows = tuple(
        QualityRow(c.name, tuple(figures.get(i, ())), plan.faults.get(i, ""))
        for i, c in enumerate(request.candidates)
    )
    warnings = [*plan.faults.values(), *plan.warnings]
    return QualityTable(
        request.reference.name, request.part, options, words,
        tuple(plan.slice_name(at) for at in plan.slices), rows, tuple(notes), tuple(warnings),
    )  # fmt: skip


def map_layer(
    request: QualityRequest, kind: MapKind, check: Check = lambda: None
) -> Generator[Step, None, LayerSpec]:
    """Error or SSIM of one image at each pixel, as a layer over the region of the reference.

    Parameters
    ----------
    request : QualityRequest
        With one candidate and a data range.
    kind : {"error", "SSIM"}
    check : callable
        Called several times a second; may raise to stop.

    Raises
    ------
    ImageError, OptionError
        The image can't be compared, or the options do not fit.
    """
    plan = Plan(request)
    data_range, _ = yield from _data_range(plan, check)
    options = QualityOptions(request.channel, 0, data_range)
    shape = tuple(s.stop - s.start for s in plan.region)
    result = np.empty(shape, np.float32)
    axes = plan.axes
    slices = plan.slices
    for done, at in enumerate(slices):
        yield Step(f"Mapping '{request.candidates[0].name}'", done / len(slices))
        check()
        values = quality_map(plan.plane(0, at), plan.reference_plane(at), kind, options, check)
        box = zip(axes, plan.box(at), plan.region, strict=True)
        key = tuple(slice(None) if a in "YX" else s.start - r.start for a, s, r in box)
        ordered = values if axes.index("Y") < axes.index("X") else values.T
        result[key] = ordered
    return _spec(plan, kind, result, options)


def _spec(
    plan: Plan, kind: MapKind, values: NDArray[np.float32], options: QualityOptions
) -> LayerSpec:
    """The map as a layer, bright where the error is large or the images are alike."""
    request = plan.request
    source, name = request.reference, request.candidates[0].name
    axes = plan.axes
    levels = pyramid(values, (axes.index("Y"), axes.index("X")))
    record = {
        "map": kind, "of": name, "reference": source.name, "channel": options.channel,
        "data_range": options.data_range,
    }  # fmt: skip
    arguments = {
        "name": f"{name} {kind} map",
        "colormap": COLORMAPS[kind],
        "contrast_limits": (0.0, _brightest(values)) if kind == "error" else (0.0, 1.0),
        "multiscale": len(levels) > 1,
        "rgb": False,
        "metadata": {"napari_cfsr": record},
        **output_placement(replace(source, region=plan.region), 1),
    }
    return LayerSpec(levels if len(levels) > 1 else values, arguments)


def _brightest(values: NDArray[np.float32]) -> float:
    """A robust maximum, above zero."""
    step = max(1, values.size // SAMPLED)
    flat = values.ravel()[::step]
    known = flat[np.isfinite(flat)]
    if not known.size:
        return 1.0
    return float(np.percentile(known, MOST)) or float(known.max()) or 1.0
