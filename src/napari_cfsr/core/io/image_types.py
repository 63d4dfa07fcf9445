"""What an image on disk is: read completely from a file, or piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_cfsr.core.image import ArrayLike, PixelSpace


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as read from a file.

    Attributes
    ----------
    pixels : array
    axes : str
        A letter for each dimension; colour samples are `S`.
    path : Path
    exif, icc : bytes or None
    dpi : (float, float) or None
        Pixels per inch in X and Y.
    tiff : dict
        What `write_image` needs to write a TIFF of the same kind.
    notes : tuple of str
        What was not read.
    """

    pixels: NDArray[Any]
    axes: str
    path: Path
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    tiff: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image in a file or store; its pixels are read when they are indexed.

    Attributes
    ----------
    pixels : array
        Full resolution; has a shape, a dtype and indexing, as `upscale` takes it.
    axes : str
        A letter for each dimension; colour samples are `S`.
    path : Path
    space : PixelSpace
        Sizes, origin and units.
    levels : tuple of array
        The pyramid, full resolution first; only that if there is no pyramid.
    omero : dict or None
        How OME-Zarr names and shows the channels.
    notes : tuple of str
        What was not read.
    """

    pixels: ArrayLike
    axes: str
    path: Path
    space: PixelSpace
    levels: tuple[ArrayLike, ...]
    omero: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
