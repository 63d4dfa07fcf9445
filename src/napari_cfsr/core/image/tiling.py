"""Tiles: which pixels to read, which part of the result to keep, and where to write it.

A tile is read with a halo, so that its result depends on the surroundings as in the whole image.
The halo ends at the border of the image, where the network pads with zeros, as in training. All
tiles of a plane read regions of one size, and those at the border more of the interior, because
engines compile the network for each size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napari_cfsr.core.network import REFINER_STRIDE
from napari_cfsr.errors import OptionError

ALIGN = 16  # tiles start and end at multiples of it, which bit-identical results require


@dataclass(frozen=True)
class Tile:
    """A tile, in LR pixels."""

    read: tuple[slice, slice]  # rows and columns to read from the image, including the halo
    crop: tuple[slice, slice]  # part of the read region that is kept
    write: tuple[slice, slice]  # position of that part in the image

    @property
    def read_shape(self) -> tuple[int, int]:
        return _length(self.read[0]), _length(self.read[1])

    def alike(self, other: Tile) -> bool:
        """Whether shape and crop are the same, and the place on the grid of a large refiner."""
        places = zip(self.read, other.read, strict=True)
        aligned = all((a.start - b.start) % REFINER_STRIDE == 0 for a, b in places)
        return aligned and (self.read_shape, self.crop) == (other.read_shape, other.crop)

    @property
    def pixels(self) -> int:
        """LR pixels that are kept."""
        return _length(self.write[0]) * _length(self.write[1])

    def strips(self, pixels: int) -> Iterator[Tile]:
        """The tile in strips of rows, from top to bottom, each of about so many LR pixels."""
        step = max(1, pixels // max(1, _length(self.write[1])))
        for start in range(0, _length(self.write[0]), step):
            stop = min(start + step, _length(self.write[0]))
            crop, write = (
                (slice(ys.start + start, ys.start + stop), xs) for ys, xs in (self.crop, self.write)
            )
            yield Tile(self.read, crop, write)


def _length(s: slice) -> int:
    return int(s.stop - s.start)


def scaled(where: tuple[slice, slice], scale: int) -> tuple[slice, slice]:
    """The same region in an image `scale` times larger."""
    y, x = where
    return (slice(y.start * scale, y.stop * scale), slice(x.start * scale, x.stop * scale))


def tile_grid(
    height: int, width: int, tile: int, halo: int, within: tuple[slice, slice] | None = None
) -> list[Tile]:
    """Cut a plane into tiles of about equal size, row by row.

    Each writes at most `tile` LR pixels a side and reads at least `halo` more around them, fewer at
    the border of the plane. `within` is the part of the plane to cut, by default all of it.
    """
    if tile < 1 or halo < 0:
        raise OptionError(f"expected tile >= 1 and halo >= 0, got tile={tile}, halo={halo}")
    ys, xs = within or (slice(0, height), slice(0, width))
    rows = reads(cuts(ys.start, ys.stop, tile), height, halo)
    columns = reads(cuts(xs.start, xs.stop, tile), width, halo)
    return tiles_of(rows, columns)


def cuts(start: int, stop: int, tile: int) -> list[slice]:
    """Cut [start, stop) into the fewest parts of similar length, aligned to multiples of ALIGN."""
    length = stop - start
    if length <= 0:
        return []
    parts = -(-length // tile)
    step = -(-length // parts)
    if tile >= ALIGN:
        step = min(-(-step // ALIGN) * ALIGN, tile)
    return [slice(a, min(a + step, stop)) for a in range(start, stop, step)]


def reads(parts: list[slice], length: int, halo: int) -> list[tuple[slice, slice]]:
    """What to read for each part of an axis: regions of the same length, each with its part.

    At least `halo` pixels are read on both sides of a part, fewer at the ends of the axis. Nothing
    is read beyond the halo of all parts together.
    """
    if not parts:
        return []
    low, high = max(parts[0].start - halo, 0), min(parts[-1].stop + halo, length)
    side = max(min(p.stop + halo, high) - max(p.start - halo, low) for p in parts)
    starts = (max(min(p.start - halo, high - side), low) for p in parts)
    return [(slice(start, start + side), p) for start, p in zip(starts, parts, strict=True)]


def tiles_of(rows: list[tuple[slice, slice]], columns: list[tuple[slice, slice]]) -> list[Tile]:
    """The tiles of all rows and columns, from `reads`; row by row."""
    return [
        Tile((read_y, read_x), (_within(y, read_y), _within(x, read_x)), (y, x))
        for read_y, y in rows
        for read_x, x in columns
    ]


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
