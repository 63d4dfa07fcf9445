"""Small sets of images, a tiny backbone, and how to run a training to its end.

The official backbone and the data of `../shared` are only needed where figures count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from napari_cfsr import read_image
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import TrainData, array_data
from napari_cfsr.core.training.results import TrainedRefiner, TrainProgress
from napari_cfsr.core.upscale import exhaust


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
        )
        for i, image in enumerate(images)
    )


@lru_cache(maxsize=8)
def sim(data: Path, count: int = 10, side: int = 128, first: int = 0) -> tuple[np.ndarray, ...]:
    """Fluorescence, halved: the middle of evenly chosen images, gray in [0,1]."""
    files = sorted((data / "microscopy" / "sim").glob("*.png"))
    chosen = files[first :: len(files) // count][:count]
    return tuple(_middle(imresize(_unit(file), 0.5), side) for file in chosen)


def _unit(file: Path) -> np.ndarray:
    return np.squeeze(read_image(file).pixels).astype(np.float32) / 255


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return np.clip(image[top : top + side, left : left + side], 0, 1)


@lru_cache(maxsize=8)
def spots(count: int = 10, side: int = 96) -> tuple[np.ndarray, ...]:
    """Gray pieces of a dark image with bright spots, which scikit-image comes with, in [0,1]."""
    return _pieces(skimage.data.hubble_deep_field()[..., 1], count, side)


@lru_cache(maxsize=8)
def colours(count: int = 8, side: int = 96) -> tuple[np.ndarray, ...]:
    """RGB pieces of a photograph that scikit-image comes with, in [0,1]."""
    return _pieces(skimage.data.coffee(), count, side)


@lru_cache(maxsize=8)
def photographs(count: int = 4, side: int = 208) -> tuple[np.ndarray, ...]:
    """Gray pieces of a photograph that scikit-image comes with, in [0,1]."""
    return _pieces(skimage.data.camera(), count, side)


def _pieces(image: np.ndarray, count: int, side: int) -> tuple[np.ndarray, ...]:
    """The first squares, row by row."""
    rows, columns = (n // side for n in image.shape[:2])
    places = [(y * side, x * side) for y in range(rows) for x in range(columns)][:count]
    assert len(places) == count
    unit = image.astype(np.float32) / 255
    return tuple(unit[y : y + side, x : x + side] for y, x in places)


_FOLDER = tempfile.TemporaryDirectory()  # removed at exit


@lru_cache(maxsize=4)
def tiny_backbone(scale: int = 2) -> Path:
    """File of a CFSR with three small blocks, which interpolates and sharpens.

    Like a real backbone it amplifies noise, so that a refiner has something to gain.
    """
    import torch

    from napari_cfsr.core.backbone.files import save_backbone
    from napari_cfsr.core.backbone.initial_weights import fresh
    from napari_cfsr.core.network.cfsr import CFSRConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = fresh(CFSRConfig(scale=scale, embed_dim=8, depths=(2, 1), kernel_size=3))
    sharpen = torch.full((3, 3), -2 / 9)
    sharpen[1, 1] += 3
    with torch.no_grad():
        for colour in range(3):
            network.conv_first.weight[colour, colour] = sharpen
    path = Path(_FOLDER.name) / f"tiny_x{scale}.safetensors"
    return save_backbone(path, network.merge().state_dict(), {})


def request(
    images: TrainData | tuple[np.ndarray, ...] | list[np.ndarray],
    scale: int = 2,
    backbone: str | Path | None = None,
    **config: Any,
) -> TrainRequest:
    """A training on the CPU, by default with the tiny backbone."""
    made = images if isinstance(images, TrainData) else array_data(images)
    load = {"scale": scale, "backbone": backbone or tiny_backbone(scale), "device": "cpu"}
    return TrainRequest(made, load, TrainConfig(**config))


def finish(
    steps: Generator[TrainProgress, None, TrainedRefiner],
) -> tuple[list[TrainProgress], TrainedRefiner]:
    """All progress, and the result."""
    seen: list[TrainProgress] = []
    return seen, exhaust(steps, seen.append)
