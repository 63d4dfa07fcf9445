"""What was asked of a run into a store, so that only the same can go on with it."""

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

PROBE = 32  # pixels; windows of this side tell one image from another
FORMAT = 1  # of what a store says of itself while it grows
HASHES = ("image", "backbone", "refiner")


def store_request(
    image: ArrayLike, info: ModelInfo, plan: BlockPlan, asked: UpscaleOptions, space: PixelSpace
) -> dict[str, Any]:
    """What has to be the same for a run to go on with another's store, as JSON would hold it.

    A tile that was not asked for is left out: it depends on the free memory, and the one that the
    store was begun with is kept. So is the device, whose results differ in the last bits only.
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


def check_same(path: Path, mark: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `OptionError` where a store was begun with something else.

    Parameters
    ----------
    path : Path
    mark : dict
        What the store says of itself.
    now : dict
        From `store_request`.
    """
    advice = "repeat the call that began it to go on, or pass overwrite=True to begin anew"
    if mark.get("format") != FORMAT:
        raise StoreExistsError(f"{path} was begun with another version of napari-cfsr: {advice}")
    before, asked = (_flat(request) for request in (mark.get("request", {}), now))
    for name in asked:
        old, new = before.get(name), asked[name]
        if old != new:
            what = f"another {name}" if name in HASHES else f"{name} = {old}, now it is {new}"
            raise StoreExistsError(f"{path} was begun with {what}: {advice}")


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with its options beside all else."""
    return {**{k: v for k, v in request.items() if k != "options"}, **request.get("options", {})}


def fingerprint_pixels(image: ArrayLike, axes: Axes) -> str:
    """SHA-256 of small windows all over the first, the middle and the last plane.

    It tells whether two runs see the same image, for the price of a few chunks.
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
