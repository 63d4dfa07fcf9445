"""Held-out report: a refiner beside the frozen backbone and conventional methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from napari_cfsr.core.image import Degradation, bicubic, denoise, estimate_degradation
from napari_cfsr.core.metrics import psnr, ssim
from napari_cfsr.core.training.results import Report, ReportRow
from napari_cfsr.core.training.windows import (
    MOST_PSNR,
    TrainingWindow,
    channels_first,
    channels_last,
)

Float32 = NDArray[np.float32]
Upscale = Callable[[Float32], Float32]  # LR [C,h,w] to SR [C,H,W], clipped to [0,1]

Key = tuple[str, str]  # name of the row, and how the image was denoised

SIGNIFICANCE = 0.05
LEAST_GAIN = 0.01  # dB; smallest gain that counts if only one image is held out


@dataclass
class HeldOutScores:
    """Collects the scores of the held-out images, one after the other."""

    scale: int
    channels: int  # 1 or 3
    degradation: Degradation | None  # of simulated LR images; None if they were measured
    names: list[str] = field(default_factory=list)
    scores: list[dict[Key, tuple[float, float]]] = field(default_factory=list)

    @property
    def channel(self) -> Literal["Y", "gray"]:
        return "Y" if self.channels == 3 else "gray"

    def add(self, window: TrainingWindow, baseline: Upscale, delta: Upscale) -> None:
        """Score all methods on one image."""
        self.names.append(window.name)
        lr = np.clip(channels_last(window.lr), 0, 1)  # measured images can be outside
        made: dict[Key, Float32] = {("bicubic", ""): bicubic(lr, self.scale, self.degradation)}
        for method, clean in self._denoised(lr).items():
            made["denoised bicubic", method] = bicubic(clean, self.scale)
            made["denoised baseline", method] = channels_last(baseline(channels_first(clean)))
        made["baseline", ""] = channels_last(baseline(window.lr))
        made["delta", ""] = channels_last(delta(window.lr))
        reference = np.clip(channels_last(window.hr), 0, 1)
        self.scores.append({key: self._compare(sr, reference) for key, sr in made.items()})

    def _denoised(self, lr: Float32) -> dict[str, Float32]:
        """By method; measured images keep their offset, which the HR image has too."""
        if self.degradation is not None or np.ptp(lr) == 0:
            return denoise(lr, self.degradation)
        found = estimate_degradation(lr).degradation()
        offset = np.float32(found.offset)
        denoised = denoise(lr, found).items()
        return {method: np.clip(clean + offset, 0, 1) for method, clean in denoised}

    def _compare(self, image: Float32, reference: Float32) -> tuple[float, float]:
        how = {"shave": self.scale, "channel": self.channel}
        decibels = min(psnr(image, reference, **how), MOST_PSNR)  # type: ignore[arg-type]
        return decibels, ssim(image, reference, **how)  # type: ignore[arg-type]

    def report(self) -> Report:
        """Means; of the denoising methods, the one that does best on these very images."""
        rows: dict[str, ReportRow] = {}
        for name, method in dict.fromkeys(key for scores in self.scores for key in scores):
            # an image without noise is not denoised
            plain = (name.removeprefix("denoised "), "")
            column = [scores.get((name, method), scores[plain]) for scores in self.scores]
            row = ReportRow(name, *(float(np.mean(kind)) for kind in zip(*column, strict=True)))
            if name not in rows or row.psnr > rows[name].psnr:
                rows[name] = row
        gains = tuple(s["delta", ""][0] - s["baseline", ""][0] for s in self.scores)
        return Report(tuple(rows.values()), self.channel, self.scale, tuple(self.names), gains)


def is_gain(gains: tuple[float, ...]) -> bool:
    """Whether other images can be expected to gain too.

    The mean must be above zero and not by chance: by Wilcoxon's signed-rank test at 5 % for five
    images or more, by twice the standard error for fewer, by `LEAST_GAIN` for a single one.
    """
    mean = float(np.mean(gains))
    if not (math.isfinite(mean) and mean > 0):
        return False
    if len(gains) == 1:
        return mean >= LEAST_GAIN
    if len(gains) < 5:
        return mean > 2 * float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    return float(wilcoxon(gains, alternative="greater").pvalue) < SIGNIFICANCE


def verdict(report: Report, improved: bool) -> str:
    """One sentence: whether the refiner is worth using."""
    gain, count = report.gain, len(report.gains)
    where = f"on {count} held-out image{'s' * (count > 1)}"
    if not improved:
        return (
            f"No reliable gain over the frozen backbone {where} ({gain:+.3f} dB): use the backbone "
            "as it is."
        )
    best = report.best_conventional
    lead = report.psnr("delta") - best.psnr
    over = f"{gain:+.2f} dB over the frozen backbone"
    if best.name == "baseline":
        return f"Worth using: {over} {where}."
    if lead > 0:
        return (
            f"Worth using: {over} and {lead:+.2f} dB over the best conventional method "
            f"({best.name}) {where}."
        )
    return (
        f"Not worth using: {over} {where}, but {best.name}, a conventional method, is "
        f"{-lead:.2f} dB better still."
    )
