"""What the Quality form suggests: which layer is the reference, which to compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari.layers import Image

from napari_cfsr.errors import ImageError
from napari_cfsr.layers import Candidate, layer_axes, layer_shape, match, read_layer, reduction

COMPARED = ("baseline", "delta")  # outputs of an upscaling that are images


@dataclass(frozen=True)
class Suggestion:
    """What is chosen until the user chooses."""

    reference: Image | None = None
    layers: tuple[Image, ...] = ()  # to compare
    lr: Image | None = None  # the input of the results


def record(layer: Image) -> dict[str, Any]:
    """Provenance of a layer that this plugin has added; empty for other layers."""
    found = layer.metadata.get("napari_cfsr")
    return found if isinstance(found, dict) else {}


def comparable(layer: Image) -> bool:
    """Whether a layer is an image, not a difference or a map made by this plugin."""
    return not ("map" in record(layer) or record(layer).get("output") == "difference")


def candidate(layer: Image, enlarge: int = 1) -> Candidate:
    """Snapshot of a layer to compare. Results of this plugin are placed by their input."""
    return Candidate(read_layer(layer), enlarge, placed="output" in record(layer))


def suggest(images: Sequence[Image]) -> Suggestion:
    """The results of the last upscaling, against the image that lies exactly over them.

    Without results, the largest image is the reference, and there is nothing to compare yet.
    """
    results = [x for x in images if record(x).get("output") in COMPARED]
    others = [x for x in images if not record(x)]
    if not results:
        return Suggestion(max(others or images, key=_pixels, default=None))
    source = record(results[-1])
    group = [x for x in results if _alike(record(x), source)]
    lr = next((x for x in images if x.name == source.get("input")), None)
    others = [x for x in others if x is not lr]
    ranked = [(rank, x) for x in others if (rank := _rank(x, group[-1])) is not None]
    if not ranked:
        return Suggestion(max(others or images, key=_pixels), (), lr)
    best = min(rank for rank, _ in ranked)
    return Suggestion(next(x for rank, x in ranked if rank == best), tuple(group), lr)


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(k) == other.get(k) for k in ("input", "scale"))


def _pixels(layer: Image) -> int:
    sizes = zip(layer_axes(layer), layer_shape(layer), strict=False)
    return math.prod(n for axis, n in sizes if axis in "YX")


def _rank(reference: Image, layer: Image) -> int | None:
    """How well a reference fits: 0 if exactly, 1 if with a warning, None if not at all."""
    try:
        return int(bool(match(read_layer(reference), candidate(layer)).warning))
    except ImageError:
        return None


def known_scale(layers: Sequence[Image], enlarge: int | None) -> tuple[int, str]:
    """The scale factor of the layers and the name of the one it is known from; or 0."""
    scales = [(int(record(x).get("scale", 0)), x.name) for x in layers]
    scale, name = max(scales, default=(0, ""), key=lambda found: found[0])
    return (enlarge, "the bicubic enlargement") if enlarge and enlarge > scale else (scale, name)


def lr_layers(reference: Image | None, images: Sequence[Image]) -> list[tuple[Image, int]]:
    """Layers that are a reduction of the reference, and by how much."""
    if reference is None:
        return []
    source = read_layer(reference)
    found = [(x, reduction(source, read_layer(x))) for x in images if x is not reference]
    return [(x, factor) for x, factor in found if factor]
