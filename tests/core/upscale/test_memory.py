"""Peak memory of a run, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import indent

import pytest

from tests.helpers.peak_memory import PEAK

PROGRAM = """
import json, sys
import numpy as np
from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine import keep_freed_memory
keep_freed_memory()
model = load_model(4, "bundled", device="cpu")
for side in (768, 1152):  # both have tiles with a whole halo
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    arrays = upscale(image, model, axes="YXC").arrays()
    PEAK
    print(json.dumps([peak, image.nbytes, sum(a.nbytes for a in arrays.values())]))
    del arrays
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_is_input_and_output_and_a_constant() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("    PEAK", indent(PEAK, "    "))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    rest = []
    for line in run.stdout.splitlines():
        peak, image, output = json.loads(line)
        assert output >= image * 16
        rest.append(peak - image - output)
    assert max(rest) < 1.5e9
    assert abs(rest[1] - rest[0]) < 0.3e9
