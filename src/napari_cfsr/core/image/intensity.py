"""Intensity mapping: from any dtype to the [0,1] of the network, and back.

The mapping is linear and therefore reversible; nothing is clipped on the way in. On the way out,
values are clipped to the limits of the dtype, and in mode `dtype` also to its range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image.axes import ArrayLike, Axes
from napari_cfsr.errors import ImageError, OptionError

Mode = Literal["auto", "dtype", "data", "percentile"]
MODES: tuple[Mode, ...] = ("auto", "dtype", "data", "percentile")
Limits = tuple[float, float]
Float32 = NDArray[np.float32]
Region = tuple[slice, slice]  # rows and columns
Block = tuple[int, NDArray[Any]]  # channel and values

PERCENTILES = (0.1, 99.9)
BLOCK = 2048  # pixels; ranges are computed in blocks of this size, so that lazy arrays stay lazy
MOST_SAMPLED = 2**22  # values used for percentiles
LEAST_SIGNAL = 10  # values other than the background's; fewer may be hot pixels


@dataclass(frozen=True)
class IntensityMapping:
    """Linear mapping from [low, high], in units of the data, to [0, 1]."""

    low: float  # data value that becomes 0
    high: float  # data value that becomes 1
    dtype: str  # name of the dtype of the data and of the result
    clip: bool = False  # whether a float result is clipped to [low, high]

    @property
    def _wide(self) -> type[np.floating[Any]]:
        """Float type with enough precision: float32 cannot represent all 32-bit integers."""
        return np.float64 if np.dtype(self.dtype).itemsize >= 4 else np.float32

    @property
    def precision(self) -> str:
        """Precision of the computation: float32, or float64 if the dtype needs it."""
        return self._wide.__name__

    @property
    def computable(self) -> bool:
        """Whether the limits differ, but not too much, for the precision."""
        with np.errstate(over="ignore", invalid="ignore"):
            width = self._wide(self.high) - self._wide(self.low)
            return bool(np.isfinite(width) and width > 0)

    def to_unit(self, values: NDArray[Any]) -> Float32:
        """Map data values of any shape to [0,1], not clipped."""
        wide = self._wide
        unit = (values.astype(wide) - wide(self.low)) / wide(self.high - self.low)
        result: Float32 = unit.astype(np.float32)
        return result

    def from_unit(self, values: Float32) -> NDArray[Any]:
        """Map [0,1] back to data values, rounded and clipped to the dtype."""
        return self.rounded(self.to_data(values))

    def rounded(self, data: NDArray[Any]) -> NDArray[Any]:
        """The result of `to_data` in the dtype of the data; modifies `data`."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return data >= 0.5
        if dtype.kind in "iu":
            np.rint(data, out=data)
            if dtype.itemsize >= 4:
                # the largest integers round up to a float beyond them
                info = np.iinfo(dtype)
                top = np.nextafter(data.dtype.type(info.max), 0) if info.bits > 32 else info.max
                np.clip(data, info.min, top, out=data)
        else:
            finite = np.finfo(dtype)
            np.clip(data, finite.min, finite.max, out=data)
        return data.astype(dtype, copy=False)

    def to_data(self, values: Float32) -> NDArray[Any]:
        """Map [0,1] to data values in floating point: clipped to the range, not rounded."""
        wide = self._wide
        with np.errstate(over="ignore"):  # infinity is clipped below
            data: NDArray[Any] = np.multiply(values, wide(self.high - self.low), dtype=wide)
            data += wide(self.low)
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            np.clip(data, np.iinfo(dtype).min, np.iinfo(dtype).max, out=data)
        elif self.clip or dtype.kind == "b":
            np.clip(data, self.low, self.high, out=data)
        return data


def dtype_range(dtype: np.dtype[Any]) -> Limits:
    """Least and greatest value of an integer dtype; 0 and 1 for float and bool."""
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return 0.0, 1.0


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise `ImageError` unless `dtype` is bool, an integer or a real float of at most 64 bits."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ImageError(
            f"expected bool, integer or real float pixels, got {dtype}: convert the image first"
        )


def resolve_mapping(
    array: ArrayLike,
    axes: Axes,
    mode: Mode | Limits = "auto",
    check: Callable[[], None] = lambda: None,
    region: Region | None = None,
) -> tuple[IntensityMapping, ...]:
    """The mapping of each independent channel (a single one without a `C` axis).

    It is the same for all T and Z, so that time series do not flicker.

    Parameters
    ----------
    array : array
        The image.
    axes : Axes
        Its axes.
    mode : {"auto", "dtype", "data", "percentile"} or (low, high)
        `dtype`: the whole range of the dtype ([0,1] for floats). `data`: least to greatest finite
        value. `percentile`: the 0.1 and 99.9 percentiles (of sparse signal alone, where they
        coincide). Two numbers: those, in data units, as for contrast limits. `auto`: `dtype` for
        bool, uint8 and integer colour, and for floats within [0,1]; `data` for everything else.
    check : callable
        Called between blocks; may raise to stop.
    region : (slice, slice), optional
        Rows and columns to use; all by default.

    Returns
    -------
    tuple of IntensityMapping

    Raises
    ------
    ImageError
        The dtype can't be mapped, or the range of the values is too wide for a float.
    OptionError
        The mode does not exist, or its limits are not increasing and finite.
    """
    known = known_mapping(array.dtype, axes, mode)
    if known is not None:
        return known
    blocks = _blocks(array, axes, region or (slice(0, axes.height), slice(0, axes.width)), check)
    ranges = _percentiles(blocks, axes) if mode == "percentile" else _extremes(blocks, axes)
    return mapping_of_ranges(ranges, array.dtype, mode)


