"""The networks that can be a refiner, by the names that `REFINER_FIELDS` gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.network.unet_refiner import UNetRefiner

Refiner = RefineNet | UNetRefiner

_MAKERS: dict[str, Callable[[torch.Generator | None], Refiner]] = {
    "RefineNet": RefineNet,
    "RefineNet dilated": partial(RefineNet, dilation=2),
    "UNetRefiner": UNetRefiner,
}


def make_refiner(network: str, generator: torch.Generator | None = None) -> Refiner:
    """A refiner with initial weights, from the generator or else the global one."""
    return _MAKERS[network](generator)
