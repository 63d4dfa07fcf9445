"""Upscaling of arrays: any axes, dtype, size and tile; what happens when memory is short."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine.model import PredictOptions, SRModel
from napari_cfsr.core.engine.registry import SMALLEST_TILE, choose_engine
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.upscale import UpscaleOptions, UpscaleProgress, exhaust, iter_upscale
from napari_cfsr.core.weights import RefinerCard, bundled_path, save_refiner, sha256_of
from napari_cfsr.errors import CancelledError, ImageError, OptionError, OutOfMemoryError
from tests.helpers.fakes import FIELD, BoxModel
from tests.helpers.faults import CancelAt
from tests.helpers.strategies import axes_and_shapes, dtypes, values
from tests.helpers.tiny_weights import tiny_network


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of untrained networks, by scale, that see as far as the published ones."""
    folder, files = tmp_path_factory.mktemp("narrow"), {}
    for scale in (2, 4):
        files[scale] = folder / f"x{scale}.safetensors"
        state = tiny_network(scale, depths=(6, 6), layer_scale=1.0).state_dict()
        far = {name: 20 * value for name, value in state.items() if "lkb_reparam.weight" in name}
        save_file(state | far, files[scale])
    return files


@pytest.fixture(scope="module")
def torch_model(tiny_backbones: dict[int, Path]) -> SRModel:
    """A tiny x2 network without refiner, run by torch."""
    return load_model(2, tiny_backbones[2], refiner=None, device="cpu", engine="torch")


def save_strong_refiner(path: Path, scale: int, placement: str, backbone: Path) -> Path:
    """A random refiner with a visible effect."""
    network = RefineNet(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.body[-1].weight.mul_(300)
    card = RefinerCard(scale, placement, sha256_of(backbone))
    return save_refiner(path, network.state_dict(), card)


@given(axes_and_shapes(), dtypes, st.integers(2, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_any_axes_and_dtype_give_each_plane_as_if_alone(drawn, dtype, scale, seed) -> None:
    names, shape = drawn
    image = values(dtype, shape, seed)
    model = BoxModel(scale)
    result = upscale(image, model, axes=names, rgb=False, intensity="dtype")
    assert result.baseline.dtype == dtype
    assert result.baseline.shape == result.axes.scaled(scale)
    order = sorted(range(len(names)), key=lambda i: "TZCSYX".index(names[i]))
    planes = image.transpose(order).reshape(
        -1, *(shape[names.index(a)] for a in "SYX" if a in names)
    )
    outs = result.baseline.transpose(order).reshape(
        len(planes),
        *(n * (scale if i >= planes.ndim - 3 else 1) for i, n in enumerate(planes.shape[1:])),
    )
    for plane, out in zip(planes, outs, strict=True):
        alone = upscale(plane, model, axes="SYX"[-plane.ndim :], intensity="dtype").baseline
        np.testing.assert_array_equal(out, alone)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 36),
    st.integers(FIELD, 16),
    st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_tiles_of_any_size_make_the_whole_image(height, width, tile, halo, dtype) -> None:
    image = values(np.dtype(dtype), (height, width), 0)
    model = BoxModel(3, refiner=True)
    tiled = upscale(image, model, tile=tile, halo=halo)
    whole = upscale(image, model, tile=100)
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(tiled.arrays()[name], array, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_default_tiles_are_within_a_hundredth_of_a_grey_level(models, data, scale) -> None:
    file = data / "benchmark/B100/HR/101085.png"
    image = np.asarray(Image.open(file)).astype(np.float32)[:128, :128] / 255
    whole = upscale(image, models[scale], tile=512).baseline
    tiled = upscale(image, models[scale], tile=64).baseline
    worst = np.abs(tiled - whole).max() * 255
    assert 0 < worst <= 0.01


@pytest.mark.parametrize("placement", ["output", "input"])
def test_default_tiles_with_a_refiner_are_as_close(tmp_path, placement) -> None:
    file = save_strong_refiner(tmp_path / "r.safetensors", 2, placement, bundled_path(2))
    model = load_model(2, "bundled", file, "cpu")
    image = np.random.default_rng(0).random((112, 112)).astype(np.float32)
    whole = upscale(image, model, tile=512, outputs=("delta", "difference"))
    tiled = upscale(image, model, tile=56, outputs=("delta",))
    assert np.abs(whole.difference).max() > 0.005
    assert 0 < np.abs(tiled.delta - whole.delta).max() * 255 <= 0.01


@pytest.mark.parametrize(
    ("scale", "placement", "halo"),
    [(2, None, 64), (4, None, 64), (2, "output", 72), (2, "input", 72)],
)
def test_the_exact_halo_is_exact(narrow, tmp_path, scale, placement, halo) -> None:
    """Tiles of 80 with it do not see all of the image; with 16 they see too little."""
    file = placement and save_strong_refiner(
        tmp_path / "r.safetensors", scale, placement, narrow[scale]
    )
    model = load_model(scale, narrow[scale], file, "cpu")
    shape = (160, 24) if placement else (24, 160)
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    whole, tiled, close = (
        upscale(image, model, **how)
        for how in ({"tile": 512}, {"tile": 80, "halo": "exact"}, {"tile": 80, "halo": 16})
    )
    assert tiled.options.halo == halo
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(tiled.arrays()[name], array, rtol=0, atol=1e-5)
        assert name == "difference" or np.abs(close.arrays()[name] - array).max() > 3e-5


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 3, 4]))
@settings(max_examples=12, deadline=None)
def test_odd_sizes_come_out_exactly_scaled(bundled_models, height, width, scale) -> None:
    image = np.random.default_rng(height).integers(0, 255, (height, width, 3)).astype(np.uint8)
    out = upscale(image, bundled_models[scale], tile=24).baseline
    assert out.shape == (height * scale, width * scale, 3)
    assert abs(float(out.mean()) - float(image.mean())) < 20


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 300), (300, 1), (2, 3, 1, 1)])
def test_tiny_and_thin_images_in_all_qualities(tiny_models, shape) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    axes = "TZYX"[-len(shape) :]
    for ensemble in (False, True):
        for back_projection in (False, True):
            out = upscale(
                image, tiny_models[4], axes, ensemble=ensemble, back_projection=back_projection
            ).baseline
            assert out.shape == (*shape[:-2], shape[-2] * 4, shape[-1] * 4)
            assert np.ptp(out) > 0 or image.size == 1


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 5, 5), (2, 0, 3)])
def test_empty_arrays_come_back_empty(shape) -> None:
    out = upscale(np.zeros(shape, np.uint16), BoxModel(3), "ZYX"[-len(shape) :], rgb=False)
    assert out.baseline.shape == (*shape[:-2], shape[-2] * 3, shape[-1] * 3)
    assert out.baseline.dtype == np.uint16


