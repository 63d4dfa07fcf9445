"""Figures: the numbers they show, where everything is, and their pixels."""

from __future__ import annotations

import base64
import io
import math
import re
import threading
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.figures import drawing
from napari_cfsr.core.figures.comparison import Comparison
from napari_cfsr.core.figures.content import (
    DIVERGING,
    Contrast,
    Diverging,
    busiest,
    content_of,
    default_side,
    round_up,
)
from napari_cfsr.core.figures.drawing import COLOURS, draw_figure, round_length, save_figure
from napari_cfsr.core.figures.layout import FRAME, Grid, PixelGrid, Sizes, best_grid
from napari_cfsr.core.figures.options import PANELS, Crop, FigureOptions
from napari_cfsr.core.figures.text import Font, captions, marks, small_print
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.errors import FileFormatError, ImageError, OptionError
from tests.helpers.faults import files_of_at_most

YELLOW = 255, 212, 0  # colour of the first crop
PLAIN = FigureOptions(panels=("bicubic", "HR"), dpi=72, small_print=False)  # quick to draw


def scene(
    height: int = 96,
    width: int = 128,
    *,
    colour: bool = True,
    dtype: Any = np.uint8,
    refined: bool = True,
    reference: bool = True,
    **more: Any,
) -> Comparison:
    """Smooth noise; delta lies between baseline and HR."""
    rng = np.random.default_rng(5)
    top = float(np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else 1.0
    shape = (height, width, 3) if colour else (height, width)
    coarse = rng.random((-(-height // 4), -(-width // 4), *shape[2:]))
    hr = imresize(coarse, 4)[:height, :width]
    hr = np.clip(0.8 * hr + 0.2 * rng.random(shape), 0, 1)
    baseline = np.clip(hr + 0.05 * rng.standard_normal(shape), 0, 1)
    delta = (hr + 3 * baseline) / 4
    to = (lambda a: np.rint(a * top).astype(dtype)) if top > 1 else (lambda a: a.astype(dtype))
    return Comparison(
        to(np.clip(imresize(hr, 0.5), 0, 1)),
        2,
        to(baseline),
        to(delta) if refined else None,
        to(hr) if reference else None,
        ((delta - baseline) * top).astype(np.float32) if refined else None,
        **{"name": "noise", **more},
    )


class Drawn:
    """The pixels of a figure, whole and of its axes."""

    def __init__(self, content: Any) -> None:
        with drawing.settings():
            self.figure = draw_figure(content)
            canvas = FigureCanvasAgg(self.figure)
            canvas.draw()
        self.pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        # left, bottom, right, top
        self.boxes = {
            axes.get_label(): np.rint(axes.bbox.extents).astype(int) for axes in self.figure.axes
        }

    def __getitem__(self, label: str) -> np.ndarray:
        left, bottom, right, top = self.boxes[label]
        height = len(self.pixels)
        return self.pixels[height - top : height - bottom, left:right]


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text()]


# crops


@pytest.mark.parametrize("crop", [Crop(0, 0, 0), Crop(90, 0, 7), Crop(0, 125, 4), Crop(-1, 0, 4)])
def test_a_crop_outside(crop) -> None:
    with pytest.raises(OptionError, match=f"within 96x128 HR pixels, got {crop}"):
        content_of(scene(), FigureOptions(crops=(crop,)))


def test_the_default_crop_is_where_the_detail_is() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    image[30:40, 20:30] = np.random.default_rng(0).integers(0, 256, (10, 10, 3))
    crop = busiest(image, 12)
    assert 28 <= crop.top <= 30
    assert 18 <= crop.left <= 20
    assert busiest(image, 12, 4) == Crop(28, 20, 12)  # on a whole LR pixel
    assert busiest(image, 50).top == 0
    assert busiest(np.where(image, np.nan, 0.0), 12) == Crop(0, 0, 12)


@given(st.integers(1, 600), st.integers(1, 600), st.sampled_from([2, 3, 4]))
def test_the_side_of_a_default_crop(height, width, scale) -> None:
    side = default_side(height * scale, width * scale, scale)
    assert 1 <= side <= min(height, width) * scale
    assert side % scale == 0
    assert side <= 128
    if min(height, width) * scale >= 200:
        assert side >= 48 - scale


# scores


def test_scores_are_those_of_the_metrics() -> None:
    """Of the whole image, Y, a border of the scale left out, as tables have it."""
    comparison = scene()
    content = content_of(comparison)
    assert list(content.images) == list(PANELS)
    assert list(content.scores) == ["LR", "bicubic", "baseline", "delta"]
    made = {
        "LR": comparison.lr.repeat(2, 0).repeat(2, 1),
        "bicubic": imresize(comparison.lr, 2),
        "baseline": comparison.baseline,
        "delta": comparison.delta,
    }
    for name, image in made.items():
        how = {"shave": 2, "channel": "Y"}
        a, b = image / 255.0, comparison.hr / 255.0
        assert content.scores[name].psnr == pytest.approx(nc.psnr(a, b, **how), abs=1e-9)
        assert content.scores[name].ssim == pytest.approx(nc.ssim(a, b, **how), abs=1e-9)
    gain = content.scores["delta"].psnr - content.scores["baseline"].psnr
    assert gain == pytest.approx(20 * math.log10(4 / 3), abs=0.05)  # a quarter less error


def test_twelve_bits_in_sixteen() -> None:
    full = scene(colour=False, dtype=np.uint16)
    lr, baseline, hr = (a >> 4 for a in (full.lr, full.baseline, full.hr))
    comparison = Comparison(lr, 2, baseline, hr=hr)
    assert comparison.data_range == 4095
    expected = nc.psnr(baseline / 4095.0, hr / 4095.0, shave=2)
    content = content_of(comparison)
    assert content.scores["baseline"].psnr == pytest.approx(expected, abs=1e-9)
    low, high = np.percentile(hr, (0.1, 99.9))
    assert (content.contrast.low, content.contrast.high) == pytest.approx((low, high))
    text = small_print(content)
    assert "gray values, 2 border pixels left out, data range 4095, results in uint16" in text
    assert f"Black to white: {low:.5g} to {high:.5g} in all images, gamma 1." in text


def test_nothing_is_invented_without_a_reference(tmp_path) -> None:
    content = content_of(scene(reference=False))
    assert content.scores == {}
    assert "HR" not in content.images
    assert all(caption.numbers == () for caption in captions(content))
    assert "PSNR" not in small_print(content)
    save_figure(tmp_path / "f.svg", content)
    text = (tmp_path / "f.svg").read_text("utf-8")
    assert "PSNR" not in text
    assert ">baseline<" in text
    assert ">LR, 64 × 48 pixels<" in text  # noqa: RUF001


def test_without_a_refined_result() -> None:
    content = content_of(scene(refined=False))
    assert "difference" not in content.images
    assert "Difference left out: there is no refined result." in small_print(content)
    chosen = content_of(scene(refined=False), FigureOptions(panels=("bicubic", "HR")))
    assert "ifference" not in small_print(chosen)
    with pytest.raises(OptionError, match="there is no delta, difference of noise"):
        content_of(scene(refined=False), FigureOptions(panels=("HR", "difference", "delta")))


def test_images_too_small_for_ssim() -> None:
    content = content_of(scene(8, 8))
    assert content.scores["delta"].psnr > 20
    assert content.scores["delta"].ssim is None
    assert "SSIM n/a: smaller than its window of 11" in small_print(content)
    assert captions(content)[2].numbers[1].text == "n/a"
    tiny = content_of(scene(4, 4))
    assert "no border left out" in small_print(tiny)
    assert math.isfinite(tiny.scores["delta"].psnr)


def test_a_reference_of_a_single_value() -> None:
    flat = np.full((16, 16), 7.5, np.float32)
    content = content_of(Comparison(flat[:8, :8], 2, flat, hr=flat))
    assert content.scores == {}
    assert "No PSNR: the reference has no range of values." in small_print(content)


def test_the_same_pixels_and_missing_ones() -> None:
    comparison = scene(colour=False, dtype=np.float32)
    hr = comparison.hr
    broken = hr.copy()
    broken[40, 40] = np.nan
    content = content_of(Comparison(comparison.lr, 2, hr, broken, hr))
    numbers = {c.name: [n.text for n in c.numbers] for c in captions(content)}
    assert numbers["baseline"] == ["∞", "1.0000"]
    assert numbers["delta"] == ["n/a", "n/a"]
    assert np.isnan(content.images["difference"]).sum() == 1
    assert (content.pixels("difference")[40, 40] == 128).all()


def test_hr_at_its_original_size_is_cropped_and_noted() -> None:
    whole = scene()
    hr = np.pad(whole.hr, ((0, 1), (0, 1), (0, 0)), mode="edge")
    comparison = replace(whole, hr=hr)
    np.testing.assert_array_equal(comparison.hr, whole.hr)
    text = small_print(content_of(comparison))
    assert "Reference cropped from 97x129 to 96x128 (bottom and right)." in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": np.zeros((4, 4, 2), np.uint8)}, r"expected an LR image .* got shape \(4, 4, 2\)"),
        ({"lr": np.zeros((0, 4), np.uint8)}, r"expected an LR image"),
        ({"baseline": np.zeros((96, 127, 3), np.uint8)}, r"baseline of shape \(96, 128, 3\), got"),
        ({"delta": np.zeros((96, 128, 3), np.uint16)}, "delta in the dtype .* uint8, got uint16"),
        ({"hr": np.zeros((90, 128, 3), np.uint8)}, r"\(96, 128, 3\) and reference \(90, 128, 3\)"),
        ({"hr": np.zeros((96, 128), np.uint8)}, r"and reference \(96, 128\)"),
    ],
)
def test_images_that_do_not_fit(change, message) -> None:
    with pytest.raises(ImageError, match=message):
        replace(scene(), **change)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["28.43", "32.33", "32.34"], ["", "second", "best"]),
        (["28.43", "32.33", "32.33"], ["", "", ""]),  # a tie for the best
        (["28.43", "28.43", "32.33"], ["", "", "best"]),  # for the second
        (["28.43", "32.33"], ["", "best"]),
        (["28.43"], [""]),
        (["∞", "32.33", "28.43"], ["best", "second", ""]),
        (["∞", "∞", "28.43"], ["", "", ""]),
        (["n/a", "32.33", "28.43"], ["", "best", ""]),
        (["n/a", "n/a"], ["", ""]),
    ],
)
def test_equal_scores_are_not_marked(texts, expected) -> None:
    named = {str(i): text for i, text in enumerate(texts)}
    assert list(marks(named).values()) == expected


