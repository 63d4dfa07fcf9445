"""PSNR with the official weights, through the code that the widget and the command line run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cfsr import psnr, upscale

# measured by others with the authors' code: Y channel, shave = scale, clipped, not rounded
EXPECTED = {
    ("Set5", 2): 38.081,
    ("Set5", 3): 34.506,
    ("Set5", 4): 32.330,
    ("Set14", 4): 28.732,
    ("B100", 4): 27.638,
}


def pairs(data: Path, name: str, scale: int):
    """LR and HR of each image of a data set, [Y,X,3] of float32 in [0,1]."""
    folder = data / "benchmark" / name
    for file in sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png")):
        lr = np.asarray(Image.open(file).convert("RGB")).astype(np.float32) / 255
        hr = np.asarray(
            Image.open(folder / "HR" / file.name.replace(f"x{scale}", "")).convert("RGB")
        )
        yield lr, hr[: lr.shape[0] * scale, : lr.shape[1] * scale] / 255.0


def mean_psnr(data: Path, name: str, scale: int, model, **options) -> float:
    values = [
        psnr(upscale(lr, model, **options).baseline, hr, shave=scale, channel="Y")
        for lr, hr in pairs(data, name, scale)
    ]
    assert len(values) == {"Set5": 5, "Set14": 14, "B100": 100}[name]
    return float(np.mean(values))


@pytest.mark.parametrize(("name", "scale"), EXPECTED)
def test_official_weights_give_the_published_psnr(data, models, name, scale) -> None:
    assert mean_psnr(data, name, scale, models[scale]) == pytest.approx(
        EXPECTED[name, scale], abs=0.002
    )


def test_self_ensemble_and_back_projection_gain_what_was_measured(data, models) -> None:
    plain = mean_psnr(data, "Set5", 4, models[4])
    ensemble = mean_psnr(data, "Set5", 4, models[4], ensemble=True)
    projected = mean_psnr(data, "Set5", 4, models[4], back_projection=True)
    both = mean_psnr(data, "Set5", 4, models[4], ensemble=True, back_projection=True)
    assert ensemble - plain == pytest.approx(0.085, abs=0.002)
    assert projected - plain == pytest.approx(0.010, abs=0.002)
    assert both - plain == pytest.approx(0.095, abs=0.002)


def test_fast_precision_costs_little_and_is_never_black(data, official) -> None:
    from napari_cfsr import load_model

    fast = load_model(4, "official", None, "cpu", "fast")
    exact = load_model(4, "official", None, "cpu", "float32")
    lr, _ = next(iter(pairs(data, "Set14", 4)))
    a, b = (upscale(lr, m).baseline for m in (fast, exact))
    assert np.isfinite(a).all()
    assert psnr(a, b) > 45
    flat = upscale(np.ones((40, 40, 3), np.float32), fast).baseline
    assert flat[8:-8, 8:-8].min() > 0.95
