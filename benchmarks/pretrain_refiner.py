"""Pretrain the large refiner, for hours, resumable: weights for any exposure.

    python benchmarks/pretrain_refiner.py --data DATA --output FOLDER [--steps 60000] [--threads 1]

DATA holds train/photos (65 % of the patches, half of these in colour), microscopy/nuclei_dsb2018
(20 %) and microscopy/cellprofiler (15 %); nothing that is measured on. FOLDER gets `state.pt`, from
which the same command resumes, and `any_exposure.safetensors`, the averaged weights.

Each patch gets its own contrast, brightness and noise: 5 to 1000 photons, log-uniform, and read
noise of 0.001 to 0.05; a fifth has Gaussian noise alone, and a good third is clipped. The loss is
the root of the squared error over the variance of the noise, so that all exposures count alike.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_cfsr.core.image import imresize, restore, stabilise
from napari_cfsr.core.io import SUFFIXES, read_image
from napari_cfsr.core.network import UNetRefiner
from napari_cfsr.core.weights import RefinerCard, save_refiner

Float32 = NDArray[np.float32]

BATCH, PATCH = 16, 64
SETS: dict[str, tuple[float, tuple[int, ...]]] = {  # share, and factors by which images are reduced
    "train/photos": (0.65, (1, 2, 3)),
    "microscopy/nuclei_dsb2018": (0.2, (1, 2)),
    "microscopy/cellprofiler": (0.15, (1, 2, 4)),
}
PHOTOS = 0  # which of them
COLOUR = 0.5  # share of the photos that stay in colour
RATE, WARM_UP, EMA, CLIP = 1.5e-3, 500, 0.999, 0.5
SAVE_SECONDS = 300
NAME = "any_exposure.safetensors"


def images_of(folder: Path, factors: tuple[int, ...]) -> list[Float32]:
    """Images [h,w,1 or 3] in [0,1], reduced by each factor; half precision saves memory."""
    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        image = unit(read_image(path).pixels)
        for factor in factors:
            h, w = (n // factor * factor for n in image.shape[:2])
            if min(h, w) >= PATCH * factor:
                part = image[:h, :w]
                small = part if factor == 1 else imresize(part, 1 / factor)
                found.append(np.clip(small, 0, 1).reshape(*small.shape[:2], -1).astype(np.float16))
    return found


def unit(pixels: NDArray[Any]) -> Float32:
    """[h,w] or [h,w,3] in [0,1], gray where all channels are equal."""
    image = np.asarray(pixels, np.float32)
    if image.ndim == 3:
        image = image[..., :3]
        image = image[..., 0] if np.array_equal(image.min(-1), image.max(-1)) else image
    top = 255.0 if pixels.dtype == np.uint8 else max(float(np.percentile(image, 99.9)), 1.0)
    return image / np.float32(top)


class Patches:
    """Clean patches [3,64,64] in [0,1] of all brightnesses, and batches of them with noise."""

    def __init__(self, data: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.pools = [images_of(data / name, factors) for name, (_, factors) in SETS.items()]

    def patch(self) -> Float32:
        rng = self.rng
        pool = int(rng.choice(len(self.pools), p=[share for share, _ in SETS.values()]))
        images = self.pools[pool]
        sizes = np.sqrt([image.shape[0] * image.shape[1] for image in images])
        image = images[int(rng.choice(len(images), p=sizes / sizes.sum()))]
        y, x = (int(rng.integers(n - PATCH + 1)) for n in image.shape[:2])
        patch = image[y : y + PATCH, x : x + PATCH].astype(np.float32)
        patch = np.rot90(patch, int(rng.integers(4)))
        patch = patch[:, ::-1] if rng.integers(2) else patch
        if patch.shape[-1] == 3 and not (pool == PHOTOS and rng.random() < COLOUR):
            patch = patch @ rng.dirichlet((1.0, 1.0, 1.0)).astype(np.float32)[:, None]
        patch = self.exposed(patch, pool == PHOTOS)
        return np.ascontiguousarray(np.broadcast_to(patch, (PATCH, PATCH, 3)).transpose(2, 0, 1))

    def exposed(self, patch: Float32, photo: bool) -> Float32:
        """With another contrast and brightness, often as dark as fluorescence."""
        rng = self.rng
        if rng.random() < (0.2 if photo else 0.3):
            patch = 1 - patch
        patch = np.clip(patch, 0, 1)  # gray mixes may exceed 1 by rounding
        if rng.random() < 0.4:
            patch = patch ** np.float32(np.exp(rng.uniform(-0.5, 1.2)))
        if rng.random() < (0.15 if photo else 0.5):  # darkness is black
            low = np.quantile(patch, rng.uniform(0, 0.3))
            patch = np.maximum(patch - low, 0) / np.float32(max(1e-3, 1 - low))
        if rng.random() < 0.5:
            patch = patch * np.float32(np.exp(rng.uniform(np.log(0.15), 0)))
        if rng.random() < 0.3:
            patch = patch + np.float32(rng.uniform(0, 0.1))
        return patch

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy and clean images [N,3,64,64]; gain and read variance of each, [N,1,1,1]."""
        rng = self.rng
        clean = np.stack([self.patch() for _ in range(BATCH)])
        gain = np.exp(-rng.uniform(np.log(5), np.log(1000), BATCH))
        read = np.exp(rng.uniform(np.log(0.001), np.log(0.05), BATCH))
        gaussian = rng.random(BATCH) < 0.2
        gain[gaussian] = 0
        read[gaussian] = np.exp(rng.uniform(np.log(0.005), np.log(0.15), gaussian.sum()))
        g, s = (a.astype(np.float32)[:, None, None, None] for a in (gain, read))
        counts = rng.poisson(clean / np.where(g > 0, g, 1))
        noisy = np.where(g > 0, counts * g, clean).astype(np.float32)
        noisy += s * rng.standard_normal(noisy.shape, dtype=np.float32)
        gray = (clean[:, :1] == clean).all((1, 2, 3))
        noisy[gray] = noisy[gray, :1]
        clipped = rng.random(BATCH) < np.where(gaussian, 0.5, 0.35)
        noisy[clipped] = np.clip(noisy[clipped], 0, 1)
        noisy, clean, g, variance = (torch.from_numpy(a) for a in (noisy, clean, g, s**2))
        return noisy, clean, g, variance