def test_marks_follow_the_digits_that_are_shown() -> None:
    """A gain of 0.0005 dB does not count: both print the same."""
    whole = scene()
    nearly = whole.baseline.copy()
    nearly[0:4, 0:4] = whole.hr[0:4, 0:4]
    content = content_of(replace(whole, delta=nearly, difference=None))
    assert content.scores["delta"].psnr > content.scores["baseline"].psnr
    of = {c.name: c.numbers[0] for c in captions(content) if c.numbers}
    assert of["delta"].text == of["baseline"].text
    assert of["delta"].mark == of["baseline"].mark == ""


# colours


def test_contrast_is_one_straight_line_for_all() -> None:
    whole = scene(colour=False)
    content = content_of(whole, FigureOptions(contrast=(40, 200)))
    assert content.contrast == Contrast(40, 200)
    for name in ("LR", "bicubic", "baseline", "delta", "HR"):
        expected = np.clip((content.images[name] - 40.0) / 160, 0, 1) * 255
        np.testing.assert_allclose(content.pixels(name)[..., 1], expected, atol=0.5)
    assert "Black to white: 40 to 200 in all images, gamma 1." in small_print(content)
    plain = content_of(whole)
    np.testing.assert_array_equal(plain.pixels("HR")[..., 0], whole.hr)  # 8 bits as they are
    assert "Black to white" not in small_print(plain)


