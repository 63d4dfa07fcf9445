"""Saving what was trained, so that the time it took is not lost. Needs no torch."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from napari_cfsr.core.weights.refiner_library import (
    SUFFIX,
    check_target,
    file_errors,
    refiner_path_for,
    unique_name,
)
from napari_cfsr.errors import OptionError, WeightsError


class Saveable(Protocol):
    """`TrainedRefiner` and `Checkpoint`."""

    def save(self, path: Path, /) -> Path: ...


class SavedElsewhereError(WeightsError):
    """It could not be saved where it should, but somewhere else.

    Attributes
    ----------
    path : Path
        Where it is.
    """

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


def save_named(refiner: Saveable, name: str, overwrite: bool = False) -> Path:
    """Save what was trained among the user's refiners.

    Raises
    ------
    OptionError
        The name can't be used, or is taken and `overwrite` is false.
    NoGainError
        It does not beat the backbone on held-out images.
    WeightsError
        It can't be written.
    """
    return save_to(refiner, check_target(name, overwrite), overwrite)


def save_to(refiner: Saveable, target: Path, overwrite: bool = False) -> Path:
    """Save it to a file, making the folders above it; raises as `save_named` does."""
    with file_errors(f"{target} can't be written"):
        if target.exists() and not overwrite:
            raise OptionError(f"{target} exists: choose another, or overwrite it (--overwrite)")
        target.parent.mkdir(parents=True, exist_ok=True)
    return refiner.save(target)


def save_or_elsewhere(refiner: Saveable, target: Path, overwrite: bool = False) -> Path:
    """Save it to a file, or if that fails among the user's refiners or in the temporary folder.

    Raises
    ------
    SavedElsewhereError
        It was saved, but not to `target`.
    NoGainError
        It does not beat the backbone on held-out images.
    WeightsError, OptionError
        It could not be saved anywhere.
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
        folder = Path(tempfile.mkdtemp(prefix="napari-cfsr-"))  # nothing is overwritten there
        return save_to(refiner, folder / f"{name}{SUFFIX}")
    return None


def check_writable(target: Path) -> None:
    """Raise `WeightsError` where a file can't be written; leaves nothing behind.

    For before a training: its time must not be lost over a slip of the pen.
    """
    partial = target.with_name(target.name + ".partial")  # the longest name that is needed
    missing = []
    with file_errors(f"{target} can't be written"):
        try:
            missing = [p for p in target.parents if not p.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.lstat(partial)
            with tempfile.TemporaryFile(dir=target.parent):
                pass
            if target.is_dir():
                raise IsADirectoryError(0, "it is a folder")
        finally:
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()
