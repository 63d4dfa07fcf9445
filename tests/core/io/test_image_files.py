"""Image files: what is read, what is kept, and that no file is left half-written."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from napari_cfsr.core.io.image_files import SUFFIXES, ImageFile, read_image, write_image
from napari_cfsr.errors import FileFormatError, OptionError
from tests.helpers.faults import files_of_at_most, full_disk
from tests.helpers.strategies import axes_and_shapes, dtypes, values

H, W = 6, 10
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    return values(np.dtype(dtype), shape, seed)


def larger(image: ImageFile, scale: int = 2) -> np.ndarray:
    """Repeated pixels, in place of an upscaled image."""
    pixels = image.pixels
    for name in "YX":
        pixels = pixels.repeat(scale, axis=image.axes.index(name))
    return pixels


def rewritten(path: Path, scale: int = 2, to: str | None = None) -> tuple[ImageFile, Path]:
    """Read, enlarge, write to the same folder; returns the image read and the path written."""
    image = read_image(path)
    target = path.with_name(to or f"out_{path.name}")
    write_image(target, larger(image, scale), image, scale)
    return image, target


def round_trip(path: Path, scale: int = 2) -> ImageFile:
    """Rewrite and read again; pixels, dtype and axes must be those that were written."""
    image, target = rewritten(path, scale, to=f"again_{path.name}")
    again = read_image(target)
    assert again.pixels.dtype == image.pixels.dtype
    assert again.axes == image.axes
    np.testing.assert_array_equal(again.pixels, larger(image, scale))
    return again


def png_chunks(path: Path) -> dict[str, bytes]:
    """Names and bodies of the chunks of a PNG, whose checksums must be right."""
    data, chunks, at = path.read_bytes(), {}, 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            name + body
        )
        chunks[name.decode()] = body
        at += 12 + length
    return chunks


# PNG


def save_png(path: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    """Write with Pillow; 16-bit colour with imagecodecs."""
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.mark.parametrize(
    ("shape", "dtype", "header"),
    [
        ((H, W), bool, (1, 0)),
        ((H, W), np.uint8, (8, 0)),
        ((H, W, 2), np.uint8, (8, 4)),
        ((H, W, 3), np.uint8, (8, 2)),
        ((H, W, 4), np.uint8, (8, 6)),
        ((H, W), np.uint16, (16, 0)),
        ((H, W, 2), np.uint16, (16, 4)),
        ((H, W, 3), np.uint16, (16, 2)),
        ((H, W, 4), np.uint16, (16, 6)),
    ],
    ids=["1 bit", "gray", "gray alpha", "RGB", "RGBA", "16 gray", "16 gray alpha", "16 RGB",
         "16 RGBA"],
)  # fmt: skip
def test_every_kind_of_png(tmp_path, shape, dtype, header) -> None:
    """Bit depth and colour type of the header are those of the source."""
    pixels = save_png(tmp_path / "x.png", noise(*shape, dtype=dtype))
    image, target = rewritten(tmp_path / "x.png")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.pixels.dtype == dtype
    assert image.axes == ("YXS" if len(shape) == 3 else "YX")
    assert image.notes == ()
    for path in (tmp_path / "x.png", target):
        assert struct.unpack(">BB", png_chunks(path)["IHDR"][8:10]) == header
    round_trip(target)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_gray_png_of_few_bits_is_scaled_to_its_range(tmp_path, bits) -> None:
    levels = noise(H, W) % 2**bits
    rows = np.zeros((H, W * bits), np.uint8)
    for bit in range(bits):
        rows[:, bit::bits] = levels >> (bits - 1 - bit) & 1
    packed = np.packbits(rows, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    write_png(tmp_path / "x.png", bits, zlib.compress(raw))
    image = read_image(tmp_path / "x.png")
    expected = levels.astype(bool) if bits == 1 else levels * (255 // (2**bits - 1))
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.pixels.dtype == expected.dtype


def write_png(path: Path, bits: int, body: bytes) -> None:
    """A gray PNG of H x W from its parts."""
    header = struct.pack(">IIBBBBB", W, H, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in parts:
        data += struct.pack(">I", len(content)) + name + content
        data += struct.pack(">I", zlib.crc32(name + content))
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_a_palette_becomes_colour(tmp_path, name) -> None:
    picture = Image.fromarray(noise(H, W, 3)).quantize(7)
    picture.save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image.pixels, np.asarray(picture.convert("RGB")))
    assert (image.axes, image.pixels.dtype) == ("YXS", np.uint8)
    round_trip(tmp_path / name)


def test_a_palette_with_transparency_becomes_colour_with_alpha(tmp_path) -> None:
    picture = Image.fromarray(noise(H, W, 3)).quantize(7)
    picture.save(tmp_path / "x.png", transparency=2)
    image = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(image.pixels[..., :3], np.asarray(picture.convert("RGB")))
    hidden = np.asarray(picture) == 2
    assert hidden.any()
    np.testing.assert_array_equal(image.pixels[..., 3], np.where(hidden, 0, 255))
    round_trip(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("pixels", "transparent"),
    [
        (noise(H, W) // 64, 2),
        (noise(H, W, 3) // 128, (1, 0, 1)),
        (noise(H, W, dtype=bool), 255),
        (noise(H, W, dtype=np.uint16) // 16384, 2),
    ],
    ids=["gray", "RGB", "1 bit", "16 gray"],
)
def test_one_transparent_colour_becomes_alpha(tmp_path, pixels, transparent) -> None:
    save_png(tmp_path / "x.png", pixels, transparency=transparent)
    image = read_image(tmp_path / "x.png")
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    hidden = (colours * (255 if pixels.dtype == bool else 1) == np.array(transparent)).all(-1)
    assert hidden.any()
    assert not hidden.all()
    assert image.axes == "YXS"
    assert image.pixels.shape == (H, W, colours.shape[-1] + 1)
    most = 65535 if pixels.dtype == np.uint16 else 255
    np.testing.assert_array_equal(image.pixels[..., -1], np.where(hidden, 0, most))
    if pixels.dtype != bool:  # with alpha, there are no 1-bit pixels in a PNG
        np.testing.assert_array_equal(image.pixels[..., :-1], colours)
    round_trip(tmp_path / "x.png")


def test_sixteen_bit_colour_keeps_metadata_too(tmp_path) -> None:
    """Pillow can't write these; the chunks are inserted by this package."""
    source = ImageFile(
        noise(H, W, 3, dtype=np.uint16), "YXS", tmp_path, exif=exif_bytes(), icc=ICC, dpi=(72, 96)
    )
    write_image(tmp_path / "x.png", larger(source), source, 2)
    chunks = png_chunks(tmp_path / "x.png")
    assert list(chunks)[:4] == ["IHDR", "iCCP", "pHYs", "eXIf"]
    with Image.open(tmp_path / "x.png") as picture:
        picture.load()
        assert picture.info["icc_profile"] == ICC
        assert picture.info["dpi"] == pytest.approx((144, 192), abs=0.05)
        assert picture.getexif()[0x0112] == 6
    again = read_image(tmp_path / "x.png")
    assert again.icc == ICC
    np.testing.assert_array_equal(again.pixels, larger(source))


