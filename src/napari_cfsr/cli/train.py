"""`napari-cfsr train`: images in, a refiner out."""

from __future__ import annotations

import argparse
import json
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import download_bar, handling, intensity_named, say, tensorboard_log
from napari_cfsr.core.weights import weight_files
from napari_cfsr.errors import (
    CancelledError,
    CFSRError,
    FileFormatError,
    ImageError,
    NoGainError,
    OptionError,
)

if TYPE_CHECKING:
    from napari_cfsr.core.training import (
        TrainConfig,
        TrainData,
        TrainedRefiner,
        TrainingLog,
        TrainProgress,
        TrainRequest,
    )

# those of `TrainConfig`, repeated because every command builds this parser and its import is slow
CHOICES = {
    "kernel": ("bicubic", "area"),
    "preset": ("adapt", "benchmark"),
    "placement": ("auto", "output", "input"),
    "loss": ("l1", "mse", "l1+fft"),
    "schedule": ("one-cycle", "constant"),
    "size": ("small", "large"),
}
SIMULATION = ("kernel", "blur", "photons", "read_noise", "gain", "offset", "jpeg", "reduce")
MEASURED = ("align", "match")
NOISY = ("size", "init")
SUPERVISED = (
    "preset", "loss", "rate", "schedule", "batch", "patch", "every", "patience", "ema",
    "warm_steps", "held_out",
)  # fmt: skip
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
DESCRIPTION = """\
Train a refiner on your own images. The gain is measured on held-out images; a refiner that does
not beat the frozen backbone on them is not saved.
"""
EPILOG = """\
example:
  napari-cfsr train --data images --scale 2 --photons 50 --read-noise 0.01 --name mine

Ctrl-C stops the training and keeps the best refiner so far; pressed again, it ends at once.
"""
MOST_ADAPTED = 16  # files that `upscale --adapt` is trained on
REFRESH = 0.1  # seconds
LINE_INTERVAL = 30.0  # seconds between two lines if there is no terminal
STOPPING = (
    "stopping: the best refiner so far is kept and measured; Ctrl-C again ends at once and keeps "
    "nothing"
)


def add_train(command: argparse.ArgumentParser) -> None:
    """Options that are not given are not set, so that the preset applies."""
    command.set_defaults(run=run_train)
    command.description, command.epilog = DESCRIPTION, EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_data(command.add_argument_group("data"))
    _add_output(command.add_argument_group("result"))
    _add_degradation(
        command.add_argument_group(
            "degradation", "How LR images are simulated. Intensities are in [0,1]."
        )
    )
    _add_noise(
        command.add_argument_group(
            "noise", "With --noisy: of the camera. By default it is estimated from the images."
        )
    )
    _add_recipe(command.add_argument_group("recipe", "Overrides the values of the preset."))
    _add_run(command.add_argument_group("backbone and run"))


def _add(group: Any, name: str, text: str, **kind: Any) -> None:
    group.add_argument(name, default=argparse.SUPPRESS, help=text, **kind)


def _add_data(group: Any) -> None:
    from napari_cfsr.core.image import MODES

    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--data", type=Path, metavar="FOLDER", help="HR images: a folder, or a file with a stack"
    )
    which.add_argument(
        "--pairs",
        type=Path,
        nargs=2,
        metavar=("LR", "HR"),
        help="measured pairs: two files, or two folders whose files have the same order by name",
    )
    which.add_argument(
        "--noisy",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="noisy images, where there are no clean ones: files or folders; one image is enough",
    )
    group.add_argument("--scale", type=int, choices=weight_files.SCALES, required=True)
    _add(group, "--held-out", "share of the images held out for the report (0.15)", type=float)
    _add(group, "--intensity", f"{', '.join(MODES)}, or LOW,HIGH (auto)")
    _add(group, "--reduce", "first reduce HR images by this factor (1)", type=int, metavar="FACTOR")
    boolean = argparse.BooleanOptionalAction
    _add(group, "--align", "pairs: correct the shift between LR and HR (no)", action=boolean)
    _add(group, "--match", "pairs: match the brightness of HR to LR (yes)", action=boolean)


def _add_output(group: Any) -> None:
    where = group.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--output", type=Path, metavar="FILE", help="a .safetensors file")
    where.add_argument("--name", help="add it to your refiners, for 'upscale --refiner NAME'")
    group.add_argument("--overwrite", action="store_true", help="replace an existing refiner")
    group.add_argument("--description", metavar="TEXT", help="for the refiner's card")
    group.add_argument("--json", action="store_true", help="print a record of the training as JSON")
    group.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write a TensorBoard log")


