"""Images against a reference: figures, defaults, tables, and how layers are matched."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image
from PIL import Image as PillowImage

from napari_cfsr import psnr, ssim, upscale
from napari_cfsr.core.image.resize import enlarge_in_dtype, imresize
from napari_cfsr.core.metrics.image_metrics import ssim_map
from napari_cfsr.core.metrics.masked import (
    QualityOptions,
    QualityScores,
    default_range,
    quality_map,
    quality_scores,
    same_units,
)
from napari_cfsr.core.metrics.table import (
    QualityRow,
    QualityTable,
    best_of,
    csv_path,
    short_names,
    shown,
    write_csv,
)
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.errors import CancelledError, FileFormatError, ImageError
from napari_cfsr.layers.alignment import Candidate, Match, match, reduction, to_world
from napari_cfsr.layers.image_input import layer_shape, read_layer
from napari_cfsr.layers.quality_input import QualityRequest
from napari_cfsr.layers.result_layers import result_layers
from napari_cfsr.workers.quality import map_layer, measure_layers
from tests.helpers.fakes import BoxModel
from tests.helpers.faults import run_python
from tests.helpers.peak_memory import PEAK
from tests.layers.test_image_input import awkward_layer, world_of

GRAY = QualityOptions("gray", 2, 255.0)


def noisy_pair(shape=(40, 50), sigma=9.0, seed=0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 255, shape).astype(np.uint8)
    image = np.clip(reference + rng.normal(0, sigma, shape), 0, 255).astype(np.uint8)
    return image, reference


@pytest.mark.parametrize("channel", ["Y", "RGB", "gray"])
def test_figures_are_those_of_psnr_and_ssim(channel) -> None:
    image, reference = noisy_pair((40, 50) if channel == "gray" else (40, 50, 3))
    figures = quality_scores(image, reference, QualityOptions(channel, 3, 255.0))
    assert figures.psnr == psnr(image, reference, 3, channel, 255.0)
    assert figures.ssim == ssim(image, reference, 3, channel, 255.0)
    assert figures.invalid == 0


def test_identical_images_are_infinitely_close() -> None:
    image, _ = noisy_pair()
    assert quality_scores(image, image, GRAY) == QualityScores(math.inf, 1.0)


@pytest.mark.parametrize("channel", ["Y", "RGB", "gray"])
def test_pixels_that_are_not_finite_are_left_out(channel) -> None:
    shape = (60, 50) if channel == "gray" else (60, 50, 3)
    image, reference = (x.astype(np.float32) / 255 for x in noisy_pair(shape))
    image[10, 20] = np.nan
    reference[40, 5] = np.inf
    image[0, 0] = np.nan  # in the border that is left out
    options = QualityOptions(channel, 2, 1.0)
    figures = quality_scores(image, reference, options)
    assert figures.invalid == 2
    # the finite pixels in a row of their own: PSNR does not ask where they are
    valid = np.isfinite(image[2:-2, 2:-2]) & np.isfinite(reference[2:-2, 2:-2])
    valid = valid.all(-1) if valid.ndim == 3 else valid
    pair = [x[2:-2, 2:-2][valid][None] for x in (image, reference)]
    assert figures.psnr == pytest.approx(psnr(*pair, 0, channel, 1.0), abs=1e-9)
    # windows around them hold 11 x 11 pixels each; those at the border are no whole ones
    similar = ssim_map(
        *(np.nan_to_num(x[2:-2, 2:-2], posinf=0) for x in (image, reference)), channel
    )
    use = np.zeros(similar.shape, bool)
    use[5:-5, 5:-5] = True
    use[3:14, 13:24] = False
    use[33:44, :9] = False
    assert figures.ssim == pytest.approx(similar[use].mean(dtype=float), abs=1e-7)


def test_images_without_finite_pixels_have_no_scores() -> None:
    nothing = np.full((20, 20), np.nan)
    figures = quality_scores(nothing, np.zeros((20, 20)), QualityOptions("gray", 0, 1.0))
    assert math.isnan(figures.psnr)
    assert math.isnan(figures.ssim)
    assert figures.invalid == 400


def test_maps_are_in_the_units_of_the_data_and_have_holes_where_nothing_is_known() -> None:
    image, reference = (x.astype(np.float32) for x in noisy_pair())
    error = quality_map(image, reference, "error", GRAY)
    np.testing.assert_allclose(error, np.abs(image - reference), atol=1e-4)
    similar = quality_map(image, reference, "SSIM", GRAY)
    np.testing.assert_array_equal(similar, ssim_map(image, reference, "gray", 255.0))
    image[20, 30] = np.nan
    error, holed = (quality_map(image, reference, kind, GRAY) for kind in ("error", "SSIM"))
    assert np.argwhere(np.isnan(error)).tolist() == [[20, 30]]
    assert np.isnan(holed).sum() == 121
    assert np.isnan(holed[15:26, 25:36]).all()
    far = ~np.isnan(holed)
    np.testing.assert_allclose(holed[far], similar[far], atol=1e-6)


def test_images_of_other_shapes_are_refused() -> None:
    with pytest.raises(ImageError, match=r"same shape, got \(4, 5\) and \(5, 5\)"):
        quality_scores(np.zeros((4, 5)), np.zeros((5, 5)), GRAY)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "value", "words"),
    [
        ("bool", 0, 1, 1, "bool"),
        ("uint8", 3, 7, 255, "all of uint8"),
        ("uint16", 0, 200, 255, "8 bits: its greatest value is 200 in uint16"),
        ("uint16", 90, 1023, 1023, "10 bits: its greatest value is 1023 in uint16"),
        ("uint16", 0, 3712, 4095, "12 bits: its greatest value is 3712 in uint16"),
        (">u2", 0, 4096, 16383, "14 bits: its greatest value is 4096 in >u2"),
        ("uint16", 0, 65535, 65535, "16 bits: its greatest value is 65535 in uint16"),
        ("int32", 5, 70000, 69995, "greatest less least value: int32, 5 to 70000"),
        ("int16", -5, 300, 305, "greatest less least value: int16, -5 to 300"),
        ("float32", 0.2, 0.7, 1, "float32 within [0, 1]"),
        ("float64", -0.0004, 1.0004, 1, "float64 within [0, 1]"),
        ("float32", -1.5, 2.5, 4, "greatest less least value: float32, -1.5 to 2.5"),
    ],
)
def test_the_default_range_suits_the_image(dtype, low, high, value, words) -> None:
    assert default_range(np.dtype(dtype), low, high) == (pytest.approx(value), words)


def test_a_constant_image_has_no_default_range() -> None:
    with pytest.raises(ImageError, match="more than one value, got 7 everywhere: give the data"):
        default_range(np.dtype("float32"), 7, 7)


def test_images_in_other_units_are_noticed() -> None:
    image, reference = noisy_pair()
    assert same_units(image, reference)
    assert same_units(image.astype(np.float32), reference)
    assert not same_units(image / 255.0, reference)
    assert same_units(np.zeros((9, 9), np.float32), reference)  # nothing to tell it from


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "bool", "uint64"])
def test_bicubic_keeps_the_dtype_and_rounds(dtype) -> None:
    lr = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 250, (8, 9)).astype(dtype)
    large = enlarge_in_dtype(lr, 3)
    assert (large.shape, large.dtype) == ((24, 27), lr.dtype)
    expected = imresize(lr.astype(float), 3)
    if dtype == "float32":
        np.testing.assert_allclose(large, expected, rtol=1e-5)
    elif dtype == "uint8":
        np.testing.assert_array_equal(large, imresize(lr, 3))
    elif dtype == "bool":
        np.testing.assert_array_equal(large, expected >= 0.5)
    else:
        low = 0 if dtype.startswith("u") else -(2**15)
        assert np.abs(large.astype(float) - np.clip(expected, low, None)).max() <= 0.5001


# tables


def table(rows=None, slices=("",), **changes) -> QualityTable:
    rows = rows or (
        QualityRow("cells bicubic", (QualityScores(27.84, 0.71),)),
        QualityRow("cells, x2 baseline", (QualityScores(22.59, 0.5),)),
        QualityRow("cells x2 delta", (QualityScores(30.4, 0.81, 3),)),
    )
    options = QualityOptions("gray", 2, 4095.0)
    made = QualityTable("cells HR", "whole image", options, "12 bits", tuple(slices), tuple(rows))
    return replace(made, **changes)


def test_gains_are_over_the_chosen_row() -> None:
    lines = table().lines(over=1)
    np.testing.assert_allclose([line.values["psnr_gain"] for line in lines], [5.25, 0, 7.81])
    np.testing.assert_allclose([line.values["ssim_gain"] for line in lines], [0.21, 0, 0.31])
    assert all(math.isnan(line.values["psnr_gain"]) for line in table().lines())


def test_the_best_of_each_column_is_marked() -> None:
    lines = table().lines(over=0)
    assert [set(line.best) for line in lines] == [
        set(), set(), {"psnr", "ssim", "psnr_gain", "ssim_gain"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([30.0001, 30.0004, 29.0], {0, 1}),  # the same as far as is shown
        ([1.0, 1.0], set()),
        ([5.0], set()),
        ([math.nan, 2.0, 1.0], {1}),
        ([math.inf, 40.0], {0}),
        ([math.nan, math.nan], set()),
    ],
)
def test_best_of(values, best) -> None:
    assert best_of(values, 3) == best


def test_infinite_values_and_their_gains() -> None:
    same = QualityRow("same", (QualityScores(math.inf, 1.0),))
    other = QualityRow("other", (QualityScores(30.0, 0.9),))
    lines = table((same, other)).lines(over=0)
    assert [line.values["psnr_gain"] for line in lines] == [0.0, -math.inf]
    assert [shown(line.values["psnr"], "psnr") for line in lines] == ["∞", "30.000"]
    assert [shown(line.values["psnr_gain"], "psnr_gain") for line in lines] == ["+0.000", "-∞"]
    assert shown(math.inf, "psnr_gain") == "+∞"
    assert shown(-0.0001, "psnr_gain") == "+0.000"
    assert shown(math.nan, "ssim") == "–"  # noqa: RUF001 - a dash
    assert "same\tinf\t1.0000" in table((same, other)).text(lines)


def stack() -> QualityTable:
    rows = (
        QualityRow("a", (QualityScores(30.0, 0.9), QualityScores(32.0, 0.8))),
        QualityRow("b", (QualityScores(31.0, 0.7), QualityScores(math.nan, math.nan, 9))),
        QualityRow("c", (), "it has another shape"),
    )
    return table(rows, ("Z=0", "Z=1"))


def test_means_of_slices_and_every_slice() -> None:
    mean = stack().lines(over=0)
    assert [(x.name, x.slice_name, x.values["psnr"]) for x in mean[:2]] == [
        ("a", "mean", 31.0), ("b", "mean", 31.0),
    ]  # fmt: skip
    assert math.isnan(mean[2].values["psnr"])
    every = stack().lines(over=0, every_slice=True)
    assert [(x.name, x.slice_name) for x in every] == [
        ("a", "Z=0"), ("b", "Z=0"), ("c", "Z=0"), ("a", "Z=1"), ("b", "Z=1"), ("c", "Z=1"),
    ]  # fmt: skip
    assert every[1].values["psnr_gain"] == 1.0
    assert every[1].best == {"psnr", "psnr_gain"}  # among those of the same slice
    assert every[0].best == {"ssim", "ssim_gain"}
    assert "mean of 2 slices" in stack().describe


def test_csv_holds_everything_and_can_be_read_again() -> None:
    rows = list(csv.DictReader(io.StringIO(table().csv(over=1))))
    assert [row["layer"] for row in rows] == [r.name for r in table().rows]
    assert [float(row["psnr_db"]) for row in rows] == [27.84, 22.59, 30.4]
    assert rows[2]["psnr_gain_db"] == "7.810000"
    assert {row["gain_over"] for row in rows} == {"cells, x2 baseline"}
    assert (rows[0]["reference"], rows[0]["part"]) == ("cells HR", "whole image")
    assert (rows[0]["channel"], rows[0]["shave"], rows[0]["data_range"]) == ("gray", "2", "4095")
    assert [row["invalid_pixels"] for row in rows] == ["0", "0", "3"]
    rows = list(csv.DictReader(io.StringIO(stack().csv())))
    assert [row["slice"] for row in rows] == ["mean"] * 3 + ["Z=0"] * 3 + ["Z=1"] * 3
    assert (rows[2]["psnr_db"], rows[2]["fault"]) == ("", "it has another shape")
    assert rows[7]["invalid_pixels"] == "9"


def test_text_is_for_a_spreadsheet() -> None:
    scores = {"a\tb": QualityScores(30.0, 0.9), "c": QualityScores(31.0, 0.8)}
    made = table([QualityRow(name, (score,)) for name, score in scores.items()])
    assert made.text(made.lines(over=0)).splitlines() == [
        "layer\tPSNR (dB)\tSSIM\tgain (dB)\tgain (SSIM)",
        "a b\t30.000\t0.9000\t0.000\t0.0000",
        "c\t31.000\t0.8000\t1.000\t-0.1000",
    ]
    assert stack().text(stack().lines()).startswith("layer\tslice\tPSNR (dB)")


def test_names_lose_the_words_they_share() -> None:
    names = ["cat LR bicubic x4", "cat LR x4 baseline", "cat LR x4 delta"]
    assert short_names(names) == ["…bicubic x4", "…x4 baseline", "…x4 delta"]
    assert short_names(["one name"]) == ["one name"]
    assert short_names(["cat", "cat x4"]) == ["cat", "cat x4"]
    assert short_names(["a b", "a b [1]"]) == ["…b", "…b [1]"]


def test_a_csv_file_is_never_replaced_unasked(tmp_path) -> None:
    path = csv_path(tmp_path / "new")
    assert path == tmp_path / "new.csv"
    assert write_csv(path, "one\n", overwrite=False).read_text() == "one\n"
    with pytest.raises(FileFormatError, match=r"new\.csv, which exists: choose another"):
        write_csv(path, "two\n", overwrite=False)
    assert path.read_text() == "one\n"
    write_csv(path, "two\n", overwrite=True)
    assert path.read_text() == "two\n"
    with pytest.raises(FileFormatError, match="can't be written"):
        write_csv(tmp_path / "nowhere" / "x.csv", "x", overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["new.csv"]


# matching


def result_of(layer: Image, scale: int, region=None) -> Image:
    """What Upscale adds for a layer; also the size and place of its reference."""
    source = read_layer(layer, region)
    result = upscale(source.data, BoxModel(scale), axes=source.axes, rgb=False, region=source.part)
    (spec,) = result_layers(result, source, None, (0, 0))
    return Image(spec.data, **{k: v for k, v in spec.arguments.items() if k != "visible"})


def found_in(reference: Image, image: Image, **how) -> Match:
    return match(read_layer(reference), Candidate(read_layer(image), **how))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_results_lie_on_their_reference(scale) -> None:
    lr = awkward_layer()
    hr, sr = result_of(lr, scale), result_of(lr, scale)
    found = found_in(hr, sr)
    assert found.offset == (0, 0, 0, 0)
    assert (found.note, found.warning) == ("", "")
    enlarged = Candidate(read_layer(lr), scale)
    assert enlarged.shape == layer_shape(hr)
    np.testing.assert_allclose(enlarged.to_world(), to_world(read_layer(hr)), atol=1e-9)
    assert reduction(read_layer(hr), read_layer(lr)) == scale
    assert reduction(read_layer(lr), read_layer(hr)) is None


def test_results_of_regions_are_found_in_the_reference() -> None:
    lr = awkward_layer()
    hr = result_of(lr, 2)
    region = (slice(1, 2), slice(0, 4), slice(3, 15), slice(5, 27))
    sr = result_of(lr, 2, region)
    found = found_in(hr, sr)
    assert found.offset == (1, 0, 6, 10)
    assert found.covered == (slice(1, 2), slice(0, 4), slice(6, 30), slice(10, 54))
    assert found.warning == ""
    assert found.note == (
        f"'{sr.name}' covers T 1 to 1, Y 6 to 29, X 10 to 53 of the reference "
        "(1x4x24x44 against 3x4x40x60 pixels)"
    )
    corner = world_of(sr, (0, 0, 0, 0))
    np.testing.assert_allclose(corner, world_of(hr, (1, 0, 6, 10)), atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"scale": (0.5, 0.5)}, "its pixels are 0.5 those of the reference"),
        ({"translate": (0, 3)}, "it is shifted by 0 x 3 pixels"),
        ({"translate": (0.25, 0)}, "it is shifted by 0.25 x 0 pixels, not by whole ones"),
        ({"rotate": 10}, "it is rotated or sheared against the reference"),
        ({"translate": (1e-4, 0)}, ""),
    ],
)
def test_equal_sizes_elsewhere_are_compared_pixel_by_pixel_with_a_warning(changes, how) -> None:
    a = Image(np.zeros((20, 30)), name="a")
    found = found_in(a, Image(np.zeros((20, 30)), name="b", **changes))
    assert found.covered == (slice(0, 20), slice(0, 30))
    words = f"'b' and 'a' have different transforms ({how}): compared pixel by pixel, as if they "
    assert found.warning == (how and f"{words}were aligned")


def test_a_reference_at_its_original_size_is_cropped_with_a_note() -> None:
    hr, sr = Image(np.zeros((23, 30)), name="hr"), Image(np.zeros((20, 28)), name="sr")
    found = found_in(hr, sr)
    assert found.covered == (slice(0, 20), slice(0, 28))
    cropped = "'sr': reference cropped from 23x30 to 20x28 (bottom and right)"
    assert (found.note, found.warning) == (cropped, "")
    sr.scale = (0.25, 0.25)  # as results have it whose reference was not given its pixel size
    found = found_in(hr, sr)
    assert found.note == cropped
    assert "'sr' and 'hr' have different transforms" in found.warning


def test_a_result_at_the_origin_is_known_to_lie_there() -> None:
    hr, sr = Image(np.zeros((40, 30)), name="hr"), Image(np.zeros((20, 28)), name="sr")
    found = found_in(hr, sr, placed=True)
    assert (found.offset, found.covered) == ((0, 0), (slice(0, 20), slice(0, 28)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"scale": (0.25, 0.25)}, "its pixels are 0.25 those of the reference"),
        ({"translate": (0.5, 1)}, "it is shifted by 0.5 x 1 pixels, not by whole ones"),
        ({"rotate": 90}, "it is rotated or sheared against the reference"),
        ({"translate": (99, 0)}, "they do not overlap in the world"),
        ({}, "neither has a transform, so it is unknown which part of the reference it shows"),
    ],
)
def test_other_sizes_off_the_grid_are_refused_with_both_shapes(changes, why) -> None:
    hr, sr = Image(np.zeros((40, 30)), name="hr"), Image(np.zeros((20, 28)), name="sr", **changes)
    with pytest.raises(ImageError) as caught:
        found_in(hr, sr)
    assert str(caught.value) == (
        f"'sr' is 20x28 but the reference 'hr' is 40x30, and {why}: choose layers of the same size "
        "or on the same pixel grid"
    )


def test_colour_is_not_compared_with_gray() -> None:
    hr, sr = Image(np.zeros((20, 30, 3)), name="hr", rgb=True), Image(np.zeros((20, 30)), name="sr")
    with pytest.raises(ImageError, match=r"'hr' in colour, shape \(20, 30, 3\), and 'sr' in gray"):
        found_in(hr, sr)
    turned = Image(np.zeros((20, 30)), name="turned", axis_labels=("x", "y"))
    with pytest.raises(ImageError, match="got YX in 'sr' and XY in 'turned'"):
        found_in(sr, turned)


def test_reductions_are_known_by_the_world_or_by_their_size() -> None:
    hr = read_layer(Image(np.zeros((43, 61))))
    for shape, scale, expected in (
        ((20, 30), (2, 2), 2), ((10, 15), (4, 4), 4), ((10, 15), (1, 1), 4), ((14, 20), (1, 1), 3),
        ((10, 30), (1, 1), None), ((43, 61), (1, 1), None), ((4, 6), (10, 10), None),
    ):  # fmt: skip
        assert reduction(hr, read_layer(Image(np.zeros(shape), scale=scale))) == expected
    assert reduction(hr, read_layer(Image(np.zeros((20, 30, 3)), scale=(2, 2), rgb=True))) is None


def request(reference: Image, *images: Image | Candidate, **changes) -> QualityRequest:
    candidates = tuple(x if isinstance(x, Candidate) else Candidate(read_layer(x)) for x in images)
    region = tuple(slice(0, n) for n in layer_shape(reference))
    source = read_layer(reference)
    made = QualityRequest(source, region, "whole image", candidates, "gray", 2, 255.0)
    return replace(made, **changes)


def measured(reference: Image, *images: Image | Candidate, **changes) -> QualityTable:
    return exhaust(measure_layers(request(reference, *images, **changes))).table


def pair(image: np.ndarray, reference: np.ndarray, **arguments) -> tuple[Image, Image]:
    return Image(reference, name="hr", **arguments), Image(image, name="sr", **arguments)


def test_stacks_are_measured_slice_by_slice_whatever_the_order_of_their_axes() -> None:
    image, reference = noisy_pair((2, 3, 40, 50))
    figures = [
        QualityScores(psnr(a, b, 2, "gray", 255.0), ssim(a, b, 2, "gray", 255.0))
        for a, b in zip(image.reshape(-1, 40, 50), reference.reshape(-1, 40, 50), strict=True)
    ]
    labels = ("t", "c", "y", "x")
    for order in ((0, 1, 2, 3), (2, 0, 3, 1), (0, 3, 2, 1)):
        layers = [
            Image(
                da.from_array(x.transpose(order), chunks=7),
                rgb=False,
                axis_labels=[labels[i] for i in order],
            )
            for x in (reference, image)
        ]
        result = exhaust(measure_layers(request(*layers)))
        assert result.table.slice_names == ("T=0, C=0", "T=0, C=1", "T=0, C=2", "T=1, C=0",
                                            "T=1, C=1", "T=1, C=2")  # fmt: skip
        measured = result.table.rows[0].figures
        for name in ("psnr", "ssim"):  # sums in another order of memory differ in the last digit
            expected = [getattr(f, name) for f in figures]
            assert [getattr(f, name) for f in measured] == pytest.approx(expected, rel=1e-12)
        spec = exhaust(map_layer(request(*layers), "error"))
        expected = np.abs(image.astype(int) - reference).transpose(order)
        np.testing.assert_allclose(spec.data, expected, atol=1e-4)


def test_a_region_of_the_reference_is_measured_in_all_that_cover_it() -> None:
    image, reference = noisy_pair((60, 70))
    hr, sr = pair(image, reference)
    part = Image(image[10:50, 20:70], name="part", translate=(10, 20))
    asked = request(hr, sr, part, region=(slice(5, 45), slice(0, 60)))
    result = exhaust(measure_layers(asked))
    box = (slice(10, 45), slice(20, 60))
    assert result.region == box
    expected = QualityScores(
        psnr(image[box], reference[box], 2, "gray", 255.0),
        ssim(image[box], reference[box], 2, "gray", 255.0),
    )
    assert [row.figures for row in result.table.rows] == [(expected,)] * 2
    assert result.table.notes[-1] == "all were measured in the part that every one of them covers"
    elsewhere = Image(image[50:, :20], name="elsewhere", translate=(50, 0))
    with pytest.raises(ImageError, match="a common part of the reference, got none: measure"):
        measured(hr, part, elsewhere)
    with pytest.raises(ImageError, match="'elsewhere' to cover whole image of 'hr', got none"):
        measured(hr, elsewhere, region=(slice(0, 9), slice(0, 9)))


def test_a_layer_that_does_not_fit_is_named_and_the_others_are_measured() -> None:
    image, reference = noisy_pair()
    hr, sr = pair(image, reference)
    wrong = Image(image[::2], name="wrong")
    done = measured(hr, wrong, sr)
    assert "but the reference 'hr' is" in done.rows[0].fault
    assert "'wrong' is 20x50 but the reference 'hr' is 40x50" in done.warnings[0]
    assert done.rows[1].figures[0].psnr == psnr(image, reference, 2, "gray", 255.0)
    with pytest.raises(ImageError, match="is 20x50 but the reference 'hr' is 40x50"):
        measured(hr, wrong)


def test_a_plane_against_a_stack_needs_the_current_slice() -> None:
    image, reference = noisy_pair((3, 40, 50))
    hr, sr = pair(image[1], reference)
    with pytest.raises(ImageError, match="measure the current slice"):
        measured(hr, sr)
    here = (slice(1, 2), slice(0, 40), slice(0, 50))
    done = measured(hr, sr, region=here)
    assert done.rows[0].figures[0].psnr == psnr(image[1], reference[1], 2, "gray", 255.0)
    assert done.slice_names == ("Z=1",)
    with pytest.raises(
        ImageError, match=r"is 3x40x50 but the reference '.*' is 40x50, and it has more axes"
    ):
        measured(sr, hr)


def test_the_range_is_that_of_whole_planes_and_is_reported() -> None:
    image, reference = (x.astype(np.uint16) * 14 for x in noisy_pair((2, 40, 50)))
    reference[:] = np.minimum(reference, 900)
    reference[1, 0, 0] = 3500
    layers = pair(image, reference)
    inside = (slice(0, 2), slice(10, 40), slice(10, 40))
    done = measured(*layers, region=inside, data_range=None)
    assert done.options.data_range == 4095
    assert "data range 4095 (12 bits: its greatest value is 3500 in uint16)" in done.describe
    one = (slice(0, 1), *inside[1:])
    done = measured(*layers, region=one, data_range=None)
    assert done.options.data_range == 1023
    layer = Image(np.full((20, 20), np.nan, np.float32), name="nothing")
    with pytest.raises(ImageError, match="finite pixels in 'nothing', got none"):
        measured(layer, layer, data_range=None)


def test_oddities_are_reported() -> None:
    image, reference = noisy_pair((40, 50, 4))
    hr, sr = pair(image, reference, rgb=True)
    done = measured(hr, sr, channel="RGB")
    assert done.notes == ("alpha was left out",)
    expected = psnr(image[..., :3], reference[..., :3], 2, "RGB", 255.0)
    assert done.rows[0].figures[0].psnr == expected
    real = image[..., 0] / np.float32(255)
    real[3, 4] = np.nan
    done = measured(*pair(real, reference[..., 0]))
    assert done.notes == (
        "'sr': 1 pixels are NaN or infinite, in it or in the reference; they and the SSIM windows "
        "that contain them were left out",
    )
    (warning,) = done.warnings
    assert warning.startswith("'sr' (float32, 0 to 1) and 'hr' (uint8, 0 to 254)")
    assert "do not seem to be in the same units" in warning


def test_maps_lie_exactly_over_the_region_of_an_awkward_reference() -> None:
    lr = awkward_layer()
    hr, sr = result_of(lr, 2), result_of(lr, 2)
    region = (slice(1, 3), slice(0, 4), slice(7, 29), slice(11, 58))
    asked = request(hr, sr, region=region, data_range=None)
    for kind, limits in (("error", (0.0, 1.0)), ("SSIM", (0.0, 1.0))):
        spec = exhaust(map_layer(asked, kind))
        layer = Image(spec.data, **spec.arguments)
        assert layer.data.shape == (2, 4, 22, 47)
        for point in ((0, 0, 0, 0), (1, 3, 21, 46)):
            there = np.add(point, (1, 0, 7, 11))
            np.testing.assert_allclose(world_of(layer, point), world_of(hr, there), atol=1e-6)
        assert [str(u) for u in layer.units] == [str(u) for u in hr.units]
        assert tuple(layer.contrast_limits) == limits
        assert layer.metadata["napari_cfsr"]["of"] == sr.name


def test_the_error_map_is_shown_up_to_a_robust_maximum() -> None:
    image, reference = noisy_pair((200, 200), sigma=3)
    image[5, 5], reference[5, 5] = 255, 0  # one hot pixel
    spec = exhaust(map_layer(request(Image(reference), Image(image)), "error"))
    low, high = spec.arguments["contrast_limits"]
    assert low == 0
    assert high == pytest.approx(np.percentile(np.abs(image.astype(int) - reference), 99.9))
    assert high < 20


def test_bicubic_is_made_of_the_lr_layer(data) -> None:
    hr = np.asarray(PillowImage.open(data / "benchmark/Set5/HR/bird.png"))
    lr = np.asarray(PillowImage.open(data / "benchmark/Set5/LR_bicubic/X4/birdx4.png"))
    layers = Image(hr, name="hr", rgb=True), Image(lr, name="lr", rgb=True)
    source = read_layer(layers[1])
    assert reduction(read_layer(layers[0]), source) == 4
    asked = request(layers[0], Candidate(source, 4), channel="Y", shave=4)
    done = exhaust(measure_layers(asked)).table
    assert done.rows[0].name == "lr bicubic x4"
    expected = psnr(imresize(lr, 4) / 255, hr / 255, 4, "Y")
    assert done.rows[0].figures[0].psnr == pytest.approx(expected, abs=1e-9)
    part = replace(asked, region=(slice(30, 130), slice(41, 203)))
    done = exhaust(measure_layers(part)).table
    expected = psnr(imresize(lr, 4)[30:130, 41:203], hr[30:130, 41:203], 4, "Y", 255)
    assert done.rows[0].figures[0].psnr == pytest.approx(expected, abs=1e-9)


def test_a_run_stops_within_a_plane() -> None:
    image, reference = noisy_pair((1500, 1500))
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) > 3:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        exhaust(measure_layers(request(Image(reference), Image(image)), check))


PROGRAM = """
import json
import numpy as np
from napari.layers import Image
from napari_cfsr.layers.image_input import read_layer
from napari_cfsr.layers.quality_input import QualityRequest
from napari_cfsr.layers.alignment import Candidate
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.workers.quality import map_layer
rng = np.random.default_rng(0)
a, b = (Image(rng.integers(0, 255, (4096, 4096, 3), np.uint8), name=n) for n in "ab")
region = (slice(0, 4096), slice(0, 4096))
request = QualityRequest(
    read_layer(a), region, "whole image", (Candidate(read_layer(b)),), "RGB", 0, 255.0
)
assert exhaust(map_layer(request, "SSIM")).data.shape == (4096, 4096)
PEAK
print(json.dumps(peak))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_an_ssim_map_of_4096x4096_colour_takes_less_than_2_gb() -> None:
    assert json.loads(run_python(PROGRAM.replace("PEAK", PEAK))) < 2e9
