"""The command line: `napari-cfsr demo | upscale | models`.

Exit status 0, or 2 with one line for each fault on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_cfsr.core import weights
from napari_cfsr.errors import CFSRError, FileFormatError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.files import ImageFile
    from napari_cfsr.core.inference import UpscaleProgress, UpscaleResult
    from napari_cfsr.core.model import SRModel

PROGRAM = "napari-cfsr"
RESULT = re.compile(r"_x[234]_(baseline|delta|difference)$")  # ends the name of what it wrote


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see '{self.prog} --help')")
        raise SystemExit(2)


def say(text: str) -> None:
    """One line on standard error."""
    print(f"{PROGRAM}: {' '.join(line.strip() for line in text.splitlines())}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all went well, 2 if anything did not."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see docs/decisions/0002
    # what libraries log is for developers; what the user should know comes as an error or a note
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be in any script
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except CFSRError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted; files that were finished are complete")
        return 2
    except BrokenPipeError:  # whoever read the output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(prog=PROGRAM, description="Super-resolution of images with CFSR.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_demo(commands.add_parser("demo", help="upscale an image that comes with scikit-image"))
    _add_upscale(commands.add_parser("upscale", help="upscale image files"))
    _add_models(commands.add_parser("models", help="list, fetch and import weights"))
    return top


class _Version(argparse.Action):
    def __call__(self, *_: object) -> None:
        from napari_cfsr import __version__

        print(f"{PROGRAM} {__version__}")
        raise SystemExit(0)


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", type=int, choices=weights.SCALES, default=4)
    command.add_argument(
        "--backbone",
        default="auto",
        help="auto, official, bundled, an imported name, or a .pth or .safetensors file",
    )
    command.add_argument("--refiner", default="auto", help="auto, none, a name, or a file")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    command.add_argument("--precision", choices=("float32", "fast"), default="float32")


@contextlib.contextmanager
def _download_bar() -> Iterator[weights.Progress]:
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


def _load(options: argparse.Namespace) -> SRModel:
    from napari_cfsr.core.engines import keep_freed_memory
    from napari_cfsr.core.model import load_model

    keep_freed_memory()
    with _download_bar() as progress:
        return load_model(
            scale=options.scale,
            backbone=options.backbone,
            refiner=None if options.refiner == "none" else options.refiner,
            device=options.device,
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


# upscale


def _add_upscale(command: argparse.ArgumentParser) -> None:
    from napari_cfsr.core.intensity import MODES

    command.set_defaults(run=run_upscale)
    command.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        help="image files, or folders of them (what this program wrote before is left out)",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="a folder, or a file for a single input and output; beside each input by default",
    )
    _add_model_options(command)
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


def _halo(text: str) -> int | str:
    if text == "exact":
        return text
    try:
        return int(text)
    except ValueError:
        message = f"expected a number or 'exact', got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _intensity(text: str) -> Any:
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"expected --intensity LOW,HIGH, got {text!r}") from error
    return low, high


def run_upscale(options: argparse.Namespace) -> int:
    """Upscale each file; a fault in one does not stop the others."""
    files, faults = _input_files(options.inputs)
    if not files:
        return 2
    single = len(files) == 1 and files[0] in options.inputs
    intensity = _intensity(options.intensity)
    model = _load(options)
    wanted = [name for name in ("baseline", "delta", "difference") if getattr(options, name)]
    outputs = tuple(wanted or [model.info.outputs[-1]])
    taken: dict[Path, str] = {path.resolve(): "is an input itself" for path in files}
    for path in files:
        try:
            targets = output_paths(path, options.output, outputs, model.scale, single)
            _check_targets(targets, taken, options.overwrite)
            record = _upscale_file(path, model, targets, intensity, options)
        except CFSRError as error:
            text = str(error)
            say(text if str(path) in text else f"{path}: {text}")
            faults += 1
        else:
            taken |= {t.resolve(): f"was written from {path} just now" for t in targets.values()}
            print(json.dumps(record) if options.json else record["summary"])
    return 2 if faults else 0


def _input_files(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """Files to upscale, each once, and how many inputs there is nothing of."""
    files: dict[Path, Path] = {}
    faults = 0
    for path in inputs:
        try:
            found = image_files(path)
            if not found:
                raise FileFormatError(f"{path}: expected images in this folder, got none")
            for file in found:
                files.setdefault(file.resolve(), file)
        except CFSRError as error:
            say(str(error))
            faults += 1
        except (OSError, RuntimeError) as error:  # no such name can be, or links in a circle
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            say(f"{path}: can't be read ({reason})")
            faults += 1
    return list(files.values()), faults


def image_files(path: Path) -> list[Path]:
    """The file itself, or the images in a folder, in order of name, without results."""
    from napari_cfsr.core.files import SUFFIXES

    if not path.is_dir():
        return [path]
    images = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    names = {p: _parts(p)[0] for p in images if not p.name.startswith(".")}
    return [p for p, name in names.items() if not RESULT.search(name)]


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


def _check_targets(targets: dict[str, Path], taken: dict[Path, str], overwrite: bool) -> None:
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
    with _tile_bar(path.name) as progress:
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
    for name, target in targets.items():
        write_image(target, result.arrays()[name], image, model.scale, options.overwrite)
    summary = f"{path} -> {', '.join(str(t) for t in targets.values())}: {describe(result)}"
    record = provenance(result, str(path), _expression(path))
    return {
        "summary": "; ".join([summary, *image.notes]),
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


@contextlib.contextmanager
def _tile_bar(name: str) -> Iterator[Any]:
    """A progress bar over pixels, with time left; notes are printed above it."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="px", unit_scale=True, disable=None, leave=False) as bar:

        def progress(step: UpscaleProgress) -> None:
            bar.total = step.total
            bar.update(step.done - bar.n)
            if step.note:
                say(f"{name}: {step.note}")

        yield progress


