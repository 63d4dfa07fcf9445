"""Which weights a model consists of, found without torch and before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from napari_cfsr.core.weights.checkpoints import read_refiner_card
from napari_cfsr.core.weights.refiner_library import find_refiner_file, refiner_cards
from napari_cfsr.core.weights.weight_files import (
    Folder,
    Kind,
    Progress,
    WeightsFile,
    bundled_path,
    file_named,
    find_backbone,
    imported_backbones,
    official_path,
    sha256_of,
)
from napari_cfsr.errors import WeightsNotFoundError


@dataclass(frozen=True)
class ModelFiles:
    """The weights that a model consists of."""

    scale: int
    backbone: WeightsFile
    refiner: WeightsFile | None
    notes: tuple[str, ...] = ()  # what the user should know about the choice

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model will be able to predict."""
        return ("baseline",) if self.refiner is None else ("baseline", "delta")


def find_model(
    scale: int = 4,
    backbone: str | os.PathLike[str] = "auto",
    refiner: str | os.PathLike[str] | None = "auto",
    *,
    download: bool = True,
    progress: Progress | None = None,
    weights_folder: Folder = None,
) -> ModelFiles:
    """Find what `load_model` would load, without torch and without loading it.

    Parameters and errors are those of `load_model`. The content of the files is checked when they
    are opened.
    """
    file, notes = None, list[str]()
    if backbone == "auto" and refiner not in ("auto", "none", None):
        file = backbone_of_refiner(scale, refiner, weights_folder)
    if file is None:
        file, notes = find_backbone(scale, backbone, download, progress, weights_folder)
    return ModelFiles(scale, file, find_refiner(file, refiner), tuple(notes))


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
    try:
        path, kind = find_refiner_file(str(refiner))
    except WeightsNotFoundError as error:
        raise WeightsNotFoundError(
            f'expected refiner "auto", None, the name of a refiner or a file; got '
            f"{str(refiner)!r}, which is none of them"
        ) from error
    return WeightsFile(path, sha256_of(path), kind)


def backbone_of_refiner(
    scale: int, refiner: str | os.PathLike[str], folder: Folder = None
) -> WeightsFile | None:
    """The backbone that a refiner was trained on, if it is on this machine and for that scale.

    `folder` is another one to search for official backbones. Raises `WeightsError` if there is no
    such refiner, or it can't be read.
    """
    card = read_refiner_card(_named_refiner(refiner).path)
    if card.scale != scale:  # or it runs with any backbone
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
