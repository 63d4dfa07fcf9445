"""Layers that show the outputs of a store, while it grows and afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from napari_cfsr.core.store import LevelView, StorePreview
from napari_cfsr.layers.image_input import ImageInput, output_placement
from napari_cfsr.layers.result_layers import LayerSpec, difference_look, of_levels


def growing_layers(
    source: ImageInput, preview: StorePreview, outputs: Sequence[str], scale: int
) -> dict[str, LayerSpec]:
    """Layers that show the outputs of a store while it grows, and afterwards.

    Without the difference, whose range is not known yet.
    """
    return {
        name: _spec(source, views(preview, name), f"{source.name} x{scale} {name}", scale)
        for name in outputs
        if name != "difference"
    }


def difference_layer(
    source: ImageInput, preview: StorePreview, scale: int, limits: tuple[float, float]
) -> LayerSpec:
    """The layer of the difference in a finished store, shown in the range `limits`."""
    levels = views(preview, "difference", luma=source.rgb)
    shown = replace(source, look=difference_look(source, limits), axes=source.axes.replace("S", ""))
    return _spec(shown, levels, f"{source.name} x{scale} difference", scale)


def views(preview: StorePreview, name: str, luma: bool = False) -> list[LevelView]:
    """The levels of an output, axes in the order of the image."""
    return [LevelView(level, preview.layout.order, luma) for level in preview.levels(name)]


def _spec(source: ImageInput, levels: list[LevelView], name: str, scale: int) -> LayerSpec:
    arguments: dict[str, Any] = {"name": name, "rgb": source.rgb, **source.look}
    return of_levels(levels, arguments | output_placement(source, scale))
