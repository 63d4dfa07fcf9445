"""A TensorBoard log of a training."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from napari_cfsr.core.training.results import Preview, TrainedRefiner, TrainProgress
from napari_cfsr.errors import FileFormatError, OptionError

MISSING = (
    "expected the package tensorboard for a TensorBoard log, which is not installed: "
    "'pip install tensorboard', or leave the log out"
)


class TrainingLog:
    """Writes the progress of a training for `tensorboard --logdir`.

    Losses and gains of each placement, previews as images, and at the end the held-out report and
    the card. After a failed write nothing more is written, and `fault` says why: a log that
    fails must not end the training.

    Parameters
    ----------
    folder : path
        Created if needed; an existing log is kept.

    Raises
    ------
    OptionError
        `tensorboard` is not installed.
    FileFormatError
        The folder can't be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.fault = ""
        self._folder = os.fspath(folder)
        try:
            writer_class = import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError as error:
            raise OptionError(MISSING) from error
        try:
            self._writer: Any = writer_class(self._folder)
        except OSError as error:
            raise FileFormatError(self._text(error)) from error

    def add(self, progress: TrainProgress) -> None:
        """Log a step."""
        if progress.placement is None:
            return
        values = {f"{n}/{progress.placement}": getattr(progress, n) for n in ("loss", "gain")}
        self.add_scalars(values, progress.step)
        if progress.preview is not None and not self.fault:
            with self._noting_faults():
                self._add_preview(progress.preview, progress.step)

    def add_scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Log the values that are not None."""
        if self.fault:
            return
        with self._noting_faults():
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)

    def finish(self, trained: TrainedRefiner) -> None:
        """Log the report on held-out images and the card."""
        if self.fault:
            return
        with self._noting_faults():
            for row in trained.report.rows:
                self._writer.add_scalar(f"held-out PSNR/{row.name}", row.psnr, 0)
                if row.ssim is not None:
                    self._writer.add_scalar(f"held-out SSIM/{row.name}", row.ssim, 0)
            card = json.dumps(vars(trained.card), indent=2, default=str)
            for name, text in {"report": trained.report.table(), "card": card}.items():
                self._writer.add_text(name, f"```\n{text}\n```")
            self._writer.add_text("verdict", trained.verdict)

    def close(self) -> None:
        """Write what is still buffered."""
        with self._noting_faults():
            self._writer.close()

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.fault = self._text(error)

    def _add_preview(self, preview: Preview, step: int) -> None:
        for name in ("lr", "baseline", "delta", "reference"):
            image = getattr(preview, name).clip(0, 1)
            axes = "HW" if image.ndim == 2 else "HWC"
            self._writer.add_image(f"{preview.name}/{name}", image, step, dataformats=axes)

    def _text(self, error: OSError) -> str:
        return f"{self._folder}: the TensorBoard log can't be written ({error.strerror or error})"
