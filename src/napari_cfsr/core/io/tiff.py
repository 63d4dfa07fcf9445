"""TIFF files, plain, ImageJ and OME: pixels, axes and the metadata that must survive.

A file is written as the kind it was read as. Pixel sizes in X and Y are divided by the scale; Z,
time, channels and display settings stay. So do, byte for byte, the texts that say who took the
image, when and with what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_cfsr.core.io.image_types import ImageFile
from napari_cfsr.errors import FileFormatError

Array = NDArray[Any]

ORIENTATION = 274
INCH, CENTIMETRE = 2, 3  # ResolutionUnit; 1 is none
LOSSLESS = {1: None, 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd"}
JPEGS = (6, 7, 33003, 33005, 33007, 34712, 34892)  # compressions decoded to RGB
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
OTHER_COLOURS = {5: "CMYK", 8: "CIELAB", 9: "CIELAB", 10: "CIELAB"}
ALPHA = (1, 2)  # ExtraSamples; 0 is unspecified
LARGEST_CLASSIC = 2**32 - 2**25  # bytes; larger files have to be BigTIFF

DESCRIPTION, SOFTWARE, DATE_TAKEN = 270, 305, 36867
# also Make, Model, DateTime, Artist and Copyright; DATE_TAKEN as in TIFF/EP
TEXTS = (DESCRIPTION, 271, 272, SOFTWARE, 306, 315, 33432, DATE_TAKEN)
ASCII = 2  # type of a tag
EXIF, GPS = 34665, 34853
EXIF_LEFT_OUT = "EXIF beyond camera, date and author is not carried over"
EXIF_OF_NO_USE = (  # redundant or meaningless in a TIFF
    "DateTimeOriginal", "ExifVersion", "FlashpixVersion", "ComponentsConfiguration", "ColorSpace",
    "PixelXDimension", "PixelYDimension",
)  # fmt: skip
# descriptions that make readers take a file for one by ImageJ, tifffile or a microscope
OF_PROGRAMS = re.compile(
    rb'ImageJ=|SCIFIO=|\{"shape|shape=\(|Aperio |state\.|SI\.|PerkinElmer-QPI|Philips DP|'
    rb"ScanOutputManager|.*(OME|</scn)>\s*\Z",
    re.DOTALL,
)
SINGLE = ("YX", "YXS", "SYX")  # axes that need not be named

IMAGEJ_AXES = "TZCYXS"
IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")
IMAGEJ_COUNTS = ("ImageJ", "SCIFIO", "images", "channels", "slices", "frames", "hyperstack", "axes")
IMAGEJ_REGIONS = ("ROI", "Overlays")  # in pixels of the small image
IMAGEJ_LIMITS = ("min", "max", "Ranges")  # of what is displayed
IMAGEJ_TEXTS = ("Info", "Labels", "Properties")  # stored as UTF-16, all else as ASCII

OME_SIZES = ("PhysicalSizeX", "PhysicalSizeY")
OME_CHANNEL = (
    "Name", "AcquisitionMode", "Color", "ContrastMethod", "EmissionWavelength",
    "EmissionWavelengthUnit", "ExcitationWavelength", "ExcitationWavelengthUnit", "Fluor",
    "IlluminationType", "PinholeSize", "PinholeSizeUnit",
)  # fmt: skip


def read_tiff(
    path: Path, pixels_of: Callable[[Any], Any] = lambda series: series.asarray()
) -> ImageFile:
    """Read the first image of a TIFF; raises `FileFormatError` if it is neither gray nor RGB.

    `pixels_of` takes the `TiffPageSeries` of that image and returns its pixels.
    """
    notes = []
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        page = series.keyframe
        _check_colours(path, page)
        if len(tif.series) > 1:
            notes.append(f"only the first of {len(tif.series)} images in the file was read")
        pixels, axes = pixels_of(series), _different(str(series.axes))
        about = _about(page)
        about |= _kind(tif, notes)
        about["texts"] = _texts(tif, about["kind"])
        if _has_more_exif(tif.pages.first):
            notes.append(EXIF_LEFT_OUT)
        icc = _tag(page, "InterColorProfile")
    if about["photometric"] == PALETTE and about["kind"] == "plain":
        pixels, axes = _coloured(pixels, about.pop("colormap")), axes + "S"
        about["photometric"] = RGB
    if "S" in axes and not _are_colours(pixels.shape[axes.index("S")], about):
        about["samples_axis"] = axes.index("S")
        axes = _different(axes.replace("S", "C"))
    return ImageFile(pixels, axes, path, None, icc, _dpi(about), about, tuple(notes))


def plain(
    dpi: tuple[float, float] | None,
    orientation: int | None = None,
    texts: Mapping[int, bytes] | None = None,
) -> dict[str, Any]:
    """What `write_tiff` needs for a plain TIFF of an image from a file of another format."""
    return {
        "kind": "plain",
        "compression": "zlib",
        "photometric": BLACK_IS_ZERO,
        "orientation": orientation,
        "unit": INCH,
        "resolution": dpi,
        "texts": dict(texts or {}),
    }


def _check_colours(path: Path, page: Any) -> None:
    colours = _tag(page, "PhotometricInterpretation")
    known = (None, WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE)
    if colours in known or (colours == YCBCR and int(page.compression) in JPEGS):
        return
    name = OTHER_COLOURS.get(int(colours)) or getattr(colours, "name", str(colours))
    raise FileFormatError(f"{path}: expected gray or RGB, got {name}: convert it to RGB first")


def _different(axes: str) -> str:
    """Axes without repeated letters: dimensions that a file does not name are all `Q`."""
    spare = (letter for letter in "QRJKLMNOUVW" if letter not in axes)
    result = ""
    for letter in axes:
        result += letter if letter not in result else next(spare)
    return result


def _about(page: Any) -> dict[str, Any]:
    """What the tags of a page say."""
    photometric = _tag(page, "PhotometricInterpretation")
    orientation, unit = _tag(page, ORIENTATION), _tag(page, "ResolutionUnit")
    return {
        "compression": LOSSLESS.get(int(page.compression), "zlib"),
        "photometric": BLACK_IS_ZERO if photometric is None else int(photometric),
        "extrasamples": tuple(int(e) for e in page.extrasamples),
        "orientation": None if orientation is None else int(orientation),
        "unit": INCH if unit is None else int(unit),
        "resolution": _resolution(page),
        "colormap": page.colormap,
    }


def _kind(tif: tifffile.TiffFile, notes: list[str]) -> dict[str, Any]:
    """Plain, ImageJ or OME, with their metadata."""
    if tif.is_ome:
        ome = _ome(tif.ome_metadata)
        if ome is not None:
            return {"kind": "ome", "ome": ome}
        notes.append("the OME metadata can't be read and are not carried over")
    elif tif.is_imagej:
        imagej = dict(tif.imagej_metadata or {})
        if any(key in imagej for key in IMAGEJ_REGIONS):
            notes.append("ImageJ's regions and overlays are not carried over")
        return {"kind": "imagej", "imagej": imagej}
    return {"kind": "plain"}


def _texts(tif: tifffile.TiffFile, kind: str) -> dict[int, bytes]:
    """The texts of the first page as stored, except those that describe the file's layout."""
    page: Any = tif.pages.first
    texts = {}
    for code in TEXTS:
        tag = page.tags.get(code)
        if tag is not None and tag.dtype == ASCII:
            tif.filehandle.seek(tag.valueoffset)
            text = bytes(tif.filehandle.read(tag.valuebytecount)).rstrip(b"\0")
            if text.strip():
                texts[code] = text
    inner = _tag(page, EXIF)
    taken = inner.get("DateTimeOriginal") if isinstance(inner, dict) else None
    if isinstance(taken, str) and taken.strip():
        texts.setdefault(DATE_TAKEN, taken.encode())
    shaped_or_damaged = page.is_shaped or page.is_ome
    of_program = shaped_or_damaged and OF_PROGRAMS.match(texts.get(DESCRIPTION, b""))
    if kind != "plain" or of_program:
        texts.pop(DESCRIPTION, None)
    if texts.get(SOFTWARE) == b"tifffile.py":  # its default
        del texts[SOFTWARE]
    return texts


