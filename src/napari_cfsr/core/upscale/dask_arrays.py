"""Upscaling as dask arrays: nothing is computed before it is asked for.

The output is cut into blocks of whole tiles (see `blocks`), whatever the chunks of the input. One
task runs the model for a block and makes all outputs; baseline, delta and difference each pick
their own from it, so that computing them together runs the model once.
"""

from __future__ import annotations

import itertools
import math
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, Literal

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.utils import SerializableLock
from numpy.typing import NDArray

from napari_cfsr.core.engine import Model, ModelInfo
from napari_cfsr.core.image import ArrayLike, Axes, IntensityMapping, Limits, Mode
from napari_cfsr.core.upscale.blocks import BlockPlan, Index, Slices, plan_blocks, run_block
from napari_cfsr.core.upscale.dask_intensity import RangeQuestion
from napari_cfsr.core.upscale.generators import exhaust
from napari_cfsr.core.upscale.options import OUTPUTS, Noise, UpscaleOptions, noise_option
from napari_cfsr.errors import ImageError

Array = NDArray[Any]
Key = tuple[Any, ...]
Graph = dict[Any, Any]

LAZY_SIDE = 2048  # output pixels of a block: a viewer waits for it


@dataclass(frozen=True, eq=False)
class LazyUpscale:
    """What `upscale_dask` gives: dask arrays, axes in the order of the input.

    Attributes
    ----------
    baseline : dask array or None
        As `UpscaleResult.baseline`; so are the next two.
    delta : dask array or None
    difference : dask array or None
    axes : Axes
        Axes of what is upscaled, input pixels.
    info : ModelInfo
    options : UpscaleOptions
        Tile and halo are numbers.
    mapping : tuple of IntensityMapping, or None
        One for each independent channel; None if the pixels have to be read for it.
    """

    baseline: Any
    delta: Any
    difference: Any
    axes: Axes
    info: ModelInfo
    options: UpscaleOptions
    mapping: tuple[IntensityMapping, ...] | None
    _source: _Source = field(repr=False)

    def arrays(self) -> dict[str, Any]:
        """The arrays there are, by name."""
        named = {name: getattr(self, name) for name in OUTPUTS}
        return {name: array for name, array in named.items() if array is not None}

    def resolve(self) -> LazyUpscale:
        """The same, with the range of intensities found now, once for all parts.

        Otherwise it is found at each `compute`, from the whole input: worth calling where small
        parts are computed again and again, as in a viewer. Does nothing where the mapping does not
        depend on the pixels.
        """
        return self if self.mapping is not None else self._source.resolved()


def upscale_dask(
    array: ArrayLike,
    model: Model,
    axes: str | None = None,
    ensemble: bool = False,
    tile: int | None = None,
    *,
    rgb: bool | None = None,
    outputs: tuple[str, ...] | None = None,
    back_projection: bool = False,
    halo: int | Literal["exact"] | None = None,
    intensity: Mode | Limits = "auto",
    region: tuple[Limits, Limits] | None = None,
    refiner_ensemble: bool = False,
    noise: Noise = None,
) -> LazyUpscale:
    """Upscale lazily: dask arrays with the values of `upscale`, for images larger than memory.

    Parameters
    ----------
    array : array
        dask, zarr, numpy or a memory map, in any chunks: of any size, not aligned with anything.
        A zarr array, or another that is no dask array, is read a block at a time.
    model, axes, ensemble, tile, rgb, outputs, back_projection, halo, intensity, region, \
    refiner_ensemble, noise
        As for `upscale`. Outputs that are not asked for are not computed; of those that are, the
        model makes all for a block, also where only one of the arrays is computed.

    Returns
    -------
    LazyUpscale
        Its arrays know shape, dtype and chunks; nothing is computed, and nothing read but some
        pixels of which a refiner has to be told the noise.

    Raises
    ------
    ImageError, OptionError
        As `upscale`; also for a dask array whose chunks are not known.

    Notes
    -----
    The model runs one block at a time, in any thread, while dask reads and writes others.
    """
    options = UpscaleOptions(
        axes, rgb, outputs, ensemble, back_projection, tile, halo, intensity, region,
        refiner_ensemble, noise_option(noise),
    )  # fmt: skip
    if isinstance(array, da.Array) and any(math.isnan(n) for n in array.shape):
        raise ImageError(
            f"expected a dask array of known shape, got {array.shape}: call "
            "compute_chunk_sizes() on it first"
        )
    plan = plan_blocks(array, model, options, LAZY_SIDE, fill=False)
    return _Source(array, model, plan, plan.known_mapping()).lazy()


