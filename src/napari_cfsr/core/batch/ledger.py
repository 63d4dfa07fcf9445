"""What a batch wrote in a folder, from which input and how, so that it is not repeated.

A ledger is a small file beside the results. An entry is made before a result is written and
completed after it: a run that is killed leaves no result that the next run can't identify.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_cfsr.core.image import parse_axes
from napari_cfsr.core.io import atomic_write, open_image, store_status
from napari_cfsr.core.store import fingerprint_pixels
from napari_cfsr.errors import FileFormatError

LEDGER = ".napari-cfsr.json"
FORMAT = 1
CHUNK = 2**22  # bytes hashed between two calls of `check`
COARSEST = 2 * 10**9  # nanoseconds; file systems round times, FAT to two seconds

FileStamp = dict[str, int]
Check = Callable[[], None]


class Ledger:
    """The ledger of one folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self.fault = ""  # why the existing file can't be used; it then counts as empty
        self._entries: dict[str, dict[str, Any]] = {}
        self._own: set[str] = set()  # entries of this run
        self._requests: dict[str, Mapping[str, Any]] = {}
        self._texts: dict[str, str] = {}  # of entries, cached: thousands take long
        self._seen: FileStamp | None = None
        self._read()

    def _read(self) -> None:
        """Take the entries of the file, except for those of this run."""
        self._seen = file_stamp(self.path)
        try:
            content = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            content = None
        if not _is_valid(content):
            self.fault = (
                f"{self.path}: can't be used (damaged, or of another version): "
                "results of earlier runs are not recognised"
            )
            return
        own = {name: self._entries[name] for name in self._own}
        self._entries = {**content["outputs"], **own}
        self._texts.clear()
        self._requests = {**content["requests"], **self._requests}

    def made(
        self, path: Path, targets: Sequence[Path], request: Mapping[str, Any], check: Check
    ) -> set[Path]:
        """Existing results of the same request, of the input as it is now.

        `targets` are in the folder of the ledger, `request` are plain values: how the input is
        upscaled. `check` is called while the input is read; it may raise to stop.
        """
        found = {target for target in targets if self._is_made(target, _key(request))}
        now = input_identity(path, check) if found else None
        return {t for t in found if _is_same(self._entries[t.name]["input"], now)}

    def _is_made(self, target: Path, request: str) -> bool:
        entry, stamp = self._entries.get(target.name), file_stamp(target)
        if entry is None or stamp is None or entry["request"] != request:
            return False
        if entry["output"] is not None:
            return bool(stamp == entry["output"])
        # killed before it was entered as finished; results are written whole or not at all
        since = stamp["mtime_ns"] >= entry["begun_ns"] - COARSEST
        return bool(since and stamp != entry["before"])

    def begin(
        self, identity: Mapping[str, Any], targets: Sequence[Path], request: Mapping[str, Any]
    ) -> None:
        """Enter results that are about to be written."""
        key = _key(request)
        self._requests[key] = request
        for target in targets:
            self._own.add(target.name)
            self._texts.pop(target.name, None)
            self._entries[target.name] = {
                "input": dict(identity),
                "request": key,
                "before": file_stamp(target),
                "begun_ns": time.time_ns(),
                "output": None,
            }
        self._write()

    def finish(self, path: Path, targets: Sequence[Path]) -> None:
        """Enter results that were written; as unknown if the input changed meanwhile."""
        now = file_stamp(path) or {}
        for target in targets:
            entry = self._entries[target.name]
            unchanged = all(entry["input"].get(k) == v for k, v in now.items())
            entry["output" if unchanged else "before"] = file_stamp(target)
            self._texts.pop(target.name, None)
        self._write()

    def _write(self) -> None:
        """Write the file, with what another run in this folder entered meanwhile."""
        if not self.fault and file_stamp(self.path) != self._seen:
            self._read()
        for name, entry in self._entries.items():
            if name not in self._texts:
                self._texts[name] = f"{json.dumps(name)}: {json.dumps(entry)}"
        used = {entry["request"] for entry in self._entries.values()}
        requests = json.dumps({k: v for k, v in self._requests.items() if k in used})
        outputs = ",\n".join(self._texts[name] for name in self._entries)
        text = f'{{"format": {FORMAT}, "requests": {requests}, "outputs": {{\n{outputs}\n}}}}\n'
        with atomic_write(self.path, overwrite=True) as file:
            file.write(text.encode())
        self._seen, self.fault = file_stamp(self.path), ""


def _is_valid(content: Any) -> bool:
    """Whether this is the content of a ledger."""
    try:
        entries = content["outputs"].values()
        return (
            content["format"] == FORMAT
            and all(isinstance(request, dict) for request in content["requests"].values())
            and all(_is_entry(entry) for entry in entries)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry["input"], dict)
        and isinstance(entry["request"], str)
        and isinstance(entry["begun_ns"], int)
        and all(isinstance(entry[name], dict | None) for name in ("before", "output"))
    )


def _key(request: Mapping[str, Any]) -> str:
    """A short name for a request, the same for the same values."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def _is_same(before: Mapping[str, Any], now: Mapping[str, Any] | None) -> bool:
    """Whether an input is unchanged; a copy with the same bytes is."""
    if now is None or "sha256" not in now:
        return now == before
    return all(before.get(name) == now[name] for name in ("name", "size", "sha256"))


def file_stamp(path: Path) -> FileStamp | None:
    """Size and time of a file, or of all in a store; None if it is missing or incomplete."""
    try:
        if not path.is_dir():
            status = path.stat()
            return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if store_status(path) in ("absent", "partial"):
            return None
        files = [Path(folder, name).stat() for folder, _, names in os.walk(path) for name in names]
    except OSError:
        return None
    times = [file.st_mtime_ns for file in files]
    size = sum(file.st_size for file in files)
    return {"files": len(files), "size": size, "mtime_ns": max(times, default=0)}


def input_identity(path: Path, check: Check = lambda: None) -> dict[str, Any] | None:
    """The identity of an input: name, size, time, and the SHA-256 of its bytes.

    For a store, a fingerprint of its pixels instead. None if it can't be read.
    """
    before = file_stamp(path)
    if before is None:
        return None
    try:
        content = (
            {"fingerprint": _pixels(path)} if path.is_dir() else {"sha256": _bytes(path, check)}
        )
    except (OSError, FileFormatError):
        return None
    return {"name": path.name, **before, **content}


def _bytes(path: Path, check: Check) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check()
            digest.update(chunk)
    return digest.hexdigest()


def _pixels(path: Path) -> str:
    try:
        image = open_image(path)
        return fingerprint_pixels(image.pixels, parse_axes(image.axes, image.pixels.shape, False))
    except Exception as error:  # zarr raises all kinds
        raise FileFormatError(f"{path}: can't be read ({error})") from error
