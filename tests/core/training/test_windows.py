"""From images to windows: roles, cropping, refused images, memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import TrainData, array_data, array_sources, folder_data
from napari_cfsr.core.training.split import MOST_IMAGES, ROLES, split
from napari_cfsr.core.training.windows import (
    CONTEXT,
    GAP,
    LARGEST_SIDE,
    MOST_PIXELS,
    SMALLEST,
    TrainingImages,
    TrainingWindow,
    matched,
    prepare,
)
from napari_cfsr.errors import ImageError
from tests.helpers.faults import run_python
from tests.helpers.small_sets import Plane, colours, photographs, planes, request, spots

SPAN = re.compile(r"(.*) \[(\d+):(\d+), (\d+):(\d+)\]")


def texture(height: int = 160, width: int = 160, seed: int = 0) -> np.ndarray:
    """Noise in [0,1]."""
    return np.random.default_rng(seed).random((height, width), np.float32)


def disjoint(sets: list[set[str]]) -> bool:
    return all(count == 1 for count in Counter(x for s in sets for x in s).values())


def stacks(sizes: list[int]) -> TrainData:
    """Groups of so many planes; nothing is read."""
    groups = [f"stack {g}" for g, size in enumerate(sizes) for _ in range(size)]
    return TrainData(
        tuple(Plane(f"{g} [Z{i}]", g, lambda: texture(), f"Z{i}") for i, g in enumerate(groups))
    )


shares = st.floats(0.05, 0.4)
seeds = st.integers(0, 2**32)


@given(st.lists(st.integers(1, 20), min_size=3, max_size=12), shares, seeds)
@example([1, 1, 1], 0.4, 0)
def test_groups_are_not_divided(sizes, share, seed) -> None:
    data = stacks(sizes)
    parts = split(data, TrainConfig(seed=seed, held_out=share))
    assert sorted(p.index for p in parts) == list(range(sum(sizes)))
    assert all(part.area is None for part in parts)
    groups = {r: {data.hr[p.index].group for p in parts if p.role == r} for r in ROLES}
    assert all(groups[role] for role in ROLES)
    assert disjoint(list(groups.values()))
    assert len(groups["held_out"]) == len(groups["validation"]) <= max(1, round(share * len(sizes)))


@given(st.lists(st.integers(3, 40), min_size=1, max_size=2), shares, seeds)
@example([3], 0.4, 0)
def test_stacks_are_split_by_runs_of_planes(sizes, share, seed) -> None:
    data = stacks(sizes)
    parts = split(data, TrainConfig(seed=seed, held_out=share))
    assert sorted(p.index for p in parts) == list(range(sum(sizes)))
    first = 0
    for size in sizes:
        roles = {p.index - first: p.role for p in parts if first <= p.index < first + size}
        assert set(roles.values()) == set(ROLES)
        changes = sum(roles[i] != roles[(i + 1) % size] for i in range(size))
        assert changes == 3  # one run for each role, around the stack
        first += size


@pytest.mark.parametrize(
    ("axes", "shape", "places"),
    [
        ("CZYX", (2, 10), "Z"),
        ("ZCYX", (10, 2), "Z"),
        ("TZYX", (4, 5), "Z"),
        ("TCZYX", (3, 2, 6), "Z"),
        ("TCYX", (6, 2), "T"),
        ("TYX", (6,), "T"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_channels_and_times_of_one_place_have_one_role(axes, shape, places, seed) -> None:
    """They look alike: a gain on one channel of what was trained on in another proves nothing."""
    stack = np.random.default_rng(0).random((*shape, 70, 70), np.float32)
    data = TrainData(tuple(array_sources(stack, "stack", axes)))
    parts = split(data, TrainConfig(seed=seed))
    assert sorted(p.index for p in parts) == list(range(len(data.hr)))
    roles: dict[str, set[str]] = {}
    for part in parts:
        (place,) = re.findall(rf"{places}\d+", data.hr[part.index].name)
        roles.setdefault(place, set()).add(part.role)
    assert all(len(found) == 1 for found in roles.values())
    assert set().union(*roles.values()) == set(ROLES)
    notes = prepare(TrainRequest(TrainData(data.hr), {"scale": 2}, TrainConfig(seed=seed))).notes
    assert any("other time points" in note for note in notes) == (places == "T")


@pytest.mark.parametrize(("axes", "shape"), [("CYX", (3,)), ("CYX", (8,)), ("CZYX", (3, 2))])
def test_channels_of_few_places_are_split_by_the_same_area(axes, shape) -> None:
    stack = np.random.default_rng(0).random((*shape, 200, 300), np.float32)
    data = TrainData(tuple(array_sources(stack, "stack", axes)))
    for seed in range(4):
        parts = split(data, TrainConfig(seed=seed))
        areas = {(p.role, p.area) for p in parts}
        assert len(areas) == 3
        assert len(parts) == 3 * len(data.hr)


@given(st.integers(1, 2), seeds)
def test_few_images_are_split_by_area(count, seed) -> None:
    data = stacks([1] * count)
    parts = split(data, TrainConfig(seed=seed))
    for i in range(count):
        mine = sorted((p for p in parts if p.index == i), key=lambda p: p.area or (0, 0))
        assert [p.area for p in mine] == [(0, 0.2), (0.2, 0.8), (0.8, 1)]
        assert mine[1].role == "train"
        assert {p.role for p in mine} == set(ROLES)


def test_the_seed_decides_the_split() -> None:
    for sizes in ([1] * 12, [30], [1, 1]):
        data = stacks(sizes)
        splits = [str(split(data, TrainConfig(seed=seed))) for seed in (1, 1, *range(2, 8))]
        assert splits[0] == splits[1]
        assert len(set(splits)) > 1


@settings(max_examples=20)
@given(
    sizes=st.sampled_from([[1], [2], [1, 1], [4], [2, 3], [1, 1, 1], [2, 1, 3, 1], [1] * 7]),
    height=st.integers(340, 380),
    width=st.integers(340, 380),
    share=shares,
    seed=seeds,
    scale=st.sampled_from([2, 3]),
)
def test_no_pixel_has_two_roles(sizes, height, width, share, seed, scale) -> None:
    """Every pixel of all images has a value of its own, by which it is found in the windows."""
    size = height * width
    images = [
        np.linspace(i / 8, (i + 1) / 8, size, False).reshape(height, width).astype(np.float32)
        for i in range(sum(sizes))
    ]
    groups = [f"stack {g}" for g, count in enumerate(sizes) for _ in range(count)]
    data = TrainData(planes(images, groups))
    made = prepare(request(data, scale, held_out=share, seed=seed))
    used = {
        role: np.unique(np.concatenate([w.hr.ravel() for w in getattr(made, role)]))
        for role in ROLES
    }
    assert all(len(values) for values in used.values())
    together = np.concatenate(list(used.values()))
    assert len(np.unique(together)) == len(together)


def test_areas_keep_a_distance() -> None:
    """Between what is trained on and what is held out: whole LR pixels, and eight of them."""
    rows = np.repeat(np.linspace(0, 1, 640, dtype=np.float32)[:, None], 200, 1)
    for image in (rows, rows.T):
        made = prepare(request([image]))
        spans = []
        for role in ROLES:
            used = np.concatenate([w.hr.ravel() for w in getattr(made, role)])
            spans.append(np.rint(np.array([used.min(), used.max()]) * 639).astype(int))
        spans.sort(key=lambda span: span[0])
        for (_, stop), (start, _) in pairwise(spans):
            assert start % 2 == 0
            assert start - stop - 1 >= GAP * 2


def named_pixels(window: TrainingWindow, sources: dict[str, np.ndarray]) -> np.ndarray:
    match = SPAN.fullmatch(window.name)
    if match is None:
        return sources[window.name]
    top, bottom, left, right = (int(number) for number in match.groups()[1:])
    return sources[match[1]][top:bottom, left:right]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("count", "height", "width"), [(1, 331, 1207), (2, 1207, 331), (5, 1100, 1303)]
)
def test_names_contain_rows_and_columns(scale, count, height, width) -> None:
    images = [texture(height, width, i) for i in range(count)]
    made = prepare(request(images, scale))
    sources = {f"image {i}": image for i, image in enumerate(images)}
    for role in ROLES:
        for window in getattr(made, role):
            np.testing.assert_array_equal(window.hr[0], named_pixels(window, sources))
            assert window.hr.shape[1:] == tuple(n * scale for n in window.lr.shape[1:])


def test_a_whole_image_has_its_name() -> None:
    made = prepare(request([texture(200, 201, i) for i in range(4)]))
    names = [w.name for role in ROLES for w in getattr(made, role)]
    assert all(re.fullmatch(r"image \d( \[0:200, 0:200\])?", name) for name in names)


def same(a: TrainingImages, b: TrainingImages) -> bool:
    return all(
        x.name == y.name
        and x.inner == y.inner
        and all(np.array_equal(getattr(x, n), getattr(y, n)) for n in ("lr", "clean", "hr"))
        for role in ROLES
        for x, y in zip(getattr(a, role), getattr(b, role), strict=True)
    )


@pytest.mark.parametrize("noise", [{}, {"photons": 50, "read_noise": 0.01}, {"jpeg": 60}])
def test_the_same_request_gives_the_same_windows(noise) -> None:
    images = [texture(300, 300, i) for i in range(6)]
    first = prepare(request(images, seed=3, **noise))
    assert same(first, prepare(request(images, seed=3, **noise)))
    assert not same(first, prepare(request(images, seed=4, **noise)))
    for role in ROLES:
        assert len({w.lr.tobytes() for w in getattr(first, role)}) == len(getattr(first, role))


def test_noise_is_that_of_the_degradation() -> None:
    """By hand, with the same source of random numbers."""
    how = {"blur": 0.7, "photons": 80, "read_noise": 0.02, "gain": 1.1, "offset": 0.02}
    images = [texture(96, 96, i) for i in range(4)]
    sent = request(images, seed=5, **how)
    for role, window in [(r, w) for r in ROLES for w in getattr(prepare(sent), r)]:
        index = int(window.name.split()[1])
        rng = np.random.default_rng([5, 1 + ROLES.index(role), index])
        image = images[index]
        clean = sent.config.degradation.clean(image, 2, clip=False)
        np.testing.assert_array_equal(window.clean[0], clean)
        lr = sent.config.degradation.apply(image, 2, rng)
        np.testing.assert_array_equal(window.lr[0], lr)
        assert abs(float((window.lr - window.clean).std()) - 0.075) < 0.025
        np.testing.assert_array_equal(window.hr[0], image)


def test_windows_without_noise() -> None:
    for images, channels in ((spots(), 1), (colours(), 3)):
        made = prepare(request(images))
        assert made.channels == channels
        window = made.held_out[0]
        assert window.lr.shape == (channels, window.hr.shape[1] // 2, window.hr.shape[2] // 2)
        assert window.lr.dtype == window.hr.dtype == window.clean.dtype == np.float32
        reduced = np.clip(window.target(2), 0, 1)
        np.testing.assert_allclose(window.lr, reduced, atol=1e-6)


def test_gray_among_colour_becomes_colour() -> None:
    made = prepare(request([*colours(4), *spots(4)], photons=50))
    assert made.channels == 3
    gray = [w for role in ROLES for w in getattr(made, role) if np.ptp(w.hr, axis=0).max() == 0]
    assert gray
    assert all(w.lr.shape[0] == w.hr.shape[0] == 3 for r in ROLES for w in getattr(made, r))


def test_oversampled_images_are_reduced_first() -> None:
    images = spots(6, 192)
    made = prepare(request(images, reduce=2))
    halved = [np.clip(imresize(image, 0.5), 0, 1) for image in images]
    for window in made.held_out:
        expected = halved[int(window.name.split()[1])]
        np.testing.assert_allclose(window.hr[0], expected, atol=1e-6)
        assert window.lr.shape[1:] == (48, 48)


def measured(move: tuple[int, int] = (0, 0)) -> list[tuple[np.ndarray, np.ndarray]]:
    """LR and HR images of which the LR one was seen so many HR pixels further down and right."""
    y, x = (8 + d for d in move)
    return [
        (imresize(image[y : y + 192, x : x + 192], 0.5), image[8:200, 8:200])
        for image in photographs(4, 208)
    ]


def test_pairs_are_used_unchanged() -> None:
    pairs = measured()
    made = prepare(request(array_data([], pairs, (0, 1)), match=False, photons=50))
    assert made.degradation is None
    (window,) = made.held_out
    lr, hr = pairs[int(window.name.split()[1])]
    np.testing.assert_array_equal(window.lr[0], lr)
    np.testing.assert_array_equal(window.clean[0], lr)
    np.testing.assert_array_equal(window.hr[0], hr)
    assert made.notes == ()


def error(window: TrainingWindow) -> float:
    """Root mean square, away from the border."""
    return float(np.sqrt(np.mean((window.lr - window.target(2))[:, 8:-8, 8:-8] ** 2)))


@pytest.mark.parametrize("move", [(4, -2), (3, 1), (-5, -3)])
def test_a_known_shift_is_corrected(move) -> None:
    sent = request(array_data([], measured(move), (0, 1)))
    before = prepare(sent)
    after = prepare(replace(sent, config=replace(sent.config, align=True)))
    for a, b in zip(
        before.held_out + before.validation, after.held_out + after.validation, strict=True
    ):
        assert error(b) < 0.15 * error(a)
        assert b.hr.shape[1:] == tuple(2 * n for n in b.lr.shape[1:])
    assert before.notes == ()
    assert len(after.notes) == 4
    for note in after.notes:
        found = [float(number) for number in re.findall(r"[+-]\d+\.\d+", note)]
        np.testing.assert_allclose(found, [-move[0] / 2, -move[1] / 2], atol=0.05)
        assert note.endswith("LR pixels was corrected")


def test_another_brightness_is_matched() -> None:
    pairs = [(lr * np.float32(0.4) + np.float32(0.2), hr) for lr, hr in measured()]
    for match in (True, False):
        made = prepare(request(array_data([], pairs, (0, 1)), match=match))
        for window in (*made.train, *made.validation, *made.held_out):
            assert (error(window) < 1e-3) == match
    lr, hr = pairs[0]
    np.testing.assert_allclose(matched(hr, lr, 2), 0.4 * hr + 0.2, atol=1e-3)
    noisy = lr + np.random.default_rng(0).normal(0, 0.05, lr.shape).astype(np.float32)
    np.testing.assert_allclose(matched(hr, noisy, 2), 0.4 * hr + 0.2, atol=5e-3)


def refused(images: list[np.ndarray], reason: str, **how: object) -> None:
    with pytest.raises(ImageError, match=reason):
        prepare(request(images, **how))


def test_no_image_and_one_that_is_too_small() -> None:
    refused([], "expected at least one image to train on, got none: add images")
    refused(
        [texture(222, 200)],
        r"expected at least 64 pixels in Y and X .* got \d+x200 for 'image 0': add larger images",
    )
    for scale in (2, 3, 4):  # just enough
        made = prepare(request([texture(112 * scale, 32 * scale)], scale))
        sides = {window.lr.shape for role in ROLES for window in getattr(made, role)}
        assert sides == {(1, 32, 32)}


def test_images_that_are_too_small() -> None:
    images = [texture(63, 64, i) for i in range(5)]
    refused(images, r"expected at least 64 .* got 62x64 for 'image \d'")
    prepare(request([texture(64, 65, i) for i in range(5)]))


def test_black_and_flat_images() -> None:
    for value in (0, 0.7):
        flat = np.full((160, 160), value, np.float32)
        refused([flat] * 4, r"expected an image with contrast, but all pixels of 'image \d'")
        refused([np.pad(flat, 200, mode="edge")], "expected an image with contrast")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan(value) -> None:
    images = [texture(seed=i) for i in range(5)]
    images[3][80, 80] = value
    refused(
        images,
        "expected finite pixels, got NaN or infinity in 'image 3': repair it or leave it out",
        intensity=(0, 1),
    )


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    hr = texture(160, 160, seed)
    return imresize(hr, 0.5), hr


@pytest.mark.parametrize("how", [{}, {"match": False}])
def test_pairs_of_different_scenes_are_refused(how) -> None:
    """Otherwise the matched HR image would be flat, and making all gray would be worth using."""
    pairs = measured()
    mixed = [(lr, pairs[i - 1][1]) for i, (lr, _) in enumerate(pairs)]
    for wrong in (mixed, [(1 - lr, hr) for lr, hr in pairs]):
        with pytest.raises(
            ImageError, match=r"same scene, correlation at least 0\.3, got -?[01]\.\d"
        ):
            prepare(request(array_data([], wrong, (0, 1)), **how))
    noise = np.random.default_rng(0).normal(0, 0.2, pairs[0][0].shape).astype(np.float32)
    noisy = [(lr + noise, hr) for lr, hr in pairs]  # far more noise than image
    assert prepare(request(array_data([], noisy, (0, 1)), **how)).train


def test_pairs_that_do_not_fit() -> None:
    good = [pair(i) for i in range(4)]
    for lr, hr in [
        (texture(80, 80), texture(200, 160)),
        (texture(80, 80), texture(80, 80)),
        (np.dstack([texture(80, 80)] * 3), texture(160, 160)),
    ]:
        with pytest.raises(
            ImageError, match=r"'HR 3': expected .* HR 2 times the size of LR, got LR .*change"
        ):
            prepare(request(array_data([], [*good[:3], (lr, hr), good[3]])))

    good = array_data([], good)
    with pytest.raises(ImageError, match="expected an HR image for each LR image, got 4 and 3"):
        prepare(request(replace(good, lr=good.lr[:3])))


def test_pairs_without_contrast() -> None:
    flat = np.full((160, 160), 0.25, np.float32)
    for lr, hr in ((flat[::2, ::2], texture()), (texture()[::2, ::2], flat)):
        for how in ({}, {"match": False}, {"align": True}):
            pairs = [(lr, hr)] * 4
            with pytest.raises(ImageError, match="contrast"):
                prepare(request(array_data([], pairs), **how))


def write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_unusable_files_of_a_folder_are_left_out(tmp_path) -> None:
    folder = write(tmp_path / "cells", {f"good{i}": texture(seed=i) for i in range(9)})
    write(folder, {"black": np.zeros((160, 160), np.float32), "tiny": texture(20, 20)})
    bad = texture()
    bad[3, 3] = np.nan
    tifffile.imwrite(folder / "nan.tif", bad)
    (folder / "broken.png").write_bytes(b"no image")
    for seed in range(6):
        made = prepare(request(folder_data(folder), seed=seed, held_out=0.2))
        notes = "\n".join(made.notes)
        for name, reason in [
            ("black", "expected an image with contrast"),
            ("tiny", "expected at least 64 pixels"),
            ("nan", "expected finite pixels"),
            ("broken", "broken.png"),
        ]:
            assert sum(name in note for note in made.notes) == 1
            assert reason in notes
        names = {role: {w.name.split(" ")[0] for w in getattr(made, role)} for role in ROLES}
        assert disjoint(list(names.values()))
        assert set().union(*names.values()) == {f"good{i}.png" for i in range(9)}
        assert len(names["held_out"]) == len(names["validation"]) == 2  # of twelve: none is missing


def test_too_few_are_left(tmp_path) -> None:
    flat = {f"flat{i}": np.zeros((160, 160), np.float32) for i in range(5)}
    folder = write(tmp_path / "cells", {**flat, "good": texture(), "fine": texture(seed=1)})
    with pytest.raises(
        ImageError, match=r"of 7 image\(s\), too few can be used \(expected .* 'flat\d.png'.*Add"
    ):
        prepare(request(folder_data(folder)))


def with_faults(data: TrainData, bad: set[int]) -> TrainData:
    """Planes that are black where they are named."""
    black = np.zeros((160, 160), np.float32)
    hr = [
        Plane(s.name, s.group, (lambda: black) if i in bad else s.make, s.site)
        for i, s in enumerate(data.hr)
    ]
    return TrainData(tuple(hr))


@pytest.mark.parametrize("role", ["held_out", "validation"])
@pytest.mark.parametrize(("black", "left"), [(4, 2), (6, 6)])
def test_black_planes_of_a_stack_are_left_out(role, black, left) -> None:
    """The others keep the role; a stack without any is replaced by a whole one."""
    data = stacks([6] * 6)
    held = [p.index for p in split(data, TrainConfig()) if p.role == role]
    made = prepare(request(with_faults(data, set(held[:black]))))
    groups = {r: {" ".join(w.name.split()[:2]) for w in getattr(made, r)} for r in ROLES}
    assert disjoint(list(groups.values()))
    assert len(getattr(made, role)) == left
    assert len(groups[role]) == 1
    assert len(made.notes) == black


@pytest.mark.parametrize("role", ["held_out", "validation"])
def test_black_planes_at_the_end_of_one_stack(role) -> None:
    """Their neighbours are held out instead."""
    data = stacks([20])
    roles = {p.index: p.role for p in split(data, TrainConfig())}
    held = [i for i, r in roles.items() if r == role]
    made = prepare(request(with_faults(data, set(held))))
    assert getattr(made, role)
    used = {r: {int(w.name.split("Z")[1].split("]")[0]) for w in getattr(made, r)} for r in ROLES}
    assert sum(map(len, used.values())) == 20 - len(held)
    assert disjoint(list(used.values()))


def inner_pixels(windows: tuple[TrainingWindow, ...]) -> int:
    return sum((y.stop - y.start) * (x.stop - x.start) for y, x in (w.inner for w in windows))


def flood(count: int, side: int, colour: bool = False) -> TrainData:
    shape = (side, side, 3) if colour else (side, side)

    def make(i: int) -> np.ndarray:
        return np.random.default_rng(i).random(shape, np.float32)

    return TrainData(
        tuple(Plane(f"image {i}", f"image {i}", lambda i=i: make(i)) for i in range(count))
    )


@pytest.mark.parametrize("count", [1, 4, 30, 700])
def test_the_number_of_pixels_is_limited(count) -> None:
    made = prepare(request(flood(count, 1400 if count < 30 else 400)))
    for role in ROLES:
        windows = getattr(made, role)
        assert len({w.name.split(" [")[0] for w in windows}) <= MOST_IMAGES[role]
        assert inner_pixels(windows) <= MOST_PIXELS[role]
        for window in windows:
            inner = window.hr.shape[1:] if role != "train" else None
            largest = LARGEST_SIDE[role] + (2 * CONTEXT if role == "train" else 0)
            assert max(window.lr.shape[1:]) <= largest
            assert inner is None or max(inner) <= 2 * LARGEST_SIDE[role]
            assert min(window.lr.shape[1:]) >= SMALLEST


@pytest.mark.parametrize(("scale", "colour"), [(2, False), (4, False), (4, True)])
@pytest.mark.parametrize("memory", [2**24, 2**26, 2**28])
def test_windows_to_train_on_stay_within_the_memory(scale, colour, memory) -> None:
    made = prepare(request(flood(80, 600, colour), scale, memory=memory))
    arrays = {id(a): a.nbytes for w in made.train for a in (w.lr, w.clean, w.hr)}
    assert sum(arrays.values()) <= memory
    assert made.train


def test_windows_include_their_context() -> None:
    """The context is as wide as the halo of a tile, except at the border."""
    made = prepare(request([texture(2000, 2000, i) for i in range(3)]))
    for window in made.train:
        match = SPAN.fullmatch(window.name)
        spans = [tuple(map(int, match.groups()[i : i + 2])) for i in (1, 3)]
        for (start, stop), inner, length in zip(
            spans, window.inner, window.lr.shape[1:], strict=True
        ):
            assert start == 0 or inner.start == CONTEXT
            assert stop == 2000 or length - inner.stop == CONTEXT


PROGRAM = """
import json, sys, threading, time, psutil
from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.data import folder_data
from napari_cfsr.core.training.windows import prepare
from napari_cfsr.core.training.config import TrainRequest
process = psutil.Process()
before, peak, done = process.memory_info().rss, 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, process.memory_info().rss)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
config = TrainConfig(photons=50, read_noise=0.01)
made = prepare(TrainRequest(folder_data(sys.argv[1]), {"scale": 2}, config))
done.set()
thread.join()
print(json.dumps([before, peak, len(made.train), len(made.validation), len(made.held_out)]))
"""


@pytest.fixture(scope="module")
def megapixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of one megapixel; only their number matters, so few are different."""
    folder = tmp_path_factory.mktemp("megapixels")
    smooth = [imresize(texture(125, 125, i), 8) for i in range(4)]
    files = [
        write(folder, {f"{i}": np.clip(image, 0, 1)}) / f"{i}.png" for i, image in enumerate(smooth)
    ]
    for i in range(4, 200):
        (folder / f"{i}.png").write_bytes(files[i % 4].read_bytes())
    return folder


def test_memory_of_two_hundred_megapixels(megapixels) -> None:
    before, peak, *counts = json.loads(run_python(PROGRAM, megapixels))
    assert counts == [140, 12, 16]
    assert peak - before < 1.5e9
