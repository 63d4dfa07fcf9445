"""The large refiner in a model: told the noise, exact in tiles, the same in every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cfsr import load_model, upscale, upscale_dask, upscale_to_zarr
from napari_cfsr.core.engine import PredictOptions, SRModel
from napari_cfsr.core.engine.registry import ENTRIES
from napari_cfsr.core.image import NoiseModel
from napari_cfsr.core.network import make_refiner
from napari_cfsr.core.upscale.resolve import NO_NOISE, OTHER_NOISE
from napari_cfsr.core.weights import RefinerCard, save_refiner
from napari_cfsr.errors import OptionError
from tests.helpers.small_sets import spots

ENGINES = [name for name in ("torch", "openvino") if ENTRIES[name].installed]
NOISE = NoiseModel(0.02, 0.01)


def refiner(folder: Path, network: str = "UNetRefiner", **extra: dict[str, float]) -> Path:
    """A file with random weights, of no particular backbone."""
    made = make_refiner(network, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=_seeded(parameter)))
    card = RefinerCard(0, "input", "", network=network, extra=extra)
    return save_refiner(folder / f"{network}.safetensors", made.state_dict(), card)


def _seeded(parameter: torch.Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(parameter.numel())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refiner(tmp_path_factory.mktemp("refiners"))


@pytest.fixture(scope="module")
def models(large, tiny_backbones) -> dict[str, SRModel]:
    return {e: load_model(2, tiny_backbones[2], large, "cpu", engine=e) for e in ENGINES}


@pytest.fixture(scope="module")
def model(models) -> SRModel:
    return models[ENGINES[-1]]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """[101,118]: neither side is a multiple of the network's stride."""
    noise = np.random.default_rng(0).normal(0, 0.05, (101, 118))
    return (np.hstack(spots(2, 128))[:101, 50:168] + noise).clip(0, 1).astype(np.float32)


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.skipif(len(ENGINES) < 2, reason="needs OpenVINO")
@pytest.mark.parametrize("network", ["UNetRefiner", "RefineNet dilated"])
@pytest.mark.parametrize("channels", [1, 3])
def test_engines_agree(network, channels, tiny_backbones, tmp_path) -> None:
    path = refiner(tmp_path, network)
    batch = np.random.default_rng(1).random((2, channels, 38, 45), np.float32)
    how = PredictOptions(("baseline", "delta"), noise=(NOISE, NoiseModel(0, 0.1)))
    results = [
        load_model(2, tiny_backbones[2], path, "cpu", engine=engine).predict(batch, how)
        for engine in ENGINES
    ]
    for name in ("baseline", "delta"):
        first, second = (result[name] for result in results)
        assert first.shape == (2, channels, 76, 90)
        assert largest(first, second) < 1e-4
    assert largest(results[0]["delta"], results[0]["baseline"]) > 0.01


@pytest.mark.parametrize("how", [{}, {"ensemble": True}, {"refiner_ensemble": True}])
def test_tiles_and_regions_are_parts_of_the_whole(model, image, how) -> None:
    whole = upscale(image, model, noise=NOISE, **how)
    tiles = upscale(image, model, noise=NOISE, tile=32, halo="exact", **how)
    region = ((37, 90), (21, 99))
    part = upscale(image, model, noise=NOISE, tile=32, halo="exact", region=region, **how)
    assert largest(tiles.delta, whole.delta) < 1e-5
    assert largest(part.delta, whole.delta[74:180, 42:198]) < 1e-5
    assert largest(whole.delta, whole.baseline) > 0.003


def test_tiles_that_run_together_lie_where_they_lie(model) -> None:
    """Tiles whose side is no multiple of four: each on the grid of the whole image."""
    rng = np.random.default_rng(0)
    strip = rng.random((40, 300), np.float32)
    whole = upscale(strip, model, noise=NOISE, intensity=(0, 1)).delta
    tiles = upscale(strip, model, noise=NOISE, intensity=(0, 1), tile=50, halo=32).delta
    assert largest(tiles, whole) < 1e-3


def test_noise_that_nothing_needs_is_left_out(model) -> None:
    stack = np.random.default_rng(0).random((2, 32, 32), np.float32)
    alone = upscale(stack, model, axes="CYX", outputs=("baseline",), noise=NOISE)
    assert alone.options.noise is None
    small = load_model(2, "bundled", "clean_bundled_x2", "cpu")
    assert upscale(stack, small, axes="CYX", noise=NOISE).options.noise is None
    each = upscale(stack, model, axes="CYX", noise=(NOISE, NoiseModel(0.1)))
    assert each.options.noise == (NOISE, NoiseModel(0.1))
    with pytest.raises(OptionError, match="noise of 2 channels, got 3"):
        upscale(stack, model, axes="CYX", noise=(NOISE, NOISE, NOISE))


def test_lazily_and_in_a_store_it_is_the_same(model, image, tmp_path) -> None:
    import zarr

    expected = upscale(image, model, noise=NOISE, tile=32, halo=16).delta
    lazy = upscale_dask(image, model, noise=NOISE, tile=32, halo=16)
    assert largest(np.asarray(lazy.delta), expected) == 0
    upscale_to_zarr(image, model, tmp_path / "a.zarr", noise=NOISE, tile=32, halo=16)
    array = zarr.open_array(tmp_path / "a.zarr" / "delta" / "0", mode="r")
    assert largest(array[...], expected) == 0


