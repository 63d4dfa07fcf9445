"""The user's refiners: their names, and saving, renaming, deleting, exporting, importing them.

Needs no torch. Refiners that ship with the program are read-only. A file operation does everything
or nothing, and a file is only replaced where the caller asks for it.
"""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from napari_cfsr.core.image import Degradation
from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card, reading_safetensors
from napari_cfsr.core.weights.weight_files import (
    RESERVED,
    Kind,
    copy_file,
    data_folder,
    file_errors,
    refiner_files,
    sha256_of,
)
from napari_cfsr.errors import ArchitectureError, OptionError, WeightsError, WeightsNotFoundError

SUFFIX = ".safetensors"
LONGEST = 200  # bytes; file systems allow 255, and the suffix is added
FORBIDDEN = '/\\:*?"<>|'  # on at least one operating system
_TWO = ("first", "second")  # convolutions of a block
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\.|$)")
SHAPES = {  # of RefineNet
    "body.0.weight": [32, 3, 3, 3], "body.0.bias": [32],
    "body.2.weight": [32, 32, 3, 3], "body.2.bias": [32],
    "body.4.weight": [3, 32, 3, 3], "body.4.bias": [3],
}  # fmt: skip
_LARGE = {  # of the weights of a UNetRefiner, and the number of its biases
    "head": ([32, 12, 3, 3], 32),
    "down": ([64, 32, 2, 2], 64),
    "up": ([64, 32, 2, 2], 32),
    "tail": ([12, 32, 3, 3], 12),
    **{f"{block}.{i}": ([32, 32, 3, 3], 32) for block in ("before", "after") for i in _TWO},
    **{f"middle.{n}.{i}": ([64, 64, 3, 3], 64) for n in (0, 1) for i in _TWO},
}
LARGE_SHAPES: dict[str, list[int]] = {}
for _layer, (_weight, _biases) in _LARGE.items():
    LARGE_SHAPES |= {f"{_layer}.weight": _weight, f"{_layer}.bias": [_biases]}


# names


def refiner_path_for(name: str) -> Path:
    """Where the user's refiner of that name is kept, whether or not it exists.

    A name may be in any script, with spaces; a final ``.safetensors`` is ignored. Raises
    `OptionError` if some operating system can't store a file of that name, or the name is reserved.
    """
    name = name.strip().removesuffix(SUFFIX).rstrip()
    if fault := _fault(name):
        raise OptionError(f"expected a name for a refiner, got {name!r}, which {fault}")
    return data_folder() / "refiners" / f"{name}{SUFFIX}"


def _fault(name: str) -> str:
    """What is wrong with a name; empty if it can be used."""
    bad = next((c for c in name if c in FORBIDDEN or not c.isprintable()), None)
    if not name:
        return "is empty"
    if bad is not None:
        return f"contains {bad!r}: use letters, digits, spaces, - and _"
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
    """A valid name that no refiner has: unchanged, or repaired and with a number appended."""
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
    """Equal for names that some file system does not distinguish."""
    return unicodedata.normalize("NFC", name).casefold()


# files


def refiner_cards() -> list[tuple[Path, Kind, RefinerCard]]:
    """Every readable refiner on this machine with its card; unreadable ones are left out."""
    found = []
    for path, kind in refiner_files():
        with suppress(WeightsError, OSError):
            about = path.stat()
            found.append((path, kind, _card(path, (about.st_mtime_ns, about.st_size))))
    return found


@lru_cache(maxsize=256)
def _card(path: Path, _: tuple[int, int]) -> RefinerCard:
    """The card of a file as it is now: forms ask for all cards at each change."""
    return read_refiner_card(path)


def find_refiner_file(name: str) -> tuple[Path, Kind]:
    """The refiner of that name (with or without suffix), the user's own first.

    Raises `WeightsNotFoundError` if there is none.
    """
    for path, kind in sorted(refiner_files(), key=lambda found: found[1] == "bundled"):
        if name in (path.stem, path.name):
            return path, kind
    names = ", ".join(path.stem for path, _ in refiner_files()) or "none"
    raise WeightsNotFoundError(
        f"expected the name of a refiner on this machine ({names}), got {name!r}"
    )


