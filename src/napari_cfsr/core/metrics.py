"""How close two images are."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import ImageError, OptionError

Channel = Literal["Y", "RGB", "gray"]

LUMA = (65.481, 128.553, 24.966)  # ITU-R BT.601, RGB in [0,1] to Y in [16,235], as in MATLAB


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
        `channel` does not exist or does not fit the images.
    """
    image, reference = np.asarray(image), np.asarray(reference)
    if image.shape != reference.shape:
        raise ImageError(
            f"expected images of the same shape, got {image.shape} and {reference.shape}"
        )
    if channel not in ("Y", "RGB", "gray"):
        raise OptionError(f'expected channel "Y", "RGB" or "gray", got {channel!r}')
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
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))
