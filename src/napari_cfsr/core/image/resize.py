"""MATLAB's exact bicubic resize, and back-projection.

`imresize` follows the definition of MATLAB's function of that name: cubic convolution (R. Keys,
"Cubic Convolution Interpolation for Digital Image Processing", 1981, a = -0.5), widened by the
scale when it reduces (antialiasing), mirrored at the border, rows first, and rounded to uint8
between the two passes if the image is uint8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError, OptionError


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic kernel, a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=32)
def _resize_matrix(length: int, out_length: int, factor: float) -> Any:
    """Sparse matrix [out_length, length] that resizes one axis by `factor`."""
    shrink = min(factor, 1.0)
    taps = int(np.ceil(4 / shrink)) + 2
    centre = (np.arange(out_length) + 0.5) / factor - 0.5
    first = np.floor(centre - 2 / shrink).astype(int)
    index = first[:, None] + np.arange(taps)
    weight = shrink * _cubic(shrink * (centre[:, None] - index))
    weight /= weight.sum(1, keepdims=True)
    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    rows = np.repeat(np.arange(out_length), taps)
    columns = mirror[index.ravel() % (2 * length)]
    matrix = scipy.sparse.coo_array((weight.ravel(), (rows, columns)), shape=(out_length, length))
    return matrix.tocsr()


def _along(image: NDArray[Any], axis: int, out_length: int, factor: float) -> NDArray[Any]:
    """Resize one axis; float64 in, float64 out, float32 stays float32."""
    matrix = _resize_matrix(image.shape[axis], out_length, factor).astype(image.dtype)
    moved = np.moveaxis(image, axis, 0)
    flat = moved.reshape(moved.shape[0], -1)
    return np.moveaxis((matrix @ flat).reshape(out_length, *moved.shape[1:]), 0, axis)


def imresize(image: NDArray[Any], factor: float, axes: tuple[int, int] = (0, 1)) -> NDArray[Any]:
    """Bicubic resize, identical to MATLAB's `imresize`.

    Source: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with
    MATLAB's antialiasing.

    Parameters
    ----------
    image : array of uint8 or float
        The image, with any number of dimensions.
    factor : float
        Size out / size in; below 1 it reduces, with antialiasing. Sizes are rounded up.
    axes : (int, int)
        Positions of Y and X.

    Returns
    -------
    array
        uint8 for uint8, rounded and clipped; float otherwise, not clipped.

    Raises
    ------
    ImageError
        The image is empty or not uint8 or float.
    """
    if image.size == 0:
        raise ImageError(f"expected an image with pixels, got shape {image.shape}")
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise ImageError(f"expected uint8 or float pixels, got {image.dtype}")
    is_uint8 = image.dtype == np.uint8
    result = image.astype(np.float64) if is_uint8 or image.dtype == np.float16 else image
    for axis in axes:
        # guard against 3 * (1/3) being a little above 1
        out_length = int(np.ceil(round(image.shape[axis] * factor, 9)))
        result = _along(result, axis, out_length, factor)
        if is_uint8:
            result = np.clip(np.floor(result + 0.5), 0, 255)
    return result.astype(image.dtype) if is_uint8 else result


def enlarge_in_dtype(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Enlarge an image [Y,X] or [Y,X,3] of any dtype with MATLAB's bicubic.

    The result has the same dtype and units; integers are rounded and clipped.
    """
    if image.dtype == np.uint8 or image.dtype.kind == "f":
        return imresize(image, scale).astype(image.dtype, copy=False)
    wide = np.float32 if image.dtype.itemsize <= 2 else np.float64
    return round_to_dtype(imresize(image.astype(wide), scale), image.dtype)


def check_scale(scale: int) -> None:
    """Raise `OptionError` unless it is a whole number of at least 1."""
    if not isinstance(scale, int | np.integer) or scale < 1:
        raise OptionError(f"expected scale as a whole number of at least 1, got {scale!r}")


def round_to_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert float values of any shape to bool or integers, rounded and clipped."""
    if dtype.kind == "b":
        return values >= 0.5
    info = np.iinfo(dtype)
    # the greatest 64-bit integers have no float of their own
    top = np.nextafter(values.dtype.type(info.max), 0) if info.bits > 32 else info.max
    rounded: NDArray[Any] = np.clip(np.rint(values), info.min, top).astype(dtype)
    return rounded


def back_project(sr: NDArray[Any], lr: NDArray[Any], scale: int) -> NDArray[Any]:
    """One back-projection step: the SR image then reduces to the LR image it was made from.

    ``sr + up(lr - down(sr))`` with `imresize`, for sr [...,H,W] and lr [...,H/scale,W/scale]; not
    clipped. Only meaningful if the LR image is a bicubic reduction. Source: M. Irani, S. Peleg,
    "Improving Resolution by Image Registration", 1991.
    """
    rest = lr - imresize(sr, 1 / scale, axes=(-2, -1))
    result: NDArray[Any] = sr + imresize(rest, scale, axes=(-2, -1))
    return result
