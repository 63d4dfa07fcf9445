"""Which files the inputs of a run name, and where their results go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_cfsr.core.io import RESULT, SUFFIXES, TIFF_SUFFIXES
from napari_cfsr.errors import CFSRError, FileFormatError, OptionError

STORE = ".zarr"
STORE_FILES = ("zarr.json", ".zattrs", ".zgroup")


@dataclass(frozen=True)
class InputFault:
    """An input with nothing to upscale."""

    path: Path
    text: str  # why, with the path


@dataclass(frozen=True, eq=False)
class Targets:
    """Where the results of one file go."""

    # a file for each output, by its name; a single one for a run block by block
    files: Mapping[str, Path]
    # the store or TIFF that a run block by block writes; None for a run in memory
    store: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths that are written, each once."""
        return tuple(dict.fromkeys(self.files.values())) if self.store is None else (self.store,)


# inputs


def find_inputs(
    inputs: Sequence[Path], ours: Callable[[Path], bool] = lambda _: False
) -> tuple[list[Path], list[InputFault]]:
    """Image files, each once and with those in folders, and the inputs without any.

    Parameters
    ----------
    inputs : sequence of Path
        Files, stores and folders.
    ours : callable
        Whether a file in a folder was written by the command and is left out.
    """
    files: dict[Path, Path] = {}
    faults = []
    for path in inputs:
        try:
            found = [file for file in image_files(path) if file == path or not ours(file)]
            if not found:
                raise FileFormatError(f"{path}: expected images in this folder, got none")
            for file in found:
                files.setdefault(file.resolve(), file)
        except CFSRError as error:
            faults.append(InputFault(path, str(error)))
        except (OSError, RuntimeError) as error:  # impossible name, or circular links
            faults.append(InputFault(path, f"{path}: can't be read ({_reason(error)})"))
    return list(files.values()), faults


def _reason(error: OSError | RuntimeError) -> str | None:
    return error.strerror if isinstance(error, OSError) else "circular links"


def is_store(path: Path) -> bool:
    """Whether the path is a zarr store, whatever its content."""
    return path.is_dir() and any((path / name).is_file() for name in STORE_FILES)


def outside_stores(folder: Path) -> Path:
    """The folder, or the first one above that is not part of a zarr store."""
    while is_store(folder) and folder.parent != folder:
        folder = folder.parent
    return folder


def image_files(path: Path) -> list[Path]:
    """The file or store itself, or the images in a folder by name, without results."""
    if not path.is_dir() or is_store(path):
        return [path]
    images = sorted(
        p for p in path.iterdir() if is_store(p) or (p.suffix.lower() in SUFFIXES and p.is_file())
    )
    images = [p for p in images if not p.name.startswith(".") and not RESULT.search(p.stem)]
    return [p for p in images if not (is_store(p) and _is_ours(p))]


def _is_ours(store: Path) -> bool:
    from napari_cfsr.core.io import read_store_metadata

    return read_store_metadata(store) is not None


# targets


def find_targets(
    path: Path, output: Path | None, outputs: Sequence[str], scale: int, single: bool
) -> Targets:
    """Where the results of a file or store go.

    `output` is a folder, for a single file also a file or store; None is beside the input.
    `single`: whether this is the only file of the run. Raises `OptionError` if one file was named
    for several results.
    """
    store = _store(path, output, outputs, scale, single)
    if store is not None:
        return Targets({outputs[0]: store}, store)
    return Targets(_files(path, output, outputs, scale, single))


def _store(
    path: Path, output: Path | None, outputs: Sequence[str], scale: int, single: bool
) -> Path | None:
    """What a run block by block writes: if the input is a store, or the output is one."""
    suffix = output.suffix.lower() if output is not None else ""
    if output is not None and (suffix == STORE or (suffix in TIFF_SUFFIXES and is_store(path))):
        if not single:
            raise OptionError(f"expected a folder for several files, got {output}")
        if suffix != STORE and len(outputs) != 1:
            raise OptionError(f"expected a folder or {STORE} for several outputs, got {output}")
        return output
    if not is_store(path):
        return None
    kind = f"_{outputs[0]}" if len(outputs) == 1 else ""  # several are groups of one store
    return (output or outside_stores(path.parent)) / f"{path.stem}_x{scale}{kind}{STORE}"


def _files(
    path: Path, output: Path | None, outputs: Sequence[str], scale: int, single: bool
) -> dict[str, Path]:
    """A file for each output."""
    if output is not None and output.suffix.lower() in SUFFIXES and not output.is_dir():
        if not single or len(outputs) != 1:
            raise OptionError(f"expected a folder for several files or outputs, got {output}")
        return {outputs[0]: output}
    folder = output or path.parent
    name, suffix = _parts(path)
    of_floats = suffix if path.suffix.lower() in TIFF_SUFFIXES else ".tif"
    return {
        kind: folder / f"{name}_x{scale}_{kind}{of_floats if kind == 'difference' else suffix}"
        for kind in outputs
    }


def _parts(path: Path) -> tuple[str, str]:
    """Name and suffix, which has two dots for OME-TIFF."""
    ome = re.search(r"\.ome\.tiff?$", path.name, re.IGNORECASE)
    return (path.name[: ome.start()], ome[0]) if ome else (path.stem, path.suffix)


def check_targets(
    targets: Iterable[Path], taken: Mapping[Path, str], overwrite: bool = False
) -> None:
    """Raise an error for files that can't be written, before any time is spent.

    `taken` are resolved paths that must not be written, and why. Raises `OptionError` for those and
    for files that exist, unless `overwrite`; `FileFormatError` for impossible names.
    """
    for target in targets:
        try:
            why, exists = taken.get(target.resolve()), target.exists()
        except (OSError, RuntimeError) as error:
            raise FileFormatError(f"{target}: can't be written ({_reason(error)})") from error
        if why is not None:
            raise OptionError(f"{target} {why}: choose another output")
        if exists and not overwrite:
            raise OptionError(f"{target} exists: pass overwrite=True to replace it")
