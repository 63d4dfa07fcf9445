"""UNetRefiner, the large refiner: removes noise of a known level from an LR image.

A residual U-shaped network of 208,140 parameters that runs before the backbone at half and a
quarter of the LR resolution, so that it costs little more per pixel than RefineNet. It sees the
image with its variance stabilised (`napari_cfsr.core.image.NoiseModel.stabilise`): there, noise has
the same standard deviation at all intensities and exposures, so one network serves all of them.

References
----------
O. Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(torch.relu(self.first(x)))
        return y


class UNetRefiner(nn.Module):
    """The large refiner, `u + body(u)`: stabilised RGB [N,3,h,w] in and out.

    Sides are multiples of `REFINER_STRIDE`. The generator is the source of the initial weights; the
    global one by default.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        half, quarter = 32, 64  # features at those resolutions
        self.head = nn.Conv2d(12, half, 3, padding=1)
        self.before = ResidualBlock(half)
        self.down = nn.Conv2d(half, quarter, 2, stride=2)
        self.middle = nn.Sequential(ResidualBlock(quarter), ResidualBlock(quarter))
        self.up = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.after = ResidualBlock(half)
        self.tail = nn.Conv2d(half, 12, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.tail.weight, std=1e-4, generator=generator)

    def body(self, u: Tensor) -> Tensor:
        """What is added."""
        x = self.before(self.head(torch.pixel_unshuffle(u, 2)))
        x = x + self.up(self.middle(self.down(x)))
        return torch.pixel_shuffle(self.tail(self.after(x)), 2)

    def forward(self, u: Tensor) -> Tensor:
        y: Tensor = u + self.body(u)
        return y
