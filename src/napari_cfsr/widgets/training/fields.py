"""The widgets of the Train form, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, Select
from napari.layers import Image
from qtpy.QtWidgets import QAbstractItemView, QLabel, QPushButton

from napari_cfsr.core.image import KERNELS, MODES
from napari_cfsr.core.training import Loss, PlacementChoice, Preset, Schedule
from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.backbone_choice import DEVICES, BackboneChoice
from napari_cfsr.widgets.parts.backbone_choice import TOOLTIPS as BACKBONE_TOOLTIPS
from napari_cfsr.widgets.parts.rows import IntegerField, Rows, side_by_side
from napari_cfsr.widgets.parts.run_widget import narrow, path_edit
from napari_cfsr.widgets.training.blur import Blur
from napari_cfsr.widgets.training.report import TOOLTIPS as RESULT_TOOLTIPS

SOURCES = ("image layers", "folder", "measured pair")
PRESET = "preset"  # stands for the value of the preset
NONE = "none"
UNSET = -1  # the same, in fields where 0 is a value

TOOLTIPS = {
    "source": "image layers: high-resolution images, from which low-resolution ones are "
    "simulated. folder: the same, from image files, read when they are needed. measured pair: "
    "a low- and a high-resolution layer of the same scene.",
    "layers": "High-resolution image layers; click to add one or take it away. Every plane of a "
    "stack counts as an image. Some images, or parts of a single one, are held out for the "
    "report.",
    "folder": "A folder of high-resolution images; those in folders below it count too.",
    "lr_layer": "The low-resolution image of the same scene.",
    "hr_layer": "The high-resolution image: scale times as large in Y and X.",
    "align": "Correct the shift between the two, to a fraction of a pixel.",
    "match": "Bring the high-resolution image to the brightness of the low-resolution one, by a "
    "straight line.",
    **BACKBONE_TOOLTIPS,
    "name": RESULT_TOOLTIPS["name"],
    "kernel": "How a low-resolution pixel is made of high-resolution ones. bicubic: MATLAB's, "
    "with antialiasing. area: their mean, as in a sensor with larger pixels.",
    "blur": "Gaussian blur before the reduction; 0: none.",
    "blur_unit": "What the blur is given in: its sigma, in LR pixels or in the unit of the layer, "
    "or its full width at half maximum (FWHM).",
    "photons": "Mean number of photons in a low-resolution pixel of intensity 1 (the brightest). "
    "0: no shot noise.",
    "read_noise": "Sigma of the sensor's noise, as a share of the intensity range.",
    "offset": "What the digitiser adds, as a share of the intensity range.",
    "gain": "What the digitiser multiplies intensities with.",
    "jpeg": "JPEG quality, 1 to 95; 0: no JPEG.",
    "reduce": "Reduce the high-resolution images by this first, where they are oversampled: "
    "their pixels are smaller than what they resolve.",
    "seed": "Of the split, the noise, the patches and the first weights. The same seed on the "
    "same machine gives the same refiner.",
    "real": "A real low-resolution image, to compare the preview with and to estimate from.",
    "preset": "adapt: fast, for your own images. benchmark: the published recipe, for clean "
    "images; it takes long and gains little.",
    "previews": "Show an image that is not trained on as layers while the training runs: "
    "reference, baseline and delta.",
    "placement": "Where the refiner runs: on the backbone's output, or on its input. auto: "
    "whichever does better on images that are not trained on.",
    "loss": "What is made small: mse (squared error), l1 (absolute error), or l1 and the "
    "difference of the spectra.",
    "rate": "Learning rate; empty: the preset's.",
    "schedule": "Whether the rate rises and falls once (one-cycle) or stays.",
    "steps": "Steps at most, for each placement.",
    "batch": "Patches in a step.",
    "patch": "Side of a patch, in output pixels for placement output, in low-resolution pixels "
    "for input.",
    "every": "Steps between two validations.",
    "patience": "Validations without a gain after which the training ends.",
    "ema": "Decay of the average of the weights that is validated and kept; 0: no average; "
    "empty: the preset's.",
    "warm_steps": "Quick steps without the backbone that come first, for placement input.",
    "held_out": "Share of the images that is kept for the report, and again as much to pick the "
    "best step.",
    "intensity": "Which data values the network sees as black and white, as in Upscale: use the "
    "same there.",
    "memory": "Megabytes that prepared images may take in the training process.",
}  # fmt: skip

BUTTONS = {
    "shift_button": "Measure the shift between the two, in LR pixels.",
    "preview_button": "Add the simulated low-resolution image of the first image as a layer: over "
    "it, or beside the real LR layer if one is chosen.",
    "estimate_button": "Estimate photons, read noise, offset and blur from the real LR layer; a "
    "starting point, to be edited.",
}
LABELS = {
    "lr_layer": "LR layer", "blur_unit": "blur in", "hr_layer": "HR layer", "jpeg": "JPEG quality",
    "real": "real LR layer", "every": "validate every", "ema": "EMA", "memory": "memory (MB)",
}  # fmt: skip

Layers = Callable[[], Sequence[tuple[str, Image]]]


class TrainFields:
    """All widgets by name, in the pages `main` and `advanced`.

    Parameters
    ----------
    images : callable
        Name and layer of each image layer of the viewer.
    """

    def __init__(self, images: Layers) -> None:
        self.backbone_choice = BackboneChoice(scale=2)
        self._data_fields(images)
        self._degradation_fields(images)
        self._recipe_fields()
        self.shift_button = QPushButton("Measure shift")
        self.shift_text = QLabel()
        self.preview_button = QPushButton("Preview")
        self.estimate_button = QPushButton("Estimate from it")
        self.main, self.advanced = Rows(), Rows()
        self._lay_out()
        for name in TOOLTIPS:
            getattr(self, name).name = name
        explain_all(self, TOOLTIPS | BUTTONS, {})

    def _data_fields(self, images: Layers) -> None:
        self.source = ComboBox(choices=SOURCES)
        self.layers = Select(choices=lambda _: list(images()))
        self.layers.native.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        self.folder = path_edit("d")
        self.lr_layer = ComboBox(choices=lambda _: list(images()))
        self.hr_layer = ComboBox(choices=lambda _: list(images()))
        self.align = CheckBox(text="correct shift", value=False)
        self.match = CheckBox(text="match brightness", value=True)
        self.scale = self.backbone_choice.scale
        self.backbone = self.backbone_choice.backbone
        self.backbone_file = self.backbone_choice.backbone_file
        self.device = ComboBox(choices=DEVICES)
        self.name = LineEdit()

    def _degradation_fields(self, images: Layers) -> None:
        self.kernel = ComboBox(choices=KERNELS)
        self.blur_in = Blur()
        self.blur, self.blur_unit = self.blur_in.value, self.blur_in.unit
        self.photons = _number(0, 0, 1e9, 10, 1, NONE)
        self.read_noise = _number(0, 0, 1, 0.005, 4)
        self.offset = _number(0, -1, 1, 0.01, 4)
        self.gain = _number(1, 0, 1e6, 0.1, 3)
        self.jpeg = IntegerField(0, 0, 95, NONE)
        self.reduce = IntegerField(1, 1, 16)
        self.seed = IntegerField(UNSET, UNSET, 2**31 - 1, PRESET)
        self.real = ComboBox(choices=lambda _: [(NONE, NONE), *images()])
        for combo in (self.lr_layer, self.hr_layer, self.real):
            narrow(combo.native)

    def _recipe_fields(self) -> None:
        self.preset = ComboBox(choices=get_args(Preset))
        self.previews = CheckBox(text="live preview layers", value=True)
        self.placement = _choice(get_args(PlacementChoice))
        self.loss = _choice(get_args(Loss))
        self.schedule = _choice(get_args(Schedule))
        self.rate, self.ema = LineEdit(), LineEdit()
        self.steps, self.batch, self.patch, self.every, self.patience = (
            IntegerField(0, 0, most, PRESET) for most in (10**6, 1024, 2048, 10**6, 10**4)
        )
        self.warm_steps = IntegerField(UNSET, UNSET, 10**6, PRESET)
        self.held_out = _number(0.15, 0.05, 0.4, 0.05, 2)
        self.intensity = ComboBox(choices=MODES)
        self.memory = IntegerField(1024, 16, 2**20)

    def _lay_out(self) -> None:
        rows = self.main
        rows.heading("Data")
        self._add(rows, "source", "layers", "folder", "lr_layer", "hr_layer")
        rows.add("shift", side_by_side(self.shift_text, self.shift_button), "shift")
        for name in ("align", "match"):
            rows.add(name, getattr(self, name), " ")
        self._add(rows, "scale", "backbone", "backbone_file", "device", "name")
        rows.heading("Degradation")
        self._add(
            rows, "kernel", "blur", "blur_unit", "photons", "read_noise", "offset", "gain", "jpeg",
            "reduce", "real",
        )  # fmt: skip
        rows.add("simulate", side_by_side(self.preview_button, self.estimate_button), " ")
        rows.heading("Training")
        self._add(rows, "preset", "seed")
        rows.add("previews", self.previews, " ")
        self._add(
            self.advanced, "placement", "loss", "rate", "schedule", "steps", "batch", "patch",
            "every", "patience", "ema", "warm_steps", "held_out", "intensity", "memory",
        )  # fmt: skip

    def _add(self, rows: Rows, *names: str) -> None:
        for name in names:
            rows.add(name, getattr(self, name), LABELS.get(name))


def _number(
    value: float, low: float, high: float, step: float, decimals: int, lowest: str = ""
) -> FloatSpinBox:
    """A number; at its least it can mean something else."""
    field = FloatSpinBox(value=value, min=low, max=high, step=step)
    field.native.setDecimals(decimals)
    field.native.setSpecialValueText(lowest)
    return field


def _choice(values: Sequence[Any]) -> ComboBox:
    """Values, or that of the preset."""
    return ComboBox(choices=[(PRESET, PRESET), *((v, v) for v in values)])