def _add_degradation(group: Any) -> None:
    _add(group, "--kernel", "how pixels are merged (bicubic)", choices=CHOICES["kernel"])
    _add(group, "--blur", "sigma in LR pixels (0)", type=float, metavar="SIGMA")
    text = "blur in a unit of length instead: width of a point at half maximum"
    _add(group, "--blur-fwhm", text, type=float, metavar="LENGTH")
    _add(group, "--pixel-size", "of an LR pixel, in that unit", type=float, metavar="LENGTH")
    text = "width that the HR images have already, in that unit (0)"
    _add(group, "--hr-fwhm", text, type=float, metavar="LENGTH")
    text = "mean count in an LR pixel of intensity 1 (no shot noise)"
    _add(group, "--photons", text, type=float, metavar="COUNT")
    _add(group, "--read-noise", "sigma of Gaussian noise (0)", type=float, metavar="SIGMA")
    _add(group, "--gain", "of the digitiser (1)", type=float, metavar="FACTOR")
    _add(group, "--offset", "of the digitiser (0)", type=float, metavar="LEVEL")
    _add(group, "--jpeg", "1 to 95 (none)", type=int, metavar="QUALITY")


def _add_noise(group: Any) -> None:
    text = "electrons per grey level (conversion factor)"
    _add(group, "--camera-conversion", text, type=float, metavar="FACTOR")
    _add(group, "--camera-offset", "grey level in darkness (0)", type=float, metavar="LEVEL")
    _add(group, "--camera-read-noise", "in electrons (0)", type=float, metavar="ELECTRONS")


def _add_recipe(group: Any) -> None:
    text = "adapt: fast, for your own images; benchmark: as published with CFSR-Delta (adapt)"
    _add(group, "--preset", text, choices=CHOICES["preset"])
    text = "of the refiner; auto tries both and decides on validation images"
    _add(group, "--placement", text, choices=CHOICES["placement"])
    text = "with --noisy: small is RefineNet, large is better and not slower (large)"
    _add(group, "--size", text, choices=CHOICES["size"])
    _add(group, "--init", "with --noisy: refiner on this machine to start from", metavar="NAME")
    _add(group, "--loss", "error measure to minimise", choices=CHOICES["loss"])
    _add(group, "--rate", "learning rate", type=float)
    _add(group, "--schedule", "of the rate", choices=CHOICES["schedule"])
    _add(group, "--steps", "maximum number", type=int)
    _add(group, "--batch", "patches per step", type=int)
    _add(group, "--patch", "side of a patch in pixels", type=int)
    _add(group, "--every", "steps between validations", type=int)
    _add(group, "--patience", "validations without improvement before it stops", type=int)
    _add(group, "--ema", "decay of the moving average of the weights; 0: none", type=float)
    text = "placement input: first steps without the backbone"
    _add(group, "--warm-steps", text, type=int)
    _add(group, "--seed", "of split, noise, patches and initial weights", type=int)


def _add_run(group: Any) -> None:
    text = "auto, official, bundled, an imported name, or a .pth or .safetensors file"
    group.add_argument("--backbone", default="auto", help=text)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    text = "for prepared images, such as 500MB or 2GB (1GiB)"
    _add(group, "--memory", text, type=_bytes, metavar="SIZE")


