"""Opening one image of an OME-Zarr store, 0.4 or 0.5; only metadata are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from napari_cfsr.core.io.atomic import format_errors
from napari_cfsr.core.io.image_types import LazyImage
from napari_cfsr.core.io.ome_metadata import are_colours, ome_attributes, read_axes, read_space
from napari_cfsr.core.io.store_metadata import KEY, unfinished_text
from napari_cfsr.errors import FileFormatError


def open_ome_zarr(path: Path, incomplete: bool = False) -> LazyImage:
    """Open an OME-Zarr image on disk.

    Parameters
    ----------
    path : Path
        The store, or a group in it. If a store contains a single image, that is opened.
    incomplete : bool
        Whether to open what this package is still writing; pixels not yet written are 0.

    Raises
    ------
    FileFormatError
        There is no such store, or it is not an image, has several, is damaged or unfinished.
    """
    with format_errors(path, "can't be read as OME-Zarr"):
        return _open(path, incomplete)


def _open(path: Path, incomplete: bool) -> LazyImage:
    if not path.is_dir():
        raise FileFormatError(f"{path}: expected an OME-Zarr store, there is no such folder")
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise FileFormatError(f"{path}: expected an OME-Zarr store, this folder is not one")
    group = zarr.open_group(LocalStore(path, read_only=True), mode="r")
    attributes: dict[str, Any] = group.attrs.asdict()
    ours = attributes.get(KEY)
    if isinstance(ours, Mapping) and not ours.get("complete"):
        if not incomplete:
            raise FileFormatError(unfinished_text(path))
        attributes = {**attributes, "ome": ours.get("ome", {})}
    ome = ome_attributes(attributes)
    images = ome.get("multiscales")
    ours = ours if isinstance(ours, Mapping) else {}
    if not images:
        return _open(_only_image(path, ome, ours), incomplete)
    return _image(path, group, images, ome, ours)


def _only_image(path: Path, ome: Mapping[str, Any], ours: Mapping[str, Any]) -> Path:
    """The only image inside a store that is not an image itself."""
    if "plate" in ome or "well" in ome:
        raise FileFormatError(f"{path}: expected one image, got a plate: name a field of a well")
    names = [str(name) for name in ours.get("outputs", ())]
    if "bioformats2raw.layout" in ome:
        names = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name != "OME")
    names = [name for name in names if (path / name).is_dir()]
    if len(names) == 1:
        return path / names[0]
    if names:
        raise FileFormatError(
            f"{path}: expected one image, got {len(names)}: name one, such as {path / names[0]}"
        )
    raise FileFormatError(f"{path}: expected an OME-Zarr image, got another zarr store")


def _image(
    path: Path, group: Any, images: Any, ome: Mapping[str, Any], ours: Mapping[str, Any]
) -> LazyImage:
    image = images[0]
    notes = [f"only the first of {len(images)} images was read"] if len(images) > 1 else []
    levels = tuple(group[dataset["path"]] for dataset in image["datasets"])
    axes, units = read_axes(image, levels[0].ndim)
    space = read_space(image, axes, units)
    omero = ome.get("omero")
    omero = dict(omero) if isinstance(omero, Mapping) else None
    count = levels[0].shape[axes.index("C")] if "C" in axes else 0
    if ours.get("axes"):
        axes = str(ours["axes"])
    elif are_colours(omero, count):
        axes = axes.replace("C", "S")
    if "S" in axes:  # colours have no place in the space
        space = space.along(axes.replace("S", ""))
    return LazyImage(levels[0], axes, path, space, levels, omero, tuple(notes))
