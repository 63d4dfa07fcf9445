"""Dask arrays with the values of `upscale`, whatever the chunks; computed when asked for."""

from __future__ import annotations

import time

import dask
import dask.array as da
import numpy as np
import pytest
import skimage
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_cfsr as nc
from napari_cfsr import upscale, upscale_dask
from napari_cfsr.core.upscale import UpscaleOptions, plan_blocks
from napari_cfsr.errors import ImageError, OptionError
from tests.helpers.fakes import BoxModel
from tests.helpers.strategies import axes_and_shapes, dtypes, values


class Untouchable:
    """An array that can't be read."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, key: object) -> np.ndarray:
        raise AssertionError("was read")


@st.composite
def chunks_of(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Chunks of any size, uneven, along each dimension."""
    result = []
    for n in shape:
        cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=4))) if n > 1 else []
        result.append(tuple(b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)))
    return tuple(result)


@given(st.data(), axes_and_shapes(), dtypes, st.sampled_from(["auto", "data", "percentile"]))
@settings(max_examples=80)
def test_any_axes_dtype_and_chunks_have_the_values_of_upscale(drawn, named, dtype, mode) -> None:
    names, shape = named
    image = values(dtype, shape, 1)
    lazy_input = da.from_array(image, chunks=drawn.draw(chunks_of(shape)))
    options = {"axes": names, "rgb": False, "tile": 4, "halo": 2, "intensity": mode}
    lazy = upscale_dask(lazy_input, BoxModel(3, refiner=True), **options)
    expected = upscale(image, BoxModel(3, refiner=True), **options)
    computed = dask.compute(*lazy.arrays().values())
    assert list(lazy.arrays()) == list(expected.arrays())
    for got, array, wanted in zip(
        computed, lazy.arrays().values(), expected.arrays().values(), strict=True
    ):
        assert (array.shape, array.dtype) == (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_array_equal(got, wanted)


def test_the_real_network_gives_the_values_of_upscale(bundled_models, monkeypatch) -> None:
    """Its field is larger than the halo: tiles in other places would give other values."""
    image = skimage.data.camera()[100:200, 150:265].astype(np.float32) / 255
    monkeypatch.setattr("napari_cfsr.core.upscale.dask_arrays.LAZY_SIDE", 128)
    how = {"tile": 32, "halo": 8}
    whole = upscale(image, bundled_models[2], **how).baseline
    assert np.ptp(whole) > 0.5
    for chunks in ((300, 400), (37, 41), (1, 400)):
        lazy = upscale_dask(da.from_array(image, chunks=chunks), bundled_models[2], **how)
        assert lazy.baseline.chunks == ((128, 72), (128, 102))
        np.testing.assert_allclose(lazy.baseline.compute(), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [100, 200, 400])
def test_blocks_of_any_size_and_a_region_give_the_same(side) -> None:
    image = values(np.dtype("uint16"), (3, 150, 190), 0)
    model = BoxModel(2, refiner=True)
    asked = {"axes": "ZYX", "tile": 40, "halo": 5, "region": ((13, 140), (7, 190))}
    expected = upscale(image, model, **asked)
    options = UpscaleOptions(**asked)
    plan = plan_blocks(image, model, options, side=side)
    assert max(plan.sides[1:]) * 2 <= max(side, 96)
    mapping = plan.find_mapping(image)
    assert mapping == expected.mapping
    from napari_cfsr.core.upscale import exhaust, run_block

    got = {name: np.zeros(shape, dtype) for name, (shape, dtype) in plan.specs.items()}
    for index in plan.indices():
        outputs = exhaust(run_block(plan, index, image[plan.read(index)], mapping, model))
        for name, part in outputs.items():
            got[name][plan.written(index, name)] = part
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.alone
def test_metadata_cost_no_reading_and_no_computing() -> None:
    model = BoxModel(4, refiner=True)
    started = time.perf_counter()
    lazy = upscale_dask(Untouchable((3, 16384, 16384), "float32"), model, "CYX", rgb=True)
    assert time.perf_counter() - started < 5
    assert lazy.baseline.shape == lazy.delta.shape == lazy.difference.shape == (3, 65536, 65536)
    assert lazy.baseline.dtype == np.float32
    assert lazy.baseline.chunks[0] == (3,)
    assert set(lazy.baseline.chunks[1]) == {1024}  # three outputs of 2048 would take 150 MB
    assert lazy.mapping is None  # of floats, it depends on the pixels
    assert (lazy.options.tile, lazy.options.halo) == (256, 32)
    assert not model.batches
    known = upscale_dask(Untouchable((500, 1024, 1024), "uint8"), model, "ZYX")
    assert known.baseline.chunks == ((1,) * 500, (2048, 2048), (2048, 2048))
    assert known.mapping[0].high == 255
    assert known.resolve() is known


def test_outputs_computed_together_run_the_model_once() -> None:
    image = da.from_array(values(np.dtype("uint8"), (300, 200), 0), chunks=70)
    model = BoxModel(2, refiner=True)
    lazy = upscale_dask(image, model, tile=32)
    baseline, delta, difference = dask.compute(lazy.baseline, lazy.delta, lazy.difference)
    assert sum(batch[0] for batch in model.batches) == 10 * 7
    assert (delta >= baseline).all()
    np.testing.assert_allclose(difference.max(), 0.25 * 255, atol=1e-3)
    model.batches.clear()
    lazy.delta[:10, :10].compute()
    assert sum(batch[0] for batch in model.batches) == 10 * 7  # of its one block
    only = upscale_dask(image, model, tile=32, outputs=("baseline",))
    assert (only.delta, only.difference) == (None, None)


def test_a_part_computes_and_reads_its_own_blocks_only() -> None:
    seen = np.zeros((40, 40), bool)

    def record(block: np.ndarray, block_info: dict) -> np.ndarray:
        y, x = block_info[0]["chunk-location"]
        seen[y, x] = True
        return block

    image = da.zeros((4000, 4000), chunks=100, dtype=np.uint8).map_blocks(
        record, dtype=np.uint8, meta=np.empty((0, 0), np.uint8)
    )
    model = BoxModel(4)
    lazy = upscale_dask(image, model, tile=256)
    assert not seen.any()
    assert lazy.baseline.chunks[0][:2] == (2048, 2048)
    lazy.baseline[5000, 5000].compute()
    # the block of rows 1024 to 1536, its halo of 32 and the 16 around that
    assert seen[9:16, 9:16].all()
    assert seen.sum() == 49
    assert sum(b[0] for b in model.batches) == 4


def test_the_range_is_one_for_all_t_and_z_of_a_channel() -> None:
    rng = np.random.default_rng(0)
    stack = rng.integers(100, 200, (4, 2, 3, 30, 34)).astype(np.uint16)
    stack[3, 0, 2, 5, 5], stack[0, 1, 0, 7, 7] = 4000, 900
    lazy = upscale_dask(da.from_array(stack, chunks=(1, 1, 2, 9, 34)), BoxModel(2), "TCZYX")
    found = lazy.resolve()
    assert [m.high for m in found.mapping] == [4000, 900]
    assert [m.low for m in found.mapping] == [100, 100]
    expected = upscale(stack, BoxModel(2), "TCZYX")
    assert found.mapping == expected.mapping
    # a single frame gives the same as in the series: no flicker
    np.testing.assert_array_equal(lazy.baseline[1].compute(), expected.baseline[1])
    np.testing.assert_array_equal(found.baseline[1].compute(), expected.baseline[1])


def test_percentiles_of_large_arrays_are_sampled_as_by_upscale() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (2, 2300, 2100)).astype(np.float32)
    image[0, 5, 5] = np.nan
    asked = {"axes": "CYX", "rgb": False, "intensity": "percentile"}
    region = ((50, 2290), (3, 2100))
    lazy = upscale_dask(da.from_array(image, chunks=(2, 333, 512)), BoxModel(2), **asked)
    plan = plan_blocks(image, BoxModel(2), UpscaleOptions(**asked))
    assert lazy.resolve().mapping == plan.find_mapping(image)
    part = upscale_dask(
        da.from_array(image, chunks=(1, 700, 99)), BoxModel(2), region=region, **asked
    )
    plan = plan_blocks(image, BoxModel(2), UpscaleOptions(**asked, region=region))
    assert part.resolve().mapping == plan.find_mapping(image)
    assert part.resolve().mapping != lazy.resolve().mapping