def _bytes(text: str) -> int:
    """A size such as `1GB`, `1.5 GiB` or `20000000`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?I?)B?", text.strip().upper())
    if found is None or found[2] not in SIZES:
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB or 2GB, got {text!r}")
    return round(float(found[1]) * SIZES[found[2]])


def config_of(options: argparse.Namespace) -> TrainConfig:
    """The requested configuration; raises `OptionError` if it is invalid."""
    from napari_cfsr.core.training import TrainConfig

    given = vars(options)
    asked = {f.name: given[f.name] for f in fields(TrainConfig) if f.name in given}
    if "intensity" in asked:
        asked["intensity"] = intensity_named(asked["intensity"])
    if (blur := _physical_blur(given)) is not None:
        asked["blur"] = blur
    asked |= _camera_noise(given)
    kind, without = _inapplicable(options)
    for name in without:
        if name in asked:
            raise OptionError(f"--{name.replace('_', '-')} does not apply to {kind}: leave it out")
    return TrainConfig(**asked)


def _inapplicable(options: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """The kind of images, and the options that mean nothing for it."""
    if options.noisy:
        return "noisy images", (*SIMULATION, *MEASURED, *SUPERVISED)
    if options.pairs:
        return "measured pairs", (*SIMULATION, *NOISY)
    return "images without measured LR images", (*MEASURED, *NOISY)


def _camera_noise(given: dict[str, Any]) -> dict[str, Any]:
    """The noise of a camera, if it is given."""
    from napari_cfsr.core.image import NoiseModel

    names = ("camera_conversion", "camera_offset", "camera_read_noise")
    if not any(name in given for name in names):
        return {}
    if not given["noisy"]:
        raise OptionError("--camera-... options apply to --noisy images only: leave them out")
    if "camera_conversion" not in given:
        raise OptionError("expected --camera-conversion with the other values of the camera")
    conversion, offset, read_noise = (given.get(name, 0.0) for name in names)
    return {"noise": NoiseModel.of_camera(conversion, offset, read_noise)}


def _physical_blur(given: dict[str, Any]) -> float | None:
    """Sigma in LR pixels of a blur given in a unit of length; None if it is not given."""
    from napari_cfsr.core.image import blur_in_pixels

    fwhm, pixel_size = given.get("blur_fwhm"), given.get("pixel_size")
    if fwhm is None and pixel_size is None and "hr_fwhm" not in given:
        return None
    if fwhm is None or pixel_size is None:
        raise OptionError("expected both --blur-fwhm and --pixel-size, in the same unit of length")
    if "blur" in given:
        raise OptionError("expected --blur or --blur-fwhm, got both: leave one out")
    return blur_in_pixels(fwhm, pixel_size, given.get("hr_fwhm", 0.0))


def data_of(options: argparse.Namespace, config: TrainConfig) -> TrainData:
    """The requested images, not read yet."""
    from napari_cfsr.core.training import folder_data, noisy_data, pair_data

    if options.noisy:
        return noisy_data(options.noisy, config.intensity)
    if options.pairs:
        lr, hr = options.pairs
        return pair_data(lr, hr, config.intensity)
    return folder_data(options.data, config.intensity)


def run_train(options: argparse.Namespace) -> int:
    """Train, measure and save; all options are checked before."""
    from napari_cfsr.core.training import TrainRequest

    config = config_of(options)
    target = _target(options)
    data = data_of(options, config)
    for note in data.notes:
        say(note)
    request = TrainRequest(data, _load_arguments(options), config)
    with tensorboard_log(options.tensorboard) as log:
        trained = run_training(request, log)
    if options.description:
        trained = replace(trained, card=replace(trained.card, description=options.description))
    new = tuple(note for note in trained.notes if note not in data.notes)
    trained = trained if options.json else replace(trained, notes=new)
    return _finish(trained, target, options)


def _target(options: argparse.Namespace) -> Path:
    """The file of the refiner; raises an error if it can't be written."""
    from napari_cfsr.core.weights import check_target, check_writable, export_path

    if options.name is not None:
        target = check_target(options.name, options.overwrite)
    else:
        target = export_path(options.output, "refiner")
        check_writable(target)
        if target.exists() and not options.overwrite:
            raise OptionError(f"{target} exists: pass --overwrite to replace it")
    check_writable(target)
    return target


def _load_arguments(options: argparse.Namespace) -> dict[str, object]:
    """Arguments of `load_model`; downloads the weights if necessary."""
    with download_bar() as progress:
        _, notes = weight_files.find_backbone(options.scale, options.backbone, progress=progress)
    for note in notes:
        say(note)
    return {
        "scale": options.scale,
        "backbone": options.backbone,
        "device": options.device,
        "download": False,
    }


def run_training(request: TrainRequest, log: TrainingLog | None) -> TrainedRefiner:
    """Train in this process, with progress on standard error."""
    from tqdm import tqdm

    from napari_cfsr.core.engine import keep_freed_memory
    from napari_cfsr.core.training import iter_train
    from napari_cfsr.core.upscale import WithResult

    keep_freed_memory()
    interrupts = Interrupts()
    run = iter_train(request, stop=lambda: interrupts.stopping)
    steps = WithResult(run)
    bar = tqdm(
        total=100, bar_format="{percentage:3.0f}%|{bar:6}| {desc}", disable=None, leave=False
    )
    display = Display(bar)
    try:
        with handling(interrupts.handle, signal.SIGINT), bar:
            for progress in steps:
                if interrupts.update(progress):
                    display.say(STOPPING)
                display.show(progress)
                if log is not None:
                    log.add(progress)
    except KeyboardInterrupt as error:
        raise CancelledError("interrupted; nothing was saved") from error
    finally:
        run.close()
    if log is not None:
        log.finish(steps.result)
    return steps.result


