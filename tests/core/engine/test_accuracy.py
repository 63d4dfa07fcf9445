"""PSNR and SSIM with the official weights, through the code that `evaluate` and `upscale` run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_cfsr import load_model, psnr, upscale
from napari_cfsr.core.engine.model import SRModel
from napari_cfsr.core.evaluate.report import Scores
from napari_cfsr.core.evaluate.run import EvaluateOptions, evaluate

# measured by others with the authors' code: Y channel, shave = scale, clipped, not rounded
EXPECTED = {
    ("Set5", 2): 38.081,
    ("Set5", 3): 34.506,
    ("Set5", 4): 32.330,
    ("Set14", 4): 28.732,
    ("B100", 4): 27.638,
}
COUNTS = {"Set5": 5, "Set14": 14, "B100": 100}
PUBLISHED_SSIM = {"Set5": 0.8964, "Set14": 0.7842, "B100": 0.7381}  # x4, by the CFSR authors

Outputs = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def remembering(models) -> Iterator[dict[int, SRModel]]:
    """The official backbones; each runs once on the same pixels."""
    with pytest.MonkeyPatch.context() as patch:
        for model in models.values():
            patch.setattr(model._engine, "run", remember(model._engine.run))
        yield models


def remember(run: Callable[..., Outputs]) -> Callable[..., Outputs]:
    known: dict[tuple[object, ...], Outputs] = {}

    def look_up(batch: np.ndarray, outputs: tuple[str, ...], check: object, *crop: Any) -> Outputs:
        key = batch.shape, batch.tobytes(), outputs, repr(crop)
        if key not in known:
            known[key] = run(batch, outputs, check, *crop)
        return {name: array.copy() for name, array in known[key].items()}

    return look_up


def mean_of(data: Path, name: str, model: SRModel, **how: bool) -> Scores:
    """Mean figures of the baseline."""
    options = EvaluateOptions(data, (name,), model.scale, ("baseline",), **how)
    report = evaluate(options, model)
    assert not report.faults
    assert len(report.images) == COUNTS[name]
    return report.mean(name, "baseline")


@pytest.mark.parametrize(("name", "scale"), EXPECTED)
def test_official_weights_give_the_published_figures(data, remembering, name, scale) -> None:
    found = mean_of(data, name, remembering[scale])
    assert found.psnr == pytest.approx(EXPECTED[name, scale], abs=0.002)
    if scale == 4:
        assert found.ssim_uint8 == pytest.approx(PUBLISHED_SSIM[name], abs=0.0005)


def test_self_ensemble_and_back_projection_gain_what_was_measured(data, remembering) -> None:
    plain = mean_of(data, "Set5", remembering[4]).psnr
    ensemble = mean_of(data, "Set5", remembering[4], ensemble=True).psnr
    projected = mean_of(data, "Set5", remembering[4], back_projection=True).psnr
    both = mean_of(data, "Set5", remembering[4], ensemble=True, back_projection=True).psnr
    assert ensemble - plain == pytest.approx(0.085, abs=0.002)
    assert projected - plain == pytest.approx(0.010, abs=0.002)
    assert both - plain == pytest.approx(0.095, abs=0.002)


def test_fast_precision_costs_little_and_is_never_black(data, official) -> None:
    fast = load_model(4, "official", None, "cpu", "fast")
    exact = load_model(4, "official", None, "cpu", "float32")
    file = data / "benchmark" / "Set14" / "LR_bicubic" / "X4" / "baboonx4.png"
    lr = np.asarray(Image.open(file)) / np.float32(255)
    a, b = (upscale(lr, m).baseline for m in (fast, exact))
    assert np.isfinite(a).all()
    assert psnr(a, b) > 45
    flat = upscale(np.ones((40, 40, 3), np.float32), fast).baseline
    assert flat[8:-8, 8:-8].min() > 0.95
