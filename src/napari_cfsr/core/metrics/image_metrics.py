"""How close two images are.

All of these work strip by strip (see `image_pair`): the memory they need beside the images and a
map does not grow with the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.metrics.image_pair import (
    Channel,
    Float64,
    ImagePair,
    Strip,
    each_strip,
    luma,
    mod_crop,
)
from napari_cfsr.errors import ImageError

__all__ = ["Channel", "error_map", "luma", "mod_crop", "psnr", "ssim", "ssim_map"]

Check = Callable[[], None]
Float32 = NDArray[np.float32]

WINDOW = 11  # pixels that one value of SSIM looks at in each direction
SIGMA = 1.5  # pixels, of the Gaussian weights in it


def psnr(
    image: NDArray[Any],
    reference: NDArray[Any],
    shave: int = 0,
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    image, reference : array [Y,X] or [Y,X,3]
        Images of the same shape, in the units of `data_range`.
    shave : int
        Border pixels left out at each side; by convention the scale factor.
    channel : {"RGB", "Y", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB` and
        `gray`: all values alike.
    data_range : float
        Greatest possible value less the least, in the units of the images.
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
    total = sum(float(((s.a - s.b) ** 2).sum()) for s in each_strip(pair, check))
    return decibels(total / float(np.prod(pair.shape, dtype=float)))


def decibels(error: float) -> float:
    """PSNR of a mean squared error in units of the data range."""
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
    image, reference : array [Y,X] or [Y,X,3]
        Images of the same shape, in the units of `data_range`.
    shave : int
        Border pixels left out at each side; by convention the scale factor.
    channel : {"RGB", "Y", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB`: mean of
        the channels, or the image itself if it has none. `gray`: the image has no channels.
    data_range : float
        Greatest possible value less the least, in the units of the images.
    check : callable
        Called several times a second; an exception from it ends the computation.

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
    total, border = 0.0, WINDOW // 2
    height = pair.shape[0]
    for strip, similarity in _similarity(pair, check):
        # a border of half a window is left out: windows there do not lie within the image
        top, bottom = max(border, strip.rows.start), min(height - border, strip.rows.stop)
        rows = slice(top - strip.rows.start, max(top, bottom) - strip.rows.start)
        total += float(similarity[rows, border:-border].sum())
    count = (height - 2 * border) * (pair.shape[1] - 2 * border) * int(np.prod(pair.shape[2:]))
    return total / count


def ssim_map(
    image: NDArray[Any],
    reference: NDArray[Any],
    channel: Channel = "RGB",
    data_range: float = 1.0,
    check: Check = lambda: None,
) -> Float32:
    """Structural similarity of the window around each pixel.

    Parameters
    ----------
    image, reference, channel, data_range, check
        As for `ssim`.

    Returns
    -------
    array [Y,X] of float32
        At most 1; mean of the channels for RGB. Within half a window of the border, the images are
        mirrored, as scikit-image does it; `ssim` leaves those pixels out.

    Raises
    ------
    ImageError, OptionError
        As for `ssim`.
    """
    pair = _pair(image, reference, 0, channel, data_range)
    result = np.empty(pair.shape[:2], np.float32)
    for strip, similarity in _similarity(pair, check):
        result[strip.rows] = _flat(similarity)
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
    for strip in each_strip(pair, check):
        result[strip.rows] = _flat(np.abs(strip.a - strip.b))
    return result


def _pair(
    image: NDArray[Any], reference: NDArray[Any], shave: int, channel: Channel, data_range: float
) -> ImagePair:
    return ImagePair(np.asarray(image), np.asarray(reference), shave, channel, data_range)


def _flat(values: Float64) -> Float64:
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
    """Raise `ImageError` unless SSIM can be had: one image, no smaller than a window."""
    _check_planar(pair)
    if min(pair.shape[:2]) < WINDOW:
        raise ImageError(
            f"expected at least {WINDOW}x{WINDOW} pixels left after shaving {pair.shave}, got "
            f"shape {pair.image.shape}"
        )


def _similarity(pair: ImagePair, check: Check) -> Iterator[tuple[Strip, Float64]]:
    """SSIM [rows,X] or [rows,X,C] of the rows that each strip stands for."""
    from skimage.metrics import structural_similarity  # late: psnr alone does without its import

    check_windows(pair)
    for strip in each_strip(pair, check, halo=WINDOW // 2, least=WINDOW):
        _, similarity = structural_similarity(
            strip.a,
            strip.b,
            data_range=1.0,
            channel_axis=2 if strip.a.ndim == 3 else None,
            gaussian_weights=True,
            sigma=SIGMA,
            use_sample_covariance=False,
            full=True,
        )
        yield strip, similarity[strip.inner]