def adapt(name: str, inputs: Sequence[Path], load: argparse.Namespace) -> bool:
    """Train a refiner of that name on noisy images that are to be upscaled, unless there is one.

    Returns whether there is one now; where nothing is gained or can be trained, says why. Raises
    `OptionError` if the name can't be used.
    """
    from napari_cfsr.core.training import TrainConfig, TrainRequest, noisy_data
    from napari_cfsr.core.weights import find_refiner_file, is_taken, save_named

    if is_taken(name):
        path, _ = find_refiner_file(name)
        say(f"{path.stem}: there is a refiner of that name, which is used")
        return True
    count = min(len(inputs), MOST_ADAPTED)
    chosen = [inputs[i * len(inputs) // count] for i in range(count)]
    try:
        data = noisy_data(chosen, intensity_named(load.intensity))
        request = TrainRequest(data, _load_arguments(load), TrainConfig())
        trained = run_training(request, None)
        save_named(trained, name)
    except (ImageError, FileFormatError, NoGainError) as error:
        say(f"not adapted: {error}")
        return False
    say(trained.verdict)
    return True


def _finish(trained: TrainedRefiner, target: Path, options: argparse.Namespace) -> int:
    """Save the refiner, print the result, and return the exit status."""
    from napari_cfsr.core.weights import SavedElsewhereError, save_or_elsewhere

    path: Path | None = None
    fault: CFSRError | None = None
    try:
        path = save_or_elsewhere(trained, target, options.overwrite)
    except SavedElsewhereError as error:
        path, fault = error.path, error
    except CFSRError as error:
        fault = error
    if options.json:
        print(json.dumps({**json.loads(trained.to_json()), "path": path and str(path)}))
    else:
        _print_report(trained, path, said=isinstance(fault, NoGainError))
    if fault is not None:
        say(str(fault))
    return 0 if fault is None else 2


def _print_report(trained: TrainedRefiner, path: Path | None, said: bool) -> None:
    report = trained.report
    print(report.table())
    images, names = f"image{'' if len(report.images) == 1 else 's'}", ", ".join(report.images)
    if report.estimated:
        print(f"estimated from photons kept back in {len(report.images)} noisy {images}: {names}")
    else:
        how = f"{report.channel}, ignored border {report.shave}"
        print(f"mean of {len(report.images)} held-out {images} ({how}): {names}")
    for note in trained.notes:
        print(note)
    if not said:
        print(trained.verdict)
    if path is not None:
        print(f"saved as {path} ({trained.gain:+.2f} dB, {trained.seconds:.0f} s)")


class Interrupts:
    """Ctrl-C: the first stops the training and keeps the best so far, the second ends the program.

    While there is nothing to keep, the first one ends the program.
    """

    def __init__(self) -> None:
        self.stopping = self._has_best = self._announced = False

    def update(self, progress: TrainProgress) -> bool:
        """Note a step; true if the user should be told that the training stops.

        The handler itself must not print: it may have interrupted another print.
        """
        self._has_best = self._has_best or progress.best is not None
        is_news = self.stopping and not self._announced
        self._announced = self.stopping
        return is_news

    def handle(self, *_: object) -> None:
        """Raise `KeyboardInterrupt` if the program should end."""
        if self.stopping or not self._has_best:
            raise KeyboardInterrupt
        self.stopping = True


class Display:
    """A line that is updated on a terminal; elsewhere one for each stage and every half minute."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar  # disabled if there is no terminal
        self._gain: float | None = None
        self._best: float | None = None
        self._section: tuple[str, str | None] | None = None
        self._shown = self._printed = -float("inf")

    def show(self, progress: TrainProgress) -> None:
        """Show a step, if it is time for an update."""
        section, now = (progress.stage, progress.placement), time.monotonic()
        is_new = section != self._section
        if is_new and progress.placement is not None:
            self._gain = None  # of the other placement; the best is the best of both
        self._section = section
        if progress.gain is not None:
            self._gain = progress.gain
        if progress.best is not None:
            self._best = progress.best.gain
        if not self._bar.disable:
            self._draw(progress, now, is_new)
        elif is_new or now - self._printed >= LINE_INTERVAL:
            self._printed = now
            say(self._text(progress))

    def say(self, text: str) -> None:
        """Print a line above the one that is updated."""
        self._bar.clear()
        say(text)

    def _draw(self, progress: TrainProgress, now: float, is_new: bool) -> None:
        if not is_new and now - self._shown < REFRESH:
            return
        self._shown = now
        self._bar.n = round(100 * progress.fraction, 1)
        self._bar.set_description_str(self._text(progress), refresh=False)
        self._bar.refresh()

    def _text(self, progress: TrainProgress) -> str:
        """Text for 80 columns; the rest is cut off on the right."""
        parts = [progress.text]
        if progress.stage == "training":
            parts = [f"{progress.placement} step {progress.step}"]
        if progress.seconds_left is not None and round(progress.seconds_left):
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        if progress.stage == "training":
            parts += [f"gain {self._gain:+.2f}"] if self._gain is not None else []
            parts += [f"best {self._best:+.2f} dB"] if self._best is not None else []
            parts += [f"loss {progress.loss:.2g}"] if progress.loss is not None else []
            parts.append(progress.text)
        return ", ".join(parts)
