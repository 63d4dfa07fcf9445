"""Shared by the commands: messages, progress bars, and the options of a model."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.core.engine import ENGINES
from napari_cfsr.core.weights import OFFICIAL_NOTICE, SCALES, Progress
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.engine import SRModel
    from napari_cfsr.core.training import TrainingLog
    from napari_cfsr.core.upscale import UpscaleProgress
    from napari_cfsr.core.weights import ModelFiles

PROGRAM = "napari-cfsr"


def say(text: str) -> None:
    """One line on standard error, naming options as the command line does."""
    line = " ".join(line.strip() for line in text.splitlines())
    print(f"{PROGRAM}: {line.replace('pass overwrite=True', 'pass --overwrite')}", file=sys.stderr)


def input_files(
    inputs: Sequence[Path], ours: Callable[[Path], bool] = lambda _: False
) -> tuple[list[Path], int]:
    """The files found by `find_inputs`; faults of inputs are printed, and counted."""
    from napari_cfsr.core.batch import find_inputs

    files, faults = find_inputs(inputs, ours)
    for fault in faults:
        say(fault.text)
    return files, len(faults)


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", type=int, choices=SCALES, default=4)
    command.add_argument(
        "--backbone",
        default="auto",
        help="auto, official, bundled, an imported name, or a .pth or .safetensors file",
    )
    command.add_argument("--refiner", default="auto", help="auto, none, a name, or a file")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    command.add_argument("--precision", choices=("float32", "fast"), default="float32")
    command.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what runs the network; auto: OpenVINO on CPUs by Intel and AMD, else PyTorch",
    )


def intensity_named(text: str, option: str = "--intensity") -> Any:
    """The value of `--intensity` or `--contrast`: the name of a mode, or two numbers."""
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"expected {option} LOW,HIGH, got {text!r}") from error
    return low, high


@contextlib.contextmanager
def handling(handler: Callable[..., None], *signals: signal.Signals) -> Iterator[None]:
    """Handle signals inside; they reach only the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


@contextlib.contextmanager
def tensorboard_log(folder: Path | None) -> Iterator[TrainingLog | None]:
    """A TensorBoard log, if a folder is given; its fault is printed at the end."""
    if folder is None:
        yield None
        return
    from napari_cfsr.core.training import TrainingLog

    log = TrainingLog(folder)
    try:
        yield log
    finally:
        log.close()
        if log.fault:
            say(log.fault)


@contextlib.contextmanager
def download_bar() -> Iterator[Progress]:
    """A progress bar that appears when a download starts."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                say(OFFICIAL_NOTICE)
                bar = tqdm(
                    total=total or None, unit="B", unit_scale=True, desc="weights", disable=None
                )
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].n)

        yield progress


def load(options: argparse.Namespace) -> SRModel:
    return open_found(find(options), options)


def find(options: argparse.Namespace) -> ModelFiles:
    """The weights of the requested model."""
    from napari_cfsr.core.weights import find_model

    with download_bar() as progress:
        return find_model(options.scale, options.backbone, options.refiner, progress=progress)


def open_found(
    files: ModelFiles, options: argparse.Namespace, device: str | None = None
) -> SRModel:
    """The model with those weights, on `device` if given, else on that of the options."""
    from napari_cfsr.core.engine import keep_freed_memory, open_model

    keep_freed_memory()
    return open_model(files, device or options.device, options.precision, options.engine)


@contextlib.contextmanager
def tile_bar(name: str, before: str = "") -> Iterator[Any]:
    """A progress bar over pixels, with time left, `before` the file's name; notes go above it."""
    from tqdm import tqdm

    look = {"unit": "px", "unit_scale": True, "disable": None, "leave": False}
    with tqdm(desc=before + name, **look) as bar:

        def progress(step: UpscaleProgress, more: str = "") -> None:
            bar.total = step.total
            bar.set_postfix_str(more, refresh=False)
            bar.update(step.done - bar.n)
            if step.note:
                say(f"{name}: {step.note}")

        yield progress