def test_an_ensemble_of_the_refiner_is_the_mean_of_eight(model, image) -> None:
    square = image[:96, :96]
    how = PredictOptions(("delta",), noise=(NOISE,))
    refined = model._refined(square[None, None], replace(how, refiner_ensemble=True), lambda: None)
    turns = [(k, flip) for k in range(4) for flip in (False, True)]
    mean = np.zeros_like(square)
    for k, flip in turns:
        turned = np.rot90(square, k)
        turned = turned[:, ::-1] if flip else turned
        one = model._refined(np.ascontiguousarray(turned)[None, None], how, lambda: None)[0, 0]
        mean += np.rot90(one[:, ::-1] if flip else one, -k) / 8
    assert largest(refined[0, 0], mean) < 1e-5


def test_noise_is_that_given_else_that_of_the_refiner_else_that_of_the_image(
    model, tiny_backbones, tmp_path
) -> None:
    rng = np.random.default_rng(0)
    clean = np.hstack(spots(4, 128)) * 0.8 + 0.1
    noisy = (rng.poisson(clean * 50) / 50 + rng.normal(0, 0.01, clean.shape)).astype(np.float32)
    found = upscale(noisy, model, outputs=("delta",))
    assert found.options.noise is not None
    (noise,) = found.options.noise
    assert noise.variance(np.float32(0.5)) == pytest.approx(0.5 / 50 + 1e-4, rel=0.3)
    assert largest(found.delta, upscale(noisy, model, noise=noise).delta) == 0
    own = refiner(tmp_path, noise={"gain": 0.021, "read_noise": 0.02, "offset": 0.0})
    trained = load_model(2, tiny_backbones[2], own, "cpu")
    assert upscale(noisy, trained).options.noise == (NoiseModel(0.021, 0.02),)
    assert upscale(noisy, trained, noise=NOISE).options.noise == (NOISE,)
    # the same image in other units: not the noise that the refiner was trained for
    other = upscale((noisy * 1000).round().clip(0).astype(np.uint16), trained)
    assert OTHER_NOISE in other.notes
    assert other.options.noise[0].gain == pytest.approx(20, rel=0.3)


def test_noise_in_data_values_gives_the_same_result_in_any_unit(model, image) -> None:
    expected = upscale(image, model, noise=NOISE, intensity=(0, 1)).delta
    noise = NoiseModel(NOISE.gain * 1000, NOISE.read_noise * 1000, 500.0)
    large = upscale(image * 1000 + 500, model, noise=noise, intensity=(500, 1500)).delta
    assert largest((large - 500) / 1000, expected) < 1e-4


def test_without_noise_nothing_changes_and_that_is_said(model) -> None:
    yy, xx = np.mgrid[:96, :96] / 96
    clean = (0.3 + 0.2 * np.sin(3 * yy) * xx).astype(np.float32)
    result = upscale(clean, model)
    assert result.options.noise == (None,)
    assert largest(result.delta, result.baseline) < 1e-6
    assert NO_NOISE in result.notes


def test_an_image_too_small_to_tell_its_noise_has_that_of_the_refiner(
    model, tiny_backbones, tmp_path
) -> None:
    crop = np.random.default_rng(0).random((20, 24), np.float32)
    own = refiner(tmp_path, noise={"gain": 0.02, "read_noise": 0.01, "offset": 0.0})
    result = upscale(crop, load_model(2, tiny_backbones[2], own, "cpu"))
    assert result.options.noise == (NOISE,)
    assert any("can't be estimated" in note for note in result.notes)
    assert upscale(crop, model).options.noise == (None,)


def test_a_batch_of_unknown_noise_is_refused(model) -> None:
    with pytest.raises(OptionError, match="noise of each of 1 images, got 0"):
        model.predict(np.zeros((1, 1, 8, 8), np.float32), PredictOptions(("delta",)))


def test_an_ensemble_of_a_refiner_after_the_backbone_is_refused(bundled_models) -> None:
    model = load_model(2, "bundled", "clean_bundled_x2", "cpu")
    with pytest.raises(OptionError, match="before the backbone"):
        upscale(np.zeros((32, 32), np.float32), model, refiner_ensemble=True)


@pytest.mark.skipif(len(ENGINES) < 2, reason="needs OpenVINO")
def test_half_precision_keeps_what_it_changes_small(large, models, tiny_backbones, image) -> None:
    """Bright pixels are far beyond 1 where noise is stabilised: the sum stays in float32."""
    fast = load_model(2, tiny_backbones[2], large, "cpu", "fast")
    noise = NoiseModel(1e-4, 1e-3)
    how = PredictOptions(("delta",), noise=(noise,))
    exact, half = (
        m._refined(image[None, None], how, lambda: None) for m in (models["openvino"], fast)
    )
    assert largest(exact, half) < 0.2 * largest(exact, image[None, None])


def test_the_recorded_call_gives_the_same_array(model, image) -> None:
    from napari_cfsr.core.upscale import record_provenance

    result = upscale(image, model, refiner_ensemble=True)
    record = record_provenance(result, "a", "image_of_the_test")
    names = {"image_of_the_test": image}
    exec(record["python"], names)
    assert largest(names["result"].delta, result.delta) == 0
    assert record["noise"] == [vars(n) for n in result.options.noise]
    assert record["refiner_ensemble"]
