"""Which weights a model is made of, found without torch and before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass

from napari_cfsr.core.weights.refiner_search import backbone_of_refiner, find_refiner
from napari_cfsr.core.weights.weight_files import Folder, Progress, WeightsFile, find_backbone


@dataclass(frozen=True)
class ModelFiles:
    """The weights that a model is made of.

    Attributes
    ----------
    scale : int
    backbone : WeightsFile
    refiner : WeightsFile or None
    notes : tuple of str
        What the user should know of how they were chosen.
    """

    scale: int
    backbone: WeightsFile
    refiner: WeightsFile | None
    notes: tuple[str, ...] = ()

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

    Parameters and errors are those of `load_model`. What is in the files is checked when they are
    opened.
    """
    file, notes = None, list[str]()
    if backbone == "auto" and refiner not in ("auto", "none", None):
        file = backbone_of_refiner(scale, refiner, weights_folder)
    if file is None:
        file, notes = find_backbone(scale, backbone, download, progress, weights_folder)
    return ModelFiles(scale, file, find_refiner(file, refiner), tuple(notes))
