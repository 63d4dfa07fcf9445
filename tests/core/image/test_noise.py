"""Noise models, their estimate from images, and images split into independent parts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

from napari_cfsr.core.image import (
    Degradation,
    IntensityMapping,
    NoiseModel,
    estimate_noise,
    imresize,
    parse_axes,
    sample_noise,
    split,
)
from napari_cfsr.core.image.noise import CORRELATED, CUT_OFF, JPEG, NOT_VISIBLE, SIGMA
from napari_cfsr.errors import ImageError, OptionError

Float32 = NDArray[np.float32]


def scene(side: int = 256, seed: int = 0) -> Float32:
    """A smooth scene in [0,1]."""
    rng = np.random.default_rng(seed)
    soft = gaussian_filter(rng.random((side, side)), 6)
    return ((soft - soft.min()) / np.ptp(soft)).astype(np.float32)


def seen(clean: Float32, noise: NoiseModel, seed: int = 0) -> Float32:
    """As a camera records it."""
    rng = np.random.default_rng(seed)
    signal = rng.poisson(clean / noise.gain) * noise.gain if noise.gain else clean
    read = noise.read_noise * rng.standard_normal(clean.shape)
    return (signal + read + noise.offset).astype(np.float32)


def correlation(a: Float32, b: Float32) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# the model


def test_a_camera_states_electrons() -> None:
    noise = NoiseModel.of_camera(conversion=2.0, offset=100, read_noise=1.6)
    assert (noise.gain, noise.read_noise, noise.offset) == (0.5, 0.8, 100)


@pytest.mark.parametrize("values", [(0, 0), (-1, 0), (np.nan, 1), (1, np.inf), (1, 1, np.nan)])
def test_impossible_noise_is_refused(values) -> None:
    with pytest.raises(OptionError, match="expected"):
        NoiseModel(*values)
    with pytest.raises(OptionError, match="electrons per ADU"):
        NoiseModel.of_camera(0, 0, 1)


@given(st.floats(-1000, 1000), st.floats(0.5, 5000), st.floats(0, 10), st.floats(0.01, 10))
def test_noise_follows_an_intensity_mapping(low, width, gain, read_noise) -> None:
    noise = NoiseModel(gain, read_noise, 40.0)
    mapping = IntensityMapping(low, low + width, "float32")
    mapped = noise.mapped(mapping)
    values = np.linspace(50, 90, 9, dtype=np.float32)
    np.testing.assert_allclose(
        mapped.variance(mapping.to_unit(values)), noise.variance(values) / width**2, rtol=0.02
    )
    back = mapped.unmapped(mapping)
    assert (back.gain, back.read_noise) == pytest.approx((gain, read_noise))
    assert back.offset == pytest.approx(40, abs=1e-6)


@pytest.mark.parametrize(
    "noise", [NoiseModel(0.02, 0.01), NoiseModel(0.1, 0, 0.2), NoiseModel(0, 0.05, -0.1)]
)
def test_stabilised_noise_is_the_same_everywhere(noise) -> None:
    levels = np.repeat(np.linspace(0.2, 1, 5, dtype=np.float32), 20_000).reshape(5, -1)
    stable = noise.stabilise(seen(levels, noise))
    np.testing.assert_allclose(stable.std(1), SIGMA, rtol=0.12)
    dark = np.full(1, noise.offset, np.float32)
    assert noise.stabilise(dark) == 0
    np.testing.assert_allclose(noise.restore(noise.stabilise(levels)), levels, atol=1e-5)


@pytest.mark.parametrize("noise", [NoiseModel(0.5, 1, 100), NoiseModel(0, 2, 100)])
def test_pixels_far_below_darkness_are_restored_as_they_were(noise) -> None:
    """Dead pixels, and what fills up an image that was moved."""
    values = np.array([0, 50, 95, 100, 130, 5000], np.float32)
    np.testing.assert_allclose(noise.restore(noise.stabilise(values)), values, atol=0.05)


# splitting


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize(
    "noise", [NoiseModel(0.02, 0.01), NoiseModel(0.1, 0.05, 0.3), NoiseModel(0, 0.05, 0.1)]
)
def test_the_parts_of_an_image_are_independent_and_unbiased(noise, share) -> None:
    clean = scene(400)
    image = seen(clean, noise)
    first, second = split(image, noise, share, np.random.default_rng(1))
    truth = clean + np.float32(noise.offset)
    a, b = first - truth, second - truth
    assert abs(correlation(a, b)) < 4 / 400  # four standard errors
    for part, error, of in ((first, a, 1 - share), (second, b, share)):
        assert part.dtype == np.float32
        assert abs(error.mean()) < 4 * error.std() / 400
        expected = noise.of_share(of).variance(truth).mean()
        assert error.var() == pytest.approx(expected, rel=0.03)


def test_the_wrong_photon_scale_ties_the_parts() -> None:
    """So the test above can fail: at 0.7 times the photons they correlate by 0.15."""
    clean, noise = scene(400), NoiseModel(0.02)
    image = seen(clean, noise)
    parts = split(image, NoiseModel(0.02 / 0.7), 0.5, np.random.default_rng(1))
    a, b = (part - clean for part in parts)
    assert correlation(a, b) < -0.1


@settings(max_examples=20)
@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_nothing_is_lost_in_a_split(share, seed) -> None:
    image, noise = seen(scene(32), NoiseModel(0.05, 0.02)), NoiseModel(0.05, 0.02)
    first, second = split(image, noise, share, np.random.default_rng(seed))
    whole = (1 - share) * first + share * second
    np.testing.assert_allclose(whole, image, atol=2e-5)


def test_clipped_images_are_split_by_counts_alone() -> None:
    """Fresh read noise would tie the parts where values below darkness were cut off."""
    noise, clean = NoiseModel(0.02, 0.005), 0.02 * scene(400)
    image = np.maximum(seen(clean, noise), 0)
    tied, free = (
        split(image, noise, 0.2, np.random.default_rng(1), counts_only=only)
        for only in (False, True)
    )
    assert correlation(*(part - clean for part in tied)) < -0.05
    assert min(part.min() for part in free) == 0
    assert abs(correlation(*(part - clean for part in free))) < 4 / 400


# the estimate


@pytest.mark.parametrize("photons", [10, 50, 200])
def test_the_noise_of_a_scene_is_found(photons) -> None:
    noise = NoiseModel(1 / photons, 0.01)
    found = estimate_noise([seen(scene(seed=n), noise, n) for n in range(4)])
    assert found.fault == ""
    assert found.noise is not None
    levels = np.array([0.4, 0.6, 0.8], np.float32)
    np.testing.assert_allclose(found.noise.variance(levels), noise.variance(levels), rtol=0.15)
    assert found.brightest == pytest.approx(photons, rel=0.4)


def test_camera_values_with_an_offset() -> None:
    noise = NoiseModel(gain=20.0, read_noise=12.0, offset=100.0)
    images = [seen(1000 * scene(seed=n), noise, n).round().astype(np.uint16) for n in range(4)]
    found = estimate_noise(images).noise
    assert found is not None
    levels = np.array([500, 700, 900], np.float32)
    np.testing.assert_allclose(found.variance(levels), noise.variance(levels), rtol=0.15)


def test_what_fills_up_an_image_is_no_darkness() -> None:
    noise = NoiseModel(gain=20.0, read_noise=12.0, offset=100.0)
    image = seen(1000 * scene(), noise).round().astype(np.uint16)
    image[:100] = 0
    found = estimate_noise([image])
    assert not found.clipped
    assert found.noise is not None
    level = np.array([700], np.float32)
    np.testing.assert_allclose(found.noise.variance(level), noise.variance(level), rtol=0.25)


def test_values_that_were_cut_off_are_refused_where_read_noise_is_strong() -> None:
    noise = NoiseModel(0.02, 0.1)
    images = [np.maximum(seen(0.2 * scene(seed=n), noise, n), 0) for n in range(4)]
    assert estimate_noise(images).fault == CUT_OFF


def test_an_empty_image_among_others_changes_nothing() -> None:
    noise = NoiseModel(gain=20.0, read_noise=12.0, offset=100.0)
    images = [seen(1000 * scene(seed=n), noise, n).round().astype(np.uint16) for n in range(3)]
    assert estimate_noise([np.full_like(images[0], 100), *images]).fault == ""
    with pytest.raises(ImageError, match="one dtype"):
        estimate_noise([images[0], images[1].astype(np.float32)])


def jpeg(image: Float32, quality: int) -> Float32:
    file = io.BytesIO()
    Image.fromarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8)).save(
        file, "JPEG", quality=quality
    )
    return np.asarray(Image.open(file)).astype(np.float32) / 255


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda y: convolve(y, np.array([[0.1, 0.8, 0.1]])), CORRELATED),
        (lambda y: imresize(y, 1.3), NOT_VISIBLE),
        (lambda y: gaussian_filter(y, 1.0), NOT_VISIBLE),
        (lambda y: jpeg(y, 90)[3:, 5:], JPEG),
    ],
)
def test_noise_that_is_not_white_is_recognised(spoil, reason) -> None:
    noise = NoiseModel(0.02, 0.01)
    images = [spoil(seen(scene(seed=n), noise, n)).astype(np.float32) for n in range(2)]
    assert estimate_noise(images).fault == reason


@pytest.mark.parametrize("image", [scene(), np.rint(200 * scene()).astype(np.uint8)])
def test_a_clean_image_has_no_noise_to_see(image) -> None:
    """Rounding is no noise of a camera."""
    found = estimate_noise([image])
    assert (found.noise, found.fault) == (None, NOT_VISIBLE)


@pytest.mark.parametrize(
    ("images", "reason"),
    [([], "at least one"), ([np.zeros((64, 64))], "contrast"), ([scene(64)[:20]], "at least 32")],
)
def test_images_that_tell_nothing(images, reason) -> None:
    with pytest.raises(ImageError, match=reason):
        estimate_noise(images)


def test_each_channel_of_an_array_has_its_noise() -> None:
    weak, strong = NoiseModel(0.005, 0.005), NoiseModel(0.05, 0.02)
    planes = [[seen(scene(seed=t), n, t) for n in (weak, strong)] for t in range(3)]
    array = np.array(planes)  # T, C, Y, X
    array[1, 0, 3, 3] = np.nan  # this plane is left out
    axes = parse_axes("TCYX", array.shape, rgb=False)
    first, second = (found.noise for found in sample_noise(array, axes))
    assert first is not None
    assert second is not None
    level = np.array([0.5], np.float32)
    np.testing.assert_allclose(first.variance(level), weak.variance(level), rtol=0.2)
    np.testing.assert_allclose(second.variance(level), strong.variance(level), rtol=0.2)
    array[:] = np.nan
    assert all(found.noise is None for found in sample_noise(array, axes))


@pytest.mark.parametrize("photons", [10, 50, 200, 1000])
def test_the_noise_of_fluorescence_is_found_within_a_few_percent(data, photons) -> None:
    degradation, rng = Degradation(photons=photons, read_noise=0.01), np.random.default_rng(0)
    files = sorted((data / "microscopy" / "sim").glob("*.png"))[:45]
    images = [degradation.apply(np.clip(imresize(gray(f), 0.5), 0, 1), 2, rng) for f in files]
    found = estimate_noise(images)
    assert found.fault == ""
    assert found.clipped == (photons < 1000)
    assert found.noise is not None
    assert 1 / found.noise.gain == pytest.approx(photons, rel=0.06)


@pytest.mark.parametrize(
    ("name", "white"), [("Confocal_FISH", True), ("TwoPhoton_MICE", True), ("WideField", False)]
)
def test_noise_of_real_microscopes(data, name, white) -> None:
    files = sorted((data / "microscopy" / "fmd" / "raw").glob(f"{name}*.png"))[:4]
    assert len(files) == 4
    assert (estimate_noise([gray(file) for file in files]).fault == "") == white


def gray(path: Path) -> Float32:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).astype(np.float32) / 255
