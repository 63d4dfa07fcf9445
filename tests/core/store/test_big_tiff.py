"""Tiled TIFFs with a pyramid, written from stores, and TIFFs read a part at a time."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from napari_cfsr import open_image, upscale, upscale_to_zarr
from napari_cfsr.core.image.spacing import pixel_space
from napari_cfsr.core.store.big_tiff import iter_upscale_to_tiff, write_big_tiff
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.errors import CancelledError, FileFormatError, OptionError
from tests.helpers.fakes import BoxModel
from tests.helpers.strategies import values

SPACE = pixel_space("ZYX", {"Z": 2, "Y": 0.5, "X": 0.25}, None, dict.fromkeys("ZYX", "um"))


@pytest.fixture
def small_pyramids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyramids of small images, and tiles of a size to match."""
    monkeypatch.setattr("napari_cfsr.core.store.layout.SMALLEST_LEVEL", 128)
    monkeypatch.setattr("napari_cfsr.core.store.big_tiff.TILE", 64)


def run(image: np.ndarray, model: BoxModel, names: str, paths: dict[str, Path], **more: object):
    """To the end."""
    options = UpscaleOptions(axes=names, rgb=False, tile=64, halo=4)
    return exhaust(iter_upscale_to_tiff(image, model, paths, options, **more))


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
@pytest.mark.parametrize(
    ("names", "shape", "dtype"),
    [
        ("YX", (88, 40), "uint8"),
        ("YXS", (75, 9, 3), "uint16"),
        ("YXS", (5, 9, 4), "uint8"),
        ("ZCYX", (3, 2, 75, 7), "float32"),
        ("ZYXS", (2, 75, 7, 3), "uint8"),
    ],
)
def test_values_axes_pyramid_and_sizes_are_in_the_file(
    tmp_path, small_pyramids, name, names, shape, dtype
) -> None:
    image = values(np.dtype(dtype), shape, 0)
    model = BoxModel(2, refiner=True)
    paths = {"delta": tmp_path / name, "difference": tmp_path / f"d{name}"}
    result = run(image, model, names, paths, space=SPACE)
    assert result.images == paths
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths.values())
    expected = upscale(image, model, names, rgb=False, tile=64, halo=4)
    for kind, path in paths.items():
        wanted = expected.arrays()[kind]
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            assert series.keyframe.is_tiled
            assert tif.is_ome == (".ome" in name)
            order = [names.index(letter) for letter in series.axes]
            assert_array_equal(series.asarray(), wanted.transpose(order))
            pyramid = len(names) < 4 or ".ome" in name
            levels = [level.shape for level in series.levels]
            assert len(levels) == 1 + (max(shape) >= 75 and pyramid)
            if len(levels) > 1:
                y = series.axes.index("Y")
                assert levels[1][y] == levels[0][y] // 2
        read = open_image(path)
        sizes = dict(zip(read.space.axes, read.space.sizes, strict=True))
        assert (sizes["Y"], sizes["X"]) == pytest.approx((0.25, 0.125))
        if "Z" in names and ".ome" in name:
            assert sizes["Z"] == 2


def test_names_of_channels_and_units_reach_ome_tiff(tmp_path) -> None:
    image = values(np.dtype("uint16"), (2, 30, 40), 0)
    about = {
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
        "space": pixel_space("CYX", {"Y": 4, "X": 6}, units={"Y": "nm", "X": "mm"}),
    }
    run(image, BoxModel(2), "CYX", {"baseline": tmp_path / "a.ome.tif"}, **about)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert 'PhysicalSizeX="3.0" PhysicalSizeXUnit="mm"' in tif.ome_metadata
        assert 'PhysicalSizeY="2.0" PhysicalSizeYUnit="nm"' in tif.ome_metadata
        assert 'Name="DAPI"' in tif.ome_metadata
        assert 'Name="GFP"' in tif.ome_metadata