def _has_more_exif(page: Any) -> bool:
    """Whether there is EXIF beyond `TEXTS`."""
    inner = _tag(page, EXIF)
    known = isinstance(inner, dict) and set(inner) <= set(EXIF_OF_NO_USE)
    return (inner is not None and not known) or _tag(page, GPS) is not None


def _tag(page: Any, name: str | int) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _resolution(page: Any) -> tuple[float, float] | None:
    """Pixels per unit in X and Y."""
    x, y = _tag(page, "XResolution"), _tag(page, "YResolution")
    if not x or not y or 0 in (*x, *y):
        return None
    return x[0] / x[1], y[0] / y[1]


def _dpi(about: dict[str, Any]) -> tuple[float, float] | None:
    factor = {INCH: 1.0, CENTIMETRE: 2.54}.get(about["unit"])
    resolution = about["resolution"]
    if factor is None or resolution is None:
        return None
    return resolution[0] * factor, resolution[1] * factor


def _coloured(pixels: Array, colormap: Array) -> Array:
    """Palette indices of any shape as uint8 RGB, on a new last axis."""
    return np.moveaxis((colormap >> 8).astype(np.uint8)[:, pixels], 0, -1)


def _are_colours(samples: int, about: dict[str, Any]) -> bool:
    """Whether samples are gray or RGB, with or without alpha; otherwise they are channels."""
    has_alpha = len(about["extrasamples"]) == 1 and about["extrasamples"][0] in ALPHA
    colours = 3 if about["photometric"] in (RGB, YCBCR) else 1
    return samples == colours + has_alpha