def test_colours_of_a_difference() -> None:
    values = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, 5.0, np.nan]])
    pixels = Diverging(2.0).pixels(values)[0]
    for at, stop in zip((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 4), strict=True):
        assert tuple(pixels[at]) == DIVERGING[stop]
    assert tuple(pixels[6]) == (128, 128, 128)
    assert pixels[0][2] > pixels[0][0]  # blue below zero
    assert pixels[4][0] > pixels[4][2]  # orange above


def test_the_limit_of_a_difference_covers_the_crops() -> None:
    difference = np.zeros((20, 20))
    difference[3, 3], difference[15, 15] = -0.21, 7.0
    assert Diverging.of(difference, [Crop(0, 0, 10)]).limit == 0.25
    assert Diverging.of(difference, [Crop(0, 0, 10), Crop(10, 10, 10)]).limit == 8
    assert Diverging.of(difference, [Crop(0, 5, 5)]).limit == 1  # nothing at all


@given(st.floats(1e-12, 1e12))
def test_round_limits(value) -> None:
    limit = round_up(value)
    assert value * (1 - 1e-8) <= limit <= value * 1.51
    assert float(f"{limit:.2g}") == pytest.approx(limit)


def test_colour_differences_are_shown_as_luma() -> None:
    content = content_of(scene())
    weights = np.array([0.299, 0.587, 0.114])
    expected = content.comparison.difference @ weights
    np.testing.assert_allclose(content.images["difference"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "length", "label"),
    [(51.2, 10, "10 µm"), (6.7, 2, "2 µm"), (1.0, 0.2, "200 nm"), (5000, 1000, "1 mm")],
)
def test_lengths_of_scale_bars(width, length, label) -> None:
    assert round_length(width) == (pytest.approx(length), label)


