"""How large a result will be, and whether it fits into memory: known before anything is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil

from napari_cfsr.core.image.axes import parse_axes
from napari_cfsr.core.image.intensity import Limits
from napari_cfsr.core.upscale.tile_run import cropped, kinds_bytes, output_kinds

MODEL_BYTES = 1_100_000_000  # what the network takes beside the result, docs/measurements.md


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
    return kinds_bytes(output_kinds(part, np.dtype(dtype), scale, outputs))


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
    """A number of bytes as a person says it: `48 MB`, `12.9 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if nbytes >= factor:
            value = nbytes / factor
            return f"{value:.1f} {unit}" if unit != "MB" else f"{value:.0f} MB"
    return f"{nbytes / 1e3:.0f} kB"
