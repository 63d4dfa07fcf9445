"""`napari-cfsr demo`: upscale a sample photo, in a window or to files."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_cfsr.cli.common import add_model_options, download_bar, load, tile_bar
from napari_cfsr.cli.visualize import network_note
from napari_cfsr.cli.visualize_sources import REDUCED
from napari_cfsr.core.weights import find_backbone
from napari_cfsr.errors import OptionError

EYE = (84, 132, 84)  # of the cat: top row, left column, side; HR pixels


def add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=run_demo)
    add_model_options(command)
    command.add_argument("--no-window", action="store_true", help="write files instead")
    command.add_argument("--output", type=Path, help="folder for the files; needed for --no-window")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run_demo(options: argparse.Namespace) -> int:
    """Upscale the sample photo, in a window or to files."""
    if not options.no_window:
        with download_bar() as progress:  # before the window opens, in the terminal
            file, _ = find_backbone(options.scale, options.backbone, progress=progress)
        print(f"napari opens with a sample photo; the backbone is {file.path}")
        from napari_cfsr.demo import show

        show(options.scale, options.backbone)
        return 0
    if options.output is None:
        raise OptionError("expected --output FOLDER with --no-window")
    return _demo_files(options)


def _demo_files(options: argparse.Namespace) -> int:
    from napari_cfsr.core.batch import check_targets
    from napari_cfsr.core.figures import Comparison, Crop, FigureOptions, save_figure
    from napari_cfsr.core.io import ImageFile, write_image
    from napari_cfsr.core.upscale import describe, upscale
    from napari_cfsr.layers import photo

    scale = options.scale
    hr, lr = (data for data, *_ in photo(scale))
    folder = options.output
    names = [folder / f"cat_{name}.png" for name in ("LR", "HR", "baseline", "delta", "comparison")]
    check_targets(names, {}, options.overwrite)
    model = load(options)
    with tile_bar("cat") as progress:
        result = upscale(lr, model, axes="YXS", progress=progress)
    arrays = {"LR": lr, "HR": hr, **result.arrays()}
    arrays.pop("difference", None)
    source = ImageFile(lr, "YXS", folder)
    for name, array in arrays.items():
        write_image(folder / f"cat_{name}.png", array, source, 1, options.overwrite)
    comparison = Comparison(
        lr,
        scale,
        result.baseline,
        result.delta,
        hr,
        result.difference,
        name="cat (S. van der Walt, CC0)",
        notes=(REDUCED, network_note(result)),
    )
    look = FigureOptions(crops=(Crop(*EYE),))
    content = save_figure(names[-1], comparison, look, options.overwrite)
    print(describe(result))
    for name, score in content.scores.items():
        print(f"{name}: Y PSNR {score.psnr:.3f} dB")
    print(f"written to {folder}")
    return 0
