"""Images for training and validating backbones, decoded once: pairs of uint8 [h,w,3]."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import imresize
from napari_cfsr.core.training import folder_data
from napari_cfsr.errors import ImageError

UInt8 = NDArray[np.uint8]
Pair = tuple[UInt8, UInt8]  # LR, HR

SMALLEST = 8  # LR pixels to each side
VALIDATION_SHARE = 0.05  # of the images, if there is no folder for validation


@dataclass(eq=False)
class Pairs:
    """Images of a folder with their LR versions."""

    names: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)  # uint8, [h,w,3] and [h*scale,w*scale,3]
    notes: list[str] = field(default_factory=list)  # what was left out

    @property
    def named(self) -> list[tuple[str, Pair]]:
        return list(zip(self.names, self.pairs, strict=True))

    def split(self, seed: int) -> tuple[Pairs, Pairs]:
        """Images for training and others for validation, chosen by the seed.

        Raises
        ------
        ImageError
            There is only one image.
        """
        count = max(1, round(VALIDATION_SHARE * len(self.names)))
        if count == len(self.names):
            raise ImageError(
                f"expected at least two images, one of them for validation, got "
                f"{len(self.names)}: add images, or choose a folder for validation"
            )
        order = np.random.default_rng(seed).permutation(len(self.names))
        parts = sorted(order[count:]), sorted(order[:count])
        train, validation = (
            Pairs([self.names[i] for i in part], [self.pairs[i] for i in part]) for part in parts
        )
        return train, validation


def iter_pairs(
    folder: str | os.PathLike[str], scale: int
) -> Generator[tuple[int, int, str], None, Pairs]:
    """Read the images of a folder; yields number, count and name of each before it is read.

    LR images are made with MATLAB's bicubic and rounded to uint8, as in the benchmarks.

    Raises
    ------
    FileFormatError
        There is no such folder, or no image in it.
    ImageError
        No image can be read.
    """
    data = folder_data(folder, "dtype")
    found = Pairs(notes=list(data.notes))
    for number, source in enumerate(data.hr):
        yield number, len(data.hr), source.name
        try:
            image = source.read()
        except ImageError as error:
            found.notes.append(str(error))
            continue
        if min(image.shape[:2]) < SMALLEST * scale:
            height, width = image.shape[:2]
            found.notes.append(
                f"{source.name}: expected at least {SMALLEST * scale} pixels in Y and X, got "
                f"{width}x{height}"
            )
            continue
        rgb = np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image
        found.names.append(source.name)
        found.pairs.append(reduced((rgb.clip(0, 1) * 255).round().astype(np.uint8), scale))
    if not found.names:
        raise ImageError(f"expected images in {folder}, none can be read ({found.notes[0]})")
    return found


def reduced(hr: UInt8, scale: int) -> Pair:
    """LR by MATLAB's bicubic, and HR cropped to whole LR pixels; uint8 [y,x,3]."""
    height, width = (n // scale * scale for n in hr.shape[:2])
    cropped = hr[:height, :width]
    return imresize(cropped, 1 / scale), cropped
