"""What to train: the degradation to learn, the recipe, and the request as a whole.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_cfsr.core.image import MODES, Degradation, Kernel, Limits, Mode, NoiseModel
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.training.data import TrainData

Preset = Literal["adapt", "benchmark"]
PlacementChoice = Literal["auto", "output", "input"]
Size = Literal["small", "large"]
Loss = Literal["l1", "mse", "l1+fft"]
Schedule = Literal["one-cycle", "constant"]

FFT_WEIGHT, FFT_RAMP = 0.005, 2000  # of the FFT magnitude, and steps until it is reached
CLIP = 0.5  # largest norm of the gradient


@dataclass(frozen=True)
class Recipe:
    """How one placement of a refiner is trained.

    Attributes
    ----------
    loss : {"l1", "mse", "l1+fft"}
    rate : float
        Learning rate of Adam; the peak of the one-cycle schedule.
    schedule : {"one-cycle", "constant"}
    steps : int
        At most.
    batch, patch : int
        Patches per step, and their side: in output pixels for placement `output`, in LR pixels for
        `input`.
    trial_steps : int
        Steps after which the two placements are compared, if both are tried. If there are warm
        steps, the comparison is made after those instead.
    warm_steps, warm_rate, warm_batch, warm_patch : int, float, int, int
        Placement `input` only: first steps without the backbone, in which the refiner learns to
        turn the LR image into the clean one. They cost a hundredth of the others.
    every, patience : int
        Steps between validations, and validations without improvement before training stops.
    ema : float
        Decay of the moving average of the weights, which is validated and kept; 0: no average.
    """

    loss: Loss
    rate: float
    schedule: Schedule
    steps: int
    batch: int
    patch: int
    every: int
    patience: int
    ema: float = 0.0
    trial_steps: int = 60
    warm_steps: int = 0
    warm_rate: float = 3e-3
    warm_batch: int = 16
    warm_patch: int = 64


@dataclass(frozen=True)
class CountsRecipe:
    """How a refiner is trained on noisy images.

    Attributes
    ----------
    counts_steps, own_steps : int
        On split photons, and on its own results.
    rate : float
        Learning rate: the peak of the schedule.
    batch, patch : int
        Patches per step, and their side.
    clip : float
        Largest norm of the gradient.
    """

    counts_steps: int
    own_steps: int
    rate: float
    batch: int
    patch: int
    clip: float


@dataclass(frozen=True)
class TrainConfig:
    """What to train. Options that are None take the value of the preset.

    Attributes
    ----------
    preset : {"adapt", "benchmark"}
        `adapt`: fast, for your own images. `benchmark`: the recipe published with CFSR-Delta.
    placement : {"auto", "output", "input"}
        Where the refiner runs. `auto` tries both and decides on the validation images.
    kernel, blur, photons, read_noise, gain, offset, jpeg
        How LR images are simulated; see `napari_cfsr.core.image.degradation.Degradation`. Ignored
        for measured pairs.
    seed : int
        Of the split, the noise, the patches and the initial weights.
    loss, rate, schedule, steps, batch, patch, every, patience, ema, warm_steps
        Recipe; see `Recipe`.
    reduce : int
        Factor by which HR images are first reduced, bicubically: for oversampled images, whose
        pixels are smaller than what the microscope resolves. Ignored for measured pairs.
    held_out : float
        Share of the images held out for the report; as many again are used for validation.
    intensity : {"auto", "dtype", "data", "percentile"} or (low, high)
        Which data values become 0 and 1, as in `upscale`.
    align : bool
        Measured pairs: correct the shift between LR and HR.
    match : bool
        Measured pairs: match the brightness of the HR image to the LR image, by a straight line.
    memory : int
        Bytes that the prepared images may take.
    size : {"small", "large"}, optional
        Of the network, for noisy images: RefineNet (11,011 parameters) or a UNetRefiner (208,140),
        which is better, not slower, and the default.
    init : str, optional
        For noisy images: name of a refiner on this machine to start from, of that size.
    noise : NoiseModel, optional
        For noisy images: that of the camera, in data values; by default it is estimated.
    """

    preset: Preset = "adapt"
    placement: PlacementChoice | None = None
    kernel: Kernel = "bicubic"
    blur: float = 0.0
    photons: float | None = None
    read_noise: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    jpeg: int | None = None
    seed: int | None = None
    loss: Loss | None = None
    rate: float | None = None
    schedule: Schedule | None = None
    steps: int | None = None
    batch: int | None = None
    patch: int | None = None
    every: int | None = None
    patience: int | None = None
    ema: float | None = None
    warm_steps: int | None = None
    reduce: int = 1
    held_out: float = 0.15
    intensity: Mode | Limits = "auto"
    align: bool = False
    match: bool = True
    memory: int = field(default=2**30)
    size: Size | None = None
    init: str | None = None
    noise: NoiseModel | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self.degradation).items():  # raises for invalid values
            self._set(name, value)
        _check_choice("preset", self.preset, get_args(Preset))
        _check_choice("placement", self.placement, (None, *get_args(PlacementChoice)))
        _check_choice("size", self.size, (None, *get_args(Size)))
        _check_choice("loss", self.loss, (None, *get_args(Loss)))
        _check_choice("schedule", self.schedule, (None, *get_args(Schedule)))
        for name, least in LEAST.items():
            self._set(name, _whole_number(name, getattr(self, name), least))
        if self.rate is not None and not 0 < _real("rate", self.rate) <= 1:
            raise OptionError(f"expected a rate in (0, 1], got {self.rate}")
        if self.ema is not None and not 0 <= _real("ema", self.ema) < 1:
            raise OptionError(f"expected ema in [0, 1), got {self.ema}")
        if not 0.05 <= _real("held_out", self.held_out) <= 0.4:
            raise OptionError(f"expected held_out of 0.05 to 0.4, got {self.held_out}")
        self._set("intensity", checked_mode(self.intensity))

    def _set(self, name: str, value: object) -> None:
        """Plain Python numbers instead of numpy's: fields are compared and written to JSON."""
        object.__setattr__(self, name, value)

    @property
    def degradation(self) -> Degradation:
        """How LR images are simulated."""
        return Degradation(**{f.name: getattr(self, f.name) for f in fields(Degradation)})

    @property
    def placements(self) -> tuple[Literal["output", "input"], ...]:
        """The placements to try."""
        chosen = self.placement or PRESET_PLACEMENT[self.preset]
        return ("input", "output") if chosen == "auto" else (chosen,)

    @property
    def run_seed(self) -> int:
        return PRESET_SEED[self.preset] if self.seed is None else self.seed

    def recipe(self, placement: Literal["output", "input"]) -> Recipe:
        """The recipe for a placement."""
        base = vars(PRESETS[self.preset][placement])
        own = {k: getattr(self, k) for k in base if getattr(self, k, None) is not None}
        if placement == "output":
            own["warm_steps"] = 0
        return Recipe(**{**base, **own})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the card."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "noise": vars(self.noise) if self.noise else None}