def test_a_note_says_that_only_the_first_frame_is_read(tmp_path) -> None:
    frames = [Image.fromarray(noise(H, W, seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    image = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(image.pixels, np.asarray(frames[0]))
    assert image.notes == ("only the first of 3 frames was read",)


# JPEG


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode, suffix) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8) * 3
    picture = Image.fromarray(smooth).convert(mode)
    picture.save(tmp_path / f"x{suffix}", quality=95)
    image, target = rewritten(tmp_path / f"x{suffix}")
    assert image.axes == ("YX" if mode == "L" else "YXS")
    with Image.open(target) as written:
        assert (written.mode, written.size, written.format) == (mode, (80, 64), "JPEG")
        error = np.asarray(written).astype(int) - larger(image)
        if mode == "RGB":  # colour is not stored at half the resolution
            assert [part[1:3] for part in written.layer] == [(1, 1)] * 3
    assert np.abs(error).max() <= 8
    assert np.abs(error).mean() < 1.5


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_refused(tmp_path, suffix) -> None:
    Image.fromarray(noise(H, W, 3)).convert("CMYK").save(tmp_path / f"x{suffix}")
    with pytest.raises(FileFormatError) as caught:
        read_image(tmp_path / f"x{suffix}")
    assert str(caught.value) == (
        f"{tmp_path / f'x{suffix}'}: expected gray or RGB, got CMYK: convert it to RGB first"
    )


# metadata of PNG and JPEG


def exif_bytes(order: str = "<", kind: int = 4, width: int = W, height: int = H) -> bytes:
    """EXIF with orientation, resolution, sizes, a maker's note with an offset, GPS.

    `order` is that of the bytes; sizes of `kind` 3 have 16 bits, of `kind` 4 32.
    """

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        size = "H2x" if kind == 3 and count == 1 else "I"
        return struct.pack(f"{order}HHI{size}", tag, kind, count, value)

    # header 8, IFD0 2+6*12+4 = 78, Exif 2+3*12+4 = 42, GPS 2+1*12+4 = 18, then values
    exif_at, gps_at, values_at = 86, 128, 146
    ifd0 = [
        entry(0x0112, 3, 1, 6),
        entry(0x011A, 5, 1, values_at),
        entry(0x011B, 5, 1, values_at + 8),
        entry(0x0128, 3, 1, 2),
        entry(0x8769, 4, 1, exif_at),
        entry(0x8825, 4, 1, gps_at),
    ]
    exif = [
        entry(0x927C, 7, 12, values_at + 16),
        entry(0xA002, kind, 1, width),
        entry(0xA003, kind, 1, height),
    ]
    gps = [entry(0x001D, 2, 11, values_at + 28)]
    body = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    for ifd in (ifd0, exif, gps):
        body += struct.pack(f"{order}H", len(ifd)) + b"".join(ifd) + bytes(4)
    assert len(body) == values_at
    body += struct.pack(f"{order}IIII", 300, 1, 150, 1)
    body += b"maker note 1" + b"2026:11:23\0"
    return b"Exif\0\0" + body


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_exif_is_kept_byte_for_byte_except_sizes_and_resolutions(
    tmp_path, suffix, order, kind
) -> None:
    before = exif_bytes(order, kind)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(H, W, 3)).save(path, exif=before)
    _, target = rewritten(path, 3)
    with Image.open(target) as picture:
        after = picture.info["exif"]
        exif = picture.getexif()
        assert exif[0x0112] == 6  # pixels stay as stored, so the orientation still holds
        assert (exif[0x011A], exif[0x011B]) == (900, 450)
        inner = exif.get_ifd(0x8769)
        assert (inner[0xA002], inner[0xA003]) == picture.size == (3 * W, 3 * H)
        assert exif.get_ifd(0x8825)[0x001D] == "2026:11:23"
        assert inner[0x927C] == b"maker note 1"
    assert len(after) == len(before)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(changed) <= 8  # two sizes and two resolutions, each within 16 bits


def test_a_size_that_outgrows_its_field_in_exif(tmp_path) -> None:
    """40,000 pixels fit in 16 bits, 80,000 do not."""
    source = ImageFile(
        np.zeros((1, 40_000), np.uint8), "YX", tmp_path, exif=exif_bytes(kind=3, width=40_000)
    )
    write_image(tmp_path / "x.png", larger(source), source, 2)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.getexif().get_ifd(0x8769)[0xA002] == 80_000


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("length", [7, 10, 20, 60, 100, 150])
def test_damaged_exif_does_no_harm(tmp_path, suffix, length) -> None:
    exif = exif_bytes()[:length]
    source = ImageFile(noise(H, W, 3), "YXS", tmp_path, exif=exif)
    write_image(tmp_path / f"x{suffix}", larger(source), source, 2)
    again = read_image(tmp_path / f"x{suffix}")
    assert again.exif.startswith(exif[:20])
    assert again.pixels.shape == (2 * H, 2 * W, 3)
    write_image(tmp_path / "x.tif", larger(source), source, 2)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_icc_profile_and_resolution(tmp_path, suffix, scale) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(H, W, 3)).save(path, icc_profile=ICC, dpi=(72, 96))
    image, target = rewritten(path, scale)
    assert image.dpi == pytest.approx((72, 96), abs=0.05)
    with Image.open(target) as picture:
        assert picture.info["icc_profile"] == ICC
        assert picture.info["dpi"] == pytest.approx((72 * scale, 96 * scale), abs=0.05)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_no_metadata_are_invented(tmp_path, suffix) -> None:
    Image.fromarray(noise(H, W, 3)).save(tmp_path / f"x{suffix}")
    image, target = rewritten(tmp_path / f"x{suffix}")
    assert (image.exif, image.icc, image.dpi) == (None, None, None)
    with Image.open(target) as picture:
        assert not {"exif", "icc_profile", "dpi"} & set(picture.info)


def test_a_jpeg_with_a_resolution_in_exif_only(tmp_path) -> None:
    Image.fromarray(noise(H, W, 3)).save(tmp_path / "x.jpg", exif=exif_bytes())
    data = (tmp_path / "x.jpg").read_bytes()
    at = data.index(b"JFIF\0") - 4  # cut the JFIF segment, as cameras do
    (length,) = struct.unpack(">H", data[at + 2 : at + 4])
    (tmp_path / "x.jpg").write_bytes(data[:at] + data[at + 2 + length :])
    image, target = rewritten(tmp_path / "x.jpg")
    assert image.dpi == (300, 300)  # Pillow reads the one of X
    with Image.open(target) as picture:
        assert picture.info["dpi"] == (600, 600)
        assert picture.getexif()[0x011A] == 600