def test_ensemble_back_projection_and_alpha_are_those_of_upscale(tiny_models) -> None:
    image = values(np.dtype("uint8"), (50, 40, 4), 3)
    for quality in ({"ensemble": True}, {"back_projection": True}):
        lazy = upscale_dask(
            da.from_array(image, chunks=(13, 40, 2)), tiny_models[4], "YXC", **quality
        )
        expected = upscale(image, tiny_models[4], "YXC", **quality).baseline
        got = lazy.baseline.compute()
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert (got != expected).mean() < 1e-3


def test_zarr_arrays_are_read_a_block_at_a_time(tmp_path) -> None:
    image = values(np.dtype("uint16"), (2, 1200, 600), 0)
    stored = zarr.create_array(str(tmp_path / "a.zarr"), data=image, chunks=(1, 100, 100))
    reads = []

    class Watched:
        shape, dtype = stored.shape, stored.dtype

        def __getitem__(self, key: object) -> np.ndarray:
            part = stored[key]
            reads.append(part.shape)
            return part

    lazy = upscale_dask(Watched(), BoxModel(4), "ZYX", intensity="dtype", halo=8)
    expected = upscale(image, BoxModel(4), "ZYX", intensity="dtype", halo=8)
    np.testing.assert_array_equal(lazy.baseline.compute(), expected.baseline)
    assert len(reads) == 2 * 3 * 2
    assert max(reads) <= (1, 512 + 2 * 24, 512 + 2 * 24)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_empty_arrays_are_empty(shape) -> None:
    lazy = upscale_dask(da.zeros(shape, dtype=np.uint16), BoxModel(2), "YX")
    assert lazy.baseline.shape == (shape[0] * 2, shape[1] * 2)
    assert lazy.baseline.compute().dtype == np.uint16


def test_the_same_input_has_the_same_names() -> None:
    image = da.zeros((40, 40), chunks=20, dtype=np.uint8)
    first, second = (upscale_dask(image, BoxModel(2)).baseline.name for _ in range(2))
    assert first == second
    assert upscale_dask(image, BoxModel(2), tile=16).baseline.name != first
    assert upscale_dask(image + 1, BoxModel(2)).baseline.name != first


def test_what_upscale_refuses_is_refused_at_once() -> None:
    image = da.zeros((40, 40), dtype=np.uint8)
    with pytest.raises(OptionError, match="expected tile >= 1, got 0"):
        upscale_dask(image, BoxModel(2), tile=0)
    with pytest.raises(OptionError, match="expected intensity one of"):
        upscale_dask(image, BoxModel(2), intensity="nonsense")
    with pytest.raises(ImageError, match="real float pixels, got complex64"):
        upscale_dask(image.astype(np.complex64), BoxModel(2))
    with pytest.raises(ImageError, match=r"call compute_chunk_sizes\(\) on it first"):
        upscale_dask(image[image[:, 0] == 0], BoxModel(2), "YX")
    with pytest.raises(ImageError, match="expected an array, got list"):
        nc.upscale_dask([[1]], BoxModel(2))
