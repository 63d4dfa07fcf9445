"""The refiner in bands of rows: at output resolution its 32 channels are large."""

from __future__ import annotations

Crop = tuple[slice, slice]  # rows and columns, LR pixels
BAND = 2**18  # pixels of a band: its 32 channels stay in the cache


def refiner_bands(
    crop: Crop, shape: tuple[int, ...], scale: int, field: int
) -> list[tuple[slice, slice, slice]]:
    """Bands of rows that the refiner runs on, one after the other.

    Parameters
    ----------
    crop : (slice, slice)
        Part of the input that is kept, LR pixels.
    shape : tuple of int
        [..., height, width] of the image that the refiner runs on, output pixels.
    scale : int
    field : int
        The refiner's receptive field: pixels to each side.

    Returns
    -------
    list of (slice, slice, slice)
        Rows to read, output pixels; rows of what comes out that are kept; rows of the kept part
        that they are. Columns to read are those of `crop`, and `field` more where there are any.
    """
    top, bottom = crop[0].start * scale, crop[0].stop * scale
    width = (crop[1].stop - crop[1].start) * scale
    rows = max(16, BAND // max(width, 1))
    bands = []
    for start in range(top, bottom, rows):
        stop = min(start + rows, bottom)
        read = slice(max(start - field, 0), min(stop + field, shape[-2]))
        keep = slice(start - read.start, stop - read.start)
        bands.append((read, keep, slice(start - top, stop - top)))
    return bands


def refiner_columns(
    crop: Crop, shape: tuple[int, ...], scale: int, field: int
) -> tuple[slice, slice]:
    """Columns that the refiner reads for `crop`, output pixels, and which of them are kept."""
    left, right = crop[1].start * scale, crop[1].stop * scale
    read = slice(max(left - field, 0), min(right + field, shape[-1]))
    return read, slice(left - read.start, right - read.start)
