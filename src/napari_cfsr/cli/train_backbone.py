"""`napari-cfsr train-backbone`: a folder of images in, a backbone out."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import handling, say, tensorboard_log
from napari_cfsr.core.weights import weight_files
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.backbone import BackboneConfig, BackboneProgress, BackboneRequest, Pairs
    from napari_cfsr.core.training import TrainingLog

DESCRIPTION = """\
Train a CFSR backbone. LR images are made by MATLAB's bicubic. The weights that are best on the
validation images are written to OUTPUT, with the state to resume from beside it; Ctrl-C stops, and
nothing is lost.
"""
EPILOG = """\
example:
  napari-cfsr train-backbone --data photos --validation Kodak24 --scale 2 --hours 10 \\
      --output cfsr_x2.safetensors
  napari-cfsr train-backbone --data photos --validation Kodak24 --scale 4 --hours 10 \\
      --init cfsr_x2.safetensors --output cfsr_x4.safetensors
"""


def add_train_backbone(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_train_backbone)
    command.description, command.epilog = DESCRIPTION, EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    group = command.add_argument_group("data and result")
    group.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="HR images")
    group.add_argument(
        "--validation",
        type=Path,
        metavar="FOLDER",
        help="HR images that select the best weights (a twentieth of those in --data)",
    )
    group.add_argument("--output", type=Path, required=True, metavar="FILE", help=".safetensors")
    group.add_argument("--overwrite", action="store_true", help="replace OUTPUT and its state")
    group.add_argument("--half", action="store_true", help="store float16: half the size")
    start = command.add_argument_group("start").add_mutually_exclusive_group()
    start.add_argument(
        "--init", type=Path, metavar="FILE", help="start from a backbone, of this or another scale"
    )
    start.add_argument(
        "--resume", type=Path, metavar="STATE", help="resume with the options of that training"
    )
    recipe = command.add_argument_group("recipe")
    for name, kind, text in (
        ("--scale", int, "2, 3 or 4 (4)"),
        ("--hours", float, "length of the whole training, without interruptions (1)"),
        ("--steps", int, "length in steps instead"),
        ("--batch", int, "patches per step (8 on a CPU, 64 on CUDA)"),
        ("--patch", int, "side of a patch in LR pixels (32 on a CPU, 64 on CUDA)"),
        ("--rate", float, "largest learning rate (0.002)"),
        ("--rise", int, "steps of warm-up (200)"),
        ("--mse-share", float, "share of the training, at its end, with MSE loss (0.1)"),
        ("--average", float, "decay of the moving average of the weights (0.999)"),
        ("--validations", int, "number in the whole training (30)"),
        ("--seed", int, "(1)"),
    ):
        recipe.add_argument(name, type=kind, default=argparse.SUPPRESS, help=text)
    recipe.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=argparse.SUPPRESS,
        help="of the convolutions (float32 on a CPU, bfloat16 on CUDA)",
    )
    run = command.add_argument_group("run")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    run.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="log for TensorBoard")
    run.add_argument("--json", action="store_true", help="print the result as JSON")


def run_train_backbone(options: argparse.Namespace) -> int:
    """Train until the end or Ctrl-C."""
    from tqdm import tqdm

    from napari_cfsr.core.backbone import iter_train_backbone
    from napari_cfsr.core.engine import keep_freed_memory

    keep_freed_memory()
    request = _request(options)
    last: BackboneProgress | None = None
    form = "{percentage:5.1f}%|{bar:10}| {desc}"
    with (
        _stopping() as stopped,
        tensorboard_log(options.tensorboard) as log,
        tqdm(total=100, bar_format=form, disable=None, leave=False) as bar,
    ):
        for last in iter_train_backbone(request, stopped.is_set):
            _show(last, bar, log)
    return _finish(request, last, stopped.is_set(), options)


def _request(options: argparse.Namespace) -> BackboneRequest:
    """The checked request."""
    from napari_cfsr.core.backbone import BackboneRequest, TrainingState

    state = TrainingState.load(options.resume) if options.resume else None
    config = _config(options, state.about["config"] if state else {})
    _check_output(options)
    remembered = dict(state.about["remembered"]) if state else {}
    if options.validation is None and remembered.get("validation"):
        options.validation = Path(remembered["validation"])
    init = _init(options.init) if options.init else None
    train, validation = _images(options, config)
    _report_small(train, config, options.device)
    remembered.setdefault("init", options.init and options.init.name)
    remembered["validation"] = options.validation and str(options.validation.resolve())
    half = remembered["half"] = options.half or remembered.get("half", False)
    card = {"init": remembered["init"], "data": options.data.resolve().name, "half": half}
    return BackboneRequest(
        train.pairs,
        validation.named,
        config,
        options.output,
        options.device,
        init,
        state,
        card,
        remembered,
        half,
    )


def _config(options: argparse.Namespace, before: dict[str, Any]) -> BackboneConfig:
    """The given options, and otherwise those of the resumed training."""
    from napari_cfsr.core.backbone import BackboneConfig

    config = BackboneConfig.from_dict(before)
    given = {k: v for k, v in vars(options).items() if k in config.to_dict()}
    if before and given.get("scale", config.scale) != config.scale:
        raise OptionError(
            f"expected the scale of the state, {config.scale}, got {given['scale']}: --init "
            "starts from a network of another scale"
        )
    return replace(config, **given)


def _check_output(options: argparse.Namespace) -> None:
    from napari_cfsr.core.backbone import state_path
    from napari_cfsr.core.weights import check_writable

    output = options.output
    if output.suffix != ".safetensors":
        raise OptionError(f"expected --output with the ending .safetensors, got {output}")
    check_writable(output)
    state = state_path(output)
    resumes = options.resume and options.resume.resolve() == state.resolve()
    if resumes or options.overwrite:
        return
    for path in (state, output):
        if path.exists():
            raise OptionError(
                f"{path} exists: continue with --resume {state}, or pass --overwrite to start again"
            )


def _init(path: Path) -> Any:
    """The network to start from."""
    from napari_cfsr.core.weights import open_backbone

    network = open_backbone(path)
    if weight_files.sha256_of(path) in weight_files.OFFICIAL_SHA256.values():
        say(
            "weights that start from the official ones are derived from them. "
            + weight_files.OFFICIAL_NOTICE
        )
    return network


def _images(options: argparse.Namespace, config: BackboneConfig) -> tuple[Pairs, Pairs]:
    train = _read(options.data, config.scale)
    if options.validation is not None:
        return train, _read(options.validation, config.scale)
    return train.split(config.seed)


def _report_small(train: Pairs, config: BackboneConfig, device: str) -> None:
    """Report how many images are too small for a patch and therefore left out."""
    from napari_cfsr.core.engine import choose_device

    patch = config.on(choose_device(device)).patch or 0
    small = sum(min(lr.shape[:2]) < patch for lr, _ in train.pairs)
    if small:
        say(
            f"{small} of {len(train.pairs)} images are smaller than a patch "
            f"({patch * config.scale} pixels) and left out"
        )


def _read(folder: Path, scale: int) -> Pairs:
    """Read a folder, with a progress bar."""
    from tqdm import tqdm

    from napari_cfsr.core.backbone import iter_pairs
    from napari_cfsr.core.upscale import WithResult

    steps = WithResult(iter_pairs(folder, scale))
    with tqdm(desc=f"reading {folder.name}", unit="image", disable=None, leave=False) as bar:
        for number, bar.total, _ in steps:
            bar.update(number - bar.n)
    for note in steps.result.notes:
        say(note)
    return steps.result


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event set by Ctrl-C and SIGTERM; a second Ctrl-C ends the program at once."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    with handling(stop, signal.SIGINT, signal.SIGTERM):
        yield stopped


def _show(progress: BackboneProgress, bar: Any, log: TrainingLog | None) -> None:
    """Update the bar, print a line for each validation, and write to the log."""
    if not bar.disable:
        bar.n = 100 * progress.fraction
        bar.set_description_str(_text(progress))
    if progress.psnr is not None:
        bar.clear()
        say(_text(progress))
    if log is not None:
        values = {"loss": progress.loss, "rate": progress.rate, "PSNR": progress.psnr}
        log.add_scalars(values, progress.step)


def _text(progress: BackboneProgress) -> str:
    parts = [f"step {progress.step}", f"loss {progress.loss:.4g}", f"rate {progress.rate:.2g}"]
    parts.append(f"{progress.images_per_second:.1f} images/s")
    if progress.psnr is not None:
        parts.append(f"validation {progress.psnr:.3f} dB")
    if progress.best is not None:
        parts.append(f"best {progress.best:.3f} dB")
    if progress.seconds_left is not None:
        minutes = round(progress.seconds_left / 60)
        parts.append(f"{minutes // 60}:{minutes % 60:02d} h left")
    return ", ".join(parts)


def _finish(
    request: BackboneRequest,
    last: BackboneProgress | None,
    stopped: bool,
    options: argparse.Namespace,
) -> int:
    from napari_cfsr.core.backbone import read_backbone_card

    over = not stopped if last is None else last.fraction >= 1
    card = read_backbone_card(request.output) if request.output.exists() else {}
    best, where = card.get("psnr"), str(request.output) if card else None
    if options.json:
        step = None if last is None else last.step
        record = {"path": where, "psnr": best, "step": step, "finished": over}
        print(json.dumps({**record, "state": str(request.state_path)}))
    elif best is not None:
        print(f"{request.output}: {best:.3f} dB on the validation images")
    if stopped and not over:
        say(f"stopped; nothing is lost: continue with --resume {request.state_path}")
        return 2
    return 0
