"""The user's refiners: names, and files that are renamed, deleted, exported, imported, described.

Needs no torch. Refiners that come with the program are read only. A file operation does all or
nothing, and what is there is only replaced where the caller says so.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_cfsr.core.image import Degradation
from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card
from napari_cfsr.core.weights.weight_files import (
    RESERVED,
    Kind,
    data_folder,
    refiner_files,
    sha256_of,
)
from napari_cfsr.errors import (
    ArchitectureError,
    OptionError,
    TruncatedWeightsError,
    WeightsError,
    WeightsNotFoundError,
)

SUFFIX = ".safetensors"
LONGEST = 200  # bytes; file systems allow 255, and a suffix comes after it
FORBIDDEN = '/\\:*?"<>|'  # by one system or another
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\.|$)")
SHAPES = {  # of RefineNet
    "body.0.weight": [32, 3, 3, 3],
    "body.0.bias": [32],
    "body.2.weight": [32, 32, 3, 3],
    "body.2.bias": [32],
    "body.4.weight": [3, 32, 3, 3],
    "body.4.bias": [3],
}


# names


def refiner_path_for(name: str) -> Path:
    """Where the user's refiner of that name is kept, whether or not it is there.

    Parameters
    ----------
    name : str
        In any script, spaces allowed; ``.safetensors`` at its end is left out.

    Raises
    ------
    OptionError
        No file can have that name on every system, or it means something else.
    """
    name = name.strip().removesuffix(SUFFIX).rstrip()
    if reason := _fault(name):
        raise OptionError(f"expected a name for a refiner, got {name!r}, which {reason}")
    return _folder() / f"{name}{SUFFIX}"


def _fault(name: str) -> str:
    """What is wrong with a name; nothing if it can be used."""
    bad = next((c for c in name if c in FORBIDDEN or not c.isprintable()), None)
    if not name:
        return "is empty"
    if bad is not None:
        return f"holds {bad!r}: use letters, digits, spaces, - and _"
    if name[0] in ".-~" or name[-1] == ".":
        return "begins with '.', '-' or '~', or ends with '.'"
    if name.casefold() in RESERVED:
        return "has a meaning of its own"
    if WINDOWS_DEVICES.match(name.casefold()):
        return "Windows keeps for a device"
    size = len(name.encode())
    return f"is too long ({size} bytes, {LONGEST} at most)" if size > LONGEST else ""


def is_taken(name: str) -> bool:
    """Whether a refiner on this machine has that name, bundled ones and other cases included."""
    return _key(refiner_path_for(name).stem) in {_key(path.stem) for path, _ in refiner_files()}


def unique_name(name: str) -> str:
    """A valid name that no refiner has: as it is, or mended and with a number behind it."""
    text = "".join("_" if c in FORBIDDEN or not c.isprintable() else c for c in name.strip())
    text = text.removesuffix(SUFFIX).lstrip(".-~ ").rstrip(". ")
    text = text.encode(errors="ignore")[: LONGEST - 10].decode(errors="ignore").rstrip(". ")
    if _fault(text):
        text = f"refiner {text}".rstrip()
    number, result = 1, text
    while is_taken(result):
        number += 1
        result = f"{text} {number}"
    return result


def _key(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _folder() -> Path:
    return data_folder() / "refiners"


# files


def find_refiner_file(name: str) -> tuple[Path, Kind]:
    """The refiner of that name (with or without suffix), the user's own first.

    Raises
    ------
    WeightsNotFoundError
        There is none.
    """
    for path, kind in sorted(refiner_files(), key=lambda found: found[1] == "bundled"):
        if name in (path.stem, path.name):
            return path, kind
    names = ", ".join(path.stem for path, _ in refiner_files()) or "none"
    raise WeightsNotFoundError(
        f"expected the name of a refiner on this machine ({names}), got {name!r}"
    )


def check_target(name: str, overwrite: bool = False) -> Path:
    """Where a refiner of that name can be saved; raises `OptionError` if not."""
    target = refiner_path_for(name)
    for path, kind in refiner_files():
        if _key(path.stem) != _key(target.stem):
            continue
        if kind == "bundled":
            raise OptionError(f"a refiner {path.stem!r} comes with this program: use another name")
        if not overwrite:
            raise OptionError(
                f"there is a refiner {path.stem!r}: use another name, or overwrite it (--overwrite)"
            )
        target = path if path.suffix == SUFFIX else target
    return target


def rename_refiner(name: str, new: str) -> Path:
    """Give a refiner of the user's another name.

    Returns
    -------
    Path
        Where it is now.

    Raises
    ------
    WeightsNotFoundError
        There is no such refiner.
    OptionError
        It comes with the program, or the new name can't be used or is taken.
    WeightsError
        The file can't be renamed.
    """
    path = _own(name, "renamed")
    target = refiner_path_for(new)
    if _key(target.stem) != _key(path.stem):  # else only upper and lower case change
        check_target(new)
    with file_errors(f"{path} can't be renamed to {target.name}"):
        if target.exists() and not target.samefile(path):
            raise OptionError(f"there is a refiner {target.stem!r}: use another name")
        path.rename(target)
    return target


def delete_refiner(name: str) -> Path:
    """Delete a refiner of the user's, also one whose file is damaged; where it was.

    Raises
    ------
    WeightsNotFoundError
        There is no such refiner.
    OptionError
        It comes with the program.
    WeightsError
        The file can't be deleted.
    """
    path = _own(name, "deleted")
    with file_errors(f"{path} can't be deleted"):
        path.unlink()
    return path


def export_refiner(name: str, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Copy a refiner, bundled ones included, to a file or into a folder.

    Parameters
    ----------
    name : str
    path : path
        A folder that is there, or a file that ends in ``.safetensors`` (added if nothing is).
    overwrite : bool
        Whether a file of that name may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WeightsNotFoundError
        There is no such refiner.
    OptionError
        The file exists and `overwrite` is false, or has another suffix.
    WeightsError
        The refiner can't be read, or the file can't be written.
    """
    source, _ = find_refiner_file(name)
    read_refiner_card(source)
    target = export_path(path, source.stem)
    with file_errors(f"{target} can't be written"):
        if target.exists() and not overwrite:
            raise OptionError(f"{target} exists: choose another, or overwrite it (--overwrite)")
    _copy(source, target)
    return target


