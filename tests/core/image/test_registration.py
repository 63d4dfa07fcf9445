"""Shifts between LR and HR images: sign, exactness on real images, and putting them right."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_cfsr import psnr
from napari_cfsr.core.image.degradation import Degradation
from napari_cfsr.core.image.registration import Shift, align_pair, check_pair, estimate_shift
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.errors import ImageError, OptionError

CLEAN = Degradation()
NOISY = Degradation(blur=0.5, photons=400, read_noise=0.01, gain=0.5, offset=0.1)
BORDER = 6  # LR pixels at each side that shifting may use up
IMAGES = (
    "microscopy/sim/LPSIM-microtubules_04.png",
    "microscopy/nuclei_dsb2018",
    "validation/Kodak24",
    "microscopy/cellprofiler/ExampleColocalization__0_1_N_G.png",
)


def pixels(path: Path) -> np.ndarray:
    """An image in gray."""
    with Image.open(path) as image:
        return np.asarray(image if image.mode.startswith("I") else image.convert("L"))


@lru_cache(maxsize=8)
def real(path: Path) -> np.ndarray:
    """A real image, or the largest of ten in a folder, in [0,1]; at most 560 pixels a side."""
    files = sorted(path.iterdir())[:10] if path.is_dir() else [path]
    image = max((pixels(file) for file in files), key=np.size)[:560, :560].astype(np.float32)
    return (image - image.min()) / np.ptp(image)


def cut(image: np.ndarray, scale: int, shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of one image; the second has to be moved by `shift` to lie on the first."""
    edge = BORDER * scale
    height, width = (n // scale * scale - 2 * edge for n in image.shape)
    y, x = edge - shift[0], edge - shift[1]
    return image[y : y + height, x : x + width], image[edge : edge + height, edge : edge + width]


def moved(
    image: np.ndarray, scale: int, shift: tuple[int, int], degradation: Degradation
) -> tuple[np.ndarray, np.ndarray]:
    """LR and HR cut from one image, the HR to be moved by `shift` HR pixels to lie on the LR."""
    scene, hr = cut(image, scale, shift)
    return degradation.apply(scene, scale, np.random.default_rng(0)), hr


def error(found: Shift, shift: tuple[int, int], scale: int) -> float:
    """LR pixels by which the estimate is off."""
    return max(abs(found.dy - shift[0] / scale), abs(found.dx - shift[1] / scale))


def test_the_sign_of_a_shift() -> None:
    points = np.zeros((64, 64), np.float32)
    points[[20, 30, 45], [25, 50, 15]] = 1, 2, 1
    hr = gaussian_filter(points, 1.5)
    lr = imresize(np.roll(hr, (8, -4), (0, 1)), 0.5)  # on LR, all is 4 pixels lower, 2 further left
    found = estimate_shift(lr, hr, 2)
    assert found.dy == pytest.approx(4, abs=1e-3)
    assert found.dx == pytest.approx(-2, abs=1e-3)
    assert found.correlation == pytest.approx(1, abs=1e-3)
    aligned_lr, aligned_hr = align_pair(lr, hr, 2, found)
    assert aligned_lr.shape == (28, 30)
    peak = np.unravel_index(aligned_hr.argmax(), aligned_hr.shape)
    expected = np.unravel_index(imresize(aligned_lr, 2).argmax(), aligned_hr.shape)
    assert peak == expected


@settings(max_examples=25)
@given(
    st.sampled_from(IMAGES),
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.sampled_from([2, 4]),
    st.sampled_from([CLEAN, NOISY]),
)
def test_shifts_are_found_to_a_twentieth_of_a_pixel(data, name, dy, dx, scale, degradation) -> None:
    shift = (round(dy * scale / 4), round(dx * scale / 4))  # up to 5 LR pixels
    lr, hr = moved(real(data / name), scale, shift, degradation)
    found = estimate_shift(lr, hr, scale)
    assert error(found, shift, scale) < 0.05
    assert found.correlation > 0.9


@pytest.mark.parametrize("photons", [20, 50, 200])
@pytest.mark.parametrize("name", IMAGES)
def test_the_uncertainty_is_calibrated(data, name, photons) -> None:
    degradation = Degradation(blur=0.5, photons=photons, read_noise=0.02)
    found = []
    for shift in ((3, -5), (-9, 2), (0, 7)):
        lr, hr = moved(real(data / name), 2, shift, degradation)
        estimate = estimate_shift(lr, hr, 2)
        found.append(error(estimate, shift, 2) / estimate.uncertainty)
        assert estimate.uncertainty < 2.5 / photons
    assert np.median(found) < 2.5
    assert max(found) < 5


def test_images_of_different_scenes_do_not_correlate(data) -> None:
    a, b = real(data / IMAGES[0]), real(data / IMAGES[2])
    height, width = (min(pair) // 2 * 2 for pair in zip(a.shape, b.shape, strict=True))
    found = estimate_shift(imresize(a[:height, :width], 0.5), b[:height, :width], 2)
    assert abs(found.correlation) < 0.6
    same = estimate_shift(imresize(a[:height, :width], 0.5), a[:height, :width], 2)
    assert same.correlation > 0.99


@pytest.mark.parametrize("shift", [(0, 0), (1, -3), (-10, 13)])
@pytest.mark.parametrize(("name", "exact"), [(IMAGES[0], 60), (IMAGES[1], 44), (IMAGES[2], 33)])
def test_aligned_images_match(data, name, exact, shift) -> None:
    """Halved images, so that a pixel of the original is half a pixel: the truth is known."""
    scene, other = cut(real(data / name), 4, shift)
    reference, hr = imresize(scene, 0.5), imresize(other, 0.5)
    lr = imresize(scene, 0.25)
    found = estimate_shift(lr, hr, 2)
    assert error(found, shift, 4) < 0.02
    cut_lr, cut_hr = align_pair(lr, hr, 2, found)
    assert cut_hr.shape == tuple(2 * n for n in cut_lr.shape)
    assert cut_hr.dtype == np.float32
    top, left = (max(0, -(-max(s, 0) // 4)) for s in shift)
    inner = (slice(top, top + cut_lr.shape[0]), slice(left, left + cut_lr.shape[1]))
    np.testing.assert_array_equal(cut_lr, lr[inner])
    truth = reference[2 * top :, 2 * left :][: cut_hr.shape[0], : cut_hr.shape[1]]
    assert psnr(cut_hr, truth, shave=4) > exact
    again = estimate_shift(cut_lr, cut_hr, 2)
    assert max(abs(again.dy), abs(again.dx)) < 0.02


@given(st.integers(24, 40), st.integers(24, 40), st.floats(-9, 9), st.floats(-9, 9))
def test_aligned_sizes_fit(height, width, dy, dx) -> None:
    lr, hr = np.zeros((height, width, 3)), np.zeros((height * 3 + 2, width * 3 + 1, 3))
    cut_lr, cut_hr = align_pair(lr, hr, 3, Shift(dy, dx, 0, 1))
    assert cut_lr.shape[0] == height - int(np.ceil(abs(dy) - 0.01))
    assert cut_lr.shape[1] == width - int(np.ceil(abs(dx) - 0.01))
    assert check_pair(cut_lr, cut_hr, 3)[1].shape == cut_hr.shape


def test_colour_images_and_integers() -> None:
    rng = np.random.default_rng(0)
    hr = np.rint(255 * np.clip(gaussian_filter(rng.random((96, 96, 3)), (2, 2, 0)), 0, 1))
    lr = imresize(hr, 0.5).astype(np.uint16)
    found = estimate_shift(lr, hr.astype(np.uint8), 2)
    assert max(abs(found.dy), abs(found.dx)) < 0.05


def test_check_pair() -> None:
    lr, hr = np.zeros((10, 12)), np.zeros((42, 51))
    assert [image.shape for image in check_pair(lr, hr, 4)] == [(10, 12), (40, 48)]
    for bad in (np.zeros((44, 48)), np.zeros((39, 48)), np.zeros((40, 48, 3)), np.zeros(40)):
        with pytest.raises(ImageError, match=r"4 times .* LR \(10, 12\) and HR \("):
            check_pair(lr, bad, 4)
    with pytest.raises(OptionError, match="whole number"):
        check_pair(lr, hr, 0)


def test_images_that_can_not_be_aligned() -> None:
    rng = np.random.default_rng(0)
    good = rng.random((60, 60))
    for bad in (np.full((30, 30), 0.5), np.full((30, 30), np.nan)):
        with pytest.raises(ImageError, match="and contrast"):
            estimate_shift(bad, good, 2)
    with pytest.raises(ImageError, match="at least 24x24"):
        estimate_shift(good[:20, :20], good[:40, :40], 2)
    with pytest.raises(ImageError, match="expected a shift within"):
        align_pair(good[:30, :30], good, 2, Shift(31, 0, 0, 0))
    # a single spot in opposite corners: found, but there is next to nothing in common
    a, b = np.zeros((30, 30)), np.zeros((60, 60))
    a[8, 8] = b[46, 46] = 1
    with pytest.raises(ImageError, match="do they show the same scene"):
        estimate_shift(gaussian_filter(a, 1), gaussian_filter(b, 2), 2)
