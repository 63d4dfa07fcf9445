"""The SSIM of all windows of a plane, fast enough to measure benchmarks beside a running model.

Source: Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
2004, with K1 = 0.01 and K2 = 0.03. What depends on the reference alone is computed once, the two
variances are needed as a sum only, and the windows are matrix products. In float64 this agrees with
the authors' `ssim.m` to 1e-9, in float32 to 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]  # float32 or float64; results have the dtype of the plane

WINDOW = 11  # pixels that one value of SSIM looks at in each direction
SIGMA = 1.5  # pixels, of the Gaussian weights in it
C1, C2 = 0.01**2, 0.03**2
BLOCK = 32  # rows or columns of one matrix product: larger ones have more zeros, smaller more calls
LARGEST_PRODUCT = 384  # columns; larger ones wake the threads of BLAS, which the model needs
MIDDLE = 0.5  # is subtracted before squaring, so that float32 has enough digits


@lru_cache(maxsize=2)
def _weights(dtype: np.dtype[Any]) -> tuple[Plane, Plane]:
    """Band matrix [BLOCK, BLOCK + WINDOW - 1] with a row for each window, and its transpose."""
    offset = np.arange(WINDOW) - WINDOW // 2
    gauss = np.exp(-(offset**2) / (2 * SIGMA**2))
    band = np.zeros((BLOCK, BLOCK + WINDOW - 1), dtype)
    for row in range(BLOCK):
        band[row, row : row + WINDOW] = gauss / gauss.sum()
    return band, np.ascontiguousarray(band.T)  # for a view, BLAS takes half as long again


def window_means(plane: Plane) -> Plane:
    """Gaussian-weighted mean of each window wholly within a plane, [Y-WINDOW+1, X-WINDOW+1]."""
    band, transposed = _weights(plane.dtype)
    beyond = WINDOW - 1
    height, width = (n - beyond for n in plane.shape)
    columns = np.empty((height, width + beyond), plane.dtype)
    for top in range(0, height, BLOCK):
        n = min(BLOCK, height - top)
        for left in range(0, width + beyond, LARGEST_PRODUCT):
            part = slice(left, left + LARGEST_PRODUCT)
            source = plane[top : top + n + beyond, part]
            np.matmul(band[:n, : n + beyond], source, out=columns[top : top + n, part])
    means = np.empty((height, width), plane.dtype)
    for left in range(0, width, BLOCK):
        n = min(BLOCK, width - left)
        source = columns[:, left : left + n + beyond]
        np.matmul(source, transposed[: n + beyond, :n], out=means[:, left : left + n])
    return means


@dataclass(frozen=True, eq=False)
class SSIMReference:
    """A plane of the reference, with what each comparison needs of it."""

    # [Y,X], of the values minus the middle: ``2 b`` and ``b b``
    twice: Plane
    squares: Plane
    # of the means of their windows, so smaller by a window minus one
    twice_mean: Plane
    mean_squared: Plane
    # of the means of the values as they are
    twice_light: Plane
    light_squared: Plane

    @classmethod
    def of(cls, plane: Plane) -> SSIMReference:
        """Prepare a plane [Y,X] in units of the data range."""
        centred = plane - MIDDLE
        mean = window_means(centred)
        light = mean + MIDDLE
        return cls(2 * centred, centred**2, 2 * mean, mean**2, 2 * light, light**2)

    def similarity(self, plane: Plane) -> Plane:
        """SSIM of each window with that of a plane: exactly 1 where both are the same.

        ``(2 ab + C1) (2 cov + C2) / ((aa + bb + C1) (var a + var b + C2))``, in place where
        possible: a new array has to be fetched into the cache. The plane is in units of the data
        range, in the dtype of the reference.
        """
        centred = plane - MIDDLE
        mean = window_means(centred)
        covariance = window_means(centred * self.twice)
        covariance -= mean * self.twice_mean
        covariance += C2
        centred *= centred
        centred += self.squares
        variances = window_means(centred)
        squares = mean * mean
        squares += self.mean_squared
        variances -= squares
        variances += C2
        mean += MIDDLE
        similarity = mean * self.twice_light
        similarity += C1
        similarity *= covariance
        mean *= mean
        mean += self.light_squared
        mean += C1
        mean *= variances
        similarity /= mean
        return similarity