# models


def _add_models(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(required=True, metavar="ACTION", title="actions")
    listing = actions.add_parser("list", help="what is on this machine")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=run_models_list)
    fetch = actions.add_parser("fetch", help="download the official weights")
    fetch.add_argument("--scale", type=int, choices=weights.SCALES, nargs="+", default=[2, 3, 4])
    fetch.set_defaults(run=run_models_fetch)
    imports = actions.add_parser("import", help="check weights files and keep copies of them")
    imports.add_argument("files", nargs="+", type=Path)
    imports.add_argument("--overwrite", action="store_true")
    imports.set_defaults(run=run_models_import)
    path = actions.add_parser("path", help="print where a backbone is, or the folders")
    path.add_argument("--scale", type=int, choices=weights.SCALES)
    path.add_argument("--backbone", default="auto")
    path.set_defaults(run=run_models_path)


def models_table() -> list[dict[str, Any]]:
    """What is on this machine, a record for each."""
    from napari_cfsr.core.checkpoints import refiner_cards

    rows: list[dict[str, Any]] = []
    for scale in weights.SCALES:
        official, bundled = weights.official_path(scale), weights.bundled_path(scale)
        row = {"what": "backbone", "kind": "official", "name": weights.official_name(scale)}
        rows.append({**row, "scale": scale, "path": official and str(official)})
        if bundled is not None:
            row = {"what": "backbone", "kind": "bundled", "name": bundled.name}
            rows.append({**row, "scale": scale, "path": str(bundled)})
    for path in weights.imported_backbones():
        row = {"what": "backbone", "kind": "imported", "name": path.stem}
        rows.append({**row, "scale": None, "path": str(path)})
    for path, kind, card in refiner_cards():
        row = {"what": "refiner", "kind": kind, "name": path.stem}
        about = {"description": card.description, "gain": card.gain}
        rows.append({**row, "scale": card.scale, "path": str(path), **about})
    return rows


