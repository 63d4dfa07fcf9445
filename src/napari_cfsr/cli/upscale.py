"""`napari-cfsr upscale`: files in, files out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import (
    add_model_options,
    find,
    intensity_named,
    open_found,
    say,
    tile_bar,
)
from napari_cfsr.cli.train import adapt
from napari_cfsr.cli.upscale_cluster import add_cluster_options, check_cluster, cluster_client
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchPlan, BatchRecord, BatchStep, BlockRun
    from napari_cfsr.core.engine import Model
    from napari_cfsr.core.upscale import UpscaleOptions
    from napari_cfsr.core.weights import ModelFiles


def add_upscale(command: argparse.ArgumentParser) -> None:
    from napari_cfsr.core.image import MODES

    command.set_defaults(run=run_upscale)
    command.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="image files, OME-Zarr stores, or folders of them (without what this program wrote); "
        "of several, those with finished results are skipped; IN OUT.zarr: one input and the store "
        "to write",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="a folder, or a file or OME-Zarr store for a single input; default: beside each input",
    )
    add_model_options(command)
    flag = partial(command.add_argument, action="store_true")
    flag("--baseline", help="write the backbone's output")
    flag("--delta", help="write the refined output")
    flag("--difference", help="write delta - baseline as a float32 TIFF")
    flag("--ensemble", help="average of 8 orientations, 8 times slower")
    flag("--refiner-ensemble", help="of the refiner alone, before the backbone: hardly slower")
    command.add_argument(
        "--adapt",
        metavar="NAME",
        help="first train a refiner of that name on these images, if they are noisy (a minute or "
        "two); if it exists, use it",
    )
    flag("--back-projection", help="for bicubic-reduced input, at x4")
    command.add_argument("--axes", help="axes of TIFF stacks, if the file has none or wrong ones")
    command.add_argument(
        "--intensity",
        default="auto",
        help=f"{', '.join(MODES)}, or LOW,HIGH (write --intensity=LOW,HIGH if LOW is negative)",
    )
    command.add_argument("--tile", type=int, help="side of a tile, input pixels")
    command.add_argument("--halo", type=_halo, help="input pixels around a tile, or 'exact'")
    flag("--overwrite", help="replace existing files; nothing is skipped")
    flag("--json", help="print a record of each file")
    add_cluster_options(command)
    command.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="write the outcome of each input to a .csv or .json file",
    )


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
    from napari_cfsr.core.batch import BatchRecord, find_inputs, plan_batch

    _take_output(options)
    _check_summary(options)
    found, faults = find_inputs(options.inputs)
    if not found:
        for fault in faults:
            say(fault.text)
        save_summary([BatchRecord(f.path, "failed", message=f.text) for f in faults], options)
        return 2
    if options.adapt is not None and adapt(options.adapt, found, options):
        options.refiner = options.adapt
    requested = _upscale_options(options)
    files = find(options)
    _check_refiner(requested.outputs or (), files)
    plan = plan_batch(
        options.inputs, options.output, files, requested, options.precision, options.overwrite
    )
    _check_summary(options, plan)
    check_cluster(plan, options)
    with cluster_client(options) as client:
        if client is None:
            return run_plan(plan, lambda: open_found(files, options), options)
        from napari_cfsr.core.cluster import iter_upscale_on_cluster

        # the devices of a cluster are those of its workers
        where = {"client": client, "device": options.device, "engine": options.engine}
        blocks = partial(iter_upscale_on_cluster, **where)
        return run_plan(plan, lambda: open_found(files, options, "cpu"), options, blocks)


def _take_output(options: argparse.Namespace) -> None:
    """`IN OUT.zarr`: the second is the output, unless it is a store of another program."""
    if options.output is not None or len(options.inputs) != 2:
        return
    last: Path = options.inputs[1]
    if last.suffix.lower() != ".zarr":
        return
    from napari_cfsr.core.io import store_status

    if store_status(last) != "other":
        options.output = options.inputs.pop()


def _upscale_options(options: argparse.Namespace) -> UpscaleOptions:
    from napari_cfsr.core.upscale import OUTPUTS, UpscaleOptions

    return UpscaleOptions(
        axes=options.axes.upper() if options.axes else None,
        outputs=tuple(name for name in OUTPUTS if getattr(options, name)) or None,
        ensemble=options.ensemble,
        back_projection=options.back_projection,
        refiner_ensemble=options.refiner_ensemble,
        tile=options.tile,
        halo=options.halo,
        intensity=intensity_named(options.intensity),
    )


def _check_refiner(wanted: Sequence[str], files: ModelFiles) -> None:
    """Raise an error for outputs that need a refiner."""
    for name in wanted:
        if name != "baseline" and "delta" not in files.outputs:
            raise OptionError(
                f"expected a refiner for --{name}, but {files.backbone.name} x{files.scale} has "
                f"none loaded: choose one with --refiner or leave --{name} out"
            )


def _check_summary(options: argparse.Namespace, plan: BatchPlan | None = None) -> None:
    """Raise an error for a summary that can't be written, before any time is spent."""
    from napari_cfsr.core.batch import check_summary

    path: Path | None = options.summary
    if path is None:
        return
    check_summary(path)
    taken = {p.resolve(): "is an input itself" for p in options.inputs if p.is_file()}
    for item in plan.items if plan is not None else ():
        for target in item.targets.paths if item.targets is not None else ():
            taken[target.resolve()] = f"is where the result of {item.path} goes"
    if path.exists() and not options.overwrite:
        raise OptionError(
            f"{path} exists: name another file for --summary or remove this one (--overwrite "
            "would replace it, but also redo all images)"
        )
    if path.resolve() in taken:
        raise OptionError(f"{path} {taken[path.resolve()]}: name another file for --summary")


