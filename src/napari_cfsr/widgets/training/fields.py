"""The fields of the Train form, and their layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, Select
from napari.layers import Image
from qtpy.QtWidgets import QAbstractItemView, QLabel, QPushButton

from napari_cfsr.core.image import KERNELS, MODES
from napari_cfsr.core.training import Loss, PlacementChoice, Preset, Schedule, Size
from napari_cfsr.core.weights import refiner_cards
from napari_cfsr.widgets.parts.accessible import explain_all
from napari_cfsr.widgets.parts.backbone_choice import TOOLTIPS as BACKBONE_TOOLTIPS
from napari_cfsr.widgets.parts.backbone_choice import BackboneForm
from napari_cfsr.widgets.parts.form import IntegerField, Rows, narrow, path_edit, together
from napari_cfsr.widgets.training.report import TOOLTIPS as RESULT_TOOLTIPS

NOISY = ("my noisy images", "folder of my noisy images")
SOURCES = ("image layers", "folder", "measured pair")
PRESET = "preset"  # the value of the preset
NONE = "none"
ESTIMATED = "estimated"
DEFAULT = "default"
UNSET = -1  # the same, in fields where 0 is a value
PIXELS = "LR px"
FWHM = 2.3548200450309493  # of a Gaussian of sigma 1

TOOLTIPS = {
    "source": "my noisy images: images like those you want to upscale, where there are no clean "
    "ones; one is enough. image layers: high-resolution images, from which low-resolution ones are "
    "simulated. folder: the same, from image files, read as needed. measured pair: a low- and a "
    "high-resolution layer of the same scene.",
    "layers": "Image layers, high-resolution (HR) or noisy; click to add or remove one. Every "
    "plane of a stack counts as an image. Some images, or parts of a single one, are held out for "
    "the report.",
    "folder": "A folder of high-resolution or of noisy images; subfolders are included.",
    "conversion": "Electrons per grey level, from the camera's data sheet or a measurement. 0: the "
    "noise is estimated from the images.",
    "dark_level": "Grey level of the camera in darkness.",
    "camera_noise": "Read noise of the camera, in electrons.",
    "size": "large: a network of 208,140 parameters, pretrained for any exposure; better and not "
    "slower. small: RefineNet, of 11,011.",
    "init": "The refiner that training starts from: one of yours, of the same size.",
    "lr_layer": "The low-resolution image of the same scene.",
    "hr_layer": "The high-resolution image: scale times as large in Y and X.",
    "align": "Correct the shift between the two, to a fraction of a pixel.",
    "match": "Fit the brightness of the high-resolution image to the low-resolution one, with a "
    "linear function.",
    **BACKBONE_TOOLTIPS,
    "name": RESULT_TOOLTIPS["name"],
    "kernel": "How low-resolution pixels are computed from high-resolution ones. bicubic: as in "
    "MATLAB, with antialiasing. area: their mean, as in a sensor with larger pixels.",
    "blur": "Gaussian blur before the reduction; 0: none.",
    "blur_unit": "Unit of the blur: its sigma in low-resolution (LR) pixels or in the unit of the "
    "layer, or its full width at half maximum (FWHM).",
    "photons": "Mean number of photons in a low-resolution pixel of intensity 1 (the brightest). "
    "0: no shot noise.",
    "read_noise": "Sigma of the sensor's read noise, as a fraction of the intensity range.",
    "offset": "Camera offset, as a fraction of the intensity range.",
    "gain": "Camera gain: the factor applied to intensities.",
    "jpeg": "JPEG quality, 1 to 95; 0: no JPEG.",
    "reduce": "Reduce the high-resolution images by this factor first, if they are oversampled: "
    "if their pixels are smaller than what they resolve.",
    "seed": "For the split, the noise, the patches and the initial weights. The same seed on the "
    "same machine gives the same refiner.",
    "real": "A real low-resolution image, to compare the preview with and to estimate from.",
    "preset": "adapt: fast, for your own images. benchmark: the published recipe, for clean "
    "images; it takes long and gains little.",
    "previews": "Show a validation image as layers during training: reference, baseline (network "
    "alone) and delta (refined).",
    "placement": "Where the refiner runs: on the backbone's output, or on its input. auto: "
    "whichever does better on validation images.",
    "loss": "Error measure to minimise: mse (squared error), l1 (absolute error), or l1 plus the "
    "difference of the spectra.",
    "rate": "Learning rate; empty: the preset's.",
    "schedule": "Whether the learning rate rises and falls once (one-cycle) or is constant.",
    "steps": "Maximum number of steps for each placement.",
    "batch": "Patches per step.",
    "patch": "Side of a patch, in output pixels for placement output, in low-resolution pixels "
    "for input.",
    "every": "Steps between two validations.",
    "patience": "Validations without a gain after which training stops.",
    "ema": "Decay of the moving average of the weights that is validated and kept; 0: no average; "
    "empty: the preset's.",
    "warm_steps": "Initial quick steps without the backbone, for placement input.",
    "held_out": "Fraction of the images kept for the report, and the same again to select the "
    "best step.",
    "intensity": "Which data values the network sees as black and white. Use the same setting in "
    "Upscale.",
    "memory": "Megabytes that prepared images may take in the training process.",
}  # fmt: skip

BUTTONS = {
    "shift_button": "Measure the shift between the two, in low-resolution pixels.",
    "preview_button": "Add the simulated low-resolution image of the first image as a layer: over "
    "it, or beside the real LR layer if one is chosen.",
    "estimate_button": "Estimate photons, read noise, offset and blur from the real LR layer: a "
    "starting point to edit.",
}

Layers = Callable[[], Sequence[tuple[str, Image]]]  # names and image layers of the viewer


class Blur:
    """The widgets `value` and `unit`; changing the unit converts the value.

    The value is shown in the chosen unit; `sigma` is in LR pixels.
    """

    def __init__(self) -> None:
        self.value = FloatSpinBox(value=0, min=0, max=1e6, step=0.1)
        self.value.native.setDecimals(3)
        self.unit = ComboBox(choices=[PIXELS])
        self._size = 1.0  # of an LR pixel
        self._shown = PIXELS  # the unit that the value is in

    def offer(self, pixel: tuple[float, str] | None) -> None:
        """Offer units of length if an LR pixel has a size and a unit."""
        units = [PIXELS] if pixel is None else [PIXELS, pixel[1], f"{pixel[1]} FWHM"]
        if list(self.unit.choices) != units:
            self.unit.choices = units
        if self.unit.value != self._shown:
            sigma = self.sigma
            self._size, self._shown = pixel[0] if pixel else 1.0, self.unit.value
            self.sigma = sigma
        self._size = pixel[0] if pixel else 1.0

    @property
    def has_units(self) -> bool:
        """Whether there is a unit of length to choose."""
        return len(self.unit.choices) > 1

    @property
    def sigma(self) -> float:
        """In LR pixels."""
        return float(self.value.value / self._factor)

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        self.value.value = sigma * self._factor

    @property
    def _factor(self) -> float:
        """The value that is shown for a sigma of one LR pixel."""
        if self._shown == PIXELS:
            return 1.0
        return self._size * (FWHM if self._shown.endswith(" FWHM") else 1.0)


class TrainFields(BackboneForm):
    """All fields by name, in the pages `main` and `advanced`."""

    TOOLTIPS = TOOLTIPS
    LABELS = {
        "lr_layer": "LR layer", "hr_layer": "HR layer", "blur_unit": "blur in", "simulate": " ",
        "jpeg": "JPEG quality", "real": "real LR layer", "every": "validate every", "ema": "EMA",
        "memory": "memory (MB)", "conversion": "electrons per level", "init": "start from",
        "camera_noise": "read noise (electrons)",
    }  # fmt: skip

    def __init__(self, images: Layers, changed: Callable[[], None]) -> None:
        super().__init__(changed, scale=2)
        self._data_fields(images)
        self._degradation_fields(images)
        self._recipe_fields()
        self.shift_button = QPushButton("Measure shift")
        self.shift_text = QLabel()
        self.preview_button = QPushButton("Preview")
        self.estimate_button = QPushButton("Estimate from it")
        explain_all(self, BUTTONS, {})
        self.shift = together(self.shift_text, self.shift_button)
        self.simulate = together(self.preview_button, self.estimate_button)
        self.main, self.advanced = Rows(), Rows()
        self._lay_out()

    def _data_fields(self, images: Layers) -> None:
        self.source = ComboBox(choices=(*NOISY, *SOURCES), value=SOURCES[0])
        narrow(self.source)
        self.layers = Select(choices=lambda _: list(images()))
        self.layers.native.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        self.folder = path_edit("d")
        self.lr_layer = ComboBox(choices=lambda _: list(images()))
        self.hr_layer = ComboBox(choices=lambda _: list(images()))
        self.align = CheckBox(text="correct shift", value=False)
        self.match = CheckBox(text="match brightness", value=True)
        self.name = LineEdit()
        self.conversion = _number(0, 0, 1e6, 0.1, 4, ESTIMATED)
        self.dark_level = _number(0, -1e6, 1e6, 1, 2)
        self.camera_noise = _number(0, 0, 1e6, 0.1, 3)
        self.size = ComboBox(choices=get_args(Size)[::-1])
        self.init = ComboBox(choices=self._starts)
        narrow(self.init)

    def _starts(self, _: Any) -> list[tuple[str, str]]:
        """Refiners that a training on noisy images can start from."""
        network = "UNetRefiner" if self.size.value == "large" else "RefineNet dilated"
        fitting = (p.stem for p, _, card in refiner_cards() if card.network == network)
        return [(DEFAULT, DEFAULT), *((name, name) for name in fitting)]

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
            narrow(combo)

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
        self.main.heading("Data")
        self._add(
            self.main, "source", "layers", "folder", "lr_layer", "hr_layer", "shift", "align",
            "match", "scale", "backbone", "backbone_file", "device", "name",
        )  # fmt: skip
        self.main.heading("Noise")
        self._add(self.main, "conversion", "dark_level", "camera_noise", "size", "init")
        self.main.heading("Degradation")
        self._add(
            self.main, "kernel", "blur", "blur_unit", "photons", "read_noise", "offset", "gain",
            "jpeg", "reduce", "real", "simulate",
        )  # fmt: skip
        self.main.heading("Training")
        self._add(self.main, "preset", "seed", "previews")
        self._add(
            self.advanced, "placement", "loss", "rate", "schedule", "steps", "batch", "patch",
            "every", "patience", "ema", "warm_steps", "held_out", "intensity", "memory",
        )  # fmt: skip


def _number(
    value: float, low: float, high: float, step: float, decimals: int, lowest: str = ""
) -> FloatSpinBox:
    """A number; its minimum can have a meaning of its own."""
    field = FloatSpinBox(value=value, min=low, max=high, step=step)
    field.native.setDecimals(decimals)
    field.native.setSpecialValueText(lowest)
    return field


def _choice(values: Sequence[Any]) -> ComboBox:
    """These values, or that of the preset."""
    return ComboBox(choices=[(PRESET, PRESET), *((v, v) for v in values)])
