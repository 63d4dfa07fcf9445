"""OME-Zarr: what is written, what is read, and what happens when a run is broken off."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import skimage.data
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from napari_cfsr import iter_upscale_to_zarr, open_image, upscale, upscale_to_zarr
from napari_cfsr.core.engine.model import load_model
from napari_cfsr.core.image.spacing import PixelSpace, pixel_space
from napari_cfsr.core.io import open_ome_zarr, store_status
from napari_cfsr.core.store.growing_store import JOURNAL
from napari_cfsr.core.store.layout import halved, plan_layout
from napari_cfsr.core.upscale import UpscaleOptions, plan_blocks
from napari_cfsr.errors import CancelledError, FileFormatError, ImageError, OptionError
from tests.helpers.fakes import BoxModel
from tests.helpers.faults import CancelAt, contents
from tests.helpers.strategies import dtypes, values

ROOT = Path(__file__).parents[3]


def small_run(image: np.ndarray, path: Path, model: BoxModel | None = None, **more: object):
    """A run over 12 blocks of one tile each, in two levels of a pyramid and three outputs."""
    model = model or BoxModel(2, refiner=True)
    options = UpscaleOptions(axes="YX", tile=32, halo=4)
    return iter_upscale_to_zarr(image, model, path, options, **more)


def begun(image: np.ndarray, path: Path, steps: int) -> None:
    """Such a run, broken off after so many steps."""
    run = small_run(image, path)
    for _ in range(steps):
        next(run, None)
    run.close()


@pytest.fixture
def one_tile_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one tile, and pyramids of small images."""
    monkeypatch.setattr("napari_cfsr.core.store.layout.SMALLEST_LEVEL", 128)
    monkeypatch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return values(np.dtype("uint16"), (88, 125), 0)


# what is written


@pytest.mark.parametrize(
    ("names", "shape", "stored"),
    [
        ("YX", (90, 130), "YX"),
        ("XY", (90, 130), "YX"),
        ("YXS", (90, 70, 3), "SYX"),
        ("SYX", (4, 90, 70), "SYX"),
        ("ZCYX", (3, 2, 40, 50), "CZYX"),
        ("CTYXZ", (2, 3, 40, 50, 4), "TCZYX"),
        ("ZYXS", (2, 40, 50, 2), "SZYX"),
        ("QYX", (3, 40, 50), "QYX"),
    ],
)
def test_any_axes_are_stored_in_the_order_of_the_standard(tmp_path, names, shape, stored) -> None:
    model = BoxModel(2, refiner=True)
    pixels = values(np.dtype("uint16"), shape, 0)
    expected = upscale(pixels, model, names, rgb=False, tile=32, halo=3)
    done = upscale_to_zarr(pixels, model, tmp_path / "a.zarr", names, rgb=False, tile=32, halo=3)
    assert list(done.images) == ["baseline", "delta", "difference"]
    for name, path in done.images.items():
        read = open_image(path)
        wanted = expected.arrays()[name]
        assert read.axes == stored
        assert read.pixels.dtype == wanted.dtype
        assert_array_equal(read.pixels[:], wanted.transpose([names.index(c) for c in stored]))
        array = zarr.open_array(path / "0", mode="r")
        assert array.metadata.dimension_names == tuple(stored.replace("S", "C").lower())
    assert done.result.mapping == expected.mapping


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "float16", "float64"])
def test_any_dtype_is_kept(tmp_path, dtype) -> None:
    pixels = values(np.dtype(dtype), (50, 60), 0)
    done = upscale_to_zarr(pixels, BoxModel(3), tmp_path / "a.zarr")
    assert done.images == {"baseline": tmp_path / "a.zarr"}
    assert_array_equal(
        open_image(tmp_path / "a.zarr").pixels[:], upscale(pixels, BoxModel(3)).baseline
    )