def test_a_resolution_that_jpeg_cannot_state_is_left_out(tmp_path) -> None:
    """It has 16 bits for it; a larger one would become another number."""
    source = ImageFile(noise(H, W), "YX", tmp_path, dpi=(20_000, 20_000))
    for scale, expected in ((3, (60_000, 60_000)), (4, None)):
        path = tmp_path / f"{scale}.jpg"
        write_image(path, source.pixels, source, scale)
        with Image.open(path) as picture:
            assert picture.info.get("dpi") == expected


# TIFF

TIFF_DTYPES = ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16",
               "float32", "float64"]  # fmt: skip


@pytest.mark.parametrize("dtype", TIFF_DTYPES)
def test_tiff_of_every_dtype(tmp_path, dtype) -> None:
    pixels = noise(H, W, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].dtype == np.dtype(dtype)
        bits = 1 if dtype == "bool" else np.dtype(dtype).itemsize * 8
        assert tif.pages[0].bitspersample == bits
    assert round_trip(tmp_path / "x.tif").axes == "YX"


LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "gray": ((H, W), {}, "YX"),
    "RGB": ((H, W, 3), {"photometric": "rgb"}, "YXS"),
    "RGBA": ((H, W, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, "YXS"),
    "RGBA premultiplied": ((H, W, 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]},
                           "YXS"),
    "gray alpha": ((H, W, 2), {"photometric": "minisblack", "planarconfig": "contig",
                               "extrasamples": ["unassalpha"]}, "YXS"),
    "planar RGB": ((3, H, W), {"photometric": "rgb", "planarconfig": "separate"}, "SYX"),
    "pages": ((5, H, W), {"photometric": "minisblack"}, "QYX"),
    "pages without a word": ((5, H, W), {"photometric": "minisblack", "metadata": None}, "IYX"),
    "two axes without a name": ((2, 5, H, W), {"photometric": "minisblack"}, "QRYX"),
    "RGB pages": ((5, H, W, 3), {"photometric": "rgb"}, "QYXS"),
    "planar RGB pages": ((5, 3, H, W), {"photometric": "rgb", "planarconfig": "separate"}, "QSYX"),
    "named axes": ((2, 3, H, W), {"photometric": "minisblack", "metadata": {"axes": "TCYX"}},
                   "TCYX"),
    "tiles": ((64, 80), {"tile": (16, 32)}, "YX"),
    "strips": ((64, 80), {"rowsperstrip": 5}, "YX"),
    "big endian": ((H, W), {"byteorder": ">"}, "YX"),
    "BigTIFF": ((H, W), {"bigtiff": True}, "YX"),
    "predictor": ((H, W), {"compression": "zlib", "predictor": True}, "YX"),
}  # fmt: skip


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_of_every_layout(tmp_path, layout, dtype) -> None:
    shape, options, axes = LAYOUTS[layout]
    pixels = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.axes == axes
    assert round_trip(target).axes == axes
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(target) as after:
        for name in ("PhotometricInterpretation", "PlanarConfiguration", "ExtraSamples"):
            a, b = (t.pages[0].tags.get(name) for t in (before, after))
            assert (a and a.value) == (b and b.value), name
        assert after.pages[0].resolution == (1, 1)  # none is invented
        assert len(before.pages) == len(after.pages)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", None])
def test_lossless_compression_stays(tmp_path, compression) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W, 3), photometric="rgb", compression=compression)
    _, target = rewritten(tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(target) as after:
        assert after.pages[0].compression == before.pages[0].compression
    round_trip(tmp_path / "x.tif")


@pytest.mark.parametrize("compression", ["jpeg", "packbits", "lzma"])
def test_other_compression_becomes_zlib(tmp_path, compression) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(16, 16, 3), photometric="rgb",
                     compression=compression)  # fmt: skip
    _, target = rewritten(tmp_path / "x.tif")
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    round_trip(tmp_path / "x.tif")


def test_jpeg_in_tiff_is_read_as_rgb(tmp_path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    pixels = np.stack([smooth, smooth // 2, 200 - smooth], -1)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", compression="jpeg",
                     compressionargs={"level": 95})  # fmt: skip
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.YCBCR
    image, target = rewritten(tmp_path / "x.tif")
    assert np.abs(image.pixels.astype(int) - pixels).mean() < 2
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.RGB


@pytest.mark.parametrize("last", [True, False], ids=["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_samples_that_are_not_colours_are_channels(tmp_path, channels, last) -> None:
    """Several gray samples per pixel are channels of a microscope or a scanner, not colours."""
    pixels = noise(*((H, W, channels) if last else (channels, H, W)), dtype=np.uint16)
    config = "contig" if last else "separate"
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack", planarconfig=config)
    image, target = rewritten(tmp_path / "x.tif")
    assert image.axes == ("YXC" if last else "CYX")
    round_trip(tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(target) as after:
        for name in ("PhotometricInterpretation", "PlanarConfiguration", "ExtraSamples",
                     "SamplesPerPixel"):  # fmt: skip
            assert after.pages[0].tags[name].value == before.pages[0].tags[name].value, name


def test_rgb_with_infrared_is_four_channels(tmp_path) -> None:
    """A fourth sample that is not declared as alpha hides nothing."""
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W, 4), photometric="rgb",
                     extrasamples=["unspecified"])  # fmt: skip
    image, target = rewritten(tmp_path / "x.tif")
    assert image.axes == "YXC"
    round_trip(tmp_path / "x.tif")
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
        assert tif.pages[0].extrasamples == (0,)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "uint16"])
def test_white_is_zero_is_kept(tmp_path, dtype) -> None:
    """As in faxes: the values are kept, and so is their meaning."""
    pixels = noise(H, W, dtype=dtype)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="miniswhite")
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    round_trip(tmp_path / "x.tif")
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
    _, png = rewritten(tmp_path / "x.tif", to="x.png")  # PNG can't say so
    np.testing.assert_array_equal(read_image(png).pixels, ~larger(image))


