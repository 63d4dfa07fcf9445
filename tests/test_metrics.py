"""PSNR and SSIM against other implementations and published tables, and their conventions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.signal import convolve2d
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from napari_cfsr import psnr, upscale
from napari_cfsr.core.metrics import ssim
from napari_cfsr.core.model import SRModel
from napari_cfsr.errors import ImageError, OptionError


def pairs(count: int = 20):
    rng = np.random.default_rng(0)
    for _ in range(count):
        a = rng.random((31, 40, 3))
        yield a, np.clip(a + rng.normal(0, rng.uniform(0.001, 0.2), a.shape), 0, 1)


def test_psnr_is_that_of_scikit_image() -> None:
    for a, b in pairs():
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-9)
        ya, yb = rgb2ycbcr(a)[..., 0], rgb2ycbcr(b)[..., 0]
        shaved = (slice(4, -4), slice(4, -4))
        expected = peak_signal_noise_ratio(yb[shaved], ya[shaved], data_range=255)
        assert psnr(a, b, shave=4, channel="Y") == pytest.approx(expected, abs=1e-4)


def test_data_range_and_identical_images() -> None:
    a = np.arange(100, dtype=np.uint16).reshape(10, 10)
    assert psnr(a, a) == float("inf")
    expected = peak_signal_noise_ratio(a, a + 3, data_range=4095)
    assert psnr(a + 3, a, data_range=4095, channel="gray") == pytest.approx(expected)


def test_what_does_not_fit() -> None:
    a = np.zeros((10, 10))
    with pytest.raises(ImageError, match=r"got \(10, 10\) and \(9, 10\)"):
        psnr(a, a[:9])
    with pytest.raises(ImageError, match="after shaving 5"):
        psnr(a, a, shave=5)
    with pytest.raises(OptionError, match='channel "Y"'):
        psnr(a, a, channel="Y")
    with pytest.raises(OptionError, match="got 'red'"):
        psnr(a, a, channel="red")  # type: ignore[arg-type]


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


def test_ssim_of_identical_images_and_of_smallest_ones() -> None:
    a = np.random.default_rng(0).integers(0, 4096, (11, 11), dtype=np.uint16)
    assert ssim(a, a, data_range=4095) == 1
    assert ssim(a, a[::-1], data_range=4095) == pytest.approx(
        original_ssim(a / 4095, a[::-1] / 4095)
    )
    with pytest.raises(ImageError, match=r"at least 11x11 pixels .* shaving 1, got shape \(12, 13"):
        ssim(np.zeros((12, 13)), np.zeros((12, 13)), shave=1)
    with pytest.raises(ImageError, match="expected"):
        ssim(np.zeros((2, 12, 12, 3)), np.zeros((2, 12, 12, 3)))
    with pytest.raises(ImageError, match=r"expected \[Y,X\] for channel 'gray'"):
        ssim(np.zeros((12, 12, 3)), np.zeros((12, 12, 3)), channel="gray")


def test_ssim_of_the_official_weights_is_the_published_one(
    data: Path, models: dict[int, SRModel]
) -> None:
    folder, values = data / "benchmark" / "Set5", []
    for file in sorted((folder / "LR_bicubic" / "X4").glob("*.png")):
        lr = np.asarray(Image.open(file).convert("RGB"))
        hr = np.asarray(Image.open(folder / "HR" / file.name.replace("x4", "")).convert("RGB"))
        hr = hr[: lr.shape[0] * 4, : lr.shape[1] * 4]
        sr = upscale(lr, models[4]).baseline  # rounded to 8 bits, as for the published table
        values.append(ssim(sr, hr, shave=4, channel="Y", data_range=255))
    assert np.mean(values) == pytest.approx(0.8964, abs=1e-4)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_checks_that_both_metrics_share(metric) -> None:
    a = np.zeros((20, 20, 3))
    with pytest.raises(ImageError, match="same shape"):
        metric(a, a[:-1])
    with pytest.raises(OptionError, match="got 'red'"):
        metric(a, a, channel="red")
    with pytest.raises(OptionError, match="expected RGB images"):
        metric(a[..., 0], a[..., 0], channel="Y")
    for wrong in ({"shave": -1}, {"data_range": 0}, {"data_range": float("nan")}):
        with pytest.raises(OptionError, match="expected shave >= 0 and data_range > 0"):
            metric(a, a, **wrong)
    with pytest.raises(ImageError, match="left after shaving 10"):
        metric(a, a, shave=10)
