"""Training a refiner on noisy images alone: their photons are split into input and target.

Each step splits its patches again (`napari_cfsr.core.image.split`): from most of the photons, the
refiner has to predict the rest, whose noise it cannot know. What it learns is the clean image.
Afterwards it may learn from its own results, with fresh noise added.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cfsr.core.engine import Check, half_type
from napari_cfsr.core.image import NoiseModel, restore, split, stabilise
from napari_cfsr.core.network import REFINER_STRIDE, Refiner, UNetRefiner, make_refiner
from napari_cfsr.core.training.config import CountsRecipe

Float32 = NDArray[np.float32]
Stage = Literal["counts", "own"]

SHARES = (0.1, 0.3)  # of the photons, that become the target
EMA = 0.99
BORDER = 2  # pixels of a patch that are left out of the loss: they see padding
DARK = 0.02  # intensity added to the local mean in the weights of the loss
NEIGHBOURHOOD = 5  # pixels across, of that mean


@dataclass(frozen=True)
class NoisyImage:
    """A noisy image [C,h,w] in [0,1], not clipped; C is 1 for gray, 3 for RGB."""

    name: str
    pixels: Float32
    noise: NoiseModel  # in the same units
    darkest: float | None = None  # value below which the camera cut off; None: it did not

    def parts(self, share: float, rng: np.random.Generator) -> tuple[NoisyImage, NoisyImage]:
        """Two images with ``1 - share`` and ``share`` of the photons."""
        counts_only = self.darkest is not None
        made = split(self.pixels, self.noise, share, rng, counts_only)
        noises = self.noise.of_share(1 - share), self.noise.of_share(share)
        first, second = (
            replace(self, pixels=p, noise=n) for p, n in zip(made, noises, strict=True)
        )
        return first, second

    def fresh(self, clean: Float32, rng: np.random.Generator) -> Float32:
        """A clean part of it with new noise of the same kind."""
        noise, signal = self.noise, clean - np.float32(self.noise.offset)
        if noise.gain:
            drawn = rng.poisson(np.maximum(signal, 0) / noise.gain)
            signal = drawn.astype(np.float32) * np.float32(noise.gain)
        signal = signal + np.float32(noise.read_noise) * rng.standard_normal(
            signal.shape, dtype=np.float32
        )
        seen = signal + np.float32(noise.offset)
        return seen if self.darkest is None else np.maximum(seen, np.float32(self.darkest))


class Denoiser:
    """A refiner at the input, as training sees it: noisy to clean images, told their noise."""

    def __init__(self, network: str, seed: int, device: str, check: Check = lambda: None) -> None:
        made = make_refiner(network, torch.Generator().manual_seed(seed)).to(device)
        self.network: Refiner = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self._check = device, check
        self._half = half_type(device)

    @property
    def is_large(self) -> bool:
        return isinstance(self.network, UNetRefiner)

    def state(self) -> dict[str, Float32]:
        """Weights by name, copied."""
        named = self.network.state_dict().items()
        return {k: np.array(v.detach().cpu().numpy(), np.float32) for k, v in named}

    def load(self, state: dict[str, Float32]) -> None:
        self.network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})

    def clean(
        self, batch: Float32, noises: Sequence[NoiseModel], network: Any = None, fast: bool = False
    ) -> Tensor:
        """Images [N,C,h,w] with the noise of each to clean ones."""
        x = self.tensor(batch)
        gray, network = x.shape[1] == 1, network or self.network
        x = x.expand(-1, 3, -1, -1)
        if not self.is_large:
            y: Tensor = network(x.contiguous(memory_format=torch.channels_last))
            return y.mean(1, keepdim=True) if gray else y
        gain, variance, offset = (
            self.tensor(np.array(values, np.float32))[:, None, None, None]
            for values in zip(*((n.gain, n.read_noise**2, n.offset) for n in noises), strict=True)
        )
        u = stabilise(x - offset, gain, variance)
        with self._autocast(fast):
            added = network.body(u.contiguous(memory_format=torch.channels_last))
        y = restore(u + added.float(), gain, variance) + offset
        return y.mean(1, keepdim=True) if gray else y

    def _autocast(self, fast: bool) -> AbstractContextManager[Any]:
        kind = self.device.split(":")[0]
        use = fast and self._half is torch.bfloat16
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=use)

    def image(self, noisy: NoisyImage, ensemble: bool = False) -> Float32:
        """A whole image [C,h,w] without its noise."""
        h, w = noisy.pixels.shape[1:]
        edges = ((0, 0), (0, -h % REFINER_STRIDE), (0, -w % REFINER_STRIDE))
        padded = np.pad(noisy.pixels, edges, mode="edge")
        total, turns = np.zeros_like(padded), 4 if ensemble else 1
        with torch.inference_mode():
            for quarter in range(turns):
                for flip in (False, True)[: 1 + ensemble]:
                    self._check()
                    turned = np.rot90(padded, quarter, (1, 2))
                    turned = turned[..., ::-1] if flip else turned
                    y = self.clean(turned[None], [noisy.noise])[0].cpu().numpy()
                    total += np.rot90(y[..., ::-1] if flip else y, -quarter, (1, 2))
        return total[:, :h, :w] / np.float32(2 * turns if ensemble else 1)

    def tensor(self, array: Float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class CountsTrainer:
    """Steps of a denoiser on noisy images."""

    def __init__(self, denoiser: Denoiser, recipe: CountsRecipe, seed: int) -> None:
        self.denoiser, self.recipe = denoiser, recipe
        self.rng = np.random.default_rng([seed, 20])
        self.taken = 0
        self._average: AveragedModel | None = None

    def steps(
        self, stage: Stage, images: Sequence[NoisyImage], count: int, share: float = 1.0
    ) -> Generator[float, None, None]:
        """Train; yields the loss of each step. Ended or closed, the denoiser has averaged weights.

        `share` is that of the learning rate. For stage "own", the present results are the target.
        """
        recipe, network = self.recipe, self.denoiser.network
        if count == 0:
            return
        patches = self._patches(stage, images)
        optimiser = torch.optim.AdamW(network.parameters(), recipe.rate * share, fused=True)
        decay = get_ema_multi_avg_fn(EMA)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(network, multi_avg_fn=decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / 20) * max(0.0, 1 - step / count)
        )
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // 2))  # more wait for each other where others run
        try:
            for _ in range(count):
                loss = self._loss(stage, *next(patches))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
                if torch.isfinite(norm):
                    optimiser.step()
                schedule.step()
                self._average.update_parameters(network)
                self.taken += 1
                yield float(loss.detach())
        finally:
            torch.set_num_threads(threads)
            network.load_state_dict(self._average.module.state_dict())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the denoiser has the averaged weights."""
        trained, denoiser = self.denoiser.network, self.denoiser
        assert self._average is not None
        denoiser.network = cast("Refiner", self._average.module)
        try:
            yield
        finally:
            denoiser.network = trained

    def _loss(
        self, stage: Stage, noisy: Float32, target: Float32, noises: list[NoiseModel]
    ) -> Tensor:
        inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        y = self.denoiser.clean(noisy, noises, fast=True)
        squared = (y - self.denoiser.tensor(target))[inside] ** 2
        if stage == "own":
            return squared.mean()
        # photons are more accurate where it is dark
        seen = self.denoiser.tensor(noisy).mean(1, keepdim=True)
        mean = torch.nn.functional.avg_pool2d(
            seen, NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False
        )
        weight = 1 / (mean.clamp(min=0)[inside] + DARK)
        return (squared * weight).mean() / weight.mean()

    def _patches(
        self, stage: Stage, images: Sequence[NoisyImage]
    ) -> Iterator[tuple[Float32, Float32, list[NoiseModel]]]:
        """Batches of input and target [N,C,h,w], and the noise of the inputs."""
        rng, smallest = self.rng, min(min(i.pixels.shape[1:]) for i in images)
        side = min(self.recipe.patch, smallest // REFINER_STRIDE * REFINER_STRIDE)
        clean = [self.denoiser.image(i, ensemble=True) if stage == "own" else None for i in images]
        areas = np.array([i.pixels[0].size for i in images], float)
        while True:
            batch, noises = [], []
            for n in rng.choice(len(images), self.recipe.batch, p=areas / areas.sum()):
                image, own = images[n], clean[n]
                y, x = (int(rng.integers(size - side + 1)) for size in image.pixels.shape[1:])
                where = (slice(None), slice(y, y + side), slice(x, x + side))
                if own is not None:
                    pair, noise = (image.fresh(own[where], rng), own[where]), image.noise
                else:
                    share = float(rng.uniform(*SHARES))
                    first, second = replace(image, pixels=image.pixels[where]).parts(share, rng)
                    pair, noise = (first.pixels, second.pixels), first.noise
                batch.append(self._turned(*pair))
                noises.append(noise)
            inputs, targets = (np.stack(column) for column in zip(*batch, strict=True))
            yield inputs, targets, noises

    def _turned(self, *arrays: Float32) -> list[Float32]:
        """Arrays [C,h,w], all with the same random flip and rotation."""
        quarter, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))
        rotated = [np.rot90(a, quarter, (1, 2)) for a in arrays]
        return [a[:, :, ::-1] for a in rotated] if flip else rotated