# layout


@settings(max_examples=100)
@given(
    aspect=st.floats(0.05, 20),
    panels=st.integers(1, 6),
    sides=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    name=st.sampled_from(["auto", "above", "columns"]),
    width=st.floats(3, 12),
    dpi=st.integers(72, 600),
)
def test_edges_line_up(aspect, panels, sides, name, width, dpi) -> None:
    sizes = Sizes(aspect, tuple(sides), (0.25,) * (panels - 1) + (0.3,), 0.27, 0.2)
    best = best_grid(sizes, name, width)
    grid = PixelGrid(best, dpi)
    assert grid.width / grid.dpi == pytest.approx(width, abs=(6 + 3 * aspect) / grid.dpi)
    assert dpi * 0.95 <= grid.dpi <= dpi * 2.1
    # every pixel of the first crop is a square of whole pixels, or the crop is far too large
    assert grid.side % sides[0] == 0 or sides[0] > 1.9 * grid.side

    def pixels(box: Bbox) -> np.ndarray:
        return np.asarray(box.extents) * np.tile(grid.figure.bbox.size, 2)

    places = [(i, j) for i in range(len(sides)) for j in range(panels)]
    cells = [pixels(grid.crop(i, j)) for i, j in places]
    np.testing.assert_allclose(cells, np.rint(cells), atol=2e-4)
    assert {tuple(np.rint(cell[2:] - cell[:2])) for cell in cells} == {(grid.side, grid.side)}
    wholes = [pixels(grid.whole(j)) for j in range(panels if name == "columns" else 1)]
    frame = grid.px(FRAME)
    for cell, (i, j) in zip(cells, places, strict=True):  # with its caption
        cell[1] -= grid.px(best.below[best.cell(i, j)[0]])
    if best.kind == "above":
        wholes[0][1] -= grid.px(sizes.whole_caption)
    for left, bottom, right, top in (*cells, *wholes):
        assert left >= -1e-6
        assert right <= grid.width + 1e-2
        assert grid.note_top - 1e-6 < bottom < top <= grid.height + 1e-2
    everything = [*cells, *wholes]
    for i, a in enumerate(everything):
        for b in everything[i + 1 :]:
            across, down = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            assert across <= 1e-6 or down <= frame + 1e-6


@pytest.mark.parametrize(
    ("aspect", "panels", "crops", "expected"),
    [
        (1.5, 6, 1, ("left", 2, 3)),
        (0.7, 6, 1, ("left", 2, 3)),
        (1.0, 4, 1, ("left", 1, 4)),
        (12.0, 6, 1, ("above", 1, 6)),
        (0.1, 6, 1, ("left", 2, 3)),
        (1.5, 6, 2, ("left", 2, 6)),
        (8.0, 6, 2, ("above", 2, 6)),
    ],
)
def test_the_arrangement_follows_the_image(aspect, panels, crops, expected) -> None:
    sizes = Sizes(aspect, (64,) * crops, (0.28,) * panels, 0.28, 0.2)

    def shape(grid: Grid) -> tuple[str, int, int]:
        return grid.kind, grid.rows, grid.columns

    assert shape(best_grid(sizes, "auto", 7.16)) == expected
    assert shape(best_grid(sizes, "columns", 7.16)) == ("columns", crops, panels)