def test_a_real_network_gives_the_values_of_upscale(tmp_path) -> None:
    model = load_model(2, "bundled", refiner=None, device="cpu")
    pixels = skimage.data.chelsea()[100:140, 100:150]
    done = upscale_to_zarr(pixels, model, tmp_path / "a.zarr", tile=32)
    whole = upscale(pixels, model, tile=32).baseline
    assert_array_equal(np.moveaxis(open_image(done.path).pixels[:], 0, -1), whole)


@pytest.mark.usefixtures("one_tile_blocks")
def test_each_level_is_the_mean_of_the_last(tmp_path, image) -> None:
    list(small_run(image, tmp_path / "a.zarr"))
    for name in ("baseline", "difference"):
        read = open_image(tmp_path / "a.zarr" / name)
        assert [level.shape for level in read.levels] == [(176, 250), (88, 125)]
        above, below = (level[:] for level in read.levels)
        mean = above.reshape(88, 2, 125, 2).astype(float).mean((1, 3))
        np.testing.assert_allclose(below, mean, atol=0.51 if name == "baseline" else 1e-3)
    assert below.dtype == np.float32


@given(st.integers(1, 9), st.integers(1, 9), dtypes)
def test_means_of_odd_sizes_repeat_the_border(height, width, dtype) -> None:
    pixels = values(dtype, (2, height, width), 0)
    got = halved(pixels)
    assert got.dtype == dtype
    padded = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    mean = padded.astype(float).reshape(2, got.shape[1], 2, got.shape[2], 2).mean((2, 4))
    if dtype.kind == "b":
        assert_array_equal(got, mean >= 0.5)
    else:
        np.testing.assert_allclose(got, mean, rtol=1e-3, atol=0.51 if dtype.kind in "iu" else 1e-3)


def test_the_greatest_values_have_themselves_as_mean() -> None:
    for dtype in (np.uint8, np.uint32, np.int64, np.uint64):
        top = np.iinfo(dtype).max
        assert abs(int(halved(np.full((2, 2), top, dtype))[0, 0]) - top) <= top / 2**50


def test_transparent_pixels_lend_no_colour_to_the_mean() -> None:
    pixels = np.zeros((4, 2, 2), np.uint8)
    pixels[:3, 0, 0], pixels[3, 0, 0] = (200, 100, 50), 255
    assert halved(pixels, 0).ravel().tolist() == [200, 100, 50, 64]
    pixels[3] = 0
    assert halved(pixels, 0).ravel().tolist() == [50, 25, 12, 0]


def test_a_slide_of_65536_pixels_has_few_files_and_chunks_for_viewers() -> None:
    slide = da.zeros((16384, 16384, 3), dtype=np.uint8, chunks=1024)
    plan = plan_blocks(slide, BoxModel(4), UpscaleOptions())
    layout = plan_layout(plan)
    (shape, _) = plan.specs["baseline"]
    full = layout.level_shape(shape, 0)
    assert (full.shape, full.chunks, full.shards) == (
        (3, 65536, 65536), (3, 512, 512), (3, 4096, 4096),
    )  # fmt: skip
    assert layout.sizes[-1] == (1024, 1024)
    units = list(layout.shards())
    assert len(units) == 256 + 64 + 16 + 4 + 1 + 1 + 1
    # each after those it is made from
    place = {unit: i for i, unit in enumerate(units)}
    assert all(place[part] < i for unit, i in place.items() for part in layout.parts(unit))
    stack = da.zeros((500, 1024, 1024), dtype=np.uint16, chunks=512)
    plan = plan_blocks(stack, BoxModel(2), UpscaleOptions(axes="ZYX"))
    layout = plan_layout(plan)
    assert plan.sides == (4, 1024, 1024)
    assert layout.level_shape(plan.specs["baseline"][0], 0).chunks == (1, 512, 512)
    assert len(list(layout.shards())) == 125 * 2


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300), st.sampled_from([2, 3, 4]))
def test_shards_tile_every_level_of_any_image(height, width, tile, scale) -> None:
    plan = plan_blocks(
        da.zeros((height, width), dtype=np.uint8), BoxModel(scale), UpscaleOptions(tile=tile)
    )
    layout = plan_layout(plan)
    shape = plan.specs["baseline"][0]
    seen: dict[int, int] = {}
    for unit in layout.shards():
        form = layout.level_shape(shape, unit.level)
        ys, xs = layout.where(unit, form)
        assert 0 <= ys.start < ys.stop <= form.shape[0]
        seen[unit.level] = seen.get(unit.level, 0) + (ys.stop - ys.start) * (xs.stop - xs.start)
        for side, shard, chunk in zip((ys, xs), form.shards, form.chunks, strict=True):
            assert shard % chunk == 0
            assert side.start % shard == 0
            assert side.stop - side.start <= shard
        if unit.level == 0:
            index = layout.block(unit)
            assert plan.written(index, "baseline") == (ys, xs)
    assert seen == {i: h * w for i, (h, w) in enumerate(layout.sizes)}


