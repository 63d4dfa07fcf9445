"""Upscaling a layer to an OME-Zarr store: request, steps and outcome, and the store's path."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cfsr.core.image import PixelSpace, unit_name
from napari_cfsr.core.process import RemoteModel
from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.errors import StoreExistsError
from napari_cfsr.layers import ImageInput, layer_to_world
from napari_cfsr.workers.steps import Step

if TYPE_CHECKING:
    from napari_cfsr.core.store import StorePlan, StorePreview, StoreProgress, StoreResult

STORE = ".zarr"
MOST_NAMES = 1000


@dataclass(frozen=True, eq=False)
class StoreRequest:
    """Everything that a run into a store needs, read on the GUI thread."""

    image: ImageInput
    load: dict[str, Any]  # arguments of `load_model`
    options: UpscaleOptions
    path: Path  # the store; if another one exists, a number is added to its name


@dataclass(frozen=True, eq=False)
class StoreBegun:
    """A store that was opened and grows."""

    request: StoreRequest
    path: Path
    scale: int
    outputs: tuple[str, ...]
    preview: StorePreview


@dataclass(frozen=True)
class StoreStep(Step):
    """Something to show while a run into a store is under way."""

    begun: StoreBegun | None = None  # once, when the store is there


@dataclass(frozen=True, eq=False)
class StoreOutcome:
    """A finished store."""

    begun: StoreBegun
    done: StoreResult
    # the range of the difference, at the smallest level; zeros if there is none
    limits: tuple[float, float]


def store_path(folder: Path, name: str, scale: int) -> Path:
    """Where a layer is stored in a folder: its name, without characters that files can't have."""
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", name).strip(" .") or "image"
    return folder / f"{plain}_x{scale}{STORE}"


def layer_space(source: ImageInput) -> tuple[PixelSpace, str]:
    """Pixel sizes, origin and units of an input, and a note on what a store can't keep.

    The note is empty unless the layer is rotated, sheared or mirrored.
    """
    axes = source.axes.replace("S", "")
    matrix = np.asarray(layer_to_world(source).affine_matrix)
    linear, origin = matrix[:-1, :-1], matrix[:-1, -1]
    sizes = np.diag(linear)
    note = ""
    if not np.allclose(linear, np.diag(sizes), atol=1e-9 * abs(linear).max()) or (sizes <= 0).any():
        note = "the store keeps pixel sizes, not how the layer is rotated or sheared"
        sizes, origin, linear = source.scale, source.translate, np.diag(source.scale)
    # rows and columns start at the layer's first, other axes at the region's
    starts = [
        0 if name in "YX" else part.start for name, part in zip(axes, source.region, strict=True)
    ]
    origin = origin + linear @ np.array(starts, float)
    units = tuple(unit_name(unit) for unit in source.units)
    return PixelSpace(axes, tuple(map(float, sizes)), tuple(map(float, origin)), units), note


def upscale_to_store(
    request: StoreRequest, model: RemoteModel, check: Callable[[], None]
) -> Generator[StoreStep, None, StoreOutcome]:
    """Upscale step by step to the store; after an interruption, the next call resumes it.

    `check` is called several times a second; an exception from it ends the run.

    Raises
    ------
    CFSRError
        As `iter_upscale_to_zarr`.
    """
    from napari_cfsr.core.store import StorePreview, StoreRun

    yield StoreStep("Loading the model")
    with model.loaded(request.load, check) as info:
        yield StoreStep(f"Loaded {info.backbone}; reading intensities")
        space, note = layer_space(request.image)
        plan = _free_plan(request, model, check, space)
        run = StoreRun(request.image.data, model, plan, check)
        preview = StorePreview(run.store)
        run.written = preview.put
        begun = StoreBegun(request, plan.path, info.scale, tuple(plan.blocks.specs), preview)
        if note:
            run.notes.append(note)
        yield StoreStep(f"Writing {plan.path}", 0.0, begun=begun)
        for progress in run.shards():
            yield _step(progress, plan.path)
        done = run.finish()
        preview.finish()
    return StoreOutcome(begun, done, _difference_range(request.image, preview))


def _difference_range(image: ImageInput, preview: StorePreview) -> tuple[float, float]:
    """The range in which a difference is shown; found here, so that the window does not wait."""
    from napari_cfsr.core.store import LevelView, level_range

    if "difference" not in preview.store.specs:
        return 0.0, 0.0
    smallest = LevelView(preview.levels("difference")[-1], preview.layout.order, luma=image.rgb)
    return level_range(smallest, image.axes.replace("S", ""))


def _step(progress: StoreProgress, path: Path) -> StoreStep:
    text = progress.note or f"Writing {path.name}"
    return StoreStep(text, progress.fraction, progress.seconds_left)


def _free_plan(
    request: StoreRequest, model: RemoteModel, check: Callable[[], None], space: PixelSpace
) -> StorePlan:
    """The plan for the first store of that name that is free, or unfinished with this request."""
    from napari_cfsr.core.store import plan_store

    image, path = request.image, request.path
    for number in range(2, MOST_NAMES):
        try:
            return plan_store(
                image.data, model, path, request.options, check, space=space, source=image.name
            )
        except StoreExistsError:
            path = request.path.with_stem(f"{request.path.stem} {number}")
    raise StoreExistsError(f"{request.path} and {MOST_NAMES} more exist: choose another folder")
