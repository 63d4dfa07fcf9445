"""MATLAB's bicubic, back-projection, and what a camera makes of a scene."""

from __future__ import annotations

import io
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_cfsr.core.image import Degradation, back_project, blur_in_pixels, degrade, imresize
from napari_cfsr.errors import ImageError, OptionError

NOISY = Degradation(photons=50, read_noise=0.02, gain=0.8, offset=0.1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_reduction_is_bit_identical_to_the_given_files(data, name, scale) -> None:
    folder = data / "benchmark" / name
    files = sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png"))
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        given_lr = np.asarray(Image.open(file))
        hr = np.asarray(Image.open(folder / "HR" / file.name.replace(f"x{scale}", "")))
        hr = hr[: given_lr.shape[0] * scale, : given_lr.shape[1] * scale]
        np.testing.assert_array_equal(imresize(hr, 1 / scale), given_lr)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 4))
def test_sizes_and_constants(height, width, scale) -> None:
    flat = np.full((height, width), 0.3)
    up = imresize(flat, scale)
    assert up.shape == (height * scale, width * scale)
    np.testing.assert_allclose(up, 0.3)
    np.testing.assert_allclose(imresize(up, 1 / scale), flat)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_ramp_stays_where_it_is(scale) -> None:
    ramp = np.tile(np.arange(40.0), (5, 1))
    up = imresize(ramp, scale)
    expected = (np.arange(40 * scale) + 0.5) / scale - 0.5
    inner = slice(3 * scale, -3 * scale)
    np.testing.assert_allclose(up[2, inner], expected[inner], atol=1e-12)


def test_back_projection_makes_the_result_reduce_to_its_input() -> None:
    rng = np.random.default_rng(0)
    lr = rng.random((3, 30, 30))
    sr = imresize(lr, 4, axes=(1, 2)) + rng.normal(0, 0.05, (3, 120, 120))
    before = np.abs(imresize(sr, 0.25, axes=(1, 2)) - lr).mean()
    after = np.abs(imresize(back_project(sr, lr, 4), 0.25, axes=(1, 2)) - lr).mean()
    assert after < 0.6 * before
    assert back_project(sr.astype(np.float32), lr.astype(np.float32), 4).dtype == np.float32


@pytest.mark.parametrize("image", [np.zeros((0, 4)), np.zeros((4, 4), int)])
def test_images_that_can_not_be_resized(image) -> None:
    with pytest.raises(ImageError, match="expected"):
        imresize(image, 2)


def scene(height: int = 96, width: int = 120, channels: int | None = None) -> np.ndarray:
    """Something smooth with some texture, in [0.1, 0.9]."""
    rng = np.random.default_rng(1)
    shape = (height, width) if channels is None else (height, width, channels)
    image = gaussian_filter(rng.random(shape), (2, 2, 0)[: len(shape)])
    image = (image - image.min()) / np.ptp(image)
    return (0.1 + 0.8 * image).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_clean_degradation_gives_the_usual_lr_files(data, scale) -> None:
    folder = data / "benchmark" / "Set14"
    for file in sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png")):
        hr = np.asarray(Image.open(folder / "HR" / file.name.replace(f"x{scale}", "")))
        lr = degrade(hr, scale)
        assert lr.dtype == np.float32
        expected = np.asarray(Image.open(file)).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(lr, expected)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(2, 4), st.sampled_from([None, 3]))
