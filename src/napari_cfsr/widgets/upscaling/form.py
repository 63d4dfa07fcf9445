"""The form of the Upscale widget: the choices, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from magicgui.widgets import ComboBox, SpinBox

from napari_cfsr.core.image import MODES
from napari_cfsr.core.upscale import DEFAULT_HALO, UpscaleOptions
from napari_cfsr.layers import ImageInput
from napari_cfsr.widgets.parts.form import Rows, narrow
from napari_cfsr.widgets.parts.refiner_choice import QUALITIES
from napari_cfsr.widgets.parts.refiner_choice import TOOLTIPS as NETWORK_TOOLTIPS
from napari_cfsr.widgets.parts.region_choice import BOX, SLICES, VIEW
from napari_cfsr.widgets.parts.region_choice import TOOLTIPS as REGION_TOOLTIPS
from napari_cfsr.widgets.upscaling.output_choice import TOOLTIPS as OUTPUT_TOOLTIPS
from napari_cfsr.widgets.upscaling.output_choice import OutputForm

REGIONS = ("whole layer", VIEW, BOX)
LIMITS = "contrast limits"

TOOLTIPS = {
    "layer": "The image layer to upscale. It is not changed: the results are new layers.",
    **NETWORK_TOOLTIPS,
    **REGION_TOOLTIPS,
    "region": "The part of the layer to upscale. The result lies exactly over it.",
    "slices": "The whole stack, or only the slice that the sliders show; Y and X stay whole.",
    **OUTPUT_TOOLTIPS,
    "tile": "Side of a tile in input pixels; 0 chooses it from the free memory.",
    "halo": "Input pixels read around each tile. 32: at most 0.01 grey levels from the whole "
    "image; 64 (72 with a refiner): exact.",
    "intensity": "Which values the network sees as black and white; undone in the result. auto: "
    "the full range for 8-bit images and colour, smallest to largest value otherwise. Contrast "
    "limits are those of the layer; colour has none, and gets auto.",
}


class UpscaleForm(OutputForm):
    """Fields by name, their choices, and what depends on what.

    `images` are the names of the layers that can be upscaled, `boxes` of those that can select a
    box.
    """

    TOOLTIPS = TOOLTIPS
    LABELS = {"box_layer": "box in", "halo": "overlap (halo)"}
    REMEMBERED = (
        "scale", "backbone", "refiner", "baseline", "delta", "difference", "slices", "quality",
        "device", "output_to", "tile", "halo", "precision", "intensity",
    )  # fmt: skip

    def __init__(
        self,
        images: Callable[[], Sequence[str]],
        boxes: Callable[[], Sequence[str]],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(changed)
        self.layer = ComboBox(choices=lambda _: list(images()), nullable=False)
        self.region = ComboBox(choices=REGIONS)
        self.box_layer = ComboBox(choices=lambda _: list(boxes()))
        self.slices = ComboBox(choices=SLICES)
        self.tile = SpinBox(value=0, min=0, max=4096, step=64)
        self.halo = SpinBox(value=DEFAULT_HALO, min=0, max=128, step=8)
        self.intensity = ComboBox(choices=(*MODES, LIMITS))
        self.advanced = Rows()
        for combo in (self.layer, self.box_layer):
            narrow(combo)
        self._add(
            self.main, "layer", "scale", "backbone", "backbone_file", "refiner", "refiner_file",
            "outputs", "region", "box_layer", "slices", "quality", "device", "output_to", "folder",
        )  # fmt: skip
        self._add(self.advanced, "tile", "halo", "precision", "intensity")
        self._connect()

    def _update(self) -> None:
        for combo in (self.layer, self.box_layer):
            combo.reset_choices()
        super()._update()
        self.main.show_row("box_layer", self.region.value == BOX)
        self.main.show_row("folder", self.may_be_disk)

    def choose(self, field: str, name: str) -> None:
        """Choose a layer without this counting as a change of the form."""
        with self._quiet():
            getattr(self, field).value = name

    def load_arguments(self) -> dict[str, Any]:
        """Arguments of `load_model`; downloads are requested separately."""
        load = super().load_arguments()
        if load["weights_folder"] is None:
            del load["weights_folder"]
        return load

    def options(self, image: ImageInput) -> UpscaleOptions:
        """Options of `upscale` for an image."""
        ensemble, back_projection = QUALITIES[self.quality.value]
        intensity: Any = self.intensity.value
        if intensity == LIMITS:
            intensity = image.contrast_limits or "auto"
        return UpscaleOptions(
            axes=image.axes,
            rgb=False,  # colour samples are called S, so C are independent channels
            outputs=self.wanted,
            ensemble=ensemble,
            back_projection=back_projection,
            tile=self.tile.value or None,
            halo=self.halo.value,
            intensity=intensity,
            region=image.part,
        )
