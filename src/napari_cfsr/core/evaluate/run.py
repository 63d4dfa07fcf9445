"""Evaluation on data sets: PSNR and SSIM of bicubic, baseline and delta.

`iter_evaluate` runs the model exactly as `upscale` does. While it runs on one image, the
previous one is measured and the next one is read, in two threads that take little time beside it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, Model, check_back_projection
from napari_cfsr.core.evaluate.data_sets import BenchmarkImage, Sample, find_dataset
from napari_cfsr.core.evaluate.report import BenchmarkReport, Fault, ImageScores
from napari_cfsr.core.evaluate.scores import score_images
from napari_cfsr.core.image import imresize
from napari_cfsr.core.metrics import CHANNELS, Channel
from napari_cfsr.core.upscale import PACKAGES, UpscaleOptions, exhaust, iter_upscale, versions
from napari_cfsr.core.weights import SCALES
from napari_cfsr.errors import CancelledError, FileFormatError, ImageError, OptionError

Float32 = NDArray[np.float32]

MODELS = ("bicubic", "baseline", "delta")
NICENESS = 10  # of the threads beside the model: 0 is normal, 19 the lowest priority
FAULTS = (ImageError, FileFormatError, MemoryError)  # of one image; others are not affected


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate.

    Attributes
    ----------
    data : Path
        Folder of data sets; see `napari_cfsr.core.evaluate.data_sets.find_dataset`.
    datasets : tuple of str
        Their names. Empty: `data` is the data set itself.
    scale : {2, 3, 4}
    models : tuple of {"bicubic", "baseline", "delta"}, optional
        By default all that are available.
    ensemble, back_projection : bool
        As for `upscale`.
    channel : {"Y", "RGB", "gray"}
        What to compare; see `psnr`.
    shave : int, optional
        Border pixels left out; by default the scale.
    limit : int, optional
        Images of each data set, at most.

    Raises
    ------
    OptionError
        An option has no such value, or options contradict each other.
    """

    data: Path
    datasets: tuple[str, ...] = ()
    scale: int = 4
    models: tuple[str, ...] | None = None
    ensemble: bool = False
    back_projection: bool = False
    channel: Channel = "Y"
    shave: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise OptionError(f"expected scale 2, 3 or 4, got {self.scale}")
        for name in self.models or ():
            if name not in MODELS:
                raise OptionError(f"expected models among {', '.join(MODELS)}, got {name!r}")
        if self.models is not None and not self.models:
            raise OptionError(f"expected at least one model of {', '.join(MODELS)}, got none")
        if self.channel not in CHANNELS:
            raise OptionError(f'expected channel "Y", "RGB" or "gray", got {self.channel!r}')
        if self.shave is not None and self.shave < 0:
            raise OptionError(f"expected shave >= 0, got {self.shave}")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"expected limit >= 1, got {self.limit}")
        check_back_projection(self.back_projection, self.scale)

    @property
    def border(self) -> int:
        """Border pixels left out."""
        return self.scale if self.shave is None else self.shave

    @property
    def needs_model(self) -> bool:
        """Whether anything but bicubic is requested."""
        return self.models is None or set(self.models) != {"bicubic"}

    def chosen(self, model: Model | None) -> tuple[str, ...]:
        """The models to measure, in a fixed order; raises `OptionError` if one is missing."""
        available = ("bicubic", *(model.info.outputs if model else ()))
        wanted = available if self.models is None else self.models
        for name in wanted:
            if name not in available:
                loaded = model.info.backbone if model else "nothing"
                raise OptionError(
                    f"expected models among {', '.join(available)}, got {name!r}: {loaded} is "
                    "loaded without a refiner"
                )
        return tuple(name for name in MODELS if name in wanted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "data": str(self.data)}


@dataclass(frozen=True)
class EvaluateProgress:
    """Progress of an evaluation; yielded for each image."""

    done: int  # images
    total: int
    image: ImageScores | None = None  # the image that was just measured
    fault: Fault | None = None  # the image that could not be measured


def evaluate(
    options: EvaluateOptions,
    model: Model | None,
    progress: Callable[[EvaluateProgress], None] | None = None,
) -> BenchmarkReport:
    """Evaluate all images; see `iter_evaluate`."""
    return exhaust(iter_evaluate(options, model), progress)


def iter_evaluate(
    options: EvaluateOptions, model: Model | None, check: Check = lambda: None
) -> Generator[EvaluateProgress, None, BenchmarkReport]:
    """Evaluate image by image: yields progress for each, returns the report.

    The model is None if only bicubic is requested. `check` is called several times a second; an
    exception from it ends the evaluation.

    Raises
    ------
    OptionError
        A requested model is missing or has another scale. Missing and unusable files are faults
        in the report instead.
    """
    if model is not None and model.info.scale != options.scale:
        raise OptionError(f"expected a model for x{options.scale}, got one for x{model.info.scale}")
    evaluation = _Evaluation(options, model, options.chosen(model), check)
    yield from evaluation.run()
    return evaluation.report()


