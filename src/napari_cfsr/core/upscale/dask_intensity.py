"""The range of intensities of a dask array, chunk by chunk, as `resolve_mapping` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import (
    BLOCK,
    Axes,
    IntensityMapping,
    Limits,
    Mode,
    Region,
    mapping_of_ranges,
    percentile_range,
    sampling_step,
)

Array = NDArray[Any]
ChunkRange = dict[int, Array]  # of each channel in a chunk: its extremes, or samples


@dataclass(frozen=True)
class RangeQuestion:
    """Which range of an array is to be found."""

    axes: Axes
    dtype: str
    mode: Mode | Limits  # "auto", "data" or "percentile"
    region: Region  # rows and columns that are looked at

    def touches(self, start: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a chunk holds anything that is looked at."""
        return all(picked.size for picked in self._picked(start, shape))

    def of_chunk(self, start: tuple[int, ...], chunk: Array) -> ChunkRange:
        """Extremes or samples of the channels of a chunk that begins at `start`."""
        chunk = np.asarray(chunk)
        picked = self._picked(start, chunk.shape)
        channel = self.axes.names.index("C") if "C" in self.axes.names else None
        first = 0 if channel is None else start[channel]
        count = 1 if channel is None else chunk.shape[channel]
        result = {}
        for i in range(count):
            values = chunk if channel is None else chunk.take([i], axis=channel)
            for axis, indices in enumerate(picked):
                if axis != channel and indices.size < values.shape[axis]:
                    values = values.take(indices, axis=axis)
            finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
            if self.mode != "percentile" and finite.size:
                finite = np.array([finite.min(), finite.max()])
            result[first + i] = finite
        return result

    def mapping(self, chunks: Sequence[ChunkRange]) -> tuple[IntensityMapping, ...]:
        """The mapping of each channel, from all chunks."""
        ranges = []
        for channel in range(self.axes.channels):
            parts = [chunk[channel] for chunk in chunks if channel in chunk]
            ranges.append(self._range([part for part in parts if part.size]))
        return mapping_of_ranges(ranges, np.dtype(self.dtype), self.mode)

    def _range(self, parts: list[Array]) -> Limits:
        if self.mode == "percentile":
            return percentile_range(parts)
        if not parts:
            return np.inf, -np.inf
        return float(min(p.min() for p in parts)), float(max(p.max() for p in parts))

    def _picked(self, start: tuple[int, ...], shape: tuple[int, ...]) -> list[NDArray[np.intp]]:
        """Along each axis of a chunk, which of its indices are looked at."""
        picked = []
        step = sampling_step(self.axes) if self.mode == "percentile" else 1
        bounds = dict(zip("YX", self.region, strict=True))
        for name, first, n in zip(self.axes.names, start, shape, strict=True):
            at = np.arange(first, first + n)
            keep = np.ones(n, bool)
            if name in bounds:
                ends = bounds[name]
                # `resolve_mapping` samples in blocks that begin with the region
                keep = (at >= ends.start) & (at < ends.stop)
                keep &= (at - ends.start) % BLOCK % step == 0
            elif name == "S":
                keep = at < self.axes.samples - self.axes.has_alpha
            picked.append(np.flatnonzero(keep))
        return picked
