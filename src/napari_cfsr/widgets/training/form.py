"""The form of the Train widget: what depends on what, and the configuration that is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_cfsr.core.image import NoiseModel
from napari_cfsr.core.training import NOISY_RECIPES, PRESET_PLACEMENT, TrainConfig
from napari_cfsr.core.weights import refiner_path_for, unique_name
from napari_cfsr.errors import CFSRError
from napari_cfsr.layers import layer_axes, layer_shape
from napari_cfsr.widgets.parts.form import decimal
from napari_cfsr.widgets.training.fields import (
    DEFAULT,
    NOISY,
    PRESET,
    SOURCES,
    TOOLTIPS,
    Layers,
    TrainFields,
)

if TYPE_CHECKING:
    from napari_cfsr.core.image import Estimate

SIMULATION = ("kernel", "photons", "read_noise", "offset", "gain", "jpeg", "reduce")
LAYERS, FOLDERS = (NOISY[0], SOURCES[0]), (NOISY[1], SOURCES[1])
NOISE_ROWS = ("Noise", "conversion", "size", "init")
CAMERA_ROWS = ("dark_level", "camera_noise")
SUPERVISED_ROWS = (
    "placement", "loss", "rate", "schedule", "batch", "patch", "every", "patience", "ema",
    "warm_steps", "held_out", "memory",
)  # fmt: skip
SIMULATION_ROWS = (*SIMULATION, "blur", "real", "simulate", "Degradation")
CHOICES = ("placement", "loss", "schedule")  # of the recipe
COUNTS = ("steps", "batch", "patch", "every", "patience", "warm_steps")
DECIMALS = ("rate", "ema")
NOT_REMEMBERED = (
    "init", "conversion", "dark_level", "camera_noise", "backbone_file", "layers", "lr_layer",
    "hr_layer", "name", "blur_unit", "real",
)  # fmt: skip


class TrainForm(TrainFields):
    """Fields, and what follows from them."""

    REMEMBERED = tuple(name for name in TOOLTIPS if name not in NOT_REMEMBERED)

    def __init__(self, images: Layers, changed: Callable[[], None]) -> None:
        super().__init__(images, changed)
        self._suggested = ""
        self.source.changed.connect(self._guess_pair)
        for name in ("lr_layer", "hr_layer", "scale"):
            getattr(self, name).changed.connect(lambda: self.shift_text.setText(""))
        self._connect()

    @property
    def paired(self) -> bool:
        """Whether the LR images are measured."""
        return bool(self.source.value == SOURCES[2])

    @property
    def simulated(self) -> bool:
        """Whether LR images are simulated."""
        return self.source.value in SOURCES[:2]

    @property
    def real_layer(self) -> Image | None:
        """The real LR layer, if one is chosen."""
        return self.real.value if isinstance(self.real.value, Image) else None

    @property
    def chosen(self) -> tuple[Image, ...]:
        """Layers to train on; for a measured pair, the LR layer and the HR layer."""
        if self.paired:
            pair = self.lr_layer.value, self.hr_layer.value
            return tuple(layer for layer in pair if layer is not None)
        return tuple(self.layers.value) if self.source.value in LAYERS else ()

    @property
    def chosen_folder(self) -> Path | None:
        """The folder to train on, if that is the source."""
        folder = self.folder.value if self.source.value in FOLDERS else None
        return Path(folder) if folder is not None else None

    @property
    def noisy(self) -> bool:
        """Whether the images are noisy, without clean ones."""
        return self.source.value in NOISY

    def _guess_pair(self) -> None:
        """Choose the smallest and the largest layer, until the user has chosen two."""
        layers = sorted(self.lr_layer.choices, key=lambda x: math.prod(layer_shape(x)))
        if self.paired and self.lr_layer.value is self.hr_layer.value and len(layers) > 1:
            self.lr_layer.value, self.hr_layer.value = layers[0], layers[-1]

    # what depends on what

    def _update(self) -> None:
        for name in ("layers", "lr_layer", "hr_layer", "real", "backbone", "init"):
            self._reset(getattr(self, name))
        self.blur_in.offer(self._pixel())
        self._show_rows()
        self._show_presets()
        self._suggest_name()

    @staticmethod
    def _reset(combo: Any) -> None:
        """Offer the layers that exist now; the choice stays, also if it was renamed."""
        before = combo.value
        combo.reset_choices()
        if isinstance(before, list):
            combo.value = [v for v in before if v in combo.choices]
        elif before in combo.choices:
            combo.value = before

    def _show_rows(self) -> None:
        source = self.source.value
        for name, visible in {
            "layers": source in LAYERS,
            "folder": source in FOLDERS,
            "backbone_file": self.own_backbone,
            **dict.fromkeys(("lr_layer", "hr_layer", "shift", "align", "match"), self.paired),
            **dict.fromkeys(SIMULATION_ROWS, self.simulated),
            "blur_unit": self.simulated and self.blur_in.has_units,
            **dict.fromkeys(NOISE_ROWS, self.noisy),
            **dict.fromkeys(CAMERA_ROWS, self.noisy and self.conversion.value > 0),
            "preset": not self.noisy,
        }.items():
            self.main.show_row(name, visible)
        for name in SUPERVISED_ROWS:
            self.advanced.show_row(name, not self.noisy)

    def _show_presets(self) -> None:
        """Show the preset's value in each field of the recipe."""
        placement = None if self.placement.value == PRESET else self.placement.value
        config = TrainConfig(preset=self.preset.value, placement=placement)
        recipes = {p: config.recipe(p) for p in config.placements}
        self._show_preset("placement", f"{PRESET} ({PRESET_PLACEMENT[self.preset.value]})")
        for name in ("loss", "schedule", *COUNTS, *DECIMALS):
            values = {p: getattr(recipe, name) for p, recipe in recipes.items()}
            self._show_preset(name, f"{PRESET} ({preset_text(values)})")
        if self.noisy:
            steps = NOISY_RECIPES[self.size.value]
            self._show_preset("steps", f"{PRESET} ({steps.counts_steps} + {steps.own_steps})")
        self.seed.native.setSpecialValueText(f"{PRESET} ({config.run_seed})")

    def _show_preset(self, name: str, text: str) -> None:
        native = getattr(self, name).native
        if name in CHOICES:
            native.setItemText(0, text)
        elif name in DECIMALS:
            native.setPlaceholderText(text)
        else:
            native.setSpecialValueText(text)

    def _suggest_name(self) -> None:
        """Suggest a name from the data, until the user enters one."""
        if self.name.value != self._suggested:
            return
        layers = self.chosen
        data = (
            layers[-1 if self.paired else 0].name if layers else Path(self.folder.value or "").name
        )
        name = f"{data or 'refiner'} x{self.scale.value}"
        if not self._suggested.startswith(name):
            self._suggested = unique_name(name)
            self.name.value = self._suggested

    def suggest_another_name(self) -> None:
        """The name is taken now: suggest another one."""
        self._suggested = self.name.value
        self._suggested = self.name.value = unique_name(self._suggested)

    def _pixel(self) -> tuple[float, str] | None:
        """Size of an LR pixel and its unit, if the layer has one."""
        layer = next(iter(self.chosen), None)
        if layer is None or not self.simulated:
            return None
        axes = layer_axes(layer)
        units = {str(layer.units[axes.index(a)]) for a in "YX"}
        if len(units) > 1 or units & {"pixel", ""}:
            return None
        size = float(layer.scale[axes.index("X")])
        return size * self.scale.value * self.reduce.value, units.pop()

    def set_degradation(self, found: Estimate) -> None:
        """Fill in what was estimated from a real image."""
        with self._quiet():
            for name in ("read_noise", "offset", "photons"):
                getattr(self, name).value = getattr(found, name) or 0
            self.blur_in.sigma = found.blur
            self.gain.value, self.jpeg.value = 1, 0  # the estimate holds without them
        self._on_change()

    # the configuration

    def config(self) -> TrainConfig:
        """The configuration; `OptionError` if it is invalid."""
        if self.noisy:
            return self._noisy_config()
        options: dict[str, Any] = {"preset": self.preset.value}
        for name in ("held_out", "intensity"):
            options[name] = getattr(self, name).value
        options["memory"] = self.memory.value * 2**20
        options |= {n: getattr(self, n).value for n in CHOICES if getattr(self, n).value != PRESET}
        for name in (*COUNTS, "seed"):
            field = getattr(self, name)
            if not field.is_least:
                options[name] = field.value
        options |= {n: decimal(n, getattr(self, n).value) for n in DECIMALS}
        for name in ("align", "match") if self.paired else SIMULATION:
            options[name] = getattr(self, name).value
        if not self.paired:
            options |= {n: options[n] or None for n in ("photons", "jpeg")}
            options["blur"] = self.blur_in.sigma
        return TrainConfig(**options)

    def _noisy_config(self) -> TrainConfig:
        options: dict[str, Any] = {"size": self.size.value, "intensity": self.intensity.value}
        for name in ("steps", "seed"):
            field = getattr(self, name)
            if not field.is_least:
                options[name] = field.value
        if self.init.value != DEFAULT:
            options["init"] = self.init.value
        if self.conversion.value > 0:
            camera = self.conversion.value, self.dark_level.value, self.camera_noise.value
            options["noise"] = NoiseModel.of_camera(*camera)
        return TrainConfig(**options)

    def reason(self) -> str:
        """Why nothing can be trained now; empty if it can."""
        if reason := self.data_reason() or self.network_reason():
            return reason
        try:
            self.config()
            refiner_path_for(self.name.value)
        except CFSRError as error:
            return _sentence(error)
        return ""

    def data_reason(self) -> str:
        """Why the images can't be used; empty if they can."""
        source, chosen = self.source.value, self.chosen
        if source in FOLDERS:
            folder = self.chosen_folder
            exists = folder is not None and str(folder) != "." and folder.is_dir()
            return "" if exists else "Choose a folder of images."
        if source in LAYERS:
            kind = "noisy" if self.noisy else "high-resolution"
            return "" if chosen else f"Choose one or more {kind} image layers."
        if len(chosen) < 2:
            return "Open a low- and a high-resolution image of the same scene."
        return pair_fault(chosen[0], chosen[1], self.scale.value)

    def remembered(self) -> dict[str, Any]:
        """Settings worth keeping; the blur in LR pixels, since layers differ in their units."""
        values = super().remembered()
        values["folder"] = str(values.get("folder") or "")
        if not self.simulated:
            del values["blur"]
        else:
            values["blur"] = self.blur_in.sigma
        return values


