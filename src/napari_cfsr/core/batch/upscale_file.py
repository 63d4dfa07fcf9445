"""Upscaling one file: in memory, or block by block into a store or a big TIFF."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_cfsr.core.batch.targets import STORE, Targets
from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import parse_axes
from napari_cfsr.core.io import (
    ImageFile,
    LazyImage,
    check_format,
    open_image,
    read_image,
    store_status,
    write_image,
)
from napari_cfsr.core.store import (
    StoreProgress,
    StoreResult,
    iter_upscale_to_tiff,
    iter_upscale_to_zarr,
)
from napari_cfsr.core.upscale import (
    UpscaleOptions,
    UpscaleProgress,
    describe,
    iter_upscale,
    record_provenance,
)
from napari_cfsr.errors import OptionError

BlockRun = Callable[..., Generator[StoreProgress, None, StoreResult]]  # called as `run_blocks`


@dataclass(frozen=True, eq=False)
class FileRecord:
    """A file that was upscaled."""

    path: Path
    outputs: Mapping[str, Path]  # a file, or an image in a store, for each output
    notes: tuple[str, ...]  # what ran, then notes for the user
    seconds: float
    provenance: Mapping[str, Any]  # plain values; see `napari_cfsr.core.upscale.provenance`
    target: str  # what was written, for the user

    @property
    def summary(self) -> str:
        """All of it in one line."""
        return f"{self.path} -> {self.target}: {'; '.join(self.notes)}"


def iter_upscale_file(
    path: Path,
    targets: Targets,
    model: Model,
    options: UpscaleOptions,
    overwrite: bool = False,
    check: Check = lambda: None,
    blocks: BlockRun | None = None,
) -> Generator[UpscaleProgress, None, FileRecord]:
    """Upscale a file step by step and write the results, each of them whole or not at all.

    Nothing is written before the first step; unfinished stores are resumed.

    Parameters
    ----------
    path : Path
        An image file, or an OME-Zarr store.
    targets : Targets
        From `find_targets`.
    model : Model
    options : UpscaleOptions
        `outputs` must be named. `axes` None: those of the file, with colours only in its colour
        samples; `rgb` is ignored.
    overwrite : bool
        Whether existing results may be replaced; otherwise they are an `OptionError`.
    check : callable
        Called several times a second; an exception from it ends the run.
    blocks : callable, optional
        Upscales block by block; `run_blocks` by default.
    """
    if targets.store is None:
        return (yield from _in_memory(path, targets, model, options, overwrite, check))
    image = open_image(path)
    axes, rgb = _axes(options, image.axes)
    asked = replace(options, axes=axes, rgb=rgb)
    run = blocks or run_blocks
    about: dict[str, Any] = {"check": check, "source": str(path), "overwrite": overwrite}
    done = yield from run(image, model, targets.store, options=asked, **about)
    return _record(path, targets.store, image, done)


def _in_memory(
    path: Path,
    targets: Targets,
    model: Model,
    options: UpscaleOptions,
    overwrite: bool,
    check: Check,
) -> Generator[UpscaleProgress, None, FileRecord]:
    image = read_image(path)
    axes, rgb = _axes(options, image.axes)
    _check_formats(image, axes, targets, rgb)
    asked = replace(options, axes=axes, rgb=rgb, outputs=tuple(targets.files))
    result = yield from iter_upscale(image.pixels, model, asked, check)
    image = replace(image, axes=result.axes.names)
    notes = list(image.notes)
    arrays = result.arrays()
    for name, target in targets.files.items():
        check()
        notes += write_image(target, arrays[name], image, model.info.scale, overwrite)
    return FileRecord(
        path,
        targets.files,
        (describe(result), *dict.fromkeys(notes)),
        result.seconds,
        record_provenance(result, str(path), f"nc.read_image({str(path)!r}).pixels"),
        ", ".join(str(t) for t in targets.files.values()),
    )


def _axes(options: UpscaleOptions, of_file: str) -> tuple[str, bool | None]:
    """Axes, and whether `C` may be colours: only where the user named the axes."""
    return (options.axes.upper(), None) if options.axes else (of_file.upper(), False)


def _check_formats(image: ImageFile, letters: str, targets: Targets, rgb: bool | None) -> None:
    """Raise an error where a format can't hold the result, before any time is spent."""
    axes = parse_axes(letters, image.pixels.shape, rgb)
    for name, target in targets.files.items():
        is_difference = name == "difference"
        dtype = "float32" if is_difference else image.pixels.dtype.name
        samples = axes.samples - (is_difference and axes.has_alpha)
        check_format(target, axes.names, dtype, samples)


def _record(path: Path, target: Path, image: LazyImage, done: StoreResult) -> FileRecord:
    """The record of a run block by block."""
    result = done.result
    resumed = (f"{done.resumed} of {done.blocks} blocks were there",) if done.resumed else ()
    return FileRecord(
        path,
        done.images,
        (describe(result), *resumed, *image.notes),
        result.seconds,
        record_provenance(result, str(path), f"nc.open_image({str(path)!r}).pixels"),
        str(target),
    )


def run_blocks(
    image: LazyImage,
    model: Model,
    target: Path,
    options: UpscaleOptions,
    check: Check,
    source: str,
    overwrite: bool,
) -> Generator[StoreProgress, None, StoreResult]:
    """Upscale into a store, or through one into a TIFF, in this process.

    `target` is `.zarr`, or the name of a TIFF; the `outputs` of the options are named. `source` is
    what the image is called in the store's record.
    """
    about: dict[str, Any] = {"space": image.space, "omero": image.omero}
    about |= {"source": source, "overwrite": overwrite}
    is_store = target.suffix.lower() == STORE
    exists = store_status(target) in ("complete", "other") if is_store else target.exists()
    if exists and not overwrite:
        raise OptionError(f"{target} exists: pass overwrite=True to replace it")
    if is_store:
        return (
            yield from iter_upscale_to_zarr(image.pixels, model, target, options, check, **about)
        )
    paths = {(options.outputs or ("baseline",))[0]: target}
    return (yield from iter_upscale_to_tiff(image.pixels, model, paths, options, check, **about))
