"""How a refiner does on held-out images, beside the frozen backbone and classical rivals."""

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
from napari_cfsr.core.training.windows import MOST_PSNR, Window

Float32 = NDArray[np.float32]
Upscale = Callable[[Float32], Float32]  # LR [C,h,w] to SR [C,H,W], clipped to [0,1]

Key = tuple[str, str]  # name of the row, and how the image was restored

CHANCE = 0.05
WORTH = 0.01  # dB; the least gain that counts where one image alone is held out


@dataclass
class Measurement:
    """Adds up the figures of one held-out image after the other.

    Parameters
    ----------
    scale : int
    channels : {1, 3}
    degradation : Degradation or None
        How the LR images were made; None where they were measured.
    """

    scale: int
    channels: int
    degradation: Degradation | None
    names: list[str] = field(default_factory=list)
    figures: list[dict[Key, tuple[float, float]]] = field(default_factory=list)

    @property
    def channel(self) -> Literal["Y", "gray"]:
        return "Y" if self.channels == 3 else "gray"

    def add(self, window: Window, baseline: Upscale, delta: Upscale) -> None:
        """Measure all ways on one image."""
        self.names.append(window.name)
        lr = np.clip(_image(window.lr), 0, 1)  # measured ones can be beyond
        made: dict[Key, Float32] = {("bicubic", ""): bicubic(lr, self.scale, self.degradation)}
        for way, clean in self._denoised(lr).items():
            made["denoised bicubic", way] = bicubic(clean, self.scale)
            made["denoised baseline", way] = _image(baseline(_channels_first(clean)))
        made["baseline", ""] = _image(baseline(window.lr))
        made["delta", ""] = _image(delta(window.lr))
        reference = np.clip(_image(window.hr), 0, 1)
        self.figures.append({key: self._compare(sr, reference) for key, sr in made.items()})

    def _denoised(self, lr: Float32) -> dict[str, Float32]:
        """Each way to denoise; measured images keep their offset: the HR image has it too."""
        if self.degradation is not None or np.ptp(lr) == 0:
            return denoise(lr, self.degradation)
        found = estimate_degradation(lr).degradation()
        offset = np.float32(found.offset)
        return {way: np.clip(clean + offset, 0, 1) for way, clean in denoise(lr, found).items()}

    def _compare(self, image: Float32, reference: Float32) -> tuple[float, float]:
        how = {"shave": self.scale, "channel": self.channel}
        decibels = min(psnr(image, reference, **how), MOST_PSNR)  # type: ignore[arg-type]
        return decibels, ssim(image, reference, **how)  # type: ignore[arg-type]

    def report(self) -> Report:
        """Means; of the ways to denoise, the one that does best on these very images."""
        rows: dict[str, ReportRow] = {}
        for name, way in dict.fromkeys(key for figures in self.figures for key in figures):
            # an image without noise is not denoised
            plain = (name.removeprefix("denoised "), "")
            column = [figures.get((name, way), figures[plain]) for figures in self.figures]
            row = ReportRow(name, *(float(np.mean(kind)) for kind in zip(*column, strict=True)))
            if name not in rows or row.psnr > rows[name].psnr:
                rows[name] = row
        gains = (f["delta", ""][0] - f["baseline", ""][0] for f in self.figures)
        return Report(
            rows=tuple(rows.values()),
            channel=self.channel,
            shave=self.scale,
            images=tuple(self.names),
            gains=tuple(gains),
        )


def is_gain(gains: tuple[float, ...]) -> bool:
    """Whether images that were not measured can be expected to gain too.

    The mean is above zero, and that is not chance: by Wilcoxon's signed-rank test at 5 % from five
    images on, by twice the standard error for fewer, by `WORTH` for a single one.
    """
    mean = float(np.mean(gains))
    if not (math.isfinite(mean) and mean > 0):
        return False
    if len(gains) == 1:
        return mean >= WORTH
    if len(gains) < 5:
        return mean > 2 * float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    return float(wilcoxon(gains, alternative="greater").pvalue) < CHANCE


def verdict(report: Report, improved: bool) -> str:
    """One sentence: whether the refiner is worth using."""
    gain, count = report.gain, len(report.gains)
    where = f"on {count} held-out image{'s' * (count > 1)}"
    if not improved:
        return (
            f"No reliable gain over the frozen backbone {where} ({gain:+.3f} dB): use the backbone "
            "as it is."
        )
    rival = report.best_rival
    lead = report.psnr("delta") - rival.psnr
    over = f"{gain:+.2f} dB over the frozen backbone"
    if rival.name == "baseline":
        return f"Worth using: {over} {where}."
    if lead > 0:
        return (
            f"Worth using: {over} and {lead:+.2f} dB over the best classical rival ({rival.name}) "
            f"{where}."
        )
    return (
        f"Not worth using: {over} {where}, but the classical rival {rival.name} is {-lead:.2f} dB "
        "better still."
    )


def _image(array: Float32) -> Float32:
    """[C,h,w] to [h,w] or [h,w,3]."""
    return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)


def _channels_first(image: Float32) -> Float32:
    return image[None] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))
