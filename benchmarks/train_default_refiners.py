"""Train the refiners for clean bicubic input that ship as the default of a backbone.

    python benchmarks/train_default_refiners.py DATA --scale 4 [--backbone bundled]
    python benchmarks/train_default_refiners.py DATA --scale 4 --preset benchmark --output FILE

DATA holds `train/photos` and `validation/Kodak24`. The checkpoint is picked on Kodak24 and kept
only if it gains there; it is written to `src/napari_cfsr/bundled/refiners`. To FILE it is written
whatever it gains. With `--preset benchmark` the recipe is the one published with CFSR-Delta. What
it does on images that picked nothing, `napari-cfsr evaluate` tells.
"""

from __future__ import annotations

import argparse
import datetime
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_cfsr import load_model, psnr, upscale
from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.engine.model import SRModel
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.metrics.image_metrics import luma
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.training.config import CLIP, PRESET_SEED, PUBLISHED, Recipe
from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner
from napari_cfsr.core.weights.weight_files import BUNDLED

CROP = 384  # of each photo, output pixels
CLEAN = Recipe(
    loss="mse",
    rate=1e-4,
    schedule="one-cycle",
    steps=400,
    batch=16,
    patch=96,
    every=25,
    patience=400,
    ema=0.98,
)


def pair(path: Path, model: SRModel) -> tuple[np.ndarray, np.ndarray]:
    """Backbone output of the whole reduced image, and the image; [Y,X,3] float32 in [0,1]."""
    hr = np.asarray(Image.open(path).convert("RGB"))
    height, width = (n // model.scale * model.scale for n in hr.shape[:2])
    hr = hr[:height, :width]
    lr = imresize(hr, 1 / model.scale).astype(np.float32) / 255
    baseline = upscale(lr, model, outputs=("baseline",)).baseline
    return baseline, hr.astype(np.float32) / 255


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """[Y,X,3] to [1,3,Y,X]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def validate(refiner: RefineNet, pairs: list[tuple[np.ndarray, np.ndarray]], scale: int) -> float:
    """Mean gain in Y-channel PSNR over the backbone, dB."""
    gains = []
    with torch.inference_mode():
        for baseline, hr in pairs:
            delta = refiner(to_tensor(baseline))[0].permute(1, 2, 0).clip(0, 1).numpy()
            gains.append(
                psnr(luma(delta), luma(hr), shave=scale, channel="gray")
                - psnr(luma(baseline), luma(hr), shave=scale, channel="gray")
            )
    return float(np.mean(gains))


def batch_of(
    crops: list[tuple[torch.Tensor, torch.Tensor]], recipe: Recipe, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random patches, flipped and turned; backbone outputs and HR, each [N,3,patch,patch]."""
    side, batch = recipe.patch, []
    for _ in range(recipe.batch):
        source, target = crops[rng.integers(len(crops))]
        y, x = (int(rng.integers(0, n - side + 1)) for n in source.shape[2:])
        window = torch.cat([source, target])[:, :, y : y + side, x : x + side]
        window = torch.rot90(window, int(rng.integers(4)), (2, 3))
        batch.append(window.flip(3) if rng.integers(2) else window)
    source, target = torch.stack(batch, 1).contiguous()
    return source, target


def train(
    crops: list[tuple[torch.Tensor, torch.Tensor]],
    held_out: list[tuple[np.ndarray, np.ndarray]],
    scale: int,
    recipe: Recipe,
    seed: int,
) -> tuple[dict[str, torch.Tensor], float]:
    """The best weights on the held-out images, and their gain, dB."""
    rng = np.random.default_rng(seed)
    refiner = RefineNet(torch.Generator().manual_seed(seed)).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        refiner, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    )
    optimiser = torch.optim.Adam(refiner.parameters(), lr=recipe.rate)
    schedule = None
    if recipe.schedule == "one-cycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.rate, total_steps=recipe.steps
        )
    criterion = (
        torch.nn.functional.mse_loss if recipe.loss == "mse" else torch.nn.functional.l1_loss
    )
    best, best_state, since = -math.inf, {}, 0
    for step in range(1, recipe.steps + 1):
        source, target = batch_of(crops, recipe, rng)
        loss = criterion(refiner(source), target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(refiner.parameters(), CLIP)
        optimiser.step()
        if schedule is not None:
            schedule.step()
        average.update_parameters(refiner)
        if step % recipe.every == 0:
            shown = average.module if recipe.ema else refiner
            gain = validate(shown, held_out, scale)
            print(f"step {step}: loss {loss.item():.6f}, gain {gain:+.5f} dB", flush=True)
            since += 1
            if gain > best:
                best, since = gain, 0
                best_state = {k: v.clone() for k, v in shown.state_dict().items()}
            if since > recipe.patience:
                break
    return best_state, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), required=True)
    parser.add_argument("--backbone", choices=("official", "bundled"), default="official")
    parser.add_argument("--preset", choices=("clean", "benchmark"), default="clean")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    scale, backbone = arguments.scale, arguments.backbone
    published = arguments.preset == "benchmark"
    recipe, seed = (PUBLISHED, PRESET_SEED["benchmark"]) if published else (CLEAN, 1)
    keep_freed_memory()
    rng = np.random.default_rng(seed)
    model = load_model(scale, backbone, refiner=None, device="cpu")

    held_out = [
        pair(p, model) for p in sorted((arguments.data / "validation/Kodak24").rglob("*.png"))
    ]
    crops = []
    for path in sorted((arguments.data / "train/photos").iterdir()):
        baseline, hr = pair(path, model)
        y, x = (int(rng.integers(0, max(n - CROP, 0) + 1)) for n in hr.shape[:2])
        where = (slice(y, y + CROP), slice(x, x + CROP))
        crops.append((to_tensor(baseline[where]), to_tensor(hr[where])))
    print(f"{len(crops)} crops, {len(held_out)} held-out images", flush=True)

    state, gain = train(crops, held_out, scale, recipe, seed)
    if arguments.output is None and not gain > 0:
        print("no gain on held-out images: nothing saved")
        return
    card = RefinerCard(
        scale=scale,
        placement="output",
        backbone_sha256=model.info.backbone_sha256,
        description="Clean images reduced bicubically",
        gain=round(gain, 5),
        extra={
            "default": arguments.output is None,
            "backbone": model.info.backbone,
            "degradation": {"kernel": "bicubic"},
            "config": vars(recipe),
            "seed": seed,
            "training data": "199 photos (CC0, CC BY 4.0, Unsplash, Pexels, public domain)",
            "selected on": "Kodak24, Y PSNR",
            "date": datetime.date.today().isoformat(),
        },
    )
    path = arguments.output or BUNDLED / "refiners" / f"clean_{backbone}_x{scale}.safetensors"
    save_refiner(path, state, card)
    print(f"saved {path}, gain {gain:+.5f} dB on Kodak24")


if __name__ == "__main__":
    main()
