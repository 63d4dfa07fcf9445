"""How close two images are."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError, OptionError

Channel = Literal["Y", "RGB", "gray"]

LUMA = (65.481, 128.553, 24.966)  # ITU-R BT.601, RGB in [0,1] to Y in [16,235], as in MATLAB
WINDOW = 11  # pixels that one value of SSIM looks at in each direction


def luma(image: NDArray[Any]) -> NDArray[np.float64]:
    """Y of RGB [...,3] in [0,1]: ITU-R BT.601, in [16/255, 235/255]."""
    y: NDArray[np.float64] = (image[..., :3].astype(np.float64) @ np.array(LUMA) + 16.0) / 255.0
    return y


def psnr(
    image: NDArray[Any],
    reference: NDArray[Any],
    shave: int = 0,
    channel: Channel = "RGB",
    data_range: float = 1.0,
) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    image, reference : array [Y,X] or [Y,X,3]
        Images of the same shape, in the units of `data_range`.
    shave : int
        Border pixels left out at each side; by convention the scale factor.
    channel : {"Y", "RGB", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB` and
        `gray`: all values alike.
    data_range : float
        Greatest possible value less the least, in the units of the images.

    Returns
    -------
    float
        dB; infinite for identical images.

    Raises
    ------
    ImageError
        The shapes differ, or nothing is left after shaving.
    OptionError
        An option does not exist or does not fit the images.
    """
    a, b = _comparable(image, reference, shave, channel, data_range)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(
    image: NDArray[Any],
    reference: NDArray[Any],
    shave: int = 0,
    channel: Channel = "RGB",
    data_range: float = 1.0,
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
    channel : {"Y", "RGB", "gray"}
        `Y`: BT.601 luma of RGB, the convention of the super-resolution literature. `RGB`: mean of
        the channels, or the image itself if it has none. `gray`: the image has no channels.
    data_range : float
        Greatest possible value less the least, in the units of the images.

    Returns
    -------
    float
        1 for identical images.

    Raises
    ------
    ImageError
        The shapes differ, or what is left after shaving is smaller than the window.
    OptionError
        An option does not exist or does not fit the images.
    """
    from skimage.metrics import structural_similarity  # late: psnr alone does without its import

    a, b = _comparable(image, reference, shave, channel, data_range)
    if a.ndim not in (2, 3) or (a.ndim == 3 and channel == "gray"):
        shapes = "[Y,X]" if channel == "gray" else "[Y,X] or [Y,X,C]"
        raise ImageError(f"expected {shapes} for channel {channel!r}, got {np.shape(image)}")
    if min(a.shape[:2]) < WINDOW:
        raise ImageError(
            f"expected at least {WINDOW}x{WINDOW} pixels left after shaving {shave}, got shape "
            f"{np.shape(image)}"
        )
    # scikit-image leaves the border of half a window out of its mean, which is what is wanted
    return float(
        structural_similarity(
            a,
            b,
            data_range=1.0,
            channel_axis=2 if a.ndim == 3 else None,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _comparable(
    image: NDArray[Any], reference: NDArray[Any], shave: int, channel: Channel, data_range: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images in units of the data range, their channel chosen, the border taken off."""
    image, reference = np.asarray(image), np.asarray(reference)
    if image.shape != reference.shape:
        raise ImageError(
            f"expected images of the same shape, got {image.shape} and {reference.shape}"
        )
    if channel not in ("Y", "RGB", "gray"):
        raise OptionError(f'expected channel "Y", "RGB" or "gray", got {channel!r}')
    if shave < 0 or not data_range > 0:
        raise OptionError(f"expected shave >= 0 and data_range > 0, got {shave} and {data_range}")
    a = image.astype(np.float64) / data_range
    b = reference.astype(np.float64) / data_range
    if channel == "Y":
        if a.ndim != 3 or a.shape[-1] < 3:
            raise OptionError(f'expected RGB images for channel "Y", got shape {a.shape}')
        a, b = luma(a), luma(b)
    if shave:
        a, b = a[shave:-shave, shave:-shave], b[shave:-shave, shave:-shave]
    if a.size == 0:
        raise ImageError(f"expected pixels left after shaving {shave}, got shape {image.shape}")
    return a, b