@dataclass(frozen=True, eq=False)
class _Source:
    """All that the graph is made from."""

    image: ArrayLike
    model: Model
    plan: BlockPlan
    mapping: tuple[IntensityMapping, ...] | None

    def lazy(self) -> LazyUpscale:
        arrays = self.empty() if self.plan.part.is_empty else self.arrays()
        return LazyUpscale(
            **{name: arrays.get(name) for name in OUTPUTS},
            axes=self.plan.part,
            info=self.model.info,
            options=self.plan.options,
            mapping=self.mapping,
            _source=self,
        )

    def resolved(self) -> LazyUpscale:
        if not isinstance(self.image, da.Array):
            return replace(self, mapping=self.plan.find_mapping(self.image)).lazy()
        graph, key = self.mapping_graph("range")
        whole = HighLevelGraph.from_collections(key, graph, dependencies=[self.image])
        return replace(self, mapping=Delayed(key, whole).compute().value).lazy()

    def empty(self) -> dict[str, Any]:
        return {k: da.zeros(shape, dtype=dtype) for k, (shape, dtype) in self.plan.specs.items()}

    def arrays(self) -> dict[str, Any]:
        """A dask array for each output; they share the layer that runs the model."""
        name = f"upscale-{self.token()}"
        layers: dict[str, Graph] = {name: self.run_graph(name)}
        needs: dict[str, set[str]] = {name: set()}
        if isinstance(self.image, da.Array):
            source = self.image.__dask_graph__()
            layers |= source.layers
            needs |= source.dependencies
            needs[name] = set(self.image.__dask_layers__())
        result = {}
        for output, (_, dtype) in self.plan.specs.items():
            key = f"{output}-{name}"
            picked = {
                (key, *index): (itemgetter(output), (name, *index)) for index in self.plan.indices()
            }
            graph = HighLevelGraph({**layers, key: picked}, {**needs, key: {name}})
            result[output] = da.Array(graph, key, self.chunks(output), dtype=dtype)
        return result

    def token(self) -> str:
        """The same for the same input, model and plan, if the input has a name."""
        if not isinstance(self.image, da.Array):
            return uuid.uuid4().hex
        info, plan = self.model.info, self.plan
        weights = (info.backbone_sha256, info.refiner_sha256, info.placement, info.precision)
        runs_on = (info.engine, info.device)
        return str(tokenize(self.image.name, runs_on, weights, repr(plan), repr(self.mapping)))

    def chunks(self, output: str) -> tuple[tuple[int, ...], ...]:
        """Sizes of the blocks of an output along each dimension."""
        shape, _ = self.plan.specs[output]
        result = []
        for axis in range(len(shape)):
            index = [0] * len(shape)
            sizes = []
            for i in range(self.plan.grid[axis]):
                index[axis] = i
                part = self.plan.written(tuple(index), output)[axis]
                sizes.append(part.stop - part.start)
            result.append(tuple(sizes))
        return tuple(result)

    def run_graph(self, name: str) -> Graph:
        """A task for each block, and what they share: the model and the range of intensities."""
        model = f"model-{name}"
        graph: Graph = {model: self.model}
        mapping: Any = f"mapping-{name}"
        if self.mapping is None:
            ranges, mapping = self.mapping_graph(mapping)
            graph |= ranges
        else:
            graph[mapping] = _Held(self.mapping)
        # a model is not for several threads at a time
        lock = SerializableLock(f"napari-cfsr-model-{id(self.model)}")
        chunks = _Chunks(self.image) if isinstance(self.image, da.Array) else None
        source: Any = f"image-{name}"
        if chunks is None:
            graph[source] = _Held(self.image)
        for index in self.plan.indices():
            read: Callable[[Any], Array] = partial(_read, self.plan, index)
            if chunks is not None:
                where = self.plan.read(index)
                source, places = chunks.covering(where)
                read = partial(_put_together, where, places)
            task = partial(_block, self.plan, index, lock, read)
            graph[(name, *index)] = (task, source, mapping, model)
        return graph

    def mapping_graph(self, name: str) -> tuple[Graph, str]:
        """Tasks that find the range of intensities, and the key of the outcome."""
        plan = self.plan
        if not isinstance(self.image, da.Array):
            return {name: (partial(_mapping_of_array, plan), _Held(self.image))}, name
        question = RangeQuestion(plan.axes, plan.dtype, plan.options.intensity, plan.request.region)
        graph: Graph = {}
        for key, start, shape in _Chunks(self.image).all():
            if question.touches(start, shape):
                graph[(f"{name}-chunk", *key[1:])] = (partial(question.of_chunk, start), key)
        graph[name] = (partial(_mapping_of_ranges, question), list(graph))
        return graph, name


