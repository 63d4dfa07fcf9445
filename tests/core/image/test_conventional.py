"""Conventional methods: their gain on real images, and that they never make them worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cfsr import psnr
from napari_cfsr.core.image import Degradation, bicubic, denoise, imresize
from napari_cfsr.core.image.conventional import _Noise
from napari_cfsr.errors import ImageError

LOW_LIGHT = Degradation(photons=50, read_noise=0.01)
NAMES = ["non-local means"]


@pytest.fixture(scope="module")
def fluorescence(data: Path) -> list[np.ndarray]:
    """Every tenth image of structured illumination; they are oversampled, so halved."""
    files = sorted((data / "microscopy" / "sim").iterdir())[::10]
    images = [np.asarray(Image.open(file)).astype(np.float32) / 255 for file in files]
    return [np.clip(imresize(image, 0.5), 0, 1) for image in images]


def mean_psnr(hrs: list[np.ndarray], degradation: Degradation, scale: int) -> dict[str, float]:
    """PSNR of bicubic, and of bicubic after each conventional method."""
    rng, values = np.random.default_rng(0), []
    for hr in hrs:
        lr = degradation.apply(hr, scale, rng)
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
        images = {"bicubic": bicubic(lr, scale, degradation)}
        images |= {n: bicubic(clean, scale) for n, clean in denoise(lr, degradation).items()}
        values.append({n: psnr(image, hr, shave=scale) for n, image in images.items()})
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def test_in_low_light_fluorescence(fluorescence) -> None:
    found = mean_psnr(fluorescence, LOW_LIGHT, 2)
    assert found["bicubic"] == pytest.approx(28.6, abs=0.2)
    assert found["non-local means"] > found["bicubic"] + 2.3


@pytest.mark.parametrize(("photons", "gain"), [(None, 7), (200, 0.5), (50, 0.4)])
def test_undoing_a_known_blur(fluorescence, photons, gain) -> None:
    found = mean_psnr(fluorescence, Degradation(blur=1, photons=photons), 2)
    others = [value for name, value in found.items() if name != "deconvolution"]
    assert found["deconvolution"] > max(others) + gain


def test_gain_and_offset_change_nothing(fluorescence) -> None:
    plain = mean_psnr(fluorescence[:4], LOW_LIGHT, 2)
    dim = Degradation(photons=50, read_noise=0.01, gain=0.5, offset=0.2)
    for name, value in mean_psnr(fluorescence[:4], dim, 2).items():
        assert value == pytest.approx(plain[name], abs=0.3)


def test_on_noisy_photographs(data) -> None:
    files = sorted((data / "validation" / "Kodak24").iterdir())[::8]
    hrs = [np.asarray(Image.open(file))[:512, :512].astype(np.float32) / 255 for file in files]
    found = mean_psnr(hrs, Degradation(read_noise=10 / 255), 4)
    assert found["non-local means"] > found["bicubic"] + 0.4


@pytest.mark.parametrize("read_noise", [0.01, 0.05])
def test_without_a_degradation_the_noise_is_estimated(fluorescence, read_noise) -> None:
    rng, degradation = np.random.default_rng(0), Degradation(read_noise=read_noise)
    for hr in fluorescence[:4]:
        lr, clean = degradation.apply(hr, 2, rng), degradation.clean(hr, 2)
        known, guessed = denoise(lr, degradation), denoise(lr)
        for name in NAMES:
            assert psnr(guessed[name], clean) > psnr(lr, clean)
            assert psnr(guessed[name], clean) > psnr(known[name], clean) - 1


def test_images_without_noise_are_not_denoised(fluorescence) -> None:
    assert denoise(fluorescence[0], Degradation("area", gain=0.5)) == {}
    assert denoise(np.full((20, 20), 0.5)) == {}


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("degradation", [LOW_LIGHT, Degradation(read_noise=0.05)])
def test_a_flat_image_gets_its_value_back(degradation, channels) -> None:
    rng = np.random.default_rng(0)
    for level in (0.2, 0.7):
        lr = degradation.noise(np.full((64, 70, *channels), level, np.float32), rng)
        found = denoise(lr, degradation)
        assert list(found) == NAMES
        for image in found.values():
            assert image.shape == lr.shape
            assert image.dtype == np.float32
            assert image.mean() == pytest.approx(level, abs=0.01)
            assert image.std() < 0.4 * lr.std()


@pytest.mark.parametrize("photons", [5.0, 50.0, 500.0])
def test_the_transform_stabilises_and_its_inverse_is_unbiased(photons) -> None:
    rng, noise = np.random.default_rng(0), _Noise(photons, 0.02)
    for level in (0.2, 0.5, 1.0):
        shot = rng.poisson(photons * level, 200_000) / photons
        stable = noise.stabilise((shot + rng.normal(0, 0.02, shot.size)).astype(np.float32))
        if photons * level > 4:
            assert stable.std() == pytest.approx(1, abs=0.03)
        mean = noise.restore(stable.mean(keepdims=True))
        assert mean[0] == pytest.approx(level, abs=0.02 / photons + 2e-3)


def test_the_smallest_image_and_smaller_ones() -> None:
    assert set(denoise(np.random.default_rng(0).random((8, 8)), LOW_LIGHT)) == set(NAMES)
    for wrong, message in (
        (np.zeros((7, 8)), "at least 8x8 pixels, got shape"),
        (np.zeros((8, 8), np.int32), "float, uint8 or uint16"),
        (np.full((8, 8), 200.0), r"in \[0,1\]"),
        (np.zeros((8, 8, 4)), "got shape"),
    ):
        with pytest.raises(ImageError, match=message):
            denoise(wrong, LOW_LIGHT)


def test_bicubic_is_that_of_matlab_within_range() -> None:
    lr = np.random.default_rng(0).random((10, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(bicubic(lr, 3), np.clip(imresize(lr, 3), 0, 1))
