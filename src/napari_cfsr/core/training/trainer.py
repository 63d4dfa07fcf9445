"""Training of one refiner at one placement: patches, steps, and the gain on validation images.

On the output, a step runs the refiner alone, on backbone outputs that are computed once. On the
input, the gradient comes through the frozen backbone, after warm steps without the backbone in
which the refiner learns to turn the LR image into what the backbone was trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cfsr.core.image import Degradation, scaled
from napari_cfsr.core.metrics import psnr
from napari_cfsr.core.network import CFSR, RefineNet
from napari_cfsr.core.training.config import CLIP, Recipe
from napari_cfsr.core.training.losses import loss_function
from napari_cfsr.core.training.windows import (
    MOST_PSNR,
    TrainingImages,
    TrainingWindow,
    channels_last,
)

Float32 = NDArray[np.float32]
Phase = Literal["warm", "trial", "main"]

EDGE = 4  # LR pixels at the border of a patch that are left out of the loss: they see padding
MOST_UPSCALED = 1_000_000  # LR pixels of training windows whose backbone output is computed
ONE_CYCLE_RISE = 0.2  # share of the steps in which the rate rises


@dataclass(frozen=True, eq=False)
class ValidationImage:
    """A validation window with its baseline, RGB [1,3,H,W], and the PSNR of that in dB."""

    window: TrainingWindow
    baseline: Tensor
    baseline_psnr: float


class TrainingContext:
    """Backbone and images of a training, as tensors where needed."""

    def __init__(self, backbone: CFSR, images: TrainingImages) -> None:
        self.backbone = backbone.requires_grad_(False)  # in evaluation mode, on its device
        self.images = images
        self.scale = backbone.config.scale
        self.device = backbone.mean.device
        self.validation: list[ValidationImage] = []  # filled by `upscale_validation`

    def tensor(self, array: Float32) -> Tensor:
        """[N,1 or 3,h,w] to RGB [N,3,h,w] on the device: gray as three equal channels."""
        x = torch.from_numpy(np.ascontiguousarray(array)).to(self.device).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)

    def image(self, rgb: Tensor) -> Tensor:
        """RGB [N,3,h,w] to the images' channels: their mean for gray."""
        return rgb.mean(1, keepdim=True) if self.images.channels == 1 else rgb

    def array(self, rgb: Tensor) -> Float32:
        """RGB [1,3,h,w] to [C,h,w], clipped to [0,1]."""
        result: Float32 = self.image(rgb)[0].clamp(0, 1).float().cpu().numpy()
        return result

    def baseline(self, lr: Float32) -> Tensor:
        """RGB [1,3,H,W] of an LR image [C,h,w]."""
        with torch.inference_mode():
            result: Tensor = self.backbone(self.tensor(lr[None]))
        return result

    def upscale_validation(self) -> Iterator[ValidationImage]:
        """Compute the baselines of the validation images, one by one."""
        for window in self.images.validation:
            baseline = self.baseline(window.lr)
            decibels = self.psnr(self.array(baseline), window)
            self.validation.append(ValidationImage(window, baseline, decibels))
            yield self.validation[-1]

    def psnr(self, image: Float32, window: TrainingWindow) -> float:
        """PSNR of [C,H,W] as in the report: on Y for colour; dB, NaN for NaN."""
        a, b = (channels_last(x) for x in (image, np.clip(window.hr, 0, 1)))
        channel: Literal["Y", "gray"] = "gray" if self.images.channels == 1 else "Y"
        return min(psnr(a, b, shave=self.scale, channel=channel), MOST_PSNR)


