"""Weights found by content: a machine that has a file with the right SHA-256 needs no other.

Needs no torch. Files sent from another machine are kept in the cache, named by their hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.weight_files import SUFFIXES, cache_folder, data_folder, sha256_of
from napari_cfsr.errors import TamperedWeightsError, WeightsError

BY_HASH = "by-hash"  # folder in the cache


@dataclass(frozen=True)
class HashedFile:
    """The content of a weights file, on whatever machine."""

    sha256: str  # in hexadecimal
    size: int  # bytes
    suffix: str  # such as `.pth`


def hashed_file(path: Path, sha256: str) -> HashedFile:
    """What identifies the file at `path`, whose hash is known, on another machine."""
    return HashedFile(sha256, path.stat().st_size, path.suffix.lower())


def find_by_hash(wanted: HashedFile) -> Path | None:
    """A file with that content on this machine: bundled, official, imported or sent earlier."""
    for path in _candidates():
        with suppress(OSError):  # removed or not readable: ignored
            if path.stat().st_size == wanted.size and sha256_of(path) == wanted.sha256:
                return path
    return None


def _candidates() -> Iterator[Path]:
    named = os.environ.get(weight_files.WEIGHTS_VARIABLE)
    folders = [Path(named)] if named else []
    folders += [weight_files.BUNDLED, weight_files.BUNDLED / "refiners"]
    folders += [cache_folder(), cache_folder() / BY_HASH]
    folders += [data_folder() / "backbones", data_folder() / "refiners"]
    for folder in folders:
        with suppress(OSError):
            yield from sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def keep_by_hash(wanted: HashedFile, content: bytes) -> Path:
    """Keep content that was sent, so that `find_by_hash` finds it.

    Raises `TamperedWeightsError` if it has another hash, `WeightsError` if it can't be written.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != wanted.sha256:
        raise TamperedWeightsError(
            f"weights were damaged on the way: expected SHA-256 {wanted.sha256}, got {got} "
            f"({len(content)} bytes)"
        )
    path = cache_folder() / BY_HASH / f"{wanted.sha256}{wanted.suffix}"
    try:
        with atomic_write(path, overwrite=True, error=WeightsError) as file:
            file.write(content)
    except WeightsError as error:
        variable = weight_files.HOME_VARIABLE
        raise WeightsError(f"{error}: name a folder that can be written in {variable}") from error
    return path
