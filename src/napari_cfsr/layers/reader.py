"""Opening OME-Zarr stores in napari: as a lazy pyramid, of which only what is shown is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]
Reader = Callable[[Any], list[LayerTuple]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """A function that reads a path, if it is a readable OME-Zarr store."""
    from napari_cfsr.core.io import open_ome_zarr, read_store_metadata
    from napari_cfsr.errors import CFSRError

    if not isinstance(path, str | Path):
        return None
    store = Path(path)
    files = ("zarr.json", ".zattrs", ".zgroup")
    if not store.is_dir() or not any((store / name).is_file() for name in files):
        return None
    if read_store_metadata(store) is None:
        try:
            open_ome_zarr(store)
        except CFSRError:
            return None
    return read_store


def read_store(path: str) -> list[LayerTuple]:
    """Layers of a store: one for each output if this package wrote it.

    Raises
    ------
    FileFormatError
        The store is damaged or incomplete.
    """
    from napari_cfsr.core.io import read_store_metadata

    store = Path(path)
    names = (read_store_metadata(store) or {}).get("outputs") or []
    parts = [store / str(name) for name in names] if len(names) > 1 else [store]
    return [_layer(part, store.stem) for part in parts]


def _layer(path: Path, stem: str) -> LayerTuple:
    from napari_cfsr.core.io import open_ome_zarr, read_store_metadata
    from napari_cfsr.core.store import level_range, viewed
    from napari_cfsr.layers.result_layers import of_levels, signed_look

    image = open_ome_zarr(path)
    metadata = read_store_metadata(path) or {}
    output = str(metadata.get("output", ""))
    levels, axes = viewed(image, luma=output == "difference" and "S" in image.axes)
    letters = axes.replace("S", "")
    space = image.space.along(letters)
    arguments: dict[str, Any] = {
        "name": f"{stem} {output}".strip(),
        "rgb": "S" in axes,
        "scale": space.sizes,
        "translate": space.origin,
        "units": [unit or "pixel" for unit in space.units],
        "axis_labels": [letter.lower() for letter in letters],
    }
    if "record" in metadata:
        arguments["metadata"] = {"napari_cfsr": {**metadata["record"], "output": output}}
    if output == "difference":
        arguments |= signed_look(level_range(levels[-1], axes))
    layer = of_levels(levels, arguments)
    return layer.data, layer.arguments, "image"