def check_target(name: str, overwrite: bool = False) -> Path:
    """Where a refiner of that name can be saved; raises `OptionError` if it can't be."""
    target = refiner_path_for(name)
    for path, kind in refiner_files():
        if _key(path.stem) != _key(target.stem):
            continue
        if kind == "bundled":
            raise OptionError(f"a refiner {path.stem!r} comes with this program: use another name")
        if not overwrite:
            raise OptionError(
                f"there is a refiner {path.stem!r}: use another name, or overwrite it"
            )
        target = path if path.suffix == SUFFIX else target
    return target


def rename_refiner(name: str, new: str) -> Path:
    """Give one of the user's refiners another name; returns its new place.

    Raises `WeightsNotFoundError` if there is no such refiner, `OptionError` if it ships with the
    program, or the new name can't be used or is taken, `WeightsError` if the file can't be renamed.
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
    """Delete one of the user's refiners, even if its file is damaged; returns where it was.

    Raises `WeightsNotFoundError` if there is no such refiner, `OptionError` if it ships with the
    program, `WeightsError` if the file can't be deleted.
    """
    path = _own(name, "deleted")
    with file_errors(f"{path} can't be deleted"):
        path.unlink()
    return path


def export_refiner(name: str, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Copy a refiner, bundled ones included, to a file or into a folder; returns the file.

    `path` is an existing folder, or a file that ends in ``.safetensors`` (added if there is no
    suffix). Raises `WeightsNotFoundError` if there is no such refiner, `OptionError` if the file
    exists and `overwrite` is false, or has another suffix, `WeightsError` if the refiner can't be
    read, or the file can't be written.
    """
    source, _ = find_refiner_file(name)
    read_refiner_card(source)
    target = export_path(path, source.stem)
    copy_file(source, target, overwrite)
    return target


def export_path(path: str | os.PathLike[str], stem: str) -> Path:
    """The file to write: inside an existing folder, or with the suffix added."""
    target = Path(path)
    with file_errors(f"{target}: can't be written"):
        target = target.expanduser()
        if target.is_dir():
            return target / f"{stem}{SUFFIX}"
    if target.suffix not in ("", SUFFIX):
        raise OptionError(f"expected a file name that ends in {SUFFIX}, got {target}")
    return target.with_name(f"{target.stem}{SUFFIX}")


