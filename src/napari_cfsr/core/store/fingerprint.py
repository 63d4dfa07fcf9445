"""The request of a run into a store: only the same request resumes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfsr.core.engine import ModelInfo
from napari_cfsr.core.image import ArrayLike, Axes, PixelSpace, Plane
from napari_cfsr.core.upscale import BlockPlan, UpscaleOptions
from napari_cfsr.errors import StoreExistsError

PROBE = 32  # pixels; side of the windows that identify an image
FORMAT = 1  # of the metadata of an unfinished store
HASHES = ("image", "backbone", "refiner")


def store_request(
    image: ArrayLike, info: ModelInfo, plan: BlockPlan, asked: UpscaleOptions, space: PixelSpace
) -> dict[str, Any]:
    """What has to be the same for a run to resume a store, as values that JSON can hold.

    A tile that was not requested is left out: it depends on the free memory, and a resumed run
    keeps the first. So is the device, whose results differ in the last bits only.
    """
    request = {
        "shape": plan.axes.shape,
        "dtype": plan.dtype,
        "options": asdict(replace(plan.options, axes=plan.axes.names, rgb=None, tile=asked.tile)),
        "space": asdict(space),
        "scale": info.scale,
        "backbone": info.backbone_sha256,
        "refiner": info.refiner_sha256,
        "placement": info.placement,
        "precision": info.precision,
        "image": fingerprint_pixels(image, plan.axes),
    }
    as_read: dict[str, Any] = json.loads(json.dumps(request))
    return as_read


def check_same(path: Path, metadata: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `StoreExistsError` where an unfinished store is of another request.

    Parameters
    ----------
    path : Path
    metadata : dict
        Of the store.
    now : dict
        From `store_request`.
    """
    advice = "repeat the call that began it to resume, or pass overwrite=True to start again"
    if metadata.get("format") != FORMAT:
        raise StoreExistsError(f"{path} was begun with another version of napari-cfsr: {advice}")
    before, asked = (_flat(request) for request in (metadata.get("request", {}), now))
    for name in asked:
        old, new = before.get(name), asked[name]
        if old != new:
            what = f"another {name}" if name in HASHES else f"{name} = {old}, now it is {new}"
            raise StoreExistsError(f"{path} was begun with {what}: {advice}")


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with its options on the same level."""
    return {**{k: v for k, v in request.items() if k != "options"}, **request.get("options", {})}


def fingerprint_pixels(image: ArrayLike, axes: Axes) -> str:
    """SHA-256 of small windows across the first, the middle and the last plane.

    Identifies an image at the cost of reading a few chunks.
    """
    looped = tuple(axes.shape[i] for i in axes.looped)
    digest = hashlib.sha256()
    for n in sorted({0, axes.plane_count // 2, axes.plane_count - 1}):
        plane: Plane = tuple(int(i) for i in np.unravel_index(n, looped)) if looped else ()
        for y in np.linspace(0, max(axes.height - PROBE, 0), 3).astype(int).tolist():
            for x in np.linspace(0, max(axes.width - PROBE, 0), 3).astype(int).tolist():
                rows = slice(y, min(y + PROBE, axes.height))
                columns = slice(x, min(x + PROBE, axes.width))
                window = axes.read(image, plane, rows, columns)
                digest.update(np.ascontiguousarray(window).tobytes())
    return digest.hexdigest()