# metadata


def test_landmarks_stay_where_they_are_at_every_level(tmp_path) -> None:
    space = pixel_space(
        "ZYX",
        {"Z": 2, "Y": 0.5, "X": 0.25},
        {"Z": 7, "Y": 100, "X": -3},
        dict.fromkeys("ZYX", "um"),
    )
    pixels = values(np.dtype("uint8"), (2, 600, 600), 0)
    upscale_to_zarr(
        pixels, BoxModel(4), tmp_path / "a.zarr", "ZYX", region=((20, 520), (30, 600)), space=space
    )
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (stored,) = group.attrs["ome"]["multiscales"]
    assert stored["axes"][1] == {"name": "y", "type": "space", "unit": "micrometer"}
    assert len(stored["datasets"]) == 3
    for level, dataset in enumerate(stored["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        factor = 2**level / 4
        assert scale["scale"] == [2, 0.5 * factor, 0.25 * factor]
        # the corner of the first pixel is that of pixel (20, 30) of the image
        corner = np.array(translation["translation"]) - np.array(scale["scale"]) / 2
        np.testing.assert_allclose(corner[1:], [100 + 0.5 * 19.5, -3 + 0.25 * 29.5])
        assert translation["translation"][0] == 7
    read = open_image(tmp_path / "a.zarr")
    assert read.space.sizes == (2, 0.125, 0.0625)
    assert read.space.units == ("micrometer",) * 3


def test_the_space_is_that_of_the_layer_that_napari_would_show() -> None:
    from napari.layers import Image

    from napari_cfsr.layers.image_input import output_placement, read_layer

    layer = Image(np.zeros((3, 50, 60)), scale=(2, 0.5, 0.25), translate=(7, 100, -3))
    region = (slice(0, 3), slice(5, 50), slice(6, 60))
    shown = output_placement(read_layer(layer, region), 3)
    space = PixelSpace("ZYX", (2.0, 0.5, 0.25), (7.0, 100.0, -3.0), (None,) * 3)
    ours = space.enlarged(3, region[1:])
    np.testing.assert_allclose(ours.sizes, shown["scale"])
    np.testing.assert_allclose(ours.origin, shown["translate"])


@pytest.mark.parametrize("names", ["YX", "YXS", "TCZYX", "QYX"])
def test_the_models_of_the_standard_accept_it(tmp_path, names) -> None:
    models = pytest.importorskip("ome_zarr_models.v05")
    shape = tuple({"Y": 700, "X": 40, "S": 3}.get(c, 2) for c in names)
    pixels = values(np.dtype("uint8"), shape, 0)
    space = pixel_space(names, {"Y": 0.5, "X": 0.5}, None, {"Y": "µm", "X": "µm", "T": "s"})
    done = upscale_to_zarr(
        pixels, BoxModel(2, refiner=True), tmp_path / "a.zarr", names, space=space
    )
    for path in done.images.values():
        image = models.Image.from_zarr(zarr.open_group(path, mode="r"))
        assert len(image.attributes.ome.multiscales[0].datasets) == 2


def test_colours_are_said_to_be_colours_and_read_as_such(tmp_path) -> None:
    pixels = values(np.dtype("uint8"), (30, 40, 3), 0)
    upscale_to_zarr(pixels, BoxModel(2), tmp_path / "a.zarr")
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path)
    channels = group.attrs["ome"]["omero"]["channels"]
    assert [c["color"] for c in channels] == ["FF0000", "00FF00", "0000FF"]
    assert channels[0]["window"] == {"min": 0, "max": 255, "start": 0, "end": 255}
    assert open_image(path).axes == "SYX"
    group.attrs.put({"ome": group.attrs["ome"]})  # as if by another program
    assert open_image(path).axes == "SYX"
    ome = dict(group.attrs["ome"])
    del ome["omero"]
    group.attrs.put({"ome": ome})
    assert open_image(path).axes == "CYX"


def test_what_the_source_says_of_channels_is_kept(tmp_path) -> None:
    omero = {
        "channels": [
            {"label": x, "color": "00FFFF", "window": {"min": 0, "max": 9, "start": 1, "end": 5}}
            for x in ("DAPI", "GFP")
        ]
    }
    pixels = values(np.dtype("uint16"), (2, 30, 40), 0)
    upscale_to_zarr(pixels, BoxModel(2), tmp_path / "a.zarr", "CYX", omero=omero)
    first = open_image(tmp_path / "a.zarr")
    assert first.omero == omero
    again = upscale_to_zarr(
        first.pixels, BoxModel(2), tmp_path / "b.zarr", first.axes, space=first.space,
        omero=first.omero,
    )  # fmt: skip
    second = open_image(again.path)
    assert (second.axes, second.omero) == ("CYX", omero)
    # centre of the first of 4 pixels in each: (1 - 4) / 8 of a pixel
    assert second.space.origin == (0, -0.375, -0.375)
    assert second.space.sizes == (1, 0.25, 0.25)


def test_the_record_says_where_it_comes_from(tmp_path) -> None:
    pixels = values(np.dtype("uint16"), (2, 40, 40), 0)
    steps = iter_upscale_to_zarr(
        pixels, BoxModel(2), tmp_path / "a.zarr", UpscaleOptions("CYX"), source="cells.tif"
    )
    list(steps)
    record = zarr.open_group(tmp_path / "a.zarr").attrs["napari_cfsr"]["record"]
    assert (record["input"], record["scale"], record["tile"]) == ("cells.tif", 2, 256)
    assert [m["high"] for m in record["intensity"]] == [float(p.max()) for p in pixels]
    assert "nc.upscale_to_zarr(image, model, 'OUT.zarr', axes='CYX'" in record["python"]
    json.dumps(record, allow_nan=False)


# progress


@pytest.mark.usefixtures("one_tile_blocks")
def test_progress_counts_to_the_end_and_from_where_it_stopped(tmp_path, image) -> None:
    steps = small_run(image, tmp_path / "a.zarr")
    first = [next(steps) for _ in range(6)]
    steps.close()
    assert first[0].done == 0
    assert first[0].seconds_left is None
    assert all(a.done < b.done for a, b in pairwise(first))
    rest = list(small_run(image, tmp_path / "a.zarr"))
    assert rest[0].done == rest[0].earlier == first[-1].done
    assert rest[0].seconds_left is None
    assert rest[-1].done == rest[-1].total == 88 * 125
    assert rest[-1].seconds_left == 0
    middle = rest[2]
    share = (middle.total - middle.done) / (middle.done - middle.earlier)
    assert middle.seconds_left == pytest.approx(middle.seconds * share)


# interruptions

VICTIM = """
import sys, time
sys.path.insert(0, {root!r})
import numpy as np
from tests.helpers.fakes import BoxModel
from tests.helpers.strategies import values
from tests.core.store.test_ome_zarr import small_run
from napari_cfsr.core.store import layout
from napari_cfsr.core.upscale.blocks import plan_blocks
plan_blocks.__defaults__ = (1, 1, False)
layout.SMALLEST_LEVEL = 128

class Slow(BoxModel):
    def predict(self, *args):
        time.sleep(0.1)
        return super().predict(*args)

image = values(np.dtype("uint16"), (88, 125), 0)
list(small_run(image, __import__("pathlib").Path({path!r}), Slow(2, refiner=True)))
"""


@pytest.mark.usefixtures("one_tile_blocks")
def test_killed_and_resumed_it_is_the_same(tmp_path, image) -> None:
    path, whole = tmp_path / "store" / "a.zarr", tmp_path / "whole" / "a.zarr"
    program = VICTIM.format(root=str(ROOT), path=str(path))
    for lines in (2, 5):  # killed twice
        victim = subprocess.Popen([sys.executable, "-c", program])
        journal = path / JOURNAL
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and victim.poll() is None:
            if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.005)
        victim.kill()
        assert victim.wait() == (-signal.SIGKILL if os.name == "posix" else 1)
        assert store_status(path) == "partial"
        with pytest.raises(FileFormatError, match="to continue where it stopped"):
            open_image(path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("c/*/*")}
    assert len(before) >= 5 * 3
    model = BoxModel(2, refiner=True)
    list(small_run(image, path, model))
    assert sum(b[0] for b in model.batches) <= 12 - 4  # one of the 5 is a mean of others
    list(small_run(image, whole))
    assert contents(path) == contents(whole)
    untouched = [f for f, at in before.items() if f.is_file() and f.stat().st_mtime_ns == at]
    assert len(untouched) >= 5 * 3
    assert store_status(path) == "complete"


