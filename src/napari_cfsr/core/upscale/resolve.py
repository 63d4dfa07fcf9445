"""A request checked and completed, and the size of its result: before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, ModelInfo, PredictOptions, check_back_projection
from napari_cfsr.core.image import (
    NOT_VISIBLE,
    ArrayLike,
    Axes,
    Limits,
    NoiseEstimate,
    NoiseModel,
    Region,
    parse_axes,
    sample_noise,
)
from napari_cfsr.core.network import BACK_PROJECTION_FIELD
from napari_cfsr.core.upscale.options import DEFAULT_HALO, OUTPUTS, UpscaleOptions
from napari_cfsr.errors import ImageError, OptionError, OutOfMemoryError

NO_NOISE = "no noise was found, so the refiner changed nothing"
OTHER_NOISE = (
    "the refiner was trained for other noise than this image has: the noise of the image was used"
)
MOST_OTHER = 2.0  # times as much variance
MODEL_BYTES = 1_100_000_000  # of the network, in addition to the result: docs/measurements.md


def result_bytes(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    axes: str,
    scale: int,
    outputs: tuple[str, ...],
    region: tuple[Limits, Limits] | None = None,
) -> int:
    """Bytes of all outputs together, uncompressed.

    Parameters
    ----------
    shape, dtype : tuple of int, dtype
        Of the image.
    axes : str
        A letter for each dimension; colour samples are `S`.
    scale, outputs, region
        As for `upscale`.

    Raises
    ------
    ImageError
        The axes do not fit the shape.
    """
    whole = parse_axes(axes, shape, rgb=False)
    ys, xs = region or ((0, whole.height), (0, whole.width))
    part = cropped(whole, (slice(*map(int, ys)), slice(*map(int, xs))))
    return output_bytes(output_specs(part, np.dtype(dtype), scale, outputs))


def why_not_in_memory(nbytes: int) -> str:
    """Why a result of so many bytes does not fit into the memory that is free now; else nothing."""
    free = int(psutil.virtual_memory().available)
    if nbytes + MODEL_BYTES <= free:
        return ""
    return (
        f"the result takes {size(nbytes)}, the network {size(MODEL_BYTES)}, and {size(free)} of "
        "memory are free"
    )


def size(nbytes: float) -> str:
    """A number of bytes in words: `48 MB`, `12.9 GB`."""
    for unit, factor, digits in (("TB", 1e12, 1), ("GB", 1e9, 1), ("MB", 1e6, 0)):
        if nbytes >= factor:
            return f"{nbytes / factor:.{digits}f} {unit}"
    return f"{nbytes / 1e3:.0f} kB"


OutputSpec = tuple[tuple[int, ...], np.dtype[Any]]  # shape and dtype of an output


@dataclass(frozen=True)
class ResolvedRequest:
    """The request for a run, checked, with every default filled in except the tile."""

    axes: Axes  # of the image
    region: Region  # rows and columns to upscale
    halo: int  # LR pixels around a tile, those for back-projection included
    how: PredictOptions
    options: UpscaleOptions  # with outputs, and the halo without that for back-projection

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.options.outputs or ()

    @property
    def part(self) -> Axes:
        """Axes of what is upscaled."""
        return cropped(self.axes, self.region)


def resolve_request(image: ArrayLike, info: ModelInfo, options: UpscaleOptions) -> ResolvedRequest:
    """Check a request for an image as `upscale` does; reads no pixels."""
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        raise ImageError(f"expected an array, got {type(image).__name__}")
    axes = parse_axes(options.axes, tuple(image.shape), options.rgb)
    check_back_projection(options.back_projection, info.scale)
    outputs = _check_outputs(options.outputs, info)
    halo = info.exact_halo if options.halo == "exact" else options.halo
    halo = DEFAULT_HALO if halo is None else halo
    if options.tile is not None and options.tile < 1:
        raise OptionError(f"expected tile >= 1, got {options.tile}")
    if halo < 0:
        raise OptionError(f"expected halo >= 0, got {halo}")
    predicted = ("baseline", "delta") if "difference" in outputs else outputs
    return ResolvedRequest(
        axes,
        _check_region(options.region, axes),
        # the pixels that back-projection spreads from have to be exact themselves
        halo + (BACK_PROJECTION_FIELD if options.back_projection else 0),
        PredictOptions(
            tuple(predicted),
            options.ensemble,
            options.back_projection,
            refiner_ensemble=options.refiner_ensemble,
        ),
        replace(options, outputs=outputs, halo=halo),
    )


def resolve_noise(
    image: ArrayLike, info: ModelInfo, request: ResolvedRequest, check: Check = lambda: None
) -> tuple[ResolvedRequest, tuple[str, ...]]:
    """The request with the noise of each channel if the refiner needs it, and notes.

    That is the noise given, else that the refiner was trained for, if it fits the image, else an
    estimate from the image.
    """
    if not info.needs_noise or request.axes.is_empty or "delta" not in request.how.outputs:
        return replace(request, options=replace(request.options, noise=None)), ()
    channels, given, notes = request.axes.channels, request.options.noise, list[str]()
    if given is None:
        found = sample_noise(image, request.axes, check)
        given = tuple(_noise_of(estimate, info.noise, notes) for estimate in found)
    if len(given) == 1:
        given *= channels
    if len(given) != channels:
        raise OptionError(f"expected the noise of {channels} channels, got {len(given)}")
    if not any(given) and not notes:
        notes.append(NO_NOISE)
    options = replace(request.options, noise=given)
    return replace(request, options=options), tuple(dict.fromkeys(notes))


def _noise_of(
    found: NoiseEstimate, trained: NoiseModel | None, notes: list[str]
) -> NoiseModel | None:
    """The noise of a channel: that the refiner was trained for unless the image has another."""
    if found.fault == NOT_VISIBLE:
        return None
    if found.noise is None:
        notes.append(f"the noise of this image can't be estimated: {found.fault}")
        return trained
    if found.fault:
        notes.append(f"the refiner may keep noise of this image: {found.fault}")
    if trained is None:
        return found.noise
    level = np.array([found.level], np.float32)
    ratio = float((trained.variance(level) / found.noise.variance(level))[0])
    if 1 / MOST_OTHER < ratio < MOST_OTHER:
        return trained
    notes.append(OTHER_NOISE)
    return found.noise


def cropped(axes: Axes, region: Region) -> Axes:
    """The same axes for some rows and columns."""
    sizes = {"Y": region[0], "X": region[1]}
    shape = tuple(
        sizes[name].stop - sizes[name].start if name in sizes else n
        for name, n in zip(axes.names, axes.shape, strict=True)
    )
    return Axes(axes.names, shape)


def output_specs(
    part: Axes, dtype: np.dtype[Any], scale: int, outputs: tuple[str, ...]
) -> dict[str, OutputSpec]:
    """Shape and dtype of each output: those of the image, a difference float32 without alpha."""
    shape = part.scaled(scale)
    native = np.dtype(dtype).newbyteorder("=")
    specs: dict[str, OutputSpec] = dict.fromkeys(outputs, (shape, native))
    if "difference" in outputs:
        if part.has_alpha:
            s = part.names.index("S")
            shape = tuple(n - 1 if i == s else n for i, n in enumerate(shape))
        specs["difference"] = (shape, np.dtype(np.float32))
    return specs


def output_bytes(specs: Mapping[str, OutputSpec]) -> int:
    """Bytes of all outputs together."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in specs.values())