def test_sizes_of_degraded_images(height, width, scale, channels) -> None:
    hr = scene(height, width, channels)
    for degradation in (Degradation(), Degradation("area", blur=0.5, jpeg=90), NOISY):
        lr = degradation.apply(hr, scale, np.random.default_rng(0))
        assert lr.shape == (height // scale, width // scale, *hr.shape[2:])
        assert lr.dtype == np.float32
        assert lr.min() >= 0
        assert lr.max() <= 1


def test_rows_and_columns_that_do_not_fill_a_pixel_are_left_out() -> None:
    hr = scene(50, 61)
    np.testing.assert_array_equal(degrade(hr, 4, blur=1), degrade(hr[:48, :60], 4, blur=1))


def test_dtypes_agree() -> None:
    hr = scene()
    expected = degrade(hr, 2, "area")
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        lr = degrade(np.rint(hr * top).astype(dtype), 2, "area")
        np.testing.assert_allclose(lr, expected, atol=1 / top)
    np.testing.assert_allclose(degrade(hr.astype(np.float64), 2, "area"), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_area_is_the_mean_of_the_pixels(scale) -> None:
    hr = scene(24, 36, 3)
    blocks = hr.reshape(24 // scale, scale, 36 // scale, scale, 3)
    np.testing.assert_allclose(degrade(hr, scale, "area"), blocks.mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_blur_is_a_gaussian_in_lr_pixels(kernel) -> None:
    scale, sigma = 4, 1.5
    point = np.zeros((164, 164), np.float32)
    point[82, 82] = 1  # half an HR pixel from the corner of four LR pixels
    sharp = Degradation(kernel).clean(point, scale, clip=False)
    lr = Degradation(kernel, blur=sigma).clean(point, scale, clip=False)
    assert lr.sum() == pytest.approx(1 / scale**2, rel=1e-3)
    y = np.arange(41) - (82.5 / 4 - 0.5)

    def variance(image: np.ndarray) -> float:
        return float((image.sum(1) * y**2).sum() / image.sum())

    # the kernel alone: no more than a pixel wide, and what clipping made of its lobes
    assert variance(lr) == pytest.approx(sigma**2 + 1 / 12, abs=0.1)
    assert variance(sharp) < 0.5


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("photons", [20.0, 500.0, None])
def test_noise_has_the_variance_of_its_model(level, photons) -> None:
    gain, offset = 0.3, 0.3  # nothing saturates
    degradation = Degradation(photons=photons, read_noise=0.02, gain=gain, offset=offset)
    clean = np.full((400, 500), gain * level + offset, np.float32)
    lr = degradation.noise(clean, np.random.default_rng(3))
    assert lr.min() > 0
    assert lr.max() < 1
    shot = 0 if photons is None else level / photons
    variance = gain**2 * (shot + 0.02**2)
    # statistical error of the variance: sqrt(2 / 200,000) = 0.3 %, somewhat more for few photons
    assert lr.var(dtype=np.float64) == pytest.approx(variance, rel=0.02)
    assert lr.mean(dtype=np.float64) == pytest.approx(clean[0, 0], abs=4 * (variance / 2e5) ** 0.5)


def test_the_mean_of_many_noisy_images_is_the_clean_one() -> None:
    hr, rng = scene(48, 48), np.random.default_rng(0)
    degradation = Degradation("area", blur=0.7, photons=200, read_noise=0.01, gain=0.9, offset=0.05)
    mean = np.mean([degradation.apply(hr, 2, rng) for _ in range(400)], axis=0)
    error = mean - degradation.clean(hr, 2)
    assert abs(error.mean()) < 3e-4
    assert error.std() < 1.2 * np.sqrt((1 / 200 + 0.01**2) / 400)


def test_fresh_noise_on_a_kept_clean_image_is_that_of_apply() -> None:
    hr = scene()
    kept = NOISY.clean(hr, 2, clip=False)
    first = NOISY.noise(kept, np.random.default_rng(5))
    np.testing.assert_array_equal(first, NOISY.apply(hr, 2, np.random.default_rng(5)))
    assert np.abs(first - NOISY.noise(kept, np.random.default_rng(6))).mean() > 0.01
    np.testing.assert_array_equal(kept, NOISY.clean(hr, 2))  # nothing was saturated, nothing moved


@pytest.mark.parametrize("options", [{}, {"photons": 10}, {"read_noise": 0.1}, {"jpeg": 50}])
def test_the_same_seed_gives_the_same_image(options) -> None:
    hr = scene(channels=3)
    a, b = degrade(hr, 3, seed=7, **options), degrade(hr, 3, seed=7, **options)
    np.testing.assert_array_equal(a, b)
    other = degrade(hr, 3, seed=8, **options)
    assert np.array_equal(a, other) == Degradation(**options).noise_free


def test_gain_and_offset_and_their_undoing() -> None:
    hr = scene()
    degradation = Degradation(gain=0.5, offset=0.25)
    lr = degradation.apply(hr, 2, np.random.default_rng(0))
    np.testing.assert_allclose(lr, 0.5 * degrade(hr, 2) + 0.25, atol=1e-6)
    np.testing.assert_allclose(degradation.undo_levels(lr), degrade(hr, 2), atol=1e-6)
    bright = Degradation(gain=3).clean(hr, 2)
    assert bright.max() == 1
    assert Degradation(gain=3).clean(hr, 2, clip=False).max() > 2


def test_jpeg_is_that_of_pillow() -> None:
    hr = scene(channels=3)
    file = io.BytesIO()
    eight_bits = np.rint(degrade(hr, 2) * 255).astype(np.uint8)
    Image.fromarray(eight_bits).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(np.rint(degrade(hr, 2, jpeg=40) * 255), Image.open(file))
    errors = [np.abs(degrade(hr, 2, jpeg=q) - degrade(hr, 2)).mean() for q in (95, 50, 10)]
    assert errors == sorted(errors)


def test_descriptions_of_degradations() -> None:
    assert Degradation().describe() == "bicubic"
    everything = Degradation("area", 0.5, 50, 0.01, 1.2, -0.1, 75)
    said = "area, blur 0.5 px, 50 photons, read noise 0.01, gain 1.2, offset -0.1, JPEG 75"
    assert everything.describe() == said
    assert Degradation().is_clean
    assert not Degradation("area").is_clean
    assert Degradation(jpeg=50).noise_free
    assert not Degradation(photons=50).noise_free
    numbers = Degradation(photons=np.float32(50), jpeg=np.int64(50))
    assert [type(v) for v in asdict(numbers).values()] == [str, *[float] * 5, int]
    with pytest.raises(FrozenInstanceError):
        numbers.blur = 1.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kernel", "nearest"),
        ("blur", -1),
        ("blur", float("nan")),
        ("photons", 0),
        ("photons", "many"),
        ("read_noise", 2),
        ("gain", 0),
        ("offset", float("inf")),
        ("jpeg", 0),
        ("jpeg", 96),
        ("jpeg", 50.5),
        ("jpeg", True),
    ],
)
def test_options_that_are_out_of_range(option, value) -> None:
    with pytest.raises(OptionError, match=f"expected {option} .*, got {value!r}"):
        Degradation(**{option: value})


@pytest.mark.parametrize(
    ("hr", "message"),
    [
        (np.zeros((8, 8, 4)), r"\[Y,X\] or \[Y,X,3\], got shape \(8, 8, 4\)"),
        (np.zeros((2, 8, 8, 3)), "got shape"),
        (np.zeros((3, 8)), "at least 4x4 pixels"),
        (np.zeros((0, 8)), "an image with pixels"),
        (np.full((8, 8), np.nan), "finite intensities"),
        (np.full((8, 8), np.inf), "finite intensities"),
        (np.full((8, 8), 200.0), r"in \[0,1\], got 200 to 200: map"),
        (np.zeros((8, 8), np.int16), "float, uint8 or uint16, got int16"),
        (np.zeros((8, 8), complex), "got complex128"),
    ],
)
def test_images_that_can_not_be_degraded(hr, message) -> None:
    with pytest.raises(ImageError, match=message):
        degrade(hr, 4)


def test_scales_that_do_not_exist() -> None:
    for scale in (0, 1.5, -2):
        with pytest.raises(OptionError, match="expected scale as a whole number"):
            degrade(scene(), scale)


def test_the_blur_of_a_microscope() -> None:
    # 0.51 * 520 nm / 0.8 with pixels of 162 nm
    sigma = blur_in_pixels(0.51 * 520 / 0.8, 162)
    assert sigma == pytest.approx(331.5 / 2.3548 / 162, rel=1e-4)
    assert blur_in_pixels(5, 1, hr_fwhm=3) == pytest.approx(blur_in_pixels(4, 1))
    for wrong in ((1, 0), (1, -1), (-1, 1), (1, 1, 2), (float("nan"), 1)):
        with pytest.raises(OptionError, match="in the same unit"):
            blur_in_pixels(*wrong)