@pytest.mark.usefixtures("one_tile_blocks")
def test_stopped_anywhere_and_resumed_it_is_the_same(tmp_path, image) -> None:
    whole = tmp_path / "whole" / "a.zarr"
    list(small_run(image, whole))
    for after in (1, 2, 7, 13):
        path = tmp_path / str(after) / "a.zarr"
        begun(image, path, after)
        list(small_run(image, path))
        assert contents(path) == contents(whole)


@pytest.mark.usefixtures("one_tile_blocks")
def test_leftovers_of_a_crash_do_no_harm(tmp_path, image) -> None:
    path, whole = tmp_path / "store" / "a.zarr", tmp_path / "whole" / "a.zarr"
    list(small_run(image, whole))
    begun(image, path, 6)
    journal = (path / JOURNAL).read_text("ascii")
    assert len(journal.splitlines()) >= 4
    (path / JOURNAL).write_text(journal + "0 1", "ascii")  # torn
    (path / "delta/0/c/0/0.abcdef.partial").write_bytes(b"torn")
    first = journal.splitlines()[0].split()
    (path / "baseline/0/c" / first[1] / first[2]).write_bytes(b"")  # lost in a power cut
    model = BoxModel(2, refiner=True)
    list(small_run(image, path, model))
    assert sum(b[0] for b in model.batches) >= 12 - len(journal.splitlines()) + 1
    assert contents(path) == contents(whole)


