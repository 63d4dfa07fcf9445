"""The peak memory of programs that tests run, each in a process of its own; of Linux."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.faults import run_python

ROOT = Path(__file__).parents[2]

reads_peak = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")

# unlike ru_maxrss, this does not count the process that started this one
PEAK = r"""
import re
from pathlib import Path
peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
"""

MODELS = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "benchmarks")!r}]
from napari_cfsr import load_model
from napari_cfsr.core.engine import keep_freed_memory
from tests.helpers.fakes import BoxModel

class Quick(BoxModel):
    def predict(self, batch, how, check=None):
        batch = batch[:, :, *how.crop]
        large = batch.repeat(self.info.scale, 2).repeat(self.info.scale, 3)
        return {{name: large for name in how.outputs}}

keep_freed_memory()
model = eval(sys.argv[1])
"""


def peak_with(model: str, program: str, *arguments: object) -> int:
    """Peak resident bytes of a program with a `model` and `sys.argv[2:]`."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    program = f"{MODELS}{program}{PEAK}print(peak)"
    return int(run_python(program, model, *arguments, env=environment))