def _give_way() -> None:
    """Lower the priority of this thread, so that the model does not wait for it."""
    if sys.platform == "linux":  # elsewhere, this call does not take threads
        with contextlib.suppress(PermissionError):  # in a sandbox, where it only takes longer
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@dataclass
class _Evaluation:
    options: EvaluateOptions
    model: Model | None
    models: tuple[str, ...]
    check: Check
    images: list[BenchmarkImage] = field(default_factory=list)
    scores: list[ImageScores] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    model_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.stopped = threading.Event()
        self.total = 0

    def run(self) -> Iterator[EvaluateProgress]:
        """All images; unusable files are reported and left out."""
        for name in dict.fromkeys(self.options.datasets or ("",)):
            self._find(name)
        self.total = len(self.images) + len(self.faults)
        yield EvaluateProgress(0, self.total)
        for number, fault in enumerate(self.faults, 1):
            yield EvaluateProgress(number, self.total, fault=fault)
        with ThreadPoolExecutor(2, "evaluate", _give_way) as pool:
            try:
                yield from self._pipeline(pool)
            finally:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)

    def _find(self, name: str) -> None:
        """Find the images of a data set."""
        try:
            found = find_dataset(self.options.data, name, self.options.scale)
        except FileFormatError as error:
            self.faults.append(Fault(name, "", str(error)))
            return
        self.images += found.images[: self.options.limit]
        if self.options.limit is None:
            for path in found.orphans:
                text = f"{path}: expected an HR image for it in {found.folder / 'HR'}, got none"
                self.faults.append(Fault(found.name, path.name, text))

    def _pipeline(self, pool: ThreadPoolExecutor) -> Iterator[EvaluateProgress]:
        """Read the next image and measure the previous one while the model runs."""
        waiting: tuple[BenchmarkImage, Future[ImageScores]] | None = None
        for image, reading in self._ahead(pool):
            self.check()
            try:
                sample = reading.result()
                arrays = self._upscale(sample.lr)
            except FAULTS as error:
                yield self._failed(image, error)
                continue
            if waiting is not None:
                yield self._measured(*waiting)
            waiting = image, pool.submit(self._measure, image, sample, arrays)
        if waiting is not None:
            yield self._measured(*waiting)

    def _ahead(self, pool: ThreadPoolExecutor) -> Iterator[tuple[BenchmarkImage, Future[Sample]]]:
        """Each image, while the next one is being read."""
        ahead: tuple[BenchmarkImage, Future[Sample]] | None = None
        for image in self.images:
            reading = pool.submit(image.read, self.options.scale, self.options.channel)
            if ahead is not None:
                yield ahead
            ahead = image, reading
        if ahead is not None:
            yield ahead

    def _upscale(self, lr: Float32) -> dict[str, Float32]:
        """Baseline and delta, from one run."""
        outputs = tuple(name for name in self.models if name != "bicubic")
        if self.model is None or not outputs:
            return {}
        options, began = self.options, time.perf_counter()
        steps = iter_upscale(
            lr,
            self.model,
            UpscaleOptions(
                axes="YXS" if lr.ndim == 3 else "YX",
                outputs=outputs,
                ensemble=options.ensemble,
                back_projection=options.back_projection,
                intensity="dtype",
            ),
            self.check,
        )
        arrays: dict[str, Float32] = exhaust(steps).arrays()
        self.model_seconds += time.perf_counter() - began
        return arrays

    def _measure(
        self, image: BenchmarkImage, sample: Sample, arrays: dict[str, Float32]
    ) -> ImageScores:
        if "bicubic" in self.models:
            arrays["bicubic"] = imresize(sample.lr, self.options.scale).clip(0, 1)
        how = self.options.channel, self.options.border, self._check_stopped
        scores = score_images({name: arrays[name] for name in self.models}, sample.hr, *how)
        made = image.lr is None
        return ImageScores(
            image.dataset, image.name, sample.hr.shape, scores, made, sample.cropped, sample.notes
        )

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise CancelledError("the evaluation was stopped")

    def _measured(self, image: BenchmarkImage, measuring: Future[ImageScores]) -> EvaluateProgress:
        """Wait for the scores of an image."""
        try:
            found = measuring.result()
        except FAULTS as error:
            return self._failed(image, error)
        self.scores.append(found)
        return EvaluateProgress(self._done, self.total, found)

    def _failed(self, image: BenchmarkImage, error: Exception) -> EvaluateProgress:
        text = str(error)
        named = str(image.hr) in text or (image.lr is not None and str(image.lr) in text)
        fault = Fault(image.dataset, image.name, text if named else f"{image.hr}: {text}")
        self.faults.append(fault)
        return EvaluateProgress(self._done, self.total, fault=fault)

    @property
    def _done(self) -> int:
        return len(self.scores) + len(self.faults)

    def report(self) -> BenchmarkReport:
        return BenchmarkReport(
            scale=self.options.scale,
            models=self.models,
            channel=self.options.channel,
            shave=self.options.border,
            images=tuple(self.scores),
            faults=tuple(self.faults),
            info=self.model.info if self.model and self.models != ("bicubic",) else None,
            options=self.options.to_dict(),
            seconds=time.perf_counter() - self.started,
            model_seconds=self.model_seconds,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions((*PACKAGES, "scikit-image")),
        )
