"""PSNR and SSIM against other implementations and published tables, and their conventions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.image import structural_similarity_index_measure

from napari_cfsr import psnr
from napari_cfsr.core.metrics import image_pair
from napari_cfsr.core.metrics.image_metrics import error_map, ssim, ssim_map
from napari_cfsr.core.metrics.image_pair import ImagePair, luma, mod_crop
from napari_cfsr.errors import CancelledError, ImageError, OptionError
from tests.helpers.faults import CancelAt, run_python
from tests.helpers.peak_memory import PEAK, reads_peak

GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def pairs(count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        a = rng.random((31, 40, 3))
        yield a, np.clip(a + rng.normal(0, rng.uniform(0.001, 0.2), a.shape), 0, 1)


def test_data_range_and_identical_images() -> None:
    a = np.arange(100, dtype=np.uint16).reshape(10, 10)
    assert psnr(a, a) == float("inf")
    expected = peak_signal_noise_ratio(a, a + 3, data_range=4095)
    assert psnr(a + 3, a, data_range=4095, channel="gray") == pytest.approx(expected)


def original_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The authors' ssim.m, line by line, for images in [0,1]."""
    y = np.arange(11) - 5
    window = np.exp(-(y[:, None] ** 2 + y**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        return convolve2d(image, window, mode="valid")

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    ratio = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(ratio.mean())


def test_ssim_is_that_of_its_authors() -> None:
    for a, b in pairs(5):
        gray = [original_ssim(a[..., c], b[..., c]) for c in range(3)]
        assert ssim(a, b) == pytest.approx(np.mean(gray), abs=1e-9)
        assert ssim(a[..., 0], b[..., 0], channel="gray") == pytest.approx(gray[0], abs=1e-9)
        ya, yb = rgb2ycbcr(a)[2:-2, 2:-2, 0] / 255, rgb2ycbcr(b)[2:-2, 2:-2, 0] / 255
        assert ssim(a, b, shave=2, channel="Y") == pytest.approx(original_ssim(ya, yb), abs=1e-6)


def test_ssim_of_identical_and_of_smallest_images() -> None:
    a = np.random.default_rng(0).integers(0, 4096, (11, 11), dtype=np.uint16)
    assert ssim(a, a, data_range=4095) == 1
    assert ssim(a, a[::-1], data_range=4095) == pytest.approx(
        original_ssim(a / 4095, a[::-1] / 4095)
    )
    with pytest.raises(ImageError, match=r"at least 11x11 pixels .* of 1, got shape \(12, 13"):
        ssim(np.zeros((12, 13)), np.zeros((12, 13)), shave=1)
    with pytest.raises(ImageError, match="expected"):
        ssim(np.zeros((2, 12, 12, 3)), np.zeros((2, 12, 12, 3)))
    with pytest.raises(ImageError, match=r"expected \[Y,X\] for channel 'gray'"):
        ssim(np.zeros((12, 12, 3)), np.zeros((12, 12, 3)), channel="gray")


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_checks_that_both_metrics_share(metric) -> None:
    a = np.zeros((20, 20, 3))
    with pytest.raises(ImageError, match=r"same shape, got \(20, 20, 3\) and \(19, 20, 3\)"):
        metric(a, a[:-1])
    with pytest.raises(OptionError, match="got 'red'"):
        metric(a, a, channel="red")
    with pytest.raises(OptionError, match='expected RGB images for channel "Y"'):
        metric(a[..., 0], a[..., 0], channel="Y")
    for wrong in ({"shave": -1}, {"data_range": 0}, {"data_range": float("nan")}):
        with pytest.raises(OptionError, match="expected shave >= 0 and data_range > 0"):
            metric(a, a, **wrong)
    with pytest.raises(ImageError, match="inside a border of 10"):
        metric(a, a, shave=10)


def random_pairs(count: int = 50):
    """Smooth and rough images of many sizes, gray and RGB, noisy to any degree, in some range."""
    rng = np.random.default_rng(7)
    for number in range(count):
        height, width = rng.integers(16, 150, 2)
        shape = (height, width, 3) if number % 2 else (height, width)
        y, x = np.mgrid[:height, :width] / rng.uniform(3, 30)
        scene = 0.5 + 0.4 * np.sin(y + rng.uniform(0, 6)) * np.cos(x)
        scene = scene[..., None] * rng.uniform(0.6, 1, 3) if number % 2 else scene
        noisy = np.clip(scene + rng.normal(0, 10 ** rng.uniform(-3, -0.5), shape), 0, 1)
        data_range = float(rng.choice([1, 255, 4095]))
        yield noisy * data_range, scene * data_range, data_range


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """[1,C,Y,X]"""
    channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(channels.copy())[None]


def torch_ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """By torchmetrics; its mean takes in windows beyond the border, so that is left out here."""
    _, full = structural_similarity_index_measure(
        as_tensor(a), as_tensor(b), sigma=1.5, data_range=data_range, return_full_image=True
    )
    return float(full[..., 5:-5, 5:-5].mean())


def test_fifty_pairs_agree_with_scikit_image_and_torchmetrics() -> None:
    for a, b, data_range in random_pairs():
        channels = {"data_range": data_range, "channel_axis": 2 if a.ndim == 3 else None}
        assert psnr(a, b, data_range=data_range) == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=data_range), abs=1e-9
        )
        assert ssim(a, b, data_range=data_range) == pytest.approx(
            structural_similarity(a, b, **channels, **GAUSSIAN), abs=1e-9
        )
        assert psnr(a, b, data_range=data_range) == pytest.approx(
            float(torch_psnr(as_tensor(a), as_tensor(b), data_range=data_range)), abs=1e-4
        )
        assert ssim(a, b, data_range=data_range) == pytest.approx(
            torch_ssim(a, b, data_range), abs=1e-4
        )


