"""MATLAB's bicubic, and back-projection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_cfsr.core.degradation import back_project, imresize
from napari_cfsr.errors import ImageError


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_reduction_is_bit_identical_to_the_given_files(data: Path, name: str, scale: int) -> None:
    folder = data / "benchmark" / name
    files = sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png"))
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        given_lr = np.asarray(Image.open(file))
        hr = np.asarray(Image.open(folder / "HR" / file.name.replace(f"x{scale}", "")))
        hr = hr[: given_lr.shape[0] * scale, : given_lr.shape[1] * scale]
        np.testing.assert_array_equal(imresize(hr, 1 / scale), given_lr)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 4))
def test_sizes_and_constants(height: int, width: int, scale: int) -> None:
    flat = np.full((height, width), 0.3)
    up = imresize(flat, scale)
    assert up.shape == (height * scale, width * scale)
    np.testing.assert_allclose(up, 0.3)
    np.testing.assert_allclose(imresize(up, 1 / scale), flat)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_ramp_stays_where_it_is(scale: int) -> None:
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
def test_images_that_can_not_be_resized(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="expected"):
        imresize(image, 2)
