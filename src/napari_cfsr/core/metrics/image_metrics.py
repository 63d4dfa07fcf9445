"""How close two images are.

All functions work strip by strip (see `image_pair`): apart from the images and a map, the memory
they need does not grow with the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from napari_cfsr.core.metrics.image_pair import Channel, Float64, ImagePair
from napari_cfsr.core.metrics.ssim_kernel import WINDOW, Plane, SSIMReference
from napari_cfsr.errors import ImageError

Check = Callable[[], None]
Float32 = NDArray[np.float32]

BORDER = WINDOW // 2


def psnr(
    image: NDArray[Any],
    reference: NDArray[Any],
    shave: int = 0,
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> float:
    """Peak signal-to-noise ratio: ``10 log10(data_range**2 / mean squared error)``.

    Source for the luma: ITU-R BT.601, as MATLAB's `rgb2ycbcr`.

    Parameters
    ----------
    image, reference : array [Y,X] or [Y,X,3]
        Images of the same shape, in the units of `data_range`.
    shave : int
        Border pixels left out on each side; by convention the scale factor.
    channel : {"RGB", "Y", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB` and
        `gray`: all values count the same.
    data_range : float
        Greatest possible value minus the least, in the units of the images.
    check : callable
        Called several times a second; an exception from it ends the computation.

    Returns
    -------
    float
        dB; infinite for identical images, NaN if a pixel is NaN.

    Raises
    ------
    ImageError
        The shapes differ, or nothing is left after shaving.
    OptionError
        An option does not exist or does not fit the images.
    """
    pair = _pair(image, reference, shave, channel, data_range)
    total = sum(float(((s.a - s.b) ** 2).sum()) for s in pair.strips(check))
    return decibels(total / float(np.prod(pair.shape, dtype=float)))


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared error in squared units of the data range; infinite for 0."""
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(
    image: NDArray[Any],
    reference: NDArray[Any],
    shave: int = 0,
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> float:
    """Structural similarity.

    As in the authors' `ssim.m` and the tables of the super-resolution literature: a Gaussian window
    of 11x11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, and only windows that lie wholly within
    the image. Source: Z. Wang et al., "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004.

    Parameters
    ----------
    image, reference, shave, data_range, check
        As for `psnr`.
    channel : {"RGB", "Y", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB`: mean of
        the channels, or the image itself if it has none. `gray`: the image has no channels.

    Returns
    -------
    float
        1 for identical images, NaN if a pixel is NaN.

    Raises
    ------
    ImageError
        The shapes differ, or what is left after shaving is smaller than the window.
    OptionError
        An option does not exist or does not fit the images.
    """
    pair = _pair(image, reference, shave, channel, data_range)
    check_windows(pair)
    total, count = 0.0, 0
    for strip in pair.strips(check, WINDOW):
        for a, b in strip.planes:
            similarity = _similarity(a, b)
            total += float(similarity.sum())
            count += similarity.size
    return total / count


def ssim_map(
    image: NDArray[Any],
    reference: NDArray[Any],
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> Float32:
    """Structural similarity (SSIM) of the window around each pixel.

    Source: Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004.

    Parameters
    ----------
    image, reference, channel, data_range, check
        As for `ssim`.

    Returns
    -------
    array [Y,X] of float32
        At most 1; mean of the channels for RGB; NaN where the window holds a pixel that is not
        finite. Within half a window of the border the images are mirrored, as in scikit-image;
        `ssim` leaves those pixels out.

    Raises
    ------
    ImageError, OptionError
        As for `ssim`.
    """
    pair = _pair(image, reference, 0, channel, data_range)
    check_windows(pair)
    height, width = pair.shape[:2]
    result, top = np.empty((height, width), np.float32), 0
    for strip in pair.strips(check, WINDOW):
        ends = BORDER * (strip.rows.start == 0), BORDER * (strip.rows.stop == height)
        planes = ((_mirrored(a, ends), _mirrored(b, ends)) for a, b in strip.planes)
        rows = np.mean([_similarity(a, b) for a, b in planes], axis=0)
        result[top : top + len(rows)] = rows
        top += len(rows)
    return result


def error_map(
    image: NDArray[Any],
    reference: NDArray[Any],
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> Float32:
    """Absolute error of each pixel.

    Parameters
    ----------
    image, reference, channel, data_range, check
        As for `psnr`.

    Returns
    -------
    array [Y,X] of float32
        In units of the data range; mean of the channels for RGB, error of the luma for Y.

    Raises
    ------
    ImageError, OptionError
        As for `psnr`.
    """
    pair = _pair(image, reference, 0, channel, data_range)
    _check_planar(pair)
    result = np.empty(pair.shape[:2], np.float32)
    for strip in pair.strips(check):
        result[strip.rows] = _channel_mean(np.abs(strip.a - strip.b))
    return result


def _pair(
    image: NDArray[Any], reference: NDArray[Any], shave: int, channel: Channel, data_range: float
) -> ImagePair:
    return ImagePair(np.asarray(image), np.asarray(reference), shave, channel, data_range)


def _channel_mean(values: Float64) -> Float64:
    """Mean over the channels, if there are any."""
    mean: Float64 = values.mean(-1) if values.ndim == 3 else values
    return mean


def _check_planar(pair: ImagePair) -> None:
    """Raise `ImageError` unless it is one image, with channels only where they are expected."""
    ndim = len(pair.shape)
    if ndim not in (2, 3) or (ndim == 3 and pair.channel == "gray"):
        shapes = "[Y,X]" if pair.channel == "gray" else "[Y,X] or [Y,X,C]"
        raise ImageError(f"expected {shapes} for channel {pair.channel!r}, got {pair.image.shape}")


def check_windows(pair: ImagePair) -> None:
    """Raise `ImageError` unless SSIM is defined: a single image, no smaller than a window."""
    _check_planar(pair)
    if min(pair.shape[:2]) < WINDOW:
        raise ImageError(
            f"expected at least {WINDOW}x{WINDOW} pixels left inside a border of {pair.shave}, got "
            f"shape {pair.image.shape}"
        )


def _mirrored(plane: Float64, ends: tuple[int, int]) -> Float64:
    """A plane with more rows at the top and bottom, and half a window of columns on both sides."""
    return np.pad(plane, (ends, (BORDER, BORDER)), mode="symmetric")


def _similarity(a: Float64, b: Float64) -> Plane:
    """SSIM of each window; NaN where it holds a pixel that is not finite in either plane."""
    missing = ~(np.isfinite(a) & np.isfinite(b))
    if not missing.any():
        return SSIMReference.of(b).similarity(a)
    a, b = (np.where(missing, 0, plane) for plane in (a, b))
    similarity = SSIMReference.of(b).similarity(a)
    inside = slice(BORDER, -BORDER)
    similarity[maximum_filter(missing, WINDOW)[inside, inside]] = np.nan
    return similarity
