"""Weights files: where they are, how they are downloaded, whether they are the right ones.

Nothing here needs torch, so a widget can list them. Loading them is in `checkpoints`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from napari_cfsr.core.io import atomic_write
from napari_cfsr.errors import (
    DownloadError,
    OptionError,
    ScaleError,
    TamperedWeightsError,
    WeightsError,
    WeightsNotFoundError,
    reason,
)

SCALES = (2, 3, 4)
Kind = Literal["official", "bundled", "imported", "file"]

OFFICIAL_URL = "https://raw.githubusercontent.com/Aitical/CFSR/ec9b237/model_zoo/"
OFFICIAL_SHA256 = {
    2: "e6440c1a70af2cfa16c51287593f681438c8f307a81f90367a24e42086522f2c",
    3: "d501ce105b52550be501b327785d6fde27ca3534531f33aa0d530750ec41eb40",
    4: "59c779a61c72238aed87683a908248d6e9e3cdb78a29a71da196d20092b6f2f6",
}
OFFICIAL_NOTICE = (
    "The official weights are the CFSR authors' own. They state no licence (their model card "
    "once said CC BY-NC 4.0): ask the authors before commercial use."
)
WEIGHTS_VARIABLE = "NAPARI_CFSR_WEIGHTS"  # a folder that is searched first
HOME_VARIABLE = "NAPARI_CFSR_HOME"  # replaces the user's folders for cache and data
URL_VARIABLE = "NAPARI_CFSR_URL"  # a mirror of the official files
TIMEOUT = 30  # seconds without a response
CHUNK = 2**14  # bytes between two progress reports of a download
LARGEST_DOWNLOAD = 2**24  # bytes; what is longer is not the published file
BUNDLED = Path(__file__).parents[2] / "bundled"
SUFFIXES = (".pth", ".pt", ".safetensors")
BY_HASH = "by-hash"  # folder in the cache, for files sent from another machine
RESERVED = ("auto", "official", "bundled", "none")  # names with a meaning of their own

Folder = str | os.PathLike[str] | None
Progress = Callable[[int, int], None]  # bytes done, total (0 if unknown); may raise to stop


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on this machine."""

    path: Path
    sha256: str  # of its content, in hexadecimal
    kind: Kind  # where it comes from

    @property
    def name(self) -> str:
        return f"{self.kind} {self.path.name}"


def cache_folder() -> Path:
    """Where downloads are kept."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) / "cache" if home else platformdirs.user_cache_path("napari-cfsr", False)


def data_folder() -> Path:
    """Where imported backbones and refiners are kept."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) / "data" if home else platformdirs.user_data_path("napari-cfsr", False)


def official_name(scale: int) -> str:
    """File name of the official weights; raises `ScaleError` if there are none for a scale."""
    if scale not in OFFICIAL_SHA256:
        raise ScaleError(f"expected scale 2, 3 or 4, got {scale}: there are no weights for it")
    return f"CFSR_x{scale}.pth"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path, scale: int) -> WeightsFile:
    """The official file at `path`; `TamperedWeightsError` unless it has its published hash."""
    expected, got = OFFICIAL_SHA256[scale], sha256_of(path)
    if got != expected:
        raise TamperedWeightsError(
            f"{path} is not the published {official_name(scale)}: expected SHA-256 {expected}, got "
            f"{got} ({path.stat().st_size} bytes). Delete it and fetch it again with 'napari-cfsr "
            "models fetch'"
        )
    return WeightsFile(path, got, "official")


def official_path(scale: int, folder: Folder = None) -> Path | None:
    """The official file if it is on this machine, not verified.

    Searched are the folder named by the environment, `folder` and the cache, in this order.
    """
    name = official_name(scale)
    named = (os.environ.get(WEIGHTS_VARIABLE), folder, cache_folder())
    places = (Path(place) / name for place in named if place)
    return next((path for path in places if path.is_file()), None)


def bundled_path(scale: int) -> Path | None:
    """The backbone for `scale` that ships with this package, if there is one."""
    path = BUNDLED / f"cfsr_x{scale}.safetensors"
    return path if path.is_file() else None


