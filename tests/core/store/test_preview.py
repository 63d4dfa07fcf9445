"""Showing stored pyramids: indexing like numpy, and what is seen while a store grows."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from napari_cfsr.core.store.layout import ShardIndex
from napari_cfsr.core.store.level_view import LevelView, level_range
from napari_cfsr.core.store.plan import plan_store
from napari_cfsr.core.store.preview import StorePreview
from napari_cfsr.core.store.run import StoreRun
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.upscale.resolve import MODEL_BYTES, result_bytes, size, why_not_in_memory
from napari_cfsr.errors import CancelledError
from tests.helpers.fakes import BoxModel
from tests.helpers.strategies import values


@pytest.fixture(autouse=True)
def one_tile_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one tile, and pyramids of small images."""
    monkeypatch.setattr("napari_cfsr.core.store.layout.SMALLEST_LEVEL", 128)
    monkeypatch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))


def begun(pixels: np.ndarray, path, axes: str, model: BoxModel | None = None) -> StoreRun:
    options = UpscaleOptions(axes, rgb=False, tile=32, halo=4)
    model = model or BoxModel(4, refiner=True)
    return StoreRun(pixels, model, plan_store(pixels, model, path, options))


def followed(run: StoreRun) -> StorePreview:
    growth = StorePreview(run.store)
    run.written = growth.put
    return growth


@given(data=st.data(), order=st.permutations(range(4)), luma=st.booleans())
def test_a_view_is_sliced_as_numpy_is(data, order, luma) -> None:
    shape = (2, 5, 4, 3)  # of the view; stored with the axes in another order
    image = values(np.dtype("uint8"), shape, 0)
    view = LevelView(image.transpose(order), order, luma)
    expected = image @ np.array([0.299, 0.587, 0.114], np.float32) if luma else image
    assert (view.shape, view.dtype) == (expected.shape, expected.dtype)
    key = []
    for n in expected.shape[: data.draw(st.integers(0, expected.ndim))]:
        key.append(data.draw(st.integers(-n, n - 1) | st.slices(n) | st.just([0, n - 1, 0])))
    if sum(isinstance(k, list) for k in key) > 1:
        key = [slice(None) if isinstance(k, list) else k for k in key]
    if data.draw(st.booleans()):
        key.append(Ellipsis)
    np.testing.assert_allclose(view[tuple(key)], expected[tuple(key)], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(view), expected, rtol=1e-6)


def test_an_index_beyond_the_end_is_an_error() -> None:
    view = LevelView(np.zeros((3, 4)), (0, 1))
    for key in (3, (0, -5), (0, 0, 0)):
        with pytest.raises(IndexError, match="expected"):
            view[key]


@pytest.mark.parametrize(("axes", "order"), [("TYX", (0, 1, 2)), ("YXT", (2, 0, 1))])
def test_the_range_of_a_stack_is_found_without_reading_all_of_it(axes, order, monkeypatch) -> None:
    stored = np.zeros((50, 8, 16), np.float32)  # planes first, as in a store
    stored[0, 0, 0], stored[0, 0, 1], stored[-1, 7, 15] = np.nan, -2, 3
    read = []

    class Counted:
        shape, dtype = stored.shape, stored.dtype

        def __getitem__(self, where):
            read.append(stored[where].shape)
            return stored[where]

    view = LevelView(Counted(), order)
    assert level_range(view, axes) == (-2, 3)
    assert len(read) == 50
    monkeypatch.setattr("napari_cfsr.core.store.level_view.RANGE_PIXELS", 4 * 8 * 16)
    read.clear()
    assert level_range(view, axes) == (-2, 3)
    assert read == [(1, 8, 16)] * 4
    assert level_range(LevelView(np.full((2, 3), np.nan), (0, 1)), "YX") == (0, 0)