def test_one_bit_colour_is_refused_where_it_would_be_written_wrongly(tmp_path) -> None:
    """tifffile would write wrong values."""
    for name in ("x.tif", "x.png"):
        source = ImageFile(noise(H, W, 3, dtype=bool), "YXS", tmp_path)
        with pytest.raises(FileFormatError, match="1 bit"):
            write_image(tmp_path / name, larger(source), source, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_tiff_without_photometric_interpretation(tmp_path) -> None:
    """Without PhotometricInterpretation, black is zero."""
    pixels = noise(H, W)
    tifffile.imwrite(tmp_path / "x.tif", pixels, metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        at = tif.pages[0].tags["PhotometricInterpretation"].offset
    data = bytearray((tmp_path / "x.tif").read_bytes())
    data[at : at + 2] = struct.pack("<H", 65_000)  # a private tag in its place
    (tmp_path / "x.tif").write_bytes(data)
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK


def test_a_palette_over_pages_becomes_colour(tmp_path) -> None:
    colours = noise(3, 256, dtype=np.uint8).astype(np.uint16) * 257
    pixels = noise(5, H, W)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="palette", colormap=colours)
    image = read_image(tmp_path / "x.tif")
    assert image.axes == "QYXS"
    np.testing.assert_array_equal(image.pixels, np.moveaxis(colours[:, pixels] // 257, 0, -1))
    round_trip(tmp_path / "x.tif")


@pytest.mark.parametrize(("photometric", "samples"), [("cielab", 3), ("separated", 4)])
def test_other_colour_spaces_are_refused(tmp_path, photometric, samples) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W, samples), photometric=photometric)
    with pytest.raises(FileFormatError, match=r"expected gray or RGB, got C.*convert it to RGB"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("unit", ["inch", "centimeter", "none"])
def test_tiff_resolution_is_multiplied_in_its_unit(tmp_path, unit) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), resolution=(300, 150.5), resolutionunit=unit)
    _, target = rewritten(tmp_path / "x.tif", 4)
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(target) as after:
        assert after.pages[0].resolution == pytest.approx((1200, 602))
        assert after.pages[0].resolutionunit == before.pages[0].resolutionunit


def test_tiff_orientation_and_profile(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(5, H, W, 3), photometric="rgb", iccprofile=ICC,
                     extratags=[(274, 3, 1, 6, True)])  # fmt: skip
    image, target = rewritten(tmp_path / "x.tif")
    assert image.icc == ICC
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].tags["Orientation"].value == 6
        assert tif.pages[0].tags["InterColorProfile"].value == ICC


def test_a_note_says_that_only_the_first_image_is_read(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as tif:
        tif.write(noise(H, W), metadata=None)
        tif.write(noise(2 * H, W), metadata=None)
    image = read_image(tmp_path / "x.tif")
    assert image.pixels.shape == (H, W)
    assert image.notes == ("only the first of 2 images in the file was read",)


# ImageJ


def test_an_imagej_hyperstack(tmp_path) -> None:
    pixels = noise(2, 3, 4, H, W, dtype=np.uint16)
    about = {
        "axes": "TZCYX", "spacing": 0.7, "unit": "um", "finterval": 3.5, "fps": 2.0, "min": 5.0,
        "max": 777.0, "mode": "composite", "loop": True, "Info": "a note",
        "Labels": [f"slice {i}" for i in range(24)],
        "Ranges": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
        "LUTs": [noise(3, 256, seed=i) for i in range(4)],
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "x.tif", pixels, imagej=True, resolution=(2.5, 1.25),
                     metadata=about)  # fmt: skip
    image, target = rewritten(tmp_path / "x.tif", 2)
    assert image.axes == "TZCYX"
    assert round_trip(tmp_path / "x.tif").axes == "TZCYX"
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(target) as after:
        assert after.is_imagej
        assert after.pages[0].resolution == pytest.approx((5.0, 2.5))  # pixels per um
        a, b = dict(before.imagej_metadata), dict(after.imagej_metadata)
        luts = a.pop("LUTs"), b.pop("LUTs")
        assert a == b
        assert b["spacing"] == 0.7  # Z is not upscaled
        assert (b["frames"], b["slices"], b["channels"]) == (2, 3, 4)
        np.testing.assert_array_equal(*luts)


@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("YX", (H, W), "uint8"),
        ("ZYX", (3, H, W), "uint16"),
        ("CYX", (2, H, W), "float32"),
        ("TZYX", (2, 3, H, W), "uint8"),
        ("YXS", (H, W, 3), "uint8"),
        ("ZYXS", (4, H, W, 3), "uint8"),
    ],
)
def test_imagej_images_with_fewer_axes(tmp_path, axes, shape, dtype) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif", noise(*shape, dtype=dtype), imagej=True, metadata={"axes": axes}
    )
    image, target = rewritten(tmp_path / "x.tif")
    assert image.axes == axes
    round_trip(target)
    with tifffile.TiffFile(target) as tif:
        assert tif.is_imagej


def test_a_lookup_table_of_imagej_is_kept_with_the_values(tmp_path) -> None:
    """Such as Fire: the values are intensities, the table is how they are shown."""
    table = noise(3, 256).astype(np.uint16) * 257
    pixels = noise(H, W)
    tifffile.imwrite(tmp_path / "x.tif", pixels, imagej=True, colormap=table)
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.axes == "YX"
    with tifffile.TiffFile(target) as tif:
        assert tif.is_imagej
        np.testing.assert_array_equal(tif.pages[0].colormap, table)
    round_trip(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("stored", "kept"), [(b"micron", "micron"), (b"\\u00B5m", "\\u00B5m"), (b"\xb5m", "\\u00B5m")]
)
def test_units_of_imagej(tmp_path, stored, kept) -> None:
    """ImageJ writes an escape for the micro sign; older programs write the sign itself."""
    mark = "q" * len(stored)
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), imagej=True, metadata={"unit": mark},
                     resolution=(1, 1))  # fmt: skip
    data = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(data.replace(b"unit=" + mark.encode(), b"unit=" + stored))
    _, target = rewritten(tmp_path / "x.tif")
    with tifffile.TiffFile(target) as tif:
        assert tif.imagej_metadata["unit"] == kept
        assert tif.pages[0].resolution == (2, 2)  # one pixel per unit, so now two


def test_a_note_says_that_regions_of_imagej_are_left_out(tmp_path) -> None:
    """They are in pixels of the small image, in a private format of ImageJ."""
    about = {"ROI": b"Iout" + bytes(60), "Overlays": [b"Iout" + bytes(60)]}
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), imagej=True, metadata=about)
    image, target = rewritten(tmp_path / "x.tif")
    assert image.notes == ("ImageJ's regions and overlays are not carried over",)
    with tifffile.TiffFile(target) as tif:
        assert not {"ROI", "Overlays"} & set(tif.imagej_metadata)


