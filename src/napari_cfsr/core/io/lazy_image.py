"""An image on disk that is read piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cfsr.core.image import ArrayLike, PixelSpace


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
