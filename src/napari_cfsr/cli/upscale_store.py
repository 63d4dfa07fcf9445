"""`napari-cfsr upscale` from and to OME-Zarr stores: images of any size, a block at a time."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import describe, tile_bar
from napari_cfsr.cli.inputs import is_store
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.lazy_image import LazyImage
    from napari_cfsr.core.model import SRModel
    from napari_cfsr.core.options import UpscaleOptions
    from napari_cfsr.core.zarr_run import StoreProgress, StoreResult

STORE = ".zarr"


def take_output(options: argparse.Namespace) -> None:
    """`IN OUT.zarr`: the second of two is what to write, unless it is a store of someone else's."""
    if options.output is not None or len(options.inputs) != 2:
        return
    last: Path = options.inputs[1]
    if last.suffix.lower() != STORE:
        return
    from napari_cfsr.core.zarr_store import store_status

    if store_status(last) != "other":
        options.output = options.inputs.pop()


def store_target(
    path: Path, output: Path | None, outputs: Sequence[str], scale: int, single: bool
) -> Path | None:
    """The store, or the TIFF, that a run block by block writes; None where none is meant.

    Such a run is meant if the input is a store, or the output is to be one.
    """
    from napari_cfsr.core.files import TIFF_SUFFIXES

    suffix = output.suffix.lower() if output is not None else ""
    if output is not None and (suffix == STORE or (suffix in TIFF_SUFFIXES and is_store(path))):
        if not single:
            raise OptionError(f"expected a folder for several files, got --output {output}")
        if suffix != STORE and len(outputs) != 1:
            raise OptionError(f"expected a folder or {STORE} for several outputs, got {output}")
        return output
    if not is_store(path):
        return None
    kind = f"_{outputs[0]}" if len(outputs) == 1 else ""  # several are groups of one store
    return (output or path.parent) / f"{path.stem}_x{scale}{kind}{STORE}"


def upscale_to_store(
    path: Path,
    target: Path,
    outputs: tuple[str, ...],
    model: SRModel,
    intensity: Any,
    options: argparse.Namespace,
    client: Any = None,
) -> dict[str, Any]:
    """Upscale one image, going on where an earlier run was interrupted; a record of it.

    With the client of a cluster, its workers do it.
    """
    from napari_cfsr.core.open_image import open_image
    from napari_cfsr.core.options import UpscaleOptions
    from napari_cfsr.core.provenance import provenance

    image = open_image(path)
    asked = UpscaleOptions(
        axes=(options.axes or image.axes).upper(),
        rgb=None if options.axes else False,
        outputs=outputs,
        ensemble=options.ensemble,
        back_projection=options.back_projection,
        tile=options.tile,
        halo=options.halo,
        intensity=intensity,
    )
    known = {"space": image.space, "omero": image.omero, "source": str(path)}
    if client is None:
        steps = _steps(image.pixels, model, target, asked, options.overwrite, known)
    else:
        steps = _cluster_steps(image, model, target, asked, client, str(path), options)
    with tile_bar(path.name) as progress:
        while True:
            try:
                progress(next(steps))
            except StopIteration as end:
                done: StoreResult = end.value
                break
    written = {name: str(group) for name, group in done.images.items()}
    resumed = f"{done.resumed} of {done.blocks} blocks were there" if done.resumed else ""
    notes = [f"{path} -> {target}: {describe(done.result)}", resumed, *image.notes]
    record = provenance(done.result, str(path), f"nc.open_image({str(path)!r}).pixels")
    return {"summary": "; ".join(filter(None, notes)), "outputs": written, **record}


def _steps(
    pixels: Any, model: SRModel, target: Path, asked: Any, overwrite: bool, known: dict[str, Any]
) -> Generator[StoreProgress, None, StoreResult]:
    """The run into a store, or by way of one into a TIFF."""
    from napari_cfsr.core.zarr_run import iter_upscale_to_zarr

    if target.suffix.lower() == STORE:
        _check_store(target, overwrite)
        return iter_upscale_to_zarr(pixels, model, target, asked, overwrite=overwrite, **known)
    from napari_cfsr.core.big_tiff import iter_upscale_to_tiff

    if target.exists() and not overwrite:
        raise OptionError(f"{target} exists: pass --overwrite to replace it")
    paths = {asked.outputs[0]: target}
    return iter_upscale_to_tiff(pixels, model, paths, asked, overwrite=overwrite, **known)


def _cluster_steps(
    image: LazyImage,
    model: SRModel,
    target: Path,
    asked: UpscaleOptions,
    client: Any,
    source: str,
    options: argparse.Namespace,
) -> Generator[StoreProgress, None, StoreResult]:
    """The run into a store on a cluster."""
    from napari_cfsr.core.cluster import iter_upscale_on_cluster

    _check_store(target, options.overwrite)
    return iter_upscale_on_cluster(
        image,
        model,
        target,
        client,
        asked,
        device=options.device,
        source=source,
        overwrite=options.overwrite,
    )


def _check_store(target: Path, overwrite: bool) -> None:
    from napari_cfsr.core.zarr_store import store_status

    if store_status(target) in ("complete", "other") and not overwrite:
        raise OptionError(f"{target} exists: pass --overwrite to replace it")
