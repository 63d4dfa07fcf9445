"""What the commands share: messages, progress bars, and the options of a model."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.core import weights
from napari_cfsr.errors import FileFormatError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.inference import UpscaleResult
    from napari_cfsr.core.model import SRModel
    from napari_cfsr.core.options import UpscaleProgress

PROGRAM = "napari-cfsr"


def say(text: str) -> None:
    """One line on standard error."""
    print(f"{PROGRAM}: {' '.join(line.strip() for line in text.splitlines())}", file=sys.stderr)


def add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", type=int, choices=weights.SCALES, default=4)
    command.add_argument(
        "--backbone",
        default="auto",
        help="auto, official, bundled, an imported name, or a .pth or .safetensors file",
    )
    command.add_argument("--refiner", default="auto", help="auto, none, a name, or a file")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    command.add_argument("--precision", choices=("float32", "fast"), default="float32")


def intensity_named(text: str) -> Any:
    """The value of `--intensity`: a mode as it is, or two numbers."""
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"expected --intensity LOW,HIGH, got {text!r}") from error
    return low, high


@contextlib.contextmanager
def download_bar() -> Iterator[weights.Progress]:
    """A progress bar that appears when a download begins."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                say(weights.OFFICIAL_NOTICE)
                bar = tqdm(
                    total=total or None, unit="B", unit_scale=True, desc="weights", disable=None
                )
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].n)

        yield progress


def load(options: argparse.Namespace, device: str | None = None) -> SRModel:
    """The model that the options name, on another device than theirs if one is given."""
    from napari_cfsr.core.engines import keep_freed_memory
    from napari_cfsr.core.model import load_model

    keep_freed_memory()
    with download_bar() as progress:
        return load_model(
            scale=options.scale,
            backbone=options.backbone,
            refiner=None if options.refiner == "none" else options.refiner,
            device=device or options.device,
            precision=options.precision,
            progress=progress,
        )


def describe(result: UpscaleResult) -> str:
    """What ran, in one line."""
    info = result.info
    refiner = f"refiner {info.refiner}" if info.refiner else "no refiner"
    parts = [
        f"x{info.scale} with {info.backbone}, {refiner}",
        f"{info.engine} on {info.device}, {info.precision}",
        f"{result.seconds:.1f} s",
        *result.notes,
    ]
    return "; ".join(parts)


@contextlib.contextmanager
def tile_bar(name: str) -> Iterator[Any]:
    """A progress bar over pixels, with time left; notes are printed above it."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="px", unit_scale=True, disable=None, leave=False) as bar:

        def progress(step: UpscaleProgress) -> None:
            bar.total = step.total
            bar.update(step.done - bar.n)
            if step.note:
                say(f"{name}: {step.note}")

        yield progress


def check_targets(targets: dict[str, Path], taken: dict[Path, str], overwrite: bool) -> None:
    """Raise an error where a file can't be written, before any time is spent."""
    for target in targets.values():
        try:
            why, exists = taken.get(target.resolve()), target.exists()
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            raise FileFormatError(f"{target}: can't be written ({reason})") from error
        if why is not None:
            raise OptionError(f"{target} {why}: choose another --output")
        if exists and not overwrite:
            raise OptionError(f"{target} exists: pass --overwrite to replace it")