def run_models_list(options: argparse.Namespace) -> int:
    rows = models_table()
    if options.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        scale = f"x{row['scale']}" if row["scale"] else "  "
        where = row["path"] or "not on this machine: 'napari-cfsr models fetch'"
        about = row.get("description", "")
        if row.get("gain") is not None:
            about += f" ({row['gain']:+.4f} dB)"
        print(f"{row['what']:8} {row['kind']:8} {scale} {row['name']:28} {where}  {about}".rstrip())
    return 0


def run_models_fetch(options: argparse.Namespace) -> int:
    for scale in options.scale:
        with _download_bar() as progress:
            file, _ = weights.find_backbone(scale, "official", progress=progress)
        print(f"x{scale} {file.path}")
    return 0


def run_models_import(options: argparse.Namespace) -> int:
    faults = 0
    for path in options.files:
        try:
            print(f"{path} -> {import_weights(path, options.overwrite)}")
        except CFSRError as error:
            say(str(error))
            faults += 1
    return 2 if faults else 0


def import_weights(path: Path, overwrite: bool) -> Path:
    """Check that a file is a backbone or a refiner, and keep a copy of it."""
    from napari_cfsr.core.cfsr import config_of
    from napari_cfsr.core.checkpoints import load_backbone, load_state, open_refiner
    from napari_cfsr.core.weights import WeightsFile, import_file, sha256_of
    from napari_cfsr.errors import ArchitectureError, ScaleError

    state = load_state(path)
    if "body.0.weight" in state:
        open_refiner(path)
        return import_file(path, "refiners", overwrite)
    try:
        scale = config_of(state).scale
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ArchitectureError(
            f"{path} holds neither a CFSR backbone nor a refiner ({len(state)} tensors, the first "
            f"is {next(iter(state))!r})"
        ) from error
    load_backbone(WeightsFile(path, sha256_of(path), "file"), scale)
    if scale not in weights.SCALES:
        raise ScaleError(f"expected weights for scale 2, 3 or 4, got {path} for x{scale}")
    return import_file(path, "backbones", overwrite)


def run_models_path(options: argparse.Namespace) -> int:
    if options.scale is None:
        print(weights.cache_folder())
        print(weights.data_folder())
        return 0
    file, _ = weights.find_backbone(options.scale, options.backbone, download=False)
    print(file.path)
    return 0


# demo


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_demo)
    _add_model_options(command)
    command.add_argument("--no-window", action="store_true", help="write files instead")
    command.add_argument("--output", type=Path, help="folder for the files; needed for --no-window")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run_demo(options: argparse.Namespace) -> int:
    """Upscale the sample photo, in a window or into files."""
    if not options.no_window:
        with _download_bar() as progress:  # before the window: a terminal shows it better
            file, _ = weights.find_backbone(options.scale, options.backbone, progress=progress)
        print(f"napari opens with a sample photo; the backbone is {file.path}")
        from napari_cfsr.demo import show

        show(options.scale, options.backbone)
        return 0
    if options.output is None:
        raise OptionError("expected --output FOLDER with --no-window")
    return _demo_files(options)


def _demo_files(options: argparse.Namespace) -> int:
    from napari_cfsr.core.figures import SideBySide, save_figure
    from napari_cfsr.core.files import ImageFile, write_image
    from napari_cfsr.core.inference import upscale
    from napari_cfsr.sample_data import photo

    scale = options.scale
    hr, lr = (data for data, *_ in photo(scale))
    folder = options.output
    names = [folder / f"cat_{name}.png" for name in ("LR", "HR", "baseline", "delta", "comparison")]
    _check_targets({path.stem: path for path in names}, {}, options.overwrite)
    model = _load(options)
    with _tile_bar("cat") as progress:
        result = upscale(lr, model, axes="YXS", progress=progress)
    arrays = {"LR": lr, "HR": hr, **result.arrays()}
    arrays.pop("difference", None)
    source = ImageFile(lr, "YXS", folder)
    for name, array in arrays.items():
        write_image(folder / f"cat_{name}.png", array, source, 1, options.overwrite)
    figure = SideBySide(lr, hr, result.baseline, result.delta, scale)
    lines = save_figure(names[-1], figure)
    print(describe(result))
    for line in lines:
        print(line)
    print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
