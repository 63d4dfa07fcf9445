"""RefineNet, the refiner: three convolutions that correct an image, `x + body(x)`.

3-32-32-3 channels, 3x3 kernels, 11,011 parameters. Its placement is `output`, on the output of
the backbone as published with CFSR-Delta, or `input`, on the LR image before the backbone. There,
a dilation of 2 in the second convolution lets it see further at no cost.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Placement = Literal["output", "input"]
PLACEMENTS: tuple[Placement, ...] = ("output", "input")


class RefineNet(nn.Module):
    """The refiner; starts as the identity to 1e-3. RGB [N,3,h,w] in [0,1], not clipped.

    The generator is the source of the initial weights; the global one by default. `dilation` is
    that of the second convolution.
    """

    def __init__(self, generator: torch.Generator | None = None, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 3, 3, padding=1),
        )
        for conv in self.body:
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=5**0.5, generator=generator)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
        last = self.body[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=1e-4, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y