def known_mapping(
    dtype: np.dtype[Any], axes: Axes, mode: Mode | Limits
) -> tuple[IntensityMapping, ...] | None:
    """The mapping if it does not depend on the pixels, otherwise None; see `resolve_mapping`."""
    dtype = np.dtype(dtype)
    check_dtype(dtype)
    if isinstance(mode, str):
        if mode not in MODES:
            raise OptionError(
                f"expected intensity one of {', '.join(MODES)} or (low, high), got {mode!r}"
            )
    else:
        low, high = (float(v) for v in mode)
        if not -np.inf < low < high < np.inf:
            raise OptionError(f"expected intensity limits low < high, got ({low}, {high})")
        mapping = IntensityMapping(low, high, dtype.name)
        if not mapping.computable:
            raise OptionError(
                "expected intensity limits that are neither too far apart nor too close to compute "
                f"with in {mapping.precision}, got ({low}, {high})"
            )
        return (mapping,) * axes.channels
    plain = dtype.kind == "b" or dtype == np.uint8 or (dtype.kind in "iu" and axes.samples >= 3)
    if mode == "dtype" or (mode == "auto" and plain) or axes.is_empty:
        return (IntensityMapping(*dtype_range(dtype), dtype.name, clip=True),) * axes.channels
    return None


def mapping_of_ranges(
    ranges: Sequence[Limits], dtype: np.dtype[Any], mode: Mode | Limits
) -> tuple[IntensityMapping, ...]:
    """The mapping of each channel from its range in the data."""
    dtype = np.dtype(dtype)
    if mode == "auto" and dtype.kind == "f" and all(lo >= 0 and hi <= 1 for lo, hi in ranges):
        return (IntensityMapping(0.0, 1.0, dtype.name, clip=True),) * len(ranges)
    return tuple(IntensityMapping(*_widened(lo, hi, dtype), dtype.name) for lo, hi in ranges)


def _widened(low: float, high: float, dtype: np.dtype[Any]) -> Limits:
    """The range, or a tiny one at a constant, so that the constant is reproduced."""
    if not (np.isfinite(low) and np.isfinite(high)):  # there is no finite value
        return 0.0, 1.0
    if not np.isfinite(high - low):
        raise ImageError(
            f"expected values in a range that fits a float, got {low} to {high}: give intensity "
            "limits"
        )
    if high > low:
        return low, high
    if dtype.kind in "iu":  # above 2**53, neighbouring floats are more than 1 apart
        return low, low + max(1.0, float(np.spacing(abs(low))))
    return low, low + max(abs(low), 1e-30) * 1e-6


def _blocks(
    array: ArrayLike, axes: Axes, region: Region, check: Callable[[], None]
) -> Iterator[Block]:
    """Channel and colour values [S,h,w] of each block of each plane, without alpha."""
    colours = axes.samples - axes.has_alpha
    ys, xs = region
    for plane in axes.planes():
        for y in range(ys.start, ys.stop, BLOCK):
            for x in range(xs.start, xs.stop, BLOCK):
                check()
                rows, columns = slice(y, min(y + BLOCK, ys.stop)), slice(x, min(x + BLOCK, xs.stop))
                block = axes.read(array, plane, rows, columns)
                yield axes.channel_of(plane), block[:colours]


def _extremes(blocks: Iterator[Block], axes: Axes) -> list[Limits]:
    """Least and greatest finite value of each channel."""
    low, high = [np.inf] * axes.channels, [-np.inf] * axes.channels
    for channel, block in blocks:
        finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        if finite.size:
            low[channel] = min(low[channel], float(finite.min()))
            high[channel] = max(high[channel], float(finite.max()))
    return list(zip(low, high, strict=True))


def _percentiles(blocks: Iterator[Block], axes: Axes) -> list[Limits]:
    """Percentiles of each channel, from an even sample if there are very many values."""
    step = sampling_step(axes)
    samples: list[list[NDArray[Any]]] = [[] for _ in range(axes.channels)]
    for channel, block in blocks:
        sample = block[:, ::step, ::step]
        samples[channel].append(sample[np.isfinite(sample)].ravel())
    return [percentile_range(parts) for parts in samples]


def sampling_step(axes: Axes) -> int:
    """Step between the rows and columns of a block that are used for percentiles."""
    values = axes.plane_count // axes.channels * axes.height * axes.width
    return max(1, int(np.ceil((values / MOST_SAMPLED) ** 0.5)))


def percentile_range(parts: Sequence[NDArray[Any]]) -> Limits:
    """The percentiles of all that was sampled of a channel; NaN if that is nothing.

    Where they coincide, since nearly all pixels have one value, those of the other pixels count,
    unless there are so few that they may be hot: sparse signal on an even background would
    otherwise lie far outside the range.
    """
    values = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    if not values.size:
        return np.nan, np.nan
    low, high = np.percentile(values, PERCENTILES)
    signal = values[values != low] if low == high else np.empty(0)
    if signal.size >= LEAST_SIGNAL:
        ends = np.percentile(signal, PERCENTILES)
        low, high = min(low, ends[0]), max(high, ends[1])
    return float(low), float(high)
