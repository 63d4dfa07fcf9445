"""Images to train on: which are found, how they are read, and that they are read late."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from napari_cfsr.core.image import parse_axes, resolve_mapping
from napari_cfsr.core.io.image_files import read_image
from napari_cfsr.core.training import array_sources, folder_data, pair_data
from napari_cfsr.core.training import data as training_data
from napari_cfsr.core.training.data import MOST_PLANES, Intensity, array_data
from napari_cfsr.errors import FileFormatError, ImageError, OptionError
from tests.helpers.faults import run_python

H, W = 12, 17
INTENSITIES: tuple[Intensity, ...] = ("auto", "dtype", "data", "percentile", (10.0, 200.0))


def pixels(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.random(shape or (H, W))
    return (values * (1 if np.dtype(dtype).kind == "f" else 250)).astype(dtype)


def write(path: Path, array: np.ndarray, **about: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array, **about)
    else:
        Image.fromarray(array).save(path)
    return path


def kinds_of_files(folder: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Files of every kind; for each, the shape of an image in it and how many there are."""
    gray, rgb = {"photometric": "minisblack"}, {"photometric": "rgb"}
    write(folder / "gray.png", pixels())
    write(folder / "rgb.png", pixels(H, W, 3))
    write(folder / "rgba.png", pixels(H, W, 4))
    write(folder / "sub" / "deep" / "gray16.png", pixels(dtype=np.uint16) * 200)
    Image.fromarray(pixels(H, W, 2), "LA").save(folder / "la.png")
    Image.fromarray(pixels(H, W, 3)).quantize(16).save(folder / "palette.png")
    Image.fromarray(pixels(H, W, 3)).save(folder / "photo.JPG")
    Image.fromarray(pixels() > 100).save(folder / "bits.png")
    write(folder / "float.tif", pixels(dtype=np.float32) * 3000, **gray)
    write(folder / "int16.tiff", pixels(dtype=np.int16) - 100, **gray)
    write(folder / "rgb16.tif", pixels(H, W, 3, dtype=np.uint16) * 260, **rgb)
    stack = pixels(2, 3, 2, H, W, dtype=np.uint16)
    write(folder / "stack.tif", stack, imagej=True, metadata={"axes": "TZCYX"})
    return {
        "gray.png": ((H, W), 1), "rgb.png": ((H, W, 3), 1), "rgba.png": ((H, W, 3), 1),
        "gray16.png": ((H, W), 1), "la.png": ((H, W), 1), "palette.png": ((H, W, 3), 1),
        "photo.JPG": ((H, W, 3), 1), "bits.png": ((H, W), 1), "float.tif": ((H, W), 1),
        "int16.tiff": ((H, W), 1), "rgb16.tif": ((H, W, 3), 1), "stack.tif": ((H, W), 12),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of every kind, read only."""
    path = tmp_path_factory.mktemp("images")
    kinds_of_files(path)
    return path


def test_every_kind_of_file(tmp_path) -> None:
    expected = kinds_of_files(tmp_path / "images")
    found = folder_data(tmp_path / "images")
    assert found.lr is None
    assert found.origin == "images"
    assert found.notes == ()
    for name, (shape, count) in expected.items():
        sources = [s for s in found.hr if Path(s.group).name == name]
        assert len(sources) == count, name
        for source in sources:
            image = source.read()
            assert (image.shape, image.dtype) == (shape, np.float32), name
            assert 0 <= image.min() < 0.1, name
            assert 0.85 < image.max() <= 1, name
    assert len(found.hr) == sum(count for _, count in expected.values())
    groups = [s.group for s in found.hr]
    assert groups == sorted(groups)  # in the order of names, on every machine
    assert len({s.name for s in found.hr}) == len(found.hr)
    names = [s.name for s in found.hr if s.name.startswith("stack")]
    assert names[:3] == [
        "stack.tif [T0, Z0, C0]",
        "stack.tif [T0, Z0, C1]",
        "stack.tif [T0, Z1, C0]",
    ]


@pytest.mark.parametrize("intensity", INTENSITIES, ids=str)
def test_values_are_those_that_upscale_would_use(folder, intensity) -> None:
    """Of files and of arrays alike: read_image and resolve_mapping, plane by plane."""
    checked = 0
    for source in folder_data(folder, intensity).hr:
        path = Path(source.group)
        image = read_image(path)
        axes = parse_axes(image.axes, image.pixels.shape, rgb=False)
        mappings = resolve_mapping(image.pixels, axes, intensity)
        same = array_sources(image.pixels, path.name, image.axes, intensity, rgb=False)
        (twin,) = (s for s in same if s.name == source.name)
        plane = dict(zip(axes.planes(), same, strict=True))
        (index,) = (i for i, s in plane.items() if s is twin)
        raw = image.pixels[index] if index else image.pixels
        raw = raw[..., : axes.samples - axes.has_alpha] if "S" in axes.names else raw
        raw = raw[..., 0] if raw.shape[-1] == 1 else raw
        expected = mappings[axes.channel_of(index)].to_unit(raw)
        np.testing.assert_array_equal(source.read(), expected)
        np.testing.assert_array_equal(twin.read(), expected)
        assert twin.group == path.name
        checked += 1
    assert checked == 23


def test_intensity_changes_the_values(folder) -> None:
    means = {
        str(mode): float(np.mean([s.read().mean() for s in folder_data(folder, mode).hr]))
        for mode in INTENSITIES
    }
    assert len({round(mean, 4) for mean in means.values()}) == len(INTENSITIES), means
    limits = folder_data(folder / "gray.png", (10.0, 200.0)).hr[0].read()
    expected = (read_image(folder / "gray.png").pixels.astype(np.float32) - 10) / 190
    np.testing.assert_allclose(limits, expected, atol=1e-6)
    assert limits.min() < 0  # not clipped
    assert limits.max() > 1


def test_microscopes_have_odd_formats(data) -> None:
    """16-bit PNG, palettes in TIFF and 8 bits, as the microscopes wrote them."""
    found = folder_data(data / "microscopy" / "cellprofiler")
    assert (len(found.hr), found.notes) == (18, ())
    shapes = {}
    for source in found.hr:
        image = source.read()
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1, source.name
        shapes[source.name] = image.shape
    assert shapes["ExampleColocalization__0_1_N_G.png"] == (1040, 1392)
    assert shapes["ExampleFly__01_POS002_D.TIF"][:2] == (1006, 1000)
    assert shapes["ExampleHuman__AS_09125_050116030001_D03f00d0.tif"] == (512, 512)
    raw = read_image(data / "microscopy/cellprofiler/ExampleColocalization__0_1_N_G.png").pixels
    assert raw.dtype == np.uint16
    low, high = int(raw.min()), int(raw.max())
    expected = (raw.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(found.hr[0].read(), expected, atol=1e-6)


def test_files_that_are_no_images_are_left_out(tmp_path) -> None:
    folder = tmp_path / "in"
    write(folder / "good.png", pixels())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (folder / "empty.tif").write_bytes(b"")
    Image.new("CMYK", (W, H)).save(folder / "cmyk.jpg")
    write(folder / "complex.tif", np.zeros((H, W), np.complex64))
    (folder / "notes.txt").write_text("not an image")
    write(folder / ".hidden.png", pixels())
    (folder / "._good.png").write_bytes(b"what macOS leaves")
    (folder / "folder.png").mkdir()
    for name in ("good_x2_delta.png", "good_x4_baseline.tif", "a_x3_difference.ome.tif"):
        write(folder / name, pixels())  # results of this program
    frames = [Image.fromarray(pixels(seed=i)) for i in range(3)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    found = folder_data(folder)
    assert [s.name for s in found.hr] == ["good.png", "moving.png"]
    reasons = {
        "broken.png": "not an image, or damaged",
        "cmyk.jpg": "expected gray or RGB, got CMYK",
        "complex.tif": "expected bool, integer or real float pixels, got complex64",
        "empty.tif": "can't be read",
        "moving.png": "only the first of 3 frames was read",
    }
    assert len(found.notes) == len(reasons)
    for note, (name, reason) in zip(found.notes, reasons.items(), strict=True):
        assert note.startswith(f"{folder / name}: "), note
        assert reason in note


def test_the_name_of_the_folder_one_is_in(tmp_path, monkeypatch) -> None:
    write(tmp_path / "mine" / "a.png", pixels())
    monkeypatch.chdir(tmp_path / "mine")
    assert folder_data(".").origin == "mine"


@pytest.mark.parametrize("kind", ["nothing", "empty", "text", "broken", "long"])
def test_folders_without_images(tmp_path, kind) -> None:
    folder = tmp_path / ("x" * 300 if kind == "long" else "in")
    if kind in ("empty", "text", "broken"):
        folder.mkdir()
    if kind == "text":
        (folder / "notes.txt").write_text("not an image")
    if kind == "broken":
        (folder / "a.png").write_bytes(b"nonsense")
    with pytest.raises(FileFormatError) as caught:
        folder_data(folder)
    text = str(caught.value)
    assert str(folder) in text
    assert ("a.png: not an image, or damaged" in text) == (kind == "broken")
    if kind in ("nothing", "long"):
        assert "there is no such file" in text or "can't be read" in text


def test_files_that_become_unreadable_are_named(tmp_path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.png", pixels())
    found = folder_data(tmp_path)
    (tmp_path / "0.png").unlink()
    with pytest.raises(ImageError, match=r"0\.png: expected an image file, there is no such"):
        found.hr[0].read()


def test_damage_behind_the_head_shows_when_it_is_read(tmp_path) -> None:
    """A folder is listed without decoding its PNG and JPEG files, which takes long."""
    path = write(tmp_path / "a.png", pixels(300, 300))
    path.write_bytes(path.read_bytes()[:5000])
    (source,) = folder_data(tmp_path).hr
    with pytest.raises(ImageError, match=r"a\.png: can't be read"):
        source.read()


def test_a_file_that_was_written_again_is_read_again(tmp_path) -> None:
    path = write(tmp_path / "a.tif", pixels(dtype=np.uint16))
    (before,) = folder_data(tmp_path).hr
    assert before.read().max() == 1
    write(path, pixels(H, W + 1, dtype=np.uint16) * 100)
    os.utime(path, (1, 1))
    assert before.read().shape == (H, W + 1)
    assert before.read().max() == 1  # by its own mapping, not by the old one
    assert before.read().min() == 0


@pytest.mark.parametrize("count", [1, 2, 499, 500, 501, 750, 999, 1000, 1234])
def test_stacks_are_thinned_evenly(count) -> None:
    stack = np.repeat(np.arange(count, dtype=np.uint16)[:, None, None], 2, 1).repeat(2, 2)
    sources = array_sources(stack, "stack", "TYX", (0.0, 65535.0))
    assert len(sources) == min(count, MOST_PLANES)
    planes = [round(float(s.read().mean()) * 65535) for s in sources]
    assert [s.name for s in sources] == [f"stack [T{i}]" for i in planes]
    steps = np.diff(planes)
    assert planes[0] == 0
    if count > 1:
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
        assert planes[-1] >= count - 1 - count // MOST_PLANES


def test_a_single_file_counts_as_a_folder_and_its_long_stack_is_thinned(tmp_path) -> None:
    stack = np.arange(600 * 4, dtype=np.uint16).reshape(600, 2, 2)
    path = write(tmp_path / "a.tif", stack, photometric="minisblack")
    found = folder_data(path, (0.0, 65535.0))
    assert (len(found.hr), found.origin) == (500, "a.tif")
    assert {s.group for s in found.hr} == {str(path)}
    assert found.hr[-1].name.endswith("598]")
    np.testing.assert_allclose(found.hr[-1].read() * 65535, stack[598], atol=0.01)


def test_channels_have_mappings_of_their_own() -> None:
    stack = pixels(2, 3, H, W, dtype=np.uint16)
    stack[1] *= 100
    for source in array_sources(stack, "s", "CTYX"):
        channel = int(source.name[4])
        low, high = int(stack[channel].min()), int(stack[channel].max())
        plane = stack[channel, int(source.name[8])]
        np.testing.assert_allclose(source.read(), (plane - low) / (high - low), atol=1e-6)


def test_arrays() -> None:
    images = [pixels(), pixels(H, W, 3), pixels(H, W, 4), pixels(dtype=np.float64)]
    found = array_data(images)
    assert [s.read().shape for s in found.hr] == [(H, W), (H, W, 3), (H, W, 3), (H, W)]
    assert [s.group for s in found.hr] == ["image 0", "image 1", "image 2", "image 3"]
    assert (found.origin, found.lr, found.notes) == ("4 arrays", None, ())
    np.testing.assert_allclose(found.hr[2].read(), images[2][..., :3] / 255, atol=1e-7)
    np.testing.assert_allclose(found.hr[3].read(), images[3], atol=1e-7)


def test_pairs_of_arrays() -> None:
    pairs = [(pixels(seed=i), pixels(2 * H, 2 * W, seed=i)) for i in range(3)]
    found = array_data([], pairs)
    assert [s.name for s in found.lr] == ["LR 0", "LR 1", "LR 2"]
    for (lr, hr), of_lr, of_hr in zip(pairs, found.lr, found.hr, strict=True):
        np.testing.assert_allclose(of_lr.read(), lr / 255, atol=1e-7)
        np.testing.assert_allclose(of_hr.read(), hr / 255, atol=1e-7)
    assert found.origin == "3 pairs of arrays"


def test_lazy_and_foreign_arrays() -> None:
    stack = pixels(3, H, W, dtype=">u2")
    expected = [s.read() for s in array_sources(stack, "s", "ZYX")]
    lazy = array_sources(da.from_array(stack, chunks=(1, 5, 5)), "s", "ZYX")
    for source, values in zip(lazy, expected, strict=True):
        np.testing.assert_array_equal(source.read(), values)
        assert isinstance(source.pixels, np.ndarray)


@pytest.mark.parametrize(
    ("image", "axes", "reason"),
    [
        (np.zeros((0, 4)), None, "expected an image with pixels, got shape"),
        (np.zeros(4), None, "expected axes"),
        (np.zeros((2, 3, 4, 5)), None, "expected axes for an array of shape"),
        (np.zeros((3, 4), complex), None, "expected bool, integer or real float pixels"),
        (np.zeros((2, 3, 4)), "YX", "expected one letter for each"),
    ],
)
def test_arrays_that_are_no_images(image, axes, reason) -> None:
    with pytest.raises(ImageError, match=reason):
        array_sources(image, "x", axes)


def test_invalid_intensity() -> None:
    for intensity, reason in {("best",): "one of auto, dtype", ((3.0, 1.0),): "low < high"}.items():
        with pytest.raises(OptionError, match=reason):
            array_sources(pixels(), "x", None, intensity[0])


def test_pairs_of_folders(tmp_path) -> None:
    for i, name in enumerate("abc"):
        write(tmp_path / "lr" / f"{name}.png", pixels(seed=i))
        write(tmp_path / "hr" / f"{name}_60x.tif", pixels(2 * H, 2 * W, seed=i))
    (tmp_path / "lr" / "notes.txt").write_text("")
    found = pair_data(tmp_path / "lr", tmp_path / "hr")
    assert [s.name for s in found.lr] == ["a.png", "b.png", "c.png"]
    assert [s.name for s in found.hr] == ["a_60x.tif", "b_60x.tif", "c_60x.tif"]
    assert [s.read().shape for s in found.hr] == [(2 * H, 2 * W)] * 3
    assert found.origin == "lr and hr"


def test_a_pair_of_stacks(tmp_path) -> None:
    lr = write(tmp_path / "lr.tif", pixels(600, 2, 2), photometric="minisblack")
    hr = write(tmp_path / "hr.tif", pixels(600, 4, 4), photometric="minisblack")
    found = pair_data(lr, hr)
    assert len(found.hr) == len(found.lr) == MOST_PLANES
    places = [[s.name.split("[")[1] for s in side] for side in (found.lr, found.hr)]
    assert places[0] == places[1]  # thinned alike


def test_pairs_that_do_not_fit(tmp_path) -> None:
    for i in range(3):
        write(tmp_path / "three" / f"{i}.png", pixels())
    write(tmp_path / "two" / "0.png", pixels())
    write(tmp_path / "two" / "1.png", pixels())
    (tmp_path / "empty").mkdir()
    for name, planes in {"x": (2, 1, 1), "y": (1, 2, 1)}.items():
        for i, count in enumerate(planes):
            path = tmp_path / name / f"{i}.tif"
            write(path, pixels(count, H, W), photometric="minisblack")
    write(tmp_path / "bad" / "0.png", pixels())
    (tmp_path / "bad" / "1.png").write_bytes(b"nonsense")
    cases = {
        ("three", "two"): (
            "as many LR as HR files, got 3 in .*three and 2 in .*two: name the files so"
        ),
        ("empty", "empty"): "expected images .* in .*empty and .*empty, got none",
        ("x", "y"): r"as many LR as HR planes, got 2 in .*0.tif and 1 in .*0.tif",
        ("two", "bad"): r"1\.png: not an image, or damaged",
        ("nothing", "two/0.png"): "nothing: expected an image file, there is no such file",
        ("nothing", "two"): "got 1 in .*nothing and 2 in .*two",
    }
    for (lr, hr), reason in cases.items():
        with pytest.raises(FileFormatError, match=reason):
            pair_data(tmp_path / lr, tmp_path / hr)


def test_sources_are_pickled_without_pixels(folder) -> None:
    """What is sent holds no pixels of files; it gives the same images there."""
    found = folder_data(folder, "percentile")
    sent = pickle.dumps(found)
    assert len(sent) < 400 * len(found.hr)
    for before, after in zip(found.hr, pickle.loads(sent).hr, strict=True):
        np.testing.assert_array_equal(before.read(), after.read())


def test_files_are_read_late_and_one_at_a_time(tmp_path) -> None:
    """200 images of a megapixel are 400 MB; what stays is one of them."""
    image = pixels(1000, 1000, dtype=np.uint16)
    for i in range(200):
        if i == 0:
            write(tmp_path / "0.tif", image)
        else:
            os.link(tmp_path / "0.tif", tmp_path / f"{i}.tif")
    before = psutil.Process().memory_info().rss
    found = folder_data(tmp_path)
    total = sum(float(source.read().mean()) for source in found.hr)
    grown = psutil.Process().memory_info().rss - before
    assert len(found.hr) == 200
    assert total == pytest.approx(200 * found.hr[0].read().mean(), rel=1e-4)
    assert grown < 60e6
    assert training_data._opened_cached.cache_info().maxsize == 2  # LR and HR of a pair


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from napari_cfsr.core.training import TrainRequest, folder_data, windows; "
        "assert 'torch' not in sys.modules"
    )
    run_python(code)
