"""`napari-cfsr visualize`: figures as papers on super-resolution show them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import add_model_options, intensity_named, load, say, tile_bar
from napari_cfsr.cli.visualize_sources import Scene, Source, read_scene, sources_of
from napari_cfsr.errors import CFSRError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.engine import SRModel
    from napari_cfsr.core.figures import Content, Crop, FigureOptions
    from napari_cfsr.core.upscale import UpscaleResult

FORMATS = ("png", "pdf", "svg")
ARRANGEMENTS = ("auto", "left", "above", "columns")  # as in `core.figures`, which is slow to import
DESCRIPTION = """\
Draw the input, bicubic, the results and the reference beside each other: the whole image with the
crop marked, and the crop magnified, with PSNR and SSIM where there is a reference.
"""
EPILOG = """\
examples:
  napari-cfsr visualize photo.jpg --hr --scale 4 --crop 120,200,96 --output figure.pdf
  napari-cfsr visualize lr.tif --reference hr.tif --scale 2 --contrast percentile
  napari-cfsr visualize --data DATA --dataset Set5 --images baby,butterfly --output figures
"""

MADE = ("baseline", "delta", "difference")  # panels that need the network


def add_visualize(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_visualize)
    command.description, command.epilog = DESCRIPTION, EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_images(command.add_argument_group("images"))
    _add_output(command.add_argument_group("result"))
    _add_look(command.add_argument_group("look"))
    model = command.add_argument_group("backbone and run")
    add_model_options(model)  # type: ignore[arg-type]
    model.add_argument("--ensemble", action="store_true", help="average of eight: 8 times slower")
    model.add_argument(
        "--intensity", default="auto", help="values that the network sees as black and white"
    )


def _add_images(group: Any) -> None:
    group.add_argument("inputs", nargs="*", type=Path, help="image files, or folders of them")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--reference", type=Path, help="HR image of the input, or a folder with files of its name"
    )
    which.add_argument(
        "--hr", action="store_true", help="inputs are HR: LR is their bicubic reduction"
    )
    group.add_argument("--data", type=Path, help="folder of data sets in the EDSR layout")
    group.add_argument("--dataset", help="one of them, such as Set5")
    group.add_argument("--images", metavar="NAMES", help="some of them, such as baby,butterfly")
    group.add_argument("--axes", help="axes of TIFF stacks, if the file does not say or is wrong")
    group.add_argument("--plane", help="which plane of a stack, such as Z=3,C=0")
    text = "width of an input pixel, for a scale bar (from the TIFF)"
    group.add_argument("--pixel-size", type=float, metavar="MICROMETRES", help=text)


def _add_output(group: Any) -> None:
    text = "a folder, or a file for a single figure (the current folder)"
    group.add_argument("-o", "--output", type=Path, default=Path(), help=text)
    group.add_argument("--format", choices=FORMATS, help="(that of --output FILE, else png)")
    group.add_argument("--overwrite", action="store_true", help="replace files that exist")
    group.add_argument("--json", action="store_true", help="print a record of each figure")


def _add_look(group: Any) -> None:
    text = "a square to magnify, HR pixels; may be given several times (the busiest square)"
    group.add_argument("--crop", action="append", metavar="Y,X,SIZE", help=text)
    text = "panels in this order: LR,bicubic,baseline,delta,HR,difference (all available)"
    group.add_argument("--panels", metavar="NAMES", help=text)
    text = "another name for a panel, such as baseline=CFSR; may be given several times"
    group.add_argument("--label", action="append", metavar="PANEL=TEXT", help=text)
    text = "where the whole image goes; columns: one above each panel (auto)"
    group.add_argument("--arrangement", choices=ARRANGEMENTS, default="auto", help=text)
    text = "values shown black and white: auto, dtype, data, percentile, or LOW,HIGH"
    group.add_argument("--contrast", default="auto", help=text)
    group.add_argument("--width", type=float, default=7.16, help="inches (7.16: two columns)")
    group.add_argument("--dpi", type=int, default=300, help="pixels per inch, at least (300)")
    group.add_argument("--font", default="DejaVu Sans", help="an installed font (DejaVu Sans)")
    group.add_argument("--font-size", type=float, default=7.0, help="points (7)")
    group.add_argument("--no-small-print", action="store_true", help="no lines at the bottom")


def figure_options(options: argparse.Namespace) -> FigureOptions:
    """The options of the figure; raises `OptionError` for invalid ones."""
    from napari_cfsr.core.figures import FigureOptions, check_family

    check_family(options.font)
    if options.pixel_size is not None and not 0 < options.pixel_size < float("inf"):
        raise OptionError(f"expected --pixel-size above 0, got {options.pixel_size:g}")
    labels = {}
    for text in options.label or ():
        panel, sign, name = text.partition("=")
        if not sign:
            raise OptionError(f"expected --label PANEL=TEXT, got {text!r}")
        labels[panel] = name
    return FigureOptions(
        panels=None if options.panels is None else tuple(options.panels.split(",")),
        crops=tuple(crop_of(text) for text in options.crop or ()),
        arrangement=options.arrangement,
        contrast=intensity_named(options.contrast, "--contrast"),
        width=options.width,
        dpi=options.dpi,
        font=options.font,
        font_size=options.font_size,
        labels=labels,
        small_print=not options.no_small_print,
    )


def crop_of(text: str) -> Crop:
    """A crop from `Y,X,SIZE`; raises `OptionError` for any other text."""
    from napari_cfsr.core.figures import Crop

    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"expected --crop Y,X,SIZE in HR pixels, got {text!r}")
    return Crop(*map(int, parts))


def run_visualize(options: argparse.Namespace) -> int:
    """Draw each image; a failure does not stop the others."""
    from napari_cfsr.core.batch import check_targets

    look, intensity = figure_options(options), intensity_named(options.intensity)
    kind = _format(options)
    sources, faults = sources_of(options)
    if not sources:
        return 2
    model = load(options) if _needs_model(look) else None
    _check_panels(look, model, all(source.hr for source in sources))
    taken: dict[Path, str] = {}
    for path in (path for source in sources for path in source.paths):
        taken[path.resolve()] = "is an input itself"
    for source in sources:
        try:
            target = _target(source, options, kind, len(sources) == 1)
            check_targets([target], taken, options.overwrite)
            record = _draw(source, model, look, intensity, target, options)
        except CFSRError as error:
            text = str(error)
            say(text if str(source.path) in text else f"{source.path}: {text}")
            faults += 1
        else:
            taken[target.resolve()] = f"was written from {source.path} just now"
            print(json.dumps(record) if options.json else record["summary"])
    return 2 if faults else 0


def _needs_model(look: FigureOptions) -> bool:
    return look.panels is None or not set(look.panels).isdisjoint(MADE)


def _check_panels(look: FigureOptions, model: SRModel | None, referenced: bool) -> None:
    """Raise `OptionError` if a requested panel is not available, before any time is spent."""
    wanted = set(look.panels or ())
    refined = model is not None and "delta" in model.info.outputs
    if model is not None and wanted & {"delta", "difference"} and not refined:
        raise OptionError(
            f"expected a refiner for the panels delta and difference, but {model.info.backbone} "
            f"x{model.scale} has none loaded: choose one with --refiner or leave them out"
        )
    if "HR" in wanted and not referenced:
        raise OptionError(
            "expected a reference for the panel HR: give --reference or --hr, or leave it out"
        )


def _format(options: argparse.Namespace) -> str:
    """The requested format: the option's, or that of the file name."""
    suffix = options.output.suffix.lower().removeprefix(".")
    named = suffix if suffix in FORMATS and not options.output.is_dir() else None
    if named and options.format and named != options.format:
        raise OptionError(
            f"expected the same format, got --format {options.format} and --output {options.output}"
        )
    return str(options.format or named or "png")


