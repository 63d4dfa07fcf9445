"""Tiles: which pixels to read, which of the result to keep, and where they go.

A tile is read with a halo around it, so that what is kept has seen its surroundings. The halo ends
at the border of the image: the network pads with zeros there, and did so when it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_cfsr.errors import OptionError

ALIGN = 16  # tiles start and end at multiples of it; FACTS: needed for bit-equal results


@dataclass(frozen=True)
class Tile:
    """One tile, in LR pixels.

    Attributes
    ----------
    read : (slice, slice)
        Rows and columns to read from the image, halo included.
    crop : (slice, slice)
        The part of what was read that is kept.
    write : (slice, slice)
        Where that part goes in the image.
    """

    read: tuple[slice, slice]
    crop: tuple[slice, slice]
    write: tuple[slice, slice]

    @property
    def read_shape(self) -> tuple[int, int]:
        return _length(self.read[0]), _length(self.read[1])

    @property
    def pixels(self) -> int:
        """LR pixels that are kept."""
        return _length(self.write[0]) * _length(self.write[1])


def _length(s: slice) -> int:
    return int(s.stop - s.start)


def scaled(where: tuple[slice, slice], scale: int) -> tuple[slice, slice]:
    """The same region in an image `scale` times larger."""
    y, x = where
    return (
        slice(y.start * scale, y.stop * scale),
        slice(x.start * scale, x.stop * scale),
    )


def tile_grid(
    height: int,
    width: int,
    tile: int,
    halo: int,
    within: tuple[slice, slice] | None = None,
) -> list[Tile]:
    """Cut a plane into tiles of about equal size, row by row.

    Parameters
    ----------
    height, width : int
        Size of the plane, LR pixels.
    tile : int
        Greatest side of what a tile writes, LR pixels.
    halo : int
        Pixels read around it, less at the border of the plane.
    within : (slice, slice), optional
        Cut only this part of the plane.

    Raises
    ------
    OptionError
        `tile` is not positive or `halo` is negative.
    """
    if tile < 1 or halo < 0:
        raise OptionError(f"expected tile >= 1 and halo >= 0, got tile={tile}, halo={halo}")
    ys, xs = within or (slice(0, height), slice(0, width))
    return [
        tile_at(y, x, height, width, halo)
        for y in cuts(ys.start, ys.stop, tile)
        for x in cuts(xs.start, xs.stop, tile)
    ]


def cuts(start: int, stop: int, tile: int) -> list[slice]:
    """Cut [start, stop) into the fewest parts, alike in length, ending at multiples of ALIGN."""
    length = stop - start
    if length <= 0:
        return []
    parts = -(-length // tile)
    step = -(-length // parts)
    if tile >= ALIGN:
        step = min(-(-step // ALIGN) * ALIGN, tile)
    return [slice(a, min(a + step, stop)) for a in range(start, stop, step)]


def tile_at(y: slice, x: slice, height: int, width: int, halo: int) -> Tile:
    """The tile that writes these rows and columns of a plane of `height` and `width`."""
    read = (
        slice(max(y.start - halo, 0), min(y.stop + halo, height)),
        slice(max(x.start - halo, 0), min(x.stop + halo, width)),
    )
    crop = (
        slice(y.start - read[0].start, y.stop - read[0].start),
        slice(x.start - read[1].start, x.stop - read[1].start),
    )
    return Tile(read, crop, (y, x))
