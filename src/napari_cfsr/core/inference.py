"""Upscaling an array of any kind and size: tiles in, tiles out, nothing else held.

`iter_upscale` is the one way through: the command line, the Python API and the widget all run it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from napari_cfsr.core.axes import ArrayLike, Axes, Plane, parse_axes
from napari_cfsr.core.degradation import imresize
from napari_cfsr.core.intensity import IntensityMapping, Limits, Mode, resolve_mapping
from napari_cfsr.core.model import (
    BACK_PROJECTION_FIELD,
    SMALLEST_TILE,
    Check,
    Model,
    ModelInfo,
    Prediction,
    check_back_projection,
)
from napari_cfsr.core.tiling import ALIGN, Tile, scaled, tile_grid
from napari_cfsr.errors import ImageError, OptionError, OutOfMemoryError

Array = NDArray[Any]
Float32 = NDArray[np.float32]

OUTPUTS = ("baseline", "delta", "difference")
DEFAULT_HALO = 32  # LR pixels: at most 0.002 grey levels from the whole image, by FACTS


@dataclass(frozen=True)
class UpscaleOptions:
    """How to upscale; see `upscale` for each.

    Attributes
    ----------
    outputs : tuple of str or None
        None: all that the model can give.
    """

    axes: str | None = None
    rgb: bool | None = None
    outputs: tuple[str, ...] | None = None
    ensemble: bool = False
    back_projection: bool = False
    tile: int | None = None
    halo: int | Literal["exact"] | None = None
    intensity: Mode | Limits = "auto"


@dataclass(frozen=True)
class UpscaleProgress:
    """How far a run is.

    Attributes
    ----------
    done, total : int
        LR pixels.
    seconds : float
        Since the first tile began.
    note : str
        What the user should know, such as a smaller tile after running out of memory.
    """

    done: int
    total: int
    seconds: float
    note: str = ""

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None before the first tile is done."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None


@dataclass(frozen=True, eq=False)
class UpscaleResult:
    """What comes out, axes in the order of the input.

    Attributes
    ----------
    baseline : array or None
        Backbone output in the dtype of the input; None if not asked for.
    delta : array or None
        Refined output; None without a refiner or if not asked for.
    difference : array of float32 or None
        delta - baseline before rounding, signed, in units of the data; alpha is left out.
    axes : Axes
        Axes of the input.
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
) -> UpscaleResult:
    """Upscale an image, a stack or any other array with a Y and an X axis.

    Parameters
    ----------
    image : array
        numpy, dask, zarr or a memory map; bool, integer or real float. It is read a tile at a time.
    model : SRModel
        From `load_model`.
    axes : str, optional
        A letter for each dimension, such as `"TZYX"` or `"YXC"`; see `napari_cfsr.core.axes`. May
        be left out for [Y,X] and [Y,X,3 or 4].
    ensemble : bool
        Average over eight flips and rotations: better, eight times slower.
    tile : int, optional
        Side of a tile, LR pixels; by default from the free memory.
    progress : callable, optional
        Called with an `UpscaleProgress` after each batch of tiles; may raise to stop.
    rgb : bool, optional
        Whether the axis `C` holds colour samples; see `napari_cfsr.core.axes.parse_axes`.
    outputs : tuple of {"baseline", "delta", "difference"}, optional
        By default all that the model can give.
    back_projection : bool
        One back-projection step, for input that is a bicubic reduction, at x4 only.
    halo : int or "exact", optional
        LR pixels read around a tile. 32 by default, at most 0.01 grey levels (of 256) from the
        whole image; `"exact"` is the receptive field.
    intensity : {"auto", "dtype", "data", "percentile"} or (low, high)
        Which data values the network sees as 0 and 1; see
        `napari_cfsr.core.intensity.resolve_mapping`.

    Returns
    -------
    UpscaleResult
        Arrays of exactly `scale` times the size in Y and X, in the dtype and axes order of the
        input. NaN and infinite pixels come back as blocks of the same. Alpha is resized
        bicubically.

    Raises
    ------
    ImageError
        Axes, shape or dtype can't be used.
    OptionError
        An option does not exist or does not fit.
    OutOfMemoryError
        The result, or even the smallest tile, does not fit.
    """
    options = UpscaleOptions(axes, rgb, outputs, ensemble, back_projection, tile, halo, intensity)
    steps = iter_upscale(image, model, options)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: UpscaleResult = end.value
            return result
        if progress is not None:
            progress(step)


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
    run = _Run(image, model, options or UpscaleOptions(), check)
    yield from run.tiles()
    return UpscaleResult(
        **{name: run.arrays.get(name) for name in OUTPUTS},
        axes=run.axes,
        info=model.info,
        options=run.options,
        mapping=run.mapping,
        seconds=time.perf_counter() - started,
        notes=model.info.notes + tuple(run.notes),
    )