@pytest.mark.usefixtures("one_tile_blocks")
def test_cancelled_inside_a_block_it_is_resumed(tmp_path, image) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(CancelledError):
        list(small_run(image, path, check=CancelAt(20)))
    done = len((path / JOURNAL).read_text("ascii").splitlines())
    assert 0 < done < 12
    steps = small_run(image, path)
    assert 0 < next(steps).done < 88 * 125
    list(steps)
    assert open_image(path / "delta").pixels.shape == (176, 250)


@pytest.mark.usefixtures("one_tile_blocks")
def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path, image, monkeypatch) -> None:
    import zarr.storage._local as local

    put, written = local._put, []

    def full(path: Path, *args: object, **more: object) -> object:
        if "c" in path.parts[-3:]:
            if len(written) == 10:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(path)
        return put(path, *args, **more)

    path, whole = tmp_path / "store" / "a.zarr", tmp_path / "whole" / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(local, "_put", full)
        with pytest.raises(FileFormatError) as caught:
            list(small_run(image, path))
    kept = len((path / JOURNAL).read_text("ascii").splitlines())
    assert "the disk is full" in str(caught.value)
    assert f"{kept} of 12 blocks are written and kept: make room" in str(caught.value)
    model = BoxModel(2, refiner=True)
    list(small_run(image, path, model))
    assert sum(b[0] for b in model.batches) == 12 - kept
    list(small_run(image, whole))
    assert contents(path) == contents(whole)


