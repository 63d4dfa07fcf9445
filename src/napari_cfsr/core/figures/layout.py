"""Where everything of a figure stands: a plan in whole pixels of the PNG.

Pixels per inch are chosen so that each pixel of a crop becomes a square of whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from napari_cfsr.core.figures.arrangements import (
    FRAME,
    GAP,
    SMALLEST,
    WIDE_GAP,
    Plan,
    Sizes,
    badness,
    plans,
    row_captions,
    whole_size,
)
from napari_cfsr.core.figures.options import Arrangement
from napari_cfsr.errors import OptionError

MARGIN = 0.03  # inches
LARGEST_SNAP = 2.0  # times the pixels asked for; beyond, pixels of crops need not be whole


@dataclass(frozen=True)
class Box:
    """A rectangle, pixels from the top left corner of the figure."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


@dataclass(frozen=True)
class Layout:
    """Where everything stands, pixels.

    Attributes
    ----------
    width, height : int
        Of the figure.
    dpi : float
        Pixels per inch.
    wholes : tuple of Box
        One, or one for each panel.
    whole_caption : Box or None
    crops : tuple of tuple of Box
        For each crop, one for each panel.
    captions : tuple of Box
        One for each panel.
    note : Box
    """

    width: int
    height: int
    dpi: float
    wholes: tuple[Box, ...]
    whole_caption: Box | None
    crops: tuple[tuple[Box, ...], ...]
    captions: tuple[Box, ...]
    note: Box


def arrange(sizes: Sizes, kind: Arrangement, width: float, dpi: int) -> Layout:
    """The layout of a figure `width` inches wide, of the best plan of a kind.

    Raises
    ------
    OptionError
        There is no room for crops that can be seen.
    """
    inner = width - 2 * MARGIN
    plan = min(plans(sizes, kind, inner), key=lambda p: badness(p, sizes, inner))
    if plan.cell < SMALLEST:
        raise OptionError(
            f"expected room for {len(sizes.captions)} panels in a figure {width:g} inches wide: "
            "make it wider, choose another arrangement, or fewer panels or crops"
        )
    cell, resolution = _resolution(plan.cell, sizes.sides, dpi)
    return _Placing(plan, sizes, inner, cell, resolution).layout()


def _resolution(cell: float, sides: Sequence[int], dpi: int) -> tuple[int, float]:
    """Side of a crop in pixels, and pixels per inch, so that the first crop is enlarged evenly."""
    wanted = cell * dpi
    pixels = sides[0] * max(1, math.ceil(wanted / sides[0] - 0.01))
    if pixels > LARGEST_SNAP * wanted:
        pixels = max(1, round(wanted))
    return pixels, pixels / cell


# wholes, their caption, top left corner of the crops, and width of everything
_Placed = tuple[tuple[Box, ...], Box | None, tuple[int, int], int]


class _Placing:
    """A plan on its way into pixels."""

    def __init__(self, plan: Plan, sizes: Sizes, width: float, cell: int, dpi: float) -> None:
        self.plan, self.sizes, self.width, self.cell, self.dpi = plan, sizes, width, cell, dpi
        self.gap, self.frame, self.margin = (self.px(n) for n in (GAP, FRAME, MARGIN))
        self.below = [self.px(h) for h in row_captions(plan, sizes)]
        self.grid_width = plan.columns * cell + (plan.columns - 1) * self.gap
        self.grid_height = plan.rows * cell + sum(self.below) + (plan.rows - 1) * self.gap

    def px(self, inches: float) -> int:
        return round(inches * self.dpi)

    def layout(self) -> Layout:
        place = {"left": self._left, "above": self._above, "columns": self._columns}
        wholes, caption, corner, width = place[self.plan.kind]()
        crops = self._crops(*corner)
        below = [Box(b.left, b.bottom, b.width, self._caption(i)) for i, b in enumerate(crops[-1])]
        bottom = corner[1] + self.grid_height
        note = Box(self.margin, bottom + self.gap, width, self.px(self.sizes.note))
        height = (note.bottom if self.sizes.note else bottom) + self.margin
        return Layout(
            width + 2 * self.margin, height, self.dpi, wholes, caption, crops, tuple(below), note
        )

    def _left(self) -> _Placed:
        """The whole image as high as all rows of crops, frames included."""
        last = self.below[-1]
        height = self.grid_height - last + 2 * self.frame
        width = max(1, round(height * self.sizes.aspect))
        whole = Box(self.margin, self.margin - self.frame, width, height)
        caption = Box(self.margin, whole.bottom - self.frame, width, last)
        left = whole.right + self.px(WIDE_GAP)
        return (whole,), caption, (left, self.margin), left + self.grid_width - self.margin

    def _above(self) -> _Placed:
        """The whole image in the middle above the crops."""
        width, height = (max(1, self.px(n)) for n in whole_size(self.plan, self.sizes, self.width))
        full = max(self.grid_width, width)
        whole = Box(self.margin + (full - width) // 2, self.margin, width, height)
        caption = Box(self.margin, whole.bottom, full, self.px(self.sizes.whole_caption))
        left = self.margin + (full - self.grid_width) // 2
        return (whole,), caption, (left, caption.bottom + self.px(WIDE_GAP)), full

    def _columns(self) -> _Placed:
        """A whole image above each column, as wide as the framed crops or as high as may be."""
        height = max(1, self.px(whole_size(self.plan, self.sizes, self.width)[1]))
        step, framed = self.cell + self.gap, self.cell + 2 * self.frame
        width = min(framed, max(1, round(height * self.sizes.aspect) + 2 * self.frame))
        left = self.margin - self.frame + (framed - width) // 2
        columns = range(self.plan.columns)
        wholes = tuple(Box(left + i * step, self.margin, width, height) for i in columns)
        return wholes, None, (self.margin, wholes[0].bottom + self.gap), self.grid_width

    def _crops(self, left: int, top: int) -> tuple[tuple[Box, ...], ...]:
        """For each crop, one box for each panel."""
        tops = [top]
        for height in self.below:
            tops.append(tops[-1] + self.cell + height + self.gap)
        rows = []
        for crop in range(len(self.sizes.sides)):
            places = [self._place(crop, panel) for panel in range(len(self.sizes.captions))]
            rows.append(
                tuple(
                    Box(left + column * (self.cell + self.gap), tops[row], self.cell, self.cell)
                    for row, column in places
                )
            )
        return tuple(rows)

    def _place(self, crop: int, panel: int) -> tuple[int, int]:
        """Row and column."""
        return divmod(panel, self.plan.columns) if len(self.sizes.sides) == 1 else (crop, panel)

    def _caption(self, panel: int) -> int:
        """Height below a panel."""
        return self.below[self._place(len(self.sizes.sides) - 1, panel)[0]]
