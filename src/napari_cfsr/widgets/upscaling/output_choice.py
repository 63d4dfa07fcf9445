"""Where a result goes: into memory, or to disk if it would not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image

from napari_cfsr.core.batch import outside_stores
from napari_cfsr.core.upscale import result_bytes, size, why_not_in_memory
from napari_cfsr.layers import ImageInput
from napari_cfsr.widgets.parts.form import path_edit
from napari_cfsr.widgets.parts.refiner_choice import NetworkForm
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.workers import store_path

WHERE = ("automatic", "memory", "OME-Zarr on disk")

TOOLTIPS = {
    "output_to": "automatic: memory if the result fits, else OME-Zarr on disk. A store is a "
    "folder with a pyramid; it is shown while it grows, and an unfinished run can be resumed.",
    "folder": "Where the store is created. Empty: beside the image's file, or in your home folder "
    "for an image without a file.",
}


class OutputForm(NetworkForm):
    """A form in which the place of the result is chosen, with a note on it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self.output_to = ComboBox(choices=WHERE)
        self.folder = path_edit("d")
        self.note = paragraph()
        self.note.setVisible(False)

    @property
    def may_be_disk(self) -> bool:
        return bool(self.output_to.value != WHERE[1])

    def store(self, layer: Image, source: ImageInput) -> tuple[Path | None, str]:
        """Path of the store, None for memory, and the reason; `source` is read from the layer."""
        if not self.may_be_disk:
            return None, ""
        scale, shape = self.scale.value, source.data.shape
        path = store_path(self._folder(layer), source.name, scale)
        dtype = np.dtype(source.data.dtype)
        nbytes = result_bytes(shape, dtype, source.axes, scale, self.wanted, source.part)
        if self.output_to.value == WHERE[2]:
            return path, f"{size(nbytes)} (uncompressed) to {path}"
        why = why_not_in_memory(nbytes)
        return (path, f"To disk, since {why}: {path}") if why else (None, "")

    def _folder(self, layer: Image) -> Path:
        text = self.folder.line_edit.value.strip()
        if text:
            return Path(text).expanduser()
        file = layer.source.path
        if file and Path(file).exists():
            return outside_stores(Path(file).resolve().parent)
        return Path.home()
