"""Figures as papers on super-resolution show them: the whole, and crops beside each other.

>>> from napari_cfsr.core.figures.save import Comparison, save_figure
>>> comparison = Comparison(lr, 4, result.baseline, result.delta, hr, result.difference)
>>> save_figure("figure.pdf", comparison)
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cfsr.core.figures.comparison import Comparison
from napari_cfsr.core.figures.content import Content, content_of
from napari_cfsr.core.figures.crops import Crop
from napari_cfsr.core.figures.options import FigureOptions
from napari_cfsr.core.io import atomic_write
from napari_cfsr.errors import FileFormatError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Comparison",
    "Content",
    "Crop",
    "FigureOptions",
    "content_of",
    "draw_figure",
    "save_figure",
]

FORMATS = ("png", "pdf", "svg")


def draw_figure(content: Content, raster: bool = True) -> Figure:
    """A matplotlib figure of it.

    Parameters
    ----------
    content : Content
    raster : bool
        Whether it is for PNG or a screen; False for PDF and SVG, which embed the pixels of the
        images themselves.
    """
    from napari_cfsr.core.figures.drawing import drawn

    return drawn(content, raster)


def save_figure(
    path: str | os.PathLike[str],
    comparison: Comparison | Content,
    options: FigureOptions | None = None,
    overwrite: bool = False,
) -> Content:
    """Draw a figure and write it, all of it or nothing.

    Parameters
    ----------
    path : path
        PNG, PDF or SVG, by its suffix.
    comparison : Comparison or Content
        Content as by `content_of` comes with its options.
    options : FigureOptions, optional
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    Content
        What it shows, with the scores.

    Raises
    ------
    OptionError
        The file exists and `overwrite` is false, or a panel or crop is not there.
    FileFormatError
        The suffix is none of these, or the file can't be written.
    """
    path = Path(path)
    kind = check_format(path)
    if isinstance(comparison, Comparison):
        comparison = content_of(comparison, options)
    encoded = _encoded(kind, comparison)
    with atomic_write(path, overwrite) as file:
        file.write(encoded)
    return comparison


def check_format(path: Path) -> str:
    """The format that a suffix names; raises `FileFormatError` for one that can't be written."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise FileFormatError(
            f"{path}: can't be written (expected .png, .pdf or .svg, got {path.suffix!r})"
        )
    return kind


def _encoded(kind: str, content: Content) -> bytes:
    """The whole file: what matplotlib leaves behind when a disk is full is not even closed."""
    from napari_cfsr.core.figures.canvas import settings

    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with settings():
        figure = draw_figure(content, raster=kind == "png")
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=undated.get(kind))
    return buffer.getvalue()
