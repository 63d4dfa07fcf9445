"""Pixels of one tile on their way to the network and back: what is missing, hidden or transparent.

Missing are NaN, infinity, and values so far outside the intensity limits that they would spoil
everything within the network's field (a hot pixel, a no-data value). They are filled from around
them before the network runs and come back as blocks of what they were. Colours that full
transparency hides are filled likewise. What is filled depends on the surroundings up to REACH only,
so it is the same in every tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from napari_cfsr.core.image.intensity import IntensityMapping
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.image.tiling import Tile, scaled

Array = NDArray[Any]
Float32 = NDArray[np.float32]

REACH = 16  # LR pixels; further from what is there, missing pixels are black
FURTHEST = 1e3  # times the intensity range; beyond it, a value counts as missing


@dataclass(frozen=True, eq=False)
class PreparedTile:
    """Pixels of one tile, its halo included.

    Attributes
    ----------
    colours : array [S,h,w]
        As in the image.
    alpha : array [h,w] or None
    unit : array [S,h,w] of float32
        For the network, missing and hidden pixels filled.
    missing : array [S,h,w] of bool, or None
        None if nothing is missing.
    """

    colours: Array
    alpha: Array | None
    unit: Float32
    missing: NDArray[np.bool_] | None

    def out_of_range(self, tile: Tile) -> bool:
        """Whether a pixel that the tile keeps is missing although it has a finite value."""
        if self.missing is None:
            return False
        return bool((self.missing & np.isfinite(self.colours))[:, *tile.crop].any())


def around(tile: Tile, height: int, width: int) -> tuple[slice, slice]:
    """What to read for a tile: REACH more than it reads itself, within the image."""
    ys, xs = tile.read
    return (
        slice(max(ys.start - REACH, 0), min(ys.stop + REACH, height)),
        slice(max(xs.start - REACH, 0), min(xs.stop + REACH, width)),
    )


def prepare(
    region: Array, where: tuple[slice, slice], tile: Tile, mapping: IntensityMapping, alpha: bool
) -> PreparedTile:
    """Map and fill what was read around a tile.

    Parameters
    ----------
    region : array [S,h,w]
        As read; alpha last.
    where : (slice, slice)
        Where it lies in the plane, as by `around`.
    tile : Tile
    mapping : IntensityMapping
    alpha : bool
        Whether the last sample is alpha.
    """
    colours = region[:-1] if alpha else region
    unit = mapping.to_unit(colours)
    with np.errstate(invalid="ignore"):
        missing = ~(np.abs(unit) <= FURTHEST)
    hidden = ~(region[-1] > 0) if alpha else np.False_
    inner = tuple(
        slice(r.start - w.start, r.stop - w.start) for r, w in zip(tile.read, where, strict=True)
    )
    filled = np.stack([_filled(u, m | hidden)[inner] for u, m in zip(unit, missing, strict=True)])
    missing = missing[:, *inner]
    return PreparedTile(
        colours=colours[:, *inner],
        alpha=region[-1][inner] if alpha else None,
        unit=filled,
        missing=missing if missing.any() else None,
    )


def _filled(values: Float32, missing: NDArray[np.bool_]) -> Float32:
    """Missing pixels take the value of the nearest one that is there, within REACH."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    distance, nearest = distance_transform_edt(missing, return_indices=True)
    filled: Float32 = values[tuple(nearest)]
    filled[distance > REACH] = 0
    return filled


def put_back(values: Array, pixels: PreparedTile, tile: Tile, scale: int) -> Array:
    """Upscaled colours [S,H,W] of what a tile keeps, missing pixels as blocks of what they were."""
    if pixels.missing is None:
        return values
    missing, original = (
        _enlarged(x[:, *tile.crop], scale) for x in (pixels.missing, pixels.colours)
    )
    return np.where(missing, original, values)


def without_missing(difference: Array, pixels: PreparedTile, tile: Tile, scale: int) -> Array:
    """A difference [S,H,W] that is 0 where pixels came back as they were, NaN where they are."""
    if pixels.missing is None:
        return difference
    zero = np.where(np.isfinite(pixels.colours), 0.0, np.nan)[:, *tile.crop]
    missing = _enlarged(pixels.missing[:, *tile.crop], scale)
    return np.where(missing, _enlarged(zero, scale), difference)


def _enlarged(values: Array, scale: int) -> Array:
    return values.repeat(scale, axis=1).repeat(scale, axis=2)


def enlarged_alpha(alpha: Array, tile: Tile, scale: int) -> Array:
    """Alpha [1,H,W] of what a tile keeps, enlarged bicubically, in its dtype."""
    wide = np.float32 if alpha.dtype.itemsize < 4 else np.float64
    seen = np.nan_to_num(alpha.astype(wide), nan=0.0, posinf=1.0, neginf=0.0)
    large: Array = imresize(seen, scale)[scaled(tile.crop, scale)]
    if alpha.dtype.kind in "iu":
        info = np.iinfo(alpha.dtype)
        top = np.nextafter(large.dtype.type(info.max), 0) if info.bits > 32 else info.max
        large = np.clip(np.rint(large), 0, top)
    elif alpha.dtype.kind == "b":
        large = large >= 0.5
    else:
        large = large.clip(0, 1)
    result: Array = large.astype(alpha.dtype)[None]
    return result
