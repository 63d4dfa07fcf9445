"""Upscaling an array of any kind and size: tiles in, tiles out, nothing else in memory.

The command line, the Python API and the widget all run `iter_upscale`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model, ModelInfo
from napari_cfsr.core.image import ArrayLike, Axes, IntensityMapping, Limits, Mode
from napari_cfsr.core.upscale.generators import exhaust
from napari_cfsr.core.upscale.options import (
    OUTPUTS,
    Noise,
    UpscaleOptions,
    UpscaleProgress,
    noise_option,
)
from napari_cfsr.core.upscale.tile_run import TileRun

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class UpscaleResult:
    """The result, axes in the order of the input.

    Attributes
    ----------
    baseline : array or None
        Backbone output in the dtype of the input; None if not asked for.
    delta : array or None
        Refined output; None without a refiner or if not asked for.
    difference : array of float32 or None
        delta - baseline before rounding, signed, in units of the data; alpha is left out.
    axes : Axes
        Axes of what was upscaled, input pixels.
    info : ModelInfo
        The model as it was at the end.
    options : UpscaleOptions
        As run: tile and halo are numbers.
    mapping : tuple of IntensityMapping
        One for each independent channel.
    seconds : float
        From start to end.
    notes : tuple of str
        What the user should know.
    """

    baseline: Array | None
    delta: Array | None
    difference: Array | None
    axes: Axes
    info: ModelInfo
    options: UpscaleOptions
    mapping: tuple[IntensityMapping, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def arrays(self) -> dict[str, Array]:
        """The arrays there are, by name."""
        named = {name: getattr(self, name) for name in OUTPUTS}
        return {name: array for name, array in named.items() if array is not None}


def upscale(
    image: ArrayLike,
    model: Model,
    axes: str | None = None,
    ensemble: bool = False,
    tile: int | None = None,
    progress: Callable[[UpscaleProgress], None] | None = None,
    *,
    rgb: bool | None = None,
    outputs: tuple[str, ...] | None = None,
    back_projection: bool = False,
    halo: int | Literal["exact"] | None = None,
    intensity: Mode | Limits = "auto",
    region: tuple[Limits, Limits] | None = None,
    refiner_ensemble: bool = False,
    noise: Noise = None,
) -> UpscaleResult:
    """Upscale an image, a stack or any other array with a Y and an X axis.

    Parameters
    ----------
    image : array
        numpy, dask, zarr or a memory map; bool, integer or real float. It is read a tile at a time.
    model : SRModel
        From `load_model`.
    axes : str, optional
        A letter for each dimension, such as `"TZYX"` or `"YXC"`; see `napari_cfsr.core.image.axes`.
        May be left out for [Y,X] and [Y,X,3 or 4].
    ensemble : bool
        Average over eight flips and rotations: better, eight times slower.
    tile : int, optional
        Side of a tile, LR pixels; by default from the free memory.
    progress : callable, optional
        Called with an `UpscaleProgress` after each batch of tiles; may raise to stop.
    rgb : bool, optional
        Whether the axis `C` holds colour samples; see `napari_cfsr.core.image.axes.parse_axes`.
    outputs : tuple of {"baseline", "delta", "difference"}, optional
        By default all that the model can give.
    back_projection : bool
        One back-projection step, for input that is a bicubic reduction, at x4 only.
    halo : int or "exact", optional
        LR pixels read around a tile. 32 by default, at most 0.01 grey levels (of 256) from the
        whole image; `"exact"` is the receptive field.
    intensity : {"auto", "dtype", "data", "percentile"} or (low, high)
        Which data values the network sees as 0 and 1; see
        `napari_cfsr.core.image.intensity.resolve_mapping`.
    region : ((top, bottom), (left, right)), optional
        Upscale these rows and columns only. Their surroundings are seen, so the result is that part
        of the whole; only a range of intensities is taken from the region alone.
    refiner_ensemble : bool
        Average the refiner alone over eight flips and rotations, where it runs on the input: nearly
        as good as `ensemble`, at little cost.
    noise : NoiseModel or tuple of them, optional
        Of the image or each channel, in data values, for a refiner that has to be told it; by
        default that it was trained for, else an estimate from the image.

    Returns
    -------
    UpscaleResult
        Arrays of exactly `scale` times the size in Y and X, in the dtype and axes order of the
        input. NaN, infinity and values more than a thousand times outside the intensity range are
        enlarged by repetition, the last with a note. Alpha is resized bicubically.

    Raises
    ------
    ImageError
        Axes, shape or dtype can't be used.
    OptionError
        An option does not exist or does not fit.
    OutOfMemoryError
        The result, or even the smallest tile, does not fit.
    """
    options = UpscaleOptions(
        axes, rgb, outputs, ensemble, back_projection, tile, halo, intensity, region,
        refiner_ensemble, noise_option(noise),
    )  # fmt: skip
    return exhaust(iter_upscale(image, model, options), progress)


def iter_upscale(
    image: ArrayLike,
    model: Model,
    options: UpscaleOptions | None = None,
    check: Check = lambda: None,
) -> Generator[UpscaleProgress, None, UpscaleResult]:
    """Upscale step by step: yields progress after each batch of tiles, returns the result.

    Parameters
    ----------
    image, model, options
        As for `upscale`.
    check : callable
        Called several times a second, also inside a tile; an exception from it ends the run.
    """
    started = time.perf_counter()
    run = TileRun(image, model, options or UpscaleOptions(), check)
    yield from run.tiles()
    return UpscaleResult(
        **{name: run.arrays.get(name) for name in OUTPUTS},
        axes=run.part,
        info=model.info,
        options=replace(run.options, tile=run.tile),
        mapping=run.mappings,
        seconds=time.perf_counter() - started,
        notes=model.info.notes + tuple(run.notes),
    )