LEAST = {
    "seed": 0, "steps": 1, "batch": 1, "patch": 16, "every": 1, "patience": 1, "warm_steps": 0,
    "reduce": 1, "memory": 2**24,
}  # fmt: skip

PUBLISHED = Recipe(
    loss="l1", rate=1e-6, schedule="constant", steps=2000, batch=16, patch=64, every=50, patience=5
)
PRESETS: dict[Preset, dict[Literal["output", "input"], Recipe]] = {
    "adapt": {
        "output": Recipe(
            loss="mse", rate=3e-3, schedule="one-cycle", steps=600, batch=8, patch=64, every=50,
            patience=8, ema=0.98, trial_steps=60,
        ),
        "input": Recipe(
            loss="mse", rate=3e-4, schedule="one-cycle", steps=40, batch=8, patch=40, every=20,
            patience=8, ema=0.99, trial_steps=20, warm_steps=2500, warm_rate=3e-3, warm_batch=8,
            warm_patch=32,
        ),
    },
    "benchmark": {"output": PUBLISHED, "input": PUBLISHED},
}  # fmt: skip
NOISY_RECIPES: dict[Size, CountsRecipe] = {
    "small": CountsRecipe(1000, 1000, rate=3e-3, batch=8, patch=32, clip=0.5),
    "large": CountsRecipe(1500, 200, rate=1e-3, batch=16, patch=48, clip=0.05),
}
PRESET_PLACEMENT: dict[Preset, PlacementChoice] = {"adapt": "auto", "benchmark": "output"}
PRESET_SEED: dict[Preset, int] = {"adapt": 1, "benchmark": 69}


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise OptionError(f"expected {name} one of {', '.join(map(str, choices))}, got {value!r}")


def _whole_number(name: str, value: Any, least: int) -> int | None:
    """A whole number of at least that, or None."""
    if value is None:
        return None
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise OptionError(f"expected {name} as a whole number of at least {least}, got {value!r}")
    return int(value)


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"expected {name} as a number, got {value!r}")
    return float(value)


def checked_mode(mode: Any) -> Mode | Limits:
    """A valid intensity mapping: a mode, or two limits as a tuple."""
    if isinstance(mode, str):
        _check_choice("intensity", mode, MODES)
        return mode  # type: ignore[return-value]
    try:
        low, high = (float(value) for value in mode)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"expected intensity one of {', '.join(MODES)} or (low, high), got {mode!r}"
        ) from error
    if not -np.inf < low < high < np.inf:
        raise OptionError(f"expected intensity limits low < high, got ({low}, {high})")
    return low, high


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """What to train, on which images and which backbone: what the child process is sent."""

    data: TrainData
    # arguments of `load_model`: `scale`, `backbone`, `device`, `download`, `weights_folder`
    load: dict[str, Any]
    config: TrainConfig
