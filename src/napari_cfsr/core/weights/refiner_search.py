"""Which refiner, and which backbone, a name or a file stands for. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card
from napari_cfsr.core.weights.weight_files import (
    Folder,
    Kind,
    WeightsFile,
    bundled_path,
    file_named,
    imported_backbones,
    official_path,
    refiner_files,
    sha256_of,
)
from napari_cfsr.errors import WeightsError, WeightsNotFoundError


def find_refiner(
    backbone: WeightsFile, refiner: str | os.PathLike[str] | None
) -> WeightsFile | None:
    """The refiner for a backbone: `"auto"`, None, the name of one on this machine, or a file."""
    if refiner is None or refiner == "none":
        return None
    if refiner != "auto":
        return _named_refiner(refiner)
    for path, kind, card in refiner_cards():
        default = kind == "bundled" and card.extra.get("default", False)
        if default and card.backbone_sha256 == backbone.sha256:
            return WeightsFile(path, sha256_of(path), kind)
    return None


def _named_refiner(refiner: str | os.PathLike[str]) -> WeightsFile:
    path = file_named(refiner)
    if path is not None:
        return WeightsFile(path, sha256_of(path), "file")
    for path, kind, _ in refiner_cards():
        if str(refiner) in (path.name, path.stem):
            return WeightsFile(path, sha256_of(path), kind)
    raise WeightsNotFoundError(
        f'expected refiner "auto", None, the name of a refiner or a file; got {str(refiner)!r}, '
        "which is none of them"
    )


def backbone_of_refiner(
    scale: int, refiner: str | os.PathLike[str], folder: Folder = None
) -> WeightsFile | None:
    """The backbone that a refiner was trained on, if it is on this machine.

    Parameters
    ----------
    scale : int
        None is found if the refiner is for another one.
    refiner : str or path
        A name or a file.
    folder : str or path, optional
        Where official backbones may be, too.

    Raises
    ------
    WeightsError
        There is no such refiner, or it can't be read.
    """
    card = read_refiner_card(_named_refiner(refiner).path)
    if card.scale != scale:
        return None
    places: list[tuple[Path | None, Kind]] = [
        (official_path(scale, folder), "official"),
        (bundled_path(scale), "bundled"),
        *((path, "imported") for path in imported_backbones()),
    ]
    for path, kind in places:
        if path is not None and sha256_of(path) == card.backbone_sha256:
            return WeightsFile(path, card.backbone_sha256, kind)
    return None


def refiner_cards() -> list[tuple[Path, Kind, RefinerCard]]:
    """Every readable refiner on this machine with its card; unreadable ones are left out."""
    found = []
    for path, kind in refiner_files():
        try:
            found.append((path, kind, read_refiner_card(path)))
        except WeightsError:
            continue
    return found