def imported_backbones() -> list[Path]:
    """Backbones the user imported."""
    return _files(data_folder() / "backbones")


def refiner_files() -> Iterator[tuple[Path, Kind]]:
    """All refiners on this machine: bundled first, then imported."""
    for path in _files(BUNDLED / "refiners"):
        yield path, "bundled"
    for path in _files(data_folder() / "refiners"):
        yield path, "imported"


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def file_named(name: str | os.PathLike[str]) -> Path | None:
    """The file of that name, `~` allowed; None if there is none or the name is impossible."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # the name is too long, or ~ a user who does not exist
        return None


def find_backbone(
    scale: int,
    backbone: str | os.PathLike[str] = "auto",
    download: bool = True,
    progress: Progress | None = None,
    folder: Folder = None,
) -> tuple[WeightsFile, list[str]]:
    """Find the weights of a backbone, downloading the official ones if necessary.

    Parameters
    ----------
    scale : int
        2, 3 or 4.
    backbone : str or path
        `"auto"` (official if it is on this machine, or if the user once agreed to the download and
        it succeeds; else bundled), `"official"`, `"bundled"`, the name of an imported backbone, or
        a file.
    download : bool
        Whether the official file may be downloaded.
    progress : callable, optional
        Called with the bytes done and the total during a download.
    folder : str or path, optional
        Another folder to search for official files.

    Returns
    -------
    WeightsFile, list of str
        The file, and what the user should know about the choice.

    Raises
    ------
    WeightsNotFoundError, TamperedWeightsError, DownloadError, ScaleError
    """
    if scale not in SCALES:
        raise ScaleError(f"expected scale 2, 3 or 4, got {scale}")
    if backbone == "bundled":
        return _bundled(scale), []
    if backbone == "official":
        was_here = official_path(scale, folder) is not None
        file = _official(scale, download, progress, folder)
        if not was_here:  # naming them is agreeing to the download
            _agree()
        return file, []
    if backbone == "auto":
        return _automatic(scale, download, progress, folder)
    path = file_named(backbone)
    if path is not None:
        return WeightsFile(path, sha256_of(path), "file"), []
    for imported in imported_backbones():
        if str(backbone) in (imported.name, imported.stem):
            return WeightsFile(imported, sha256_of(imported), "imported"), []
    raise WeightsNotFoundError(
        f'expected backbone "auto", "official", "bundled", an imported name or a file; '
        f"got {str(backbone)!r}, which is none of them"
    )


def _automatic(
    scale: int, download: bool, progress: Progress | None, folder: Folder
) -> tuple[WeightsFile, list[str]]:
    """Official weights, but bundled ones rather than a download that nobody agreed to."""
    if bundled_path(scale) is None:
        return _official(scale, download, progress, folder), []
    try:
        return _official(scale, download and agreed(), progress, folder), []
    except WeightsNotFoundError:
        note = "the official weights are not on this machine"
    except DownloadError as error:
        note = f"the official weights are not available ({error})"
    return _bundled(scale), [note]


def agreed() -> bool:
    """Whether the user once asked for the official weights, by name or by the button."""
    return _agreement().is_file()


def _agreement() -> Path:
    return data_folder() / "official-weights-agreed"


def _agree() -> None:
    with suppress(OSError):  # then the user is asked again
        _agreement().parent.mkdir(parents=True, exist_ok=True)
        _agreement().write_text(f"{OFFICIAL_URL}\n{OFFICIAL_NOTICE}\n", encoding="utf-8")


def _bundled(scale: int) -> WeightsFile:
    path = bundled_path(scale)
    if path is None:
        raise WeightsNotFoundError(
            f'this version ships no x{scale} backbone of its own: use backbone="official"'
        )
    return WeightsFile(path, sha256_of(path), "bundled")


def _official(scale: int, download: bool, progress: Progress | None, folder: Folder) -> WeightsFile:
    path = official_path(scale, folder)
    if path is not None:
        return verified(path, scale)
    if not download:
        raise WeightsNotFoundError(
            f"the official x{scale} weights are not on this machine: fetch them with 'napari-cfsr "
            f"models fetch', or name a folder that contains {official_name(scale)} in "
            f"{WEIGHTS_VARIABLE}"
        )
    return fetch_official(scale, progress)


def fetch_official(scale: int, progress: Progress | None = None) -> WeightsFile:
    """Download the official weights into the cache and check them; a failure leaves nothing behind.

    An exception from `progress` ends the download. Raises `DownloadError` for no response, an
    incomplete one, or another file than the published one.
    """
    from requests import RequestException

    name = official_name(scale)
    url = os.environ.get(URL_VARIABLE, OFFICIAL_URL).rstrip("/") + "/" + name
    path = cache_folder() / name
    try:
        content = _download(url, progress)
        if (got := hashlib.sha256(content).hexdigest()) != OFFICIAL_SHA256[scale]:
            raise TamperedWeightsError(f"it is not the published file (SHA-256 {got})")
        with atomic_write(path, overwrite=True, error=WeightsError) as file:
            file.write(content)
    except (RequestException, WeightsError) as error:
        cause = error if isinstance(error, WeightsError) else f"{type(error).__name__}: {error}"
        raise DownloadError(
            f"{name} could not be downloaded from {url}: {cause}. Nothing was kept. Try again, or "
            f"copy the file from another machine and name its folder in {WEIGHTS_VARIABLE}"
        ) from error
    return WeightsFile(path, got, "official")


def _download(url: str, progress: Progress | None) -> bytes:
    """The content at an address, at most `LARGEST_DOWNLOAD` bytes of it."""
    import requests

    content = bytearray()
    with requests.get(url, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        compressed = "Content-Encoding" in response.headers  # the length is not the file's
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and not compressed else 0
        for piece in response.iter_content(CHUNK):
            content += piece
            if progress is not None:
                progress(len(content), total)
            if len(content) > LARGEST_DOWNLOAD:
                break
    return bytes(content)


def import_file(path: Path, to: Literal["backbones", "refiners"], overwrite: bool = False) -> Path:
    """Copy a weights file that was checked into the user's folder, all of it or nothing.

    An official file goes to the cache under its official name. Raises `OptionError` if another file
    has that name and `overwrite` is false, or its name would not be found again, and `WeightsError`
    if it can't be written.
    """
    sha = sha256_of(path)
    scale = next((s for s, known in OFFICIAL_SHA256.items() if known == sha), None)
    if scale is None and (path.suffix.lower() not in SUFFIXES or path.stem in RESERVED):
        raise OptionError(
            f"expected a name that ends in {', '.join(SUFFIXES)} and is not one of "
            f"{', '.join(RESERVED)}, got {path}: rename it"
        )
    target = cache_folder() / official_name(scale) if scale else data_folder() / to / path.name
    with file_errors(f"{target}: can't be written"):
        if target.exists() and sha256_of(target) == sha:
            return target
    copy_file(path, target, overwrite)
    return target


def copy_file(source: Path, target: Path, overwrite: bool = False) -> None:
    """Copy a file, all of it or nothing; raises `OptionError` or `WeightsError` if it can't."""
    with atomic_write(target, overwrite, error=WeightsError) as file, source.open("rb") as content:
        shutil.copyfileobj(content, file)


@contextmanager
def file_errors(text: str) -> Iterator[None]:
    """`WeightsError` with that text for whatever the file system says."""
    try:
        yield
    except WeightsError:  # some of them are OSErrors
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links, or no such home
        raise WeightsError(f"{text} ({reason(error)})") from error


# found by content: a machine that has a file with the right SHA-256 needs no other


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
    named, cache, data = os.environ.get(WEIGHTS_VARIABLE), cache_folder(), data_folder()
    folders = [Path(named)] if named else []
    folders += [BUNDLED, BUNDLED / "refiners", cache, cache / BY_HASH]
    for folder in (*folders, data / "backbones", data / "refiners"):
        with suppress(OSError):
            yield from _files(folder)


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
        text = f"{error}: name a folder that can be written in {HOME_VARIABLE}"
        raise WeightsError(text) from error
    return path
