"""Image files: pixels, axes and the metadata that must survive reading and writing.

Pixels are read by Pillow, by imagecodecs where Pillow would drop bits (16-bit PNG), and by tifffile
(see `tiff`). The ICC profile and EXIF with its orientation are copied unchanged, except for the
sizes and resolutions in EXIF, which are corrected.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_cfsr.core.image import pixel_space
from napari_cfsr.core.io.atomic import atomic_write, format_errors
from napari_cfsr.core.io.exif import exif_facts, exif_from_tiff, scaled_exif
from napari_cfsr.core.io.image_types import ImageFile, LazyImage
from napari_cfsr.core.io.tiff import EXIF_LEFT_OUT, WHITE_IS_ZERO, plain, read_tiff, write_tiff
from napari_cfsr.errors import FileFormatError, reason

Array = NDArray[Any]

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = PILLOW_SUFFIXES + TIFF_SUFFIXES
# end of the name, without suffix, of files written by `napari-cfsr upscale`
RESULT = re.compile(r"_x[234]_(baseline|delta|difference)(\.ome)?$", re.IGNORECASE)
JPEG_QUALITY = 95

LARGEST_JPEG_EXIF = 65533  # bytes


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Read a PNG, JPEG or TIFF (plain, ImageJ or OME).

    Raises
    ------
    FileFormatError
        No such file, an unsupported format, or a damaged file.
    """
    path = Path(path)
    suffix = _checked_suffix(path)
    with format_errors(path, "can't be read"):
        return read_tiff(path) if suffix in TIFF_SUFFIXES else _read_pillow(path)


def open_image(path: str | os.PathLike[str]) -> LazyImage:
    """Open an OME-Zarr store (a folder), a TIFF, a PNG or a JPEG, to be read piece by piece.

    Pixels of stores and TIFFs are read when they are indexed; PNG and JPEG are read completely.

    Raises
    ------
    FileFormatError
        No such file or store, an unsupported format, a damaged file, or an unfinished store.
    """
    path = Path(path)
    if path.is_dir():
        from napari_cfsr.core.io.ome_zarr import open_ome_zarr

        return open_ome_zarr(path)
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file():
        image = read_image(path)
        space = pixel_space(image.axes)
        return LazyImage(image.pixels, image.axes, path, space, (image.pixels,), None, image.notes)
    from napari_cfsr.core.io.lazy_tiff import open_tiff

    with format_errors(path, "can't be read"):
        return open_tiff(path)


def check_head(path: Path) -> tuple[str, ...]:
    """Check the header of a PNG or JPEG: raises what `read_image` would, and returns its notes.

    Quick, for folders with many files; damage further on only shows when the pixels are read.
    """
    suffix = _checked_suffix(path)
    if suffix in TIFF_SUFFIXES:
        raise FileFormatError(f"{path}: expected PNG or JPEG, got {suffix!r}")
    with (
        format_errors(path, "can't be read"),
        path.open("rb") as file,
        _opened(path, file) as image,
    ):
        return _checked_kind(path, image)


def _checked_suffix(path: Path) -> str:
    """The suffix of an existing file in a format that can be read."""
    exists = False
    with suppress(OSError):  # an impossible name
        exists = path.is_file()
    if not exists:
        raise FileFormatError(f"{path}: expected an image file, there is no such file")
    return _known_suffix(path)


def _known_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FileFormatError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {suffix!r}")
    return suffix


def write_image(
    path: Path, pixels: Array, source: ImageFile, scale: int, overwrite: bool = False
) -> tuple[str, ...]:
    """Write an image that is `scale` times larger than `source`, all of it or nothing.

    Parameters
    ----------
    path : Path
        Its suffix names the format; PNG and JPEG hold single images only.
    pixels : array
        Axes as in `source`; the colour axis may be shorter (no alpha).
    source : ImageFile
        Source of EXIF, ICC profile, resolution and the kind of TIFF.
    scale : int
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    tuple of str
        What this format can't keep of the source.

    Raises
    ------
    OptionError
        The file exists and `overwrite` is false.
    FileFormatError
        The format can't hold these pixels, or the disk is full or read-only.
    """
    with format_errors(path, "can't be written"):
        if _known_suffix(path) in TIFF_SUFFIXES:
            with atomic_write(path, overwrite) as file:
                return _write_tiff(file, pixels, source, scale)
        encoded, notes = _encode(pixels, source, scale, path)
        with atomic_write(path, overwrite) as file:
            file.write(encoded)
        return notes


def _write_tiff(file: BinaryIO, pixels: Array, source: ImageFile, scale: int) -> tuple[str, ...]:
    orientation, texts, has_more = exif_facts(source.exif)
    about = source.tiff or plain(source.dpi, orientation, texts)
    same_values = pixels.dtype == source.pixels.dtype
    notes = write_tiff(file, pixels, source.axes, about, scale, source.icc, same_values)
    return (EXIF_LEFT_OUT, *notes) if has_more else notes


# PNG and JPEG


def _read_pillow(path: Path) -> ImageFile:
    data = path.read_bytes()
    with _opened(path, io.BytesIO(data)) as image:
        notes = _checked_kind(path, image)
        exif = image.info.get("exif")
        if exif is None and image.getexif():  # stored elsewhere in the file
            exif = image.getexif().tobytes()
        dpi = image.info.get("dpi")
        icc = image.info.get("icc_profile")
        pixels = _pixels(image, data)
    axes = "YXS" if pixels.ndim == 3 else "YX"
    dpi = dpi and (float(dpi[0]), float(dpi[1]))
    return ImageFile(pixels, axes, path, exif, icc, dpi, notes=notes)


