"""Training data as chosen when the button was pressed; read in the worker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from napari_cfsr.core.training import (
    ArraySource,
    TrainConfig,
    TrainData,
    array_sources,
    folder_data,
    noisy_data,
    pair_data,
)
from napari_cfsr.errors import ImageError, OptionError
from napari_cfsr.layers.image_input import ImageInput

Planes = list[ArraySource]


@dataclass(frozen=True, eq=False)
class TrainInput:
    """Layers, a folder, or measured pairs of either; made on the GUI thread, reads nothing."""

    # snapshots of layers (`layers.read_layer`), or a folder of images; for pairs also a file
    hr: tuple[ImageInput, ...] | Path
    # the measured LR images, in the order of `hr`. None: LR images are simulated
    lr: tuple[ImageInput, ...] | Path | None = None
    noisy: bool = False  # whether `hr` are noisy images to train on as they are


@dataclass(frozen=True, eq=False)
class TrainJob:
    """All that `workers.train_worker` needs."""

    data: TrainInput
    load: dict[str, Any]  # `scale`, `backbone`, `device`, `download`: arguments of `load_model`
    config: TrainConfig


def training_data(
    source: TrainInput, config: TrainConfig, check: Callable[[], None] = lambda: None
) -> TrainData:
    """Read the training data. May take long: for a worker, not for the GUI thread.

    Parameters
    ----------
    source : TrainInput
    config : TrainConfig
        Its `intensity` maps the values.
    check : callable
        Called for each plane that is read; may raise to stop.

    Raises
    ------
    ImageError, FileFormatError
        The images can't be used, or there are not as many LR as HR ones.
    OptionError
        One side is layers and the other files.
    """
    hr, lr = source.hr, source.lr
    if isinstance(hr, Path):
        if source.noisy:
            return noisy_data([hr], config.intensity)
        if lr is None:
            return folder_data(hr, config.intensity)
        if isinstance(lr, Path):
            return pair_data(lr, hr, config.intensity)
    elif lr is None:
        planes = [_planes(image, config, check) for image in hr]
        return TrainData(
            tuple(chain(*planes)), None, _origin(hr), _thinned(hr, planes), noisy=source.noisy
        )
    elif not isinstance(lr, Path):
        return _layer_pairs(hr, lr, config, check)
    raise OptionError("expected LR and HR images both from layers or both from files, got one each")


def _layer_pairs(
    hr: tuple[ImageInput, ...],
    lr: tuple[ImageInput, ...],
    config: TrainConfig,
    check: Callable[[], None],
) -> TrainData:
    """Measured pairs of layers, in their order."""
    if len(hr) != len(lr):
        raise ImageError(
            f"expected an LR layer for each HR layer, got {len(lr)} LR and {len(hr)} HR layers"
        )
    sides: tuple[list[Planes], list[Planes]] = ([], [])
    for pair in zip(hr, lr, strict=True):
        for side, image in zip(sides, pair, strict=True):
            side.append(_planes(image, config, check))
        counts = len(sides[0][-1]), len(sides[1][-1])
        if counts[0] != counts[1]:
            raise ImageError(
                f"expected as many planes in both layers of a pair, got {counts[1]} in LR "
                f"'{pair[1].name}' and {counts[0]} in HR '{pair[0].name}'"
            )
    origin = f"{_origin(lr)} and {_origin(hr)}"
    return TrainData(
        tuple(chain(*sides[0])), tuple(chain(*sides[1])), origin, _thinned(hr, sides[0])
    )


class _CheckedArray:
    """An array that calls `check` before each read."""

    def __init__(self, array: Any, check: Callable[[], None]) -> None:
        self.shape, self.dtype = tuple(array.shape), array.dtype
        self._array, self._check = array, check

    def __getitem__(self, key: Any) -> Any:
        self._check()
        return self._array[key]


def _planes(image: ImageInput, config: TrainConfig, check: Callable[[], None]) -> Planes:
    """The planes of a layer, cut to the chosen rows and columns."""
    data = image.data
    if image.part is not None:
        part = dict(zip("YX", image.part, strict=True))
        data = data[tuple(slice(*part[a]) if a in part else slice(None) for a in image.axes)]
    # colour samples are called S, so C are independent channels
    array = _CheckedArray(data, check)
    return array_sources(array, image.name, image.axes, config.intensity, rgb=False)


def _origin(images: tuple[ImageInput, ...]) -> str:
    return ", ".join(image.name for image in images)


def _thinned(images: tuple[ImageInput, ...], planes: list[Planes]) -> tuple[str, ...]:
    """Notes on stacks of which only some planes are used."""
    notes = []
    for image, used in zip(images, planes, strict=True):
        sizes = zip(image.axes, image.data.shape, strict=True)
        count = math.prod(n for a, n in sizes if a not in "YXS")
        if count > len(used):
            notes.append(f"{image.name}: {len(used)} of its {count} planes are used, evenly spaced")
    return tuple(notes)
