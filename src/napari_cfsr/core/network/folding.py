"""The backbone in the form that runs: everything linear folded into neighbouring convolutions.

From the merged form of CFSR (`cfsr`), by arithmetic alone and in float64:

- LayerNorm's scale and offset go into the 1x1 convolutions that follow it;
- the learned scale of each residual (LayerScale) goes into the 1x1 convolution that ends it;
- the colour mean that is added at the end goes into the last bias;
- for gray, the mean of the three output channels is taken of the last weights instead.

The same function up to rounding: tests allow 1e-12 in float64 and 2e-6 of the range in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

MEAN = (0.4488, 0.4371, 0.4040)  # RGB mean of DIV2K, subtracted before and added after
NORM_EPS = 1e-6  # of LayerNorm


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution: weight [out,in/groups,k,k] and bias [out]."""

    weight: Float64
    bias: Float64

    def after(self, matrix: Float64) -> Conv:
        """The same, for input that was multiplied by a matrix [in,in'] before."""
        return Conv(np.einsum("oikl,ij->ojkl", self.weight, matrix), self.bias)

    def before(self, matrix: Float64) -> Conv:
        """The same, with its output multiplied by a matrix [out',out]."""
        return Conv(np.einsum("po,oikl->pikl", matrix, self.weight), matrix @ self.bias)


@dataclass(frozen=True, eq=False)
class FoldedBlock:
    """One block: `y += proj(large(gelu(gate(n))) * value(n))`, n the normalised y; then
    `y += fc2(h + gelu(pos(h)))`, h = `gelu(fc1(n))`. `large` and `pos` are depthwise."""

    gate: Conv
    value: Conv
    large: Conv
    proj: Conv
    fc1: Conv
    pos: Conv
    fc2: Conv


@dataclass(frozen=True, eq=False)
class FoldedStage:
    """Blocks, then `y += conv(y)`, 1x1."""

    blocks: tuple[FoldedBlock, ...]
    conv: Conv


@dataclass(frozen=True, eq=False)
class Folded:
    """The network: `first(x - MEAN)`, stages, normalise, scale and offset, `after`, plus the
    output of `first`, `upsample`, pixel shuffle.
    """

    first: Conv
    stages: tuple[FoldedStage, ...]
    # scale and offset [C] of the last LayerNorm, whose convolution pads with zeros
    norm: tuple[Float64, Float64]
    after: Conv
    upsample: Conv  # to `channels * scale**2` channels, colour mean included
    scale: int
    channels: int  # 3, or 1 for gray


def fold(state: Mapping[str, NDArray[np.floating]], gray: bool = False) -> Folded:
    """Fold a CFSR in merged form, from its `state_dict`; `gray`: to the mean of the channels."""
    weights = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def conv(name: str) -> Conv:
        return Conv(weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normed(name: str, norm: str) -> Conv:
        scale, offset = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
        inner = conv(name)
        bias = inner.bias + inner.weight[:, :, 0, 0] @ offset
        return Conv(inner.weight * scale[None, :, None, None], bias)

    def block(name: str) -> FoldedBlock:
        attn, mlp = f"{name}.attn", f"{name}.mlp"
        return FoldedBlock(
            gate=normed(f"{attn}.a.0", f"{attn}.norm"),
            value=normed(f"{attn}.v", f"{attn}.norm"),
            large=conv(f"{attn}.a.2.lkb_reparam"),
            proj=conv(f"{attn}.proj").before(np.diag(weights[f"{name}.layer_scale_1"])),
            fc1=normed(f"{mlp}.fc1", f"{mlp}.norm"),
            pos=conv(f"{mlp}.pos"),
            fc2=conv(f"{mlp}.fc2").before(np.diag(weights[f"{name}.layer_scale_2"])),
        )

    def stage(index: int) -> FoldedStage:
        blocks: list[FoldedBlock] = []
        while f"layers.{index}.blocks.{len(blocks)}.layer_scale_1" in weights:
            blocks.append(block(f"layers.{index}.blocks.{len(blocks)}"))
        return FoldedStage(tuple(blocks), conv(f"layers.{index}.conv"))

    stages: list[FoldedStage] = []
    while f"layers.{len(stages)}.conv.weight" in weights:
        stages.append(stage(len(stages)))
    upsample = conv("upsample.0")
    scale = round((len(upsample.bias) // 3) ** 0.5)
    upsample = Conv(upsample.weight, upsample.bias + np.repeat(MEAN, scale**2))
    if gray:
        weight = upsample.weight.reshape(3, scale**2, *upsample.weight.shape[1:])
        upsample = Conv(weight.mean(0), upsample.bias.reshape(3, -1).mean(0))
    first, after = conv("conv_first"), conv("conv_after_body")
    norm = weights["norm.weight"], weights["norm.bias"]
    return Folded(first, tuple(stages), norm, after, upsample, scale, 1 if gray else 3)
