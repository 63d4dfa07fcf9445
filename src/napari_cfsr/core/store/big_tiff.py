"""Tiled TIFF files of any size, with a pyramid: from a store, or from an upscaling.

The tiles of a TIFF are written in order, and a block of the upscaling is not a row of tiles. So the
result is first written to a store beside the file, which can be resumed after an interruption, and
the file from that, a tile at a time, whole or not at all.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import ArrayLike, Axes, PixelSpace, unit_symbol
from napari_cfsr.core.io import (
    LARGEST_CLASSIC,
    TIFF_SUFFIXES,
    LazyImage,
    atomic_write,
    open_ome_zarr,
)
from napari_cfsr.core.store.growing_store import writing
from napari_cfsr.core.store.plan import plan_store
from napari_cfsr.core.store.run import StoreProgress, StoreResult, StoreRun
from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.errors import FileFormatError, OptionError

Array = NDArray[Any]

TILE = 512  # pixels; a multiple of 16, as TIFF demands
PER_CENTIMETRE = {"nanometer": 1e7, "micrometer": 1e4, "millimeter": 10.0}  # of a unit of length


def write_big_tiff(
    image: LazyImage,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    check: Check = lambda: None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Write an image with its pyramid as a tiled TIFF, a BigTIFF if it is large.

    Parameters
    ----------
    image : LazyImage
        From `open_image`; read a tile at a time.
    path : path
        `.ome.tif` for OME-TIFF, with pixel sizes and channel names; `.tif` for a plain one. Levels
        of the pyramid are sub-images, as in OME-TIFF and whole slides; plain stacks have none.
    overwrite : bool
        Whether a file of that name may be replaced.
    check : callable
        Called before each tile; an exception from it ends the writing, without a file.
    progress : callable, optional
        Called with the fraction that is written, after each row of tiles.

    Raises
    ------
    OptionError
        The file exists, or the name is not one of a TIFF.
    FileFormatError
        TIFF can't hold it, or the disk is full.
    """
    path = Path(path)
    _check_target(path, overwrite)
    _check_dtype(path, image.pixels)
    ome = path.stem.lower().endswith(".ome")
    with atomic_write(path, overwrite) as file, writing(path):
        _write(image, file, ome, check, progress or (lambda _: None))


def iter_upscale_to_tiff(
    image: ArrayLike,
    model: Model,
    paths: Mapping[str, str | os.PathLike[str]],
    options: UpscaleOptions | None = None,
    check: Check = lambda: None,
    *,
    space: PixelSpace | None = None,
    omero: Mapping[str, Any] | None = None,
    source: str = "",
    overwrite: bool = False,
) -> Generator[StoreProgress, None, StoreResult]:
    """Upscale to tiled TIFFs step by step; can be resumed as `iter_upscale_to_zarr`.

    Parameters
    ----------
    image, model, options, check, space, omero, source
        As for `iter_upscale_to_zarr`; the outputs are those of `paths`.
    paths : dict of str to path
        A file for each output, by its name.
    overwrite : bool
        Whether those files may be replaced.

    Returns
    -------
    StoreResult
        Its `images` are the files; `path` is the intermediate store, which was removed.
    """
    targets = {name: Path(path) for name, path in paths.items()}
    for target in targets.values():
        _check_target(target, overwrite)
        _check_dtype(target, image)
    if len({target.resolve() for target in targets.values()}) < max(len(targets), 1):
        raise OptionError(f"expected a different file for each output, got {targets}")
    options = replace(options or UpscaleOptions(), outputs=tuple(targets))
    first = next(iter(targets.values()), Path())
    store = first.with_name(f".{first.stem}.partial.zarr")
    plan = plan_store(
        image, model, store, options, check,
        space=space, omero=omero, source=source, overwrite=overwrite,
    )  # fmt: skip
    run = StoreRun(image, model, plan, check)
    yield from run.shards()
    for name, target in targets.items():
        yield run.progress(note=f"Writing {target.name}")
        group = run.store.groups[name]
        write_big_tiff(open_ome_zarr(group, incomplete=True), target, overwrite, check)
    result = replace(run.result(), images=targets)
    shutil.rmtree(store)
    return result


