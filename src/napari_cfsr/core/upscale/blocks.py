"""An image in blocks: parts that are upscaled separately.

A block is a number of whole tiles of the grid that `upscale` cuts, over one or more planes. Its
result depends on the pixels in it and around it, on the plan and on the model, and on nothing else:
blocks can be run in any order, again, or on another machine, and give the values of `upscale`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.image import (
    REACH,
    ArrayLike,
    Axes,
    IntensityMapping,
    Region,
    Tile,
    cuts,
    known_mapping,
    reads,
    resolve_mapping,
    tiles_of,
)
from napari_cfsr.core.upscale.options import UpscaleOptions, UpscaleProgress
from napari_cfsr.core.upscale.resolve import (
    OutputSpec,
    ResolvedRequest,
    output_bytes,
    output_specs,
    resolve_noise,
    resolve_request,
)
from napari_cfsr.core.upscale.tile_run import TileRun

Array = NDArray[Any]
Index = tuple[int, ...]  # of a block: one number for each dimension of the image
Slices = tuple[slice, ...]

BLOCK_SIDE = 4096  # output pixels, at most, unless a tile is larger
BLOCK_BYTES = 2**27  # of all outputs of a block together, at most, unless those of a tile are more


@dataclass(frozen=True)
class BlockPlan:
    """How an image is cut into blocks."""

    request: ResolvedRequest  # checked; its options hold tile and halo as numbers
    scale: int
    dtype: str  # of the image
    # of a block in LR pixels and planes, one for each dimension of the image; the last block of a
    # dimension may be shorter
    sides: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]  # where the tiles of a plane start and stop, LR pixels
    columns: tuple[tuple[int, int], ...]

    @property
    def axes(self) -> Axes:
        """Axes of the image."""
        return self.request.axes

    @property
    def part(self) -> Axes:
        """Axes of what is upscaled."""
        return self.request.part

    @property
    def options(self) -> UpscaleOptions:
        return self.request.options

    @property
    def specs(self) -> dict[str, OutputSpec]:
        """Shape and dtype of each output, in the order of the image's axes."""
        return output_specs(self.part, np.dtype(self.dtype), self.scale, self.request.outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of all outputs, uncompressed."""
        return output_bytes(self.specs)

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each dimension."""
        return tuple(-(-n // side) for n, side in zip(self.part.shape, self.sides, strict=True))

    def indices(self) -> Iterator[Index]:
        """All blocks, last dimension fastest."""
        return iter(np.ndindex(*self.grid))

    def within(self, index: Index) -> Slices:
        """A block in what is upscaled, LR pixels, one slice for each dimension."""
        return tuple(
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(index, self.sides, self.part.shape, strict=True)
        )

    def written(self, index: Index, name: str) -> Slices:
        """A block in an output."""
        shape, _ = self.specs[name]
        return tuple(
            slice(s.start * self.scale, s.stop * self.scale)
            if i in self.axes.spatial
            else slice(s.start, min(s.stop, n))  # a difference has no alpha
            for i, (s, n) in enumerate(zip(self.within(index), shape, strict=True))
        )

    def tiles(self, index: Index) -> list[Tile]:
        """The tiles of each plane of a block."""
        return tiles_of(*self._reads(index))

    def _reads(self, index: Index) -> list[list[tuple[slice, slice]]]:
        """Rows and columns that the tiles of a block read and write."""
        halo, sizes = self.request.halo, (self.axes.height, self.axes.width)
        every = (
            reads([slice(*part) for part in parts], size, halo)
            for parts, size in zip((self.rows, self.columns), sizes, strict=True)
        )
        return [
            [(read, part) for read, part in axis if inside.start <= part.start < inside.stop]
            for axis, inside in zip(every, self.planar(index), strict=True)
        ]

    def planar(self, index: Index) -> Region:
        """Rows and columns of the image that a block upscales."""
        within = self.within(index)
        ys, xs = (
            slice(within[i].start + start.start, within[i].stop + start.start)
            for i, start in zip(self.axes.spatial, self.request.region, strict=True)
        )
        return ys, xs

    def read(self, index: Index) -> Slices:
        """What a block needs of the image: its halo, and what missing pixels are filled from."""
        where = list(self.within(index))
        sizes = (self.axes.height, self.axes.width)
        for i, axis, n in zip(self.axes.spatial, self._reads(index), sizes, strict=True):
            start, stop = axis[0][0].start, axis[-1][0].stop
            where[i] = slice(max(start - REACH, 0), min(stop + REACH, n))
        return tuple(where)

    def pixels(self, index: Index) -> int:
        """LR pixels of a block, as progress counts them."""
        sizes = [s.stop - s.start for s in self.within(index)]
        return math.prod(n for n, name in zip(sizes, self.axes.names, strict=True) if name != "S")

    @property
    def total(self) -> int:
        """LR pixels of all blocks."""
        return self.part.plane_count * self.part.height * self.part.width

    def known_mapping(self) -> tuple[IntensityMapping, ...] | None:
        """The intensity mapping, or None if the image has to be read for it."""
        return known_mapping(np.dtype(self.dtype), self.axes, self.options.intensity)

    def find_mapping(
        self, image: ArrayLike, check: Check = lambda: None
    ) -> tuple[IntensityMapping, ...]:
        """The intensity mapping; reads all of the image, a part at a time, where it has to."""
        region = self.request.region
        return resolve_mapping(image, self.axes, self.options.intensity, check, region)


def plan_blocks(
    image: ArrayLike,
    model: Model,
    options: UpscaleOptions,
    side: int = BLOCK_SIDE,
    most_bytes: int = BLOCK_BYTES,
    fill: bool = True,
) -> BlockPlan:
    """Cut an image into blocks; reads no pixels, unless a refiner has to be told their noise.

    Parameters
    ----------
    image, model, options
        As for `upscale`. Without a tile, it is chosen as there.
    side : int
        Output pixels of a block, at most, unless a tile is larger.
    most_bytes : int
        Of all outputs of a block together, likewise.
    fill : bool
        Whether blocks of small planes hold as many as `side` and `most_bytes` allow; otherwise as
        many as make up a tile.

    Raises
    ------
    ImageError, OptionError
        As `upscale`.
    """
    info = model.info
    request = resolve_request(image, info, options)
    tile = options.tile or info.largest_tile(model.free_memory(), request.halo)
    request, _ = resolve_noise(image, info, request)
    request = replace(request, options=replace(request.options, tile=tile))
    ys, xs = request.region
    rows, columns = ([(s.start, s.stop) for s in cuts(r.start, r.stop, tile)] for r in (ys, xs))
    plan = BlockPlan(request, info.scale, np.dtype(image.dtype).name, (), (), ())
    plan.known_mapping()  # raises where the dtype or the mode can't be used
    sides = _sides(plan, rows, columns, side, most_bytes, fill)
    return replace(plan, sides=sides, rows=tuple(rows), columns=tuple(columns))


def _sides(
    plan: BlockPlan,
    rows: list[tuple[int, int]],
    columns: list[tuple[int, int]],
    side: int,
    most_bytes: int,
    fill: bool,
) -> tuple[int, ...]:
    """As many tiles to a block as are allowed, and planes where it has room for several."""
    part, scale = plan.part, plan.scale
    sides = [1 if i in part.looped else n for i, n in enumerate(part.shape)]
    if part.is_empty:
        return tuple(max(n, 1) for n in part.shape)
    steps = [starts[0][1] - starts[0][0] for starts in (rows, columns)]
    per_pixel = plan.nbytes / plan.total
    count = max(1, side // (max(steps) * scale))
    while count > 1 and steps[0] * steps[1] * count**2 * per_pixel > most_bytes:
        count -= 1
    for i, step, cut in zip(part.spatial, steps, (rows, columns), strict=True):
        sides[i] = min(count, len(cut)) * step
    if part.looped:
        last, plane = part.looped[-1], part.height * part.width
        most = min((side // scale) ** 2, int(most_bytes / per_pixel)) if fill else 0
        most = max(most, (plan.options.tile or 1) ** 2)
        sides[last] = max(1, min(part.shape[last], most // plane))
    return tuple(sides)


@dataclass(frozen=True, eq=False)
class BlockReads:
    """The pixels that a block reads, indexed as the whole image is; no others can be read."""

    pixels: Array
    start: tuple[int, ...]  # where they begin in the image
    shape: tuple[int, ...]  # of the image

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    def __getitem__(self, key: Any, /) -> Any:
        inside = tuple(
            slice(k.start - start, k.stop - start) if isinstance(k, slice) and start else k
            for k, start in zip(key, self.start, strict=True)
        )
        return self.pixels[inside]


def run_block(
    plan: BlockPlan,
    index: Index,
    pixels: Array,
    mapping: tuple[IntensityMapping, ...],
    model: Model,
    check: Check = lambda: None,
) -> Generator[UpscaleProgress, None, dict[str, Array]]:
    """Upscale one block: yields progress after each batch of tiles, returns the outputs.

    Parameters
    ----------
    plan : BlockPlan
    index : tuple of int
        Which block.
    pixels : array
        What `plan.read(index)` says, of the image.
    mapping : tuple of IntensityMapping
        Of the whole image.
    model : Model
    check : callable
        Called several times a second; raises to stop.

    Returns
    -------
    dict of str to array
        Each output of the block, axes in the order of the image.
    """
    axes = plan.axes
    where, planes = plan.read(index), plan.within(index)
    shape = [s.stop - s.start for s in planes]
    start = [0] * len(shape)
    for i in axes.spatial:
        shape[i], start[i] = axes.shape[i], where[i].start
    ys, xs = plan.planar(index)
    options = replace(
        plan.options,
        axes=axes.names,
        rgb=False,  # the axes say already
        region=((ys.start, ys.stop), (xs.start, xs.stop)),
    )
    image = BlockReads(pixels, tuple(start), tuple(shape))
    if "C" in axes.names:
        channels = planes[axes.names.index("C")]
        mapping = mapping[channels]
        options = replace(options, noise=options.noise and options.noise[channels])
    run = TileRun(image, model, options, check, mapping=mapping, grid=plan.tiles(index))
    yield from run.tiles()
    return run.arrays
