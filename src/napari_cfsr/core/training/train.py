"""Training a refiner: read images, train, keep the best step, measure on held-out images.

The command line, the Python API and the widget all run `iter_train`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check, SRModel, choose_device, domain_errors, load_model
from napari_cfsr.core.network import RefineNet, on_each_block
from napari_cfsr.core.training.clock import WARM_VALIDATIONS, Clock, Work, expected_work
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import array_data
from napari_cfsr.core.training.noisy_train import iter_train_noisy
from napari_cfsr.core.training.report import HeldOutScores, is_gain, verdict
from napari_cfsr.core.training.results import (
    Checkpoint,
    Preview,
    Report,
    TrainedRefiner,
    TrainProgress,
)
from napari_cfsr.core.training.trainer import TRAINERS, Phase, RefinerTrainer, TrainingContext
from napari_cfsr.core.training.windows import TrainingImages, channels_last, iter_prepare
from napari_cfsr.core.upscale import WithResult, exhaust
from napari_cfsr.core.weights import (
    RefinerCard,
    check_target,
    find_backbone,
    load_backbone,
    save_named,
)
from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.engine import Precision

Float32 = NDArray[np.float32]
Array = NDArray[Any]
Placement = Literal["output", "input"]
Steps = Generator[TrainProgress, None, None]

GUESS = 60.0  # seconds of everything after reading, until the images are known
TEXT = {"warm": "Learning the degradation", "main": "Training", "trial": "Trying the placement"}


def train_refiner(
    hr_images: Sequence[Array] = (),
    model: SRModel | None = None,
    config: TrainConfig | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    *,
    pairs: Sequence[tuple[Array, Array]] | None = None,
    noisy: Sequence[Array] | None = None,
) -> TrainedRefiner:
    """Train a refiner for a backbone on your own images.

    Parameters
    ----------
    hr_images : list of array [Y,X] or [Y,X,C]
        HR images, float in [0,1] or any dtype that `upscale` takes; ignored if `pairs` or `noisy`
        images are given.
    model : SRModel
        From `load_model`; its backbone is not changed.
    config : TrainConfig, optional
        Degradation and recipe.
    progress : callable, optional
        Called with a `TrainProgress` after each step; may raise to stop.
    pairs : list of (LR, HR), optional
        Measured pairs.
    noisy : list of array, optional
        Noisy images as the camera gave them, where there are no clean ones; one is enough.

    Returns
    -------
    TrainedRefiner
        `gain` is measured on held-out images, used neither for training nor for validation; of
        noisy images alone, on photons kept back.

    Raises
    ------
    ImageError
        Too few or too small images, pairs that do not fit, all-black images, NaN.
    OptionError
        An option of the configuration does not exist or is out of range.
    """
    if model is None:
        raise OptionError("expected a model from load_model, got None")
    config = config or TrainConfig()
    if noisy is None:
        data = array_data(hr_images, pairs, config.intensity)
    else:
        data = array_data(noisy, None, config.intensity, noisy=True)
    load = {"backbone": model.info.backbone_path, "device": model.info.device}
    steps = iter_train(TrainRequest(data, {"scale": model.scale, **load}, config))
    return exhaust(steps, progress)


def adapt(
    images: Sequence[Array],
    model: SRModel,
    name: str,
    config: TrainConfig | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
) -> SRModel:
    """Adapt a model to noisy images that are to be upscaled, in a minute or two.

    Parameters
    ----------
    images : list of array [Y,X] or [Y,X,C]
        As the camera gave them; one is enough.
    model : SRModel
        From `load_model`; not changed.
    name : str
        Under which the refiner is kept among the user's, for later use.
    config : TrainConfig, optional
        Intensity, size of the network, noise of the camera.
    progress : callable, optional
        Called with a `TrainProgress` after each step; may raise to stop.

    Returns
    -------
    SRModel
        The same backbone with a refiner for these images, run in the same way.

    Raises
    ------
    NoGainError
        No gain over the frozen backbone can be seen: use the model as it is.
    ImageError, OptionError, WeightsError
        As `train_refiner`; the name can't be used or is taken; the refiner can't be saved.
    """
    check_target(name)
    trained = train_refiner((), model, config, progress, noisy=images)
    path, info = save_named(trained, name), model.info
    precision = cast("Precision", info.precision)
    return load_model(
        model.scale, info.backbone_path, path, info.device, precision, engine=info.engine
    )


def iter_train(
    request: TrainRequest, check: Check = lambda: None, stop: Callable[[], bool] = lambda: False
) -> Generator[TrainProgress, None, TrainedRefiner]:
    """Train step by step: yields progress after each step, returns the refiner.

    Parameters
    ----------
    request : TrainRequest
    check : callable
        Called several times a second, also within a pass of the backbone; may raise to stop.
    stop : callable
        Once it returns true, training ends, and the best refiner so far is measured and returned.
    """
    device = choose_device(request.load.get("device", "auto"))
    with domain_errors(device):
        if request.data.noisy:
            return (yield from iter_train_noisy(request, device, check, stop))
        return (yield from _Training(request, device, check, stop).run())


@dataclass
class _Best:
    """The best step of one placement so far; initially the identity, which gains nothing."""

    gain: float = 0.0
    step: int = 0
    state: dict[str, Float32] | None = None


class _Training:
    """One run of `iter_train`."""

    def __init__(
        self, request: TrainRequest, device: str, check: Check, stop: Callable[[], bool]
    ) -> None:
        self.config, self.request = request.config, request
        self.check, self.stop, self.device = check, stop, device
        self.started = time.perf_counter()
        load = request.load
        self.file, notes = find_backbone(
            load["scale"], load.get("backbone", "auto"), load.get("download", True),
            folder=load.get("weights_folder"),
        )  # fmt: skip
        self.notes = list(notes)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, _Best] = {}
        self.clock = Clock({"read": Work(len(request.data.hr), 0.05), "rest": Work(1, GUESS)})

    def run(self) -> Generator[TrainProgress, None, TrainedRefiner]:
        images = yield from self._read()
        self.context = self._context(images)
        self.clock.drop("rest")
        self.clock.work.update(expected_work(self.config, images, self.context.scale))
        yield from self._baselines()
        placement = yield from self._train()
        report = yield from self._measure(images, placement)
        return self._trained(placement, report)

    # stages

    def _read(self) -> Generator[TrainProgress, None, TrainingImages]:
        steps = WithResult(iter_prepare(self.request))
        for done, count, name in steps:
            self.check()
            self.clock.work["read"].items = count
            if done:
                self.clock.tick("read")
            yield self._progress("preparing", f"Reading {name}")
            self.clock.start()
        self.clock.tick("read")
        self.notes += steps.result.notes
        return steps.result

    def _context(self, images: TrainingImages) -> TrainingContext:
        backbone = load_backbone(self.file, self.request.load["scale"]).to(self.device)
        backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        on_each_block(backbone, self.check)
        return TrainingContext(backbone, images)

    def _baselines(self) -> Steps:
        """Upscale the validation images with the backbone, once for all placements."""
        self.clock.start()
        for image in self.context.upscale_validation():
            self.clock.tick("baseline")
            yield self._progress("preparing", f"Upscaling {image.window.name}")
            self.clock.start()

    def _train(self) -> Generator[TrainProgress, None, Placement]:
        """Train; with several placements, a trial of each decides which one is continued."""
        tried: list[RefinerTrainer] = []
        for placement in self.config.placements:
            if tried and self.stop():
                break
            trainer = self._trainer(placement)
            tried.append(trainer)
            yield from self._prepared(trainer)
            if trainer.recipe.warm_steps:
                yield from self._phase(trainer, "warm")
            elif len(self.config.placements) > 1:
                yield from self._phase(trainer, "trial")
        chosen = max(tried, key=lambda r: (self.best[r.placement].gain, r.placement == "output"))
        self._note_choice(tried, chosen)
        yield from self._phase(chosen, "main")
        return chosen.placement

    def _note_choice(self, tried: list[RefinerTrainer], chosen: RefinerTrainer) -> None:
        """Note how the placement was chosen; the others are not continued."""
        if len(tried) == 1:
            return
        gains = [f"{r.placement} {self.best[r.placement].gain:+.3f} dB" for r in tried]
        self.notes.append(
            f"placement {chosen.placement}, chosen by trials on the validation images: "
            f"{', '.join(gains)}"
        )
        for other in tried:
            if other is not chosen:
                self.clock.drop(f"main {other.placement}")
                self.clock.drop(f"validate {other.placement}")

    def _trainer(self, placement: Placement) -> RefinerTrainer:
        recipe = self.config.recipe(placement)
        if self.request.data.lr is None and self.config.degradation.is_clean:
            # the backbone was trained on such LR images
            recipe = replace(recipe, warm_steps=0)
            self.clock.drop(f"warm {placement}")
        self.best[placement] = _Best()
        return TRAINERS[placement](self.context, recipe, self.config.run_seed)

    def _prepared(self, trainer: RefinerTrainer) -> Steps:
        self.clock.start()
        for _ in trainer.prepare():
            self.check()
            self.clock.tick(f"prepare {trainer.placement}")
            yield self._progress("preparing", "Upscaling images to train on")
            if self.stop():
                return
            self.clock.start()
        self.clock.drop(f"prepare {trainer.placement}")

    def _phase(self, trainer: RefinerTrainer, phase: Phase) -> Steps:
        """Steps and validations of one phase, until its end, `stop`, or the end of patience."""
        placement = trainer.placement
        if self.stop():
            return
        recipe, best = trainer.recipe, self.best[placement]
        warm_every = max(1, recipe.warm_steps // WARM_VALIDATIONS)
        every = warm_every if phase == "warm" else recipe.every
        idle, since, last = 0, 0, trainer.count(phase)
        if phase == "main" and best.state is not None:
            trainer.load(best.state)
        self.clock.start()
        with closing(trainer.steps(phase)) as steps:
            for step, loss in enumerate(steps, 1):
                self.check()
                self.clock.tick(f"{phase} {placement}")
                since += 1
                stopping = self.stop()
                if stopping and self._has_best:  # stop at once, without another validation
                    break
                if since < every and step < last and not stopping:
                    yield self._step(trainer, phase, loss)
                    self.clock.start()
                    continue
                since = 0
                before = best.step
                yield self._validate(trainer, phase, loss)
                idle = 0 if best.step > before else idle + 1
                self.clock.start()
                if self.stop() or idle >= recipe.patience:
                    break
        self.clock.drop(f"{phase} {placement}")
        if phase == "main":
            self.clock.drop(f"validate {placement}")

    @property
    def _has_best(self) -> bool:
        """Whether anything better than the backbone has been found."""
        return any(best.state is not None for best in self.best.values())

    def _step(self, trainer: RefinerTrainer, phase: Phase, loss: float) -> TrainProgress:
        progress = self._progress("training", TEXT[phase])
        return replace(progress, placement=trainer.placement, step=trainer.taken, loss=loss)

    def _validate(self, trainer: RefinerTrainer, phase: Phase, loss: float) -> TrainProgress:
        """Measure the gain on the validation images; keep the refiner if it is the best."""
        gain = trainer.gain()
        self.clock.tick(f"validate {trainer.placement}")
        best, new = self.best[trainer.placement], None
        if np.isfinite(gain) and gain > best.gain:
            best.gain, best.step, best.state = gain, trainer.taken, trainer.state()
            others = (b.gain for p, b in self.best.items() if p != trainer.placement)
            if gain > max(others, default=0.0):
                card = self._card(trainer.placement, best)
                new = Checkpoint(best.state, card, best.step, gain)
        point = {"placement": trainer.placement, "step": trainer.taken}
        self.history.append({**point, "loss": _known(loss, 8), "gain": _known(gain, 5)})
        progress = self._step(trainer, phase, loss)
        return replace(progress, gain=gain, best=new, preview=self._preview(trainer))

    def _preview(self, trainer: RefinerTrainer) -> Preview:
        image = self.context.validation[0]
        lr, baseline, delta, hr = map(
            _displayed,
            (
                image.window.lr,
                self.context.array(image.baseline),
                self.context.array(trainer.predict(image.window.lr, image.baseline)),
                image.window.hr,
            ),
        )
        return Preview(image.window.name, lr, baseline, delta, hr)

    # the result

    def _measure(
        self, images: TrainingImages, placement: Placement
    ) -> Generator[TrainProgress, None, Report]:
        trainer = TRAINERS[placement](self.context, self.config.recipe(placement), 0)
        trainer.load(self._state(placement))
        context = self.context
        scores = HeldOutScores(context.scale, images.channels, images.degradation)
        self.clock.drop_all_but("measure")
        self.clock.start()
        for window in images.held_out:
            self.check()
            yield self._progress("measuring", f"Measuring {window.name}")
            self.clock.start()
            scores.add(
                window,
                baseline=lambda lr: context.array(context.baseline(lr)),
                delta=lambda lr: context.array(trainer.predict(lr)),
            )
            self.clock.tick("measure")
        return scores.report()

    def _state(self, placement: Placement) -> dict[str, Float32]:
        """The best refiner; if nothing was gained, the identity."""
        state = self.best[placement].state
        return state if state is not None else identity()

    def _trained(self, placement: Placement, report: Report) -> TrainedRefiner:
        best = self.best[placement]
        improved = best.state is not None and is_gain(report.gains)
        card = self._card(placement, best)
        if improved:
            extra = {**card.extra, "report": report.to_dict()}
            card = replace(card, gain=round(report.gain, 4), extra=extra)
        return TrainedRefiner(
            state=self._state(placement) if improved else identity(),
            card=card,
            report=report,
            improved=improved,
            verdict=verdict(report, improved),
            notes=tuple(self.notes),
            history=tuple(self.history),
            seconds=time.perf_counter() - self.started,
        )

    def _card(self, placement: Placement, best: _Best) -> RefinerCard:
        from napari_cfsr._version import __version__

        data, images = self.request.data, self.context.images
        simulated = images.degradation is not None
        how = self.config.degradation.describe() if simulated else "measured pairs"
        return RefinerCard(
            scale=self.context.scale,
            placement=placement,
            backbone_sha256=self.file.sha256,
            description=f"{data.origin}: {how}",
            extra={
                "backbone": self.file.name,
                "data": data.origin,
                "images": {role: len(getattr(images, role)) for role in ("train", "validation")},
                "held_out": [window.name for window in images.held_out],
                "degradation": vars(self.config.degradation) if simulated else None,
                "config": self.config.to_dict(),
                "seed": self.config.run_seed,
                "step": best.step,
                "validation_gain": round(best.gain, 5),
                "date": datetime.date.today().isoformat(),
                "version": __version__,
            },
        )

    def _progress(self, stage: Any, text: str) -> TrainProgress:
        return TrainProgress(stage, text, self.clock.fraction, self.clock.seconds_left)


def identity() -> dict[str, Float32]:
    """Weights of a refiner that changes nothing."""
    state = RefineNet(torch.Generator().manual_seed(0)).state_dict()
    arrays = {k: np.array(v.numpy(), np.float32) for k, v in state.items()}
    arrays["body.4.weight"][:] = 0
    arrays["body.4.bias"][:] = 0
    return arrays


def _known(value: float, digits: int) -> float | None:
    """Rounded; None for NaN and infinity, which JSON does not have."""
    return round(value, digits) if np.isfinite(value) else None


def _displayed(array: Float32) -> Float32:
    """[C,h,w] to [h,w] or [h,w,3], in [0,1]."""
    return np.ascontiguousarray(channels_last(array)).clip(0, 1)
