"""Losses against numbers worked out by hand or with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cfsr.core.training.config import FFT_RAMP, FFT_WEIGHT
from napari_cfsr.core.training.losses import fft_magnitude, loss_function, ramp


def batch(seed: int = 0, side: int = 12) -> torch.Tensor:
    return torch.rand((2, 3, side, side + 3), generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    prediction = torch.tensor([[[[0.5, 1.0], [0.0, 0.25]]]])
    target = torch.tensor([[[[0.0, 0.5], [0.0, 1.0]]]])
    assert loss_function("l1")(prediction, target, 0).item() == (0.5 + 0.5 + 0.75) / 4
    assert loss_function("mse")(prediction, target, 0).item() == (0.25 + 0.25 + 0.5625) / 4
    # spectra are sums and differences: 1.75 -0.75 1.25 -0.25, and 1.5 -1.5 -0.5 0.5
    expected = (0.25 + 0.75 + 0.75 + 0.25) / 4
    assert fft_magnitude(prediction, target).item() == pytest.approx(expected)
    late = loss_function("l1+fft")(prediction, target, FFT_RAMP)
    assert late.item() == pytest.approx(1.75 / 4 + 0.005 * expected)


def test_the_spectrum_is_that_of_numpy() -> None:
    a, b = batch(0), batch(1)
    spectra = [np.abs(np.fft.rfft2(x.double().numpy())) for x in (a, b)]
    expected = np.abs(spectra[0] - spectra[1]).mean()
    assert fft_magnitude(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_magnitudes_do_not_see_where_things_are() -> None:
    a = batch()
    assert fft_magnitude(a, a).item() == 0
    moved = torch.roll(a, (3, -5), (2, 3))
    assert (moved - a).abs().mean() > 0.2
    assert fft_magnitude(a, moved).item() < 1e-5
    assert fft_magnitude(a, batch(1)).item() > 0.1


def test_the_ramp() -> None:
    assert (FFT_WEIGHT, FFT_RAMP) == (0.005, 2000)
    assert [ramp(step) for step in (0, 1000, 2000, 5000)] == [0, 0.0025, 0.005, 0.005]
    steps = [ramp(step) for step in range(2001)]
    np.testing.assert_allclose(np.diff(steps), 0.005 / 2000, rtol=1e-6)
    a, b = batch(0), batch(1)
    plain = loss_function("l1")(a, b, 0).item()
    assert loss_function("l1+fft")(a, b, 0).item() == plain
    half = loss_function("l1+fft")(a, b, 1000).item()
    assert half == pytest.approx(plain + 0.0025 * fft_magnitude(a, b).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["l1", "mse", "l1+fft"])
def test_the_loss_of_equal_images_is_zero(name) -> None:
    """Also where a spectrum is zero: there, a magnitude has no slope."""
    for target in (batch(), torch.zeros(1, 3, 8, 8)):
        prediction = target.clone().requires_grad_()
        loss = loss_function(name)(prediction, target, 2000)
        loss.backward()
        assert loss.item() == 0
        assert prediction.grad.abs().max() == 0
