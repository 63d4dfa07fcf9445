"""Training losses of a refiner: tensors [N,C,h,w] in [0,1] in, a scalar out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_cfsr.core.training.config import FFT_RAMP, FFT_WEIGHT, Loss

LossFunction = Callable[[Tensor, Tensor, int], Tensor]  # prediction, target, step from 0


def fft_magnitude(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference between the magnitudes of the (unnormalised) 2D spectra."""
    a, b = (torch.fft.rfft2(x).abs() for x in (prediction, target))
    return F.l1_loss(a, b)


def ramp(step: int) -> float:
    """Weight of the FFT term: linear to `FFT_WEIGHT` at step `FFT_RAMP`, constant after."""
    return FFT_WEIGHT * min(1.0, step / FFT_RAMP)


def loss_function(name: Loss) -> LossFunction:
    """The loss of that name; `l1+fft` is L1 plus the FFT magnitude, whose weight rises linearly."""
    if name == "mse":
        return lambda prediction, target, _: F.mse_loss(prediction, target)
    if name == "l1":
        return lambda prediction, target, _: F.l1_loss(prediction, target)
    return lambda prediction, target, step: (
        F.l1_loss(prediction, target) + ramp(step) * fft_magnitude(prediction, target)
    )
