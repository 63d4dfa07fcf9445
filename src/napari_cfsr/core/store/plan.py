"""What a run into a store writes and where, resolved before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfsr.core.engine import Check, Model, ModelInfo
from napari_cfsr.core.image import ArrayLike, Axes, IntensityMapping, PixelSpace, pixel_space
from napari_cfsr.core.io import colour_channels, image_metadata, read_store_metadata, store_status
from napari_cfsr.core.store.growing_store import (
    FORMAT,
    GrowingStore,
    remove_store,
    stores_read,
    writing,
)
from napari_cfsr.core.store.layout import ShardIndex, StoreLayout, plan_layout
from napari_cfsr.core.upscale import BlockPlan, UpscaleOptions, plan_blocks
from napari_cfsr.errors import OptionError, StoreExistsError

PROBE = 32  # pixels; side of the windows that identify an image
HASHES = ("image", "backbone", "refiner")


@dataclass(frozen=True, eq=False)
class StorePlan:
    """A run into a store, with every choice made."""

    path: Path
    blocks: BlockPlan
    mapping: tuple[IntensityMapping, ...]
    space: PixelSpace  # of the input
    # what another run has to ask for to resume this one; see `store_request`
    request: dict[str, Any]
    resumes: bool  # whether an interrupted run left its blocks there
    omero: Mapping[str, Any] | None  # how OME-Zarr names and shows the channels of the input
    source: str  # what the image is called in the store's record
    started: float  # `time.perf_counter()` when planning began

    @cached_property
    def layout(self) -> StoreLayout:
        return plan_layout(self.blocks)

    @cached_property
    def shards(self) -> tuple[ShardIndex, ...]:
        """All shards, each after those that it is made from."""
        return tuple(self.layout.shards())

    def open(self) -> GrowingStore:
        """Create the store, in place of what is at the path, or open the one to resume."""
        images = {name: self._metadata(name) for name in self.blocks.specs}
        store = GrowingStore(self.path, self.blocks, images)
        with writing(self.path):
            if self.resumes:
                store.resume()
                return store
            if store_status(self.path) != "absent":
                remove_store(self.path)
            tile, sides = self.blocks.options.tile, list(self.blocks.sides)
            found = {"tile": tile, "sides": sides, "mapping": [asdict(m) for m in self.mapping]}
            store.create({"request": self.request, "plan": found, "source": self.source})
        return store

    def _metadata(self, name: str) -> dict[str, Any]:
        """The `ome` attribute of one output."""
        blocks, omero = self.blocks, self.omero
        if name == "difference":
            omero = None
        elif "S" in self.layout.axes:
            low, high = self.mapping[0].low, self.mapping[0].high
            omero = colour_channels(blocks.axes.samples, np.dtype(blocks.dtype), low, high)
        return image_metadata(
            f"{self.path.stem} {name}",
            self.layout.axes,
            self.space.enlarged(blocks.scale, blocks.request.region),
            len(self.layout.sizes),
            omero,
        )


def plan_store(
    image: ArrayLike,
    model: Model,
    path: str | os.PathLike[str],
    options: UpscaleOptions,
    check: Check = lambda: None,
    *,
    space: PixelSpace | None = None,
    omero: Mapping[str, Any] | None = None,
    source: str = "",
    overwrite: bool = False,
) -> StorePlan:
    """Resolve a run into a store; reads the image where its intensities are needed.

    Parameters and errors are those of `iter_upscale_to_zarr`.
    """
    started, path = time.perf_counter(), Path(path)
    blocks = plan_blocks(image, model, options)
    plan_layout(blocks)  # raises for axes that it can't hold
    if blocks.part.is_empty:
        raise OptionError(f"expected pixels to write, got an image of shape {blocks.axes.shape}")
    letters = blocks.axes.names.replace("S", "")
    space = (space or pixel_space(letters)).along(letters)
    status = _check_path(image, path, overwrite)
    request = store_request(image, model.info, blocks, options, space)
    resumes = status == "partial" and _can_resume(path, request, overwrite)
    if resumes:
        found = (read_store_metadata(path) or {})["plan"]
        blocks = plan_blocks(image, model, replace(options, tile=found["tile"]))
        blocks = replace(blocks, sides=tuple(found["sides"]))
        mapping = tuple(IntensityMapping(**m) for m in found["mapping"])
    else:
        mapping = blocks.known_mapping() or blocks.find_mapping(image, check)
    return StorePlan(path, blocks, mapping, space, request, resumes, omero, source, started)


def _check_path(image: ArrayLike, path: Path, overwrite: bool) -> str:
    """Raise an error where the path must not be written to; what is there now."""
    status, here = store_status(path), path.resolve()
    for there in (root.resolve() for root in stores_read(image)):
        if here in (there, *there.parents):
            raise OptionError(f"expected another store than the image's own, got {path}")
    if status in ("complete", "other") and not overwrite:
        raise StoreExistsError(f"{path} exists: pass overwrite=True to replace it")
    return status


def _can_resume(path: Path, request: dict[str, Any], overwrite: bool) -> bool:
    """Whether an unfinished store is of the same request; raises if it may not be replaced."""
    difference = _difference(read_store_metadata(path) or {}, request)
    if difference and not overwrite:
        raise StoreExistsError(
            f"{path} was begun with {difference}: repeat the call that began it to resume, or pass "
            "overwrite=True to start again"
        )
    return not difference


def _difference(metadata: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """How the request of an unfinished store differs from this one; empty if it does not."""
    if metadata.get("format") != FORMAT:
        return "another version of napari-cfsr"
    before, now = (_flat(found) for found in (metadata.get("request", {}), request))
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old != new:
            return f"another {name}" if name in HASHES else f"{name} = {old}, now it is {new}"
    return ""


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with its options on the same level."""
    return {**{k: v for k, v in request.items() if k != "options"}, **request.get("options", {})}


def store_request(
    image: ArrayLike, info: ModelInfo, plan: BlockPlan, asked: UpscaleOptions, space: PixelSpace
) -> dict[str, Any]:
    """What has to be the same for a run to resume a store, as values that JSON can hold.

    A tile that was not requested is left out: it depends on the free memory, and a resumed run
    keeps the first. So is the device, whose results differ in the last bits only.
    """
    options = asdict(replace(plan.options, axes=plan.axes.names, rgb=None, tile=asked.tile))
    options["noise"] = asdict(asked)["noise"]  # an estimate is the same for the same image
    for name in ("refiner_ensemble", "noise"):  # unknown to earlier versions
        if not options[name]:
            del options[name]
    request = {
        "shape": plan.axes.shape,
        "dtype": plan.dtype,
        "options": options,
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


def fingerprint_pixels(image: ArrayLike, axes: Axes) -> str:
    """SHA-256 of small windows across the first, the middle and the last plane.

    Identifies an image at the cost of reading a few chunks.
    """
    planes, digest = list(axes.planes()), hashlib.sha256()
    for n in sorted({0, len(planes) // 2, len(planes) - 1}):
        for y in np.linspace(0, max(axes.height - PROBE, 0), 3).astype(int).tolist():
            for x in np.linspace(0, max(axes.width - PROBE, 0), 3).astype(int).tolist():
                rows = slice(y, min(y + PROBE, axes.height))
                columns = slice(x, min(x + PROBE, axes.width))
                window = axes.read(image, planes[n], rows, columns)
                digest.update(np.ascontiguousarray(window).tobytes())
    return digest.hexdigest()
