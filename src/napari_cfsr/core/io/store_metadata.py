"""What this program notes in a store it writes: whether the store is complete, and what made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.errors import GroupNotFoundError
from zarr.storage import LocalStore

Status = Literal["absent", "partial", "complete", "other"]


KEY = "napari_cfsr"  # of the attribute that is ours


UNFINISHED = ".partial"  # ends the names of zarr's files on their way


def store_status(path: Path) -> Status:
    """What is at a path.

    Returns
    -------
    {"absent", "partial", "complete", "other"}
        `partial` and `complete` are stores that this package began or finished; `other` is
        anything else, other zarr stores included.
    """
    if not os.path.lexists(path) or is_empty(path):
        return "absent"
    mark = read_store_metadata(path)
    if mark is None:
        return "other"
    return "complete" if mark.get("complete") else "partial"


def is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it but what never came to be a file."""
    return path.is_dir() and all(file.name.endswith(UNFINISHED) for file in path.iterdir())


def read_store_metadata(path: Path) -> Mapping[str, Any] | None:
    """What this package wrote about a group; None if it did not."""
    try:
        group = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)
    except (GroupNotFoundError, OSError, ValueError, KeyError):
        return None
    mark = group.attrs.get(KEY)
    return mark if isinstance(mark, Mapping) else None


def half_written(path: Path) -> str:
    """What to say of a store that is not complete."""
    return (
        f"{path}: expected a complete image, this one was not written to its end: repeat the "
        "upscaling that writes it, with the same options, and it goes on where it stopped"
    )