def _ome(xml: str) -> dict[str, Any] | None:
    """Sizes, time increment, name and channels of the first image of OME-XML, as text."""
    try:
        image = ElementTree.fromstring(xml).find("{*}Image")
        pixels = None if image is None else image.find("{*}Pixels")
    except ElementTree.ParseError:
        return None
    if image is None or pixels is None:
        return None
    kept: dict[str, Any] = {
        k: v for k, v in pixels.attrib.items() if k.startswith(("PhysicalSize", "TimeIncrement"))
    }
    if "Name" in image.attrib:
        kept["Name"] = image.attrib["Name"]
    channels = [dict(channel.attrib) for channel in pixels.findall("{*}Channel")]
    kept["Channel"] = {
        key: [channel.get(key, "") for channel in channels]
        for key in OME_CHANNEL
        if channels and (key == "Name" or all(key in channel for channel in channels))
    }
    if not any(kept["Channel"].get("Name", [])):
        kept["Channel"].pop("Name", None)
    return kept


# writing


def write_tiff(
    file: BinaryIO,
    pixels: Array,
    axes: str,
    about: dict[str, Any],
    scale: int,
    icc: bytes | None = None,
    same_values: bool = True,
) -> tuple[str, ...]:
    """Write a TIFF of the kind that `about` describes, or a plain one where that is impossible.

    Returns what was left out.

    Parameters
    ----------
    file : binary file
        Empty, open for writing.
    pixels : array
        Axes as in `axes`; `scale` times larger in X and Y than what `about` was read from.
    about : dict
        From `read_tiff` or `plain`.
    same_values : bool
        Whether values mean the same as in the source; false for a difference.
    """
    samples_axis = about.get("samples_axis")
    if samples_axis is not None:  # channels are written as samples, as they were read
        axes = axes[:samples_axis] + "S" + axes[samples_axis + 1 :]
    elif "S" in axes and pixels.shape[axes.index("S")] == 1:
        pixels, axes = pixels.squeeze(axes.index("S")), axes.replace("S", "")
    kind = _kind_for(pixels, axes, about)
    texts, notes = _text_options(about)
    options: dict[str, Any] = {
        "compression": about["compression"],
        "bigtiff": pixels.nbytes > LARGEST_CLASSIC,
        "iccprofile": icc,
        "ome": kind == "ome",
        "imagej": kind == "imagej",
        "metadata": {"axes": axes},
        **_layout(pixels, axes, about),
        **_resolution_options(about, scale, kind),
        **texts,
    }
    if kind == "ome":
        channels = pixels.shape[axes.index("C")] if "C" in axes else 1
        options["metadata"] |= _scaled_ome(about["ome"], scale, channels)
    elif kind == "imagej":
        options["metadata"] |= _scaled_imagej(about["imagej"], scale, same_values)
    elif options["description"] and axes in SINGLE:
        options["metadata"] = None  # else a second description, which some readers prefer
    table = about.get("colormap")
    if kind != "plain" and table is not None and table.shape[1] == 256**pixels.dtype.itemsize:
        options |= {"photometric": "palette", "colormap": table}
    tifffile.imwrite(file, pixels, **options)
    return notes


