"""The form of the Batch widget: which files, which network, and where the results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, Widget

from napari_cfsr.core.upscale import UpscaleOptions
from napari_cfsr.widgets.parts.accessible import explain, name_control
from napari_cfsr.widgets.parts.backbone_choice import DEVICES, FROM_FILE, BackboneChoice
from napari_cfsr.widgets.parts.backbone_choice import TOOLTIPS as BACKBONE_TOOLTIPS
from napari_cfsr.widgets.parts.choices import PRECISIONS, QUALITIES
from napari_cfsr.widgets.parts.choices import TOOLTIPS as CHOICE_TOOLTIPS
from napari_cfsr.widgets.parts.refiner_choice import TOOLTIPS as REFINER_TOOLTIPS
from napari_cfsr.widgets.parts.refiner_choice import RefinerChoice
from napari_cfsr.widgets.parts.run_widget import AlignedLabels, narrow, path_edit
from napari_cfsr.workers import BatchRequest

TOOLTIPS = {
    "images": "A folder with PNG, JPEG and TIFF files and OME-Zarr stores. What was upscaled from "
    "them is left out.",
    "results": "The folder that the results go to. Empty: beside each image.",
    **BACKBONE_TOOLTIPS,
    **REFINER_TOOLTIPS,
    "quality": CHOICE_TOOLTIPS["quality"],
    "precision": CHOICE_TOOLTIPS["precision"],
    "overwrite": "Upscale everything anew and replace the results that are there. Else what is "
    "there already, from the same image with the same settings, is left as it is.",
}


class BatchForm:
    """The widgets of the form, and what follows from them.

    Parameters
    ----------
    changed : callable
        Called after each change.
    """

    REMEMBERED = (
        "scale", "backbone", "refiner", "baseline", "delta", "difference", "quality", "device",
        "precision",
    )  # fmt: skip

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._updating = False
        self.images, self.results = (path_edit("d") for _ in range(2))
        self.backbone_choice = BackboneChoice(scale=4)
        self.scale = self.backbone_choice.scale
        self.backbone = self.backbone_choice.backbone
        self.backbone_file = self.backbone_choice.backbone_file
        self.refiner_choice = RefinerChoice(self.backbone_choice)
        self.refiner = self.refiner_choice.refiner
        self.refiner_file = self.refiner_choice.refiner_file
        self.baseline = self.refiner_choice.baseline
        self.delta = self.refiner_choice.delta
        self.difference = self.refiner_choice.difference
        self.quality = ComboBox(choices=self._qualities)
        self.device = ComboBox(choices=DEVICES)
        self.precision = ComboBox(choices=PRECISIONS)
        self.overwrite = CheckBox(text="upscale everything anew")
        self.difference.value = self.baseline.value = False
        self.main = Container(
            widgets=[
                self.images, self.results, self.scale, self.backbone, self.backbone_file,
                self.refiner, self.refiner_file, self.refiner_choice.outputs, self.quality,
                self.device, self.precision, self.overwrite,
            ]
        )  # fmt: skip
        self._aligned = AlignedLabels(self.main)
        narrow(self.quality.native)
        for name, tooltip in TOOLTIPS.items():
            widget: Widget = getattr(self, name)
            widget.name = name
            widget.label = name.replace("_", " ")
            explain(widget, tooltip)
            if not isinstance(widget, CheckBox):  # which reads its text
                name_control(widget, widget.label)
            widget.changed.connect(self._on_change)
        self.overwrite.label = ""
        self.update()

    def _qualities(self, _: Any) -> list[str]:
        return [q for q, (_, back) in QUALITIES.items() if not back or self.scale.value == 4]

    def _on_change(self) -> None:
        if not self._updating:
            self.update()
            self._changed()

    def update(self) -> None:
        """Make everything that depends on something else fit."""
        self._updating = True
        try:
            for combo in (self.backbone, self.quality):
                combo.reset_choices()
            self.backbone_file.visible = self.backbone_choice.from_file
            self.refiner_choice.update()
            if not self.refiner_choice.wanted:  # without a refiner there is the baseline only
                self.baseline.value = True
        finally:
            self._updating = False

    @property
    def folder(self) -> Path | None:
        """The folder with the images; None while none is named."""
        text = self.images.line_edit.value.strip()
        return Path(text).expanduser() if text else None

    def request(self, folder: Path) -> BatchRequest:
        """What is chosen now."""
        ensemble, back_projection = QUALITIES[self.quality.value]
        results = self.results.line_edit.value.strip()
        load = {
            "scale": self.scale.value,
            "backbone": self.backbone_choice.value,
            "refiner": self.refiner_choice.value,
            "device": self.device.value,
            "precision": self.precision.value,
            "download": False,
            "weights_folder": self.backbone_choice.folder,
        }
        options = UpscaleOptions(
            outputs=self.refiner_choice.wanted, ensemble=ensemble, back_projection=back_projection
        )
        output = Path(results).expanduser() if results else None
        return BatchRequest((folder,), output, load, options, self.overwrite.value)

    def remembered(self) -> dict[str, Any]:
        """Settings worth keeping."""
        values = {name: getattr(self, name).value for name in self.REMEMBERED}
        return {k: v for k, v in values.items() if v != FROM_FILE}

    def restore(self, values: dict[str, Any]) -> None:
        """Set what was kept, as far as it still exists."""
        for name in self.REMEMBERED:
            widget = getattr(self, name)
            if name in values and (
                not isinstance(widget, ComboBox) or values[name] in widget.choices
            ):
                widget.value = values[name]