def check_memory(specs: Mapping[str, OutputSpec]) -> None:
    """Raise `OutOfMemoryError` unless outputs fit into the memory that is free now."""
    needed, free = output_bytes(specs), psutil.virtual_memory().available
    if needed > free:
        raise _too_large(needed, f" and {free / 1e9:.1f} GB are free")


def allocate(specs: Mapping[str, OutputSpec]) -> dict[str, NDArray[Any]]:
    """Arrays for outputs; raises `OutOfMemoryError` where the system refuses."""
    try:
        return {name: np.empty(shape, dtype) for name, (shape, dtype) in specs.items()}
    except MemoryError as error:  # of a container, say, which psutil does not see
        raise _too_large(output_bytes(specs), ", which this system does not give") from error


def _too_large(nbytes: int, why: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"the result needs {nbytes / 1e9:.1f} GB{why}: upscale a region, fewer slices or "
        "fewer outputs, or to OME-Zarr on disk"
    )


def _check_region(region: tuple[Limits, Limits] | None, axes: Axes) -> Region:
    """Rows and columns to upscale; all by default."""
    if region is None:
        return slice(0, axes.height), slice(0, axes.width)
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in region)
    if not (0 <= top < bottom <= axes.height and 0 <= left < right <= axes.width):
        raise OptionError(
            f"expected region ((top, bottom), (left, right)) within {axes.height} rows and "
            f"{axes.width} columns, got {region}"
        )
    return slice(top, bottom), slice(left, right)


def _check_outputs(outputs: tuple[str, ...] | None, info: ModelInfo) -> tuple[str, ...]:
    """The outputs to make, in a fixed order; all there are by default."""
    possible = OUTPUTS if "delta" in info.outputs else ("baseline",)
    if outputs is None:
        return possible
    for name in outputs:
        if name not in OUTPUTS:
            raise OptionError(f"expected outputs among {', '.join(OUTPUTS)}, got {name!r}")
        if name not in possible:
            raise OptionError(
                f"expected a refiner for output {name!r}, but {info.backbone} x{info.scale} has "
                "none loaded: choose one or leave the output out"
            )
    if not outputs:
        raise OptionError(f"expected at least one output of {', '.join(OUTPUTS)}, got none")
    return tuple(name for name in OUTPUTS if name in outputs)