def test_less_memory_when_it_is_resumed_changes_nothing(tmp_path, image, monkeypatch) -> None:
    path, whole = tmp_path / "store" / "a.zarr", tmp_path / "whole" / "a.zarr"
    monkeypatch.setattr(
        "napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (512, 2**27, True)
    )
    wide = np.tile(image, (7, 5))
    options = UpscaleOptions(halo=4, intensity=(0, 60000))
    steps = iter_upscale_to_zarr(wide, BoxModel(2), path, options)
    for _ in range(5):
        next(steps)
    steps.close()
    list(iter_upscale_to_zarr(wide, BoxModel(2, memory=10**8), path, options))
    list(iter_upscale_to_zarr(wide, BoxModel(2), whole, options))
    assert contents(path) == contents(whole)
    record = zarr.open_group(path).attrs["napari_cfsr"]["record"]
    assert record["tile"] == 256


@pytest.mark.usefixtures("one_tile_blocks")
def test_a_growing_store_can_be_viewed_but_is_not_an_image_yet(tmp_path, image) -> None:
    path = tmp_path / "a.zarr"
    steps = small_run(image, path)
    for _ in range(5):
        next(steps)
    for name in ("baseline", "delta", "difference"):
        assert "ome" not in zarr.open_group(path / name).attrs
        with pytest.raises(FileFormatError, match="this one is unfinished"):
            open_image(path / name)
    assert "ome" not in zarr.open_group(path).attrs
    with pytest.raises(
        FileFormatError, match=r"expected one image, got 3: name one, such as .*baseline"
    ):
        open_ome_zarr(path, incomplete=True)
    view = open_ome_zarr(path / "baseline", incomplete=True)
    assert [level.shape for level in view.levels] == [(176, 250), (88, 125)]
    assert view.space.sizes == (0.5, 0.5)
    there = (view.pixels[:] > 0).mean()
    assert 0.1 < there < 0.9
    list(steps)
    assert (view.pixels[:] > 0).mean() > there


# what may not be resumed, replaced or read


@pytest.mark.usefixtures("one_tile_blocks")
def test_only_the_same_call_resumes_a_store(tmp_path, image) -> None:
    path = tmp_path / "a.zarr"
    begun(image, path, 4)
    same = UpscaleOptions(axes="YX", tile=32, halo=4)
    others = [
        (image, UpscaleOptions(axes="YX", tile=32, halo=8), {}, "halo = 4, now it is 8"),
        (image, UpscaleOptions(axes="YX", tile=16, halo=4), {}, "tile = 32, now it is 16"),
        (image + 1, same, {}, "another image"),
        (image[:80], same, {}, r"shape = \[88, 125\], now it is \[80, 125\]"),
        (image.astype("f4"), same, {}, "dtype = uint16, now it is float32"),
        (image, same, {"space": pixel_space("YX", {"X": 2})}, "space = "),
    ]
    for pixels, options, more, says in others:
        with pytest.raises(OptionError, match=f"was begun with {says}.* or pass overwrite=True"):
            list(iter_upscale_to_zarr(pixels, BoxModel(2, refiner=True), path, options, **more))
    with pytest.raises(OptionError, match="was begun with scale = 2, now it is 3"):
        list(small_run(image, path, BoxModel(3, refiner=True)))
    with pytest.raises(OptionError, match="was begun with another refiner"):
        list(small_run(image, path, BoxModel(2)))
    assert store_status(path) == "partial"
    list(small_run(image + 1, path, overwrite=True))
    assert_array_equal(
        open_image(path / "baseline").pixels[:], upscale(image + 1, BoxModel(2)).baseline
    )