@dataclass
class _Run:
    """State of one run: the tiles still to do, and the arrays they go into."""

    image: ArrayLike
    model: Model
    options: UpscaleOptions
    check: Check
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        options, info = self.options, self.model.info
        if not hasattr(self.image, "shape") or not hasattr(self.image, "dtype"):
            raise ImageError(f"expected an array, got {type(self.image).__name__}")
        self.axes = parse_axes(options.axes, tuple(self.image.shape), options.rgb)
        check_back_projection(options.back_projection, info.scale)
        outputs = _check_outputs(options.outputs, info)
        halo = info.exact_halo if options.halo == "exact" else options.halo
        halo = DEFAULT_HALO if halo is None else halo
        if options.tile is not None and options.tile < 1:
            raise OptionError(f"expected tile >= 1, got {options.tile}")
        if halo < 0:
            raise OptionError(f"expected halo >= 0, got {halo}")
        # the pixels that back-projection spreads from are themselves to be true
        self.halo = halo + (BACK_PROJECTION_FIELD if options.back_projection else 0)
        self.fixed_tile = options.tile
        self.set_tile(options.tile)
        self.options = replace(options, outputs=outputs, tile=self.tile, halo=halo)
        predicted = ("baseline", "delta") if "difference" in outputs else outputs
        self.how = Prediction(tuple(predicted), options.ensemble, options.back_projection)
        self.mapping = resolve_mapping(self.image, self.axes, options.intensity, self.check)
        self.arrays = self.allocate(outputs)

    def set_tile(self, tile: int | None) -> None:
        """Choose tile and batch: as many small images at a time as one large tile has pixels."""
        free = self.model.free_memory()
        largest = self.model.info.largest_tile(free, self.halo)
        self.tile = tile or largest
        self.batch_pixels = (max(largest, self.tile) + 2 * self.halo) ** 2

    def allocate(self, outputs: tuple[str, ...]) -> dict[str, Array]:
        """Arrays for the outputs, if they fit."""
        shape = self.axes.scaled(self.model.info.scale)
        dtype = np.dtype(self.image.dtype).newbyteorder("=")
        kinds = {name: (shape, np.float32 if name == "difference" else dtype) for name in outputs}
        if "difference" in outputs and self.axes.has_alpha:
            s = self.axes.names.index("S")
            no_alpha = tuple(n - 1 if i == s else n for i, n in enumerate(shape))
            kinds["difference"] = (no_alpha, np.float32)
        needed = sum(int(np.prod(s, dtype=float)) * np.dtype(d).itemsize for s, d in kinds.values())
        free = psutil.virtual_memory().available
        if needed > free:
            raise OutOfMemoryError(
                f"the result needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: upscale "
                "a region, fewer slices or fewer outputs"
            )
        return {name: np.empty(s, d) for name, (s, d) in kinds.items()}

    def tiles(self) -> Generator[UpscaleProgress, None, None]:
        """Run all tiles; less memory than hoped for makes them smaller."""
        axes = self.axes
        total, done, started = axes.plane_count * axes.height * axes.width, 0, time.perf_counter()
        if axes.is_empty:
            return
        grid = tile_grid(axes.height, axes.width, self.tile, self.halo)
        jobs = deque((plane, tile) for plane in axes.planes() for tile in grid)
        yield UpscaleProgress(0, total, 0.0)
        while jobs:
            self.check()
            batch = self.take_batch(jobs)
            note = ""
            try:
                self.do(batch)
            except (OutOfMemoryError, MemoryError) as error:
                note = self.use_less_memory(jobs, batch, error)
                self.notes.append(note)
            else:
                done += sum(tile.pixels for _, tile in batch)
            yield UpscaleProgress(done, total, time.perf_counter() - started, note)

    def take_batch(self, jobs: deque[tuple[Plane, Tile]]) -> list[tuple[Plane, Tile]]:
        """The next tiles of one shape that fit together in memory."""
        batch = [jobs.popleft()]
        shape = batch[0][1].read_shape
        most = self.batch_pixels // (shape[0] * shape[1])
        while jobs and len(batch) < most and jobs[0][1].read_shape == shape:
            batch.append(jobs.popleft())
        return batch

    def use_less_memory(
        self, jobs: deque[tuple[Plane, Tile]], batch: list[tuple[Plane, Tile]], error: Exception
    ) -> str:
        """Put the tiles back and make what is left to do smaller, or move it to the CPU."""
        jobs.extendleft(reversed(batch))
        if len(batch) > 1:
            self.batch_pixels //= 2
            return f"out of memory: going on with {len(batch) // 2} tiles at a time"
        side = min(self.tile, max(batch[0][1].read_shape))  # the image may be smaller than a tile
        if side > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, side // 2 // ALIGN * ALIGN)
            note = f"out of memory: going on with tiles of {self.tile} pixels"
        else:
            device = self.model.info.device
            if not self.model.to_cpu():
                raise OutOfMemoryError(
                    f"out of memory with a tile of {self.tile} pixels on {device}: close other "
                    "programs or choose another device"
                ) from error
            self.set_tile(self.fixed_tile)
            note = f"out of memory on {device} with the smallest tile: going on on the CPU"
        left = [
            (plane, part)
            for plane, tile in jobs
            for part in tile_grid(
                self.axes.height, self.axes.width, self.tile, self.halo, within=tile.write
            )
        ]
        jobs.clear()
        jobs.extend(left)
        return note

    def do(self, batch: list[tuple[Plane, Tile]]) -> None:
        """Read, predict and write one batch."""
        regions = [self.axes.read(self.image, plane, *tile.read) for plane, tile in batch]
        prepared = [
            _prepare(region, self.mapping[self.axes.channel_of(plane)], self.axes.has_alpha)
            for region, (plane, _) in zip(regions, batch, strict=True)
        ]
        predicted = self.model.predict(np.stack(prepared), self.how, self.check)
        for i, ((plane, tile), region) in enumerate(zip(batch, regions, strict=True)):
            crop = (slice(None), *scaled(tile.crop, self.model.info.scale))
            parts = {name: array[i][crop] for name, array in predicted.items()}
            self.write(plane, tile, region, parts)

    def write(self, plane: Plane, tile: Tile, region: Array, parts: dict[str, Float32]) -> None:
        """Put one tile into each output, in the dtype of the output."""
        scale = self.model.info.scale
        mapping = self.mapping[self.axes.channel_of(plane)]
        where = scaled(tile.write, scale)
        spoilt = _enlarged_spoilt(region, tile, scale)
        alpha = _enlarged_alpha(region, tile, scale) if self.axes.has_alpha else None
        for name in ("baseline", "delta"):
            if name not in self.arrays:
                continue
            values = mapping.from_unit(parts[name])
            if spoilt is not None:
                values = np.where(np.isfinite(spoilt), values, spoilt)
            if alpha is not None:
                values = np.concatenate([values, alpha])
            self.axes.write(self.arrays[name], plane, *where, values)
        if "difference" in self.arrays:
            difference = mapping.to_data(parts["delta"]) - mapping.to_data(parts["baseline"])
            if spoilt is not None:
                difference = np.where(np.isfinite(spoilt), difference, np.nan)
            self.axes.write(self.arrays["difference"], plane, *where, difference)


