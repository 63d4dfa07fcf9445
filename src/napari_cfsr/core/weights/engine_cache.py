"""A cache on disk that makes the second start quick: compiled networks, plain weights.

The key of an entry is what it was made from. Entries can be deleted at any time; a damaged one is
ignored, and failure to write one is not an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.weights.weight_files import cache_folder
from napari_cfsr.errors import FileFormatError

Arrays = dict[str, NDArray[Any]]

MOST_BYTES = 2**28  # of all entries; the least recently used are deleted first
DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """Where entries are kept."""
    return cache_folder() / "engines"


def _path(made_from: dict[str, Any]) -> Path:
    text = json.dumps(made_from, sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.bin"


def read(made_from: dict[str, Any]) -> bytes | None:
    """The entry that was made from these plain values, everything that it depends on; or None."""
    path = _path(made_from)
    with suppress(OSError):
        stored = path.read_bytes()
        digest, content = stored[:DIGEST], stored[DIGEST:]
        if hashlib.sha256(content).digest() == digest:
            with suppress(OSError):  # the cache may be read-only
                os.utime(path)
            return content
    return None


def write(made_from: dict[str, Any], content: bytes) -> None:
    """Keep an entry if the disk allows it."""
    with suppress(FileFormatError, OSError):
        _drop_oldest(MOST_BYTES - len(content))
        with atomic_write(_path(made_from), overwrite=True) as file:
            file.write(hashlib.sha256(content).digest() + content)


def _drop_oldest(most: int) -> None:
    """Delete entries until the rest takes no more than `most` bytes."""
    if not folder().is_dir():
        return
    known = sorted(((p.stat(), p) for p in folder().glob("*.bin")), key=lambda e: -e[0].st_mtime)
    total = 0
    for stat, path in known:
        total += stat.st_size
        if total > most:
            path.unlink(missing_ok=True)


def arrays(made_from: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """Arrays by name from the entry, else from `make`, whose result is kept."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    stored = read(made_from)
    if stored is not None:
        with suppress(SafetensorError):
            return load(stored)
    made = {name: np.ascontiguousarray(value) for name, value in make().items()}
    write(made_from, save(made))
    return made
