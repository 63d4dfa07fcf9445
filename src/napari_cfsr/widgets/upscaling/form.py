"""The form of the Upscale widget: what can be chosen, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, SpinBox, Widget

from napari_cfsr.core.upscale import DEFAULT_HALO, UpscaleOptions
from napari_cfsr.layers import ImageInput
from napari_cfsr.widgets.parts.accessible import explain, name_control
from napari_cfsr.widgets.parts.backbone_choice import DEVICES, FROM_FILE, BackboneChoice
from napari_cfsr.widgets.parts.backbone_choice import TOOLTIPS as BACKBONE_TOOLTIPS
from napari_cfsr.widgets.parts.choices import BOX, PRECISIONS, QUALITIES
from napari_cfsr.widgets.parts.choices import TOOLTIPS as CHOICE_TOOLTIPS
from napari_cfsr.widgets.parts.refiner_choice import TOOLTIPS as REFINER_TOOLTIPS
from napari_cfsr.widgets.parts.refiner_choice import RefinerChoice
from napari_cfsr.widgets.parts.run_widget import AlignedLabels, narrow
from napari_cfsr.widgets.upscaling.output_choice import TOOLTIPS as OUTPUT_TOOLTIPS
from napari_cfsr.widgets.upscaling.output_choice import OutputChoice

REGIONS = ("whole layer", "current view", BOX)
SLICES = ("all slices", "current slice")
INTENSITIES = ("auto", "dtype", "data", "percentile", "contrast limits")

TOOLTIPS = {
    "layer": "The image layer to upscale. It is not changed: the results are new layers.",
    **BACKBONE_TOOLTIPS,
    **REFINER_TOOLTIPS,
    **CHOICE_TOOLTIPS,
    "region": "What part of the layer to upscale. The result lies exactly over it.",
    "slices": "All of a stack, or only where the sliders stand now; Y and X stay whole.",
    **OUTPUT_TOOLTIPS,
    "tile": "Side of a tile in input pixels; 0 chooses it from the free memory.",
    "halo": "Input pixels read around each tile. 32: at most 0.01 grey levels from the whole "
    "image; 64 (72 with a refiner): exact.",
    "intensity": "Which values the network sees as black and white; undone in the result. auto: "
    "the whole range for 8-bit images and colour, least to greatest value otherwise. Contrast "
    "limits are those of the layer; colour has none, and gets auto.",
}


@dataclass(frozen=True)
class FormValues:
    """What the form says, read at one moment."""

    layer: str
    scale: int
    backbone: str
    weights_folder: str | None
    refiner: str | None
    outputs: tuple[str, ...]
    region: str
    box_layer: str
    slices: str
    quality: str
    device: str
    tile: int
    halo: int
    precision: str
    intensity: str

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`; downloads are asked for separately."""
        return {
            "scale": self.scale,
            "backbone": self.backbone,
            "refiner": self.refiner,
            "device": self.device,
            "precision": self.precision,
            "download": False,
            **({"weights_folder": self.weights_folder} if self.weights_folder else {}),
        }

    def options(self, image: ImageInput) -> UpscaleOptions:
        """Options of `upscale` for an image."""
        ensemble, back_projection = QUALITIES[self.quality]
        intensity: Any = self.intensity
        if intensity == "contrast limits":
            intensity = image.contrast_limits or "auto"
        return UpscaleOptions(
            axes=image.axes,
            rgb=False,  # colour samples are called S, so C are independent channels
            outputs=self.outputs,
            ensemble=ensemble,
            back_projection=back_projection,
            tile=self.tile or None,
            halo=self.halo,
            intensity=intensity,
            region=image.part,
        )


