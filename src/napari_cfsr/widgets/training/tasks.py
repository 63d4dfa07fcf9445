"""What the buttons of the Train form compute, in a worker: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import (
    Degradation,
    IntensityMapping,
    imresize,
    parse_axes,
    resolve_mapping,
)
from napari_cfsr.core.training import TrainConfig, array_sources, folder_data
from napari_cfsr.layers import ImageInput

if TYPE_CHECKING:
    from napari_cfsr.core.image import Estimate, Shift

MOST_PIXELS = 1536  # in each direction, to estimate from
MOST_SHARP = 4  # HR images that the blur is estimated from
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated LR image, in the dtype, units and axes of its source."""

    pixels: NDArray[Any]
    name: str  # of the source
    source: ImageInput | None  # the layer and slice that was reduced; None for a file
    scale: int  # of the training
    factor: int  # width of an LR pixel in HR pixels
    degradation: Degradation


def simulate(
    source: tuple[ImageInput, ImageInput] | Path, config: TrainConfig, scale: int
) -> Simulated:
    """Simulate the LR image of an HR image, with the degradation of the form.

    The source is a whole layer, for the range of its intensities, and the slice of it that is
    shown; or a folder, whose first image is taken.
    """
    factor = scale * config.reduce
    if isinstance(source, Path):
        first = folder_data(source, config.intensity).hr[0]
        lr = _degraded(first.read(), config, scale, 0)
        return Simulated(lr, first.name, None, scale, factor, config.degradation)
    whole, shown = source
    axes = parse_axes(shown.axes, tuple(shown.data.shape), rgb=False)
    planes = [
        mapping.from_unit(_degraded(hr, config, scale, i))
        for i, (hr, mapping) in enumerate(_shown_planes(whole, shown, config))
    ]
    names = [axes.names[i] for i in axes.looped] + list("YXS"[: planes[0].ndim])
    stack = np.reshape(planes, (*(axes.shape[i] for i in axes.looped), *planes[0].shape))
    pixels = stack.transpose([names.index(name) for name in axes.names])
    return Simulated(pixels, shown.name, shown, scale, factor, config.degradation)


def _shown_planes(
    whole: ImageInput, shown: ImageInput, config: TrainConfig
) -> Iterator[tuple[Float32, IntensityMapping]]:
    """[Y,X] or [Y,X,3] in the units of the whole layer, as a training sees them."""
    everything = parse_axes(whole.axes, tuple(whole.data.shape), rgb=False)
    mappings = resolve_mapping(whole.data, everything, config.intensity)
    axes = parse_axes(shown.axes, tuple(shown.data.shape), rgb=False)
    first_channel = shown.region[axes.names.index("C")].start if "C" in axes.names else 0
    for plane in axes.planes():
        samples = axes.read(shown.data, plane, slice(0, axes.height), slice(0, axes.width))
        samples = samples[: axes.samples - axes.has_alpha]
        mapping = mappings[axes.channel_of(plane) + first_channel]
        image = samples[0] if len(samples) == 1 else np.moveaxis(samples, 0, -1)
        yield mapping.to_unit(image), mapping


def _degraded(hr: Float32, config: TrainConfig, scale: int, plane: int) -> Float32:
    """As in training: reduced, degraded, with independent noise for each plane."""
    if config.reduce > 1:
        hr = imresize(hr, 1 / config.reduce)
    rng = np.random.default_rng([config.run_seed, plane])
    return config.degradation.apply(np.clip(hr, 0, 1).astype(np.float32), scale, rng)


def estimate(
    real: tuple[ImageInput, ImageInput],
    hr: tuple[ImageInput, ...] | Path,
    config: TrainConfig,
    scale: int,
) -> Estimate:
    """Estimate noise of a real LR image, and its blur if there are HR images of the same kind.

    `real` is a whole layer, for the range of its intensities, and the slice of it that is shown.
    """
    from napari_cfsr.core.image import estimate_degradation

    if isinstance(hr, Path):
        sharp = [source.read() for source in folder_data(hr, config.intensity).hr[:MOST_SHARP]]
    else:
        sharp = [plane for image in hr[:MOST_SHARP] for plane in _planes(image, config)]
    if config.reduce > 1:
        sharp = [imresize(image, 1 / config.reduce) for image in sharp]
    sharp = [_middle(image) for image in sharp]
    noisy = [_middle(image) for image, _ in _shown_planes(*real, config)]
    return estimate_degradation(noisy, sharp or None, scale)


def _middle(image: Float32) -> Float32:
    """The middle of a large image, in [0,1]: more takes longer and adds nothing."""
    top, left = (max(0, (n - MOST_PIXELS) // 2) for n in image.shape[:2])
    return np.clip(image[top : top + MOST_PIXELS, left : left + MOST_PIXELS], 0, 1)


def measure_shift(lr: ImageInput, hr: ImageInput, config: TrainConfig, scale: int) -> Shift:
    """Shift between the images of a measured pair."""
    from napari_cfsr.core.image import estimate_shift

    return estimate_shift(_planes(lr, config)[0], _planes(hr, config)[0], scale)


def _planes(image: ImageInput, config: TrainConfig) -> list[Float32]:
    """[Y,X] or [Y,X,3] in [0,1], not clipped."""
    planes = array_sources(image.data, image.name, image.axes, config.intensity, rgb=False)
    return [plane.read() for plane in planes]
