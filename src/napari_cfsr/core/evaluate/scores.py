"""PSNR and SSIM of several results against one reference, in one pass.

The scores are those of `psnr` (to the last digit) and `ssim` (to 1e-6) in a fraction of the time,
because an evaluation should cost little beside the model: what depends on the reference alone is
computed once, SSIM in float32, and no array is larger than a strip of rows, so that all of them
stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.evaluate.report import Scores
from napari_cfsr.core.metrics import (
    WINDOW,
    Channel,
    Float64,
    ImagePair,
    SSIMReference,
    check_windows,
    decibels,
    luma,
    row_strips,
)

STRIP_VALUES = 2**17  # of a channel, in a strip
LARGEST_STRIP = 256  # rows


def score_images(
    images: Mapping[str, NDArray[Any]],
    reference: NDArray[Any],
    channel: Channel = "Y",
    shave: int = 0,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Scores]:
    """PSNR and SSIM of each image as it is, and rounded to 8 bits.

    The images are float in [0,1]. A reference of uint8 or uint16 is divided by 255 or 65535.
    `check` is called several times a second and may raise to stop; the rest is as for `ssim`.
    """
    for image in images.values():
        check_windows(ImagePair(image, reference, shave, channel))
    totals = {name: (_Total(), _Total()) for name in images}
    inside = tuple(slice(shave, n - shave) for n in reference.shape[:2])
    images, reference = {name: im[inside] for name, im in images.items()}, reference[inside]
    step = min(max(WINDOW, STRIP_VALUES // reference.shape[1]), LARGEST_STRIP)
    for rows in row_strips(reference.shape[0], step, WINDOW):
        check()
        fresh = slice(WINDOW - 1 if rows.start else 0, None)  # rows that no strip before has
        targets = [
            (plane[fresh], SSIMReference.of(plane.astype(np.float32)))
            for plane in _planes(reference[rows], channel)
        ]
        for name, image in images.items():
            seen = image[rows], _in_8_bits(image[rows])
            for total, part in zip(totals[name], seen, strict=True):
                for plane, (wanted, target) in zip(_planes(part, channel), targets, strict=True):
                    total.add_error(plane[fresh] - wanted)
                    total.add_similarity(target.similarity(plane.astype(np.float32)))
    return {name: Scores(a.psnr, a.ssim, b.psnr, b.ssim) for name, (a, b) in totals.items()}


def _in_8_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    """As `upscale` rounds: in the precision of the image."""
    return np.asarray(np.rint(image * 255), np.uint8)


def _planes(image: NDArray[Any], channel: Channel) -> list[Float64]:
    """What is compared, in [0,1]: a plane for each channel."""
    whole = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    if channel == "Y":
        return [luma(image, whole)]
    values = image / np.float64(whole)
    return [values] if image.ndim == 2 else [values[..., c] for c in range(image.shape[-1])]


@dataclass
class _Total:
    """Adds up the strips of one image."""

    error: float = 0.0
    values: int = 0
    similarity: float = 0.0
    windows: int = 0

    def add_error(self, difference: Float64) -> None:
        difference *= difference
        self.error += float(difference.sum())
        self.values += difference.size

    def add_similarity(self, similarity: NDArray[np.floating[Any]]) -> None:
        self.similarity += float(similarity.sum(axis=1).sum(dtype=np.float64))
        self.windows += similarity.size

    @property
    def psnr(self) -> float:
        return decibels(self.error / self.values)

    @property
    def ssim(self) -> float:
        return self.similarity / self.windows
