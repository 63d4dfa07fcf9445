"""Where a result goes: into memory, or to disk if it would not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image

from napari_cfsr.core.batch import outside_stores
from napari_cfsr.core.upscale import result_bytes, size, why_not_in_memory
from napari_cfsr.layers import ImageInput
from napari_cfsr.widgets.parts.form import path_edit
from napari_cfsr.widgets.parts.run_controls import paragraph
from napari_cfsr.workers import store_path

WHERE = ("automatic", "memory", "OME-Zarr on disk")

TOOLTIPS = {
    "output_to": "automatic: memory if the result fits, else OME-Zarr on disk. A store is a "
    "folder with a pyramid; it is shown while it grows, and an unfinished run can be resumed.",
    "folder": "Where the store is created. Empty: beside the image's file, or in your home folder "
    "for an image without a file.",
}


class OutputChoice:
    """The widgets `output_to` and `folder` of a form, and a note on the result."""

    def __init__(self) -> None:
        self.output_to = ComboBox(choices=WHERE)
        self.folder = path_edit("d")
        self.note = paragraph()
        self.note.setVisible(False)

    @property
    def may_be_disk(self) -> bool:
        return bool(self.output_to.value != WHERE[1])

    def store(
        self, layer: Image, source: ImageInput, outputs: tuple[str, ...], scale: int
    ) -> tuple[Path | None, str]:
        """Path of the store, None for memory, and the reason; `source` is read from the layer."""
        if not self.may_be_disk:
            return None, ""
        path = store_path(self._folder(layer), source.name, scale)
        dtype = np.dtype(source.data.dtype)
        nbytes = result_bytes(source.data.shape, dtype, source.axes, scale, outputs, source.part)
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

    def show(self, text: str) -> None:
        """Show a note; hide it if it is empty."""
        self.note.setText(text)
        self.note.setVisible(bool(text))