def test_the_whole_image_ends_where_the_crops_do() -> None:
    content = content_of(scene(), FigureOptions(arrangement="left"))
    drawn = Drawn(content)
    frame = round(drawn.figure.dpi / 72)
    _, bottom, _, top = drawn.boxes["whole image"]
    assert top == drawn.boxes["crop 0 LR"][3] + frame
    assert bottom == drawn.boxes["crop 0 difference"][1] - frame
    heights = {text.get_text(): text.get_window_extent().y0 for text in texts_of(drawn.figure)}
    assert heights["noise"] == pytest.approx(heights["delta"], abs=0.5)


def test_a_whole_image_too_narrow_for_words(tmp_path) -> None:
    save_figure(tmp_path / "f.svg", scene(800, 8, name="a needle"), FigureOptions(dpi=72))
    text = (tmp_path / "f.svg").read_text("utf-8")
    assert ">a needle, HR, 8 × 800 pixels. Upscaled ×2." in text  # noqa: RUF001
    assert ">a needle<" not in text


@pytest.mark.parametrize("arrangement", ["left", "above", "columns"])  # auto is one of them
@pytest.mark.parametrize(
    ("width", "count", "reference"),
    [(7.16, 1, True), (7.16, 2, True), (3.5, 1, True), (5.0, 1, False), (3.5, 3, False)],
)
def test_no_text_lies_over_another(arrangement, width, count, reference) -> None:
    crops = tuple(Crop(10 * i, 20 * i, 40) for i in range(count))
    look = FigureOptions(arrangement=arrangement, width=width, crops=crops)
    whole = scene(reference=reference, name="a rather long name of an image, as files have them")
    with drawing.settings():
        figure = draw_figure(content_of(whole, look))
        FigureCanvasAgg(figure)
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    assert {"baseline", "bicubic"} <= {text for text, _ in boxes}
    if width >= 5:
        cut_short = [text for text, _ in boxes if "…" in text and not text.startswith("a rather")]
        assert cut_short == []
    for i, (text, a) in enumerate(boxes):
        assert a.x0 >= 0, text
        assert a.x1 <= figure.bbox.width, text
        assert a.y0 >= 0, text
        for other, b in boxes[i + 1 :]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 0 or down <= 0.15 * a.height, (text, other)


@pytest.mark.parametrize("limit", [0.25, 250, 15000])
@pytest.mark.parametrize("width", [4.6, 5.2, 6.0, 7.16])
def test_the_unit_of_a_difference_is_never_cut(width, limit) -> None:
    """Beside the limits, a little smaller, or below them."""
    whole = scene(100, 150)
    difference = np.full(whole.shape, limit, np.float32)
    content = content_of(
        replace(whole, difference=difference), FigureOptions(width=width, small_print=False)
    )
    shown = [text.get_text() for text in texts_of(draw_figure(content))]
    assert {"grey levels", f"+{limit:g}"} <= set(shown)
    assert not any("…" in text for text in shown)


def test_text_is_shortened_and_wrapped() -> None:
    font = Font()
    assert font.fitted("short", 100) == "short"
    cut_text = font.fitted("a name that is far too long", 50)
    assert "…" in cut_text
    assert font.width(cut_text) <= 50
    assert cut_text.startswith("a n")
    assert cut_text.endswith("ng")
    lines = font.lines("one two three four five six seven eight nine ten", 60)
    assert " ".join(lines) == "one two three four five six seven eight nine ten"
    assert len(lines) > 3
    assert all(font.width(line) <= 60 for line in lines)


# pixels