def export_path(path: str | os.PathLike[str], stem: str) -> Path:
    """The file that is meant: in a folder that is there, or with the suffix it lacks."""
    target = Path(path)
    with file_errors(f"{target} can't be written"):
        target = target.expanduser()
        if target.is_dir():
            return target / f"{stem}{SUFFIX}"
    if target.suffix not in ("", SUFFIX):
        raise OptionError(f"expected a file name that ends in {SUFFIX}, got {target}")
    return target.with_name(f"{target.stem}{SUFFIX}")


def import_refiner(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Check a refiner file, and keep a copy of it among the user's refiners.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    WeightsNotFoundError, TruncatedWeightsError, ArchitectureError
        No file, not a complete safetensors file, or not a refiner.
    OptionError
        Its name can't be used, or another refiner has it and `overwrite` is false.
    WeightsError
        The copy can't be written.
    """
    source = Path(path).expanduser()
    read_refiner_card(source)
    _check_tensors(source)
    target = refiner_path_for(source.stem)
    with file_errors(f"{target} can't be written"):
        if target.exists() and sha256_of(target) == sha256_of(source):
            return target
        if target.exists() and not overwrite:
            raise OptionError(f"{target} exists and differs: pass --overwrite to replace it")
        target = check_target(source.stem, overwrite)
    _copy(source, target)
    return target


def _own(name: str, done: str) -> Path:
    """A refiner of the user's; raises what `rename_refiner` does."""
    path, kind = find_refiner_file(name)
    if kind == "bundled":
        raise OptionError(f"{path.stem} comes with this program and can't be {done}")
    return path


def _check_tensors(path: Path) -> None:
    """Raise an error unless a safetensors file holds the tensors of a RefineNet."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            shapes = {k: file.get_slice(k).get_shape() for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise TruncatedWeightsError(
            f"{path} is no complete safetensors file ({error}): get it again"
        ) from error
    if shapes != SHAPES:
        odd = next(k for k in {**SHAPES, **shapes} if shapes.get(k) != SHAPES.get(k))
        raise ArchitectureError(
            f"{path} holds another network than RefineNet: expected {odd} of shape "
            f"{SHAPES.get(odd)}, got {shapes.get(odd)}"
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a file, all of it or nothing."""
    partial = target.with_name(target.name + ".partial")
    with file_errors(f"{target} can't be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, partial)
            partial.replace(target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def file_errors(text: str) -> Iterator[None]:
    """`WeightsError` with that text for whatever the file system says."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, or no such home
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{text} ({getattr(error, 'strerror', None) or error})") from error


# cards


def describe_card(card: RefinerCard) -> list[str]:
    """What a refiner's card says, a line for each thing, the held-out report as a table."""
    known = card.extra
    facts = {
        "description": card.description,
        "backbone": f"{known.get('backbone', 'unknown')} x{card.scale}",
        "SHA-256": card.backbone_sha256,
        "placement": _PLACEMENTS.get(card.placement, card.placement),
        "gain": "not measured" if card.gain is None else f"{card.gain:+.4f} dB on held-out images",
        "data": known.get("data") or known.get("training data"),
        "degradation": _degradation_text(known.get("degradation")),
        "seed": known.get("seed"),
        "date": known.get("date"),
        "version": known.get("version"),
    }
    lines = [f"{name + ':':13}{value}" for name, value in facts.items() if value not in (None, "")]
    return lines + _report_lines(known.get("report"))


_PLACEMENTS = {"output": "output (after the backbone)", "input": "input (before the backbone)"}


def _degradation_text(value: Any) -> str | None:
    """Of a card that may come from elsewhere: whatever can be made of it."""
    if not isinstance(value, dict):
        return None if value is None else str(value)
    try:
        return Degradation(**value).describe()
    except (TypeError, ValueError):  # OptionError is a ValueError
        return ", ".join(f"{k} {v}" for k, v in value.items())


def _report_lines(report: Any) -> list[str]:
    """The table of `Report`; nothing where the card's is of another kind."""
    try:
        rows = [(str(r["name"]), float(r["psnr"]), float(r["ssim"])) for r in report["rows"]]
        images = len(report["images"])
    except (KeyError, TypeError, ValueError):
        return []
    head = f"held-out report, mean of {images} image{'' if images == 1 else 's'}:"
    lines = [f"  {name:18}{psnr:10.2f}{ssim:9.4f}" for name, psnr, ssim in rows]
    return [head, f"  {'':18}{'PSNR (dB)':>10}{'SSIM':>9}", *lines]
