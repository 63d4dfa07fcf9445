"""Networks of a few parameters in the place of the official weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.weights import weight_files

SCALES = (2, 3, 4)


def tiny_network(scale: int, **changes: object) -> CFSR:
    """A backbone with random weights of small output."""
    with torch.random.fork_rng():
        torch.manual_seed(scale)
        config = {"embed_dim": 8, "depths": (1,), **changes}
        return CFSR(CFSRConfig(scale=scale, **config))


def shaken(config: CFSRConfig, size: float = 0.1) -> CFSR:
    """A network in which every branch contributes."""
    torch.manual_seed(0)
    network = CFSR(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return network.eval()


@contextmanager
def double() -> Iterator[None]:
    """Networks made in this context compute in float64: algebra shows without rounding."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def write_tiny_weights(folder: Path) -> Path:
    """A folder with `CFSR_x2.pth` and so on."""
    for scale in SCALES:
        torch.save({"params": tiny_network(scale).state_dict()}, folder / f"CFSR_x{scale}.pth")
    return folder


def use_as_official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the files of a folder for the official ones, in this process."""
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(folder))
    for scale in SCALES:
        sha256 = weight_files.sha256_of(folder / f"CFSR_x{scale}.pth")
        monkeypatch.setitem(weight_files.OFFICIAL_SHA256, scale, sha256)