def test_every_pixel_of_a_crop_is_a_square(tmp_path) -> None:
    crop = Crop(16, 24, 32)
    content = content_of(
        scene(), FigureOptions(crops=(crop,), panels=("LR", "delta", "difference"))
    )
    drawn = Drawn(content)
    save_figure(tmp_path / "f.png", content)
    with Image.open(tmp_path / "f.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), drawn.pixels)
    for name in content.images:
        shown = drawn[f"crop 0 {name}"]
        times = len(shown) // 32
        assert times >= 5
        expected = content.pixels(name, crop).repeat(times, 0).repeat(times, 1)
        np.testing.assert_array_equal(shown, expected)
        left, bottom, right, top = drawn.boxes[f"crop 0 {name}"]
        middle, line = len(drawn.pixels) - (bottom + top) // 2, round(drawn.figure.dpi / 72)
        for frame in (
            drawn.pixels[middle, left - line : left],
            drawn.pixels[middle, right:][:line],
        ):
            assert (frame == YELLOW).all()
        assert (drawn.pixels[middle, left - line - 1] != YELLOW).any()
    edges = drawn["crop 0 LR"][::times, ::times].astype(int)
    assert (np.diff(edges, axis=0)[::2] == 0).all()  # LR pixels are two HR pixels high


def test_two_crops_have_their_own_colours() -> None:
    crops = (Crop(0, 0, 32), Crop(60, 90, 32))
    content = content_of(scene(), FigureOptions(crops=crops, panels=("HR", "LR", "delta")))
    drawn = Drawn(content)
    whole = drawn["whole image"]
    for i, (crop, colour) in enumerate(zip(crops, COLOURS, strict=False)):
        rgb = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
        shown, (left, bottom, _, top) = drawn[f"crop {i} HR"], drawn.boxes[f"crop {i} HR"]
        times = len(shown) // 32
        np.testing.assert_array_equal(shown[::times, ::times], content.pixels("HR", crop))
        middle = len(drawn.pixels) - (bottom + top) // 2
        assert tuple(drawn.pixels[middle, left - 2]) == rgb
        # and the mark is around that place of the whole image
        down, across = len(whole) / 96, whole.shape[1] / 128
        where = np.argwhere((whole == rgb).all(-1))
        (top, left), (bottom, right) = where.min(0), where.max(0)
        edge = 0.05 * drawn.figure.dpi
        assert top == pytest.approx(crop.top * down, abs=edge)
        assert left == pytest.approx(crop.left * across, abs=edge)
        assert bottom == pytest.approx((crop.top + 32) * down, abs=edge)
        assert right == pytest.approx((crop.left + 32) * across, abs=edge)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (16, 512), (512, 16), (24, 24), (4, 6)])
def test_the_whole_image_is_recognised(height, width) -> None:
    """Every figure holds the whole image, its colours where they belong."""
    content = content_of(scene(height, width), FigureOptions(dpi=100, small_print=False))
    shown = Image.fromarray(Drawn(content)["whole image"])
    if min(shown.size) > 50:
        assert shown.width / shown.height == pytest.approx(width / height, rel=0.03)
    small = Image.fromarray(content.pixels(None)).resize((4, 4), Image.Resampling.BOX)
    shown = shown.resize((4, 4), Image.Resampling.BOX)
    difference = np.abs(np.asarray(small, float) - np.asarray(shown, float))
    assert np.median(difference) < 6  # the marks cover some of it


def test_a_scale_bar_is_as_long_as_it_says() -> None:
    """128 pixels of 0.4 micrometres: a bar of 10 out of 51.2."""
    look = FigureOptions(crops=(Crop(0, 0, 32),), panels=("LR", "HR"), small_print=False)
    drawn, without = (Drawn(content_of(scene(pixel_size=size), look)) for size in (0.4, None))
    left, bottom, right, _ = drawn.boxes["whole image"]
    row = len(drawn.pixels) - bottom - round(2.5 / 72 * drawn.figure.dpi)
    white = np.flatnonzero((drawn.pixels[row, left:right] == 255).all(-1))
    assert len(white) == pytest.approx((right - left) * 10 / 51.2, abs=2)
    assert np.ptp(white) == len(white) - 1
    assert not (without.pixels[row, left:right] == 255).all(-1).any()


# files


def svg_images(text: str) -> list[np.ndarray]:
    found = re.findall(r'href="data:image/png;base64,\s*([^"]+)"', text)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    return [np.asarray(image.convert("RGB")) for image in images]