def preset_text(values: dict[Any, Any]) -> str:
    """One value, or one for each placement."""
    if len(set(values.values())) == 1:
        return _short(next(iter(values.values())))
    return ", ".join(f"{placement} {_short(v)}" for placement, v in values.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def pair_fault(lr: Image, hr: Image, scale: int) -> str:
    """Why two layers can't be LR and HR images of the same scene; empty if they can."""
    if lr is hr:
        return "Choose two layers: the LR and the HR layer are the same."
    small, large = (dict(zip(layer_axes(x), layer_shape(x), strict=False)) for x in (lr, hr))
    if lr.rgb != hr.rgb:
        gray, colour = (hr, lr) if lr.rgb else (lr, hr)
        return f"Choose two gray or two colour layers: '{gray.name}' is gray, '{colour.name}' not."
    wanted = tuple(small[a] * scale for a in "YX")
    over = [large[a] - n for a, n in zip("YX", wanted, strict=True)]
    if not all(0 <= n < scale for n in over):
        return (
            f"Expected an HR layer of {_size(wanted)} pixels, {scale} times '{lr.name}' "
            f"({_size(small[a] for a in 'YX')}), got {_size(large[a] for a in 'YX')} in "
            f"'{hr.name}': choose other layers or another scale, or crop one."
        )
    planes = [math.prod(n for a, n in x.items() if a not in "YX") for x in (small, large)]
    if planes[0] != planes[1]:
        return (
            f"Expected as many planes in both layers, got {planes[0]} in '{lr.name}' and "
            f"{planes[1]} in '{hr.name}'."
        )
    return ""


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
