"""An image on disk that is read a part at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cfsr.core.image import ArrayLike, PixelSpace


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image as it lies in a file or store; its pixels are read when they are asked for.

    Attributes
    ----------
    pixels : array
        Full resolution: shape, dtype and indexing, as `upscale` and its like take it.
    axes : str
        A letter for each dimension; colour samples are `S`.
    path : Path
    space : PixelSpace
        Sizes, origin and units.
    levels : tuple of array
        The pyramid, full resolution first; only that where there is none.
    omero : dict or None
        How OME-Zarr names and shows the channels.
    notes : tuple of str
        What was left out.
    """

    pixels: ArrayLike
    axes: str
    path: Path
    space: PixelSpace
    levels: tuple[ArrayLike, ...]
    omero: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
