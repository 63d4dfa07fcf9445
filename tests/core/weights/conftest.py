"""Small networks in place of the official files, whose values these tests do not depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.weights import weight_files


@pytest.fixture(scope="session")
def small_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CFSR for each scale, under the names of the official files."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    for scale in weight_files.SCALES:
        state = CFSR(CFSRConfig(scale=scale, embed_dim=8, depths=(1, 1))).state_dict()
        state = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
        filled_up = torch.zeros(60_000 + scale)  # so that a download has some steps to report
        torch.save({"params": state, "filled_up": filled_up}, folder / f"CFSR_x{scale}.pth")
    return folder


@pytest.fixture
def published(small_networks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder; its files pass for the published ones."""
    names = {scale: weight_files.official_name(scale) for scale in weight_files.SCALES}
    hashes = {s: weight_files.sha256_of(small_networks / name) for s, name in names.items()}
    monkeypatch.setattr(weight_files, "OFFICIAL_SHA256", hashes)
    return small_networks


@pytest.fixture
def official(published: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, named in the environment as the folder of the official weights."""
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(published))
    return published