def test_layouts_in_memory_do_not_matter(tiny_models, tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 4000, (40, 60)).astype(np.uint16)
    expected = upscale(image, tiny_models[2]).baseline
    mapped = np.memmap(tmp_path / "image.raw", np.uint16, "w+", shape=image.shape)
    mapped[:] = image
    for same in (
        np.asfortranarray(image),
        np.repeat(image, 2, axis=1)[:, ::2],
        image[::-1][::-1],
        image.astype(">u2"),
        mapped,
        da.from_array(image, chunks=(7, 13)),
    ):
        got = upscale(same, tiny_models[2]).baseline
        assert got.dtype == np.uint16
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, expected)


def test_lazy_arrays_are_never_read_as_a_whole() -> None:
    sizes = []

    def record(block: np.ndarray) -> np.ndarray:
        sizes.append(block.size)
        return block

    lazy = da.zeros((1000, 1200), chunks=(100, 100), dtype=np.uint8).map_blocks(
        record, dtype=np.uint8, meta=np.empty((0, 0), np.uint8)
    )
    reads = []

    class Watched:
        shape, dtype = lazy.shape, lazy.dtype

        def __getitem__(self, key):
            part = lazy[key]
            reads.append(part.size)
            return part

    upscale(Watched(), BoxModel(2), axes="YX")
    assert max(reads) <= (256 + 2 * 32 + 2 * 16) ** 2
    assert len(reads) == 4 * 5