class RefinerTrainer(ABC):
    """A refiner in training."""

    placement: Literal["output", "input"]

    def __init__(self, context: TrainingContext, recipe: Recipe, seed: int) -> None:
        self.context, self.recipe = context, recipe
        self.rng = np.random.default_rng([seed, 10])
        network = RefineNet(torch.Generator().manual_seed(seed)).to(context.device)
        self.network: RefineNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = loss_function(recipe.loss)
        self.average: AveragedModel | None = None
        if recipe.ema:
            decay = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.network, multi_avg_fn=decay)
        self.taken = 0  # steps

    @property
    def refiner(self) -> RefineNet:
        """The network that is validated and kept: with averaged weights if there is an average."""
        if self.average is None or not self.taken:
            return self.network
        return cast("RefineNet", self.average.module)

    def state(self) -> dict[str, Float32]:
        """Weights of `refiner`, copied."""
        named = self.refiner.state_dict().items()
        return {k: np.array(v.detach().cpu().numpy(), np.float32) for k, v in named}

    def load(self, state: dict[str, Float32]) -> None:
        """Put weights into `network` and `refiner`."""
        tensors = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
        self.network.load_state_dict(tensors)
        if self.average is not None:
            self.average.module.load_state_dict(tensors)

    def prepare(self) -> Iterator[None]:
        """Compute what the steps need, window by window."""
        yield from ()

    def count(self, phase: Phase) -> int:
        """Steps of a phase."""
        r = self.recipe
        return {"warm": r.warm_steps, "trial": r.trial_steps, "main": r.steps}[phase]

    def steps(self, phase: Phase) -> Generator[float, None, None]:
        """Train; yields the loss of each step."""
        r, count = self.recipe, self.count(phase)
        rate = r.warm_rate if phase == "warm" else r.rate
        optimiser = torch.optim.Adam(self.network.parameters(), lr=rate, fused=True)
        schedule = None
        if r.schedule == "one-cycle":
            total = max(3, count)  # at least one step each to rise and to fall
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, rate, total_steps=total, pct_start=max(ONE_CYCLE_RISE, 2 / total)
            )
        for step in range(count):
            loss = self._loss(phase, step)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            self.taken += 1
            yield float(loss.detach())

    def gain(self) -> float:
        """Mean gain over the backbone on the validation images, dB."""
        context = self.context
        gains = [
            context.psnr(context.array(self.predict(image.window.lr, image.baseline)), image.window)
            - image.baseline_psnr
            for image in context.validation
        ]
        return float(np.mean(gains))

    def predict(self, lr: Float32, baseline: Tensor | None = None) -> Tensor:
        """Delta of an LR image [C,h,w] as RGB [1,3,H,W]; a known `baseline` saves a pass."""
        with torch.inference_mode():
            return self._predict(lr, baseline)

    @abstractmethod
    def _predict(self, lr: Float32, baseline: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _loss(self, phase: Phase, step: int) -> Tensor: ...

    def _flipped(self, *arrays: Float32) -> list[Float32]:
        """Arrays [C,h,w], all with the same random flip and rotation."""
        quarter, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))
        rotated = [np.rot90(a, quarter, (1, 2)) for a in arrays]
        return [a[:, :, ::-1] for a in rotated] if flip else rotated

    def _random_square(self, image: Float32, side: int) -> tuple[slice, slice]:
        """Rows and columns of a random square of an image [C,h,w]."""
        y, x = (int(self.rng.integers(n - side + 1)) for n in image.shape[1:])
        return slice(y, y + side), slice(x, x + side)


class OutputTrainer(RefinerTrainer):
    """Refiner after the backbone, as published."""

    placement = "output"

    def prepare(self) -> Iterator[None]:
        scale = self.context.scale
        self._pool: list[tuple[Float32, Float32]] = []
        for window in _thinned(self.context.images.train):
            where = (slice(None), *scaled(window.inner, scale))
            baseline = self.context.baseline(window.lr)[0].cpu().numpy()
            self._pool.append((baseline[where].copy(), window.hr[where]))
            yield
        smallest = min(min(hr.shape[1:]) for _, hr in self._pool)
        self._side = min(self.recipe.patch, smallest)

    def _loss(self, phase: Phase, step: int) -> Tensor:  # noqa: ARG002 - as in the base
        batch = []
        for _ in range(self.recipe.batch):
            baseline, hr = self._pool[int(self.rng.integers(len(self._pool)))]
            where = (slice(None), *self._random_square(hr, self._side))
            batch.append(self._flipped(baseline[where], hr[where]))
        source, target = (np.stack(column) for column in zip(*batch, strict=True))
        refined = self.context.image(self.network(self.context.tensor(source)))
        return self.loss(refined, torch.from_numpy(target).to(self.context.device), step)

    def _predict(self, lr: Float32, baseline: Tensor | None) -> Tensor:
        result: Tensor = self.refiner(self.context.baseline(lr) if baseline is None else baseline)
        return result


