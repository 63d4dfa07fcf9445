"""A stand-in for the network where a test is about everything around it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import uniform_filter

from napari_cfsr.core.engine.model import ModelInfo, PredictOptions
from napari_cfsr.core.image.tiling import scaled
from napari_cfsr.errors import OutOfMemoryError

FIELD = 2  # LR pixels a pixel depends on, to each side


class BoxModel:
    """Enlarges by repetition after a 5x5 mean with zero padding; delta is 0.25 more.

    It says that `memory` bytes are free; beyond `most_pixels` LR pixels it is out of memory, until
    it moves to the CPU.
    """

    def __init__(
        self,
        scale: int = 2,
        refiner: bool = False,
        memory: int = 10**10,
        most_pixels: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.device, self.memory, self.most_pixels = device, memory, most_pixels
        self._scale, self._refiner = scale, refiner
        self.batches: list[tuple[int, ...]] = []
        self.devices: list[str] = []  # one for each batch

    @property
    def info(self) -> ModelInfo:
        name = "fake" if self._refiner else None
        return ModelInfo(
            self._scale, "fake", "0", "", name, name, name, name and "output", "fake",
            self.device, "float32",
        )  # fmt: skip

    def predict(
        self, batch: np.ndarray, how: PredictOptions, check: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        check()
        self.batches.append(batch.shape)
        self.devices.append(self.device)
        pixels = batch.shape[0] * batch.shape[2] * batch.shape[3]
        if self.most_pixels is not None and pixels > self.most_pixels:
            raise OutOfMemoryError("out of memory")
        smooth = uniform_filter(
            batch.astype(np.float64), (0, 0, 2 * FIELD + 1, 2 * FIELD + 1), mode="constant"
        )
        base = smooth.repeat(self._scale, 2).repeat(self._scale, 3).astype(np.float32)
        result = {"baseline": base, "delta": base + np.float32(0.25)}
        crop = slice(None), slice(None)
        if how.crop is not None:
            crop = scaled(how.crop, self._scale)
        return {name: result[name][:, :, *crop] for name in how.outputs}

    def free_memory(self) -> int:
        return self.memory

    def to_cpu(self) -> bool:
        moved, self.device, self.most_pixels = self.device != "cpu", "cpu", None
        return moved