def test_nan_and_infinity_come_back_as_blocks_and_spoil_nothing_else(bundled_models) -> None:
    image = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    spoilt = image.copy()
    spoilt[10, 12], spoilt[0, 0], spoilt[30, 49] = np.nan, np.inf, -np.inf
    out = upscale(spoilt, bundled_models[2], intensity=(0, 1), tile=32).baseline
    assert np.isnan(out[20:22, 24:26]).all()
    assert (out[0:2, 0:2] == np.inf).all()
    assert (out[60:62, 98:100] == -np.inf).all()
    assert np.isfinite(out).sum() == out.size - 3 * 4
    clean = upscale(image, bundled_models[2], intensity=(0, 1), tile=32).baseline
    far = np.ones(out.shape, bool)
    for y, x in ((20, 24), (0, 0), (60, 98)):
        far[max(y - 20, 0) : y + 22, max(x - 20, 0) : x + 22] = False
    assert np.abs(out - clean)[far].max() < 0.02
    assert np.isnan(upscale(np.full((5, 5), np.nan), bundled_models[2]).baseline).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_constant_images_stay_constant(bundled_models, dtype) -> None:
    image = np.full((30, 30), 77, dtype)
    out = upscale(image, bundled_models[3]).baseline.astype(float)[
        9:-9, 9:-9
    ]  # zero padding shows outside
    assert np.abs(out - 77).max() <= (2 if dtype == "uint8" else 1e-3)


def test_alpha_is_bicubic_and_hidden_colours_do_not_bleed(bundled_models) -> None:
    rng = np.random.default_rng(0)
    colour = np.full((40, 40, 3), 200, np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:30, 10:30] = 255
    hidden_black = np.dstack([np.where(alpha[..., None] > 0, colour, 0), alpha])
    hidden_noise = hidden_black.copy()
    hidden_noise[alpha == 0, :3] = rng.integers(0, 255, (np.sum(alpha == 0), 3))
    a, b = (upscale(x, bundled_models[2]).baseline for x in (hidden_black, hidden_noise))
    np.testing.assert_array_equal(a, b)
    visible = a[a[..., 3] > 0]
    assert np.abs(visible[:, :3].astype(int) - 200).max() <= 3
    opaque = np.dstack([rng.integers(0, 255, (20, 20, 3)), np.full((20, 20), 255)]).astype(np.uint8)
    out = upscale(opaque, bundled_models[2]).baseline
    assert (out[..., 3] == 255).all()
    np.testing.assert_array_equal(
        out[..., :3], upscale(opaque[..., :3], bundled_models[2]).baseline
    )


def test_channels_are_independent_gray_images(tiny_models) -> None:
    stack = np.random.default_rng(0).integers(0, 4095, (2, 3, 20, 22)).astype(np.uint16)
    stack[:, 1] //= 10
    out = upscale(stack, tiny_models[2], axes="TCYX").baseline
    for channel in range(3):
        alone = upscale(stack[:, channel], tiny_models[2], axes="TYX").baseline
        np.testing.assert_array_equal(out[:, channel], alone)


def test_difference_is_delta_minus_baseline_before_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 150, (20, 20)).astype(np.uint8)
    result = upscale(image, BoxModel(2, refiner=True))
    np.testing.assert_allclose(result.difference, 0.25 * 255, atol=1e-3)
    assert result.difference.dtype == np.float32
    rounded = result.delta.astype(int) - result.baseline
    assert np.abs(rounded - result.difference).max() <= 1


def test_outputs_are_those_asked_for() -> None:
    image = np.zeros((4, 4), np.uint8)
    assert list(upscale(image, BoxModel(2)).arrays()) == ["baseline"]
    three = upscale(image, BoxModel(2, refiner=True)).arrays()
    assert list(three) == ["baseline", "delta", "difference"]
    one = upscale(image, BoxModel(2, refiner=True), outputs=("difference",)).arrays()
    assert list(one) == ["difference"]


def test_small_planes_run_in_batches() -> None:
    model = BoxModel(2)
    stack = np.random.default_rng(0).integers(0, 255, (50, 64, 64)).astype(np.uint8)
    result = upscale(stack, model, axes="TYX")
    assert len(model.batches) == 2
    assert model.batches[0][0] == (256 + 64) ** 2 // 64**2
    np.testing.assert_array_equal(
        result.baseline[7], upscale(stack[7], BoxModel(2), intensity="auto").baseline
    )


