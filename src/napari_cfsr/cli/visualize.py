"""`napari-cfsr visualize`: figures as papers on super-resolution show them."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import (
    intensity_named,
    load,
    say,
    tile_bar,
)
from napari_cfsr.cli.visualize_options import FORMATS, add_visualize_options, figure_options
from napari_cfsr.cli.visualize_sources import Scene, Source, read_scene, sources_of
from napari_cfsr.errors import CFSRError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.engine import SRModel
    from napari_cfsr.core.figures import Content, FigureOptions
    from napari_cfsr.core.upscale import UpscaleResult

MADE = ("baseline", "delta", "difference")  # panels that need the network


def add_visualize(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_visualize)
    add_visualize_options(command)


def run_visualize(options: argparse.Namespace) -> int:
    """Draw each image; a fault in one does not stop the others."""
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
    """Raise an error where a panel is wanted that can't be had, before any time is spent."""
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
    """The format that is asked for, by its name or by the suffix of the file."""
    suffix = options.output.suffix.lower().removeprefix(".")
    named = suffix if suffix in FORMATS and not options.output.is_dir() else None
    if named and options.format and named != options.format:
        raise OptionError(
            f"expected the same format, got --format {options.format} and --output {options.output}"
        )
    return str(options.format or named or "png")


def _target(source: Source, options: argparse.Namespace, kind: str, single: bool) -> Path:
    """Where a figure goes."""
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
    """Read, upscale, draw and write one figure; a record of it."""
    from napari_cfsr.core.figures import Comparison, save_figure

    scene = read_scene(source, options)
    result = None if model is None else _upscaled(scene, model, source, intensity, options)
    comparison = Comparison(
        scene.lr,
        options.scale,
        baseline=None if result is None else result.baseline,
        delta=None if result is None else result.delta,
        hr=scene.hr,
        difference=None if result is None else result.difference,
        name=source.name,
        pixel_size=scene.pixel_size,
        notes=(*scene.notes, *(() if result is None else (network_note(result),))),
    )
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
    """What made the results, for the small print."""
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
    """What the figure shows, and one line that says it."""
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
        "scores": {k: {"psnr": _plain(s.psnr), "ssim": _plain(s.ssim)} for k, s in scores.items()},
        "crops": [[crop.top, crop.left, crop.side] for crop in content.crops],
    }


def _plain(value: float | None) -> float | str | None:
    """For JSON, which has no infinity: `float` of Python and `Number` of JavaScript read these."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity"
