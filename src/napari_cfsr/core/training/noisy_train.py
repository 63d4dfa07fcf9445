"""Training on noisy images alone, from reading them to a verdict that needs no clean reference.

Part of the photons is kept back (`noisy_report`). On the others the refiner is trained, and with
those kept back it is decided whether that helped: of the refiner it started from, the one trained
on split photons and the one trained on its own results after that, the best is kept, and compared
with the frozen backbone and conventional methods. Then its training continues with all photons.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cfsr.core.engine import Check
from napari_cfsr.core.image import NoiseModel, estimate_noise
from napari_cfsr.core.network import CFSR, on_each_block
from napari_cfsr.core.training.clock import Clock, Work
from napari_cfsr.core.training.config import NOISY_RECIPES, TrainRequest
from napari_cfsr.core.training.data import Source
from napari_cfsr.core.training.noisy_report import (
    SURE,
    CountScores,
    NoisyReport,
    SplitImage,
    doubt_of,
    noisy_verdict,
)
from napari_cfsr.core.training.noisy_trainer import CountsTrainer, Denoiser, NoisyImage, Stage
from napari_cfsr.core.training.results import (
    Checkpoint,
    Preview,
    Report,
    TrainedRefiner,
    TrainProgress,
)
from napari_cfsr.core.training.windows import channels_first, channels_last, checked_image
from napari_cfsr.core.weights import (
    RefinerCard,
    find_backbone,
    find_refiner_file,
    load_backbone,
    open_refiner,
)
from napari_cfsr.errors import ImageError, OptionError

Float32 = NDArray[np.float32]
Steps = Generator[TrainProgress, None, None]

NETWORKS = {"small": "RefineNet dilated", "large": "UNetRefiner"}
READY = "any_exposure"  # the bundled large refiner, from which training starts
SMALLEST = 48  # pixels of an image, each way
MOST_IMAGES = 200  # that are trained on
MOST_PIXELS = 4_000_000  # of all of them, but `WINDOW` squared of each at least
WINDOW = 256  # pixels, each way
SHOWN_PIXELS = 20_000  # in the preview
COMPARED_PIXELS = 300_000  # for each validation
LEAST_LEFT = 0.01  # share of the noise
VALIDATIONS = 6  # of each stage
AGAIN = 0.8  # share of the steps that follow with all photons, and of their learning rate
TEXT = {"counts": "Learning from split photons", "own": "Learning from its own results"}


def iter_train_noisy(
    request: TrainRequest, device: str, check: Check, stop: Callable[[], bool]
) -> Generator[TrainProgress, None, TrainedRefiner]:
    """`iter_train` for noisy images; on a device that `choose_device` gave."""
    return (yield from _NoisyTraining(request, device, check, stop).run())


class _NoisyTraining:
    """One run of `iter_train_noisy`."""

    def __init__(
        self, request: TrainRequest, device: str, check: Check, stop: Callable[[], bool]
    ) -> None:
        self.request, self.config = request, request.config
        self.device, self.check, self.stop = device, check, stop
        self.started = time.perf_counter()
        self.scale: int = request.load["scale"]
        load = request.load
        self.file, notes = find_backbone(
            self.scale, load.get("backbone", "auto"), load.get("download", True),
            folder=load.get("weights_folder"),
        )  # fmt: skip
        self.notes = [*notes, *request.data.notes]
        if self.config.placement == "output":
            raise OptionError(
                "expected placement input for noisy images: after the backbone, noise is no longer "
                "independent from pixel to pixel"
            )
        self.size = self.config.size or "large"
        self.recipe = NOISY_RECIPES[self.size]
        if self.config.steps is not None:
            own = min(self.recipe.own_steps, self.config.steps)
            self.recipe = replace(self.recipe, counts_steps=self.config.steps, own_steps=own)
        self.rng = np.random.default_rng([self.config.run_seed, 21])
        self.history: list[dict[str, Any]] = []
        self.best_gain = 0.0
        stages = self.recipe.counts_steps, self.recipe.own_steps
        self.clock = Clock(
            {
                "read": Work(len(request.data.hr), 0.05),
                "steps": Work(sum(stages) + round(AGAIN * sum(stages)), 0.05),
                "validate": Work(2 * (VALIDATIONS + 1), 1.0),
                "measure": Work(1, 20.0),
            }
        )

    def run(self) -> Generator[TrainProgress, None, TrainedRefiner]:
        self.images = yield from self._read()
        self.denoiser = Denoiser(NETWORKS[self.size], self.config.run_seed, self.device, self.check)
        start = self._start()
        self.splits = [SplitImage.of(image, self.rng) for image in self.images]
        yield self._progress("preparing", "Upscaling an image to compare with")
        self.shown = self.splits[0].window(SHOWN_PIXELS)
        most = max(1, COMPARED_PIXELS // WINDOW**2)
        step = max(1, len(self.splits) // most)
        self.compared = [split.window(WINDOW**2) for split in self.splits[::step][:most]]
        self.shown_baseline = self._upscaled(self.shown.a.pixels)
        self.clock.tick("measure", 0)
        self.trainer = CountsTrainer(self.denoiser, self.recipe, self.config.run_seed)
        chosen, state = yield from self._candidates(start)
        report, leads = yield from self._measure()
        improved = chosen != "identity" and leads["baseline"] >= SURE
        if improved and chosen != "start":
            yield from self._train_on(chosen)
            state = self.denoiser.state()
        return self._trained(state, report, improved, leads)

    # images

    def _read(self) -> Generator[TrainProgress, None, list[NoisyImage]]:
        """Read the images, estimate their noise, and map them to [0,1]."""
        self.clock.start()
        read = yield from self._usable_images()
        noise, clipped = self._noise([data for _, data in read])
        images: list[NoisyImage] = []
        for source, data in read:
            pixels = channels_first(source.mapping.to_unit(data))
            own = noise.mapped(source.mapping)
            images.append(NoisyImage(source.name, pixels, own, own.offset if clipped else None))
        if len({image.pixels.shape[0] for image in images}) > 1:
            images = [replace(i, pixels=i.pixels.repeat(3 // len(i.pixels), 0)) for i in images]
        return images

    def _usable_images(
        self,
    ) -> Generator[TrainProgress, None, list[tuple[Source, NDArray[Any]]]]:
        """The middle of each image that can be used, of some of them if there are very many."""
        sources = self.request.data.hr
        if len(sources) > MOST_IMAGES:
            self.notes.append(f"trained on {MOST_IMAGES} of {len(sources)} images, evenly chosen")
            sources = tuple(sources[i * len(sources) // MOST_IMAGES] for i in range(MOST_IMAGES))
        side = max(WINDOW, int((MOST_PIXELS / max(len(sources), 1)) ** 0.5))
        read = []
        for n, source in enumerate(sources):
            self.check()
            yield self._progress("preparing", f"Reading {source.name} ({n + 1} of {len(sources)})")
            try:
                read.append((source, _usable(source, side)))
            except ImageError as error:
                if self.request.data.strict and len(sources) == 1:
                    raise
                self.notes.append(str(error))
            self.clock.tick("read")
        self.clock.drop("read")
        if not read:
            why = f": {self.notes[-1]}" if self.notes else ""
            raise ImageError(f"expected noisy images to train on, got none{why}")
        return read

    def _noise(self, images: Sequence[NDArray[Any]]) -> tuple[NoiseModel, bool]:
        """The noise of the images in data values, and whether they were clipped in the dark."""
        found = estimate_noise(images)
        given = self.config.noise
        if found.fault or found.noise is None:
            raise ImageError(
                "expected images whose noise is independent from pixel to pixel, but "
                f"{found.fault}{self._way_out(images)}"
            )
        self.noise = given or found.noise
        if given is not None:
            ratio = _strength(given, images) / max(_strength(found.noise, images), 1e-12)
            if not 0.8 < ratio < 1.25:
                self.notes.append(
                    f"the noise given is {ratio:.1f} times as strong (in variance) as the images "
                    "show: check gain, offset and read noise"
                )
        if found.brightest < np.inf:
            self.notes.append(f"about {found.brightest:.0f} photons at the brightest")
        return self.noise, found.clipped

    def _way_out(self, images: Sequence[NDArray[Any]]) -> str:
        """What to do where noise is correlated: reduce the images, if that helps."""
        reduced = [_binned(image) for image in images if min(image.shape[:2]) >= 2 * SMALLEST]
        if reduced and not estimate_noise(reduced).fault:
            return (
                ". Reduced by 2 (means of 2x2 pixels) they can be used, at half the resolution: "
                "reduce them, then train on and upscale the result"
            )
        return ". Take raw images as the camera gave them, or train on clean images"

    # training

    def _start(self) -> dict[str, Float32] | None:
        """Weights to start from; None: those of an untrained network, which is no candidate."""
        name = self.config.init or (READY if self.size == "large" else None)
        if name is None:
            return None
        path, _ = find_refiner_file(name)
        network, card = open_refiner(path)
        if card.network != NETWORKS[self.size]:
            raise OptionError(
                f"expected a {self.size} refiner to start from, got {path.stem}, a {card.network}"
            )
        self.denoiser.network.load_state_dict(network.state_dict())
        return self.denoiser.state()

    def _candidates(
        self, start: dict[str, Float32] | None
    ) -> Generator[TrainProgress, None, tuple[str, dict[str, Float32]]]:
        """Train on the photons that are not kept back; which weights are best, and these."""
        states = {} if start is None else {"start": start}
        images = [split.a for split in self.splits]
        share = 1.0
        for stage, count in self._stages():
            yield from self._stage(stage, images, count, share)
            states[stage] = self.denoiser.state()
            if self.stop():
                break
            share = AGAIN
        scores = CountScores(doubt_of(self.splits)[1])
        for split in self.splits:
            self.check()
            results = {"identity": split.a.pixels}
            for name, state in states.items():
                self.denoiser.load(state)
                results[name] = self.denoiser.image(split.a)
            scores.add(split, results)
        best = scores.best(["identity", *states])
        self.chosen_over = {name: scores.gain(best, name) for name in scores.squares}
        state = states.get(best) or next(iter(states.values()))
        self.denoiser.load(state)
        return best, state

    def _stages(self) -> list[tuple[Stage, int]]:
        return [("counts", self.recipe.counts_steps), ("own", self.recipe.own_steps)]

    def _train_on(self, chosen: str) -> Steps:
        """Train the chosen weights further, with all photons."""
        for stage, count in self._stages():
            if not self.stop():
                yield from self._stage(stage, self.images, round(AGAIN * count), AGAIN, show=False)
            if stage == chosen:
                break
        self.clock.drop("steps")

    def _stage(
        self,
        stage: Stage,
        images: Sequence[NoisyImage],
        count: int,
        share: float,
        show: bool = True,
    ) -> Steps:
        every = max(1, count // VALIDATIONS)
        self.clock.start()
        with closing(self.trainer.steps(stage, images, count, share)) as steps:
            for step, loss in enumerate(steps, 1):
                self.check()
                self.clock.tick("steps")
                progress = self._progress("training", TEXT[stage])
                progress = replace(progress, placement="input", step=self.trainer.taken, loss=loss)
                if show and (step % every == 0 or step == count):
                    progress = self._validate(progress)
                yield progress
                self.clock.start()
                if self.stop():
                    break

    def _validate(self, progress: TrainProgress) -> TrainProgress:
        """How much noise is removed, and how it looks."""
        with self.trainer.averaged():
            gain = self._noise_removed()
            sr = self._upscaled(self.denoiser.image(self.shown.a))
            best = None
            if gain > self.best_gain:
                self.best_gain = gain
                best = Checkpoint(self.denoiser.state(), self._card(None), progress.step, gain)
        self.clock.tick("validate")
        point = {"placement": "input", "step": progress.step}
        self.history.append({**point, "loss": progress.loss, "gain": round(gain, 5)})
        lr, baseline, delta = map(_displayed, (self.shown.a.pixels, self.shown_baseline, sr))
        large = lr.repeat(self.scale, 0).repeat(self.scale, 1)
        preview = Preview(self.shown.a.name, lr, baseline, delta, large, has_reference=False)
        return replace(progress, gain=gain, best=best, preview=preview)

    def _noise_removed(self) -> float:
        """Noise of some images over the error that is left, dB on the LR grid."""
        noise = left = 0.0
        for split in self.compared:
            refined = self.denoiser.image(split.a)
            before, after = (split.errors(x) for x in (split.a.pixels, refined))
            variance = split.a.noise.variance(split.a.pixels).mean()
            noise += float(variance) * before.size
            # the difference is known better than either
            left += float(variance) * before.size - float((before - after).sum())
        return -10 * math.log10(max(left / noise, LEAST_LEFT))

    # measuring

    @cached_property
    def backbone(self) -> CFSR:
        network = load_backbone(self.file, self.scale).to(self.device)
        on_each_block(network, self.check)
        return network.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload,no-any-return]

    def _upscaled(self, image: Float32) -> Float32:
        """The backbone's output [C,H,W] of an image [C,h,w]."""
        with torch.inference_mode():
            x = self.denoiser.tensor(image)[None].expand(-1, 3, -1, -1)
            y = self.backbone(x.contiguous(memory_format=torch.channels_last))
            y = y.mean(1, keepdim=True) if len(image) == 1 else y
            result: Float32 = y[0].float().cpu().numpy()
        return result

    def _measure(self) -> Generator[TrainProgress, None, tuple[Report, dict[str, float]]]:
        """The report of the present weights, and their leads over the other methods."""
        self.clock.start()
        report = NoisyReport(self.splits, self.scale, self.denoiser.image, self._upscaled, self.rng)
        for name in report.measure():
            self.check()
            yield self._progress("measuring", f"Measuring {name}")
        self.clock.tick("measure")
        return report.report(), report.leads()

    # the result

    def _trained(
        self,
        state: dict[str, Float32],
        report: Report,
        improved: bool,
        leads: dict[str, float],
    ) -> TrainedRefiner:
        card = self._card(report.gain if improved else None)
        if improved:
            card = replace(card, extra={**card.extra, "report": report.to_dict()})
        return TrainedRefiner(
            state=state,
            card=card,
            report=report,
            improved=improved,
            verdict=noisy_verdict(report, improved, leads),
            notes=(*self.notes, *self._about_weights()),
            history=tuple(self.history),
            seconds=time.perf_counter() - self.started,
        )

    def _about_weights(self) -> list[str]:
        """What training on these images gained over the weights it started from."""
        gain = self.chosen_over.get("start")
        if gain is None or self.chosen_over["identity"] <= 0:
            return []
        if gain <= 0:
            return ["training on these images gained nothing: the refiner is as it was before"]
        return [f"training on these images gained {gain:.2f} dB, estimated"]

    def _card(self, gain: float | None) -> RefinerCard:
        from napari_cfsr._version import __version__

        data, config = self.request.data, self.config
        return RefinerCard(
            scale=0,
            placement="input",
            backbone_sha256="",
            description=f"{data.origin}: noisy images alone",
            gain=None if gain is None else round(gain, 4),
            network=NETWORKS[self.size],
            extra={
                "backbone": self.file.name,
                "data": data.origin,
                "images": {"train": len(self.images)},
                "noise": vars(self.noise),
                "config": config.to_dict(),
                "seed": config.run_seed,
                "date": datetime.date.today().isoformat(),
                "version": __version__,
            },
        )

    def _progress(self, stage: Any, text: str) -> TrainProgress:
        return TrainProgress(stage, text, self.clock.fraction, self.clock.seconds_left)