def _target(source: Source, options: argparse.Namespace, kind: str, single: bool) -> Path:
    """The file that a figure is written to."""
    output: Path = options.output
    if output.suffix.lower() == f".{kind}" and not output.is_dir():
        if not single:
            raise OptionError(f"expected a folder for several figures, got --output {output}")
        return output
    name = (source.hr or source.path).stem if options.dataset else source.path.stem
    return output / f"{name}_x{options.scale}_comparison.{kind}"


def _draw(
    source: Source,
    model: SRModel | None,
    look: FigureOptions,
    intensity: Any,
    target: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Read, upscale, draw and write one figure; return its record."""
    from napari_cfsr.core.figures import Comparison, save_figure

    scene = read_scene(source, options)
    result = None if model is None else _upscaled(scene, model, source, intensity, options)
    results: dict[str, Any] = {}
    notes = scene.notes
    if result is not None:
        results = {name: getattr(result, name) for name in MADE}
        notes = (*notes, network_note(result))
    results |= {"name": source.name, "pixel_size": scene.pixel_size, "notes": notes}
    comparison = Comparison(scene.lr, options.scale, hr=scene.hr, **results)
    content = save_figure(target, comparison, look, options.overwrite)
    return _record(source, target, content, result, scene.notes)


def _upscaled(
    scene: Scene, model: SRModel, source: Source, intensity: Any, options: argparse.Namespace
) -> UpscaleResult:
    from napari_cfsr.core.upscale import upscale

    with tile_bar(source.name) as progress:
        return upscale(
            scene.lr,
            model,
            axes="YX" if scene.lr.ndim == 2 else "YXS",
            ensemble=options.ensemble,
            intensity=intensity,
            progress=progress,
        )


def network_note(result: UpscaleResult) -> str:
    """Which network made the results, for the small print."""
    info = result.info
    refiner = f"refiner {info.refiner}" if info.refiner else "no refiner"
    ensemble = ", self-ensemble" if result.options.ensemble else ""
    return f"network {info.backbone}, {refiner}{ensemble}"


def _record(
    source: Source,
    target: Path,
    content: Content,
    result: UpscaleResult | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """What the figure shows, with a summary in one line."""
    from napari_cfsr.core.evaluate import plain
    from napari_cfsr.core.figures import psnr_text, ssim_text
    from napari_cfsr.core.upscale import describe

    scores = content.scores
    numbers = ", ".join(f"{k} {psnr_text(s)}/{ssim_text(s)}" for k, s in scores.items())
    crops = " ".join(f"crop {crop}" for crop in content.crops)
    parts = [
        f"{source.path} -> {target}: {f'PSNR/SSIM {numbers}' if numbers else 'no reference'}",
        crops,
        *notes,
        *([describe(result)] if result is not None else []),
        *content.notes,
    ]
    return {
        "summary": "; ".join(parts),
        "figure": str(target),
        "lr": None if source.is_hr else str(source.path),
        "hr": source.hr and str(source.hr),
        "scale": content.comparison.scale,
        "panels": list(content.images),
        "scores": plain({k: vars(s) for k, s in scores.items()}),
        "crops": [[crop.top, crop.left, crop.side] for crop in content.crops],
    }
