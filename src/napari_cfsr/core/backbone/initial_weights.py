"""Initial weights of a backbone: random ones, or those of another backbone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from napari_cfsr.core.network import CFSR, CFSRConfig

LAYER_SCALE = 0.1  # of the residual branches; the published 1e-6 delays their learning
LAST_NORM = 0.1  # weight of the last LayerNorm: with 1, the output jumps at each step of Adam
RESIDUAL = 0.01  # of what is added to the interpolation at first, relative to its natural size


def fresh(config: CFSRConfig) -> CFSR:
    """A network in training form with random weights, which initially interpolates linearly.

    Three of its features are the image itself, and its head interpolates them; all others are
    nearly zero in the output. So the training is spent on what an interpolation lacks.
    """
    network = CFSR(replace(config, merged=False, layer_scale=LAYER_SCALE))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):  # keeps the variance of its input
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        network.norm.weight.fill_(LAST_NORM)
        network.conv_after_body.weight *= RESIDUAL
        head: Tensor = network.upsample.get_parameter("0.weight")
        head *= RESIDUAL
        network.conv_first.weight[:3] = 0
        for colour in range(3):
            network.conv_first.weight[colour, colour, 1, 1] = 1
        head[:, :3] = _interpolation(config.scale)
    return network


def _interpolation(scale: int) -> Tensor:
    """Linear interpolation as a head: [3*scale*scale,3,3,3]."""
    place = (torch.arange(scale) + 0.5) / scale - 0.5  # of an output pixel, from the input pixel
    taps = torch.stack([(-place).clamp(min=0), 1 - place.abs(), place.clamp(min=0)], 1)
    kernels = torch.einsum("iy,jx->ijyx", taps, taps)  # [scale,scale,3,3]
    head = torch.zeros(3, scale, scale, 3, 3, 3)
    for colour in range(3):
        head[colour, :, :, colour] = kernels
    return head.reshape(-1, 3, 3, 3)


def started_from(source: CFSR, config: CFSRConfig) -> CFSR:
    """A network in training form with the body of a merged one, which may have another scale.

    The head of another scale is resampled: each output pixel of the pixel shuffle starts with the
    weights of the nearest one of the other scale.
    """
    network = CFSR(replace(config, merged=False))
    state = network.state_dict()
    given = source.state_dict()
    head = ("upsample.0.weight", "upsample.0.bias")
    state.update({k: v.clone() for k, v in given.items() if k not in head})
    for name in head:
        state[name] = _resampled(given[name], source.config.scale, config.scale)
    for name in state:
        if name.endswith(".edge_scale"):  # branches that start at zero do not change the output
            state[name] = torch.zeros_like(state[name])
    network.load_state_dict(state)
    return network


def _resampled(head: Tensor, old: int, new: int) -> Tensor:
    """[3*old*old,...] to [3*new*new,...]: output channels are colour, row, column."""
    phases = head.reshape(3, old, old, *head.shape[1:])
    nearest = ((torch.arange(new) + 0.5) * old / new).long()
    return phases[:, nearest][:, :, nearest].reshape(3 * new * new, *head.shape[1:]).clone()
