"""`napari-cfsr evaluate`: PSNR and SSIM on data sets, as tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfsr.cli.common import add_model_options, load, say
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.errors import FileFormatError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.evaluate import BenchmarkReport, EvaluateOptions, EvaluateProgress, Fault

DESCRIPTION = """\
Measure PSNR and SSIM of bicubic, baseline and delta on data sets in the EDSR layout:
DIR/SET/HR/NAME.png and DIR/SET/LR_bicubic/X4/NAMEx4.png. Sets are also searched for in
DIR/benchmark and DIR/validation. A folder of HR images is enough: missing LR images are made by
MATLAB's bicubic.
"""
EPILOG = """\
example:
  napari-cfsr evaluate --data data --datasets Set5,Set14,B100 --scale 4 --json x4.json
"""


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_evaluate)
    command.description, command.epilog = DESCRIPTION, EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of data sets"
    )
    text = "their names; by default, DIR itself is the data set"
    command.add_argument("--datasets", type=_names, default=(), metavar="SET,...", help=text)
    add_model_options(command)
    command.add_argument(
        "--models", type=_names, help="of bicubic, baseline, delta (all that are available)"
    )
    command.add_argument("--ensemble", action="store_true", help="average of eight: 8 times slower")
    command.add_argument(
        "--back-projection", action="store_true", help="for bicubic-reduced input, at x4"
    )
    text = "what to compare: luma, as in published tables (default), colours, or gray images"
    command.add_argument("--channel", choices=("Y", "RGB", "gray"), default="Y", help=text)
    command.add_argument("--shave", type=int, help="border to ignore, in pixels (the scale)")
    command.add_argument("--limit", type=int, metavar="N", help="the first N images of each set")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    command.add_argument("--markdown", type=Path, metavar="FILE", help="write tables")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate, print and write; images that can't be measured are reported and left out."""
    from napari_cfsr.core.evaluate import iter_evaluate, table

    asked = _options(options)
    _check_files(options)
    model = load(options) if asked.needs_model else None
    report = _shown(iter_evaluate(asked, model))
    if report.images:
        print(table(report))
        _write(report, options)
    for note in dict.fromkeys(report.info.notes if report.info else ()):
        print(note)
    return 2 if report.faults else 0


def _options(options: argparse.Namespace) -> EvaluateOptions:
    from napari_cfsr.core.evaluate import EvaluateOptions

    if not options.data.is_dir():
        raise FileFormatError(f"expected a folder at --data, got {options.data}")
    return EvaluateOptions(**{f.name: getattr(options, f.name) for f in fields(EvaluateOptions)})


def _check_files(options: argparse.Namespace) -> None:
    """Raise an error if a result can't be written, before any time is spent."""
    from napari_cfsr.core.batch import check_targets
    from napari_cfsr.core.weights import check_writable

    targets = {kind: getattr(options, kind) for kind in ("json", "markdown")}
    targets = {kind: path for kind, path in targets.items() if path is not None}
    if len(targets) == 2 and options.json.resolve() == options.markdown.resolve():
        raise OptionError(f"expected different files for --json and --markdown, got {options.json}")
    check_targets(targets.values(), {}, options.overwrite)
    for path in targets.values():
        check_writable(path)


def _shown(steps: Generator[EvaluateProgress, None, BenchmarkReport]) -> BenchmarkReport:
    """Run with a progress bar, and report images that can't be measured above it."""
    from tqdm import tqdm

    with tqdm(desc="evaluate", unit="image", disable=None, leave=False) as bar:

        def show(step: EvaluateProgress) -> None:
            bar.total = step.total
            if step.image is not None:
                bar.set_description_str(f"{step.image.dataset} {step.image.name}", refresh=False)
            if step.fault is not None:
                bar.clear()
                say(_text(step.fault))
            bar.update(step.done - bar.n)

        return exhaust(steps, show)


def _text(fault: Fault) -> str:
    return f"{fault.dataset}: {fault.text}" if fault.dataset not in fault.text else fault.text


def _write(report: BenchmarkReport, options: argparse.Namespace) -> None:
    from napari_cfsr.core.evaluate import markdown
    from napari_cfsr.core.io import atomic_write

    made: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n",
        "markdown": lambda: markdown(report),
    }
    for kind, text in made.items():
        path = getattr(options, kind)
        if path is not None:
            with atomic_write(path, options.overwrite) as file:
                file.write(text().encode())
            print(f"written to {path}")
