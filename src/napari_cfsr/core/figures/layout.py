"""Where the panels of a figure go: rows and columns that waste little paper, in whole pixels.

The width is given, the rest follows: crops are squares of one size, the whole image keeps its
shape, and edges line up. Matplotlib's constrained layout can't promise that: it solves for
fractions of a figure of known height, and rounds no panel to pixels. Lengths are inches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.transforms import Bbox

from napari_cfsr.core.figures.content import Content
from napari_cfsr.core.figures.options import ArrangementName
from napari_cfsr.core.figures.text import (
    LINE,
    PAD,
    Caption,
    Font,
    captions,
    small_print,
    stacked,
    whole_caption,
)
from napari_cfsr.errors import OptionError

MARGIN = 0.03
GAP = 0.05  # between crops
WIDE_GAP = 0.09  # between the whole image and the crops
FRAME = 1.0 / 72  # around crops; a whole image beside them ends where it does
TALLEST = 0.6  # of the width: a whole image above the crops
SMALLEST = 0.15  # a crop
NARROWEST = 0.9  # a crop that is pleasant to look at
LEAST_SHARE = 0.15  # of the paper that the whole image takes
LEAST_WHOLE = 0.5  # shorter side of the whole image
TALL = 0.55  # of the width: taller figures are penalised
NARROWEST_CAPTION = 36 / 72  # narrower whole images have their caption in the small print
LARGEST_SNAP = 2.0  # times the dpi asked for; beyond, pixels of crops need not be whole


class Sizes(NamedTuple):
    """What has to be arranged."""

    aspect: float  # width of the whole image / its height
    sides: tuple[int, ...]  # of the crops, HR pixels
    captions: tuple[float, ...]  # heights below the panels
    whole_caption: float  # height below the whole image
    note: float  # height of the small print


@dataclass(frozen=True)
class Grid:
    """One way to arrange them: rows and columns of crops within a width without margins."""

    kind: ArrangementName
    rows: int
    columns: int
    sizes: Sizes
    width: float

    def cell(self, crop: int, panel: int) -> tuple[int, int]:
        """Row and column; of several crops, each has a row of its own."""
        single = len(self.sizes.sides) == 1
        return divmod(panel, self.columns) if single else (crop, panel)

    @cached_property
    def below(self) -> list[float]:
        """Height of the captions below each row; of several crops, only the last has captions."""
        heights = [0.0] * self.rows
        for panel, height in enumerate(self.sizes.captions):
            row, _ = self.cell(len(self.sizes.sides) - 1, panel)
            heights[row] = max(heights[row], height)
        if self.kind == "left":  # the caption of the whole image is beside them
            heights[-1] = max(heights[-1], self.sizes.whole_caption)
        return heights

    @cached_property
    def side(self) -> float:
        """Of a crop."""
        room = self.width - (self.columns - 1) * GAP
        if self.kind != "left":
            return room / self.columns
        aspect = self.sizes.aspect
        free = room - WIDE_GAP - aspect * (self._between + 2 * FRAME)
        return free / (aspect * self.rows + self.columns)

    @property
    def _between(self) -> float:
        return sum(self.below[:-1]) + (self.rows - 1) * GAP

    @cached_property
    def whole(self) -> tuple[float, float]:
        """Width and height of the whole image."""
        if self.kind == "left":
            height = self.rows * self.side + self._between + 2 * FRAME
        else:
            most = self.side + 2 * FRAME if self.kind == "columns" else self.width
            height = min(most / self.sizes.aspect, TALLEST * self.width)
        return height * self.sizes.aspect, height

    @property
    def badness(self) -> float:
        """Share of paper that shows nothing, and how far it is from a pleasant shape."""
        side, (width, height) = self.side, self.whole
        if side < SMALLEST:
            return math.inf
        total = self.rows * side + self._between + self.below[-1]
        crops = len(self.sizes.captions) * len(self.sizes.sides)
        blank = (self.rows * self.columns - crops) * side**2
        if self.kind == "above":
            total += height + self.sizes.whole_caption + WIDE_GAP
            blank += (self.width - width) * height
        paper = self.width * total
        return (
            2 * blank / paper
            + max(0.0, NARROWEST - side)
            + max(0.0, LEAST_SHARE - width * height / paper)
            + max(0.0, LEAST_WHOLE - min(width, height))
            + max(0.0, total / self.width - TALL)
        )


def best_grid(sizes: Sizes, name: ArrangementName, width: float) -> Grid:
    """The best grid for a figure `width` inches wide.

    Raises
    ------
    OptionError
        There is no room for crops that can be seen.
    """
    grid = min(_grids(sizes, name, width - 2 * MARGIN), key=lambda grid: grid.badness)
    if grid.side < SMALLEST:
        raise OptionError(
            f"expected room for {len(sizes.captions)} panels in a figure {width:g} inches wide: "
            "make it wider, choose another arrangement, or fewer panels or crops"
        )
    return grid


def _grids(sizes: Sizes, name: ArrangementName, width: float) -> Iterator[Grid]:
    panels, crops = len(sizes.captions), len(sizes.sides)
    kinds: tuple[ArrangementName, ...] = ("left", "above") if name == "auto" else (name,)
    for rows in range(1, panels + 1) if crops == 1 and name != "columns" else (crops,):
        columns = -(-panels * crops // rows)
        if -(-panels * crops // columns) == rows:  # else the last row would be empty
            yield from (Grid(kind, rows, columns, sizes, width) for kind in kinds)


class Arrangement(NamedTuple):
    """A grid, and the text that it has room for."""

    grid: Grid
    font: Font
    captions: list[Caption]  # of the panels
    whole_caption: list[str]  # lines below the whole image; none where it is too narrow for them
    note: list[str]  # lines of the small print


def arrange(content: Content) -> Arrangement:
    """Arrange a figure; raises `OptionError` if there is no room."""
    note = small_print(content) if content.options.small_print else ""
    whole = whole_caption(content)
    result = _arrange(content, whole, note)
    if result.grid.kind == "left" and result.grid.whole[0] < NARROWEST_CAPTION:
        return _arrange(content, [], f"{', '.join(whole)}. {note}" if note else "")
    return result


def _arrange(content: Content, whole: list[str], note: str) -> Arrangement:
    """Text that is too wide for one line takes two, which makes the crops smaller."""
    options = content.options
    font, below = Font(options.font, options.font_size), captions(content)
    lines = font.smaller().lines(note, options.width * 72 - 5)
    height, width = content.comparison.shape[:2]
    while True:
        sizes = Sizes(
            aspect=width / height,
            sides=tuple(crop.side for crop in content.crops),
            captions=tuple(caption.height(font) / 72 for caption in below),
            whole_caption=(PAD + 2 * LINE * font.size) / 72,
            note=len(lines) * LINE * font.smaller().size / 72,
        )
        grid = best_grid(sizes, options.arrangement, options.width)
        before, below = below, stacked(below, font, grid.side * 72)
        if before == below:
            return Arrangement(grid, font, below, whole, lines)


class PixelGrid:
    """A figure of a grid, its panels on whole pixels.

    Pixels per inch, at least `dpi`, are chosen so that each pixel of the first crop is a square of
    whole pixels.
    """

    def __init__(self, grid: Grid, dpi: int) -> None:
        self.grid = grid
        wanted, first = grid.side * dpi, grid.sizes.sides[0]
        self.side = first * max(1, math.ceil(wanted / first - 0.01))  # of a crop, pixels
        if self.side > LARGEST_SNAP * wanted:
            self.side = max(1, round(wanted))
        self.dpi = self.side / grid.side
        gap, margin, note = (self.px(n) for n in (GAP, MARGIN, grid.sizes.note))
        before, above = self._whole_cells(gap)
        widths = [margin, *before, self.side, *[gap, self.side] * (grid.columns - 1), margin]
        heights = [margin, *above]
        for below in grid.below:
            heights += [self.side, self.px(below) + gap]
        self._first = len(above) + 1, len(before) + 1
        self.note_top = note + margin  # of the small print, pixels from the bottom
        if note:
            heights.append(note + margin)
        else:
            heights[-1] += margin - gap
        # a trifle more, so that rounding down to whole pixels gives these
        self.width, self.height = sum(widths), sum(heights)
        size = ((self.width + 1e-3) / self.dpi, (self.height + 1e-3) / self.dpi)
        self.figure = Figure(figsize=size, dpi=self.dpi, facecolor="white")
        self._spec = self.figure.add_gridspec(
            len(heights), len(widths),
            width_ratios=[*widths[:-1], widths[-1] + 1e-3],
            height_ratios=[heights[0] + 1e-3, *heights[1:]],
            left=0, right=1, bottom=0, top=1, wspace=0, hspace=0,
        )  # fmt: skip

    def px(self, inches: float) -> int:
        return round(inches * self.dpi)

    def _whole_cells(self, gap: int) -> tuple[list[int], list[int]]:
        """Columns left of the crops, and rows above them."""
        grid = self.grid
        width, height = (max(1, self.px(n)) for n in grid.whole)
        if grid.kind == "left":
            return [width, self.px(WIDE_GAP)], []
        if grid.kind == "above":
            return [], [height, self.px(grid.sizes.whole_caption) + self.px(WIDE_GAP)]
        return [], [height, gap]

    def crop(self, crop: int, panel: int) -> Bbox:
        """Where a crop of a panel goes, fractions of the figure."""
        (row, column), (top, left) = self.grid.cell(crop, panel), self._first
        return self._box(self._spec[top + 2 * row, left + 2 * column])

    def whole(self, panel: int) -> Bbox:
        """Where the whole image goes, or that of a panel: flush with the frames of crops."""
        top, left = self._first
        frame = self.px(FRAME)
        if self.grid.kind == "left":
            rows = self._spec[top : top + 2 * self.grid.rows - 1, 1]
            return self._box(rows).padded(0, frame / (self.height + 1e-3))
        if self.grid.kind == "above":
            return self._box(self._spec[1, 1:-1])
        column = self._box(self._spec[1, left + 2 * panel])
        return column.padded(frame / (self.width + 1e-3), 0)

    def _box(self, spec: SubplotSpec) -> Bbox:
        # a trifle less: matplotlib before 3.11 rounds the pixels of an image up
        return spec.get_position(self.figure).padded(-1e-4 / self.width, -1e-4 / self.height)