def _checked_kind(path: Path, image: Image.Image) -> tuple[str, ...]:
    """Notes on what is not read; raises `FileFormatError` for an image that can't be used."""
    if image.format not in ("PNG", "JPEG", "MPO"):
        raise FileFormatError(f"{path}: expected PNG or JPEG inside, got {image.format}")
    if image.mode == "CMYK":
        raise FileFormatError(f"{path}: expected gray or RGB, got CMYK: convert it to RGB first")
    frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
    return (f"only the first of {frames} frames was read",) if frames > 1 else ()


def _opened(path: Path, file: BinaryIO) -> Image.Image:
    try:
        with warnings.catch_warnings():  # about large photos and damaged EXIF
            warnings.simplefilter("ignore")
            return Image.open(file)
    except UnidentifiedImageError as error:
        raise FileFormatError(f"{path}: not an image, or damaged") from error
    except Image.DecompressionBombError as error:
        raise FileFormatError(
            f"{path}: too many pixels for {path.suffix} ({reason(error)}): convert it to .tif"
        ) from error


def _pixels(image: Image.Image, data: bytes) -> Array:
    """[Y,X] or [Y,X,S]; a palette becomes RGB, a transparent colour becomes alpha."""
    if image.format == "PNG" and data[24] == 16:  # bits per sample, in the header
        decoded: Array = imagecodecs.png_decode(data)
        return decoded
    if "transparency" in image.info:
        return np.asarray(image.convert("LA" if image.mode in ("1", "L") else "RGBA"))
    return np.asarray(image.convert("RGB") if image.mode == "P" else image)


def check_format(path: Path, axes: str, dtype: str, samples: int) -> None:
    """Raise `FileFormatError` where the format given by a suffix can't hold such an image.

    Parameters
    ----------
    path : Path
        A name with one of `SUFFIXES`.
    axes : str
        A letter for each dimension; colour samples are `S`.
    dtype : str
        Name of a dtype.
    samples : int
        Colour samples per pixel, alpha included.
    """
    suffix = _known_suffix(path)
    if suffix in TIFF_SUFFIXES:
        return
    if set(axes) - set("YXS"):
        raise FileFormatError(
            f"{path}: expected a single image, got axes {axes}: write a .tif instead"
        )
    png = suffix == ".png"
    if dtype not in ("uint8", "bool") and not (png and dtype == "uint16"):
        raise FileFormatError(f"{path}: {suffix} can't hold {dtype}: write a .tif instead")
    if dtype == "bool" and samples > 1:
        raise FileFormatError(f"{path}: {suffix} can't hold colours of 1 bit: write a .tif instead")
    if not png and (dtype != "uint8" or samples not in (1, 3)):
        raise FileFormatError(f"{path}: JPEG holds 8-bit gray or RGB only: write a .png instead")


def _encode(
    pixels: Array, source: ImageFile, scale: int, path: Path
) -> tuple[bytes, tuple[str, ...]]:
    """PNG or JPEG bytes with the metadata of `source`, and notes on what was left out."""
    samples = pixels.shape[source.axes.index("S")] if "S" in source.axes else 1
    check_format(path, source.axes, pixels.dtype.name, samples)
    png = path.suffix.lower() == ".png"
    order = [source.axes.index(name) for name in "YXS" if name in source.axes]
    pixels = np.ascontiguousarray(pixels.transpose(order))
    pixels = pixels[..., 0] if pixels.ndim == 3 and samples == 1 else pixels
    if source.tiff.get("photometric") == WHITE_IS_ZERO and pixels.dtype.kind in "bu":
        pixels = ~pixels  # PNG and JPEG can't say that white is zero
    dpi = source.dpi and (source.dpi[0] * scale, source.dpi[1] * scale)
    notes: tuple[str, ...] = ()
    if source.exif:
        exif: bytes | None = scaled_exif(source.exif, pixels.shape, scale)
    else:
        exif = exif_from_tiff(source.tiff.get("texts", {}), source.tiff.get("orientation"))
    if exif and not png and len(exif) > LARGEST_JPEG_EXIF:
        exif, notes = None, ("EXIF is too long for JPEG and is not carried over",)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return _with_chunks(bytes(imagecodecs.png_encode(pixels)), source.icc, exif, dpi), notes
    options: dict[str, Any] = {"icc_profile": source.icc}
    if exif:
        options["exif"] = exif
    if dpi and (png or max(dpi) < 2**16):  # JPEG has 16 bits for it
        options["dpi"] = dpi
    if not png:
        options |= {"quality": JPEG_QUALITY, "subsampling": 0}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if png else "JPEG", **options)
    return buffer.getvalue(), notes


def _with_chunks(
    png: bytes, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    """PNG bytes with metadata chunks inserted after the header (PNG specification, 11.3)."""
    chunks = b""
    if icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi:
        per_metre = [round(d / 0.0254) for d in dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    end_of_header = 8 + 12 + 13  # signature, then length, name, CRC and body of IHDR
    return png[:end_of_header] + chunks + png[end_of_header:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