def test_progress_counts_pixels_to_the_end() -> None:
    steps: list[UpscaleProgress] = []
    upscale(np.zeros((300, 500), np.uint8), BoxModel(2), tile=128, progress=steps.append)
    done = [s.done for s in steps]
    assert done[0] == 0
    assert done[-1] == steps[-1].total == 300 * 500
    assert all(a < b for a, b in pairwise(done))
    assert steps[0].seconds_left is None
    assert steps[-1].seconds_left == 0
    assert steps[-1].fraction == 1


def test_progress_that_raises_leaves_no_network_running() -> None:
    class Slow(BoxModel):
        def predict(self, batch, how, check=lambda: None):
            while len(self.batches) > 0:  # the second batch takes until it is stopped
                check()
                time.sleep(0.001)
            return super().predict(batch, how, check)

    def progress(step: UpscaleProgress) -> None:
        if step.done:
            raise KeyError

    with pytest.raises(KeyError) as kept:  # and with it all frames, as a notebook keeps them
        upscale(np.zeros((300, 300), np.uint8), Slow(), tile=64, progress=progress)
    assert kept.tb is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("napari-cfsr tiles")]


def test_one_model_runs_once_at_a_time(tiny_models) -> None:
    model, image = tiny_models[2], np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    expected = model.predict(image)["baseline"]
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(model.predict, [image] * 8):
            np.testing.assert_array_equal(result["baseline"], expected)


def test_out_of_memory_halves_what_did_not_fit() -> None:
    model = BoxModel(2, most_pixels=100 * 100, memory=10**12)
    image = np.random.default_rng(0).integers(0, 255, (8, 90, 90)).astype(np.uint8)
    result = upscale(image, model, axes="ZYX")
    assert [b[0] for b in model.batches] == [8, 4, 2, *[1] * 8]
    noted = [f"out of memory: continuing with {n} tiles at a time" for n in (4, 2, 1)]
    assert list(result.notes) == noted


def test_tiles_become_smaller_when_memory_runs_out() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    steps: list[UpscaleProgress] = []
    model = BoxModel(2, most_pixels=120 * 120)
    result = upscale(image, model, progress=steps.append, halo=8)
    np.testing.assert_array_equal(result.baseline, upscale(image, BoxModel(2)).baseline)
    assert list(result.notes) == [s.note for s in steps if s.note]
    assert result.notes == ("out of memory: continuing with tiles of 80 pixels",)
    assert steps[-1].done == steps[-1].total
    assert max(b[2] * b[3] for b in model.batches[-4:]) <= 120 * 120
    assert (result.options.tile, result.options.halo) == (80, 8)  # those at the end
    assert result.options.outputs == ("baseline",)


def test_out_of_memory_in_the_middle_keeps_what_is_done() -> None:
    image = np.random.default_rng(0).integers(0, 255, (96, 3000)).astype(np.uint8)
    model = BoxModel(2, refiner=True)
    steps = iter_upscale(image, model, UpscaleOptions(tile=128, halo=8))
    for _ in range(3):
        next(steps)
    model.most_pixels = 70 * 70
    before = len(model.batches)
    result = exhaust(steps)
    expected = upscale(image, BoxModel(2, refiner=True))
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(result.arrays()[name], array, atol=1e-4)
    assert len(model.batches) > before


def test_each_try_after_out_of_memory_is_smaller_than_the_one_that_failed() -> None:
    """Smaller tiles alone would not be enough: more of them could run at a time."""
    image = np.random.default_rng(0).integers(0, 255, (96, 3000)).astype(np.uint8)
    model = BoxModel(2)
    steps = iter_upscale(image, model, UpscaleOptions(tile=128, halo=8))
    for _ in range(3):  # tiles inside the image, which are alike
        next(steps)
    first, model.most_pixels = len(model.batches) + 1, 10
    with pytest.raises(OutOfMemoryError):
        exhaust(steps)
    pixels = [n * height * width for n, _, height, width in model.batches[first - 1 :]]
    assert len(pixels) > 3
    assert all(later < 0.75 * earlier for earlier, later in pairwise(pixels))


def test_out_of_memory_with_the_smallest_tile_goes_to_the_cpu() -> None:
    image = np.random.default_rng(0).integers(0, 255, (100, 100)).astype(np.uint8)
    model = BoxModel(2, most_pixels=10, device="cuda")
    result = upscale(image, model)
    assert result.info.device == "cpu"
    assert "out of memory on cuda with the smallest tile: continuing on the CPU" in result.notes
    np.testing.assert_array_equal(result.baseline, upscale(image, BoxModel(2)).baseline)


