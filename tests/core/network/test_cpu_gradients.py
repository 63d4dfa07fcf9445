"""Gradients in threads and strips are torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.network.cpu_gradients import Gradients, depthwise, flushes_denormals
from tests.helpers.tiny_weights import shaken


def training_form() -> CFSR:
    return shaken(CFSRConfig(scale=2, depths=(1, 1), merged=False), 0.05).train()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_gradients_of_a_batch(threads, count) -> None:
    network = training_form()
    source, target = torch.rand(count, 3, 14, 11), torch.rand(count, 3, 28, 22)
    expected = F.l1_loss(network(source), target)
    expected.backward()
    wanted = [p.grad for p in network.parameters()]
    gradients = Gradients(network, "cpu", threads)
    got = gradients.compute(lambda x, y: F.l1_loss(network(x), y), source, target)
    gradients.close()
    torch.testing.assert_close(got, expected.detach())
    for parameter, want in zip(network.parameters(), wanted, strict=True):
        assert parameter.grad is not want
        torch.testing.assert_close(parameter.grad, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_step_of_fused_adam_is_that_of_plain_torch(threads, batch) -> None:
    """Channels last; with gradients in another order in memory it would mix up the weights."""
    source, target = torch.rand(batch, 3, 12, 12), torch.rand(batch, 3, 24, 24)
    stepped = []
    for plain in (True, False):
        network = training_form().to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01, fused=not plain)
        if plain:
            F.l1_loss(network(source), target).backward()
        else:
            gradients = Gradients(network, "cpu", threads)
            gradients.compute(lambda x, y, n=network: F.l1_loss(n(x), y), source, target)
            gradients.close()
            for name, parameter in network.named_parameters():
                assert parameter.grad.stride() == parameter.stride(), name
        optimiser.step()
        stepped.append(dict(network.named_parameters()))
    for name, parameter in stepped[0].items():
        agree = (stepped[1][name] - parameter).abs() < 1e-4  # but where a gradient is all but zero
        assert agree.float().mean() > 0.97, name


def test_a_fault_in_a_thread_is_raised() -> None:
    network = training_form()
    gradients = Gradients(network, "cpu", 2)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        gradients.compute(loss, torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16))
    gradients.close()


@pytest.mark.parametrize("size", [3, 5, 7, 9])
@pytest.mark.parametrize("shape", [(2, 6, 12, 9), (1, 6, 3, 4)])
def test_a_depthwise_convolution_in_strips(size, shape) -> None:
    """For kernels whose width is a multiple of a strip's and others, larger than the image too."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, size, padding=size // 2, groups=6)
    x = torch.randn(shape, requires_grad=True)
    upstream = torch.randn(shape)
    found = []
    for y in (conv(x), depthwise(x, conv)):
        found.append([y.detach(), *torch.autograd.grad(y, [x, *conv.parameters()], upstream)])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_in_low_precision() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 9, padding=4, groups=6)
    x = torch.randn(2, 6, 12, 12)
    want = torch.autograd.grad(conv(x).square().mean(), list(conv.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise(x, conv)
    assert y.dtype == torch.bfloat16
    got = torch.autograd.grad(y.float().square().mean(), list(conv.parameters()))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_what_they_were_when_it_is_closed(before) -> None:
    torch.set_flush_denormal(before)
    try:
        gradients = Gradients(training_form(), "cpu", 1)
        assert flushes_denormals()
        gradients.close()
        assert flushes_denormals() is before
    finally:
        torch.set_flush_denormal(False)
