"""The options of `napari-cfsr visualize`, and the look they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cfsr.cli.common import add_model_options
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.figures import FigureOptions

FORMATS = ("png", "pdf", "svg")
ARRANGEMENTS = ("auto", "left", "above", "columns")  # as in `core.figure_options`
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


def add_visualize_options(command: argparse.ArgumentParser) -> None:
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
    group.add_argument("--images", metavar="NAMES", help="of the data set, such as baby,butterfly")
    group.add_argument("--axes", help="axes of TIFF stacks, if the file does not say or is wrong")
    group.add_argument("--plane", help="which plane of a stack, such as Z=3,C=0")
    text = "width of an input pixel, for a scale bar (as the TIFF says)"
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
    text = "which, in this order: LR,bicubic,baseline,delta,HR,difference (all there are)"
    group.add_argument("--panels", metavar="NAMES", help=text)
    text = "another name to show, such as baseline=CFSR; may be given several times"
    group.add_argument("--label", action="append", metavar="PANEL=TEXT", help=text)
    text = "of the whole image to the crops; columns: a whole image above each panel (auto)"
    group.add_argument("--arrangement", choices=ARRANGEMENTS, default="auto", help=text)
    text = "values shown black and white: auto, dtype, data, percentile, or LOW,HIGH"
    group.add_argument("--contrast", default="auto", help=text)
    group.add_argument("--width", type=float, default=7.16, help="inches (7.16: two columns)")
    group.add_argument("--dpi", type=int, default=300, help="pixels per inch, at least (300)")
    group.add_argument("--font", default="DejaVu Sans", help="of this machine (DejaVu Sans)")
    group.add_argument("--font-size", type=float, default=7.0, help="points (7)")
    group.add_argument("--no-small-print", action="store_true", help="leave out the lines below")


def figure_options(options: argparse.Namespace) -> FigureOptions:
    """How the figure is to look; raises `OptionError` if it makes no sense."""
    from napari_cfsr.core.figures import Crop, FigureOptions, check_family

    check_family(options.font)
    if options.pixel_size is not None and not 0 < options.pixel_size < float("inf"):
        raise OptionError(f"expected --pixel-size above 0, got {options.pixel_size:g}")
    labels = {}
    for text in options.label or ():
        panel, sign, name = text.partition("=")
        if not sign:
            raise OptionError(f"expected --label PANEL=TEXT, got {text!r}")
        labels[panel] = name
    contrast = options.contrast
    return FigureOptions(
        panels=None if options.panels is None else tuple(options.panels.split(",")),
        crops=tuple(Crop.parse(text) for text in options.crop or ()),
        arrangement=options.arrangement,
        contrast=_limits(contrast) if "," in contrast else contrast,
        width=options.width,
        dpi=options.dpi,
        font=options.font,
        font_size=options.font_size,
        labels=labels,
        small_print=not options.no_small_print,
    )


def _limits(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"expected --contrast LOW,HIGH, got {text!r}") from error
    return low, high
