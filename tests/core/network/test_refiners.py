"""The networks that can be a refiner: size, start, and how far they see."""

from __future__ import annotations

import pytest
import torch

from napari_cfsr.core.network import REFINER_FIELDS, REFINER_STRIDE, make_refiner


@pytest.mark.parametrize("network", REFINER_FIELDS)
def test_size_and_start(network) -> None:
    refiner = make_refiner(network, torch.Generator().manual_seed(1)).eval()
    assert sum(p.numel() for p in refiner.parameters()) == (
        208_140 if network == "UNetRefiner" else 11_011
    )
    image = torch.rand(2, 3, 32, 24)
    with torch.inference_mode():
        assert (refiner(image) - image).abs().max() < 1e-2  # nearly the identity
        again = make_refiner(network, torch.Generator().manual_seed(1)).eval()
        torch.testing.assert_close(again(image), refiner(image), rtol=0, atol=0)


@pytest.mark.parametrize("network", REFINER_FIELDS)
def test_a_pixel_depends_on_its_receptive_field_and_nothing_beyond(network) -> None:
    refiner = make_refiner(network, torch.Generator().manual_seed(1)).double().eval()
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter).abs())  # no ReLU is silent
    side, field = 112, REFINER_FIELDS[network]
    furthest = 0
    stride = REFINER_STRIDE if network == "UNetRefiner" else 1
    for at in range(side // 2, side // 2 + stride):
        image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        refiner(image)[0, :, at, at].sum().backward()
        assert image.grad is not None
        seen = image.grad[0].abs().sum(0).nonzero()
        furthest = max(furthest, int((seen - at).abs().max()))
    assert furthest == field
