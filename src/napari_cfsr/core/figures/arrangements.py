"""Ways to arrange a figure, and which of them wastes least paper.

The width is given, the rest follows: crops are squares of one size, the whole image keeps its
shape, and edges line up. All lengths are inches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from napari_cfsr.core.figures.options import Arrangement

GAP = 0.05  # between crops
WIDE_GAP = 0.09  # between the whole image and the crops
FRAME = 1.0 / 72  # around crops; a whole image beside them ends where it does
TALLEST = 0.6  # of the width: a whole image that stands above the crops
SMALLEST = 0.15  # a crop
NARROWEST = 0.9  # a crop that is pleasant to look at
LEAST_SHARE = 0.15  # of the paper that the whole image takes
LEAST_WHOLE = 0.5  # shorter side of the whole image
TALL = 0.55  # of the width: beyond, a figure begins to be in the way


@dataclass(frozen=True)
class Sizes:
    """What has to be arranged.

    Attributes
    ----------
    aspect : float
        Width of the whole image / its height.
    sides : tuple of int
        Side of each crop, HR pixels.
    captions : tuple of float
        Height below each panel, inches.
    whole_caption : float
        Height below the whole image, inches.
    note : float
        Height of the small print, inches.
    """

    aspect: float
    sides: tuple[int, ...]
    captions: tuple[float, ...]
    whole_caption: float
    note: float


@dataclass(frozen=True)
class Plan:
    """One way to arrange it: kind, rows and columns of crops, and side of a crop in inches."""

    kind: Arrangement
    rows: int
    columns: int
    cell: float


def plans(sizes: Sizes, kind: Arrangement, width: float) -> Iterator[Plan]:
    """Plans of a kind; of several crops, each has a row of its own."""
    panels, crops = len(sizes.captions), len(sizes.sides)
    if kind == "columns":
        yield Plan("columns", crops, panels, (width - (panels - 1) * GAP) / panels)
        return
    for rows in range(1, panels + 1) if crops == 1 else (crops,):
        columns = -(-panels // rows) if crops == 1 else panels
        if crops == 1 and -(-panels // columns) < rows:
            continue  # the last row would be empty
        room = width - (columns - 1) * GAP
        if kind in ("auto", "left"):
            empty = Plan("left", rows, columns, 0.0)
            free = room - WIDE_GAP - sizes.aspect * (_crops_height(empty, sizes) + 2 * FRAME)
            yield replace(empty, cell=free / (sizes.aspect * rows + columns))
        if kind in ("auto", "above"):
            yield Plan("above", rows, columns, room / columns)


def badness(plan: Plan, sizes: Sizes, width: float) -> float:
    """Share of paper that shows nothing, and how far it is from a pleasant shape."""
    if plan.cell < SMALLEST:
        return math.inf
    whole_width, whole_height = whole_size(plan, sizes, width)
    height = _crops_height(plan, sizes) + row_captions(plan, sizes)[-1]
    blank = (plan.rows * plan.columns - len(sizes.captions) * len(sizes.sides)) * plan.cell**2
    if plan.kind == "above":
        height += whole_height + sizes.whole_caption + WIDE_GAP
        blank += (width - whole_width) * whole_height
    share = whole_width * whole_height / (width * height)
    return (
        2 * blank / (width * height)
        + max(0.0, NARROWEST - plan.cell)
        + max(0.0, LEAST_SHARE - share)
        + max(0.0, LEAST_WHOLE - min(whole_width, whole_height))
        + max(0.0, height / width - TALL)
    )


def whole_size(plan: Plan, sizes: Sizes, width: float) -> tuple[float, float]:
    """Width and height of the whole image, inches."""
    if plan.kind == "left":
        height = _crops_height(plan, sizes) + 2 * FRAME
    else:
        most = plan.cell if plan.kind == "columns" else width
        height = min(most / sizes.aspect, TALLEST * width)
    return height * sizes.aspect, height


def row_captions(plan: Plan, sizes: Sizes) -> list[float]:
    """Height below each row of crops; of several crops, only the last has captions."""
    below = [0.0] * plan.rows
    if len(sizes.sides) > 1:
        below[-1] = max(sizes.captions)
    else:
        starts = range(0, plan.rows * plan.columns, plan.columns)
        below = [max(sizes.captions[i : i + plan.columns], default=0.0) for i in starts]
    if plan.kind == "left":  # the caption of the whole image stands beside it
        below[-1] = max(below[-1], sizes.whole_caption)
    return below


def _crops_height(plan: Plan, sizes: Sizes) -> float:
    """From the top of the first row of crops to the bottom of the last."""
    between = sum(row_captions(plan, sizes)[:-1]) + (plan.rows - 1) * GAP
    return plan.rows * plan.cell + between