def run_plan(
    plan: BatchPlan,
    load: Callable[[], Model],
    options: argparse.Namespace,
    blocks: BlockRun | None = None,
) -> int:
    """Run the plan and print the outcome; the exit status.

    `blocks` runs what goes into stores, if not this process.
    """
    from napari_cfsr.core.batch import BatchRecord, iter_batch, summary_line

    records = [BatchRecord(item.path) for item in plan.items]
    started = time.perf_counter()

    def sum_up() -> None:
        if not plan.single:
            say(summary_line(records, time.perf_counter() - started))

    try:
        with closing(iter_batch(plan, load, blocks=blocks)) as steps:
            _show(steps, records, options)
    except KeyboardInterrupt:
        sum_up()
        raise
    finally:
        save_summary(records, options)
    sum_up()
    return 2 if any(record.state == "failed" for record in records) else 0


def save_summary(records: list[BatchRecord], options: argparse.Namespace) -> None:
    """Write the summary file, if one was requested."""
    from napari_cfsr.core.batch import write_summary

    if options.summary is not None:
        write_summary(options.summary, records, options.overwrite)


def _show(
    steps: Generator[BatchStep, None, Any], records: list[BatchRecord], options: argparse.Namespace
) -> None:
    """Run to the end and keep `records` up to date."""
    from napari_cfsr.core.batch import NOT_FINISHED, BatchRecord
    from napari_cfsr.core.upscale import duration

    with ExitStack() as bars:
        progress = None
        for step in steps:
            if step.state == "running":
                records[step.index] = BatchRecord(step.path, message=NOT_FINISHED)
            if step.progress is not None:
                if progress is None:
                    n = f"{step.index + 1}/{len(records)} " if len(records) > 1 else ""
                    progress = bars.enter_context(tile_bar(step.path.name, n))
                left = step.seconds_left if len(records) > 1 else None
                progress(step.progress, "" if left is None else f"all: {duration(left)} left")
            elif step.record is None:
                if step.text:
                    say(step.text)
            else:
                bars.close()
                progress = None
                records[step.index] = step.record
                _print(step, step.record, options.json)


def _print(step: BatchStep, record: BatchRecord, as_json: bool) -> None:
    """Print the outcome of one file."""
    outputs = {name: str(path) for name, path in record.outputs.items()}
    if step.state == "failed":
        say(step.text)
        return
    about, text = dict(record.provenance or {}), step.text
    if step.state == "skipped":
        about = {"input": str(record.path), "state": step.state}
        text = f"{record.path} -> {', '.join(outputs.values())}: {text}"
    print(json.dumps({"summary": text, "outputs": outputs, **about}) if as_json else text)