def _usable(source: Source, side: int) -> NDArray[Any]:
    """The middle of an image, [y,x] or [y,x,3] in data values."""
    unit = checked_image(source)
    ys, xs = (slice(max(0, (n - side) // 2), (n + side) // 2) for n in unit.shape[:2])
    unit = unit[ys, xs]
    if min(unit.shape[:2]) < SMALLEST:
        raise ImageError(
            f"expected at least {SMALLEST}x{SMALLEST} pixels, got {unit.shape[0]}x{unit.shape[1]} "
            f"in '{source.name}': leave it out, or take a larger part"
        )
    return source.mapping.from_unit(unit)


def _binned(image: NDArray[Any]) -> Float32:
    """Means of 2x2 pixels."""
    h, w = (n // 2 for n in image.shape[:2])
    parts = image[: 2 * h, : 2 * w].reshape(h, 2, w, 2, *image.shape[2:])
    return np.asarray(parts.mean((1, 3)), np.float32)


def _strength(noise: NoiseModel, images: Sequence[NDArray[Any]]) -> float:
    """Mean variance of the noise in the images."""
    return float(np.mean([noise.variance(image.astype(np.float32)).mean() for image in images]))


def _displayed(array: Float32) -> Float32:
    """[C,h,w] to [h,w] or [h,w,3], in [0,1]."""
    return np.ascontiguousarray(channels_last(array)).clip(0, 1)