def import_refiner(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Check a refiner file, and keep a copy of it among the user's refiners; returns the copy.

    Raises as `read_refiner_card` for what is not a refiner, `OptionError` if its name can't be
    used, or another refiner has it and `overwrite` is false, `WeightsError` if the copy can't be
    written.
    """
    source = Path(path).expanduser()
    read_refiner_card(source)
    _check_tensors(source)
    target = refiner_path_for(source.stem)
    with file_errors(f"{target}: can't be written"):
        if target.exists() and sha256_of(target) == sha256_of(source):
            return target
    target = check_target(source.stem, overwrite)
    copy_file(source, target, overwrite=True)
    return target


def _own(name: str, done: str) -> Path:
    """One of the user's refiners; raises as `rename_refiner` does."""
    path, kind = find_refiner_file(name)
    if kind == "bundled":
        raise OptionError(f"{path.stem} comes with this program and can't be {done}")
    return path


def _check_tensors(path: Path) -> None:
    """Raise an error unless a safetensors file holds the tensors of the network its card names."""
    from safetensors import safe_open

    network = read_refiner_card(path).network
    expected = LARGE_SHAPES if network == "UNetRefiner" else SHAPES
    with reading_safetensors(path), safe_open(path, framework="np") as file:
        shapes = {k: file.get_slice(k).get_shape() for k in file.keys()}  # noqa: SIM118
    if shapes != expected:
        odd = next(k for k in {**expected, **shapes} if shapes.get(k) != expected.get(k))
        raise ArchitectureError(
            f"{path} holds another network than {network}: expected {odd} of shape "
            f"{expected.get(odd)}, got {shapes.get(odd)}"
        )


# saving a trained refiner


class Saveable(Protocol):
    """`TrainedRefiner` and `Checkpoint`."""

    def save(self, path: Path, /) -> Path: ...


class SavedElsewhereError(WeightsError):
    """It was saved, but not where it should have been; `path` is where it is."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


def save_named(refiner: Saveable, name: str, overwrite: bool = False) -> Path:
    """Save a trained refiner among the user's refiners.

    Raises `OptionError` if the name can't be used, or is taken and `overwrite` is false,
    `NoGainError` if it does not beat the backbone on held-out images, `WeightsError` if it can't be
    written.
    """
    return save_to(refiner, check_target(name, overwrite), overwrite)


def save_to(refiner: Saveable, target: Path, overwrite: bool = False) -> Path:
    """Save it to a file, creating missing folders; raises as `save_named` does."""
    with file_errors(f"{target}: can't be written"):
        if target.exists() and not overwrite:
            raise OptionError(f"{target} exists: pass overwrite=True to replace it")
        target.parent.mkdir(parents=True, exist_ok=True)
    return refiner.save(target)


def save_or_elsewhere(refiner: Saveable, target: Path, overwrite: bool = False) -> Path:
    """Save it to a file; if that fails, among the user's refiners or in the temporary folder.

    So that the time of a training is not lost. Raises `SavedElsewhereError` if it was saved, but
    not to `target`, `NoGainError` if it does not beat the backbone on held-out images, and
    `WeightsError` or `OptionError` if it could not be saved anywhere.
    """
    try:
        return save_to(refiner, target, overwrite)
    except (WeightsError, OptionError) as error:
        path = _saved_elsewhere(refiner, unique_name(target.name))
        if path is None:
            raise
        text = f"{error}. What was trained is saved as {path} instead"
        raise SavedElsewhereError(text, path) from error


def _saved_elsewhere(refiner: Saveable, name: str) -> Path | None:
    """Where it was saved; None if it can't be."""
    with suppress(WeightsError, OptionError):
        return save_to(refiner, refiner_path_for(name))
    with suppress(WeightsError, OptionError, OSError):
        folder = Path(tempfile.mkdtemp(prefix="napari-cfsr-"))  # new, so nothing is overwritten
        return save_to(refiner, folder / f"{name}{SUFFIX}")
    return None


def check_writable(target: Path) -> None:
    """Raise `WeightsError` where a file can't be written; leaves nothing behind.

    To call before a training, whose time must not be lost to a typing error.
    """
    missing = []
    with file_errors(f"{target}: can't be written"):
        try:
            missing = [p for p in target.parents if not p.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.lstat(target)  # raises if no file can have that name
            with tempfile.TemporaryFile(dir=target.parent):
                pass
            if target.is_dir():
                raise IsADirectoryError(0, "it is a folder")
        finally:
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()


# cards


def describe_card(card: RefinerCard) -> list[str]:
    """What a refiner's card says, one fact per line, the held-out report as a table."""
    known = card.extra
    facts = {
        "description": card.description,
        "network": None if card.network == "RefineNet" else card.network,
        "backbone": _backbone_text(card),
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


def _backbone_text(card: RefinerCard) -> str:
    if not card.backbone_sha256:
        return "any"
    return f"{card.extra.get('backbone', 'unknown')} x{card.scale}"


def _degradation_text(value: Any) -> str | None:
    """A card may come from another program: as much as can be understood."""
    if not isinstance(value, dict):
        return None if value is None else str(value)
    try:
        return Degradation(**value).describe()
    except (TypeError, ValueError):  # OptionError is a ValueError
        return ", ".join(f"{k} {v}" for k, v in value.items())


def _report_lines(report: Any) -> list[str]:
    """The table of `Report`; empty if the card's report has another form."""
    try:
        rows = [
            (str(r["name"]), float(r["psnr"]), r["ssim"] and float(r["ssim"]))
            for r in report["rows"]
        ]
        images = len(report["images"])
    except (KeyError, TypeError, ValueError):
        return []
    how = "estimated from photons kept back" if report.get("estimated") else "held-out report, mean"
    head = f"{how} of {images} image{'' if images == 1 else 's'}:"
    lines = [
        f"  {name:18}{psnr:10.2f}" + ("" if ssim is None else f"{ssim:9.4f}")
        for name, psnr, ssim in rows
    ]
    ending = "" if report.get("estimated") else f"{'SSIM':>9}"
    return [head, f"  {'':18}{'PSNR (dB)':>10}{ending}", *lines]