def _check_target(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise OptionError(f"expected a name ending in .tif or .tiff, got {path}")
    if path.exists() and not overwrite:
        raise OptionError(f"{path} exists: pass overwrite=True to replace it")


def _check_dtype(path: Path, pixels: ArrayLike) -> None:
    if np.dtype(pixels.dtype).kind == "b":
        raise FileFormatError(f"{path}: tiles can't hold pixels of 1 bit: write OME-Zarr instead")


def _write(
    image: LazyImage, file: BinaryIO, ome: bool, check: Check, progress: Callable[[float], None]
) -> None:
    """Write level by level; those after the first are sub-images of it."""
    # in plain files with sub-images, tifffile does not read the axes that it wrote
    single = not set(image.axes) - set("YXS")
    levels = image.levels if ome or single else image.levels[:1]
    sizes = [math.prod(level.shape) for level in levels]
    itemsize = np.dtype(image.pixels.dtype).itemsize
    axes = image.axes.replace("S", "") + "S" * ("S" in image.axes)
    metadata = {"axes": axes, **_ome(image)} if ome else None if single else {"axes": axes}
    big = sum(sizes) * itemsize > LARGEST_CLASSIC
    with tifffile.TiffWriter(file, bigtiff=big, ome=ome) as tif:
        done = 0
        for i, level in enumerate(levels):
            shape = tuple(level.shape[image.axes.index(name)] for name in axes)

            def report(fraction: float, done: int = done, size: int = sizes[i]) -> None:
                progress((done + fraction * size) / sum(sizes))

            first: dict[str, Any] = {"subifds": len(levels) - 1, "metadata": metadata}
            tif.write(
                _tiles(level, image.axes, check, report),
                shape=shape,
                dtype=np.dtype(level.dtype).newbyteorder("="),
                tile=(TILE, TILE),
                compression="zlib",
                **_colours(image),
                **_resolution(image.space, i),
                **(first if i == 0 else {"subfiletype": 1, "metadata": None}),
            )
            report(1.0)
            done += sizes[i]


def _tiles(
    pixels: ArrayLike, axes: str, check: Check, progress: Callable[[float], None]
) -> Iterator[Array]:
    """[TILE,TILE] or [TILE,TILE,S] of each plane, row by row; padded at the border."""
    layout = Axes(axes, pixels.shape)
    for n, plane in enumerate(layout.planes()):
        for y in range(0, layout.height, TILE):
            rows = slice(y, min(y + TILE, layout.height))
            for x in range(0, layout.width, TILE):
                check()
                columns = slice(x, min(x + TILE, layout.width))
                samples = layout.read(pixels, plane, rows, columns)
                missing = [(0, TILE - side) for side in samples.shape[1:]]
                tile = np.pad(samples, [(0, 0), *missing])
                yield np.moveaxis(tile, 0, -1) if "S" in axes else tile[0]
            progress((n + min(1.0, (y + TILE) / layout.height)) / layout.plane_count)


def _colours(image: LazyImage) -> dict[str, Any]:
    """How to interpret the samples of a pixel."""
    if "S" not in image.axes:
        return {"photometric": "minisblack"}
    samples = image.pixels.shape[image.axes.index("S")]
    kind = "rgb" if samples > 2 else "minisblack"
    options: dict[str, Any] = {"photometric": kind, "planarconfig": "contig"}
    return options | ({"extrasamples": ["unassalpha"]} if samples in (2, 4) else {})


def _resolution(space: PixelSpace, level: int) -> dict[str, Any]:
    """Pixels per centimetre, if the unit is one of length."""
    sizes = dict(zip(space.axes, zip(space.sizes, space.units, strict=True), strict=True))
    result = []
    for letter in "XY":
        size, unit = sizes.get(letter, (0.0, None))
        if unit not in PER_CENTIMETRE or not size:
            return {}
        result.append(PER_CENTIMETRE[unit] / (size * 2**level))
    return {"resolution": tuple(result), "resolutionunit": "CENTIMETER"}


def _ome(image: LazyImage) -> dict[str, Any]:
    """Pixel sizes and channel names for OME-TIFF."""
    facts: dict[str, Any] = {}
    space = image.space
    for letter, size, unit in zip(space.axes, space.sizes, space.units, strict=True):
        if unit is None or letter not in "TZYX":
            continue
        word = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        facts |= {word: size, f"{word}Unit": unit_symbol(unit)}
    names = [c.get("label") for c in (image.omero or {}).get("channels", ())]
    count = image.pixels.shape[image.axes.index("C")] if "C" in image.axes else None
    if all(names) and len(names) == count:
        facts["Channel"] = {"Name": names}
    return facts