def test_the_origin_of_imagej_moves_with_the_pixels(tmp_path) -> None:
    """ImageJ's x is (column - origin) * pixel size, columns counted from pixel centres."""
    about = {"xorigin": 3.0, "yorigin": 0.0, "zorigin": 2.0}
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), imagej=True, metadata=about)
    _, target = rewritten(tmp_path / "x.tif", 4)
    with tifffile.TiffFile(target) as tif:
        after = tif.imagej_metadata
    assert (after["xorigin"], after["yorigin"], after["zorigin"]) == (13.5, 1.5, 2.0)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [((H, W, 3), "float32", "YXS"), ((2, H, W), "float64", "ZYX"), ((H, W, 4), "uint8", "YXS"),
     ((2, 3, H, W), "uint8", "CZYX")],
    ids=["float colour", "float64", "alpha", "other order"],
)  # fmt: skip
def test_what_imagej_cannot_hold_becomes_a_plain_tiff(tmp_path, shape, dtype, axes) -> None:
    tifffile.imwrite(tmp_path / "x.tif", noise(2, 3, H, W), imagej=True,
                     metadata={"axes": "TZYX"}, resolution=(2, 2))  # fmt: skip
    source = read_image(tmp_path / "x.tif")
    changed = ImageFile(noise(*shape, dtype=dtype), axes, tmp_path, tiff=source.tiff)
    write_image(tmp_path / "out.tif", larger(changed), changed, 2)
    again = read_image(tmp_path / "out.tif")
    assert again.axes == axes
    np.testing.assert_array_equal(again.pixels, larger(changed))
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert not tif.is_imagej
        assert tif.pages[0].resolution == (4, 4)


def test_a_difference_does_not_get_the_display_range(tmp_path) -> None:
    about = {"min": 5.0, "max": 99.0, "Ranges": (5.0, 99.0), "Info": "a note"}
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), imagej=True, metadata=about)
    image = read_image(tmp_path / "x.tif")
    write_image(tmp_path / "d.tif", larger(image).astype(np.float32), image, 2)
    with tifffile.TiffFile(tmp_path / "d.tif") as tif:
        assert tif.imagej_metadata["Info"] == "a note"
        assert not {"min", "max", "Ranges"} & set(tif.imagej_metadata)


# OME


OME = {
    "axes": "TCZYX", "Name": "007",
    "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "nm",
    "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm",
    "TimeIncrement": 0.1, "TimeIncrementUnit": "s",
    "Channel": {"Name": ["DAPI", "488", "a & <b>"], "Color": [-1, 255, 65535],
                "EmissionWavelength": [450.0, 520.0, 610.0],
                "EmissionWavelengthUnit": ["nm"] * 3},
}  # fmt: skip


def ome_attributes(path: Path) -> tuple[dict[str, str], list[dict[str, str]], str]:
    """Attributes of Pixels and of each Channel, and the name of the image."""
    from xml.etree import ElementTree

    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        image = ElementTree.fromstring(tif.ome_metadata).find("{*}Image")
    pixels = image.find("{*}Pixels")
    channels = [dict(c.attrib) for c in pixels.findall("{*}Channel")]
    return dict(pixels.attrib), channels, image.get("Name", "")


def test_ome_tiff(tmp_path) -> None:
    pixels = noise(2, 3, 4, H, W, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.ome.tif", pixels, metadata=OME)
    _, target = rewritten(tmp_path / "x.ome.tif", 4)
    round_trip(tmp_path / "x.ome.tif", 3)
    (before, channels, _), (after, kept, name) = map(ome_attributes, (tmp_path / "x.ome.tif",
                                                                      target))  # fmt: skip
    assert float(after.pop("PhysicalSizeX")) == float(before.pop("PhysicalSizeX")) / 4 == 0.125
    assert float(after.pop("PhysicalSizeY")) == float(before.pop("PhysicalSizeY")) / 4 == 0.0625
    assert (int(after.pop("SizeX")), int(after.pop("SizeY"))) == (4 * W, 4 * H)
    del before["SizeX"], before["SizeY"]
    assert after == before  # Z, time, units, order of axes
    assert after["PhysicalSizeZ"] == "2.0"
    assert kept == channels
    assert [c["Name"] for c in kept] == ["DAPI", "488", "a & <b>"]
    assert name == "007"


@pytest.mark.parametrize(
    ("shape", "axes"), [((H, W), "YX"), ((H, W, 3), "YXS"), ((4, H, W, 3), "ZYXS"),
                        ((3, H, W), "CYX"), ((2, 5, H, W), "ZTYX")]
)  # fmt: skip
def test_ome_with_other_axes(tmp_path, shape, axes) -> None:
    options = {"photometric": "rgb"} if axes.endswith("S") else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "x.ome.tif", noise(*shape), metadata={"axes": axes}, **options)
    image, target = rewritten(tmp_path / "x.ome.tif")
    assert image.axes == axes
    before, after = (ome_attributes(p)[0] for p in (tmp_path / "x.ome.tif", target))
    assert {k: v for k, v in after.items() if k not in ("SizeX", "SizeY")} == {
        k: v for k, v in before.items() if k not in ("SizeX", "SizeY")
    }
    round_trip(tmp_path / "x.ome.tif")


def test_ome_with_names_for_some_channels_only(tmp_path) -> None:
    about = {"axes": "CYX", "Channel": {"Name": ["one", "two"]}}
    tifffile.imwrite(tmp_path / "x.ome.tif", noise(2, H, W), metadata=about)
    data = (tmp_path / "x.ome.tif").read_bytes()
    assert data.count(b' Name="two"') == 1
    (tmp_path / "x.ome.tif").write_bytes(data.replace(b' Name="two"', b"           "))
    _, target = rewritten(tmp_path / "x.ome.tif")
    assert [c.get("Name") for c in ome_attributes(target)[1]] == ["one", ""]


def test_ome_with_names_in_a_namespace(tmp_path) -> None:
    """As older programs write it: <OME:OME xmlns:OME=...>."""
    xml = (
        '<?xml version="1.0"?><ome:OME xmlns:ome="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<ome:Image ID="Image:0" Name="n"><ome:Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint8" SizeX="{W}" SizeY="{H}" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="0.5">'
        '<ome:Channel ID="Channel:0:0" Name="c"/><ome:TiffData/></ome:Pixels></ome:Image></ome:OME>'
    )
    tifffile.imwrite(tmp_path / "x.tif", noise(H, W), description=xml, metadata=None)
    _, target = rewritten(tmp_path / "x.tif")
    pixels, channels, name = ome_attributes(target)
    assert (pixels["PhysicalSizeX"], channels[0]["Name"], name) == ("0.25", "c", "n")