class UpscaleForm:
    """Widgets by name, their choices, and what depends on what.

    Parameters
    ----------
    images, boxes : callable
        Names of the layers that can be upscaled, and of those that can select a box.
    changed : callable
        Called after anything was changed.
    """

    def __init__(
        self,
        images: Callable[[], Sequence[str]],
        boxes: Callable[[], Sequence[str]],
        changed: Callable[[], None],
    ) -> None:
        self._changed = changed
        self._updating = False
        self.layer = ComboBox(choices=lambda _: list(images()), nullable=False)
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
        self.region = ComboBox(choices=REGIONS)
        self.box_layer = ComboBox(choices=lambda _: list(boxes()))
        self.slices = ComboBox(choices=SLICES)
        self.quality = ComboBox(choices=self._qualities)
        self.device = ComboBox(choices=DEVICES)
        self.output_choice = OutputChoice()
        self.output_to = self.output_choice.output_to
        self.folder = self.output_choice.folder
        self.tile = SpinBox(value=0, min=0, max=4096, step=64)
        self.halo = SpinBox(value=DEFAULT_HALO, min=0, max=128, step=8)
        self.precision = ComboBox(choices=PRECISIONS)
        self.intensity = ComboBox(choices=INTENSITIES)
        self.main = Container(
            widgets=[
                self.layer, self.scale, self.backbone, self.backbone_file, self.refiner,
                self.refiner_file, self.refiner_choice.outputs, self.region, self.box_layer,
                self.slices, self.quality,
                self.device, self.output_to, self.folder,
            ]
        )  # fmt: skip
        self.advanced = Container(widgets=[self.tile, self.halo, self.precision, self.intensity])
        self._aligned = AlignedLabels(self.main), AlignedLabels(self.advanced)
        for combo in (self.layer, self.box_layer, self.quality):
            narrow(combo.native)
        for name, tooltip in TOOLTIPS.items():
            widget: Widget = getattr(self, name)
            widget.name = name
            widget.label = name.replace("_", " ").replace("box layer", "box in")
            explain(widget, tooltip)
            if not isinstance(widget, CheckBox):  # which reads its text
                name_control(widget, widget.label)
            widget.changed.connect(self._on_change)
        self.update()

    def _qualities(self, _: Any) -> list[str]:
        return [q for q, (_, back) in QUALITIES.items() if not back or self.scale.value == 4]

    @property
    def has_refiner(self) -> bool:
        """Whether the choice of refiner stands for one that is there."""
        return self.refiner_choice.there

    def _on_change(self) -> None:
        if not self._updating:
            self.update()
            self._changed()

    def update(self) -> None:
        """Make everything that depends on something else fit."""
        self._updating = True
        try:
            for combo in (self.layer, self.backbone, self.box_layer, self.quality):
                combo.reset_choices()
            self.refiner_choice.update()
            self.backbone_file.visible = self.backbone_choice.from_file
            self.box_layer.visible = self.region.value == REGIONS[2]
            self.folder.visible = self.output_choice.may_be_disk
        finally:
            self._updating = False

    def choose(self, field: str, name: str) -> None:
        """Choose a layer without this counting as a change of the form."""
        self._updating = True
        try:
            getattr(self, field).value = name
        finally:
            self._updating = False

    def values(self) -> FormValues:
        """What is chosen now."""
        return FormValues(
            layer=self.layer.value or "",
            scale=self.scale.value,
            backbone=self.backbone_choice.value,
            weights_folder=self.backbone_choice.folder,
            refiner=self.refiner_choice.value,
            outputs=self.refiner_choice.wanted,
            region=self.region.value,
            box_layer=self.box_layer.value or "",
            slices=self.slices.value,
            quality=self.quality.value,
            device=self.device.value,
            tile=self.tile.value,
            halo=self.halo.value,
            precision=self.precision.value,
            intensity=self.intensity.value,
        )

    REMEMBERED = (
        "scale", "backbone", "refiner", "baseline", "delta", "difference", "slices", "quality",
        "device", "output_to", "tile", "halo", "precision", "intensity",
    )  # fmt: skip

    def remembered(self) -> dict[str, Any]:
        """Settings worth keeping; those of one session's layers are not."""
        values = {name: getattr(self, name).value for name in self.REMEMBERED}
        return {k: v for k, v in values.items() if v != FROM_FILE}

    def restore(self, values: dict[str, Any]) -> None:
        """Set what was kept, as far as it still exists."""
        self._updating = True
        for name in self.REMEMBERED:
            if name not in values:
                continue
            widget = getattr(self, name)
            try:
                if not isinstance(widget, ComboBox) or values[name] in widget.choices:
                    widget.value = values[name]
            except (ValueError, TypeError):
                continue  # a value of another version; the default stays
            if name in ("scale", "backbone"):
                self.update()
                self._updating = True
        self._updating = False
        self.update()
