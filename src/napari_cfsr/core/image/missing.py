"""Missing and transparent pixels of a tile: filled for the network, put back in the result.

Missing pixels are NaN, infinity, and values so far outside the intensity limits that they would
spoil the whole receptive field of the network (a hot pixel, a no-data value). They are filled from
their neighbourhood before the network runs, and put back as blocks of the original value. Colours
of fully transparent pixels are filled too. Filling depends only on the neighbourhood within REACH,
so it is the same in all tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from napari_cfsr.core.image.intensity import IntensityMapping
from napari_cfsr.core.image.resize import imresize, round_to_dtype
from napari_cfsr.core.image.tiling import Tile, scaled

Array = NDArray[Any]
Float32 = NDArray[np.float32]

REACH = 16  # LR pixels; missing pixels further from known ones become black
FURTHEST = 1e3  # times the intensity range; beyond it, a value counts as missing


@dataclass(frozen=True, eq=False)
class PreparedTile:
    """Pixels of a tile, including its halo."""

    colours: Array  # [S,h,w], in the dtype of the image
    alpha: Array | None  # [h,w]
    unit: Float32  # [S,h,w]: input of the network, missing and transparent pixels filled
    missing: NDArray[np.bool_] | None  # [S,h,w]; None if no pixel is missing

    def out_of_range(self, tile: Tile) -> bool:
        """Whether a pixel that the tile keeps is missing although it has a finite value."""
        if self.missing is None:
            return False
        return bool((self.missing & np.isfinite(self.colours))[:, *tile.crop].any())


def around(tile: Tile, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns to read for a tile: REACH more than its own, within the image."""
    ys, xs = tile.read
    return (
        slice(max(ys.start - REACH, 0), min(ys.stop + REACH, height)),
        slice(max(xs.start - REACH, 0), min(xs.stop + REACH, width)),
    )


def prepare(
    region: Array, where: tuple[slice, slice], tile: Tile, mapping: IntensityMapping, alpha: bool
) -> PreparedTile:
    """Map the pixels [S,h,w] read around a tile to [0,1], and fill missing ones.

    `where` is the position of the region in the plane, from `around`; `alpha` tells whether the
    last sample is alpha.
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
    opacity = region[-1][inner] if alpha else None
    return PreparedTile(colours[:, *inner], opacity, filled, missing if missing.any() else None)


def _filled(values: Float32, missing: NDArray[np.bool_]) -> Float32:
    """Missing pixels take the value of the nearest known one within REACH."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    distance, nearest = distance_transform_edt(missing, return_indices=True)
    filled: Float32 = values[tuple(nearest)]
    filled[distance > REACH] = 0
    return filled


def put_back(values: Array, pixels: PreparedTile, tile: Tile, scale: int) -> Array:
    """Upscaled colours [S,H,W] of a tile without halo, with missing pixels as original blocks."""
    if pixels.missing is None:
        return values
    missing, original = (
        _enlarged(x[:, *tile.crop], scale) for x in (pixels.missing, pixels.colours)
    )
    return np.where(missing, original, values)


def without_missing(difference: Array, pixels: PreparedTile, tile: Tile, scale: int) -> Array:
    """A difference [S,H,W] with 0 at missing pixels, or NaN if the original is not finite."""
    if pixels.missing is None:
        return difference
    zero = np.where(np.isfinite(pixels.colours), 0.0, np.nan)[:, *tile.crop]
    missing = _enlarged(pixels.missing[:, *tile.crop], scale)
    return np.where(missing, _enlarged(zero, scale), difference)


def _enlarged(values: Array, scale: int) -> Array:
    return values.repeat(scale, axis=1).repeat(scale, axis=2)


def enlarged_alpha(alpha: Array, tile: Tile, scale: int) -> Array:
    """Alpha [1,H,W] of a tile without halo, enlarged bicubically, in its dtype."""
    wide = np.float32 if alpha.dtype.itemsize < 4 else np.float64
    seen = np.nan_to_num(alpha.astype(wide), nan=0.0, posinf=1.0, neginf=0.0)
    large: Array = imresize(seen, scale)[scaled(tile.crop, scale)]
    if alpha.dtype.kind == "f":
        return large.clip(0, 1).astype(alpha.dtype)[None]
    return round_to_dtype(large.clip(0), alpha.dtype)[None]