def test_damaged_ome_xml_loses_only_the_metadata(tmp_path, caplog) -> None:
    pixels = noise(H, W)
    xml = '<?xml version="1.0"?><OME><Image><Pixels SizeX="</OME>'
    tifffile.imwrite(tmp_path / "x.tif", pixels, description=xml, metadata=None)
    image, target = rewritten(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.notes == ("the OME metadata can't be read and are not carried over",)
    np.testing.assert_array_equal(read_image(target).pixels, larger(image))


# from one format to another


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_to_tiff_and_back_keeps_resolution_and_profile(tmp_path, suffix) -> None:
    Image.fromarray(noise(H, W, 3)).save(
        tmp_path / f"x{suffix}", dpi=(72, 72), **({} if suffix == ".tif" else {"icc_profile": ICC})
    )
    _, tif = rewritten(tmp_path / f"x{suffix}", 2, to="a.tif")
    _, png = rewritten(tif, 2, to="a.png")
    with tifffile.TiffFile(tif) as file:
        assert file.pages[0].resolution == pytest.approx((144, 144), rel=1e-3)
        assert file.pages[0].resolutionunit == tifffile.RESUNIT.INCH
    with Image.open(png) as picture:
        assert picture.info["dpi"] == pytest.approx((288, 288), rel=1e-3)
        assert picture.info.get("icc_profile") == (None if suffix == ".tif" else ICC)


# texts: who took the image, when and with what

TEXTS = {
    270: "A cell, seen by é".encode(),
    271: b"Me",  # so short that it lies in the entry itself
    272: b"Model 1",
    305: b"Firmware 2.0",
    306: b"2024:02:03 04:05:06",
    315: "Zoë".encode(),
    33432: b"photographer\0editor",
    36867: b"2024:01:02 03:04:05",
}  # fmt: skip
LEFT_OUT = "EXIF beyond camera, date and author is not carried over"


def exif_of(texts: dict[int, bytes], inner: dict[int, Any] | None = None) -> Image.Exif:
    """EXIF with these texts, the time of taking and more in the camera's directory."""
    exif = Image.Exif()
    for tag, text in texts.items():
        if tag == 36867:
            exif.get_ifd(0x8769)[tag] = text.decode()
        else:
            exif[tag] = text
    exif.get_ifd(0x8769).update(inner or {})
    return exif


def texts_of(path: Path) -> dict[int, bytes]:
    """The texts that a TIFF holds in its first directory, byte for byte."""
    with tifffile.TiffFile(path) as tif:
        tags = [tag for tag in tif.pages[0].tags if tag.code in TEXTS and tag.dtype == 2]
        data = path.read_bytes()
        found: dict[int, bytes] = {}
        for tag in tags:
            value = data[tag.valueoffset : tag.valueoffset + tag.valuebytecount]
            found.setdefault(tag.code, value.rstrip(b"\0"))
    return found


def texts_in_exif(path: Path) -> dict[int, Any]:
    with Image.open(path) as picture:
        exif = picture.getexif()
        return dict(exif) | dict(exif.get_ifd(0x8769))


def save_tiff(path: Path, pixels: np.ndarray, texts: dict[int, bytes], **options: Any) -> None:
    """Write with texts; the description and the software are arguments of their own."""
    texts = dict(texts)
    for tag, name in ((270, "description"), (305, "software")):
        if tag in texts:
            options[name] = texts.pop(tag)
    tags = [*options.pop("extratags", []), *((t, 2, 0, text, True) for t, text in texts.items())]
    tifffile.imwrite(path, pixels, extratags=tags, **options)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_texts_of_a_photo_are_kept_in_a_tiff(tmp_path, suffix) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(H, W, 3)).save(path, exif=exif_of(TEXTS))
    image, target = rewritten(path, to="y.tif")
    assert texts_of(target) == TEXTS
    with tifffile.TiffFile(target) as tif:
        assert tif.pages[0].tags.get("Orientation") is None
    _, again = rewritten(target, to="z.tif")
    assert texts_of(again) == TEXTS
    assert write_image(tmp_path / "n.tif", larger(image), image, 2) == ()
    assert read_image(target).pixels.shape == (2 * H, 2 * W, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_note_says_what_a_tiff_can_not_keep_of_exif(tmp_path, order) -> None:
    more = {0x829A: (1, 250), 0x927C: b"maker note"}
    for i, exif in enumerate([exif_of(TEXTS, more).tobytes(), exif_bytes(order)]):
        Image.fromarray(noise(H, W, 3)).save(tmp_path / f"{i}.jpg", exif=exif)
        image = read_image(tmp_path / f"{i}.jpg")
        assert image.notes == ()
        assert write_image(tmp_path / f"{i}.tif", larger(image), image, 2) == (LEFT_OUT,)
        assert write_image(tmp_path / f"{i}.png", larger(image), image, 2) == ()
    assert texts_of(tmp_path / "0.tif") == TEXTS
    with tifffile.TiffFile(tmp_path / "1.tif") as tif:
        assert tif.pages[0].tags["Orientation"].value == 6


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((H, W), {}),
        ((H, W), {"metadata": None, "byteorder": ">", "bigtiff": True}),
        ((H, W, 3), {"photometric": "rgb"}),
        ((3, H, W), {"photometric": "rgb", "planarconfig": "separate"}),
        ((5, H, W), {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}),
        ((5, H, W), {"photometric": "minisblack", "metadata": None}),
    ],
    ids=["gray", "big", "colour", "planar", "named stack", "stack"],
)
def test_texts_of_a_tiff_are_kept(tmp_path, shape, options) -> None:
    save_tiff(tmp_path / "x.tif", noise(*shape), TEXTS, **options)
    image, target = rewritten(tmp_path / "x.tif")
    assert image.notes == ()
    assert texts_of(target) == TEXTS
    assert round_trip(target).axes == image.axes
    with Image.open(target) as picture:  # it reads the last of two descriptions
        if len(image.axes.replace("S", "")) == 2:
            assert not str(picture.tag_v2[270]).startswith("{")


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_imagej_and_ome_keep_their_own_description(tmp_path, kind) -> None:
    texts = {tag: text for tag, text in TEXTS.items() if tag != 270}
    save_tiff(tmp_path / "x.tif", noise(5, H, W), texts, metadata={"axes": "ZYX"},
              **{kind: True})  # fmt: skip
    _, target = rewritten(tmp_path / "x.tif")
    kept = texts_of(target)
    assert kept.pop(270) != TEXTS[270]
    assert kept == texts
    with tifffile.TiffFile(target) as tif:
        assert getattr(tif, f"is_{kind}")
        assert len(tif.pages[0].description) > 20
    round_trip(target)
    tifffile.imwrite(tmp_path / "one.tif", noise(H, W), **{kind: True})
    _, png = rewritten(tmp_path / "one.tif", to="x.png")
    with Image.open(png) as picture:  # the only texts were those of the programs
        assert "exif" not in picture.info


@pytest.mark.parametrize("text", [b"ImageJ=1.54f\nimages=7\n", b"Aperio Image Library v10",
                                  b'{"shape": [7, 7]}', b"<OME></OME>"])  # fmt: skip
def test_a_description_that_would_make_it_another_kind_of_file(tmp_path, text) -> None:
    """A JPEG exported from such a file may have one."""
    Image.fromarray(noise(H, W, 3)).save(tmp_path / "x.jpg", exif=exif_of(TEXTS | {270: text}))
    image = read_image(tmp_path / "x.jpg")
    notes = write_image(tmp_path / "y.tif", larger(image), image, 2)
    assert notes == ("a description in the format of a program is not carried over",)
    np.testing.assert_array_equal(read_image(tmp_path / "y.tif").pixels, larger(image))
    rest = {tag: value for tag, value in TEXTS.items() if tag != 270}
    assert {k: v for k, v in texts_of(tmp_path / "y.tif").items() if k != 270} == rest


