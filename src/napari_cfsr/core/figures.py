"""Comparison figures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.degradation import imresize
from napari_cfsr.core.metrics import psnr
from napari_cfsr.errors import FileFormatError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """What a comparison shows; images [Y,X,3] of uint8.

    Attributes
    ----------
    lr, hr : array
        LR image and its reference, `scale` times larger.
    baseline, delta : array or None
    scale : int
    """

    lr: Array
    hr: Array
    baseline: Array | None
    delta: Array | None
    scale: int

    def panels(self) -> dict[str, Array]:
        """Name and image of each panel; LR is enlarged without interpolation."""
        s = self.scale
        panels = {
            "LR": self.lr.repeat(s, axis=0).repeat(s, axis=1),
            "bicubic": imresize(self.lr, s),
            "baseline": self.baseline,
            "delta": self.delta,
            "HR": self.hr,
        }
        return {name: image for name, image in panels.items() if image is not None}

    def psnrs(self) -> dict[str, float]:
        """Y PSNR of each upscaled panel, dB."""
        hr = self.hr / 255.0
        return {
            name: psnr(image / 255.0, hr, shave=self.scale, channel="Y")
            for name, image in self.panels().items()
            if name not in ("LR", "HR")
        }


def save_figure(path: Path, comparison: SideBySide, crop: int = 96) -> list[str]:
    """Write a figure with whole images above and crops of `crop` pixels below.

    Parameters
    ----------
    path : Path
        PNG, PDF or SVG; replaced if it exists.
    comparison : SideBySide
    crop : int
        Side of the magnified crop, HR pixels.

    Returns
    -------
    list of str
        The PSNR of each panel, a line each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    panels, psnrs = comparison.panels(), comparison.psnrs()
    height, width = comparison.hr.shape[:2]
    top, left = _busiest(comparison.hr, min(crop, height, width))
    side = min(crop, height, width)
    figure = Figure(figsize=(3.2 * len(panels), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, len(panels), squeeze=False)
    for column, (name, image) in zip(rows.T, panels.items(), strict=True):
        title = f"{name}, {psnrs[name]:.2f} dB" if name in psnrs else name
        column[0].imshow(image, interpolation="nearest")
        column[0].set_title(title)
        column[0].add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="yellow"))
        column[1].imshow(image[top : top + side, left : left + side], interpolation="nearest")
        for axes in column:
            axes.set_axis_off()
    figure.suptitle(f"x{comparison.scale}; PSNR on Y, border of {comparison.scale} pixels left out")
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=150)
        partial.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that matplotlib doesn't know
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise FileFormatError(f"{path}: can't be written ({reason})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return [f"{name}: Y PSNR {value:.3f} dB" for name, value in psnrs.items()]


def _busiest(image: Array, side: int) -> tuple[int, int]:
    """Top left corner of the square with the most detail."""
    gray = image.astype(np.float64).mean(-1)
    detail = np.zeros_like(gray)
    detail[:-1] += np.abs(np.diff(gray, axis=0))
    detail[:, :-1] += np.abs(np.diff(gray, axis=1))
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    )
    top, left = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return int(top), int(left)
