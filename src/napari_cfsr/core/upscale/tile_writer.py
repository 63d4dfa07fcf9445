"""Predicted tiles into the arrays of the outputs, in the dtype of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import (
    IntensityMapping,
    Plane,
    PreparedTile,
    Region,
    Tile,
    enlarged_alpha,
    put_back,
    scaled,
    without_missing,
)
from napari_cfsr.core.upscale.resolve import ResolvedRequest

Array = NDArray[Any]
Float32 = NDArray[np.float32]
STRIP_VALUES = 2**16  # of a sample of an output that are made at a time: they stay in the cache


@dataclass(frozen=True, eq=False)
class TileWriter:
    """Writes tiles."""

    request: ResolvedRequest
    scale: int
    mappings: tuple[IntensityMapping, ...]  # one for each independent channel
    arrays: Mapping[str, Array]  # by output

    def write(
        self, plane: Plane, tile: Tile, pixels: PreparedTile, predicted: dict[str, Float32]
    ) -> None:
        """Write what a tile keeps of each output.

        `pixels` is what was read for it, `predicted` is `baseline`, `delta` or both, [1 or 3,H,W],
        not clipped.
        """
        scale, axes = self.scale, self.request.axes
        mapping = self.mappings[axes.channel_of(plane)]
        alpha = None if pixels.alpha is None else enlarged_alpha(pixels.alpha, tile, scale)
        done = 0
        for strip in tile.strips(STRIP_VALUES // scale**2):
            where = scaled(_relative(strip.write, self.request.region), scale)
            rows = slice(done, done + where[0].stop - where[0].start)
            done = rows.stop
            data = {name: mapping.to_data(part[:, rows]) for name, part in predicted.items()}
            if "difference" in self.arrays:
                difference = data["delta"] - data["baseline"]
                difference = without_missing(difference, pixels, strip, scale)
                axes.write(self.arrays["difference"], plane, *where, difference)
            for name in data:
                if name in self.arrays:
                    values = put_back(mapping.rounded(data[name]), pixels, strip, scale)
                    if alpha is not None:
                        values = np.concatenate([values, alpha[:, rows]])
                    axes.write(self.arrays[name], plane, *where, values)


def _relative(where: Region, region: Region) -> Region:
    """Rows and columns counted from the start of a region."""
    (ys, xs), (y, x) = where, region
    rows = slice(ys.start - y.start, ys.stop - y.start)
    return rows, slice(xs.start - x.start, xs.stop - x.start)
