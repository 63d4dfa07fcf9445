"""Peak memory of writing stores, each in its own process: a block, whatever the image."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.faults import run_python
from tests.helpers.peak_memory import PEAK

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc"),
    pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs benchmarks/big.py"),
]

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/benchmarks"]
from big import Scene
from tests.helpers.fakes import BoxModel
from napari_cfsr import load_model, upscale_to_zarr
from napari_cfsr.core.engine import keep_freed_memory

class Quick(BoxModel):
    def predict(self, batch, how, check=None):
        batch = batch[:, :, *how.crop]
        large = batch.repeat(self.info.scale, 2).repeat(self.info.scale, 3)
        return {{name: large for name in how.outputs}}

keep_freed_memory()
scene = Scene({side}, {planes})
model = {model}
upscale_to_zarr(scene, model, {path!r}, scene.axes, intensity="dtype")
PEAK
print(peak)
"""


def peak(path: Path, side: int, planes: int, model: str) -> int:
    """Peak resident bytes of a process that upscales such a scene."""
    program = PROGRAM.format(root=str(ROOT), side=side, planes=planes, model=model, path=str(path))
    program = program.replace("PEAK", PEAK)
    return int(run_python(program, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}))


def test_memory_does_not_depend_on_the_number_of_slices(tmp_path) -> None:
    few, many = (peak(tmp_path / str(n), 512, n, "Quick(2)") for n in (16, 64))
    assert many - few < 30e6  # 48 slices more give 100 MB more


def test_memory_does_not_depend_on_the_size_of_the_image(tmp_path) -> None:
    small, large = (peak(tmp_path / str(n), n, 1, "Quick(4)") for n in (2048, 3072))
    assert large - small < 80e6  # the result has 250 MB more


def test_a_run_of_the_network_stays_below_2_gb(tmp_path) -> None:
    most = peak(tmp_path / "a", 512, 1, "load_model(4, 'bundled', None, 'cpu')")
    assert most < 2e9
