"""Axes: parsing, and reading and writing planes in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cfsr.core.image.axes import parse_axes
from napari_cfsr.errors import ImageError
from tests.helpers.strategies import axes_and_shapes


@given(axes_and_shapes())
def test_reading_and_writing_all_planes_reproduces_the_array(drawn) -> None:
    names, shape = drawn
    array = np.arange(np.prod(shape)).reshape(shape)
    axes = parse_axes(names, shape, rgb=False)
    copy = np.full(shape, -1)
    for plane in axes.planes():
        region = axes.read(array, plane, slice(None), slice(None))
        assert region.shape == (axes.samples, axes.height, axes.width)
        axes.write(copy, plane, slice(None), slice(None), region)
    np.testing.assert_array_equal(copy, array)


@given(axes_and_shapes(), st.integers(2, 4))
def test_scaled_shape(drawn, scale) -> None:
    names, shape = drawn
    out = parse_axes(names, shape, rgb=False).scaled(scale)
    assert out == tuple(n * scale if a in "YX" else n for a, n in zip(names, shape, strict=True))


def test_read_gives_samples_rows_columns() -> None:
    image = np.arange(2 * 3 * 4).reshape(4, 2, 3)  # X, Y, S
    region = parse_axes("XYS", image.shape).read(image, (), slice(0, 2), slice(1, 3))
    np.testing.assert_array_equal(region, image[1:3].transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("axes", "shape", "rgb", "names"),
    [
        (None, (5, 6), None, "YX"),
        (None, (5, 6, 3), None, "YXS"),
        (None, (5, 6, 4), None, "YXS"),
        ("YXC", (5, 6, 3), None, "YXS"),
        ("YXC", (5, 6, 3), False, "YXC"),
        ("YXC", (5, 6, 2), None, "YXC"),
        ("CYX", (3, 5, 6), None, "CYX"),
        ("CYX", (3, 5, 6), True, "SYX"),
        ("zyx", (3, 5, 6), None, "ZYX"),
        ("CYXS", (2, 5, 6, 3), None, "CYXS"),
    ],
)
def test_what_counts_as_colour(axes, shape, rgb, names) -> None:
    assert parse_axes(axes, shape, rgb).names == names


@pytest.mark.parametrize(
    ("axes", "shape", "rgb", "says"),
    [
        (None, (4, 5, 6), None, r"expected axes for an array of shape \(4, 5, 6\), got none"),
        (None, (5,), None, "expected axes"),
        ("YX", (4, 5, 6), None, "expected one letter for each of the 3 dimensions"),
        ("YYX", (4, 5, 6), None, "expected different letters"),
        ("TZC", (4, 5, 6), None, "expected both Y and X"),
        ("YXS", (4, 5, 7), None, "expected 1 to 4 colour samples .* got 7"),
        ("YXC", (4, 5, 7), True, "pass rgb=False"),
    ],
)
def test_axes_that_do_not_fit_say_what_was_expected(axes, shape, rgb, says) -> None:
    with pytest.raises(ImageError, match=says):
        parse_axes(axes, shape, rgb)


def test_big_endian_comes_out_native() -> None:
    image = np.arange(12, dtype=">u2").reshape(3, 4)
    region = parse_axes("YX", image.shape).read(image, (), slice(None), slice(None))
    assert region.dtype == np.dtype("uint16")
    assert region.dtype.isnative
    np.testing.assert_array_equal(region[0], image)
