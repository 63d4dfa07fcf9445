"""Scale bars: a round length that fits, and its label."""

from __future__ import annotations

import math

STEPS = (1, 2, 5)
SHARE = 0.3  # of the width of an image, at most


def round_length(micrometres: float) -> tuple[float, str]:
    """The longest round length of a bar for an image this wide, in micrometres, and its label.

    Parameters
    ----------
    micrometres : float
        Width of the image, above 0.
    """
    most = micrometres * SHARE
    power = 10.0 ** math.floor(math.log10(most))
    length = power * max(step for step in STEPS if step * power <= most * (1 + 1e-9))
    if length < 1:
        return length, f"{length * 1e3:g} nm"
    return (length, f"{length:g} µm") if length < 1e3 else (length, f"{length / 1e3:g} mm")