def test_on_the_cpu_tiles_are_large_again_and_only_what_is_left_is_done() -> None:
    image = np.random.default_rng(0).integers(0, 255, (2, 300, 900)).astype(np.uint8)
    model = BoxModel(2, refiner=True, device="cuda", memory=10**9)
    options = UpscaleOptions(axes="ZYX", tile=160, halo=8, region=((20, 290), (0, 900)))
    steps = iter_upscale(image, model, options)
    for _ in range(14):  # most of the first plane
        step = next(steps)
    left = step.total - step.done
    assert 0 < left < step.total / 2
    ahead = max(math.prod(b) for b in model.batches)  # one batch runs ahead of the progress
    model.most_pixels = 10
    result = exhaust(steps)
    on_cpu = [b for b, d in zip(model.batches, model.devices, strict=True) if d == "cpu"]
    # halos of 8 around tiles of 144x150, and what runs twice; not what had run meanwhile
    assert left - ahead < sum(b[0] * b[2] * b[3] for b in on_cpu) < 1.6 * left
    assert min(b[2] for b in on_cpu) > 100
    expected = upscale(image, BoxModel(2, refiner=True), "ZYX", region=((20, 290), (0, 900)))
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(result.arrays()[name], array, atol=1e-4)


def test_out_of_memory_everywhere_is_an_error_that_says_so() -> None:
    with pytest.raises(OutOfMemoryError, match=f"a tile of {SMALLEST_TILE} pixels on cpu"):
        upscale(np.zeros((100, 100), np.uint8), BoxModel(2, most_pixels=10))


def test_torch_running_out_of_memory_is_understood(torch_model, monkeypatch) -> None:
    model = torch_model
    network = model._engine._network
    forward, sizes = network.forward, []

    def small_only(x, gray):
        sizes.append(x.shape[2] * x.shape[3])
        if sizes[-1] > 70 * 70:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 5 bytes")
        return forward(x, gray)

    monkeypatch.setattr(network, "forward", small_only)
    image = np.random.default_rng(0).integers(0, 255, (90, 90)).astype(np.uint8)
    result = upscale(image, model, halo=16)
    monkeypatch.undo()
    assert result.notes[-1] == "out of memory: continuing with tiles of 32 pixels"
    expected = upscale(image, model).baseline.astype(int)
    assert np.abs(result.baseline - expected).max() <= 1


def test_a_result_that_does_not_fit_is_refused_before_any_work() -> None:
    huge = da.zeros((10**6, 10**6), dtype=np.float32, chunks=10**4)
    with pytest.raises(OutOfMemoryError, match=r"needs 16000.0 GB and .* are free"):
        upscale(huge, BoxModel(2), axes="YX", intensity=(0.0, 1.0))


def test_memory_is_checked_before_intensities_are_read() -> None:
    class Unreadable:
        shape, dtype = (10**6, 10**6), np.dtype(np.uint16)

        def __getitem__(self, key):
            pytest.fail("was read")

    with pytest.raises(OutOfMemoryError, match=r"needs 8000\.0 GB"):
        upscale(Unreadable(), BoxModel(2), axes="YX")


def test_cancel_stops_inside_a_tile(narrow) -> None:
    model = load_model(2, narrow[2], refiner=None, device="cpu", engine="torch")
    image, check = np.zeros((50, 50), np.uint8), CancelAt(8)
    with pytest.raises(CancelledError):
        list(iter_upscale(image, model, UpscaleOptions(tile=256), check))
    assert check.calls == 8  # the only tile calls it before each of the 12 blocks


def test_ensemble_is_the_mean_of_eight_flips_and_rotations(tiny_models) -> None:
    image = np.random.default_rng(0).random((24, 31, 3)).astype(np.float32)
    got = upscale(image, tiny_models[3], ensemble=True, intensity=(0, 1)).baseline
    parts = []
    for quarter in range(4):
        for flip in (False, True):
            turned = np.rot90(image, quarter)
            turned = turned[:, ::-1] if flip else turned
            out = upscale(turned, tiny_models[3], intensity=(0, 1)).baseline
            out = out[:, ::-1] if flip else out
            parts.append(np.rot90(out, -quarter))
    np.testing.assert_allclose(got, np.mean(parts, 0), atol=2e-6)
    tiled = upscale(image, tiny_models[3], ensemble=True, intensity=(0, 1), tile=16, halo="exact")
    np.testing.assert_allclose(tiled.baseline, got, atol=1e-5)


