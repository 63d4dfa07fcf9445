"""All that a training needs, as plain values: what the child process is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.data import TrainData


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """What to train, on which backbone.

    Attributes
    ----------
    data : TrainData
    load : dict
        `scale`, `backbone`, `device`, `download`, `weights_folder`: arguments of `load_model`.
    config : TrainConfig
    """

    data: TrainData
    load: dict[str, Any]
    config: TrainConfig
