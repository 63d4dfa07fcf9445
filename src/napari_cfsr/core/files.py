"""Image files: pixels, axes and what must not be lost between reading and writing.

Pixels come from Pillow, from imagecodecs where Pillow would drop bits (16-bit colour PNG), and
from tifffile. EXIF with its orientation and the ICC profile are copied as they are; resolutions
and physical pixel sizes are divided by the scale.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_cfsr.errors import FileFormatError, OptionError

Array = NDArray[Any]

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = PILLOW_SUFFIXES + TIFF_SUFFIXES
JPEG_QUALITY = 95

EXIF_WIDTH, EXIF_HEIGHT, EXIF_IFD = 0xA002, 0xA003, 0x8769
TIFF_ORIENTATION = 274
LOSSLESS = {1: None, 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd"}
IMAGEJ_DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class ImageFile:
    """An image as read from a file.

    Attributes
    ----------
    pixels : array
    axes : str
        A letter for each dimension; colour samples are `S`.
    path : Path
    exif, icc : bytes or None
    dpi : (float, float) or None
        Pixels per inch in X and Y.
    tiff : dict
        What `write_image` needs to write a TIFF of the same kind.
    notes : tuple of str
        What was left out.
    """

    pixels: Array
    axes: str
    path: Path
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    tiff: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Read a PNG, JPEG or TIFF (plain, ImageJ or OME).

    Raises
    ------
    FileFormatError
        No such file, another format, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: expected an image file, there is no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FileFormatError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {suffix!r}")
    try:
        return _read_tiff(path) if suffix in TIFF_SUFFIXES else _read_pillow(path)
    except FileFormatError:
        raise
    except UnidentifiedImageError as error:
        raise FileFormatError(f"{path}: not an image, or damaged") from error
    except Exception as error:  # the decoders raise whatever they please
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(f"{path}: can't be read ({reason})") from error


def write_image(
    path: Path, pixels: Array, source: ImageFile, scale: int, overwrite: bool = False
) -> None:
    """Write an image that is `scale` times larger than `source`, all of it or nothing.

    Parameters
    ----------
    path : Path
        Its suffix names the format; PNG and JPEG hold single images only.
    pixels : array
        Axes as in `source`; the colour axis may be shorter (no alpha).
    source : ImageFile
        Where EXIF, ICC profile, resolution and the kind of TIFF come from.
    scale : int
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    OptionError
        The file exists and `overwrite` is false.
    FileFormatError
        The format can't hold these pixels, or the disk is full or read-only.
    """
    if path.exists() and not overwrite:
        raise OptionError(f"{path} exists: pass --overwrite to replace it")
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        write: Callable[[Path], None] = lambda to: _write_tiff(to, pixels, source, scale)  # noqa: E731
    elif suffix in PILLOW_SUFFIXES:
        encoded = _encode(pixels, source, scale, suffix, path)
        write = lambda to: _write_bytes(to, encoded)  # noqa: E731
    else:
        raise FileFormatError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {suffix!r}")
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise FileFormatError(f"{path}: can't be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# PNG and JPEG


def _read_pillow(path: Path) -> ImageFile:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        if image.format not in ("PNG", "JPEG", "MPO"):
            raise FileFormatError(f"{path}: expected PNG or JPEG inside, got {image.format}")
        if image.mode == "CMYK":
            raise FileFormatError(
                f"{path}: expected gray or RGB, got CMYK: convert it to RGB first"
            )
        frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
        notes = (f"only the first of {frames} frames was read",) if frames > 1 else ()
        bits = data[24] if image.format == "PNG" else 8
        if image.mode == "P":
            image_pixels = np.asarray(
                image.convert("RGBA" if "transparency" in image.info else "RGB")
            )
        elif image.format == "PNG" and bits == 16:
            image_pixels = imagecodecs.png_decode(data)
        else:
            image_pixels = np.asarray(image)
        exif = image.getexif().tobytes() if image.getexif() else None
        dpi = image.info.get("dpi")
        icc = image.info.get("icc_profile")
    axes = "YXS" if image_pixels.ndim == 3 else "YX"
    return ImageFile(image_pixels, axes, path, exif, icc, dpi and _pair(dpi), notes=notes)


def _pair(dpi: Any) -> tuple[float, float]:
    return float(dpi[0]), float(dpi[1])


def _encode(pixels: Array, source: ImageFile, scale: int, suffix: str, path: Path) -> bytes:
    """PNG or JPEG bytes with the metadata of `source`."""
    order = [source.axes.index(name) for name in "YXS" if name in source.axes]
    if len(order) != pixels.ndim:
        raise FileFormatError(
            f"{path}: expected a single image, got axes {source.axes}: write a .tif instead"
        )
    pixels = np.ascontiguousarray(pixels.transpose(order))
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    png = suffix == ".png"
    if pixels.dtype not in (np.uint8, bool) and not (png and pixels.dtype == np.uint16):
        raise FileFormatError(f"{path}: {suffix} can't hold {pixels.dtype}: write a .tif instead")
    if not png and (pixels.dtype != np.uint8 or (pixels.ndim == 3 and pixels.shape[2] != 3)):
        raise FileFormatError(f"{path}: JPEG holds 8-bit gray or RGB only: write a .png instead")
    dpi = source.dpi and (source.dpi[0] * scale, source.dpi[1] * scale)
    exif = _resized_exif(source.exif, pixels.shape)
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return _with_chunks(bytes(imagecodecs.png_encode(pixels)), source.icc, exif, dpi)
    options: dict[str, Any] = {"icc_profile": source.icc}
    if exif:
        options["exif"] = exif
    if dpi:
        options["dpi"] = dpi
    if not png:
        options |= {"quality": JPEG_QUALITY, "subsampling": 0}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if png else "JPEG", **options)
    return buffer.getvalue()


def _resized_exif(exif: bytes | None, shape: tuple[int, ...]) -> bytes | None:
    """EXIF with the size it states, if it states one, made true; orientation stays."""
    if exif is None:
        return None
    parsed = Image.Exif()
    parsed.load(exif)
    inner = parsed.get_ifd(EXIF_IFD)
    if EXIF_WIDTH in inner:
        inner[EXIF_WIDTH] = shape[1]
    if EXIF_HEIGHT in inner:
        inner[EXIF_HEIGHT] = shape[0]
    return parsed.tobytes()


def _with_chunks(
    png: bytes, icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    """PNG bytes with metadata chunks put behind the header (PNG specification, 11.3)."""
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


# TIFF


def _read_tiff(path: Path) -> ImageFile:
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        page = series.keyframe
        pixels, axes = series.asarray(), str(series.axes)
        notes = []
        if len(tif.series) > 1:
            notes.append(f"only the first of {len(tif.series)} images in the file was read")
        tags = page.tags
        kind = "ome" if tif.is_ome else "imagej" if tif.is_imagej else "plain"
        tiff: dict[str, Any] = {
            "kind": kind,
            "compression": LOSSLESS.get(int(page.compression), "zlib"),
            "photometric": int(page.photometric),
            "extrasamples": tuple(int(e) for e in page.extrasamples),
            "orientation": _tag(tags, TIFF_ORIENTATION),
            "unit": int(_tag(tags, "ResolutionUnit") or 1),
            "resolution": _resolution(tags),
        }
        if kind == "ome":
            tiff["ome"] = _ome_pixels(tif.ome_metadata)
        elif kind == "imagej":
            tiff["imagej"] = dict(tif.imagej_metadata or {})
        icc = _tag(tags, "InterColorProfile")
    return ImageFile(pixels, axes, path, icc=icc, tiff=tiff, notes=tuple(notes))


def _tag(tags: Any, name: str | int) -> Any:
    tag = tags.get(name)
    return None if tag is None else tag.value


def _resolution(tags: Any) -> tuple[float, float] | None:
    """Pixels per unit in X and Y."""
    x, y = _tag(tags, "XResolution"), _tag(tags, "YResolution")
    if not x or not y or not x[1] or not y[1] or not x[0] or not y[0]:
        return None
    return x[0] / x[1], y[0] / y[1]


def _ome_pixels(xml: str) -> dict[str, Any]:
    """Physical sizes, time increment and channel names of the first image of OME-XML."""
    image = tifffile.xml2dict(xml)["OME"]["Image"]
    image = image[0] if isinstance(image, list) else image
    found = image["Pixels"]
    names = ("PhysicalSize", "TimeIncrement")
    kept = {k: v for k, v in found.items() if k.startswith(names)}
    channels = found.get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    channel_names = [c["Name"] for c in channels if "Name" in c]
    if channel_names and len(channel_names) == len(channels):
        kept["Channel"] = {"Name": channel_names}
    if "Name" in image:
        kept["Name"] = image["Name"]
    return kept


def _write_tiff(path: Path, pixels: Array, source: ImageFile, scale: int) -> None:
    """A TIFF of the same kind as the source, or a plain one."""
    tiff = source.tiff or _tiff_of_other(source)
    samples = pixels.shape[source.axes.index("S")] if "S" in source.axes else 1
    has_alpha = samples in (2, 4)
    options: dict[str, Any] = {
        "compression": tiff["compression"],
        "photometric": "rgb" if samples >= 3 else "minisblack",
        "bigtiff": pixels.nbytes > 2**32 - 2**25,
    }
    if samples > 1:
        options["planarconfig"] = "contig" if source.axes.endswith("S") else "separate"
    if has_alpha:
        options["extrasamples"] = tiff.get("extrasamples") or ("unassalpha",)
    if source.icc:
        options["iccprofile"] = source.icc
    if tiff.get("orientation"):
        options["extratags"] = [(TIFF_ORIENTATION, 3, 1, tiff["orientation"], True)]
    kind = tiff["kind"]
    if kind == "imagej" and (pixels.dtype.name not in IMAGEJ_DTYPES or has_alpha):
        kind = "plain"
    resolution = tiff.get("resolution")
    if resolution:
        options["resolution"] = (resolution[0] * scale, resolution[1] * scale)
        if kind != "imagej":
            options["resolutionunit"] = tiff["unit"]
    if kind == "ome":
        options |= {
            "ome": True,
            "metadata": {"axes": source.axes, **_scaled_ome(tiff["ome"], scale)},
        }
    elif kind == "imagej":
        kept = {
            k: v
            for k, v in tiff["imagej"].items()
            if k not in ("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes")
        }
        # ImageJ wants its own order of axes, and tifffile checks the names
        axes = source.axes.replace("Q", "T").replace("I", "T")
        options |= {"imagej": True, "metadata": {**kept, "axes": axes}}
    else:
        options["metadata"] = {"axes": source.axes}
    if kind != "plain":
        options.pop("extratags", None)
    tifffile.imwrite(path, pixels, **options)


def _tiff_of_other(source: ImageFile) -> dict[str, Any]:
    return {"kind": "plain", "compression": "zlib", "unit": 2, "resolution": source.dpi}


def _scaled_ome(pixels: dict[str, Any], scale: int) -> dict[str, Any]:
    """The same metadata with X and Y pixel sizes divided by the scale."""
    scaled = dict(pixels)
    for name in ("PhysicalSizeX", "PhysicalSizeY"):
        if name in scaled:
            scaled[name] = float(scaled[name]) / scale
    return scaled
