"""The refiner in bands of rows: at output resolution its 32 channels are large."""

from __future__ import annotations

from collections.abc import Iterator

Crop = tuple[slice, slice]  # rows and columns
BAND = 2**18  # pixels of a band: its 32 channels stay in the cache


def refiner_bands(
    crop: Crop, shape: tuple[int, ...], scale: int, field: int
) -> Iterator[tuple[Crop, Crop, slice]]:
    """Bands of rows that the refiner runs on, one after the other.

    `crop` is the part of the input that is kept, LR pixels; `shape` that of the image the refiner
    runs on, [..., height, width]; `field` what it sees to each side. Yields what to read, what to
    keep of the result, and its rows in the part that is kept, in output pixels.
    """
    (top, bottom), (left, right) = ((s.start * scale, s.stop * scale) for s in crop)
    read_x, keep_x = _with_field(left, right, shape[-1], field)
    rows = max(16, BAND // max(right - left, 1))
    for start in range(top, bottom, rows):
        stop = min(start + rows, bottom)
        read_y, keep_y = _with_field(start, stop, shape[-2], field)
        yield (read_y, read_x), (keep_y, keep_x), slice(start - top, stop - top)


def _with_field(start: int, stop: int, size: int, field: int) -> tuple[slice, slice]:
    """What to read for [start, stop) of an axis, and what to keep of it."""
    read = slice(max(start - field, 0), min(stop + field, size))
    return read, slice(start - read.start, stop - read.start)