def test_svg_holds_text_and_the_pixels_themselves(tmp_path) -> None:
    crop = Crop(16, 24, 32)
    content = save_figure(tmp_path / "f.svg", scene(), FigureOptions(crops=(crop,)))
    text = (tmp_path / "f.svg").read_text("utf-8")
    images = svg_images(text)
    np.testing.assert_array_equal(images[0], scene().hr)  # not resized
    for name, image in zip(content.images, images[1:7], strict=True):
        times = image.shape[0] // 32
        assert times >= 5
        expected = content.pixels(name, crop)
        np.testing.assert_array_equal(image, expected.repeat(times, 0).repeat(times, 1))
    numbers = [n.text for c in captions(content) for n in c.numbers]
    for word in ("LR (nearest)", "bicubic", "baseline", "delta", "grey levels", *numbers):
        assert f">{word}</text>" in text, word
    best = next(n.text for c in captions(content) for n in c.numbers if n.mark == "best")
    assert re.search(rf'style="[^"]*(bold|700)[^"]*"[^>]*>{re.escape(best)}</text>', text)


def test_large_images_are_embedded_reduced(monkeypatch) -> None:
    monkeypatch.setattr(drawing, "LARGEST_EMBEDDED", 64)
    axes = draw_figure(content_of(scene()), raster=False).axes[0]
    assert axes.get_label() == "whole image"
    assert axes.images[0].get_array().shape[:2] == (48, 64)
    assert axes.get_xlim() == (0, 128)  # marks are in HR pixels still


def test_pdf_embeds_truetype_and_no_interpolation(tmp_path) -> None:
    save_figure(tmp_path / "f.pdf", scene(), FigureOptions(crops=(Crop(16, 24, 32),)))
    content = (tmp_path / "f.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/CIDFontType2" in content or b"/TrueType" in content
    assert b"/Type3" not in content
    assert b"/Interpolate true" not in content
    assert b"/FontFile2" in content
    sizes = re.findall(rb"/Width (\d+)", content)
    assert b"128" in sizes  # the whole image with its own pixels
    assert sum(int(size) % 32 == 0 and int(size) > 128 for size in sizes) >= 6


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_figure_is_the_same_file(tmp_path, kind) -> None:
    look = replace(PLAIN, panels=("delta", "difference"), small_print=True)
    for name in ("a", "b"):
        save_figure(tmp_path / f"{name}.{kind}", scene(), look)
    written = (tmp_path / f"a.{kind}").read_bytes()
    assert written == (tmp_path / f"b.{kind}").read_bytes()
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert written.startswith(starts[kind])
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{kind}", f"b.{kind}"]


def test_settings_of_the_user_neither_matter_nor_change(tmp_path) -> None:
    save_figure(tmp_path / "a.png", scene(), PLAIN)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "figure.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        save_figure(tmp_path / "b.png", scene(), PLAIN)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_names_with_dollar_signs_and_missing_glyphs(tmp_path) -> None:
    whole = replace(scene(), name="$\\frac{1}{2} 細胞 <a&b>", notes=("costs $5 or $6",))
    for kind in ("png", "pdf", "svg"):
        save_figure(tmp_path / f"f.{kind}", whole, replace(PLAIN, small_print=True))
    text = (tmp_path / "f.svg").read_text("utf-8")
    assert "$\\frac{1}{2} 細胞 &lt;a&amp;b&gt;" in text


def test_labels_and_panels_in_the_order_asked_for(tmp_path) -> None:
    look = FigureOptions(
        panels=("HR", "delta", "LR"), labels={"delta": "ours"}, small_print=False, font_size=6
    )
    content = save_figure(tmp_path / "f.svg", scene(), look)
    assert list(content.images) == ["HR", "delta", "LR"]
    text = (tmp_path / "f.svg").read_text("utf-8")
    places = [text.index(f">{name}</text>") for name in ("HR", "ours", "LR (nearest)")]
    assert places == sorted(places)
    assert "PSNR (dB)" not in text
    assert ">delta<" not in text


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"panels": ("HR", "best")}, "expected panels among LR, .*'best'"),
        ({"panels": ()}, "expected panels, each once"),
        ({"panels": ("HR", "HR")}, "expected panels, each once, got 'HR,HR'"),
        ({"labels": {"ours": "x"}}, "expected panels among LR, .*'ours'"),
        ({"arrangement": "right"}, "expected an arrangement of auto, left, above, columns"),
        ({"contrast": "more"}, "expected contrast one of auto, dtype"),
        ({"width": 0.5}, "expected width from 1 to 40, got 0.5"),
        ({"dpi": 10000}, "expected dpi from 30 to 2400, got 10000"),
        ({"font_size": float("nan")}, "expected font size from 3 to 40, got nan"),
    ],
)
def test_invalid_options(option, message) -> None:
    with pytest.raises(OptionError, match=message):
        FigureOptions(**option)


