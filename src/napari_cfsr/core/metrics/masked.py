"""Scores of images in which pixels may be missing, and suitable default options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import TOLERANCE
from napari_cfsr.core.metrics.image_metrics import BORDER, error_map, psnr, ssim, ssim_map
from napari_cfsr.core.metrics.image_pair import Channel
from napari_cfsr.errors import ImageError

Check = Callable[[], None]
Float32 = NDArray[np.float32]
MapKind = Literal["error", "SSIM"]

BITS = (8, 10, 12, 14, 16)  # of cameras
MOST_SPREAD_RATIO = 16  # images whose spreads differ by more are not in the same units


@dataclass(frozen=True)
class QualityOptions:
    """How to compare; as for `psnr` and `ssim`."""

    channel: Channel
    shave: int  # border pixels left out on each side
    data_range: float  # in the units of the images


@dataclass(frozen=True)
class QualityScores:
    """How close one plane is to its reference."""

    psnr: float  # dB; infinite for identical planes, NaN if no pixel is valid
    ssim: float  # 1 for identical planes, NaN if no window is valid
    invalid: int = 0  # pixels left out because they are NaN or infinite in either plane


def quality_scores(
    image: NDArray[Any],
    reference: NDArray[Any],
    options: QualityOptions,
    check: Check = lambda: None,
) -> QualityScores:
    """PSNR and SSIM of an image in which pixels may be NaN or infinite.

    PSNR is that of the finite pixels, SSIM the mean over the windows that hold only finite pixels.
    Arguments and errors are as for `psnr` and `ssim`.
    """
    valid = _valid(image, reference)
    channel, shave, data_range = options.channel, options.shave, options.data_range
    if valid is None:
        arguments = (image, reference, shave, channel, data_range, check)
        return QualityScores(psnr(*arguments), ssim(*arguments))
    inner = tuple(slice(shave, n - shave) for n in valid.shape)
    image, reference, valid = image[inner], reference[inner], valid[inner]
    count = int(np.count_nonzero(valid))
    filled = _filled(image, valid), _filled(reference, valid)
    value = psnr(*filled, 0, channel, data_range, check)
    # missing pixels, now equal, add nothing to the error but count in its mean
    value += 10 * float(np.log10(count / valid.size)) if count else float("nan")
    similarity = ssim_map(image, reference, channel, data_range, check)
    windows = similarity[BORDER:-BORDER, BORDER:-BORDER]
    known = windows[np.isfinite(windows)]
    mean = float(known.mean(dtype=np.float64)) if known.size else float("nan")
    return QualityScores(value, mean, valid.size - count)


def quality_map(
    image: NDArray[Any],
    reference: NDArray[Any],
    kind: MapKind,
    options: QualityOptions,
    check: Check = lambda: None,
) -> Float32:
    """Absolute error in the units of the images, or SSIM, of each pixel [Y,X].

    NaN where a pixel is not finite, or where the SSIM window holds such a pixel. The border is not
    left out. The rest is as for `error_map` and `ssim_map`.
    """
    how = options.channel, options.data_range, check
    if kind == "SSIM":
        return ssim_map(image, reference, *how)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        error = error_map(image, reference, *how) * np.float32(options.data_range)
    error[~np.isfinite(error)] = np.nan
    return error


def _valid(image: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Pixels [Y,X] that are finite in both images; None if all are."""
    if image.shape != reference.shape:
        raise ImageError(
            f"expected images of the same shape, got {image.shape} and {reference.shape}"
        )
    valid = np.ones(image.shape[:2], bool)
    for array in (image, reference):
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            valid &= finite.all(-1) if finite.ndim == 3 else finite
    return None if valid.all() else valid


def _filled(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """A copy with zeros where it is not valid."""
    filled = image.copy()
    filled[~valid] = 0
    return filled


def default_range(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, str]:
    """A suitable data range for an image whose finite values are in [low, high], and the reason.

    Raises `ImageError` if the image has only one value, which says nothing about the range.
    """
    if dtype.kind == "b":
        return 1.0, "bool"
    if dtype == np.uint8:
        return 255.0, "all of uint8"
    if dtype.kind in "iu" and low >= 0 and high < 2 ** BITS[-1]:
        bits = next(b for b in BITS if high < 2**b)
        return float(2**bits - 1), f"{bits} bits: its greatest value is {high:.0f} in {dtype}"
    if dtype.kind == "f" and low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return 1.0, f"{dtype} within [0, 1]"
    if not high > low:
        raise ImageError(
            f"expected a reference with more than one value, got {low:g} everywhere: give the data "
            "range"
        )
    return high - low, f"greatest less least value: {dtype}, {low:g} to {high:g}"


def same_units(image: NDArray[Any], reference: NDArray[Any]) -> bool:
    """Whether two images seem to be in the same units, such as gray levels, judging by spread."""
    if image.dtype == reference.dtype:
        return True
    samples = [_finite(image), _finite(reference)]
    spreads = [float(np.ptp(values)) if values.size else 0.0 for values in samples]
    least, most = min(spreads), max(spreads)
    return least == 0 or most <= MOST_SPREAD_RATIO * least


def _finite(image: NDArray[Any]) -> NDArray[np.float64]:
    """Finite values of an even sample of the pixels."""
    step = tuple(slice(None, None, max(1, n // 512)) for n in image.shape[:2])
    values = image[step].astype(np.float64)
    return values[np.isfinite(values)]
