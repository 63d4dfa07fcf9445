"""Planning a batch from the names of the files, before anything is read or loaded."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from napari_cfsr.core.batch.targets import Targets, check_targets, find_inputs, find_targets
from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.core.weights import ModelFiles
from napari_cfsr.errors import CFSRError, OptionError


@dataclass(frozen=True, eq=False)
class BatchItem:
    """An input of a batch."""

    path: Path
    targets: Targets | None = None  # where its results go; None if not known
    fault: str = ""  # why it can't be upscaled, if that is known from the names


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The files of a batch and where their results go."""

    items: tuple[BatchItem, ...]
    options: UpscaleOptions  # `outputs` are named
    # plain values: everything that the results depend on, except the inputs
    request: dict[str, Any]
    overwrite: bool = False  # whether all files are redone, and existing results may be replaced
    single: bool = False  # a single file that was named: it is never skipped and has no ledger


def plan_batch(
    inputs: Sequence[Path],
    output: Path | None,
    files: ModelFiles,
    options: UpscaleOptions | None = None,
    precision: str = "float32",
    overwrite: bool = False,
) -> BatchPlan:
    """Find the files of a batch, where their results go, and which of them clash.

    Parameters
    ----------
    inputs : sequence of Path
        Image files, OME-Zarr stores, and folders of them.
    output : Path or None
        A folder; for a single file also a file or store. None: beside each input.
    files : ModelFiles
        From `find_model`.
    options : UpscaleOptions, optional
        `outputs` None: the best one of the model.
    precision : {"float32", "fast"}
    overwrite : bool
        Whether existing results may be replaced.
    """
    options = options or UpscaleOptions()
    options = replace(options, outputs=options.outputs or files.outputs[-1:])
    found, faults = find_inputs(inputs)
    single = len(found) == 1 and found[0] in inputs
    taken = {_same_name(path): "is an input itself" for path in found}
    items = [BatchItem(fault.path, fault=fault.text) for fault in faults]
    for path in found:
        items.append(_planned(path, output, options, files.scale, single, taken))
    recorded = asdict(options)
    for name in ("refiner_ensemble", "noise"):  # unknown to earlier versions
        if not recorded[name]:
            del recorded[name]
    request = {
        "options": recorded,
        "scale": files.scale,
        "backbone": files.backbone.sha256,
        "refiner": files.refiner and files.refiner.sha256,
        "precision": precision,
    }
    return BatchPlan(tuple(items), options, request, overwrite, single)


def _planned(
    path: Path,
    output: Path | None,
    options: UpscaleOptions,
    scale: int,
    single: bool,
    taken: dict[Path, str],
) -> BatchItem:
    """The item of a file; its targets are added to `taken`."""
    targets = None
    try:
        targets = find_targets(path, output, options.outputs or (), scale, single)
        check_targets(targets.paths, {}, overwrite=True)
        for target in targets.paths:
            why = taken.get(_same_name(target))
            if why is not None:
                raise OptionError(f"{target} {why}: choose another output")
    except CFSRError as error:
        text = str(error)
        fault = text if text.startswith(str(path)) else f"{path}: {text}"
        return BatchItem(path, targets, fault)
    for target in targets.paths:
        taken[_same_name(target)] = f"is where the result of {path} goes"
    return BatchItem(path, targets)


def _same_name(path: Path) -> Path:
    """One path for all names of a file, on systems that ignore case."""
    path = path.resolve()
    if sys.platform in ("win32", "darwin"):
        return Path(unicodedata.normalize("NFC", str(path)).casefold())
    return path
