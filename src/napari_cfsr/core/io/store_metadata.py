"""What this program records in a store it writes: whether it is complete, and what made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.errors import GroupNotFoundError
from zarr.storage import LocalStore

from napari_cfsr.core.io.atomic import UNFINISHED

Status = Literal["absent", "partial", "complete", "other"]

KEY = "napari_cfsr"  # of our attribute


def store_status(path: Path) -> Status:
    """What kind of store, if any, is at a path.

    `partial` and `complete` are stores that this package began or finished; `other` is anything
    else, including other zarr stores.
    """
    if not os.path.lexists(path) or is_empty(path):
        return "absent"
    metadata = read_store_metadata(path)
    if metadata is None:
        return "other"
    return "complete" if metadata.get("complete") else "partial"


def is_empty(path: Path) -> bool:
    """Whether it is a folder that contains nothing but unfinished files."""
    return path.is_dir() and all(file.name.endswith(UNFINISHED) for file in path.iterdir())


def read_store_metadata(path: Path) -> Mapping[str, Any] | None:
    """What this package recorded about a group; None if it wrote nothing there."""
    try:
        group = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)
    except (GroupNotFoundError, OSError, ValueError, KeyError):
        return None
    metadata = group.attrs.get(KEY)
    return metadata if isinstance(metadata, Mapping) else None


def unfinished_text(path: Path) -> str:
    """What to say about a store that is not complete."""
    return (
        f"{path}: expected a complete image, this one is unfinished: repeat the upscaling that "
        "writes it, with the same options, to continue where it stopped"
    )
