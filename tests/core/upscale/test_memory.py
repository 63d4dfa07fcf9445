"""Peak memory of a run, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.peak_memory import PEAK

PROGRAM = """
import json, sys
import numpy as np
from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine import keep_freed_memory
keep_freed_memory()
side = int(sys.argv[1])
image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
result = upscale(image, load_model(4, "bundled", device="cpu"), axes="YXC")
arrays = result.arrays()
PEAK
print(json.dumps([peak, image.nbytes, sum(a.nbytes for a in arrays.values())]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_is_input_and_output_and_a_constant() -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("PEAK", PEAK), str(side)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        for side in (768, 1152)  # both have tiles with a whole halo
    ]
    rest = []
    for run in runs:
        peak, image, output = json.loads(run.communicate()[0])
        assert output >= image * 16
        rest.append(peak - image - output)
    assert max(rest) < 1.5e9
    assert abs(rest[1] - rest[0]) < 0.3e9
