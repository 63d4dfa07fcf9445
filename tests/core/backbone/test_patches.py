"""Random patches of image pairs in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_cfsr.core.backbone.data import reduced
from napari_cfsr.core.backbone.patches import PatchPool
from napari_cfsr.errors import ImageError


def numbered(height: int, width: int, blue: int) -> np.ndarray:
    """LR image [h,w,3] whose red and green say where a pixel is, and blue which image it is."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([y, x, np.full_like(y, blue)], -1)


def enlarged(lr: np.ndarray, scale: int) -> np.ndarray:
    return lr.repeat(scale, 0).repeat(scale, 1)


def whole(patches: torch.Tensor) -> np.ndarray:
    """[N,3,p,p] in [0,1] back to [N,p,p,3] of integers."""
    return (patches * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


@given(
    sizes=st.lists(st.tuples(st.integers(8, 40), st.integers(8, 40)), min_size=1, max_size=4),
    scale=st.sampled_from([2, 3, 4]),
    seed=st.integers(0, 1000),
)
def test_both_sides_of_a_pair_show_the_same_place(sizes, scale, seed) -> None:
    images = [numbered(h, w, i) for i, (h, w) in enumerate(sizes)]
    pool = PatchPool([(lr, enlarged(lr, scale)) for lr in images], scale, 8, "cpu")
    lr, hr = pool.batch(np.random.default_rng(seed), 20)
    assert lr.shape == (20, 3, 8, 8)
    assert hr.shape == (20, 3, 8 * scale, 8 * scale)
    assert lr.is_contiguous(memory_format=torch.channels_last)
    for k in range(scale):
        torch.testing.assert_close(hr[:, :, k::scale, k::scale], lr)
    for patch in whole(lr):
        number = patch[0, 0, 2]
        assert (patch[..., 2] == number).all()
        rows, columns = patch[..., 0], patch[..., 1]
        top, left = rows.min(), columns.min()
        expected = images[number][top : top + 8, left : left + 8].astype(int)
        turned = [np.rot90(x, k) for x in (expected, expected[::-1]) for k in range(4)]
        assert any(np.array_equal(patch, t) for t in turned)


def test_every_position_and_orientation_occurs() -> None:
    lr = numbered(10, 12, 0)
    pool = PatchPool([(lr, enlarged(lr, 2))], 2, 8, "cpu")
    places, turns = set(), set()
    for seed in range(40):
        for patch in whole(pool.batch(np.random.default_rng(seed), 16)[0]):
            rows, columns = patch[..., 0], patch[..., 1]
            places.add((rows.min(), columns.min()))
            turns.add((rows[0, 0] < rows[-1, -1], columns[0, 0] < columns[-1, -1],
                       bool(rows[0, 0] == rows[0, 1])))  # fmt: skip
    assert places == {(y, x) for y in range(3) for x in range(5)}
    assert len(turns) == 8


def test_every_position_is_equally_likely() -> None:
    images = [numbered(8, 8, 0), numbered(8, 38, 1)]
    pool = PatchPool([(lr, enlarged(lr, 2)) for lr in images], 2, 8, "cpu")
    patches = whole(pool.batch(np.random.default_rng(1), 4000)[0])
    assert np.mean(patches[:, 0, 0, 2]) == pytest.approx(31 / 32, abs=0.01)


def test_the_same_generator_gives_the_same_patches() -> None:
    lr = np.random.default_rng(1).integers(0, 256, (30, 30, 3), np.uint8)
    pool = PatchPool([(lr, enlarged(lr, 2))], 2, 8, "cpu")
    first, again, other = (pool.batch(np.random.default_rng(s), 4)[1] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_small_images_are_left_out_and_wrong_pairs_refused() -> None:
    small, large = numbered(7, 30, 0), numbered(8, 30, 1)
    pairs = [(x, enlarged(x, 2)) for x in (small, large)]
    assert PatchPool(pairs, 2, 8, "cpu").count == 1
    with pytest.raises(ImageError, match="images of at least 16 pixels in Y and X, got none"):
        PatchPool(pairs[:1], 2, 8, "cpu")
    with pytest.raises(ImageError, match="4 times as large"):
        PatchPool(pairs, 4, 8, "cpu")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_images_are_those_of_the_benchmarks(scale) -> None:
    """Rounded to uint8, from HR images cropped to whole LR pixels."""
    hr = np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)
    lr, cropped = reduced(hr, scale)
    assert lr.dtype == cropped.dtype == np.uint8
    assert cropped.shape == (50 // scale * scale, 61 // scale * scale, 3)
    assert lr.shape == (50 // scale, 61 // scale, 3)
    assert np.array_equal(cropped, hr[: cropped.shape[0], : cropped.shape[1]])
