"""The folded backbone (`folding`) as a torch network, for inference: channels last."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfsr.core.network.folding import MEAN, NORM_EPS, Conv, Folded, FoldedBlock


def _conv2d(conv: Conv) -> nn.Conv2d:
    """A layer that keeps the size; depthwise where each output sees one channel."""
    out, each, side, _ = conv.weight.shape
    groups = out if each == 1 and out > 1 else 1
    layer = nn.Conv2d(each * groups, out, side, padding=side // 2, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(conv.weight))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(conv.bias))
    return layer


def _normalised(x: Tensor) -> Tensor:
    """LayerNorm over the channels of each pixel, without scale and offset; [N,C,H,W].

    In channels-last memory both permutations are free. The input is float32: the last one sees
    values near 600, whose squares overflow float16.
    """
    y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=NORM_EPS)
    return y.permute(0, 3, 1, 2)


class _Block(nn.Module):
    def __init__(self, block: FoldedBlock) -> None:
        super().__init__()
        # one convolution for gate and value was measured slower: its halves lie interleaved
        self.gate, self.value = _conv2d(block.gate), _conv2d(block.value)
        self.large, self.proj = _conv2d(block.large), _conv2d(block.proj)
        self.fc1, self.pos, self.fc2 = _conv2d(block.fc1), _conv2d(block.pos), _conv2d(block.fc2)

    def forward(self, y: Tensor) -> Tensor:
        n = _normalised(y)
        y = y + self.proj(self.large(F.gelu(self.gate(n))) * self.value(n))
        h = F.gelu(self.fc1(_normalised(y)))
        out: Tensor = y + self.fc2(h + F.gelu(self.pos(h)))
        return out


class FoldedCFSR(nn.Module):
    """The backbone for inference; the output of `CFSR` to 1e-5.

    `rgb` and `gray` share all but the last convolution. `check` is called before each block: a
    place to stop a long pass early.

    `forward` takes [N,1 or 3,h,w] in [0,1] (values beyond are allowed); one channel counts as
    three equal ones. It gives [N,3,h*scale,w*scale], or [N,1,...], their mean, if `gray`; not
    clipped.
    """

    mean: Tensor

    def __init__(self, rgb: Folded, gray: Folded) -> None:
        super().__init__()
        self.check: Callable[[], None] = lambda: None
        self.scale = rgb.scale
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.first = _conv2d(rgb.first)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Block(block) for block in stage.blocks) for stage in rgb.stages
        )
        self.ends = nn.ModuleList(_conv2d(stage.conv) for stage in rgb.stages)
        dtype = torch.get_default_dtype()  # of layers too: tests prove the folding in float64
        scale, offset = (torch.from_numpy(a).to(dtype)[:, None, None] for a in rgb.norm)
        self.register_buffer("norm_scale", scale)
        self.register_buffer("norm_offset", offset)
        self.after = _conv2d(rgb.after)
        self.upsample, self.upsample_gray = _conv2d(rgb.upsample), _conv2d(gray.upsample)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval().requires_grad_(False)

    norm_scale: Tensor
    norm_offset: Tensor

    def forward(self, x: Tensor, gray: bool = False) -> Tensor:
        # in half precision, sums and both ends of the network stay in float32: that costs little
        # time and avoids most of the loss
        x = self._exact(self.first, x - self.mean)  # [N,48,h,w]
        y = x
        for blocks, end in zip(self.blocks, self.ends, strict=True):
            for block in blocks.children():
                self.check()
                y = block(y)
            y = y + end(y)
        n = _normalised(y) * self.norm_scale + self.norm_offset
        x = x + self._exact(self.after, n)
        upsample = self.upsample_gray if gray else self.upsample
        return F.pixel_shuffle(self._exact(upsample, x), self.scale)

    def _exact(self, layer: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = layer(x.to(self.mean.dtype))
            return y
