"""Peak memory of writing stores, each in its own process: a block, whatever the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.peak_memory import ROOT, peak_with, reads_peak

pytestmark = [
    reads_peak,
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs benchmarks/big.py"),
]

PROGRAM = """
from big import Scene
from napari_cfsr import upscale_to_zarr

scene = Scene(int(sys.argv[2]), int(sys.argv[3]))
upscale_to_zarr(scene, model, sys.argv[4], scene.axes, intensity="dtype")
"""


def peak(path: Path, side: int, planes: int, model: str) -> int:
    """Peak resident bytes of a process that upscales such a scene."""
    return peak_with(model, PROGRAM, side, planes, path)


def test_memory_does_not_depend_on_the_number_of_slices(tmp_path) -> None:
    few, many = (peak(tmp_path / str(n), 512, n, "Quick(2)") for n in (16, 64))
    assert many - few < 30e6  # 48 slices more give 100 MB more


def test_memory_does_not_depend_on_the_size_of_the_image(tmp_path) -> None:
    small, large = (peak(tmp_path / str(n), n, 1, "Quick(4)") for n in (2048, 3072))
    assert large - small < 80e6  # the result has 250 MB more


def test_a_run_of_the_network_stays_below_2_gb(tmp_path) -> None:
    most = peak(tmp_path / "a", 512, 1, "load_model(4, 'bundled', None, 'cpu')")
    assert most < 2e9