def _check_outputs(outputs: tuple[str, ...] | None, info: ModelInfo) -> tuple[str, ...]:
    """The outputs to make, in a fixed order; all there are by default."""
    possible = OUTPUTS if "delta" in info.outputs else ("baseline",)
    if outputs is None:
        return possible
    for name in outputs:
        if name not in OUTPUTS:
            raise OptionError(f"expected outputs among {', '.join(OUTPUTS)}, got {name!r}")
        if name not in possible:
            raise OptionError(
                f"expected a refiner for output {name!r}, but {info.backbone} x{info.scale} has "
                "none loaded: choose one or leave the output out"
            )
    if not outputs:
        raise OptionError(f"expected at least one output of {', '.join(OUTPUTS)}, got none")
    return tuple(name for name in OUTPUTS if name in outputs)


def _prepare(region: Array, mapping: IntensityMapping, has_alpha: bool) -> Float32:
    """Colours [S,h,w] in [0,1]; what is not finite or not visible is filled from around it."""
    colours = region[:-1] if has_alpha else region
    unit = mapping.to_unit(colours)
    if region.dtype.kind == "f":
        for i, sample in enumerate(colours):
            unit[i] = _filled(unit[i], ~np.isfinite(sample))
    if has_alpha:
        hidden = region[-1] == 0
        for sample in unit:
            sample[...] = _filled(sample, hidden)
    return unit


def _filled(values: Float32, missing: NDArray[np.bool_]) -> Float32:
    """Missing pixels take the value of the nearest one that is there."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled: Float32 = values[tuple(nearest)]
    return filled


def _enlarged_spoilt(region: Array, tile: Tile, scale: int) -> Array | None:
    """NaN and infinite colour pixels of a tile as blocks, 0 elsewhere; None if there are none."""
    if region.dtype.kind != "f":
        return None
    core = region[(slice(None), *tile.crop)]
    core = core[:-1] if len(core) in (2, 4) else core
    if np.isfinite(core).all():
        return None
    return np.where(np.isfinite(core), 0, core).repeat(scale, axis=1).repeat(scale, axis=2)


def _enlarged_alpha(region: Array, tile: Tile, scale: int) -> Array:
    """Alpha [1,H,W] of a tile, enlarged bicubically, in its dtype."""
    alpha = region[-1]
    wide = np.float32 if alpha.dtype.itemsize < 4 else np.float64
    large: Array = imresize(alpha.astype(wide), scale)[scaled(tile.crop, scale)]
    large = np.clip(large, alpha.min(), alpha.max())
    if alpha.dtype.kind in "iu":
        large = np.rint(large)
    elif alpha.dtype.kind == "b":
        large = large >= 0.5
    result: Array = large.astype(alpha.dtype)[None]
    return result
