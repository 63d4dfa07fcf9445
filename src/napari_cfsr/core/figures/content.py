"""What a figure shows: images, scores, crops, and the colours of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.figures.comparison import LEFT_OUT, Comparison, Score
from napari_cfsr.core.figures.options import PANELS, Crop, FigureOptions
from napari_cfsr.core.image import Limits, Mode, parse_axes, resolve_mapping
from napari_cfsr.errors import OptionError

Array = NDArray[Any]
Pixels = NDArray[np.uint8]  # [Y,X,3]
Mark = Literal["", "best", "second"]

CROP_SHARE = 4  # of the shorter side that a crop takes by default
SMALLEST_CROP, LARGEST_CROP = 48, 128  # HR pixels; by default, where the image is large enough
# blue below zero and orange above, as the widget shows it, on the white of paper
DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (230, 137, 50), (127, 59, 8))
UNKNOWN = (128, 128, 128)  # gray: where the difference is not finite
ROUND_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Contrast:
    """Values that are black and white in every panel; a straight line between them."""

    low: float  # in units of the data
    high: float

    @classmethod
    def of(cls, comparison: Comparison, mode: Mode | Limits) -> Contrast:
        """That of the reference, or of the input if there is none."""
        image = comparison.lr if comparison.hr is None else comparison.hr
        axes = parse_axes("YXS" if comparison.in_colour else "YX", image.shape)
        if mode == "auto" and not (comparison.in_colour and image.dtype.kind == "f"):
            plain = comparison.in_colour or image.dtype in (np.bool_, np.uint8)
            mode = "dtype" if plain else "percentile"
        (mapping,) = resolve_mapping(image, axes, mode)
        return cls(mapping.low, mapping.high)

    def pixels(self, image: Array) -> Pixels:
        """An image [Y,X] or [Y,X,3] as 8-bit RGB."""
        unit = (image.astype(np.float64) - self.low) / (self.high - self.low)
        shown = np.rint(np.clip(np.nan_to_num(unit), 0, 1) * 255).astype(np.uint8)
        return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)


@dataclass(frozen=True)
class Diverging:
    """Colours of signed values: from -limit over 0 to limit."""

    limit: float  # in units of the data

    @classmethod
    def of(cls, difference: Array, crops: Sequence[Crop]) -> Diverging:
        """The least round limit that covers everything in the crops."""
        parts = [np.abs(crop.of(difference)) for crop in crops]
        finite = [float(part[np.isfinite(part)].max(initial=0)) for part in parts]
        return cls(round_up(max(finite)))

    def pixels(self, difference: Array) -> Pixels:
        """A difference [Y,X] as 8-bit RGB; what is not finite is gray."""
        at = np.clip(np.nan_to_num(difference / self.limit), -1, 1)
        stops = np.linspace(-1, 1, len(DIVERGING))
        channels = [np.interp(at, stops, [c[i] for c in DIVERGING]) for i in range(3)]
        shown = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
        shown[~np.isfinite(difference)] = UNKNOWN
        return shown

    def bar(self) -> Pixels:
        """A row from -limit to limit."""
        return self.pixels(np.linspace(-self.limit, self.limit, 255)[None])


def round_up(value: float) -> float:
    """The next round number; 1 for 0."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next(step for step in ROUND_STEPS if step * power >= value * (1 - 1e-9))


@dataclass(frozen=True, eq=False)
class Content:
    """What a figure shows."""

    comparison: Comparison
    options: FigureOptions
    # each panel in units of the data: [Y,X] or [Y,X,3], the difference [Y,X]
    images: dict[str, Array]
    scores: dict[str, Score]  # of the panels that are compared with the reference
    crops: tuple[Crop, ...]
    contrast: Contrast
    diverging: Diverging | None  # None without a difference
    notes: tuple[str, ...]  # what was left out

    @property
    def whole(self) -> Array:
        """The image that the crops are marked in: the reference, or the input without one."""
        hr, lr = self.comparison.hr, self.comparison.lr
        return lr if hr is None else hr

    def pixels(self, name: str | None, crop: Crop | None = None) -> Pixels:
        """A panel, or the whole image without a name, as 8-bit RGB; all of it or a crop."""
        image = self.whole if name is None else self.images[name]
        part = image if crop is None else crop.of(image)
        if name == "difference" and self.diverging is not None:
            return self.diverging.pixels(part)
        return self.contrast.pixels(part)


def content_of(comparison: Comparison, options: FigureOptions | None = None) -> Content:
    """What a figure of a comparison shows, measured but not drawn.

    Raises
    ------
    OptionError
        A requested panel does not exist, or a crop lies outside the image.
    """
    options = options or FigureOptions()
    images = comparison.images()
    if options.panels is not None and (missing := set(options.panels) - set(images)):
        missing_names = ", ".join(sorted(missing, key=PANELS.index))
        raise OptionError(
            f"expected panels among {', '.join(images)}; there is no {missing_names} of "
            f"{comparison.name or 'this image'}"
        )
    images = {name: images[name] for name in options.panels or images}
    for crop in options.crops:
        crop.check(*comparison.shape[:2])
    crops = options.crops or (_default_crop(comparison),)
    difference = images.get("difference")
    notes = (LEFT_OUT,) if comparison.difference is None and options.panels is None else ()
    contrast = Contrast.of(comparison, options.contrast)
    diverging = None if difference is None else Diverging.of(difference, crops)
    scores = comparison.scores(images)
    return Content(comparison, options, images, scores, crops, contrast, diverging, notes)


def _default_crop(comparison: Comparison) -> Crop:
    """Where the reference has the most detail, or the result without one."""
    images = (comparison.hr, comparison.delta, comparison.baseline)
    image = next((i for i in images if i is not None), None)
    if image is None:
        image = comparison.images()["bicubic"]
    height, width = comparison.shape[:2]
    side = default_side(height, width, comparison.scale)
    return busiest(image, side, comparison.scale)


def default_side(height: int, width: int, scale: int) -> int:
    """A side that shows detail and is easy to find in the whole image; a multiple of the scale."""
    shorter = min(height, width)
    side = min(max(shorter // CROP_SHARE, SMALLEST_CROP), LARGEST_CROP, max(shorter // 2, 1))
    return max(side // scale * scale, min(scale, shorter))


def busiest(image: NDArray[Any], side: int, scale: int = 1) -> Crop:
    """The square with the most detail, its corner on a whole LR pixel.

    Values of the image [Y,X] or [Y,X,C] that are not finite count as 0.
    """
    gray = image.astype(np.float64)
    gray = gray.mean(-1) if gray.ndim == 3 else gray
    gray[~np.isfinite(gray)] = 0
    detail = np.zeros_like(gray)
    detail[:-1] += np.abs(np.diff(gray, axis=0))
    detail[:, :-1] += np.abs(np.diff(gray, axis=1))
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    )[::scale, ::scale]
    top, left = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return Crop(int(top) * scale, int(left) * scale, side)