def test_figures_that_cannot_be_drawn(tmp_path) -> None:
    too_large = FigureOptions(width=40, dpi=2400)
    for look, says in (
        (FigureOptions(font="No Such Font"), "expected an installed font, got 'No Such Font'"),
        (FigureOptions(width=1.5, arrangement="left", crops=(Crop(0, 0, 20),) * 4),
         "room for 6 panels in a figure 1.5 inches wide"),
        (too_large, "expected a figure of at most 134217728 pixels"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=says):
            save_figure(tmp_path / "f.png", scene(), look)
    assert list(tmp_path.iterdir()) == []
    draw_figure(content_of(scene(8, 8), too_large), raster=False)


def test_nothing_is_overwritten_unasked(tmp_path) -> None:
    (tmp_path / "f.png").write_bytes(b"old")
    with pytest.raises(OptionError, match=r"f\.png exists: pass overwrite=True"):
        save_figure(tmp_path / "f.png", scene(), PLAIN)
    assert (tmp_path / "f.png").read_bytes() == b"old"
    save_figure(tmp_path / "f.png", scene(), PLAIN, overwrite=True)
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["f.png"]


@pytest.mark.parametrize("name", ["file/f.png", "x" * 300 + ".png", "f.xyz", "f"])
def test_a_figure_that_cannot_be_written(tmp_path, name) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileFormatError, match="can't be written"):
        save_figure(tmp_path / name, scene(), PLAIN)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_figure_on_a_full_disk(tmp_path, kind) -> None:
    path = tmp_path / f"f.{kind}"
    path.write_bytes(b"old")
    with files_of_at_most(4096), pytest.raises(FileFormatError, match="can't be written"):
        save_figure(path, scene(), PLAIN, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


# kinds of images


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.uint32, np.float32])
@pytest.mark.parametrize("colour", [True, False])
def test_kinds_of_pixels(dtype, colour) -> None:
    rng = np.random.default_rng(1)
    shape = (24, 32, 3) if colour else (24, 32)
    hr = rng.random(shape)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1
    hr = hr > 0.5 if dtype is bool else (hr * top).astype(dtype)
    content = content_of(Comparison(hr[::2, ::2], 2, hr, hr, hr))
    assert content.images["bicubic"].dtype == np.dtype(dtype)
    assert content.scores["baseline"].psnr == math.inf
    assert np.isfinite(content.scores["bicubic"].psnr)
    assert content.pixels("HR").std() > 10
    assert all(content.pixels(name).shape == (24, 32, 3) for name in PANELS)
    assert all(content.pixels(name).dtype == np.uint8 for name in PANELS)


def test_published_images(data, models, official) -> None:
    """Butterfly x4 with the official weights: figures of the tables, to two digits."""
    folder = data / "benchmark" / "Set5"
    lr = nc.read_image(folder / "LR_bicubic" / "X4" / "butterflyx4.png").pixels
    hr = nc.read_image(folder / "HR" / "butterfly.png").pixels
    result = nc.upscale(lr, models[4], axes="YXS")
    content = content_of(Comparison(lr, 4, result.baseline, hr=hr))
    numbers = {c.name: [n.text for n in c.numbers] for c in captions(content)}
    assert numbers["bicubic"] == ["22.10", "0.7375"]
    assert numbers["baseline"] == ["28.91", "0.9273"]
    of = {c.name: c.numbers[0].mark for c in captions(content) if c.numbers}
    assert (of["baseline"], of["bicubic"]) == ("best", "second")


def test_figures_from_a_thread(tmp_path) -> None:
    """No global state: nothing of pyplot, in any thread."""
    import sys

    before = "matplotlib.pyplot" in sys.modules
    thread = threading.Thread(target=save_figure, args=(tmp_path / "f.png", scene(), PLAIN))
    thread.start()
    thread.join()
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert ("matplotlib.pyplot" in sys.modules) == before
