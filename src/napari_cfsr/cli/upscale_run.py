"""Running `napari-cfsr upscale`: progress bars, a line for each file, and a summary of all."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import say, tile_bar

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchPlan, BatchRecord, BatchStep, BlockRun
    from napari_cfsr.core.engine import Model


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