def loss_of(network: UNetRefiner, batch: tuple[Tensor, ...], half: bool) -> Tensor:
    """Root of the squared error over the variance of the noise, averaged over the images."""
    noisy, clean, gain, variance = batch
    u = stabilise(noisy, gain, variance).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        added = network.body(u)
    error = ((restore(u + added.float(), gain, variance) - clean) ** 2).mean((1, 2, 3))
    return torch.sqrt(error / (gain * clean + variance).mean((1, 2, 3)) + 1e-8).mean()


class Pretraining:
    """The network in training, and its state on disk."""

    def __init__(self, folder: Path, steps: int, half: bool) -> None:
        self.folder, self.steps, self.half = folder, steps, half
        network = UNetRefiner(torch.Generator().manual_seed(0))
        self.network = network.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA))
        self.step = 0
        self.parts = {"network": network, "average": self.average, "optimiser": self.optimiser}
        if (folder / "state.pt").exists():
            saved = torch.load(folder / "state.pt", weights_only=True)
            self.step = saved["step"]
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])

    def train(self, batch: tuple[Tensor, ...]) -> float:
        """One step; its loss."""
        rate = RATE * min(1.0, self.step / WARM_UP)
        rate *= 0.5 * (1 + float(np.cos(np.pi * self.step / self.steps)))
        for group in self.optimiser.param_groups:
            group["lr"] = max(rate, 1e-6)
        loss = loss_of(self.network, batch, self.half)
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.average.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def save(self) -> None:
        """The state, all of it or nothing, and the averaged weights."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        new = self.folder / "state.new"
        torch.save({**state, "step": self.step}, new)
        new.replace(self.folder / "state.pt")
        description = "dim and noisy images of any exposure"
        extra = {"training data": "photos, nuclei, CellProfiler examples", "step": self.step}
        card = RefinerCard(0, "input", "", description, None, extra, "UNetRefiner")
        save_refiner(self.folder / NAME, self.average.module.state_dict(), card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60_000, help="of the whole schedule")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="for a CPU without bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    pretraining = Pretraining(options.output, options.steps, not options.float32)
    patches = Patches(options.data, pretraining.step)
    losses: list[float] = []
    saved = time.monotonic()
    while pretraining.step < options.steps:
        losses.append(pretraining.train(patches.batch()))
        if len(losses) == 500:
            print(f"{pretraining.step} {np.mean(losses):.4f}", flush=True)
            losses = []
        if time.monotonic() - saved > SAVE_SECONDS:
            pretraining.save()
            saved = time.monotonic()
    pretraining.save()


if __name__ == "__main__":
    main()
