"""Progress and results of a training, as plain values. Needs no torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.weights import RefinerCard, save_refiner
from napari_cfsr.errors import NoGainError

Float32 = NDArray[np.float32]
Stage = Literal["preparing", "training", "measuring"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The refiner at the best step so far."""

    state: dict[str, Float32]  # weights by name
    card: RefinerCard  # its gain is None: it has not been measured on held-out images yet
    step: int
    gain: float  # dB over the backbone on the validation images

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it atomically; raises `WeightsError` if that fails."""
        return save_refiner(Path(path), self.state, self.card)


@dataclass(frozen=True, eq=False)
class Preview:
    """A validation image: [Y,X] or [Y,X,3] in [0,1]."""

    name: str
    lr: Float32  # [h,w] or [h,w,3]
    # `scale` times as large
    baseline: Float32
    delta: Float32
    reference: Float32  # where there is none, the noisy image with its pixels repeated
    has_reference: bool = True


@dataclass(frozen=True, eq=False)
class TrainProgress:
    """Progress of a training; yielded after every step.

    Attributes
    ----------
    stage : {"preparing", "training", "measuring"}
    text : str
        What is being done, for a person.
    fraction : float
        Share of the estimated total time that has passed.
    seconds_left : float or None
        Estimated; None if unknown.
    placement : {"output", "input"} or None
        What is being trained.
    step : int
        Steps of this placement so far, warm steps included.
    loss : float or None
        Of this step.
    gain : float or None
        dB over the backbone on the validation images; for noisy images, by how much their noise is
        reduced. None between validations.
    best : Checkpoint or None
        None if there is no new one.
    preview : Preview or None
        None if there is no new one.
    """

    stage: Stage
    text: str
    fraction: float
    seconds_left: float | None = None
    placement: Literal["output", "input"] | None = None
    step: int = 0
    loss: float | None = None
    gain: float | None = None
    best: Checkpoint | None = None
    preview: Preview | None = None


@dataclass(frozen=True)
class ReportRow:
    """Means over the held-out images: PSNR in dB, SSIM; None where it can't be known."""

    name: str
    psnr: float
    ssim: float | None


@dataclass(frozen=True)
class Report:
    """Scores on held-out images, used neither for training nor for validation.

    Attributes
    ----------
    rows : tuple of ReportRow
        `bicubic`, `denoised bicubic`, `denoised baseline`, `baseline`, `delta`.
    channel : {"Y", "gray"}
        Y of BT.601 for colour.
    shave : int
        Border pixels left out.
    images : tuple of str
        Names of the held-out images.
    gains : tuple of float
        dB over the baseline, for each image.
    estimated : bool
        From photons kept back in noisy images, on the LR grid, instead of references.
    """

    rows: tuple[ReportRow, ...]
    channel: Literal["Y", "gray"]
    shave: int
    images: tuple[str, ...]
    gains: tuple[float, ...]
    estimated: bool = False

    def psnr(self, name: str) -> float:
        """PSNR of the row of that name; NaN if there is none."""
        return next((row.psnr for row in self.rows if row.name == name), math.nan)

    @property
    def gain(self) -> float:
        """dB over the frozen backbone."""
        return float(np.mean(self.gains)) if self.gains else math.nan

    @property
    def best_conventional(self) -> ReportRow:
        """The best row without a refiner: conventional methods and the frozen backbone."""
        return max((row for row in self.rows if row.name != "delta"), key=lambda row: row.psnr)

    def table(self) -> str:
        """The rows as a text table."""
        lines = [f"{'':18}{'PSNR (dB)':>10}" + ("" if self.estimated else f"{'SSIM':>9}")]
        for row in self.rows:
            ssim = "" if row.ssim is None else f"{row.ssim:9.4f}"
            lines.append(f"{row.name:18}{row.psnr:10.2f}{ssim}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the card and for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TrainedRefiner:
    """A trained refiner with its held-out report.

    Attributes
    ----------
    state : dict of str to array of float32
        Weights by name; those of the identity if nothing was gained.
    card : RefinerCard
    report : Report
    improved : bool
        Whether it beats the frozen backbone on the held-out images. If not, `save` refuses.
    verdict : str
        One sentence: whether the refiner is worth using.
    notes : tuple of str
        What the user should know: images left out, shifts found, how the placement was chosen.
    history : tuple of dict
        `placement`, `step`, `loss`, `gain` at each validation.
    seconds : float
        Total time.
    """

    state: dict[str, Float32]
    card: RefinerCard
    report: Report
    improved: bool
    verdict: str
    notes: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = field(default=())
    seconds: float = 0.0

    @property
    def gain(self) -> float:
        """dB over the frozen backbone on the held-out images; 0 if nothing was gained."""
        return self.report.gain if self.improved else 0.0

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the refiner with its card, atomically.

        Raises
        ------
        NoGainError
            It does not beat the backbone on held-out images.
        WeightsError
            It can't be written.
        """
        if not self.improved:
            raise NoGainError(f"nothing was saved: {self.verdict}")
        return save_refiner(Path(path), self.state, self.card)

    def to_json(self) -> str:
        """Everything but the weights."""
        return json.dumps(
            {
                "improved": self.improved,
                "gain": self.gain,
                "verdict": self.verdict,
                "placement": self.card.placement,
                "report": self.report.to_dict(),
                "notes": self.notes,
                "history": self.history,
                "seconds": round(self.seconds, 2),
                "card": vars(self.card),
            }
        )
