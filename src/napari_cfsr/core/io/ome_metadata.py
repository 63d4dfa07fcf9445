"""The metadata of OME-Zarr 0.5, written and read; 0.4 is read, too.

Plain dictionaries: what this package writes fits on a page, and what it reads may come from
programs that are less strict than a validating library. A test checks what is written against the
models of ome-zarr-models.
https://ngff.openmicroscopy.org/0.5
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from napari_cfsr.core.image import PixelSpace, dtype_range, unit_name
from napari_cfsr.errors import FileFormatError

VERSION = "0.5"
TYPES = {"T": "time", "Z": "space", "Y": "space", "X": "space", "C": "channel", "S": "channel"}
COLOURS = {1: ("Gray",), 2: ("Gray", "Alpha"), 3: ("Red", "Green", "Blue")}
COLOURS[4] = (*COLOURS[3], "Alpha")
HEX = {"Red": "FF0000", "Green": "00FF00", "Blue": "0000FF"}


def image_metadata(
    name: str, axes: str, space: PixelSpace, levels: int, omero: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `ome` attribute of an image.

    Parameters
    ----------
    name : str
    axes : str
        Letters in stored order; colour samples are `S`.
    space : PixelSpace
        At full resolution.
    levels : int
        Levels of the pyramid, named 0, 1 and so on, each the mean of 2x2 pixels of the last.
    omero : dict, optional
        How channels are named and shown.
    """
    space = space.along(axes)
    image: dict[str, Any] = {
        "name": name,
        "axes": [_axis(letter, unit) for letter, unit in zip(axes, space.units, strict=True)],
        "datasets": [
            {"path": str(level), "coordinateTransformations": _transforms(space.halved(level))}
            for level in range(levels)
        ],
    }
    if levels > 1:
        image["type"] = "mean"
        image["metadata"] = {"description": "each level is the mean of 2x2 pixels of the last"}
    ome: dict[str, Any] = {"version": VERSION, "multiscales": [image]}
    return {**ome, "omero": dict(omero)} if omero else ome


def _axis(letter: str, unit: str | None) -> dict[str, Any]:
    axis = {"name": "c" if letter == "S" else letter.lower()}
    if letter in TYPES:
        axis["type"] = TYPES[letter]
    if unit is not None:
        axis["unit"] = unit
    return axis


def _transforms(space: PixelSpace) -> list[dict[str, Any]]:
    return [
        {"type": "scale", "scale": list(space.sizes)},
        {"type": "translation", "translation": list(space.origin)},
    ]


def colour_channels(samples: int, dtype: Any, low: float, high: float) -> dict[str, Any]:
    """`omero` metadata that mark the channels as the colours of one image."""
    least, most = dtype_range(dtype)
    window = {"min": least, "max": most, "start": low, "end": high}
    channels = [
        {"label": k, "color": HEX.get(k, "FFFFFF"), "active": k != "Alpha", "window": window}
        for k in COLOURS[samples]
    ]
    return {"channels": channels, "rdefs": {"model": "color" if samples > 2 else "greyscale"}}


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The OME-Zarr metadata of a group: under `ome` since 0.5, at the top level before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def read_axes(image: Mapping[str, Any], ndim: int) -> tuple[str, dict[str, str]]:
    """Letters and units of the axes of an image.

    Raises `FileFormatError` if they do not fit the array, or Y or X is missing.
    """
    entries = image.get("axes") or "TCZYX"[-ndim:].lower()
    names = [e if isinstance(e, str) else str(e.get("name", "")) for e in entries]
    letters, spare = "", [c for c in "QRPUVW" if c.lower() not in names]
    for name in names:
        letter = name[:1].upper()
        usable = letter.isalpha() and letter != "S" and letter not in letters
        letters += letter if usable else spare.pop(0)
    if len(letters) != ndim or not {"Y", "X"} <= set(letters):
        raise FileFormatError(f"expected axes with Y and X for {ndim} dimensions, got {names}")
    units = {
        letter: str(e["unit"])
        for letter, e in zip(letters, entries, strict=True)
        if isinstance(e, Mapping) and e.get("unit")
    }
    return letters, units


def read_space(image: Mapping[str, Any], axes: str, units: Mapping[str, str]) -> PixelSpace:
    """Sizes and origin at full resolution: transforms of the level, then those of the image."""
    sizes, origin = [1.0] * len(axes), [0.0] * len(axes)
    found = [part.get("coordinateTransformations", ()) for part in (image["datasets"][0], image)]
    for transform in itertools.chain(*found):
        kind = transform.get("type")
        values = transform.get(kind)
        if kind not in ("scale", "translation") or not isinstance(values, list):
            continue  # identity; 0.5 allows no others
        for i, value in enumerate(values[: len(axes)]):
            if kind == "scale":
                sizes[i] *= float(value)
                origin[i] *= float(value)
            else:
                origin[i] += float(value)
    names = tuple(unit_name(units.get(letter, "")) for letter in axes)
    return PixelSpace(axes, tuple(sizes), tuple(origin), names)


def are_colours(omero: Mapping[str, Any] | None, count: int) -> bool:
    """Whether channels are named as the colours of one image."""
    if not omero or count not in COLOURS:
        return False
    labels = [str(c.get("label", "")).lower() for c in omero.get("channels", ())]
    return count > 1 and labels == [label.lower() for label in COLOURS[count]]
