"""Upscaling a layer to an OME-Zarr store: what is asked, what is told, and where it lies."""

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
    from napari_cfsr.core.store import StorePreview, StoreProgress, StoreResult, StoreRun

STORE = ".zarr"
MOST_NAMES = 1000


@dataclass(frozen=True, eq=False)
class StoreRequest:
    """All that a run into a store needs, read on the GUI thread.

    Attributes
    ----------
    image : ImageInput
    load : dict
        Arguments of `load_model`.
    options : UpscaleOptions
    path : Path
        The store; if there is another one, a number is added to its name.
    """

    image: ImageInput
    load: dict[str, Any]
    options: UpscaleOptions
    path: Path


@dataclass(frozen=True, eq=False)
class StoreBegun:
    """A store that is there and grows.

    Attributes
    ----------
    request : StoreRequest
    path : Path
    scale : int
    outputs : tuple of str
    growth : StorePreview
        How to look at it.
    """

    request: StoreRequest
    path: Path
    scale: int
    outputs: tuple[str, ...]
    growth: StorePreview


@dataclass(frozen=True)
class StoreStep(Step):
    """Something to show while a run into a store is under way."""

    begun: StoreBegun | None = None  # once, when the store is there


@dataclass(frozen=True, eq=False)
class StoreOutcome:
    """A finished store.

    Attributes
    ----------
    begun : StoreBegun
    done : StoreResult
    limits : (float, float)
        The range of the difference, at the smallest level; zeros if there is none.
    """

    begun: StoreBegun
    done: StoreResult
    limits: tuple[float, float]


def store_path(folder: Path, name: str, scale: int) -> Path:
    """Where a layer goes in a folder: its name, without what no file name can hold."""
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", name).strip(" .") or "image"
    return folder / f"{plain}_x{scale}{STORE}"


def layer_space(source: ImageInput) -> tuple[PixelSpace, str]:
    """Sizes, origin and units of the data of an input, and a note on what a store can't keep.

    The note is empty unless the layer is rotated, sheared or mirrored.
    """
    axes = source.axes.replace("S", "")
    matrix = np.asarray(layer_to_world(source).affine_matrix)
    linear, origin = matrix[:-1, :-1], matrix[:-1, -1]
    sizes = np.diag(linear)
    note = ""
    if not np.allclose(linear, np.diag(sizes), atol=1e-9 * abs(linear).max()) or (sizes <= 0).any():
        note = "the store keeps the sizes of the pixels, not how the layer is rotated or sheared"
        sizes, origin, linear = source.scale, source.translate, np.diag(source.scale)
    # rows and columns are counted from the first of the layer, other axes from the region's
    starts = [
        0 if name in "YX" else part.start for name, part in zip(axes, source.region, strict=True)
    ]
    origin = origin + linear @ np.array(starts, float)
    units = tuple(unit_name(unit) for unit in source.units)
    return PixelSpace(axes, tuple(map(float, sizes)), tuple(map(float, origin)), units), note


def upscale_to_store(
    request: StoreRequest, model: RemoteModel, check: Callable[[], None]
) -> Generator[StoreStep, None, StoreOutcome]:
    """Upscale step by step to the store; ended early, the next call goes on with it.

    Parameters
    ----------
    request : StoreRequest
    model : RemoteModel
    check : callable
        Called several times a second; an exception from it ends the run.

    Raises
    ------
    CFSRError
        As `iter_upscale_to_zarr`.
    """
    from napari_cfsr.core.store import StorePreview

    yield StoreStep("Loading the model")
    with model.loaded(request.load, check) as info:
        yield StoreStep(f"Loaded {info.backbone}; reading intensities")
        space, note = layer_space(request.image)
        run = _prepared(request, model, check, space)
        growth = StorePreview(run.store)
        run.watch = growth.put
        begun = StoreBegun(request, run.path, info.scale, tuple(run.plan.specs), growth)
        if note:
            run.notes.append(note)
        yield StoreStep(f"Writing {run.path}", 0.0, begun=begun)
        for progress in run.shards():
            yield _step(progress, run.path)
        done = run.finish()
        growth.finish()
    return StoreOutcome(begun, done, _difference_range(request.image, growth))


def _difference_range(image: ImageInput, growth: StorePreview) -> tuple[float, float]:
    """The range in which a difference is shown; found here, so that the window need not wait."""
    from napari_cfsr.core.store import LevelView, level_range

    if "difference" not in growth.store.specs:
        return 0.0, 0.0
    smallest = LevelView(growth.levels("difference")[-1], growth.layout.order, luma=image.rgb)
    return level_range(smallest, image.axes.replace("S", ""))


def _step(progress: StoreProgress, path: Path) -> StoreStep:
    text = progress.note or f"Writing {path.name}"
    return StoreStep(text, progress.fraction, progress.seconds_left)


def _prepared(
    request: StoreRequest, model: RemoteModel, check: Callable[[], None], space: PixelSpace
) -> StoreRun:
    """The run into the first store of that name that is free, or was begun with this request."""
    from napari_cfsr.core.store import StoreRun

    path = request.path
    for number in range(2, MOST_NAMES):
        run = StoreRun(request.image.data, model, path, request.options, check, request.image.name)
        try:
            run.prepare(space, None, overwrite=False)
        except StoreExistsError:
            path = request.path.with_stem(f"{request.path.stem} {number}")
        else:
            return run
    raise StoreExistsError(f"{request.path} and {MOST_NAMES} more exist: choose another folder")
