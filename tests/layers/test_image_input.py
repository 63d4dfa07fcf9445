"""Layers: snapshots, regions, and where results lie in the world."""

from __future__ import annotations

import tracemalloc

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes

from napari_cfsr import upscale
from napari_cfsr.errors import ImageError
from napari_cfsr.layers.image_input import (
    layer_axes,
    layer_to_world,
    level_zero,
    output_placement,
    read_layer,
)
from napari_cfsr.layers.regions import box_region, current_slices, visible_region
from napari_cfsr.layers.result_layers import (
    DIFFERENCE_COLORMAP,
    extremes,
    pyramid,
    result_layers,
    shown_difference,
)
from tests.helpers.fakes import BoxModel

ANGLE = np.deg2rad(30)


def world_of(layer, point) -> np.ndarray:
    """World coordinates of a data point, from napari's own composed transform."""
    return np.asarray(layer._data_to_world(np.asarray(point, float)))


def awkward_layer(shape=(3, 4, 20, 30), rgb=False) -> Image:
    """Scaled, rotated, sheared, translated, with an affine, units and labels."""
    n = len(shape) - rgb
    rotate, affine = np.eye(n), np.eye(n + 1)
    rotate[-2:, -2:] = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]
    affine[-3:-1, -3:-1] = [[0.9, 0.2], [-0.1, 1.1]]
    affine[:-1, -1] = np.arange(n) + 0.5
    shear = np.zeros(n * (n - 1) // 2)
    shear[-1] = 0.3
    return Image(
        np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16),
        rgb=rgb,
        name="awkward",
        scale=[2.0, 1.5, 0.25, 0.5][-n:],
        translate=[1.0, -7.0, 11.0, 13.0][-n:],
        rotate=rotate,
        shear=shear,
        affine=affine,
        units=["second", "micrometer", "micrometer", "micrometer"][-n:],
        axis_labels=["t", "z", "y", "x"][-n:],
    )


def upscaled(layer, region=None, scale=2, refiner=True) -> list[Image]:
    """The layers that a run on `layer` would add."""
    source = read_layer(layer, region)
    model = BoxModel(scale, refiner)
    result = upscale(source.data, model, axes=source.axes, rgb=False, region=source.part)
    difference = shown_difference(result)
    limits = extremes(difference) if difference is not None else (0.0, 0.0)
    return [Image(s.data, **s.arguments) for s in result_layers(result, source, difference, limits)]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30), (3, 4, 20, 30)])
def test_landmarks_keep_their_world_coordinates(scale, shape) -> None:
    layer = awkward_layer(shape)
    rng = np.random.default_rng(1)
    for out in upscaled(layer, scale=scale):
        assert out.data.shape[-2:] == (shape[-2] * scale, shape[-1] * scale)
        outermost = [np.zeros(layer.ndim) - 0.5, np.subtract(shape, 0.5)]
        for point in [*outermost, *rng.random((18, layer.ndim)) * shape]:
            there = point.copy()
            there[-2:] = (point[-2:] + 0.5) * scale - 0.5
            np.testing.assert_allclose(world_of(out, there), world_of(layer, point), atol=1e-6)


def test_landmarks_of_a_crop_keep_their_world_coordinates() -> None:
    layer = awkward_layer()
    region = (slice(1, 2), slice(2, 4), slice(5, 17), slice(9, 30))
    (out, *_) = upscaled(layer, region, scale=3)
    point = np.array([1.0, 3.0, 8.25, 21.5])
    there = point - [s.start for s in region]
    there[-2:] = (there[-2:] + 0.5) * 3 - 0.5
    np.testing.assert_allclose(world_of(out, there), world_of(layer, point), atol=1e-6)


def test_colour_layers_are_placed_correctly() -> None:
    layer = awkward_layer((20, 30, 3), rgb=True)
    outs = upscaled(layer, scale=2)
    assert [o.rgb for o in outs] == [True, True, False]
    for out in outs:
        np.testing.assert_allclose(
            world_of(out, [9.5, 20.5]), world_of(layer, [4.5, 10.0]), atol=1e-6
        )


def test_own_transform_is_that_of_napari() -> None:
    layer = awkward_layer()
    point = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(layer_to_world(layer)(point), world_of(layer, point), atol=1e-12)