def _text_options(about: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Texts and orientation, but no text that marks another kind of TIFF; notes on those."""
    texts: dict[int, bytes] = dict(about.get("texts", {}))
    marks = [t for t in (DESCRIPTION, SOFTWARE) if OF_PROGRAMS.match(texts.get(t, b""))]
    for tag in marks:
        del texts[tag]
    options: dict[str, Any] = {
        "software": texts.pop(SOFTWARE, None),
        "description": texts.pop(DESCRIPTION, None),
        "extratags": [(tag, ASCII, 0, text, True) for tag, text in texts.items()],
    }
    if about.get("orientation"):
        options["extratags"].append((ORIENTATION, 3, 1, about["orientation"], True))
    notes = ("a description in the format of a program is not carried over",) if marks else ()
    return options, notes


def _kind_for(pixels: Array, axes: str, about: dict[str, Any]) -> str:
    """The kind of the source, or `plain` where ImageJ can't read these pixels."""
    if about["kind"] != "imagej":
        return str(about["kind"])
    in_order = [letter for letter in IMAGEJ_AXES if letter in axes] == list(axes)
    holds = pixels.dtype.name in IMAGEJ_DTYPES and pixels.nbytes <= LARGEST_CLASSIC
    if "S" in axes:
        holds = holds and pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    return "imagej" if in_order and holds else "plain"


def _layout(pixels: Array, axes: str, about: dict[str, Any]) -> dict[str, Any]:
    """The meaning and layout of the samples of a pixel."""
    if "S" not in axes:
        white = about["photometric"] == WHITE_IS_ZERO
        return {"photometric": "miniswhite" if white else "minisblack"}
    samples = pixels.shape[axes.index("S")]
    are_channels = about.get("samples_axis") is not None
    rgb = about["photometric"] in (RGB, YCBCR) if are_channels else samples >= 3
    extra = samples - (3 if rgb else 1)
    if pixels.dtype.kind == "b" and axes.endswith("S"):  # tifffile would write wrong values
        raise ValueError(f"TIFF can't hold {samples} samples of 1 bit per pixel")
    options: dict[str, Any] = {
        "photometric": "rgb" if rgb else "minisblack",
        "planarconfig": "contig" if axes.endswith("S") else "separate",
    }
    if extra:
        known = about.get("extrasamples", ())
        options["extrasamples"] = known if len(known) == extra else (ALPHA[-1],) * extra
    return options


def _resolution_options(about: dict[str, Any], scale: int, kind: str) -> dict[str, Any]:
    resolution, unit = about["resolution"], about["unit"]
    if resolution is None:
        return {}
    known = unit in (INCH, CENTIMETRE) or "unit" in about.get("imagej", {})
    if resolution == (1, 1) and not known:  # the default of programs that know no resolution
        return {}
    options: dict[str, Any] = {"resolution": (resolution[0] * scale, resolution[1] * scale)}
    if kind != "imagej":
        options["resolutionunit"] = unit
    return options


def _scaled_ome(about: dict[str, Any], scale: int, channels: int) -> dict[str, Any]:
    """The same metadata with X and Y pixel sizes divided by the scale."""
    scaled = dict(about)
    for name in OME_SIZES:
        if name in scaled:
            scaled[name] = float(scaled[name]) / scale
    if any(len(values) < channels for values in scaled["Channel"].values()):
        del scaled["Channel"]
    return scaled


def _scaled_imagej(about: Mapping[str, Any], scale: int, same_values: bool) -> dict[str, Any]:
    """The same metadata with the origin, in pixels, adjusted, and without invalid entries."""
    left_out = IMAGEJ_COUNTS + IMAGEJ_REGIONS + (() if same_values else IMAGEJ_LIMITS)
    kept = {k: v for k, v in about.items() if k not in left_out}
    for name in ("xorigin", "yorigin"):
        if isinstance(kept.get(name), int | float):
            kept[name] = kept[name] * scale + (scale - 1) / 2
    for key, value in kept.items():
        if isinstance(value, str) and key not in IMAGEJ_TEXTS:
            kept[key] = "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in value)
    return kept