@pytest.mark.parametrize(
    ("axes", "shape"), [("YX", (88, 125)), ("YXS", (38, 66, 4)), ("CTYX", (2, 2, 38, 38))]
)
def test_each_block_is_seen_at_every_level_as_soon_as_it_is_done(tmp_path, axes, shape) -> None:
    pixels = values(np.dtype("uint16"), shape, 0)
    run = begun(pixels, tmp_path / "a.zarr", axes)
    growth = followed(run)
    levels = {name: growth.levels(name) for name in run.store.specs}
    assert len(levels["baseline"]) > 1
    top = len(levels["baseline"]) - 1
    blocks = 0
    for _ in run.shards():
        done = [unit for unit in run.store.done if unit.level == 0]
        if len(done) == blocks:
            continue
        blocks = len(done)
        last = next(u for u in reversed(run.plan.shards) if u in done)
        for name, pyramid in levels.items():
            whole = run.store.arrays[name, 0]
            where = run.plan.layout.where(last, run.store.form(name, 0))
            written = np.asarray(whole[where])
            assert_array_equal(pyramid[0][where], written)
            if last.level == 0 and ShardIndex(top, (*last.index[:-2], 0, 0)) not in run.store.done:
                step = 2**top
                starts = [-(-s.start // step) for s in where[-2:]]
                seen = written[
                    ..., starts[0] * step - where[-2].start :: step,
                    starts[1] * step - where[-1].start :: step,
                ]  # fmt: skip
                small = (
                    *where[:-2],
                    *(slice(a, a + n) for a, n in zip(starts, seen.shape[-2:], strict=True)),
                )
                assert_array_equal(pyramid[top][small], seen)
    assert blocks == np.prod([*run.plan.layout.grid(0)])
    run.finish()
    growth.finish()
    for name, pyramid in levels.items():
        for level, array in enumerate(pyramid):
            everything = tuple(slice(0, n) for n in array.shape)
            assert_array_equal(array[everything], np.asarray(run.store.arrays[name, level][...]))


def test_what_is_not_done_is_black_and_costs_no_reading(tmp_path) -> None:
    run = begun(values(np.dtype("uint8"), (88, 125), 0), tmp_path / "a.zarr", "YX")
    growth = followed(run)
    for level in growth.levels("delta"):
        assert not level[slice(0, level.shape[0]), slice(5, 9)].any()
    steps = run.shards()
    while growth.count == 0:
        next(steps)
    level = growth.levels("baseline")[0]
    assert level[slice(0, 128), slice(0, 128)].any()
    assert not level[slice(0, 128), slice(128, 256)].any()
    # of a level that is not done, one pixel of the small image stands for each square
    middle = growth.levels("baseline")[1][slice(0, 8), slice(0, 8)]
    assert_array_equal(middle[0::2, 0::2], middle[1::2, 1::2])


def test_a_resumed_store_shows_what_the_earlier_run_wrote(tmp_path) -> None:
    pixels = values(np.dtype("uint16"), (2, 88, 125), 0)
    first = begun(pixels, tmp_path / "a.zarr", "TYX")
    before = followed(first)
    steps = first.shards()
    while before.count < 19:  # in the second plane, past two blocks of 2x2 reduced to one
        next(steps)
    steps.close()
    run = begun(pixels, tmp_path / "a.zarr", "TYX")
    growth = followed(run)
    for name in run.store.specs:
        for old, new in zip(before.levels(name), growth.levels(name), strict=True):
            everything = tuple(slice(0, n) for n in old.shape)
            if old.shape[-1] > 128:
                assert_array_equal(new[everything], old[everything])
        seen = growth.levels(name)[-1][slice(1, 2), slice(0, 16), slice(0, 16)]
        assert (seen != 0).mean() > 0.9


def test_cancelled_in_a_block_nothing_wrong_is_seen(tmp_path) -> None:
    run = begun(values(np.dtype("uint8"), (38, 38), 0), tmp_path / "a.zarr", "YX")
    growth = followed(run)

    def stop() -> None:
        raise CancelledError("cancelled")

    run.check = stop
    with pytest.raises(CancelledError):
        list(run.shards())
    assert growth.count == 0
    assert not growth.levels("baseline")[-1][slice(0, 19), slice(0, 19)].any()


def test_the_size_of_a_result_is_that_of_its_arrays() -> None:
    outputs = ("baseline", "delta", "difference")
    for region, pixels in ((None, 24 * 20), (((2, 12), (5, 15)), 10 * 10)):
        found = result_bytes((24, 20, 3), np.dtype("uint8"), "YXS", 4, outputs, region)
        assert found == pixels * 3 * 16 * 6
    assert result_bytes((24, 20, 4), np.dtype("uint8"), "YXS", 2, ("difference",)) == 48 * 40 * 12


def test_the_reason_why_a_result_does_not_fit(monkeypatch) -> None:
    free = psutil.virtual_memory()._replace(available=8_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert why_not_in_memory(8_000_000_000 - MODEL_BYTES) == ""
    assert why_not_in_memory(12_884_901_888) == (
        "the result takes 12.9 GB, the network 1.1 GB, and 8.0 GB of memory are free"
    )
    assert [size(n) for n in (700, 48e6, 3.2e12)] == ["1 kB", "48 MB", "3.2 TB"]
