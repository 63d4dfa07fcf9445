"""PSNR against scikit-image, and its conventions."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from napari_cfsr import psnr
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
