"""How close an image is to a reference where pixels may be missing, and defaults for measuring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from napari_cfsr.core.image import TOLERANCE, imresize
from napari_cfsr.core.metrics.image_metrics import WINDOW, Channel, error_map, psnr, ssim, ssim_map
from napari_cfsr.errors import ImageError

Check = Callable[[], None]
Float32 = NDArray[np.float32]
MapKind = Literal["error", "SSIM"]

BITS = (8, 10, 12, 14, 16)  # of cameras
ALIKE = 16  # images whose spreads differ by more than this factor are not in the same units


@dataclass(frozen=True)
class QualityOptions:
    """What is measured; as for `psnr` and `ssim`.

    Attributes
    ----------
    channel : {"Y", "RGB", "gray"}
    shave : int
        Border pixels left out at each side.
    data_range : float
        In the units of the images.
    """

    channel: Channel
    shave: int
    data_range: float


@dataclass(frozen=True)
class QualityScores:
    """How close one plane is to its reference.

    Attributes
    ----------
    psnr : float
        dB; infinite for identical planes, NaN if no pixel is valid.
    ssim : float
        1 for identical planes, NaN if no window is valid.
    invalid : int
        Pixels left out because they are NaN or infinite in either plane.
    """

    psnr: float
    ssim: float
    invalid: int = 0


def measure(
    image: NDArray[Any],
    reference: NDArray[Any],
    options: QualityOptions,
    check: Check = lambda: None,
) -> QualityScores:
    """PSNR and SSIM; of what is finite, where not all of both images is.

    PSNR is that of the finite pixels. SSIM is the mean over the windows that hold finite pixels
    only.

    Parameters
    ----------
    image, reference : array [Y,X] or [Y,X,3]
        Of the same shape, in the units of the data range.
    options : QualityOptions
    check : callable
        Called several times a second; may raise to stop.

    Raises
    ------
    ImageError, OptionError
        As for `psnr` and `ssim`.
    """
    valid = _valid(image, reference)
    channel, shave, data_range = options.channel, options.shave, options.data_range
    if valid is None:
        arguments = (image, reference, shave, channel, data_range, check)
        return QualityScores(psnr(*arguments), ssim(*arguments))
    inner = tuple(slice(shave, n - shave) for n in valid.shape)
    image, reference = _filled(image[inner], valid[inner]), _filled(reference[inner], valid[inner])
    valid = valid[inner]
    count = int(np.count_nonzero(valid))
    value = psnr(image, reference, 0, channel, data_range, check)
    # missing pixels, now equal, add nothing to the error but count in its mean
    value += 10 * float(np.log10(count / valid.size)) if count else float("nan")
    similarity = ssim_map(image, reference, channel, data_range, check)[_whole_windows(valid)]
    mean = float(similarity.mean(dtype=np.float64)) if similarity.size else float("nan")
    return QualityScores(value, mean, valid.size - count)


def quality_map(
    image: NDArray[Any],
    reference: NDArray[Any],
    kind: MapKind,
    options: QualityOptions,
    check: Check = lambda: None,
) -> Float32:
    """Error or SSIM at each pixel.

    Parameters
    ----------
    image, reference : array [Y,X] or [Y,X,3]
    kind : {"error", "SSIM"}
    options : QualityOptions
        Its border is not left out.
    check : callable
        Called several times a second; may raise to stop.

    Returns
    -------
    array [Y,X] of float32
        The absolute error in the units of the images, or SSIM; NaN where a pixel is not finite,
        and for SSIM where its window holds such a pixel.
    """
    valid = _valid(image, reference)
    if valid is not None:
        image, reference = _filled(image, valid), _filled(reference, valid)
    result = (error_map if kind == "error" else ssim_map)(
        image, reference, options.channel, options.data_range, check
    )
    if kind == "error":
        result *= np.float32(options.data_range)
    if valid is not None:
        result[~(valid if kind == "error" else _clear(valid))] = np.nan
    return result


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


def _clear(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose window of SSIM holds valid pixels only."""
    clear: NDArray[np.bool_] = minimum_filter(valid, WINDOW, mode="mirror")
    return clear


def _whole_windows(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same, of the windows that lie wholly within the image."""
    clear, border = _clear(valid), WINDOW // 2
    inside = np.zeros_like(clear)
    inside[border:-border, border:-border] = True
    return clear & inside


def default_range(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, str]:
    """A data range that suits an image, and why.

    Parameters
    ----------
    dtype : dtype
    low, high : float
        Least and greatest finite value of the image.

    Raises
    ------
    ImageError
        There is only one value, from which no range can be told.
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
    """Whether two images seem to be in the same units, such as grey levels: by their spread."""
    if image.dtype == reference.dtype:
        return True
    samples = [_finite(image), _finite(reference)]
    spreads = [float(np.ptp(values)) if values.size else 0.0 for values in samples]
    least, most = min(spreads), max(spreads)
    return least == 0 or most <= ALIKE * least


def _finite(image: NDArray[Any]) -> NDArray[np.float64]:
    """Some of the finite values."""
    step = tuple(slice(None, None, max(1, n // 512)) for n in image.shape[:2])
    values = image[step].astype(np.float64)
    return values[np.isfinite(values)]


def bicubic(lr: NDArray[Any], scale: int) -> NDArray[Any]:
    """Enlarge an image by MATLAB's bicubic, as one would without a network.

    Parameters
    ----------
    lr : array [Y,X] or [Y,X,3] of bool, integers or float
    scale : int

    Returns
    -------
    array [Y*scale,X*scale,...]
        Of the same dtype; integers are rounded and clipped.
    """
    if lr.dtype == np.uint8 or lr.dtype.kind == "f":
        return imresize(lr, scale).astype(lr.dtype, copy=False)
    large = imresize(lr.astype(np.float32 if lr.dtype.itemsize <= 2 else np.float64), scale)
    if lr.dtype.kind == "b":
        return large >= 0.5
    info = np.iinfo(lr.dtype)
    # the greatest 64-bit integers have no float of their own
    top = np.nextafter(np.float64(info.max), 0) if info.bits > 32 else info.max
    enlarged: NDArray[Any] = np.clip(np.rint(large), info.min, top).astype(lr.dtype)
    return enlarged
