"""A sheet of paper in pixels: images, frames, text and bars on a matplotlib figure.

Nothing of matplotlib's global state is used; the settings that it keeps in `rcParams` only hold
inside `settings()`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from napari_cfsr.core.figures.layout import Box
from napari_cfsr.core.figures.text import BASELINE, LINE, Font

Pixels = NDArray[np.uint8]
Align = Literal["left", "center", "right"]

LARGEST_EMBEDDED = 4096  # pixels; the side of a whole image in PDF and SVG
LARGEST_REPEATED = 1200  # pixels; the side of a crop in PDF and SVG


@contextmanager
def settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's own settings; text in PDF and SVG stays text."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "pdf.fonttype": 42,  # TrueType, which publishers ask for
                "svg.fonttype": "none",
                "text.hinting": "none",  # else PNG has wider or narrower text than was measured
                "svg.hashsalt": "napari-cfsr",  # the same file for the same figure
                "image.composite_image": False,  # every image embedded as it is
            }
        )
        # of names in a script that the font lacks: boxes stand for those letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


class Canvas:
    """A figure of `width` x `height` pixels; y runs downwards.

    Parameters
    ----------
    width, height : int
    dpi : float
    font : Font
    raster : bool
        Whether it becomes a PNG: then images are resized to the pixels they get. Else they are
        embedded with their own pixels.
    """

    def __init__(self, width: int, height: int, dpi: float, font: Font, raster: bool) -> None:
        self.dpi, self.font, self.raster = dpi, font, raster
        # a trifle more, so that rounding down to whole pixels gives these
        size = ((width + 1e-3) / dpi, (height + 1e-3) / dpi)
        self.figure = Figure(figsize=size, dpi=dpi, facecolor="white")
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set(xlim=(0, width), ylim=(height, 0))

    def points(self, points: float) -> float:
        """Points as pixels."""
        return points * self.dpi / 72

    def whole(self, box: Box, pixels: Pixels) -> None:
        """An image that is to be recognised: reduced where it has more pixels than shown."""
        if self.raster:
            pixels = _resized(pixels, box)
        else:
            share = LARGEST_EMBEDDED / max(pixels.shape[:2])
            height, width = (max(1, round(n * share)) for n in pixels.shape[:2])
            pixels = pixels if share >= 1 else _resized(pixels, Box(0, 0, width, height))
        self._image(box, pixels)

    def magnified(self, box: Box, pixels: Pixels) -> None:
        """An image of which every pixel is to be seen as a square.

        In PDF and SVG too, pixels are repeated: some viewers smooth what they magnify.
        """
        side = box.width if self.raster else min(box.width, LARGEST_REPEATED)
        times = max(1, side // pixels.shape[1])
        large = pixels.repeat(times, axis=0).repeat(times, axis=1)
        fits = large.shape[:2] == (box.height, box.width)
        self._image(box, large if fits or not self.raster else _resized(pixels, box))

    def ramp(self, box: Box, row: Pixels) -> None:
        """A row of colours, spread over a box with a thin frame."""
        self._image(box, row)
        self.frame(box, "black", 0.4)

    def _image(self, box: Box, pixels: Pixels) -> None:
        extent = (box.left, box.right, box.bottom, box.top)
        image = AxesImage(self._axes, extent=extent, interpolation="none", clip_on=False)
        image.set_data(pixels)
        self._axes.add_image(image)

    def frame(self, box: Box, colour: str, thickness: float) -> None:
        """A line around a box, outside of it; points, rounded to whole pixels."""
        line = max(1, round(self.points(thickness)))
        corner = (box.left - line / 2, box.top - line / 2)
        patch = Rectangle(corner, box.width + line, box.height + line, fill=False, snap=False)
        patch.set(edgecolor=colour, linewidth=line * 72 / self.dpi, joinstyle="miter")
        patch.set(clip_on=False, zorder=3)
        self._axes.add_patch(patch)

    def mark(self, box: Box, colour: str, within: Box) -> None:
        """A frame that shows on any image: a line of colour with a dark edge on both sides.

        It stands around the box, but not outside of the image that it lies within.
        """
        dark, bright = (2.2, 1.2) if min(box.width, box.height) > self.points(24) else (1.6, 0.9)
        box = _inside(box, within, math.ceil(self.points(dark)))
        for shade, thickness in (("black", dark), (colour, bright)):
            self.frame(_grown(box, (dark - thickness) / 2, self.points), shade, thickness)

    def filled(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        color: str = "white",
        alpha: float = 1.0,
    ) -> None:
        patch = Rectangle((left, top), width, height, facecolor=color, alpha=alpha)
        patch.set(linewidth=0, clip_on=False, zorder=4)
        self._axes.add_patch(patch)

    def text(
        self,
        x: float,
        baseline: float,
        text: str,
        align: Align = "center",
        bold: bool = False,
        colour: str = "black",
        font: Font | None = None,
    ) -> None:
        """One line of text, never read as mathematics."""
        self._axes.text(
            x,
            baseline,
            text,
            ha=align,
            va="baseline",
            color=colour,
            fontproperties=(font or self.font).properties(bold),
            parse_math=False,
            zorder=5,
        )

    def scale_bar(self, box: Box, length: float, label: str) -> None:
        """A white bar on a dark ground at the bottom right of a box, if the box has room for it."""
        small, gap = self.font.smaller(), self.points(2)
        line, wide = self.points(LINE * small.size), self.points(small.width(label))
        width, height = max(length, wide) + 2 * gap, line + self.points(1.5) + gap
        if width > box.width / 2 or height > box.height / 2:
            return
        left, top = box.right - width, box.bottom - height
        self.filled(left, top, width, height, color="black", alpha=0.6)
        middle = left + width / 2
        bottom = box.bottom - gap
        self.filled(middle - length / 2, bottom - self.points(1.5), length, self.points(1.5))
        baseline = top + self.points(BASELINE * small.size)
        self.text(middle, baseline, label, colour="white", font=small)

    def underline(self, left: float, right: float, baseline: float) -> None:
        y = baseline + self.points(0.2 * self.font.size)
        self._axes.add_line(
            Line2D([left, right], [y, y], color="black", linewidth=0.09 * self.font.size, zorder=5)
        )


def _grown(box: Box, points: float, pixels: Any) -> Box:
    by = round(pixels(points))
    return Box(box.left - by, box.top - by, box.width + 2 * by, box.height + 2 * by)


def _inside(box: Box, within: Box, by: int) -> Box:
    """What lies at least `by` pixels inside of another box."""
    left, top = max(box.left, within.left + by), max(box.top, within.top + by)
    right, bottom = min(box.right, within.right - by), min(box.bottom, within.bottom - by)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _resized(pixels: Pixels, box: Box) -> Pixels:
    """An image with the pixels of a box; where it has fewer, they stay squares of one size."""
    for axis, length in ((0, box.height), (1, box.width)):
        pixels = pixels.repeat(-(-length // pixels.shape[axis]), axis=axis)
    if pixels.shape[:2] == (box.height, box.width):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((box.width, box.height), Image.Resampling.HAMMING))
