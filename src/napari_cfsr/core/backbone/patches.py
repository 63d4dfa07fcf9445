"""Random patches of LR and HR images that are held in the memory of the training device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfsr.errors import ImageError

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]


class PatchPool:
    """Whole images in one block of device memory, from which random patches are taken.

    Pairs of LR and HR images are uint8, [h,w,3] and [h*scale,w*scale,3]; `patch` is the side of a
    patch in LR pixels. Raises `ImageError` if no image is large enough.
    """

    def __init__(
        self, pairs: Sequence[tuple[UInt8, UInt8]], scale: int, patch: int, device: str
    ) -> None:
        large = [(lr, hr) for lr, hr in pairs if min(lr.shape[:2]) >= patch]
        if not large:
            raise ImageError(
                f"expected images of at least {patch * scale} pixels in Y and X, got none: "
                "choose a smaller patch or larger images"
            )
        for lr, hr in large:
            if hr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale):
                raise ImageError(
                    f"expected HR images {scale} times as large as the LR ones, got {hr.shape} and "
                    f"{lr.shape}"
                )
        self.count = len(large)
        self.patch, self.scale, self.device = patch, scale, device
        self._pixels = [
            torch.from_numpy(np.concatenate([x.reshape(-1, 3) for x in images])).to(device)
            for images in zip(*large, strict=True)
        ]
        self._sizes = np.array([lr.shape[:2] for lr, _ in large])
        self._starts = np.concatenate([[0], self._sizes.prod(1).cumsum()[:-1]])
        places = (self._sizes - patch + 1).prod(1)
        self._chances = places / places.sum()

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Patches [N,3,p,p] and [N,3,p*scale,p*scale] in [0,1], flipped and turned at random."""
        image = rng.choice(len(self._sizes), count, p=self._chances)
        top, left = (rng.random((2, count)) * (self._sizes[image].T - self.patch + 1)).astype(int)
        flips = rng.integers(0, 2, (3, count))  # up-down, left-right, transposed
        lr, hr = (
            self._cut(pixels, image, top, left, flips, scale)
            for pixels, scale in zip(self._pixels, (1, self.scale), strict=True)
        )
        return lr, hr

    def _cut(
        self, pixels: Tensor, image: Ints, top: Ints, left: Ints, flips: Ints, scale: int
    ) -> Tensor:
        """Cut with one gather: flips and rotations are in the order of the indices."""
        size = self.patch * scale
        width = self._sizes[image, 1] * scale
        first = self._starts[image] * scale**2 + (top * width + left) * scale
        numbers = np.stack([first, width, *flips]).astype(np.int64)
        first_, width_, flip_y, flip_x, turn = torch.from_numpy(numbers).to(self.device)[
            :, :, None, None
        ]
        along = torch.arange(size, device=self.device)
        rows, columns = along[None, :, None], along[None, None, :]
        y, x = torch.where(turn == 1, columns, rows), torch.where(turn == 1, rows, columns)
        y = torch.where(flip_y == 1, size - 1 - y, y)
        x = torch.where(flip_x == 1, size - 1 - x, x)
        cut = pixels[first_ + y * width_ + x]  # [N,p,p,3]: channels last already
        return cut.permute(0, 3, 1, 2).float() / 255