def test_fifty_pairs_agree_on_shaved_luma() -> None:
    inside = (slice(3, -3), slice(3, -3))
    for a, b, data_range in random_pairs():
        if a.ndim == 2:
            continue
        ya, yb = (rgb2ycbcr(image / data_range)[inside][..., 0] for image in (a, b))
        how = {"shave": 3, "channel": "Y", "data_range": data_range}
        expected = peak_signal_noise_ratio(yb, ya, data_range=255)
        assert psnr(a, b, **how) == pytest.approx(expected, abs=1e-4)
        if min(ya.shape) < 11:
            continue
        expected = float(torch_psnr(as_tensor(ya), as_tensor(yb), data_range=255.0))
        assert psnr(a, b, **how) == pytest.approx(expected, abs=1e-4)
        expected = structural_similarity(ya, yb, data_range=255, **GAUSSIAN)
        assert ssim(a, b, **how) == pytest.approx(expected, abs=1e-4)
        assert ssim(a, b, **how) == pytest.approx(torch_ssim(ya, yb, 255.0), abs=1e-4)


def test_strips_agree_with_the_whole_image(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    for shape, strip in [((97, 40), 40), ((97, 40, 3), 900), ((64, 50), 2500), ((11, 30), 30)]:
        a = rng.random(shape).astype(np.float32)
        b = np.clip(a + rng.normal(0, 0.1, shape), 0, 1).astype(np.float32)
        whole = [psnr(a, b, 0), ssim(a, b), ssim_map(a, b), error_map(a, b)]
        full = structural_similarity(
            a.astype(float),
            b.astype(float),
            data_range=1,
            channel_axis=2 if a.ndim == 3 else None,
            full=True,
            **GAUSSIAN,
        )[1]
        full = full.mean(2) if full.ndim == 3 else full
        monkeypatch.setattr(image_pair, "STRIP_VALUES", strip)
        assert len(list(ImagePair(a, b).strips(lambda: None))) > 1
        in_strips = [psnr(a, b, 0), ssim(a, b), ssim_map(a, b), error_map(a, b)]
        monkeypatch.undo()
        for one, other in zip(whole, in_strips, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
        assert in_strips[2].dtype == np.float32
        np.testing.assert_allclose(in_strips[2], full, rtol=0, atol=1e-6)


def test_maps_show_where_the_difference_is() -> None:
    b = np.tile(np.linspace(0, 1, 50), (40, 1))
    a = b.copy()
    a[20, 30] += 0.25
    error = error_map(a * 200, b * 200, "gray", data_range=200)
    assert error.dtype == np.float32
    assert error.shape == (40, 50)
    assert error[20, 30] == pytest.approx(0.25)
    error[20, 30] = 0
    assert np.abs(error).max() == 0
    similarity = ssim_map(a, b, "gray")
    assert similarity.min() < 0.6
    away = np.ones((40, 50), bool)
    away[15:26, 25:36] = False  # the windows that see the pixel
    assert np.all(similarity[away] == 1)
    assert np.all(similarity[~away] < 1)


def test_maps_of_colour() -> None:
    b = np.full((20, 20, 3), 0.25)
    a = b + np.array([0.1, -0.2, 0.6])
    np.testing.assert_allclose(error_map(a, b), 0.3, rtol=1e-6)
    y = abs(0.1 * 65.481 - 0.2 * 128.553 + 0.6 * 24.966) / 255
    np.testing.assert_allclose(error_map(a, b, "Y"), y, rtol=1e-5)
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20, 20, 3))
    assert np.mean(ssim_map(a, b)[5:-5, 5:-5]) == pytest.approx(ssim(a, b), abs=1e-6)
    assert np.mean(ssim_map(a, b, "Y")[5:-5, 5:-5]) == pytest.approx(ssim(a, b, 0, "Y"), abs=1e-6)
    gray = ssim_map(luma(a), luma(b), "gray")
    np.testing.assert_allclose(ssim_map(a, b, "Y"), gray, atol=1e-6)


