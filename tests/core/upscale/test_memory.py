"""Peak memory of a run: its input, its output, and a constant."""

from __future__ import annotations

from tests.helpers.peak_memory import peak_with, reads_peak

PROGRAM = """
import numpy as np
from napari_cfsr import upscale

height, width, *margin = map(int, sys.argv[2:])
region = [(n, side - n) for n in margin for side in (height, width)] or None
image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
result = upscale(image, model, axes="YXC", region=region)
assert len(result.arrays()) == 3
"""


def beyond_the_arrays(model: str, height: int, width: int, margin: int = 0) -> int:
    """Peak bytes but for the arrays: 8-bit input, baseline and delta, a difference in float32."""
    output = 16 * (height - 2 * margin) * (width - 2 * margin)
    peak = peak_with(model, PROGRAM, height, width, *([margin] if margin else []))
    return peak - 3 * (height * width + output * (1 + 1 + 4))


@reads_peak
def test_peak_grows_by_input_and_output_only() -> None:
    small, large = (beyond_the_arrays("Quick(4, True)", side, side) for side in (512, 1024))
    assert abs(large - small) < 30e6  # the arrays grow by 230 MB


@reads_peak
def test_the_network_takes_a_constant() -> None:
    """With two tiles that have whole halos."""
    assert beyond_the_arrays("load_model(4, 'bundled', device='cpu')", 320, 576, 32) < 1.5e9