class _Held:
    """A value that dask passes on without looking into it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Chunks:
    """Where the chunks of a dask array lie."""

    def __init__(self, array: Any) -> None:
        self.name = array.name
        self.starts = [[0, *itertools.accumulate(sizes)] for sizes in array.chunks]

    def all(self) -> Iterator[tuple[Key, tuple[int, ...], tuple[int, ...]]]:
        """Key, start and shape of each."""
        for index in np.ndindex(*(len(starts) - 1 for starts in self.starts)):
            ends = [(s[i], s[i + 1]) for s, i in zip(self.starts, index, strict=True)]
            yield (self.name, *index), tuple(a for a, _ in ends), tuple(b - a for a, b in ends)

    def covering(self, where: Slices) -> tuple[list[Key], list[tuple[int, ...]]]:
        """Keys of the chunks that a part of the array lies in, and where they start."""
        spans = [
            range(bisect_right(starts, s.start) - 1, bisect_left(starts, s.stop))
            for starts, s in zip(self.starts, where, strict=True)
        ]
        keys, places = [], []
        for index in itertools.product(*spans):
            keys.append((self.name, *index))
            places.append(tuple(s[i] for s, i in zip(self.starts, index, strict=True)))
        return keys, places


def _block(
    plan: BlockPlan,
    index: Index,
    lock: Any,
    read: Callable[[Any], Array],
    source: Any,
    mapping: _Held,
    model: Model,
) -> dict[str, Array]:
    """All outputs of one block, from the image or the chunks that it lies in."""
    pixels = read(source)
    with lock:
        return exhaust(run_block(plan, index, pixels, mapping.value, model))


def _read(plan: BlockPlan, index: Index, image: _Held) -> Array:
    return np.asarray(image.value[plan.read(index)])


def _put_together(where: Slices, places: list[tuple[int, ...]], chunks: list[Array]) -> Array:
    """The part `where` of an array from chunks that begin at `places`."""
    arrays = [np.asarray(chunk) for chunk in chunks]
    result = np.empty([s.stop - s.start for s in where], arrays[0].dtype)
    for start, chunk in zip(places, arrays, strict=True):
        source, target = [], []
        for s, a, n in zip(where, start, chunk.shape, strict=True):
            low, high = max(s.start, a), min(s.stop, a + n)
            source.append(slice(low - a, high - a))
            target.append(slice(low - s.start, high - s.start))
        result[tuple(target)] = chunk[tuple(source)]
    return result


def _mapping_of_ranges(question: RangeQuestion, chunks: list[Any]) -> _Held:
    return _Held(question.mapping(chunks))


def _mapping_of_array(plan: BlockPlan, image: _Held) -> _Held:
    return _Held(plan.find_mapping(image.value))
