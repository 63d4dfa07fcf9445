"""Which files are meant by the inputs of a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_cfsr.cli.common import say
from napari_cfsr.errors import CFSRError, FileFormatError

STORE_FILES = ("zarr.json", ".zattrs", ".zgroup")


def input_files(
    inputs: Sequence[Path], ours: Callable[[Path], bool] = lambda _: False
) -> tuple[list[Path], int]:
    """Image files, each once, folders opened, and how many inputs there is nothing of.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders. What is wrong with one is said, and the others go on.
    ours : callable
        Whether a file of a folder is one that the command wrote, and is to be left out.
    """
    files: dict[Path, Path] = {}
    faults = 0
    for path in inputs:
        try:
            found = [file for file in image_files(path) if file == path or not ours(file)]
            if not found:
                raise FileFormatError(f"{path}: expected images in this folder, got none")
            for file in found:
                files.setdefault(file.resolve(), file)
        except CFSRError as error:
            say(str(error))
            faults += 1
        except (OSError, RuntimeError) as error:  # no such name can be, or links in a circle
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            say(f"{path}: can't be read ({reason})")
            faults += 1
    return list(files.values()), faults


def is_store(path: Path) -> bool:
    """Whether there is a zarr store, whatever is in it."""
    return path.is_dir() and any((path / name).is_file() for name in STORE_FILES)


def image_files(path: Path) -> list[Path]:
    """The file or store itself, or the images in a folder, in order of name, without results."""
    from napari_cfsr.core.files import RESULT, SUFFIXES

    if not path.is_dir() or is_store(path):
        return [path]
    images = sorted(
        p for p in path.iterdir() if is_store(p) or (p.suffix.lower() in SUFFIXES and p.is_file())
    )
    images = [p for p in images if not p.name.startswith(".") and not RESULT.search(p.stem)]
    return [p for p in images if not (is_store(p) and _is_ours(p))]


def _is_ours(store: Path) -> bool:
    from napari_cfsr.core.zarr_store import our_mark

    return our_mark(store) is not None
