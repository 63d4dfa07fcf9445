"""CFSR in eager PyTorch, straight from its definition: the reference for the engines.

Plain NCHW memory; LayerNorm, layer scales and residuals as separate operations, as networks in this
field are commonly published. Weights have the names of the merged form.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.4488, 0.4371, 0.4040)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels, operation by operation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        large = nn.ModuleDict(
            {"lkb_reparam": nn.Conv2d(channels, channels, 9, padding=4, groups=channels)}
        )
        self.attn = nn.ModuleDict(
            {
                "norm": ChannelNorm(channels),
                "a": nn.ModuleList([nn.Conv2d(channels, channels, 1), nn.GELU(), large]),
                "v": nn.Conv2d(channels, channels, 1),
                "proj": nn.Conv2d(channels, channels, 1),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "norm": ChannelNorm(channels),
                "fc1": nn.Conv2d(channels, hidden, 1),
                "pos": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
                "fc2": nn.Conv2d(hidden, channels, 1),
            }
        )
        self.layer_scale_1 = nn.Parameter(torch.zeros(channels))
        self.layer_scale_2 = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        attn, mlp = self.attn, self.mlp
        n = attn["norm"](x)
        a = attn["a"][2]["lkb_reparam"](F.gelu(attn["a"][0](n)))
        x = x + self.layer_scale_1[None, :, None, None] * attn["proj"](a * attn["v"](n))
        h = F.gelu(mlp["fc1"](mlp["norm"](x)))
        h = h + F.gelu(mlp["pos"](h))
        return x + self.layer_scale_2[None, :, None, None] * mlp["fc2"](h)


class Stage(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels) for _ in range(depth))
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x + self.conv(x)


class ReferenceCFSR(nn.Module):
    """RGB [N,3,h,w] in [0,1] to [N,3,h*scale,w*scale], not clipped."""

    def __init__(self, scale: int, channels: int = 48, depths: tuple[int, ...] = (6, 6)) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[None, :, None, None], persistent=False)
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.layers = nn.ModuleList(Stage(channels, depth) for depth in depths)
        self.norm = ChannelNorm(channels)
        self.conv_after_body = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsample = nn.ModuleList([nn.Conv2d(channels, 3 * scale**2, 3, padding=1)])
        self.shuffle = nn.PixelShuffle(scale)

    mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x - self.mean)
        y = x
        for layer in self.layers:
            y = layer(y)
        x = x + self.conv_after_body(self.norm(y))
        return self.shuffle(self.upsample[0](x)) + self.mean


def load(path: Path) -> ReferenceCFSR:
    """The network with the official x4 weights."""
    from napari_cfsr.core.weights import load_state

    network = ReferenceCFSR(4)
    network.load_state_dict(load_state(path))
    return network.eval()