def test_nothing_is_replaced_without_overwrite(tmp_path) -> None:
    pixels = values(np.dtype("uint8"), (30, 30), 0)
    path = tmp_path / "a.zarr"
    upscale_to_zarr(pixels, BoxModel(2), path)
    before = contents(path)
    with pytest.raises(OptionError, match=r"a\.zarr exists: pass overwrite=True to replace it"):
        upscale_to_zarr(pixels, BoxModel(2), path)
    assert contents(path) == before
    upscale_to_zarr(pixels, BoxModel(3), path, overwrite=True)
    assert open_image(path).pixels.shape == (90, 90)
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"dear")
    for overwrite, says in ((False, "exists"), (True, "expected a zarr store to replace")):
        with pytest.raises(OptionError, match=says):
            upscale_to_zarr(pixels, BoxModel(2), folder, overwrite=overwrite)
    assert (folder / "photo.jpg").read_bytes() == b"dear"
    file = tmp_path / "file.zarr"
    file.write_bytes(b"dear")
    with pytest.raises(OptionError, match="expected a zarr store to replace"):
        upscale_to_zarr(pixels, BoxModel(2), file, overwrite=True)


def test_an_image_is_not_written_over_itself(tmp_path) -> None:
    pixels = values(np.dtype("uint8"), (30, 30), 0)
    path = tmp_path / "a.zarr"
    upscale_to_zarr(pixels, BoxModel(2), path)
    own = open_image(path).pixels
    before = np.asarray(own)
    lazy = da.from_zarr(str(path / "0"))
    held = da.from_array(own, chunks=10, inline_array=True)
    for image in (own, lazy, lazy[2:] + 1, da.asarray(own), held, held.rechunk(7)):
        with pytest.raises(OptionError, match="another store than the image's own"):
            upscale_to_zarr(image, BoxModel(2), path, overwrite=True)
        assert_array_equal(np.asarray(open_image(path).pixels), before)


@pytest.mark.parametrize("meanwhile", ["replaced", "removed"])
def test_a_store_that_was_replaced_meanwhile_is_left_alone(
    tmp_path, monkeypatch, meanwhile
) -> None:
    monkeypatch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))
    image, path = values(np.dtype("uint8"), (128, 128), 0), tmp_path / "a.zarr"
    options = UpscaleOptions("YX", tile=64, halo=4)
    late = iter_upscale_to_zarr(image, BoxModel(2), path, options)
    for _ in range(2):
        next(late)
    if meanwhile == "replaced":
        other = iter_upscale_to_zarr(image[::-1], BoxModel(2), path, options, overwrite=True)
        while next(other).fraction < 0.7:
            pass
    else:
        shutil.rmtree(path)
    with pytest.raises(FileFormatError, match="removed, replaced or finished by another run"):
        list(late)
    if meanwhile == "removed":
        assert not path.exists()
        return
    list(other)
    written = np.asarray(open_image(path).pixels)
    assert_array_equal(written, upscale(image[::-1], BoxModel(2), "YX", tile=64, halo=4).baseline)


def test_faults_are_reported_before_anything_is_written(tmp_path) -> None:
    path = tmp_path / "a.zarr"
    pixels = values(np.dtype("uint8"), (2, 3, 20, 20), 0)
    with pytest.raises(ImageError, match=r"at most one axis beside T, Z, Y and X .* C and Q"):
        upscale_to_zarr(pixels, BoxModel(2), path, "CQYX", rgb=False)
    with pytest.raises(OptionError, match="expected pixels to write"):
        upscale_to_zarr(pixels[:0], BoxModel(2), path, "CZYX")
    with pytest.raises(OptionError, match="expected a refiner for output 'delta'"):
        upscale_to_zarr(pixels, BoxModel(2), path, "CZYX", outputs=("delta",))
    assert not path.exists()
    with pytest.raises(OptionError, match="expected size, origin and unit for each axis"):
        PixelSpace("YX", (1.0,), (0.0, 0.0), (None, None))


# what others write


