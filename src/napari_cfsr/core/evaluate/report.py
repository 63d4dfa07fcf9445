"""Results of an evaluation: scores of each image, their means, and the record. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np

from napari_cfsr.core.engine import ModelInfo
from napari_cfsr.core.metrics import Channel

FORMAT = "napari-cfsr evaluation 1"
REFERENCE = "baseline"  # gains are relative to it


@dataclass(frozen=True)
class Scores:
    """Scores of an image, mean scores, or gains."""

    psnr: float  # dB, clipped to [0,1] but not rounded; infinite for identical images
    ssim: float
    # the same for the result rounded to 8 bits
    psnr_uint8: float
    ssim_uint8: float

    def over(self, other: Scores) -> Scores:
        """Gain over other scores; two infinite values count as equal."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Scores(*(0.0 if a == b else a - b for a, b in pairs))


def mean(scores: Iterable[Scores]) -> Scores:
    """Mean of each score."""
    columns = zip(*(astuple(s) for s in scores), strict=True)
    return Scores(*(float(np.mean(column)) for column in columns))


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image."""

    dataset: str
    name: str
    shape: tuple[int, ...]  # [Y,X] or [Y,X,3] of the compared images, border included
    scores: Mapping[str, Scores]  # by model
    lr_made: bool = False  # whether the LR image was made from HR because there is no file
    cropped: str = ""  # how HR was cropped; empty if it was not
    notes: tuple[str, ...] = ()

    def gain(self, model: str) -> Scores:
        """Over the baseline."""
        return self.scores[model].over(self.scores[REFERENCE])


@dataclass(frozen=True)
class Fault:
    """An image that could not be measured, and why."""

    dataset: str
    name: str  # of the image or file; empty for a whole data set
    text: str


@dataclass(frozen=True)
class BenchmarkReport:
    """Results of an evaluation."""

    scale: int
    models: tuple[str, ...]  # of `bicubic`, `baseline`, `delta`
    channel: Channel
    shave: int
    images: tuple[ImageScores, ...]
    faults: tuple[Fault, ...] = ()
    info: ModelInfo | None = None  # None if only bicubic was requested
    options: Mapping[str, Any] = field(default_factory=dict)  # as requested; plain values
    seconds: float = 0.0
    model_seconds: float = 0.0  # in calls of the model
    date: str = ""  # end time, ISO 8601
    versions: Mapping[str, str] = field(default_factory=dict)  # of Python and packages

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets with measured images, in the order of the evaluation."""
        return tuple(dict.fromkeys(image.dataset for image in self.images))

    @property
    def gaining(self) -> tuple[str, ...]:
        """Models that have a gain over the baseline."""
        others = tuple(m for m in self.models if m != REFERENCE)
        return others if REFERENCE in self.models else ()

    def of(self, dataset: str) -> tuple[ImageScores, ...]:
        """The images of a data set."""
        return tuple(image for image in self.images if image.dataset == dataset)

    def mean(self, dataset: str, model: str) -> Scores:
        """Mean over the images of a data set."""
        return mean(image.scores[model] for image in self.of(dataset))

    def gain(self, dataset: str, model: str) -> Scores:
        """Mean gain over the baseline, image by image."""
        return mean(image.gain(model) for image in self.of(dataset))

    def notes(self, dataset: str) -> list[str]:
        """What a reader of the scores should know."""
        images = self.of(dataset)
        found = []
        made = [image.name for image in images if image.lr_made]
        if made:
            which = "all images" if len(made) == len(images) else ", ".join(made)
            folder = f"LR_bicubic/X{self.scale}"
            found.append(f"no files in {folder}: LR made by MATLAB's bicubic for {which}")
        cropped = sum(bool(image.cropped) for image in images)
        if cropped:
            found.append(f"HR of {cropped} of {len(images)} images cropped to LR size x scale")
        return [*found, *dict.fromkeys(note for image in images for note in image.notes)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; scores that are not finite become the words Infinity, -Infinity and NaN."""
        found: dict[str, Any] = plain(
            {
                "format": FORMAT,
                "date": self.date,
                "versions": dict(self.versions),
                "model": None if self.info is None else _model(self.info),
                "options": dict(self.options),
                "scale": self.scale,
                "channel": self.channel,
                "shave": self.shave,
                "models": self.models,
                "datasets": [self._dataset(name) for name in self.datasets],
                "faults": [asdict(fault) for fault in self.faults],
                "seconds": round(self.seconds, 3),
                "model_seconds": round(self.model_seconds, 3),
            }
        )
        return found

    def _dataset(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "count": len(self.of(name)),
            "mean": {model: asdict(self.mean(name, model)) for model in self.models},
            "gain": {model: asdict(self.gain(name, model)) for model in self.gaining},
            "notes": self.notes(name),
            "images": [
                {
                    "name": image.name,
                    "shape": image.shape,
                    "lr_made": image.lr_made,
                    "cropped": image.cropped,
                    "notes": image.notes,
                    "scores": {model: asdict(image.scores[model]) for model in self.models},
                    "gain": {model: asdict(image.gain(model)) for model in self.gaining},
                }
                for image in self.of(name)
            ],
        }


def _model(info: ModelInfo) -> dict[str, Any]:
    """The model without the paths of this machine."""
    return {k: v for k, v in vars(info).items() if not k.endswith("_path")}


def plain(value: Any) -> Any:
    """For JSON, which has no infinity: `float` of Python and `Number` of JavaScript read these."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value