def test_a_note_says_that_exif_inside_a_tiff_is_left_out(tmp_path) -> None:
    for more, notes in (({0x829A: (1, 250)}, (LEFT_OUT,)), ({}, ())):
        exif = exif_of(TEXTS, more)
        exif[0x8769] = dict(exif.get_ifd(0x8769))  # else Pillow leaves it out of a TIFF
        Image.fromarray(noise(H, W, 3)).save(tmp_path / "x.tif", exif=exif)
        image = read_image(tmp_path / "x.tif")
        assert image.notes == notes
        write_image(tmp_path / "y.tif", larger(image), image, 2, overwrite=True)
        kept = texts_of(tmp_path / "y.tif")
        assert kept[36867] == TEXTS[36867]  # it was in the camera's directory
        assert kept.keys() == TEXTS.keys()
        assert kept[33432] == TEXTS[33432]


def test_a_text_with_a_length_beyond_exif(tmp_path) -> None:
    exif = bytearray(exif_of({271: b"A maker", 272: b"A model"}).tobytes())
    order = "<" if exif[6:8] == b"II" else ">"
    at = exif.index(struct.pack(f"{order}HHI", 271, 2, 8)) + 4
    exif[at : at + 4] = struct.pack(f"{order}I", 2**31)
    source = ImageFile(noise(H, W, 3), "YXS", tmp_path, exif=bytes(exif))
    write_image(tmp_path / "x.tif", larger(source), source, 2)
    assert {k: v for k, v in texts_of(tmp_path / "x.tif").items() if k in (271, 272)} == {
        272: b"A model"
    }


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_texts_of_a_tiff_become_exif(tmp_path, suffix, dtype) -> None:
    save_tiff(tmp_path / "x.tif", noise(H, W, 3, dtype=dtype), TEXTS, photometric="rgb",
              extratags=[(274, 3, 1, 6, True)])  # fmt: skip
    image = read_image(tmp_path / "x.tif")
    target = tmp_path / f"y{suffix}"
    pixels = larger(image) if suffix == ".png" else larger(image).astype(np.uint8)
    assert write_image(target, pixels, image, 2) == ()
    found = texts_in_exif(target)
    assert found[274] == 6
    for tag, text in TEXTS.items():
        assert found[tag] in (text.decode("latin-1"), text.decode("latin-1").split("\0")[0]), tag
    _, again = rewritten(target, to="z.tif")
    assert texts_of(again) == TEXTS


def test_a_description_that_is_too_long_for_jpeg(tmp_path) -> None:
    """EXIF in a JPEG is limited to 64 KiB, in a PNG and a TIFF it is not."""
    save_tiff(tmp_path / "x.tif", noise(H, W), TEXTS | {270: b"x" * 70_000})
    image = read_image(tmp_path / "x.tif")
    notes = write_image(tmp_path / "x.jpg", larger(image), image, 2)
    assert notes == ("EXIF is too long for JPEG and is not carried over",)
    assert read_image(tmp_path / "x.jpg").exif is None
    assert write_image(tmp_path / "x.png", larger(image), image, 2) == ()
    assert len(texts_in_exif(tmp_path / "x.png")[270]) == 70_000


@pytest.mark.parametrize("raw", [b"caf\xe9", b"\xff\xfe\x00a", b" ", b"line 1\nline 2"])
def test_texts_in_any_encoding_are_kept(tmp_path, raw) -> None:
    save_tiff(tmp_path / "x.tif", noise(H, W), dict.fromkeys((270, 271, 305, 33432), raw))
    _, target = rewritten(tmp_path / "x.tif")
    kept = texts_of(target)
    assert kept.get(271) == (raw if raw.strip() else None)
    _, png = rewritten(target, to="x.png")
    _, again = rewritten(png, to="y.tif")
    assert texts_of(again).get(33432) == kept.get(33432)


def test_a_difference_of_a_png_is_a_float_tiff(tmp_path) -> None:
    """Colour without alpha, and gray without alpha, with a last axis of length 1."""
    for samples in (1, 3):
        source = ImageFile(noise(H, W, samples + 1), "YXS", tmp_path, dpi=(72, 72), icc=ICC)
        difference = noise(2 * H, 2 * W, samples, dtype=np.float32)
        write_image(tmp_path / f"d{samples}.tif", difference, source, 2)
        again = read_image(tmp_path / f"d{samples}.tif")
        np.testing.assert_array_equal(again.pixels.squeeze(), difference.squeeze())
        assert again.pixels.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "pixels", "axes", "reason"),
    [
        ("x.png", noise(H, W, dtype=np.float32), "YX", "can't hold float32: write a .tif"),
        ("x.png", noise(H, W, dtype=np.int16), "YX", "can't hold int16: write a .tif"),
        ("x.png", noise(3, H, W), "ZYX", "expected a single image, got axes ZYX: write a .tif"),
        ("x.png", noise(H, W, 5), "YXC", "expected a single image"),
        ("x.jpg", noise(H, W, dtype=np.uint16), "YX", "can't hold uint16"),
        ("x.jpg", noise(H, W, dtype=bool), "YX", "8-bit gray or RGB only: write a .png"),
        ("x.jpg", noise(H, W, 4), "YXS", "8-bit gray or RGB only: write a .png"),
        ("x.jpg", noise(H, W, 2), "YXS", "8-bit gray or RGB only: write a .png"),
        ("x.bmp", noise(H, W), "YX", "expected one of .png, .jpg, .jpeg, .tif, .tiff, got '.bmp'"),
        ("x", noise(H, W), "YX", "got ''"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path, name, pixels, axes, reason) -> None:
    source = ImageFile(pixels, axes, tmp_path)
    with pytest.raises(FileFormatError) as caught:
        write_image(tmp_path / name, larger(source), source, 2)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_planar_colour_becomes_a_png(tmp_path) -> None:
    source = ImageFile(noise(3, H, W), "SYX", tmp_path)
    write_image(tmp_path / "x.png", larger(source), source, 2)
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.png").pixels, larger(source).transpose(1, 2, 0)
    )


