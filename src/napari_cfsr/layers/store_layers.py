"""Stores as layers: while they grow, when they are done, and opened from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from napari_cfsr.core.store import LevelView, StorePreview
from napari_cfsr.layers.image_input import ImageInput, output_placement
from napari_cfsr.layers.result_layers import LayerSpec, difference_look


def growing_layers(
    source: ImageInput, growth: StorePreview, outputs: Sequence[str], scale: int
) -> dict[str, LayerSpec]:
    """Layers that show the outputs of a store while it grows, and afterwards.

    The difference is left out: there is nothing to see of it before its range is known.
    """
    return {
        name: _spec(source, views(growth, name), f"{source.name} x{scale} {name}", scale)
        for name in outputs
        if name != "difference"
    }


def difference_layer(
    source: ImageInput, growth: StorePreview, scale: int, limits: tuple[float, float]
) -> LayerSpec:
    """The layer of the difference of a finished store, whose range is `limits`."""
    levels = views(growth, "difference", luma=source.rgb)
    shown = replace(source, look=difference_look(source, limits), axes=source.axes.replace("S", ""))
    return _spec(shown, levels, f"{source.name} x{scale} difference", scale)


def views(growth: StorePreview, name: str, luma: bool = False) -> list[LevelView]:
    """The levels of an output, axes in the order of the image."""
    return [LevelView(level, growth.layout.order, luma) for level in growth.levels(name)]


def _spec(source: ImageInput, levels: list[LevelView], name: str, scale: int) -> LayerSpec:
    multiscale = len(levels) > 1
    arguments: dict[str, Any] = {"name": name, "rgb": source.rgb, "multiscale": multiscale}
    arguments |= {**source.look, **output_placement(source, scale)}
    return LayerSpec(levels if multiscale else levels[0], arguments)
