"""Images of one scene to compare: the input, the results and the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import imresize, round_to_dtype
from napari_cfsr.core.metrics import WINDOW, Channel, default_range, mod_crop, psnr, ssim
from napari_cfsr.errors import ImageError

Array = NDArray[Any]
Float32 = NDArray[np.float32]

DIFFERENCE_LUMA = (0.299, 0.587, 0.114)  # BT.601 without its footroom, as the widget shows it
LEFT_OUT = "difference left out: there is no refined result"


@dataclass(frozen=True)
class Score:
    """How close an image is to the reference."""

    psnr: float  # dB; infinite for the same pixels
    ssim: float | None  # None where the image is smaller than the window of SSIM


@dataclass(frozen=True, eq=False)
class Comparison:
    """Images of one scene, all in the same units.

    Attributes
    ----------
    lr : array [y,x] or [y,x,3]
        The input.
    scale : int
    baseline, delta : array [Y,X] or [Y,X,3], or None
        Results, `scale` times larger than the input, in its dtype.
    hr : array or None
        The reference; at its original size it is cut to the size of the results (`mod_crop`).
    difference : array of float or None
        delta - baseline before rounding; by default that of the rounded ones, if both are there.
    name : str
        For a person.
    pixel_size : float, optional
        Micrometres that a pixel of the results is wide.
    notes : tuple of str
        How the images were made, for the small print; sentences without their full stop.

    Raises
    ------
    ImageError
        An image has another shape or dtype than the others.
    """

    lr: Array
    scale: int
    baseline: Array | None = None
    delta: Array | None = None
    hr: Array | None = None
    difference: Array | None = None
    name: str = ""
    pixel_size: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lr = self.lr
        if lr.size == 0 or not (lr.ndim == 2 or (lr.ndim == 3 and lr.shape[2] == 3)):
            raise ImageError(f"expected an LR image [y,x] or [y,x,3], got shape {lr.shape}")
        if self.hr is not None:
            like = np.broadcast_to(np.False_, self.shape)
            hr, note = mod_crop(like, self.hr, self.scale)
            object.__setattr__(self, "hr", hr)
            if note:
                object.__setattr__(self, "notes", (*self.notes, note))
        if self.difference is None and self.baseline is not None and self.delta is not None:
            wide = np.float32 if lr.dtype.itemsize < 4 else np.float64
            made = self.delta.astype(wide) - self.baseline.astype(wide)
            object.__setattr__(self, "difference", made)
        for name in ("baseline", "delta", "hr", "difference"):
            image = getattr(self, name)
            if image is not None and image.shape != self.shape:
                raise ImageError(f"expected {name} of shape {self.shape}, got {image.shape}")
            if image is not None and name != "difference" and image.dtype != lr.dtype:
                raise ImageError(
                    f"expected {name} in the dtype of the LR image, {lr.dtype}, got {image.dtype}: "
                    "convert one of them"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the results: [Y,X] or [Y,X,3]."""
        height, width = (n * self.scale for n in self.lr.shape[:2])
        return height, width, *self.lr.shape[2:]

    @property
    def in_colour(self) -> bool:
        return self.lr.ndim == 3

    def images(self) -> dict[str, Array]:
        """The available images by panel, all of `shape` but the difference, which is [Y,X]."""
        made = {
            "LR": self.lr.repeat(self.scale, axis=0).repeat(self.scale, axis=1),
            "bicubic": _resized(self.lr, self.scale),
            "baseline": self.baseline,
            "delta": self.delta,
            "HR": self.hr,
            "difference": None if self.difference is None else _luma(self.difference),
        }
        return {name: image for name, image in made.items() if image is not None}

    @property
    def data_range(self) -> float | None:
        """Greatest possible value minus the least, by `default_range` of the reference.

        None without a reference, or of one whose range is unknown.
        """
        if self.hr is None:
            return None
        finite = self.hr[np.isfinite(self.hr)] if self.hr.dtype.kind == "f" else self.hr
        try:
            low, high = float(finite.min()), float(finite.max())
            return default_range(self.hr.dtype, low, high)[0]
        except (ImageError, ValueError):  # a single value, or no finite one
            return None

    @property
    def shave(self) -> int:
        """Border pixels left out of the scores: the scale, or none of an image too small for it."""
        return self.scale if min(self.shape[:2]) > 2 * self.scale else 0

    def scores(self, images: Mapping[str, Array]) -> dict[str, Score]:
        """Score of each image that isn't the reference; empty without a reference.

        Of the whole image, of Y for RGB, a border of `shave` pixels left out.
        """
        data_range = self.data_range
        if self.hr is None or data_range is None:
            return {}
        channel: Channel = "Y" if self.in_colour else "gray"
        how = (self.hr, self.shave, channel, data_range)
        has_window = min(self.shape[:2]) - 2 * self.shave >= WINDOW
        return {
            name: Score(psnr(image, *how), ssim(image, *how) if has_window else None)
            for name, image in images.items()
            if name not in ("HR", "difference")
        }


def reduced(hr: Array, scale: int) -> Array:
    """The bicubic reduction of an image, in its dtype, after cutting it to a multiple of `scale`.

    Raises
    ------
    ImageError
        The image is smaller than `scale`.
    """
    height, width = (n // scale * scale for n in hr.shape[:2])
    if not height or not width:
        raise ImageError(f"expected at least {scale}x{scale} pixels to reduce, got {hr.shape}")
    return _resized(hr[:height, :width], 1 / scale)


def _resized(image: Array, factor: float) -> Array:
    """Bicubic, in the dtype of the image, rounded and clipped to what it holds."""
    if image.dtype == np.uint8 or image.dtype.kind == "f":
        return imresize(image, factor)
    return round_to_dtype(imresize(image.astype(np.float64), factor), image.dtype)


def _luma(difference: Array) -> Array:
    if difference.ndim == 2:
        return difference
    weighted: Array = difference @ np.array(DIFFERENCE_LUMA, difference.dtype)
    return weighted
