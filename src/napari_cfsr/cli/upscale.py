"""`napari-cfsr upscale`: files in, files out."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import (
    add_model_options,
    check_targets,
    describe,
    intensity_named,
    load,
    say,
    tile_bar,
)
from napari_cfsr.cli.inputs import input_files
from napari_cfsr.cli.upscale_cluster import add_cluster_options, cluster_client
from napari_cfsr.cli.upscale_store import STORE, store_target, take_output, upscale_to_store
from napari_cfsr.errors import CFSRError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.files import ImageFile
    from napari_cfsr.core.model import SRModel


def add_upscale(command: argparse.ArgumentParser) -> None:
    from napari_cfsr.core.intensity import MODES

    command.set_defaults(run=run_upscale)
    command.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="image files, OME-Zarr stores, or folders of them (what this program wrote before is "
        "left out); IN OUT.zarr: one input and the store to write",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="a folder, or a file or OME-Zarr store for a single input; beside each by default",
    )
    add_model_options(command)
    command.add_argument("--baseline", action="store_true", help="write the backbone's output")
    command.add_argument("--delta", action="store_true", help="write the refined output")
    command.add_argument(
        "--difference", action="store_true", help="write delta - baseline as a float32 TIFF"
    )
    command.add_argument("--ensemble", action="store_true", help="average of eight: 8 times slower")
    command.add_argument(
        "--back-projection", action="store_true", help="for bicubic-reduced input, at x4"
    )
    command.add_argument("--axes", help="axes of TIFF stacks, if the file does not say or is wrong")
    command.add_argument(
        "--intensity",
        default="auto",
        help=f"{', '.join(MODES)}, or LOW,HIGH (write --intensity=LOW,HIGH if LOW is negative)",
    )
    command.add_argument("--tile", type=int, help="side of a tile, input pixels")
    command.add_argument("--halo", type=_halo, help="input pixels around a tile, or 'exact'")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")
    command.add_argument("--json", action="store_true", help="print a record of each file")
    add_cluster_options(command)


def _halo(text: str) -> int | str:
    if text == "exact":
        return text
    try:
        return int(text)
    except ValueError:
        message = f"expected a number or 'exact', got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def run_upscale(options: argparse.Namespace) -> int:
    """Upscale each file; a fault in one does not stop the others."""
    take_output(options)
    files, faults = input_files(options.inputs)
    if not files:
        return 2
    with cluster_client(options) as client:
        return _upscale_all(files, faults, client, options)


def _upscale_all(files: list[Path], faults: int, client: Any, options: argparse.Namespace) -> int:
    single = len(files) == 1 and files[0] in options.inputs
    intensity = intensity_named(options.intensity)
    # the devices of a cluster are those of its workers
    model = load(options, None if client is None else "cpu")
    wanted = [name for name in ("baseline", "delta", "difference") if getattr(options, name)]
    _check_refiner(wanted, model)
    outputs = tuple(wanted or [model.info.outputs[-1]])
    taken: dict[Path, str] = {path.resolve(): "is an input itself" for path in files}
    for path in files:
        try:
            where = path, options.output, outputs, model.scale, single
            store = store_target(*where)
            targets = output_paths(*where) if store is None else {"": store}
            check_targets(targets, taken, options.overwrite or store is not None)
            if client is not None and (store is None or store.suffix.lower() != STORE):
                raise OptionError(f"expected OUT{STORE} for a cluster, got {targets.popitem()[1]}")
            if store is None:
                record = _upscale_file(path, model, targets, intensity, options)
            else:
                record = upscale_to_store(path, store, outputs, model, intensity, options, client)
        except CFSRError as error:
            text = str(error)
            say(text if str(path) in text else f"{path}: {text}")
            faults += 1
        else:
            taken |= {t.resolve(): f"was written from {path} just now" for t in targets.values()}
            print(json.dumps(record) if options.json else record["summary"])
    return 2 if faults else 0


def _check_refiner(wanted: Sequence[str], model: SRModel) -> None:
    """Raise an error where an output is wanted that only a refiner can make."""
    info = model.info
    for name in wanted:
        if name != "baseline" and "delta" not in info.outputs:
            raise OptionError(
                f"expected a refiner for --{name}, but {info.backbone} x{info.scale} has none "
                f"loaded: choose one with --refiner or leave --{name} out"
            )


def _parts(path: Path) -> tuple[str, str]:
    """Name and suffix; that of OME-TIFF has two dots."""
    ome = re.search(r"\.ome\.tiff?$", path.name, re.IGNORECASE)
    return (path.name[: ome.start()], ome[0]) if ome else (path.stem, path.suffix)


def output_paths(
    path: Path, output: Path | None, outputs: Sequence[str], scale: int, single: bool
) -> dict[str, Path]:
    """Where each output of a file goes."""
    from napari_cfsr.core.files import SUFFIXES, TIFF_SUFFIXES

    if output is not None and output.suffix.lower() in SUFFIXES and not output.is_dir():
        if not single or len(outputs) != 1:
            raise OptionError(
                f"expected a folder for several files or outputs, got --output {output}"
            )
        return {outputs[0]: output}
    folder = output or path.parent
    name, suffix = _parts(path)
    of_floats = suffix if path.suffix.lower() in TIFF_SUFFIXES else ".tif"
    return {
        kind: folder / f"{name}_x{scale}_{kind}{of_floats if kind == 'difference' else suffix}"
        for kind in outputs
    }


def _upscale_file(
    path: Path,
    model: SRModel,
    targets: dict[str, Path],
    intensity: Any,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Upscale one file and write what was asked for; a record of it."""
    from dataclasses import replace

    from napari_cfsr.core.files import read_image, write_image
    from napari_cfsr.core.inference import upscale
    from napari_cfsr.core.provenance import provenance

    image = read_image(path)
    if options.axes:
        image = replace(image, axes=options.axes.upper())
    rgb = None if options.axes else False
    _check_formats(image, targets, rgb)
    with tile_bar(path.name) as progress:
        result = upscale(
            image.pixels,
            model,
            axes=image.axes,
            rgb=rgb,
            outputs=tuple(targets),
            ensemble=options.ensemble,
            back_projection=options.back_projection,
            tile=options.tile,
            halo=options.halo,
            intensity=intensity,
            progress=progress,
        )
    image = replace(image, axes=result.axes.names)
    notes = list(image.notes)
    for name, target in targets.items():
        notes += write_image(target, result.arrays()[name], image, model.scale, options.overwrite)
    summary = f"{path} -> {', '.join(str(t) for t in targets.values())}: {describe(result)}"
    record = provenance(result, str(path), _expression(path))
    return {
        "summary": "; ".join([summary, *dict.fromkeys(notes)]),
        "outputs": {name: str(target) for name, target in targets.items()},
        **record,
    }


def _check_formats(image: ImageFile, targets: dict[str, Path], rgb: bool | None) -> None:
    """Raise an error where a format can't hold the result, before any time is spent."""
    from napari_cfsr.core.axes import parse_axes
    from napari_cfsr.core.files import check_format

    axes = parse_axes(image.axes, image.pixels.shape, rgb)
    for name, target in targets.items():
        is_difference = name == "difference"
        dtype = "float32" if is_difference else image.pixels.dtype.name
        samples = axes.samples - (is_difference and axes.has_alpha)
        check_format(target, axes.names, dtype, samples)


def _expression(path: Path) -> str:
    return f"nc.read_image({str(path)!r}).pixels"
