"""Weights by what is in them: a machine that has a file with some SHA-256 needs no other.

Needs no torch. Files that came from another machine are kept in the cache, named by their hash.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.weight_files import SUFFIXES, cache_folder, data_folder, sha256_of
from napari_cfsr.errors import TamperedWeightsError, WeightsError

BY_HASH = "by-hash"  # folder in the cache


@dataclass(frozen=True)
class HashedFile:
    """A weights file, wherever it is.

    Attributes
    ----------
    sha256 : str
        Of its bytes, in hexadecimal.
    size : int
        Bytes.
    suffix : str
        `.pth` or the like.
    """

    sha256: str
    size: int
    suffix: str


def hashed_file(path: Path, sha256: str) -> HashedFile:
    """What to ask for on another machine to get the file at `path`, whose hash is known."""
    return HashedFile(sha256, path.stat().st_size, path.suffix.lower())


def find_by_hash(wanted: HashedFile) -> Path | None:
    """A file of this machine with those bytes: bundled, official, imported or sent earlier."""
    for path in _candidates():
        with suppress(OSError):  # removed or not to be read: as if it were not there
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
    """Keep bytes that were sent, so that `find_by_hash` finds them.

    Raises
    ------
    TamperedWeightsError
        They are not those with that hash.
    WeightsError
        They can't be written.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != wanted.sha256:
        raise TamperedWeightsError(
            f"weights that were sent are damaged: expected SHA-256 {wanted.sha256}, got {got} "
            f"({len(content)} bytes)"
        )
    path = cache_folder() / BY_HASH / f"{wanted.sha256}{wanted.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # several processes of a machine may be sent the same at the same time
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    except OSError as error:
        raise WeightsError(
            f"{path} can't be written ({error.strerror or error}): name a folder that can in "
            f"{weight_files.HOME_VARIABLE}"
        ) from error
    return path