def test_back_projection_in_tiles_is_that_of_the_whole(tiny_models) -> None:
    image = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    whole = upscale(image, tiny_models[4], back_projection=True, tile=256).baseline
    tiled = upscale(image, tiny_models[4], back_projection=True, tile=32, halo="exact").baseline
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert np.abs(whole - upscale(image, tiny_models[4]).baseline).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tile": 0}, "expected tile >= 1, got 0"),
        ({"halo": -1}, "expected halo >= 0, got -1"),
        ({"back_projection": True}, "expected scale 4 for back-projection, got 2"),
        ({"outputs": ("delta",)}, "expected a refiner for output 'delta'"),
        ({"outputs": ("nonsense",)}, "got 'nonsense'"),
        ({"outputs": ()}, "at least one output"),
        ({"region": ((0, 11), (0, 5))}, "within 10 rows and 5 columns"),
        ({"region": ((3, 3), (0, 5))}, "within 10 rows and 5 columns"),
        ({"region": ((-1, 4), (0, 5))}, "within 10 rows and 5 columns"),
    ],
)
def test_impossible_options(options, says) -> None:
    with pytest.raises(OptionError, match=says):
        upscale(np.zeros((10, 5), np.uint8), BoxModel(2), **options)


@pytest.mark.parametrize(
    ("image", "axes", "says"),
    [
        (np.zeros((4, 4)), "ZYX", "one letter for each of the 2 dimensions"),
        ([[1, 2]], None, "expected an array, got list"),
        (np.zeros((4, 4), complex), None, "real float pixels, got complex128"),
        (np.array([[-1.7e308, 1.7e308]]), None, "give intensity limits"),  # no float spans them
    ],
)
def test_what_is_not_an_image_is_refused(image, axes, says) -> None:
    with pytest.raises(ImageError, match=says):
        upscale(image, BoxModel(2), axes)


def test_model_says_what_it_is(tiny_models) -> None:
    model = tiny_models[4]
    assert (model.scale, model.halo) == (4, 64)
    engine = choose_engine("auto", "cpu")
    assert repr(model) == f"SRModel(x4, file tiny_x4.safetensors, refiner=None, {engine} on cpu)"
    with pytest.raises(ImageError, match=r"expected a batch \[N,1,h,w\]"):
        model.predict(np.zeros((3, 4, 4), np.float32))
    with pytest.raises(OptionError, match="got 'delta'"):
        model.predict(np.zeros((1, 3, 4, 4), np.float32), PredictOptions(("delta",)))


@pytest.mark.parametrize("quality", [{}, {"back_projection": True}])
def test_a_region_is_that_part_of_the_whole(tiny_models, quality) -> None:
    image = np.random.default_rng(0).random((150, 170, 3)).astype(np.float32)
    whole = upscale(image, tiny_models[4], intensity="dtype", halo="exact", **quality)
    part = upscale(
        image,
        tiny_models[4],
        intensity="dtype",
        halo="exact",
        region=((60, 93), (1, 80)),
        **quality,
    )
    assert part.baseline.shape == (33 * 4, 79 * 4, 3)
    np.testing.assert_allclose(part.baseline, whole.baseline[240:372, 4:320], atol=1e-5)


def test_the_range_of_a_region_is_its_own_and_no_more_is_read_than_its_surroundings() -> None:
    image = np.zeros((3000, 3000), np.float32)
    image[:100], image[2000:2010, 2000:2010] = 900.0, 7.0
    seen = np.zeros(image.shape, bool)

    class Watched:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key):
            seen[key] = True
            return image[key]

    result = upscale(Watched(), BoxModel(2), axes="YX", region=((2000, 2100), (2000, 2100)))
    assert result.mapping[0].high == 7
    ys, xs = np.nonzero(seen)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (1952, 2147, 1952, 2147)


