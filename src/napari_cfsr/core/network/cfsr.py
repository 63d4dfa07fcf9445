"""CFSR, the backbone: a ConvFormer super-resolution network.

Source: G. Wu, J. Jiang, J. Jiang, X. Liu, "Transforming Image Super-Resolution: A
ConvFormer-based Efficient Approach", IEEE Transactions on Image Processing, 2024.
Written from the paper and from the names and shapes in the published weights.

One network, two forms with the same outputs:

- training form: every 3x3 depthwise convolution of the feed-forward part carries three fixed
  edge filters (Sobel x, Sobel y, Laplacian) beside it, each with a learned scale and bias per
  channel (the paper's edge-preserving depthwise convolution);
- merged form: the same, folded into one 3x3 kernel. The published files are in this form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfsr.core.network.folding import MEAN

EDGE_FILTERS = torch.tensor(
    [
        [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]],  # Sobel x
        [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]],  # Sobel y
        [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],  # Laplacian
    ]
)


@dataclass(frozen=True)
class CFSRConfig:
    """Shape of the network; the defaults are the published CFSR."""

    scale: int = 4
    embed_dim: int = 48
    depths: tuple[int, ...] = (6, 6)
    kernel_size: int = 9  # of the depthwise convolution in ConvMod
    mlp_ratio: int = 2
    layer_scale: float = 1e-6  # initial value
    merged: bool = True  # False: training form


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel; [N,C,H,W] in and out.

    In channels-last memory both permutations are free, and `F.layer_norm` does the work in one
    pass. Computed in float32 at least: the last one sees values near 600, whose squares
    overflow float16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        y = F.layer_norm(
            x.permute(0, 2, 3, 1).to(dtype), self.normalized_shape, weight, bias, self.eps
        )
        return y.to(x.dtype).permute(0, 3, 1, 2)


class EdgeConv(nn.Conv2d):
    """Depthwise 3x3 convolution with edge branches (training form)."""

    edge_filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.edge_scale = nn.Parameter(torch.randn(3, channels) * 1e-3)
        self.edge_bias = nn.Parameter(torch.zeros(3, channels))
        self.register_buffer("edge_filters", EDGE_FILTERS.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """All branches at once: by linearity the gradients are the same, at the cost of one."""
        weight, bias = self.merge()
        return F.conv2d(x, weight, bias, padding=1, groups=self.groups)

    def merge(self) -> tuple[Tensor, Tensor]:
        """One kernel [C,1,3,3] and bias [C], equivalent to all branches."""
        edges = torch.einsum("kc,kij->cij", self.edge_scale, self.edge_filters)
        bias = self.bias if self.bias is not None else torch.zeros_like(self.edge_bias[0])
        return self.weight + edges[:, None], bias + self.edge_bias.sum(0)


class LargeKernelConv(nn.Module):
    """Depthwise convolution with a large kernel (`lkb_reparam` in the published files)."""

    # does the convolution instead, with gradients of its own (see `cpu_gradients`)
    convolve: Callable[[Tensor, nn.Conv2d], Tensor] | None = None

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.convolve is not None and self.training:
            return self.convolve(x, self.lkb_reparam)
        y: Tensor = self.lkb_reparam(x)
        return y


class ConvMod(nn.Module):
    """Gated large-kernel convolution, in place of self-attention."""

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        c = config.embed_dim
        self.norm = ChannelNorm(c)
        self.a = nn.Sequential(
            nn.Conv2d(c, c, 1), nn.GELU(), LargeKernelConv(c, config.kernel_size)
        )
        self.v = nn.Conv2d(c, c, 1)
        self.proj = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        y: Tensor = self.proj(self.a(x) * self.v(x))
        return y


class FeedForward(nn.Module):
    """1x1 convolution, GELU, plus an edge-preserving depthwise branch, 1x1 convolution."""

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        c, hidden = config.embed_dim, config.embed_dim * config.mlp_ratio
        self.norm = ChannelNorm(c)
        self.fc1 = nn.Conv2d(c, hidden, 1)
        self.pos = (
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
            if config.merged
            else EdgeConv(hidden)
        )
        self.fc2 = nn.Conv2d(hidden, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(self.norm(x)))
        y: Tensor = self.fc2(x + F.gelu(self.pos(x)))
        return y


class Block(nn.Module):
    """ConvMod and feed-forward, each a residual with a learned scale per channel."""

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        self.attn = ConvMod(config)
        self.mlp = FeedForward(config)
        self.layer_scale_1 = nn.Parameter(torch.full((config.embed_dim,), config.layer_scale))
        self.layer_scale_2 = nn.Parameter(torch.full((config.embed_dim,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attn(x)
        y: Tensor = x + self.layer_scale_2[:, None, None] * self.mlp(x)
        return y


class Stage(nn.Module):
    """A run of blocks, closed by a residual 1x1 convolution."""

    def __init__(self, config: CFSRConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y: Tensor = x + self.conv(x)
        return y


class CFSR(nn.Module):
    """The network.

    `forward` takes RGB [N,3,h,w] in [0,1] (values beyond are allowed) and gives
    [N,3,h*scale,w*scale] in the same units, not clipped. Zero padding at the border is part
    of the model.
    """

    def __init__(self, config: CFSRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CFSRConfig()
        c, scale = config.embed_dim, config.scale
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.conv_first = nn.Conv2d(3, c, 3, padding=1)
        self.layers = nn.ModuleList(Stage(config, depth) for depth in config.depths)
        self.norm = ChannelNorm(c)
        self.conv_after_body = nn.Conv2d(c, c, 3, padding=1)
        self.upsample = nn.Sequential(
            nn.Conv2d(c, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )
        if not config.merged:
            self.apply(_init_weights)

    mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x - self.mean)  # [N,48,h,w]
        y = x
        for layer in self.layers:
            y = layer(y)
        x = x + self.conv_after_body(self.norm(y))
        up: Tensor = self.upsample(x)
        return up + self.mean  # [N,3,h*scale,w*scale]

    def merge(self) -> CFSR:
        """The same network in merged form, on the same device; shares no memory with this one."""
        if self.config.merged:
            raise TypeError("expected a network in training form, got one that is merged already")
        state = {k: v for k, v in self.state_dict().items() if ".edge_" not in k}
        for name, module in self.named_modules():
            if isinstance(module, EdgeConv):
                state[f"{name}.weight"], state[f"{name}.bias"] = module.merge()
        config = CFSRConfig(**{**vars(self.config), "merged": True})
        merged = CFSR(config).to(self.mean.device)
        merged.load_state_dict({k: v.detach().clone() for k, v in state.items()})
        return merged.eval()


def _init_weights(module: nn.Module) -> None:
    """Truncated normal for convolutions, as is usual for transformers of this kind."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def config_of(state: Mapping[str, Tensor]) -> CFSRConfig:
    """The shape of a CFSR in merged form, read off its state dictionary.

    Raises `KeyError`, `IndexError` or `ValueError` if the tensors can't be those of a CFSR.
    """
    embed_dim = state["conv_first.weight"].shape[0]
    scale_squared, rest = divmod(state["upsample.0.weight"].shape[0], 3)
    scale = round(scale_squared**0.5)
    if rest or scale * scale != scale_squared:
        raise ValueError(f"{3 * scale_squared + rest} output channels are no pixel shuffle of RGB")
    depths: list[int] = []
    while any(k.startswith(f"layers.{len(depths)}.") for k in state):
        prefix = f"layers.{len(depths)}.blocks."
        depths.append(
            1 + max(int(k[len(prefix) :].split(".")[0]) for k in state if k.startswith(prefix))
        )
    block = "layers.0.blocks.0."
    return CFSRConfig(
        scale=scale,
        embed_dim=embed_dim,
        depths=tuple(depths),
        kernel_size=state[block + "attn.a.2.lkb_reparam.weight"].shape[-1],
        mlp_ratio=state[block + "mlp.fc1.weight"].shape[0] // embed_dim,
    )


def on_each_block(model: nn.Module, call: Callable[[], None]) -> None:
    """Call `call` before each block of `model` runs: a place to stop a long pass early."""
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda *_: call())
