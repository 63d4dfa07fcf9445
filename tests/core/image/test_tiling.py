"""Tiles cover a plane once, and keep only what has seen its surroundings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cfsr.core.image.tiling import ALIGN, scaled, tile_grid
from napari_cfsr.errors import OptionError
from tests.helpers.strategies import halos, lengths, tiles

FEW = settings(max_examples=30)  # a plane with many tiles takes long; a fault shows at once


@FEW
@given(lengths, lengths, tiles, halos)
def test_stitching_the_crops_writes_every_pixel_once(height, width, tile, halo) -> None:
    """From parts that all have the same shape."""
    image = np.arange(height * width).reshape(height, width)
    copy, written = np.zeros_like(image), np.zeros_like(image)
    grid = tile_grid(height, width, tile, halo)
    for t in grid:
        assert image[t.read].shape == t.read_shape
        assert image[t.write].size == t.pixels
        copy[t.write] = image[t.read][t.crop]
        written[t.write] += 1
    np.testing.assert_array_equal(copy, image)
    assert (written == 1).all()
    assert len({t.read_shape for t in grid}) <= 1


@FEW
@given(lengths, lengths, tiles, halos, st.integers(1, 500))
def test_strips_add_up_to_their_tile(height, width, tile, halo, pixels) -> None:
    image = np.arange(height * width).reshape(height, width)
    for t in tile_grid(height, width, tile, halo):
        strips = list(t.strips(pixels))
        parts = [image[s.read][s.crop] for s in strips]
        np.testing.assert_array_equal(np.concatenate(parts), image[t.write])
        np.testing.assert_array_equal(
            np.concatenate([image[s.write] for s in strips]), image[t.write]
        )
        assert all(s.read == t.read and s.write[1] == t.write[1] for s in strips)
        assert max(s.pixels for s in strips) <= max(pixels, t.write[1].stop - t.write[1].start)


@FEW
@given(lengths, lengths, tiles, halos)
def test_the_halo_is_whole_except_at_the_border(height, width, tile, halo) -> None:
    for t in tile_grid(height, width, tile, halo):
        for read, write, length in zip(t.read, t.write, (height, width), strict=True):
            assert 0 <= read.start <= max(write.start - halo, 0)
            assert length >= read.stop >= min(write.stop + halo, length)
            assert write.stop - write.start <= tile
            assert read.stop - read.start <= tile + 2 * halo


@given(lengths, tiles, halos, st.data())
def test_nothing_is_read_beyond_the_halo_of_a_part(length, tile, halo, data) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    for t in tile_grid(length, 1, tile, halo, within=(slice(start, stop), slice(0, 1))):
        assert t.read[0].start >= max(start - halo, 0)
        assert t.read[0].stop <= min(stop + halo, length)


@given(st.integers(1, 3000), st.integers(16, 600))
def test_inner_cuts_are_aligned_when_tiles_are(length, tile) -> None:
    tile = tile // ALIGN * ALIGN
    starts = [t.write[0].start for t in tile_grid(length, 1, tile, 32)]
    assert all(s % ALIGN == 0 for s in starts)
    assert len(starts) <= -(-length // tile) + 1


def test_tiles_are_about_equal_and_read_no_more_than_they_need() -> None:
    assert {t.read_shape[0] for t in tile_grid(1024, 1, 512, 32)} == {544}
    assert {t.read_shape[0] for t in tile_grid(1536, 1, 512, 32)} == {576}
    sizes = [t.write[0].stop - t.write[0].start for t in tile_grid(600, 1, 512, 32)]
    assert sizes == [304, 296]
    assert tile_grid(0, 5, 16, 4) == []


@given(lengths, lengths, tiles, st.integers(2, 4))
def test_scaled_regions(y, x, side, scale) -> None:
    image = np.zeros((y + side, x + side)).repeat(scale, 0).repeat(scale, 1)
    where = scaled((slice(y, y + side), slice(x, x + side)), scale)
    assert image[where].shape == (side * scale, side * scale)


@FEW
@given(lengths, lengths, tiles)
def test_cutting_a_part_covers_just_that_part(height, width, tile) -> None:
    part = (slice(height // 3, height), slice(0, width - width // 2))
    written = np.zeros((height, width), int)
    for t in tile_grid(height, width, tile, 5, within=part):
        written[t.write] += 1
    expected = np.zeros_like(written)
    expected[part] = 1
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize(("tile", "halo"), [(0, 1), (-3, 1), (16, -1)])
def test_invalid_tiles(tile, halo) -> None:
    with pytest.raises(OptionError, match="expected tile >= 1 and halo >= 0"):
        tile_grid(10, 10, tile, halo)