def test_a_hot_pixel_or_a_no_data_value_comes_back_and_spoils_nothing(tiny_models) -> None:
    image = np.random.default_rng(0).normal(1000, 10, (100, 100)).astype(np.float32)
    clean = upscale(image, tiny_models[2], intensity=(950, 1050)).baseline
    for value in (1e20, -3.4e38, 3e5):
        spoilt = image.copy()
        spoilt[50, 45] = value
        out = upscale(spoilt, tiny_models[2], intensity="percentile").baseline
        np.testing.assert_allclose(out[100:102, 90:92], value, rtol=1e-6)
        out = upscale(spoilt, tiny_models[2], intensity=(950, 1050)).baseline
        assert np.isfinite(out).all()
        away = np.abs(out - clean)
        away[70:132, 60:122] = 0
        assert away.max() < 1e-3  # of a range of 100: the tiny network sees 7 pixels to each side
    counts = np.full((40, 40), 100, np.uint16)
    counts[20, 20] = 65535
    out = upscale(counts, tiny_models[2], intensity=(95, 105)).baseline
    assert (out[40:42, 40:42] == 65535).all()


def spots() -> np.ndarray:
    """900 single pixels of 5000 on zeros: fewer than the percentiles leave out."""
    image = np.zeros((1000, 1000), np.uint16)
    image[10:970:32, 10:970:32] = 5000
    return image


def test_sparse_signal_is_super_resolved_with_percentiles() -> None:
    image = spots()
    assert np.count_nonzero(image) == 900
    result = upscale(image, BoxModel(2), intensity="percentile")
    assert (result.mapping[0].low, result.mapping[0].high) == (0, 5000)
    assert (result.baseline[20:22, 20:22] == 200).all()  # the mean of 5x5 pixels
    assert result.notes == ()


def test_a_signal_that_is_enlarged_without_the_network_is_noted() -> None:
    image, steps = spots(), []
    result = upscale(image, BoxModel(2), intensity=(0, 1), tile=128, progress=steps.append)
    np.testing.assert_array_equal(result.baseline[20:22, 20:22], 5000)
    (note,) = result.notes
    assert note.startswith("pixels more than 1000 times outside the intensity range")
    assert [s.note for s in steps if s.note] == [note]
    image = image.astype(np.float32)
    image[image > 0] = np.nan
    assert upscale(image, BoxModel(2), intensity=(0, 1)).notes == ()


def test_colours_and_alpha_do_not_depend_on_the_tiles(tiny_models) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (120, 130, 4)).astype(np.uint8)
    image[..., 3] = np.where(rng.random((120, 130)) < 0.3, 0, image[..., 3])
    image[30:90, 20:110, 3] = 0  # wide and hidden
    exact = image.astype(np.float32) / 255
    whole = upscale(exact, tiny_models[2], tile=256).baseline
    tiled = upscale(exact, tiny_models[2], tile=48).baseline
    np.testing.assert_allclose(tiled[..., 3], whole[..., 3], atol=1e-6)
    assert np.abs(tiled - whole).max() * 255 <= 0.01


def test_one_nan_in_alpha_stays_where_it_is(bundled_models) -> None:
    image = np.full((40, 40, 4), 0.5, np.float32)
    image[..., 3] = 1
    image[10, 10, 3] = np.nan
    out = upscale(image, bundled_models[2]).baseline
    assert np.isfinite(out).all()
    assert (out[..., 3] < 0.99).sum() < 100


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint16", "int16"])
def test_the_greatest_value_comes_back(dtype) -> None:
    top = np.iinfo(dtype).max
    out = upscale(np.full((4, 4), top, dtype), BoxModel(2), intensity="data").baseline
    assert (out == top).all()


def test_memory_that_the_system_refuses_is_an_error_that_says_so(monkeypatch) -> None:
    def refuse(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr("napari_cfsr.core.upscale.resolve.np.empty", refuse)
    with pytest.raises(OutOfMemoryError, match="which this system does not give"):
        upscale(np.zeros((4, 4), np.uint8), BoxModel(2))


@pytest.mark.parametrize(
    "text",
    [
        "DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes.",
        "could not create a primitive",
        "MPS backend out of memory",
    ],
)
def test_out_of_memory_messages_of_torch_on_other_systems(torch_model, monkeypatch, text) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch_model._engine._network, "forward", fail)
    with pytest.raises(OutOfMemoryError, match="a tile of 32 pixels"):
        upscale(np.zeros((40, 40), np.uint8), torch_model)