def test_a_pixel_that_is_not_a_number_is_not_hidden() -> None:
    a = np.random.default_rng(0).random((30, 30))
    b = a.copy()
    b[10, 10] = np.nan
    assert np.isnan(psnr(a, b))
    assert np.isnan(ssim(a, b))
    assert np.isnan(error_map(a, b)).sum() == 1


def test_check_can_stop_between_strips(monkeypatch) -> None:
    monkeypatch.setattr(image_pair, "STRIP_VALUES", 400)
    a = np.zeros((100, 40))
    for function in (psnr, ssim, ssim_map, error_map):
        check = CancelAt(4)
        with pytest.raises(CancelledError):
            function(a, a, check=check)
        assert check.calls == 4


def test_mod_crop_crops_bottom_and_right_with_a_note() -> None:
    reference = np.arange(23 * 31 * 3).reshape(23, 31, 3)
    image = np.zeros((20, 28, 3))
    cut, note = mod_crop(image, reference)
    np.testing.assert_array_equal(cut, reference[:20, :28])
    assert note == "reference cropped from 23x31 to 20x28 (bottom and right)"
    same, note = mod_crop(reference, reference)
    assert same is reference
    assert note == ""
    assert mod_crop(image, reference, scale=4)[0].shape == (20, 28, 3)
    assert mod_crop(np.zeros((23, 30, 3)), reference)[0].shape == (23, 30, 3)


def test_mod_crop_refuses_other_sizes() -> None:
    reference = np.zeros((24, 31))
    for shape in [(20, 31), (25, 31), (24, 32), (24, 27), (24, 31, 3), (24,)]:
        with pytest.raises(ImageError, match="choose the HR image") as caught:
            mod_crop(np.zeros(shape), reference)
        assert f"got image {shape} and reference (24, 31)" in str(caught.value)
    with pytest.raises(ImageError, match="at most 1 pixel larger"):
        mod_crop(np.zeros((22, 30)), reference, scale=2)
    with pytest.raises(ImageError, match="at most 3 pixels larger"):
        mod_crop(np.zeros((23, 28)), reference, scale=4)  # 23 rows are no multiple of 4


LARGE = """
import json
import numpy as np
from napari_cfsr.core.metrics.image_metrics import ssim, ssim_map
rng = np.random.default_rng(0)
a = rng.random((2048, 2048, CHANNELS), np.float32).squeeze()
b = rng.random((2048, 2048, CHANNELS), np.float32).squeeze()
checks = []
found = ssim_map(a, b, check=lambda: checks.append(1))
PEAK
print(json.dumps([peak, len(checks), float(found[5:-5, 5:-5].mean(dtype=float)), ssim(a, b)]))
"""


@reads_peak
@pytest.mark.parametrize(("channels", "most"), [(1, 0.25e9), (3, 0.32e9)])
def test_a_large_ssim_map_takes_little_memory(channels, most) -> None:
    program = LARGE.replace("CHANNELS", str(channels)).replace("PEAK", PEAK)
    peak, checks, mean, whole = json.loads(run_python(program))
    assert peak < most  # images and map are 0.05 and 0.12 GB, the program 0.08
    assert checks >= 16
    assert mean == pytest.approx(whole, abs=1e-6)