@settings(deadline=None)
@given(axes_and_shapes(), dtypes, st.sampled_from(["plain", "imagej", "ome"]))
def test_any_axes_and_dtype_round_trip_in_tiff_or_are_refused(
    tmp_path_factory, named, dtype, kind
) -> None:
    axes, shape = named
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    path = folder / "x.tif"
    tifffile.imwrite(path, noise(H, W), imagej=kind == "imagej", ome=kind == "ome")
    source = ImageFile(values(dtype, shape, 0), axes, path, tiff=read_image(path).tiff)
    samples = shape[axes.index("S")] if "S" in axes else 1
    fits = axes.endswith(("YXS", "SYX")) if samples > 1 else axes.replace("S", "").endswith("YX")
    fits &= not (samples > 1 and dtype.kind == "b" and axes.endswith("S"))
    fits &= not (kind == "ome" and dtype == np.float16)
    refused = False
    try:
        write_image(path, source.pixels, source, 1, overwrite=True)
    except FileFormatError:
        refused = True
    assert list(folder.iterdir()) == [path]
    if refused:
        assert not fits
        return
    again = read_image(path)
    assert again.pixels.dtype == dtype
    np.testing.assert_array_equal(again.pixels.squeeze(), source.pixels.squeeze())


# what can't be read


@pytest.mark.parametrize("name", ["nothing.png", "x" * 5000 + ".png", "folder.tif"])
def test_no_such_file(tmp_path, name) -> None:
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(FileFormatError, match="expected an image file, there is no such file"):
        read_image(tmp_path / name)


def test_another_format_is_recognised_by_suffix_and_content(tmp_path) -> None:
    path = tmp_path / "x.gif"
    Image.fromarray(noise(H, W)).save(path)
    with pytest.raises(FileFormatError, match=r"expected one of \.png, .*, got '\.gif'"):
        read_image(path)
    for suffix in (".png", ".jpg"):
        path = path.rename(path.with_suffix(suffix))
        with pytest.raises(FileFormatError, match="expected PNG or JPEG inside, got GIF"):
            read_image(path)


def test_a_jpeg_with_the_suffix_of_png(tmp_path) -> None:
    Image.fromarray(noise(H, W)).save(tmp_path / "x.jpg")
    path = (tmp_path / "x.jpg").rename(tmp_path / "x.png")
    assert read_image(path).pixels.shape == (H, W)
    round_trip(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\0" * 99]
)
def test_files_that_are_not_images_give_one_clear_line(tmp_path, suffix, content) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("name", "dtype", "samples"),
    [("x.png", "uint8", 3), ("x.png", "uint16", 3), ("x.png", "uint16", 1), ("x.jpg", "uint8", 3),
     ("x.tif", "uint8", 3), ("z.tif", "uint16", 1)],
)  # fmt: skip
def test_a_truncated_image_is_an_error_and_not_black(tmp_path, name, dtype, samples, share) -> None:
    pixels = noise(*((64, 64, samples) if samples > 1 else (64, 64)), dtype=dtype)
    path = tmp_path / name
    if path.suffix == ".tif":
        compression = "zlib" if name == "z.tif" else None
        photometric = "rgb" if samples == 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=photometric, compression=compression)
    else:
        save_png(path, pixels)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FileFormatError):
        read_image(path)


def test_a_large_photo_raises_no_warning(tmp_path, monkeypatch) -> None:
    """Pillow warns beyond 89 million pixels, and refuses twice as many."""
    Image.fromarray(noise(H, W)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)
    assert read_image(tmp_path / "x.png").pixels.shape == (H, W)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W // 2 - 1)
    with pytest.raises(FileFormatError, match=r"too many pixels .*: convert it to \.tif"):
        read_image(tmp_path / "x.png")


# nothing is overwritten or left half-written


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path, name) -> None:
    source = ImageFile(noise(H, W, 3), "YXS", tmp_path)
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(OptionError, match="exists: pass overwrite=True to replace it"):
        write_image(tmp_path / name, larger(source), source, 2)
    assert (tmp_path / name).read_bytes() == b"precious"
    write_image(tmp_path / name, larger(source), source, 2, overwrite=True)
    assert read_image(tmp_path / name).pixels.shape == (2 * H, 2 * W, 3)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("old", [None, b"precious"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
def test_a_full_disk(tmp_path, name, old) -> None:
    if old is not None:
        (tmp_path / name).write_bytes(old)
    source = ImageFile(noise(99, 99, 3), "YXS", tmp_path)
    with files_of_at_most(4096), pytest.raises(FileFormatError, match="can't be written"):
        write_image(tmp_path / name, larger(source), source, 2, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ([] if old is None else [name])
    if old is not None:
        assert (tmp_path / name).read_bytes() == old


def _unforeseen(*_: object, **__: object) -> None:
    raise ValueError("something that an encoder says\nin two lines")


@pytest.mark.parametrize("fault", [full_disk, _unforeseen])
@pytest.mark.parametrize(
    ("name", "dtype", "where"),
    [
        ("x.png", "uint8", (Image.Image, "save")),
        ("x.jpg", "uint8", (Image.Image, "save")),
        ("x.png", "uint16", (imagecodecs, "png_encode")),
        ("x.tif", "uint8", (tifffile, "imwrite")),
    ],
)
def test_an_encoder_that_fails(tmp_path, monkeypatch, name, dtype, where, fault) -> None:
    (tmp_path / name).write_bytes(b"precious")
    source = ImageFile(noise(H, W, 3, dtype=dtype), "YXS", tmp_path)

    def half(*arguments: Any, **options: Any) -> None:
        for argument in arguments:
            if hasattr(argument, "write"):
                argument.write(b"half")
        fault()

    monkeypatch.setattr(*where, half)
    with pytest.raises(FileFormatError) as caught:
        write_image(tmp_path / name, larger(source), source, 2, overwrite=True)
    assert str(caught.value).startswith(f"{tmp_path / name}: can't be written (")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["file/x.png", "y" * 300 + ".png", "file/x.tif"])
def test_an_impossible_place(tmp_path, name) -> None:
    (tmp_path / "file").write_text("not a folder")
    source = ImageFile(noise(H, W), "YX", tmp_path)
    with pytest.raises(FileFormatError, match="can't be written"):
        write_image(tmp_path / name, larger(source), source, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# real files


def test_real_images_round_trip(data, tmp_path) -> None:
    """The first images of every data set."""
    images = 0
    for folder in (data / "benchmark/Set5/HR", *sorted((data / "microscopy").iterdir())):
        files = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES)
        for path in itertools.islice(files, 2):
            image = read_image(path)
            write_image(tmp_path / "x.tif", image.pixels, image, 1, overwrite=True)
            np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels, image.pixels)
            images += 1
    assert images >= 10


def test_a_file_is_not_left_open(tmp_path) -> None:
    """On some systems an open file can't be replaced or deleted."""
    for name in ("x.png", "x.tif"):
        source = ImageFile(noise(H, W), "YX", tmp_path)
        write_image(tmp_path / name, source.pixels, source, 1)
        image = read_image(tmp_path / name)
        (tmp_path / name).unlink()
        write_image(tmp_path / name, image.pixels, image, 1)
        assert (tmp_path / name).stat().st_size > 50