def _thinned(windows: tuple[TrainingWindow, ...]) -> tuple[TrainingWindow, ...]:
    """Evenly chosen windows, so many that the backbone takes a few seconds."""
    step = max(1.0, sum(w.lr[0].size for w in windows) / MOST_UPSCALED)
    return tuple(windows[int(i * step)] for i in range(max(1, int(len(windows) / step))))


class InputTrainer(RefinerTrainer):
    """Refiner before the backbone, trained through it."""

    placement = "input"

    def prepare(self) -> Iterator[None]:
        images, scale = self.context.images, self.context.scale
        self._pool = [(w, w.target(scale)) for w in images.train]
        smallest = min(min(w.lr.shape[1:]) for w in images.train)
        self._side = min(self.recipe.patch, smallest)
        self._warm_side = min(self.recipe.warm_patch, smallest)
        yield from ()

    def _loss(self, phase: Phase, step: int) -> Tensor:
        return self._warm_loss() if phase == "warm" else self._main_loss(step)

    def _warm_loss(self) -> Tensor:
        lr, target = self._batch(self.recipe.warm_batch, self._warm_side, reduced=True)
        refined = self.network(self.context.tensor(lr))
        return torch.nn.functional.mse_loss(refined, self.context.tensor(target))

    def _main_loss(self, step: int) -> Tensor:
        lr, hr = self._batch(self.recipe.batch, self._side, reduced=False)
        sr = self.context.image(self.context.backbone(self.network(self.context.tensor(lr))))
        edge = EDGE * self.context.scale
        inside = (..., slice(edge, -edge), slice(edge, -edge))
        target = torch.from_numpy(hr).to(self.context.device)
        return self.loss(sr[inside], target[inside], step)

    def _batch(self, count: int, side: int, reduced: bool) -> tuple[Float32, Float32]:
        """LR patches with fresh noise, and HR or reduced HR patches."""
        scale, degradation = self.context.scale, self.context.images.degradation
        batch = []
        for _ in range(count):
            window, target = self._pool[int(self.rng.integers(len(self._pool)))]
            ys, xs = self._random_square(window.lr, side)
            wanted = target[:, ys, xs] if reduced else window.hr[:, *scaled((ys, xs), scale)]
            batch.append(self._flipped(window.clean[:, ys, xs], wanted))
        lr, wanted = (np.stack(column) for column in zip(*batch, strict=True))
        return (lr if degradation is None else noisy(lr, degradation, self.rng)), wanted

    def _predict(self, lr: Float32, baseline: Tensor | None) -> Tensor:  # noqa: ARG002 - same
        result: Tensor = self.context.backbone(self.refiner(self.context.tensor(lr[None])))
        return result


def noisy(batch: Float32, degradation: Degradation, rng: np.random.Generator) -> Float32:
    """Fresh noise, and JPEG, for a batch [N,C,h,w] of clean LR patches."""
    if degradation.jpeg is None:
        return degradation.noise(batch, rng)
    if batch.shape[1] == 1:
        return np.stack([degradation.noise(patch[0], rng)[None] for patch in batch])
    patches = (degradation.noise(np.ascontiguousarray(p.transpose(1, 2, 0)), rng) for p in batch)
    return np.stack([p.transpose(2, 0, 1) for p in patches])


TRAINERS: dict[str, type[RefinerTrainer]] = {"output": OutputTrainer, "input": InputTrainer}
