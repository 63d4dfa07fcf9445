"""One file to another: the values of `upscale` for all kinds of images, and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

import napari_cfsr as nc
from napari_cfsr.core.batch import upscale_file
from napari_cfsr.core.batch.targets import find_targets
from napari_cfsr.core.batch.upscale_file import FileRecord, iter_upscale_file
from napari_cfsr.core.upscale import UpscaleOptions, exhaust
from napari_cfsr.errors import CFSRError
from tests.helpers.fakes import BoxModel

H, W = 9, 14
BASELINE = ("baseline",)


def random(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(3).integers(info.min, info.max, shape, dtype, endpoint=True)


def run(path: Path, output: Path, model: BoxModel | None = None, **options: Any) -> FileRecord:
    model = model or BoxModel()
    asked = UpscaleOptions(**{"outputs": BASELINE, **options})
    targets = find_targets(path, output, asked.outputs or (), model.info.scale, True)
    return exhaust(iter_upscale_file(path, targets, model, asked))


def pixels_of(path: Path) -> np.ndarray:
    return nc.read_image(path).pixels


PICTURES = {
    "gray.png": random(H, W),
    "gray16.png": random(H, W, dtype=np.uint16),
    "rgb.png": random(H, W, 3),
    "alpha.png": random(H, W, 4),
    "gray_alpha.png": random(H, W, 2),
    "bit.png": random(H, W) > 99,
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_have_the_values_of_upscale(tmp_path, name) -> None:
    pixels = PICTURES[name]
    Image.fromarray(pixels).save(tmp_path / name)
    record = run(tmp_path / name, tmp_path / "out")
    expected = nc.upscale(pixels, BoxModel(), axes="YXS"[: pixels.ndim], outputs=BASELINE).baseline
    written = pixels_of(record.outputs["baseline"])
    np.testing.assert_array_equal(written, expected)
    assert written.dtype == pixels.dtype


def test_the_suffix_of_an_output_names_its_format(tmp_path) -> None:
    pixels = PICTURES["rgb.png"]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = nc.upscale(pixels, BoxModel(), axes="YXC", outputs=BASELINE).baseline
    for name, tolerance in (("x.tif", 0), ("new/y.png", 0), ("z.JPG", 30)):
        run(tmp_path / "a.png", tmp_path / name)
        error = pixels_of(tmp_path / name).astype(int) - expected
        assert np.abs(error).mean() <= tolerance
    with Image.open(tmp_path / "z.JPG") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (2, {"axes": "ZYX"}),
        (2, {"axes": "syx"}),
        (2, {"axes": "CYX"}),
        (3, {"intensity": (100.0, 3000.0)}),
        (4, {"intensity": (-5.5, 4e3)}),
        (2, {"intensity": "data"}),
        (2, {"intensity": "percentile"}),
        (2, {"intensity": "dtype"}),
        (2, {"tile": 8, "halo": 4}),
        (2, {"halo": "exact"}),
        (2, {"ensemble": True}),
        (4, {"back_projection": True}),
    ],
    ids=str,
)
def test_options_have_the_values_of_upscale(tmp_path, scale, options) -> None:
    """Three slices are colours only if the axes say so."""
    pixels = random(3, H, W, dtype=np.uint16) // 16
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    out = tmp_path / "out.tif"
    record = run(tmp_path / "a.tif", out, BoxModel(scale), **options)
    axes = options.pop("axes", "QYX").upper()
    expected = nc.upscale(pixels, BoxModel(scale), axes, outputs=BASELINE, **options).baseline
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert nc.read_image(out).axes == axes
    assert record.provenance["axes"] == axes


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_metadata_of_a_photo_are_kept(tmp_path, name) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif.get_ifd(0x8769)[0xA002] = W  # width
    photo = Image.fromarray(random(H, W, 3))
    photo.save(tmp_path / name, icc_profile=profile, exif=exif, dpi=(72, 72))
    record = run(tmp_path / name, tmp_path / "out")
    with Image.open(record.outputs["baseline"]) as written:
        assert written.size == (2 * W, 2 * H)
        assert written.info["icc_profile"] == profile
        assert written.info["dpi"] == pytest.approx((144, 144), abs=0.05)
        assert written.getexif()[0x0112] == 6
        assert written.getexif().get_ifd(0x8769)[0xA002] == 2 * W


def test_metadata_that_a_tiff_cannot_hold_are_noted_once(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x829A] = (1, 250)  # exposure time
    Image.fromarray(random(H, W, 3)).save(tmp_path / "a.jpg", exif=exif)
    note = "EXIF beyond camera, date and author is not carried over"
    record = run(tmp_path / "a.jpg", tmp_path / "x.tif")
    assert record.notes[-1] == note
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.pages[0].tags["Make"].value == "Maker"
    assert note not in run(tmp_path / "a.jpg", tmp_path / "out").notes  # a JPEG holds all of it
    (tmp_path / "two").mkdir()
    two = {"model": BoxModel(refiner=True), "outputs": ("delta", "difference")}
    assert run(tmp_path / "a.jpg", tmp_path / "two", **two).notes.count(note) == 1


def test_five_channels_in_a_big_endian_tiff(tmp_path) -> None:
    """More samples than colours have: each is an image of its own."""
    pixels = random(H, W, 5, dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", byteorder=">"
    )
    record = run(tmp_path / "a.tif", tmp_path / "out")
    with tifffile.TiffFile(record.outputs["baseline"]) as tif:
        assert tif.pages[0].samplesperpixel == 5
        written = tif.asarray()
    for i in range(5):
        alone = nc.upscale(np.ascontiguousarray(pixels[..., i]), BoxModel(), axes="YX").baseline
        np.testing.assert_array_equal(written[..., i], alone)


def test_a_stack_in_an_ome_tiff(tmp_path) -> None:
    pixels = random(2, 3, H, W, dtype=np.uint16)
    about = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm",
             "PhysicalSizeZ": 2.0, "Channel": {"Name": ["DAPI", "488", "x"]}}  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=about, photometric="minisblack")
    model, outputs = BoxModel(refiner=True), ("delta", "difference")
    record = run(tmp_path / "a.ome.tif", tmp_path / "out", model, outputs=outputs)
    result = nc.upscale(pixels, model, axes="ZCYX", rgb=False, outputs=outputs)
    for name in outputs:
        assert record.outputs[name].name == f"a_x2_{name}.ome.tif"
        with tifffile.TiffFile(record.outputs[name]) as tif:
            np.testing.assert_array_equal(tif.asarray(), result.arrays()[name])
            assert tif.series[0].axes == "ZCYX"
            for text in ('PhysicalSizeX="0.25"', 'PhysicalSizeZ="2.0"', 'Name="488"'):
                assert text in tif.ome_metadata


def test_an_imagej_stack_and_its_difference(tmp_path) -> None:
    about = {"axes": "YXS", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(
        tmp_path / "a.tif", random(H, W, 3), imagej=True, metadata=about, resolution=(4, 4)
    )
    model, outputs = BoxModel(refiner=True), ("delta", "difference")
    record = run(tmp_path / "a.tif", tmp_path / "out", model, outputs=outputs)
    with tifffile.TiffFile(record.outputs["delta"]) as tif:
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.pages[0].resolution == (8, 8)
    difference = tifffile.imread(record.outputs["difference"])
    assert (difference.shape, difference.dtype) == ((2 * H, 2 * W, 3), np.float32)


def test_a_format_that_cannot_hold_the_result_is_an_error_before_the_work(
    tmp_path, monkeypatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(upscale_file, "iter_upscale", never)
    Image.fromarray(random(H, W, 4)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", random(3, H, W), photometric="minisblack")
    for name, output, kind, reason in [
        ("a.png", "x.jpg", "baseline", "JPEG holds 8-bit gray or RGB only"),
        ("b.tif", "x.png", "baseline", "expected a single image, got axes QYX"),
        ("a.png", "x.png", "difference", "can't hold float32"),
    ]:
        with pytest.raises(CFSRError, match=reason):
            run(tmp_path / name, tmp_path / output, BoxModel(refiner=True), outputs=(kind,))
