"""Whether two layers can be an LR and an HR image of the same scene."""

from __future__ import annotations

import math
from collections.abc import Iterable

from napari.layers import Image

from napari_cfsr.layers import layer_axes, layer_shape


def pair_fault(lr: Image, hr: Image, scale: int) -> str:
    """Why two layers can't be an LR and an HR image of the same scene; empty if they can."""
    if lr is hr:
        return "Choose two layers: the LR and the HR layer are the same."
    small, large = (dict(zip(layer_axes(x), layer_shape(x), strict=False)) for x in (lr, hr))
    if lr.rgb != hr.rgb:
        gray, colour = (hr, lr) if lr.rgb else (lr, hr)
        return f"Choose two gray or two colour layers: '{gray.name}' is gray, '{colour.name}' not."
    wanted = tuple(small[a] * scale for a in "YX")
    over = [large[a] - n for a, n in zip("YX", wanted, strict=True)]
    if not all(0 <= n < scale for n in over):
        return (
            f"Expected an HR layer of {_size(wanted)} pixels, {scale} times '{lr.name}' "
            f"({_size(small[a] for a in 'YX')}), got {_size(large[a] for a in 'YX')} in "
            f"'{hr.name}': choose other layers or another scale, or crop one."
        )
    planes = [math.prod(n for a, n in x.items() if a not in "YX") for x in (small, large)]
    if planes[0] != planes[1]:
        return (
            f"Expected as many planes in both layers, got {planes[0]} in '{lr.name}' and "
            f"{planes[1]} in '{hr.name}'."
        )
    return ""


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
