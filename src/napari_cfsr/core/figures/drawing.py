"""Figures as papers on super-resolution show them: the whole image, and crops beside each other.

>>> from napari_cfsr.core.figures import Comparison, save_figure
>>> comparison = Comparison(lr, 4, result.baseline, result.delta, hr, result.difference)
>>> save_figure("figure.pdf", comparison)

Nothing of matplotlib's global state is used; the settings that it keeps in `rcParams` only hold
inside `settings()`.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import Bbox
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from PIL import Image

from napari_cfsr.core.figures.comparison import Comparison
from napari_cfsr.core.figures.content import Content, Pixels, content_of
from napari_cfsr.core.figures.layout import FRAME, MARGIN, PixelGrid, arrange
from napari_cfsr.core.figures.options import Crop, FigureOptions
from napari_cfsr.core.figures.text import (
    BAR,
    BASELINE,
    LEAST_SHRUNK,
    LINE,
    PAD,
    SLASH,
    Caption,
    Font,
    Number,
    check_family,
)
from napari_cfsr.core.io import atomic_write
from napari_cfsr.errors import FileFormatError, OptionError

FORMATS = ("png", "pdf", "svg")
# of the crops; bright, different to colour-blind eyes, and rare in photographs
COLOURS = ("#ffd400", "#00c8ff", "#ff4fb0", "#6fe000", "#ff7a00", "#b388ff")
GRAY = "#404040"
LARGEST = 2**27  # pixels of a PNG
LARGEST_EMBEDDED = 4096  # pixels; the side of a whole image in PDF and SVG
LARGEST_REPEATED = 1200  # pixels; the side of a crop in PDF and SVG
BAR_STEPS = (1, 2, 5)
BAR_SHARE = 0.3  # of the width of an image that a scale bar takes at most
BAR_HEIGHT = 1.5  # points


@contextmanager
def settings() -> Iterator[None]:
    """Matplotlib's defaults, whatever the user's own settings; text in PDF and SVG stays text."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "pdf.fonttype": 42,  # TrueType, which publishers ask for
                "svg.fonttype": "none",
                "text.hinting": "none",  # else PNG has wider or narrower text than was measured
                "text.parse_math": False,  # a dollar sign in a name is a dollar sign
                "svg.hashsalt": "napari-cfsr",  # the same file for the same figure
                "image.composite_image": False,  # every image embedded as it is
                "patch.linewidth": 0,
            }
        )
        # of names in a script that the font lacks: boxes are shown for those letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save_figure(
    path: str | os.PathLike[str],
    comparison: Comparison | Content,
    options: FigureOptions | None = None,
    overwrite: bool = False,
) -> Content:
    """Draw a figure and write it, completely or not at all.

    Parameters
    ----------
    path : path
        PNG, PDF or SVG, by its suffix.
    comparison : Comparison or Content
        Content from `content_of` has its own options.
    options : FigureOptions, optional
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Content
        What it shows, with the scores.

    Raises
    ------
    OptionError
        The file exists and `overwrite` is false, or a panel or crop does not exist.
    FileFormatError
        The suffix is none of these, or the file can't be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise FileFormatError(
            f"{path}: can't be written (expected .png, .pdf or .svg, got {path.suffix!r})"
        )
    if isinstance(comparison, Comparison):
        comparison = content_of(comparison, options)
    encoded = _encoded(kind, comparison)
    with atomic_write(path, overwrite) as file:
        file.write(encoded)
    return comparison


def _encoded(kind: str, content: Content) -> bytes:
    """The whole file: matplotlib does not close what it writes when a disk is full."""
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with settings():
        figure = draw_figure(content, raster=kind == "png")
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=undated.get(kind))
    return buffer.getvalue()


def draw_figure(content: Content, raster: bool = True) -> Figure:
    """A matplotlib figure of a content.

    `raster` is for PNG or a screen; PDF and SVG embed the pixels of the images themselves.

    Raises
    ------
    OptionError
        The font is not installed, there is no room for the panels, or a PNG would be too large.
    """
    check_family(content.options.font)
    with settings():
        drawing = _Drawing(content, raster)
        drawing.wholes()
        drawing.crops()
        drawing.note()
        return drawing.grid.figure


class _Drawing:
    """A figure being drawn."""

    def __init__(self, content: Content, raster: bool) -> None:
        self.content, self.raster = content, raster
        self.text = arrange(content)
        self.font, self.small = self.text.font, self.text.font.smaller()
        self.grid = grid = PixelGrid(self.text.grid, content.options.dpi)
        if raster and grid.width * grid.height > LARGEST:
            raise OptionError(
                f"expected a figure of at most {LARGEST} pixels, got {grid.width} x "
                f"{grid.height}: choose fewer pixels per inch, a smaller width, or PDF"
            )
        self.room = grid.grid.side * 72  # points; width of a crop

    def wholes(self) -> None:
        """The whole image, or that of each panel, with the crops marked."""
        kind, crops = self.text.grid.kind, self.content.crops
        height, width = self.content.comparison.shape[:2]
        aspect = "auto" if kind == "left" else "equal"
        for i, name in enumerate(self.content.images if kind == "columns" else [None]):
            axes = self._axes(self.grid.whole(i), f"whole {name or 'image'}")
            self._image(axes, self.content.pixels(name), (width, height), 1, aspect)
            for crop, colour in zip(crops, cycle(COLOURS), strict=False):
                self._mark(axes, crop, colour)
            if i == 0:
                self._scale_bar(axes)
            if name is None:
                self._whole_caption(axes, PAD - (FRAME * 72 if kind == "left" else 0))

    def crops(self) -> None:
        """The crops of each panel, framed in the colour of their mark; captions below the last."""
        grid, crops = self.grid, self.content.crops
        for i, (crop, colour) in enumerate(zip(crops, cycle(COLOURS), strict=False)):
            for j, name in enumerate(self.content.images):
                axes = self._axes(grid.crop(i, j), f"crop {i} {name}")
                times = max(1, min(grid.side, LARGEST_REPEATED) // crop.side)
                self._image(axes, self.content.pixels(name, crop), (crop.side,) * 2, times)
                self._frame(axes, colour, FRAME * 72)
                if j == 0:
                    self._scale_bar(axes)
                if i == len(crops) - 1:
                    self._caption(axes, self.text.captions[j])

    def note(self) -> None:
        """The small print, at the left."""
        grid = self.grid
        x = grid.px(MARGIN) / grid.width
        for line, text in enumerate(self.text.note):
            below = (line * LINE + BASELINE) * self.small.size * grid.dpi / 72
            y = (grid.note_top - below) / grid.height
            font = self.small.properties()
            grid.figure.text(x, y, text, va="baseline", color=GRAY, fontproperties=font)

    def _axes(self, box: Bbox, label: str) -> Axes:
        axes = self.grid.figure.add_axes(box.bounds, label=label)
        axes.set_axis_off()
        return axes

    def _image(
        self, axes: Axes, pixels: Pixels, size: tuple[int, int], times: int, aspect: Any = "auto"
    ) -> None:
        """Fill axes with an image; coordinates are HR pixels.

        For PNG, pixels are squares of as many device pixels, or reduced where there is less room.
        Else they are embedded, `times` times larger: some viewers smooth what they magnify.
        """
        room = round(axes.bbox.height), round(axes.bbox.width)
        if self.raster:
            times = max(-(-n // m) for n, m in zip(room, pixels.shape[:2], strict=True))
        image = Image.fromarray(pixels.repeat(times, axis=0).repeat(times, axis=1))
        if not self.raster:
            image.thumbnail((LARGEST_EMBEDDED, LARGEST_EMBEDDED))
        sharp = not self.raster or (image.height, image.width) == room
        smoothing = "none" if sharp else "hanning"
        axes.imshow(image, extent=(0, size[0], size[1], 0), aspect=aspect, interpolation=smoothing)
        axes.apply_aspect()

    def _frame(self, axes: Axes, colour: str, points: float) -> None:
        """A line around axes; their image covers its inner half."""
        line = 2 * self._thickness(points)
        frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, clip_on=False, zorder=-1)
        frame.set(fill=False, edgecolor=colour, linewidth=line)
        axes.add_patch(frame)

    def _thickness(self, points: float) -> float:
        """The thickness of a line, rounded to whole pixels."""
        return max(1, round(points * self.grid.dpi / 72)) * 72 / self.grid.dpi

    def _unit(self, axes: Axes) -> float:
        """Points that an HR pixel of axes is wide."""
        return axes.bbox.width / self.grid.dpi * 72 / axes.get_xlim()[1]

    def _mark(self, axes: Axes, crop: Crop, colour: str) -> None:
        """A frame that shows on any image: a line of colour with a dark edge on both sides."""
        unit = self._unit(axes)
        edge, line = (0.5, 1.2) if crop.side * unit > 24 else (0.35, 0.9)
        bright = self._thickness(line)
        dark = bright + 2 * self._thickness(edge)
        half = dark / 2 / unit  # around the crop, but not outside of the image
        edges = [axes.get_xlim()[1] - half, axes.get_ylim()[0] - half]
        left, top = (max(n - half, half) for n in (crop.left, crop.top))
        right = min(crop.left + crop.side + half, edges[0])
        bottom = min(crop.top + crop.side + half, edges[1])
        mark = Rectangle((left, top), right - left, bottom - top, fill=False)
        mark.set(edgecolor=colour, linewidth=bright, joinstyle="miter")
        mark.set_path_effects([Stroke(linewidth=dark, foreground="black"), Normal()])
        axes.add_patch(mark)

    def _scale_bar(self, axes: Axes) -> None:
        """A white bar at the bottom right of axes, if the pixel size is known and it has room."""
        size, unit, small = self.content.comparison.pixel_size, self._unit(axes), self.small
        if size is None:
            return
        length, label = round_length(axes.get_xlim()[1] * size)
        width = max(length / size * unit, small.width(label)) + 4
        height = LINE * small.size + BAR_HEIGHT + 2
        if width > axes.get_xlim()[1] * unit / 2 or height > axes.get_ylim()[0] * unit / 2:
            return
        bar = AnchoredSizeBar(
            axes.transData, length / size, label, "lower right", pad=2 / small.size, borderpad=0,
            sep=1, color="white", size_vertical=BAR_HEIGHT / unit, label_top=True,
            fontproperties=small.properties(),
        )  # fmt: skip
        bar.patch.set(facecolor="black", alpha=0.6)
        axes.add_artist(bar)

    def _write(
        self,
        axes: Axes,
        text: str,
        below: float,
        x: float = 0.5,
        right: float = 0,
        align: str = "center",
        font: Font | None = None,
        number: Number | None = None,
    ) -> None:
        """One line of text, its baseline `below` points below axes.

        `x` is a fraction of the width of the axes, `right` points. Of numbers, the best is bold and
        the second best underlined.
        """
        font, mark = font or self.font, number.mark if number else ""
        underline = {"boxstyle": _underline, "fill": False, "linewidth": 0.09 * font.size}
        axes.annotate(
            text, (x, 0), (right, -below), xycoords="axes fraction", textcoords="offset points",
            ha=align, va="baseline", fontproperties=font.properties(mark == "best"),
            bbox=underline if mark == "second" else None,
        )  # fmt: skip

    def _squeeze(self, axes: Axes, text: str, below: float, font: Font, room: float) -> None:
        """Text in the middle that takes at most `room` points."""
        font = font.shrunk(text, room)
        # a trifle more: widths are not quite in proportion to the size of a font
        self._write(axes, font.fitted(text, room * 1.02), below, font=font)

    def _baseline(self, line: int, pad: float = PAD) -> float:
        """Of a line of a caption, points below axes."""
        return pad + (line * LINE + BASELINE) * self.font.size

    def _whole_caption(self, axes: Axes, pad: float) -> None:
        """Name of the image, what it is and how large."""
        grid = self.text.grid
        room = (grid.whole[0] if grid.kind == "left" else grid.width) * 72
        for line, text in enumerate(self.text.whole_caption):
            self._squeeze(axes, text, self._baseline(line, pad), self.font, room)

    def _caption(self, axes: Axes, caption: Caption) -> None:
        fits = self.font.width(caption.name) * LEAST_SHRUNK <= self.room
        name = caption.name if fits else caption.short
        self._squeeze(axes, name, self._baseline(0), self.font, self.room)
        if caption.bar:
            self._colour_bar(axes, caption)
        elif caption.stacked:
            for line, number in enumerate(caption.numbers):
                self._write(axes, number.text, self._baseline(line + 1), number=number)
        elif caption.numbers:  # the slash in the middle, so that they line up
            away, below = self.font.width(SLASH) / 2, self._baseline(1)
            self._write(axes, "/", below)
            for number, right, align in zip(
                caption.numbers, (-away, away), ("right", "left"), strict=True
            ):
                self._write(axes, number.text, below, 0.5, right, align, number=number)

    def _colour_bar(self, axes: Axes, caption: Caption) -> None:
        """The colours of the difference, their limits and the unit."""
        if self.content.diverging is None or caption.bar is None:
            return
        low, unit, high = caption.bar
        small, dpi, side = self.small, self.grid.dpi / 72, self.grid.side
        height = max(1, round(BAR * dpi))
        bottom = round((PAD + LINE * self.font.size + 1) * dpi) + height
        bar = axes.inset_axes((0, -bottom / side, 1, height / side))
        bar.set_axis_off()
        colours = self.content.diverging.bar()
        bar.imshow(colours, aspect="auto", extent=(0, 1, 0, 1), interpolation="none")
        self._frame(bar, "black", 0.4)
        line = 0.5 + BASELINE * small.size
        self._write(bar, low, line, 0, 0, "left", small)
        self._write(bar, high, line, 1, 0, "right", small)
        room = self.room - 2 * small.width(f"{high} ")
        if caption.stacked:
            room, line = self.room, line + LINE * small.size
        self._squeeze(bar, unit, line, small, room)


def _underline(x: float, y: float, width: float, *_: float) -> Outline:
    """A box style of which only the bottom is drawn."""
    return Outline([(x, y), (x + width, y)])


def round_length(micrometres: float) -> tuple[float, str]:
    """The longest round length of a bar for an image this wide, in micrometres, and its label."""
    most = micrometres * BAR_SHARE
    power = 10.0 ** math.floor(math.log10(most))
    length = power * max(step for step in BAR_STEPS if step * power <= most * (1 + 1e-9))
    if length < 1:
        return length, f"{length * 1e3:g} nm"
    return (length, f"{length:g} µm") if length < 1e3 else (length, f"{length / 1e3:g} mm")