def test_a_store_of_version_0_4_is_read(tmp_path) -> None:
    pixels = values(np.dtype("uint16"), (2, 3, 20, 30), 0)
    group = zarr.create_group(str(tmp_path / "old.zarr"), zarr_format=2)
    group.create_array("0", data=pixels)
    group.create_array("1", data=pixels[..., ::2, ::2])
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [
                {"name": "c", "type": "channel"},
                {"name": "z", "type": "space", "unit": "nanometer"},
                {"name": "y", "type": "space", "unit": "micrometer"},
                {"name": "x", "type": "space", "unit": "micrometer"},
            ],
            "datasets": [
                {"path": str(i), "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 300, 0.5 * 2**i, 0.5 * 2**i]},
                    {"type": "translation", "translation": [0, 0, 10, 20]},
                ]}
                for i in (0, 1)
            ],
            "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2]}],
        }
    ]  # fmt: skip
    read = open_image(tmp_path / "old.zarr")
    assert read.axes == "CZYX"
    assert read.space == PixelSpace(
        "CZYX", (1.0, 300.0, 1.0, 1.0), (0.0, 0.0, 20.0, 40.0),
        (None, "nanometer", "micrometer", "micrometer"),
    )  # fmt: skip
    assert [level.shape for level in read.levels] == [(2, 3, 20, 30), (2, 3, 10, 15)]
    assert_array_equal(read.pixels[1], pixels[1])


def test_of_a_store_with_several_images_one_has_to_be_named(tmp_path) -> None:
    pixels = values(np.dtype("uint8"), (20, 30), 0)
    done = upscale_to_zarr(pixels, BoxModel(2, refiner=True), tmp_path / "a.zarr")
    with pytest.raises(FileFormatError, match=r"got 3: name one, such as .*baseline"):
        open_image(done.path)
    assert "ome" not in zarr.open_group(done.path).attrs  # others would not find the images
    for name in ("delta", "difference"):
        shutil.rmtree(done.path / name)
    assert open_image(done.path).path == done.path / "baseline"
    zarr.create_group(str(tmp_path / "b.zarr"), attributes={"ome": {"bioformats2raw.layout": 3}})
    shutil.copytree(done.path / "baseline", tmp_path / "b.zarr" / "0")
    assert open_image(tmp_path / "b.zarr").path == tmp_path / "b.zarr" / "0"
    shutil.copytree(done.path / "baseline", tmp_path / "b.zarr" / "1")
    with pytest.raises(FileFormatError, match=r"got 2: name one, such as .*0"):
        open_image(tmp_path / "b.zarr")


def test_what_is_no_image_is_reported_to_be_none(tmp_path) -> None:
    with pytest.raises(FileFormatError, match="there is no such file"):
        open_image(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileFormatError, match="expected an OME-Zarr store, this folder is not one"):
        open_image(tmp_path / "folder")
    zarr.create_array(str(tmp_path / "array.zarr"), shape=(3, 3), dtype="u1")
    with pytest.raises(FileFormatError, match="can't be read as OME-Zarr"):
        open_image(tmp_path / "array.zarr")
    zarr.create_group(str(tmp_path / "group.zarr"))
    with pytest.raises(FileFormatError, match="expected an OME-Zarr image, got another zarr store"):
        open_image(tmp_path / "group.zarr")
    zarr.create_group(str(tmp_path / "plate.zarr"), attributes={"ome": {"plate": {}}})
    with pytest.raises(FileFormatError, match="got a plate: name a field of a well"):
        open_image(tmp_path / "plate.zarr")
    done = upscale_to_zarr(np.zeros((20, 20), np.uint8), BoxModel(2), tmp_path / "a.zarr")
    (done.path / "zarr.json").write_text('{"zarr_format": 3, "node_', "utf-8")
    with pytest.raises(FileFormatError, match="can't be read as OME-Zarr"):
        open_image(done.path)
    assert store_status(done.path) == "other"


def test_a_read_only_folder_is_reported_to_be_one(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FileFormatError, match=r"a\.zarr: can't be written \(Permission denied\)"):
        upscale_to_zarr(np.zeros((20, 20), np.uint8), BoxModel(2), tmp_path / "a.zarr")
