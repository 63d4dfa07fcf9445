"""Writing a file completely or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from napari_cfsr.errors import CFSRError, FileFormatError, OptionError, reason

UNFINISHED = ".partial"  # ends the name of a file that is still being written, as zarr's do


@contextmanager
def atomic_write(
    path: Path,
    overwrite: bool = False,
    make_folders: bool = True,
    error: type[CFSRError] = FileFormatError,
) -> Iterator[BinaryIO]:
    """Open a new file for writing that becomes `path` when the block ends without an exception.

    If it does not, what was there before is still there and nothing else is left behind. The new
    file lies in the same folder under a name of its own, so that several programs can write the
    same file at the same time; the last one wins. A link of that name is replaced, not followed.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether a file of that name may be replaced.
    make_folders : bool
        Whether to create missing folders above it.
    error : type of CFSRError
        Raised where the file system refuses.

    Yields
    ------
    binary file
        Open for writing and reading; closed by this function.

    Raises
    ------
    OptionError
        The file exists and `overwrite` is false.
    FileFormatError
        It can't be written. Or whatever `error` is.
    """
    try:
        if path.exists() and not overwrite:
            raise OptionError(f"{path} exists: pass overwrite=True to replace it")
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        partial = _unique(path)
        file = partial.open("x+b")  # x is O_CREAT with O_EXCL, which follows no link either
        try:
            with file:
                yield file
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
    except CFSRError:  # some of them are OSErrors
        raise
    except OSError as refusal:
        raise error(f"{path}: can't be written ({reason(refusal)})") from refusal


@contextmanager
def format_errors(path: Path, problem: str) -> Iterator[None]:
    """`FileFormatError` for whatever a library of file formats says: they raise all kinds."""
    try:
        yield
    except CFSRError:
        raise
    except Exception as error:
        raise FileFormatError(f"{path}: {problem} ({reason(error)})") from error


def _unique(path: Path) -> Path:
    """A hidden name in the same folder that nobody else has; begins like `path` if one is left."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}{UNFINISHED}")
