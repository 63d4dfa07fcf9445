"""Intensities: what maps to [0,1] comes back."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cfsr.core.image import IntensityMapping, parse_axes, resolve_mapping
from napari_cfsr.errors import ImageError, OptionError
from tests.helpers.strategies import dtypes, values

modes = st.sampled_from(["auto", "dtype", "data", "percentile", (-20.0, 260.0)])


def mapping_of(image, mode="auto", axes="YX", **options) -> tuple[IntensityMapping, ...]:
    return resolve_mapping(image, parse_axes(axes, image.shape, **options), mode)


@given(dtypes, modes, st.integers(0, 2**32 - 1))
def test_round_trip(dtype, mode, seed) -> None:
    image = values(dtype, (7, 9), seed)
    if dtype.kind == "f" and mode == "dtype":
        image = np.clip(image / 300, 0, 1).astype(dtype)  # that is the range it is for
    (mapping,) = mapping_of(image, mode)
    back = mapping.from_unit(mapping.to_unit(image))
    assert back.dtype == dtype
    if dtype.kind in "biu" and dtype.itemsize <= 2:
        np.testing.assert_array_equal(back, image)
    else:  # the network computes in float32
        error = np.abs(back.astype(np.float64) - image.astype(np.float64)).max()
        tolerance = 1e-3 * 300 if dtype == np.float16 else 2e-7 * (mapping.high - mapping.low)
        reach = max(1.0, np.abs(mapping.to_unit(image)).max())
        assert error <= tolerance * reach + (0.5 if dtype.kind in "iu" else 0)


def test_twelve_bits_in_sixteen_use_the_whole_range_and_survive() -> None:
    image = np.random.default_rng(0).integers(100, 4096, (50, 60)).astype(np.uint16)
    (mapping,) = mapping_of(image)
    unit = mapping.to_unit(image)
    assert (unit.min(), unit.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(mapping.from_unit(unit), image)
    brighter = mapping.from_unit(unit + np.float32(0.5))  # beyond the data, within the dtype
    assert brighter.max() == pytest.approx(image.max() + 0.5 * (image.max() - image.min()), abs=1)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 0, 255), ("uint16", 0, 65535), ("int16", -32768, 32767), ("float32", 0, 1)],
)
def test_dtype_range(dtype, low, high) -> None:
    (mapping,) = mapping_of(np.zeros((3, 3), dtype), "dtype")
    assert (mapping.low, mapping.high) == (low, high)


def test_auto_keeps_uint8_and_unit_floats_and_otherwise_uses_the_data_range() -> None:
    rng = np.random.default_rng(1)
    eight = rng.integers(10, 20, (4, 4)).astype(np.uint8)
    assert (mapping_of(eight)[0].low, mapping_of(eight)[0].high) == (0, 255)
    unit = rng.random((4, 4)).astype(np.float32) * 0.5
    assert (mapping_of(unit)[0].low, mapping_of(unit)[0].high) == (0, 1)
    wide = unit * 1000
    assert mapping_of(wide)[0].high == pytest.approx(wide.max())
    colour = rng.integers(0, 900, (4, 4, 3)).astype(np.uint16)
    assert mapping_of(colour, axes="YXS")[0].high == 65535


def test_channels_have_a_mapping_each_constant_over_time_and_z() -> None:
    stack = np.zeros((2, 3, 2, 8, 8), np.uint16)  # T, Z, C
    stack[0, 0, 0, 0, 0], stack[1, 2, 0, 0, 0], stack[1, 0, 1, 0, 0] = 500, 700, 9000
    first, second = mapping_of(stack, axes="TZCYX")
    assert (first.high, second.high) == (700, 9000)


def test_percentiles_leave_a_hot_pixel_out() -> None:
    image = np.random.default_rng(0).normal(1000, 10, (200, 200)).astype(np.float32)
    image[5, 5] = 60000
    (mapping,) = mapping_of(image, "percentile")
    assert 1020 < mapping.high < 1050
    assert mapping.from_unit(mapping.to_unit(image))[5, 5] == pytest.approx(60000, rel=1e-5)


def test_nan_and_infinity_do_not_count() -> None:
    image = np.array([[1.0, np.nan], [np.inf, 11.0]])
    (mapping,) = mapping_of(image)
    assert (mapping.low, mapping.high) == (1, 11)
    (mapping,) = mapping_of(np.full((3, 3), np.nan))
    assert (mapping.low, mapping.high) == (0, 1)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e-20, -3e9])
def test_a_constant_is_reproduced(value) -> None:
    image = np.full((4, 4), value)
    (mapping,) = mapping_of(image, "data")
    noisy = mapping.to_unit(image) + np.float32(0.01)  # what a network may add
    np.testing.assert_allclose(mapping.from_unit(noisy), image, rtol=1e-7, atol=1e-30)


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**60), ("uint64", 2**64 - 2**12)])
def test_a_constant_that_floats_hardly_tell_from_its_neighbours_has_a_range(dtype, value) -> None:
    image = np.full((4, 4), value, dtype)
    (mapping,) = mapping_of(image, "data")
    assert mapping.high > mapping.low
    assert np.isfinite(mapping.to_unit(image)).all()
    np.testing.assert_allclose(mapping.from_unit(mapping.to_unit(image)).astype(float), value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_overshoot_beyond_the_largest_float_stays_finite(dtype) -> None:
    largest = float(np.finfo(dtype).max)
    mapping = IntensityMapping(0.0, largest, dtype)
    data = mapping.from_unit(np.array([1.0, 1.01, -1.01, np.nan], np.float32))
    np.testing.assert_array_equal(data, np.array([largest, largest, -largest, np.nan], dtype))


def test_alpha_does_not_count() -> None:
    image = np.full((4, 4, 2), 0.0, np.float32)
    image[0, 0, 0], image[..., 1] = 7.0, 255.0
    assert mapping_of(image, "data", axes="YXS")[0].high == 7


def test_lazy_arrays_are_read_in_blocks() -> None:
    largest = []

    def block(block_info) -> np.ndarray:
        shape = block_info[None]["chunk-shape"]
        largest.append(shape)
        return np.full(shape, block_info[None]["chunk-location"][0], np.uint16)

    lazy = da.map_blocks(
        block, dtype=np.uint16, chunks=((2048, 2048), (1024,)), meta=np.empty((0, 0), np.uint16)
    )
    lazy = lazy * np.uint16(3)
    assert mapping_of(lazy, "data")[0].high == 3
    assert max(largest) == (2048, 1024)


def test_unsigned_32_bit_does_not_wrap_at_the_top() -> None:
    mapping = IntensityMapping(0.0, float(2**32 - 1), "uint32", clip=True)
    top = mapping.from_unit(np.array([1.0, 1.2, -0.2], np.float32))
    assert top[0] >= 2**32 - 2**10
    assert top[1] >= 2**32 - 2**10
    assert top[2] == 0


@pytest.mark.parametrize("mode", ["nonsense", (3.0, 3.0), (5.0, 1.0), (0.0, np.inf)])
def test_modes_that_do_not_exist(mode) -> None:
    with pytest.raises(OptionError, match="expected intensity"):
        mapping_of(np.zeros((2, 2)), mode)


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [("float64", (-1.7e308, 1.7e308)), ("uint16", (0.0, 1e39)), ("uint8", (1.0, 1.0 + 1e-12))],
)
def test_limits_that_can_not_be_computed_with(dtype, limits) -> None:
    with pytest.raises(OptionError, match="neither too far apart nor too close"):
        mapping_of(np.zeros((2, 2), dtype), limits)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "O", "datetime64[s]"])
def test_pixels_that_are_no_numbers(dtype) -> None:
    with pytest.raises(ImageError, match="expected bool, integer or real float pixels"):
        mapping_of(np.zeros((2, 2), dtype))
