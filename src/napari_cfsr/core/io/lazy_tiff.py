"""TIFF files that are read piece by piece: whole slides, stacks, pyramids."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from napari_cfsr.core.image import PixelSpace, pixel_space
from napari_cfsr.core.io.image_types import LazyImage
from napari_cfsr.core.io.tiff import CENTIMETRE, PALETTE, read_tiff

Array = NDArray[Any]

APERIO = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")  # micrometres per pixel of a whole slide


class TiffPixels:
    """Pixels of a level of the first image of a TIFF, read when they are indexed.

    Pickled as its path. Uncompressed files are mapped for each read and unmapped again, so that
    memory does not fill up with pages of a file that was read once. In compressed files, a read
    decodes the tiles or strips it touches.
    """

    def __init__(self, path: Path, level: int = 0) -> None:
        self.path, self.level = path, level
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0].levels[level]
            self.shape: tuple[int, ...] = tuple(int(n) for n in series.shape)
            self.dtype: np.dtype[Any] = np.dtype(series.dtype)
            page = series.keyframe
            # where the pixels are stored one after the other, unencoded
            plain = page.is_contiguous and page.bitspersample == self.dtype.itemsize * 8
            self._offset = series.dataoffset if plain else None
            if self._offset is None:
                store = series.aszarr(level=0)
                self._tiles: Any = zarr.open_array(store, mode="r")
                weakref.finalize(self, store.close)
            else:
                self.dtype = self.dtype.newbyteorder(tif.byteorder)

    def __getitem__(self, key: Any, /) -> Any:
        if self._offset is None:
            return self._tiles[key]
        mapped = np.memmap(self.path, self.dtype, "r", self._offset, self.shape)
        return np.array(mapped[key])

    def __reduce__(self) -> tuple[Any, ...]:
        return TiffPixels, (self.path, self.level)

    def __repr__(self) -> str:
        return f"TiffPixels({str(self.path)!r}, {self.shape}, {self.dtype})"


def open_tiff(path: Path) -> LazyImage:
    """Open the first image of a TIFF; reads no pixels, except for palette images.

    Raises `FileFormatError` if it is neither gray nor RGB, and passes on errors of tifffile.
    """
    found: dict[str, Any] = {}

    def pixels_of(series: Any) -> Any:
        found["levels"] = len(series.levels)
        match = APERIO.search(series.keyframe.description)
        found["mpp"] = float(match[1]) if match else None
        photometric = series.keyframe.photometric
        return series.asarray() if photometric == PALETTE else TiffPixels(path)

    image = read_tiff(path, pixels_of)
    levels: list[Any] = [image.pixels]
    if isinstance(image.pixels, TiffPixels):
        levels += [TiffPixels(path, level) for level in range(1, found["levels"])]
        levels = [x for x in levels if len(x.shape) == len(image.axes)]
    space = _space(image.axes, image.tiff, found["mpp"])
    return LazyImage(image.pixels, image.axes, path, space, tuple(levels), None, image.notes)


def _space(axes: str, about: Mapping[str, Any], mpp: float | None) -> PixelSpace:
    """Pixel sizes, if the file states them in a unit of length or time."""
    sizes: dict[str, float] = {}
    units: dict[str, str] = {}
    if mpp:
        sizes, units = {"Y": mpp, "X": mpp}, {"Y": "µm", "X": "µm"}
    elif about["kind"] == "ome":
        _ome_sizes(about["ome"], sizes, units)
    elif about["kind"] == "imagej":
        _imagej_sizes(about, sizes, units)
    elif about["unit"] == CENTIMETRE and about["resolution"]:
        x, y = about["resolution"]
        sizes, units = {"Y": 1e4 / y, "X": 1e4 / x}, {"Y": "µm", "X": "µm"}
    return pixel_space(axes, sizes, None, units)


def _ome_sizes(ome: Mapping[str, Any], sizes: dict[str, float], units: dict[str, str]) -> None:
    words = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}
    for letter, word in words.items():
        with contextlib.suppress(KeyError, ValueError):
            sizes[letter] = float(ome[word])
            # the defaults of the OME schema
            units[letter] = str(ome.get(f"{word}Unit", "s" if letter == "T" else "µm"))


def _imagej_sizes(about: Mapping[str, Any], sizes: dict[str, float], units: dict[str, str]) -> None:
    facts = about["imagej"]
    unit = str(facts.get("unit", "")).encode().decode("unicode_escape", "replace")
    if about["resolution"] and unit:
        x, y = about["resolution"]
        sizes |= {"Y": 1 / y, "X": 1 / x}
        units |= {"Y": unit, "X": unit}
    with contextlib.suppress(KeyError, ValueError, TypeError):
        sizes["Z"] = float(facts["spacing"])
        units["Z"] = unit
    with contextlib.suppress(KeyError, ValueError, TypeError):
        sizes["T"] = float(facts["finterval"])
        units["T"] = "s"
