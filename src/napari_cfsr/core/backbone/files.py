"""Files of a backbone's training: the backbone with its card, and the state to resume from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.weights import load_state, reading_safetensors
from napari_cfsr.errors import ArchitectureError, WeightsError

BACKBONE_FORMAT = "napari-cfsr backbone 1"
STATE_FORMAT = "napari-cfsr backbone training 1"

Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """Everything needed to resume a training as if it had not been interrupted."""

    # weights of `network`, `average` and `best`, and the moments of `adam` by number and name
    tensors: dict[str, Tensors] = field(default_factory=dict)
    # step, seconds, configuration, history: plain values
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it atomically; raises `WeightsError`."""
        flat = {f"{part}/{k}": v for part, named in self.tensors.items() for k, v in named.items()}
        _save(path, flat, {"format": STATE_FORMAT, "about": json.dumps(self.about)})

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read it; raises `ArchitectureError` if it isn't such a state, else as `load_state`."""
        flat = load_state(path)
        metadata = _metadata(path)
        if metadata.get("format") != STATE_FORMAT:
            raise ArchitectureError(
                f"expected a state to resume from, with metadata '{STATE_FORMAT}', got {path} with "
                f"{metadata.get('format', 'none')}: a training can start from a backbone, but not "
                "resume from one"
            )
        state = cls(about=json.loads(metadata["about"]))
        for name, tensor in flat.items():
            part, key = name.split("/", 1)
            state.tensors.setdefault(part, {})[key] = tensor
        return state


def save_backbone(
    path: Path, state: Mapping[str, Tensor], card: Mapping[str, Any], half: bool = False
) -> Path:
    """Write a backbone in merged form with its card, atomically; an existing file is replaced.

    `half` stores float16, which halves the size; loading gives float32 again. Raises `WeightsError`
    if the file can't be written.
    """
    dtype = torch.float16 if half else torch.float32
    metadata = {"format": BACKBONE_FORMAT, "card": json.dumps(dict(card), sort_keys=True)}
    _save(path, {k: v.to(dtype) for k, v in state.items()}, metadata)
    return path


def read_backbone_card(path: Path) -> dict[str, Any]:
    """The card in the metadata of a backbone's file; empty if it has none."""
    metadata = _metadata(path)
    if metadata.get("format") != BACKBONE_FORMAT:
        return {}
    card: dict[str, Any] = json.loads(metadata["card"])
    return card


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with reading_safetensors(path), safe_open(path, framework="np") as file:
        return file.metadata() or {}


def _save(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_write(path, overwrite=True, make_folders=False, error=WeightsError) as file:
        file.write(save(plain, metadata))