def test_files_beyond_4_gb_are_bigtiff(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("napari_cfsr.core.store.big_tiff.LARGEST_CLASSIC", 10_000)
    image = values(np.dtype("uint8"), (90, 90), 0)
    run(image, BoxModel(2), "YX", {"baseline": tmp_path / "a.tif"})
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert_array_equal(tif.asarray(), upscale(image, BoxModel(2), tile=64, halo=4).baseline)


def test_interrupted_it_leaves_no_file_and_is_resumed(tmp_path) -> None:
    image = values(np.dtype("uint8"), (300, 300), 0)
    paths = {"baseline": tmp_path / "a.tif"}

    def check() -> None:
        if list(tmp_path.glob(".a.tif.*.partial")):
            raise CancelledError("cancelled")

    model = BoxModel(4)
    with pytest.raises(CancelledError):
        run(image, model, "YX", paths, check=check)
    assert not paths["baseline"].exists()
    assert [p.name for p in tmp_path.iterdir()] == [".a.partial.zarr"]
    assert sum(batch[0] for batch in model.batches) == 25
    run(image, model, "YX", paths)
    assert sum(batch[0] for batch in model.batches) == 25
    with tifffile.TiffFile(paths["baseline"]) as tif:
        assert_array_equal(
            tif.series[0].asarray(), upscale(image, BoxModel(4), tile=64, halo=4).baseline
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_cancelled_while_writing_leaves_no_file(tmp_path) -> None:
    done = upscale_to_zarr(
        values(np.dtype("uint8"), (600, 600), 0), BoxModel(2), tmp_path / "a.zarr"
    )
    shares: list[float] = []

    def check() -> None:
        if len(shares) == 2:
            raise CancelledError("cancelled")

    target = tmp_path / "a.tif"
    with pytest.raises(CancelledError):
        write_big_tiff(open_image(done.path), target, check=check, progress=shares.append)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    shares.clear()
    write_big_tiff(open_image(done.path), target, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_what_cannot_be_written_is_reported_before_any_work(tmp_path) -> None:
    image = values(np.dtype("uint8"), (30, 30), 0)
    model = BoxModel(2, refiner=True)
    (tmp_path / "a.tif").write_bytes(b"dear")
    with pytest.raises(OptionError, match=r"a\.tif exists: pass overwrite=True"):
        run(image, model, "YX", {"baseline": tmp_path / "a.tif"})
    with pytest.raises(OptionError, match="expected a different file for each output"):
        run(image, model, "YX", dict.fromkeys(("baseline", "delta"), tmp_path / "b.tif"))
    with pytest.raises(OptionError, match=r"expected a name ending in \.tif or \.tiff"):
        run(image, model, "YX", {"baseline": tmp_path / "b.png"})
    with pytest.raises(FileFormatError, match="tiles can't hold pixels of 1 bit"):
        run(image > 9, model, "YX", {"baseline": tmp_path / "b.tif"})
    assert not model.batches
    assert (tmp_path / "a.tif").read_bytes() == b"dear"
    run(image, model, "YX", {"baseline": tmp_path / "a.tif"}, overwrite=True)
    assert tifffile.imread(tmp_path / "a.tif").shape == (60, 60)


@pytest.mark.parametrize(
    ("write", "axes", "dtype"),
    [
        ({"tile": (64, 64), "compression": "zlib"}, "ZYXS", "uint8"),
        ({"compression": "lzw", "rowsperstrip": 10}, "ZYXS", "uint16"),
        ({}, "ZYXS", "float32"),
        ({"byteorder": ">"}, "ZYXS", "uint16"),
        ({"planarconfig": "separate"}, "ZSYX", "float32"),
    ],
)
def test_tiffs_are_read_a_part_at_a_time(tmp_path, write, axes, dtype) -> None:
    shape = tuple({"Z": 3, "Y": 150, "X": 130, "S": 3}[c] for c in axes)
    image = values(np.dtype(dtype), shape, 0)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", metadata={"axes": axes}, **write)
    read = open_image(tmp_path / "a.tif")
    assert (read.axes, read.pixels.shape) == (axes, shape)
    part = tuple(slice(1, 2) if n < 100 else slice(45, 125) for n in shape)
    for pixels in (read.pixels, pickle.loads(pickle.dumps(read.pixels))):
        assert_array_equal(pixels[part], image[part])
    asked = {"axes": axes, "intensity": "dtype", "tile": 64, "halo": 4}
    assert_array_equal(
        upscale(read.pixels, BoxModel(2), **asked).baseline,
        upscale(image, BoxModel(2), **asked).baseline,
    )
    del read, pixels
    gc.collect()  # a file that is left open would be a warning, which is an error here


def test_the_pyramid_of_a_whole_slide_is_read(tmp_path) -> None:
    image = values(np.dtype("uint8"), (900, 800, 3), 0)
    description = "Aperio Image Library v1\r\n900x800|AppMag = 20|MPP = 0.4990|Left = 2"
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        options = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb"}
        tif.write(image, description=description, metadata=None, **options)
        tif.write(image[::9, ::9], description="Aperio thumbnail", metadata=None, photometric="rgb")
        tif.write(image[::2, ::2], description="Aperio level", metadata=None, **options)
    read = open_image(tmp_path / "slide.tif")
    assert read.axes == "YXS"
    assert [level.shape for level in read.levels] == [(900, 800, 3), (450, 400, 3)]
    assert read.space.sizes == (0.499, 0.499)
    assert read.space.units == ("micrometer", "micrometer")
    assert_array_equal(read.levels[1][100:300, :50], image[200:600:2, :100:2])


def test_pixel_sizes_of_ome_and_imagej_are_read(tmp_path) -> None:
    image = np.zeros((3, 20, 20), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image, photometric="minisblack",
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "nm",
                  "PhysicalSizeY": 0.2, "PhysicalSizeZ": 3.0, "PhysicalSizeZUnit": "mm"},
    )  # fmt: skip
    space = open_image(tmp_path / "a.ome.tif").space
    assert space.sizes == (3, 0.2, 0.1)
    assert space.units == ("millimeter", "micrometer", "nanometer")
    tifffile.imwrite(
        tmp_path / "b.tif", image, imagej=True, resolution=(10, 5),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0},
    )  # fmt: skip
    space = open_image(tmp_path / "b.tif").space
    assert space.sizes == (3, 0.2, 0.1)
    assert space.units == ("micrometer",) * 3
    tifffile.imwrite(tmp_path / "c.tif", image[0], resolution=(72, 72), resolutionunit="INCH")
    assert open_image(tmp_path / "c.tif").space.units == (None, None)


def test_photos_are_opened_too_and_faults_are_reported(tmp_path, data) -> None:
    read = open_image(data / "benchmark/B100/HR/101085.png")
    assert (read.axes, read.pixels.shape) == ("YXS", (481, 321, 3))
    assert read.space.axes == "YX"
    (tmp_path / "bad.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(FileFormatError, match=r"bad\.tif: can't be read"):
        open_image(tmp_path / "bad.tif")
    tifffile.imwrite(tmp_path / "cmyk.tif", np.zeros((9, 9, 4), np.uint8), photometric="separated")
    with pytest.raises(FileFormatError, match="expected gray or RGB, got CMYK"):
        open_image(tmp_path / "cmyk.tif")
    with pytest.raises(FileFormatError, match="there is no such file"):
        open_image(tmp_path / "none.tif")
