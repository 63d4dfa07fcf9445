"""The form of the Batch widget: which files, which network, and where the results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from magicgui.widgets import CheckBox

from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.widgets.parts.form import path_edit
from napari_cfsr.widgets.parts.refiner_choice import QUALITIES, NetworkForm
from napari_cfsr.widgets.parts.refiner_choice import TOOLTIPS as NETWORK_TOOLTIPS
from napari_cfsr.workers import BatchRequest

TOOLTIPS = {
    "images": "A folder with PNG, JPEG and TIFF files and OME-Zarr stores. Earlier results among "
    "them are left out.",
    "results": "The folder for the results. Empty: beside each image.",
    **NETWORK_TOOLTIPS,
    "overwrite": "Redo all images and replace existing results. Otherwise results of the same "
    "image with the same settings are kept.",
}


class BatchForm(NetworkForm):
    """Fields by name, and what depends on what."""

    TOOLTIPS = TOOLTIPS
    REMEMBERED = (
        "scale", "backbone", "refiner", "baseline", "delta", "difference", "quality", "device",
        "precision",
    )  # fmt: skip

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self.images, self.results = (path_edit("d") for _ in range(2))
        self.overwrite = CheckBox(text="redo all images")
        self.difference.value = self.baseline.value = False
        self._add(
            self.main, "images", "results", "scale", "backbone", "backbone_file", "refiner",
            "refiner_file", "outputs", "quality", "device", "precision", "overwrite",
        )  # fmt: skip
        self._connect()

    def _update(self) -> None:
        super()._update()
        if not self.wanted:  # without a refiner only the baseline is possible
            self.baseline.value = True

    @property
    def folder(self) -> Path | None:
        """The folder with the images, if one is chosen."""
        text = self.images.line_edit.value.strip()
        return Path(text).expanduser() if text else None

    def request(self, folder: Path) -> BatchRequest:
        """What is chosen now."""
        ensemble, back_projection = QUALITIES[self.quality.value]
        results = self.results.line_edit.value.strip()
        options = UpscaleOptions(
            outputs=self.wanted, ensemble=ensemble, back_projection=back_projection
        )
        output = Path(results).expanduser() if results else None
        load = self.load_arguments()
        return BatchRequest((folder,), output, load, options, self.overwrite.value)
