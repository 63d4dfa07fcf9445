"""Writing a file, all of it or nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from napari_cfsr.errors import FileFormatError, OptionError


def atomic_write(
    path: Path, content: bytes, overwrite: bool = False, make_folders: bool = True
) -> None:
    """Write a file; whatever goes wrong, what was there before is still there.

    Parameters
    ----------
    path : Path
    content : bytes
    overwrite : bool
        Whether a file of that name may be replaced.
    make_folders : bool
        Whether folders above it that are missing are made.

    Raises
    ------
    OptionError
        It exists and `overwrite` is false.
    FileFormatError
        It can't be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if path.exists() and not overwrite:
            raise OptionError(f"{path} exists: pass --overwrite to replace it")
        if make_folders:
            path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise FileFormatError(f"{path}: can't be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
