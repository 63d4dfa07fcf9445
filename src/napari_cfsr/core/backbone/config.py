"""The recipe of a backbone's training. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from napari_cfsr.core.weights import SCALES
from napari_cfsr.errors import OptionError, ScaleError

TrainingPrecision = Literal["float32", "bfloat16"]

# defaults that suit each device
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"batch": 8, "patch": 32, "precision": "float32"},
    "cuda": {"batch": 64, "patch": 64, "precision": "bfloat16"},
    "mps": {"batch": 16, "patch": 48, "precision": "float32"},
}


@dataclass(frozen=True)
class BackboneConfig:
    """How a backbone is trained.

    The rate rises linearly for `rise` steps and then follows half a cosine down to zero at the end
    of `hours` or `steps`; a training resumed with more hours continues at the rate that a longer
    one would have had at that point.
    """

    scale: int = 4  # 2, 3 or 4
    hours: float = 1.0  # length of the whole training, including validation but not interruptions
    steps: int | None = None  # length in steps instead, which does not depend on the machine
    # patches per step; None: the default of the device, here and for the next two
    batch: int | None = None
    patch: int | None = None  # side of a patch in LR pixels
    # of the convolutions; weights, LayerNorm and loss are float32
    precision: TrainingPrecision | None = None
    rate: float = 2e-3  # largest learning rate of Adam
    rise: int = 200  # steps of warm-up
    mse_share: float = 0.1  # share of the training, at its end, with MSE loss; L1 before that
    # decay of the exponential moving average of the weights, which is validated
    average: float = 0.999
    clip: float = 0.5  # largest norm of the gradient
    validations: int = 30  # number of validations in the whole training
    seed: int = 1

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ScaleError(f"expected scale 2, 3 or 4, got {self.scale}")
        if self.precision not in (None, "float32", "bfloat16"):
            raise OptionError(f'expected precision "float32" or "bfloat16", got {self.precision!r}')
        least = {"steps": 1, "batch": 1, "patch": 8, "rise": 0, "validations": 1, "seed": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < smallest):
                raise OptionError(f"expected {name} of at least {smallest}, got {value!r}")
        ranges = {"hours": (0.0, math.inf), "rate": (0.0, 1.0), "clip": (0.0, math.inf)}
        ranges |= {"mse_share": (-1e-9, 1.000001), "average": (-1e-9, 1.0)}
        for name, (low, high) in ranges.items():
            if not low < getattr(self, name) < high:
                raise OptionError(
                    f"expected {name} between {max(low, 0):g} and {high:g}, got "
                    f"{getattr(self, name)!r}"
                )

    def on(self, device: str) -> BackboneConfig:
        """This configuration with the defaults of a device instead of None."""
        defaults = DEFAULTS[device.split(":")[0]]
        return replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})

    def done(self, step: int, seconds: float) -> float:
        """Share of the training that is done, 0 to 1."""
        share = step / self.steps if self.steps else seconds / (3600 * self.hours)
        return min(1.0, share)

    def rate_at(self, step: int, done: float) -> float:
        """Learning rate of a step, counted from 0, at the share `done` of the training."""
        rising = min(1.0, (step + 1) / (self.rise + 1))
        return self.rate * rising * 0.5 * (1 + math.cos(math.pi * done))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """From `to_dict`; unknown options of other versions are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})
