"""Small sets of real images to train on, and how to run a training to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from napari_cfsr import read_image
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import TrainData, array_data
from napari_cfsr.core.training.results import TrainedRefiner, TrainProgress


@dataclass(frozen=True, eq=False)
class Plane:
    """An image that is made when it is read, or can't be."""

    name: str
    group: str
    make: Callable[[], np.ndarray]
    site: str = ""

    def read(self) -> np.ndarray:
        return self.make()


def planes(images: list[np.ndarray], groups: list[str] | None = None) -> tuple[Plane, ...]:
    """Images in [0,1], each of a group of its own unless `groups` are given."""
    return tuple(
        Plane(
            f"image {i}", groups[i] if groups else f"image {i}", lambda image=image: image, f"Z{i}"
        )  # type: ignore[misc]
        for i, image in enumerate(images)
    )


@lru_cache(maxsize=8)
def sim(data: Path, count: int = 10, side: int = 128, first: int = 0) -> tuple[np.ndarray, ...]:
    """Fluorescence, halved: the middle of evenly chosen images, gray in [0,1]."""
    files = sorted((data / "microscopy" / "sim").glob("*.png"))
    chosen = files[first :: len(files) // count][:count]
    return tuple(_middle(imresize(_unit(file), 0.5), side) for file in chosen)


@lru_cache(maxsize=8)
def photos(data: Path, count: int = 8, side: int = 192, first: int = 0) -> tuple[np.ndarray, ...]:
    """Photographs: the middle of evenly chosen ones, RGB in [0,1]."""
    files = sorted((data / "train" / "photos").glob("*.jpg"))
    chosen = files[first :: len(files) // count][:count]
    return tuple(_middle(_unit(file), side) for file in chosen)


def _unit(file: Path) -> np.ndarray:
    return np.squeeze(read_image(file).pixels).astype(np.float32) / 255


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return np.clip(image[top : top + side, left : left + side], 0, 1)


def request(
    images: TrainData | tuple[np.ndarray, ...] | list[np.ndarray],
    scale: int = 2,
    **config: Any,
) -> TrainRequest:
    """A training on the CPU with the official backbone."""
    made = images if isinstance(images, TrainData) else array_data(images)
    load = {"scale": scale, "backbone": "official", "device": "cpu"}
    return TrainRequest(made, load, TrainConfig(**config))


def finish(
    steps: Generator[TrainProgress, None, TrainedRefiner],
) -> tuple[list[TrainProgress], TrainedRefiner]:
    """All progress, and the result."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