def test_the_look_is_kept() -> None:
    layer = awkward_layer()
    layer.colormap, layer.gamma, layer.contrast_limits = "magenta", 0.7, (100, 3000)
    layer.blending, layer.opacity, layer.interpolation2d = "additive", 0.6, "linear"
    baseline, delta, difference = upscaled(layer)
    for out in (baseline, delta):
        assert out.colormap.name == "magenta"
        assert (out.gamma, out.contrast_limits) == (0.7, [100, 3000])
    for out in (baseline, delta, difference):
        assert (out.blending, out.opacity, out.interpolation2d) == ("additive", 0.6, "linear")
        assert [str(u) for u in out.units] == ["second"] + ["micrometer"] * 3
        assert out.axis_labels == ("t", "z", "y", "x")
    assert [o.name for o in (baseline, delta, difference)] == [
        "awkward x2 baseline", "awkward x2 delta", "awkward x2 difference",
    ]  # fmt: skip


def test_difference_has_a_diverging_map_and_symmetric_limits() -> None:
    *_, difference = upscaled(awkward_layer())
    low, high = difference.contrast_limits
    assert low == -high < 0
    assert high == pytest.approx(np.abs(difference.data).max())
    colours = DIFFERENCE_COLORMAP.map(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(colours[1, :3], 0)  # nothing is black
    assert colours[0, 2] > 0.9 > colours[0, 0]
    assert colours[2, 0] > 0.9 > colours[2, 2]
    assert not difference.visible


def test_provenance_says_what_ran_and_how_to_run_it_again() -> None:
    record = upscaled(awkward_layer())[0].metadata["napari_cfsr"]
    assert (record["input"], record["scale"]) == ("awkward", 2)
    assert (record["engine"], record["device"], record["precision"]) == ("fake", "cpu", "float32")
    assert (record["backbone_sha256"], record["refiner_sha256"]) == ("0", "fake")
    assert (record["tile"], record["halo"], record["ensemble"]) == (256, 32, False)
    assert record["intensity"][0]["high"] == awkward_layer().data.max()
    assert {"python", "napari-cfsr", "torch", "numpy"} <= set(record["versions"])
    assert "image = viewer.layers['awkward'].data\n" in record["python"]
    assert "nc.upscale(image, model, axes='TZYX'" in record["python"]


@pytest.mark.parametrize(
    ("shape", "labels", "axes"),
    [
        ((9, 9), None, "YX"),
        ((3, 9, 9), None, "ZYX"),
        ((2, 3, 9, 9), None, "ZTYX"),
        ((2, 3, 9, 9), ("t", "c", "y", "x"), "TCYX"),
        ((2, 3, 9, 9), ("time", "channel", "a", "b"), "TCYX"),
        ((9, 9, 4), ("y", "x", "z"), "YXZ"),
        ((2, 2, 9, 9), ("z", "z", "y", "x"), "ZTYX"),
        ((3, 9, 9), ("x", "q", "r"), "ZYX"),
    ],
)
def test_axes_of_layers(shape, labels, axes) -> None:
    assert layer_axes(Image(np.zeros(shape), axis_labels=labels, rgb=False)) == axes


def test_multiscale_and_lazy_layers_are_taken_at_level_zero_and_stay_lazy() -> None:
    levels = [da.zeros((4096 >> i, 4096 >> i), chunks=512, dtype=np.uint8) for i in range(3)]
    layer = Image(levels, multiscale=True, contrast_limits=(0, 255))
    source = read_layer(layer, (slice(0, 100), slice(7, 2000)))
    assert isinstance(source.data, da.Array)
    assert source.data.shape == (4096, 4096)
    assert source.part == ((0, 100), (7, 2000))
    assert source.expression == f"viewer.layers[{layer.name!r}].data[0]"
    assert level_zero(layer).shape == (4096, 4096)


def test_visible_region_of_a_multiscale_layer_is_in_full_resolution() -> None:
    layer = Image([np.zeros((800, 800)), np.zeros((400, 400))], multiscale=True)
    layer._data_level, layer.corner_pixels = 1, np.array([[10, 20], [29, 49]])
    everything = ([-1e9, -1e9], [1e9, 1e9])
    assert visible_region(layer, [0, 1], everything) == (slice(20, 60), slice(40, 100))
    # what is loaded reaches further than the canvas, whose corners are world coordinates
    layer.scale = (0.5, 0.5)
    canvas = ([15.0, 0.0], [24.75, 100.0])
    assert visible_region(layer, [0, 1], canvas) == (slice(30, 50), slice(40, 100))


def test_box_of_a_shape_in_another_space() -> None:
    layer = Image(np.zeros((100, 100)), scale=(0.5, 0.5), translate=(10, 20))
    box = Shapes([np.array([[15, 25], [15, 30], [20, 30], [20, 25]])], name="roi")
    assert box_region(layer, box) == (slice(10, 21), slice(10, 21))
    turned = Image(np.zeros((100, 100)), rotate=90)
    (ys, xs) = box_region(turned, Shapes([[[-30.0, 20.0], [-20.0, 40.0]]], shape_type="line"))
    assert (ys, xs) == (slice(20, 41), slice(20, 31))


def test_only_the_selected_shape_counts() -> None:
    boxes = Shapes([[[0, 0], [5, 5]], [[50.0, 60.0], [70, 80]]], shape_type="line")
    boxes.selected_data = {1}
    assert box_region(Image(np.zeros((100, 100))), boxes) == (slice(50, 71), slice(60, 81))


def test_box_of_a_label_is_exact() -> None:
    layer = Image(np.zeros((4, 50, 50)))
    painted = np.zeros((50, 50), int)
    painted[10:20, 30:33] = 7
    labels = Labels(painted, name="cells")
    labels.selected_label = 7
    assert box_region(layer, labels) == (slice(0, 4), slice(10, 20), slice(30, 33))
    labels.selected_label = 8
    with pytest.raises(ImageError, match="expected pixels with label 8 in 'cells'"):
        box_region(layer, labels)


def test_impossible_boxes_are_refused() -> None:
    layer = Image(np.zeros((20, 20)), name="small")
    with pytest.raises(ImageError, match="to overlap 'small'"):
        box_region(layer, Shapes([np.array([[100, 100], [120, 120]])], shape_type="line"))
    with pytest.raises(ImageError, match="expected a shape in"):
        box_region(layer, Shapes(name="none"))
    with pytest.raises(ImageError, match="expected a shapes or labels layer"):
        box_region(layer, Points([[1, 1]]))


def test_current_slice_is_that_of_the_sliders() -> None:
    layer = awkward_layer()
    point = world_of(layer, [2, 1, 5, 5])
    region = current_slices(layer, None, point, [2, 3])
    assert region == (slice(2, 3), slice(1, 2), slice(0, 20), slice(0, 30))
    in_3d = current_slices(layer, None, point, [1, 2, 3])
    assert in_3d == (slice(2, 3), slice(0, 4), slice(0, 20), slice(0, 30))


def test_the_current_view_needs_a_2d_display() -> None:
    with pytest.raises(ImageError, match="switch to 2D"):
        visible_region(Image(np.zeros((4, 9, 9))), [0, 1, 2], ([0, 0], [9, 9]))


def test_a_label_in_a_large_stack_takes_little_time_and_memory() -> None:
    labels = Labels(np.zeros((20, 512, 512), np.uint8), name="cells")
    labels.data[3:17, 100:400, 200:300] = 1
    labels.selected_label = 1
    layer = Image(np.zeros((20, 512, 512), np.uint8))
    tracemalloc.start()
    region = box_region(layer, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert region == (slice(0, 20), slice(100, 400), slice(200, 300))
    assert peak < 3e6


def test_contrast_limits_of_colour_are_none() -> None:
    assert read_layer(awkward_layer((20, 30, 3), rgb=True)).contrast_limits is None
    assert read_layer(Image(np.eye(5), contrast_limits=(0.1, 0.7))).contrast_limits == (0.1, 0.7)


def test_results_beyond_one_texture_are_pyramids_of_views() -> None:
    data = np.zeros((2, 10, 20000), np.uint8)
    levels = pyramid(data, (1, 2))
    assert [x.shape for x in levels] == [
        (2, 10, 20000), (2, 5, 10000), (2, 3, 5000), (2, 2, 2500), (2, 1, 1250),
    ]  # fmt: skip
    assert all(np.shares_memory(x, data) for x in levels)
    assert pyramid(np.zeros((16384, 4)), (0, 1))[1:] == []
    (out, *_) = upscaled(Image(np.zeros((3, 5000), np.uint8)), scale=4, refiner=False)
    assert out.multiscale
    assert out.data[0].shape == (12, 20000)


def test_extremes_pass_over_nan() -> None:
    values = np.array([[np.nan, -3.0, 2.0], [np.inf, 1.0, 0.0]])
    assert extremes(values) == (-3.0, 2.0)
    assert extremes(np.full((2, 2), np.nan)) == (0.0, 0.0)
    assert extremes(np.zeros((0, 3))) == (0.0, 0.0)


def test_placement_does_not_change_other_axes() -> None:
    source = read_layer(Image(np.zeros((5, 8, 8)), scale=(3, 1, 1), translate=(9, 0, 0)))
    placement = output_placement(source, 4)
    np.testing.assert_allclose(placement["scale"], (3, 0.25, 0.25))
    np.testing.assert_allclose(placement["translate"], (9, -0.375, -0.375))
