"""Gradients on the CPU, about twice as fast as torch alone.

- Each thread runs all layers on its share of the batch: layers are so small that threads sharing
  one would mostly wait for each other.
- The weight gradient of a large depthwise kernel is computed in strips of three columns, for which
  oneDNN has a fast path; wider ones take ten times as long.
- Denormal numbers, which are frequent while the layer scales are small, count as zero.

`docs/decisions/0008` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfsr.core.network.cfsr import LargeKernelConv

STRIP = 3  # columns

Loss = Callable[[Tensor, Tensor], Tensor]


class Gradients:
    """Loss and gradients of a CFSR, on its device, for a batch; by default with torch's threads."""

    def __init__(self, network: nn.Module, device: str, threads: int | None = None) -> None:
        self._parameters = list(network.parameters())
        self._pool: ThreadPoolExecutor | None = None
        self.threads = 1
        if device == "cpu":
            self.threads = threads or torch.get_num_threads()
            self._pool = ThreadPoolExecutor(self.threads, initializer=_alone)
            self._flushed = flushes_denormals()
            torch.set_flush_denormal(True)
            for module in network.modules():
                if isinstance(module, LargeKernelConv):
                    module.convolve = depthwise

    def compute(self, loss: Loss, source: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch [N,...]; its gradients are put into the parameters.

        `loss` is the mean loss of a part of `source` and the same part of `target`.
        """

        def part(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            value = loss(x, y) * (len(x) / len(source))
            return value.detach(), torch.autograd.grad(value, self._parameters)

        parts = zip(source.chunk(self.threads), target.chunk(self.threads), strict=True)
        if self._pool is None:
            found = [part(x, y) for x, y in parts]
        else:
            found = [f.result() for f in [self._pool.submit(part, x, y) for x, y in parts]]
        total, gradients = found[0]
        for value, more in found[1:]:
            total = total + value
            gradients = tuple(a + b for a, b in zip(gradients, more, strict=True))
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            # fused Adam assumes that both have the same memory layout
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        return total

    def close(self) -> None:
        """End the threads; the calling thread treats denormals as it did before."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_flush_denormal(self._flushed)


def flushes_denormals() -> bool:
    """Whether denormal numbers count as zero in this thread."""
    return bool(torch.tensor(1e-40) * 1.0 == 0)


def _alone() -> None:
    """Set up a thread that shares no layer with others."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        size, pad = weight.shape[-1], weight.shape[-1] // 2
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        padded = F.pad(x, (pad, pad, pad, pad)).contiguous(memory_format=torch.channels_last)
        columns = []
        for first in range(0, size, STRIP):
            count = min(STRIP, size - first)
            seen = padded[..., first : first + x.shape[-1] + count - 1]
            strip = _backward(gradient, seen, weight[..., first : first + count], 0, weights=True)
            columns.append(strip)
        to_input = _backward(gradient, x, weight, pad, weights=False)
        return to_input, torch.cat(columns, -1), gradient.sum((0, 2, 3))


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, pad: int, weights: bool) -> Tensor:
    """Gradient of a depthwise convolution for its weights or its input."""
    mask = (not weights, weights, False)
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], len(weight), mask
    )
    result: Tensor = found[1] if weights else found[0]
    return result


def depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv`, a depthwise convolution with a large square kernel, with fast gradients."""
    weight, bias = conv.weight, conv.bias
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    result: Tensor = _Depthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result
