"""Train the refiners that ship for the official backbones, for clean bicubic input.

    python benchmarks/train_default_refiners.py DATA --scale 4

DATA holds `train/photos` and `validation/Kodak24`. The checkpoint is picked on Kodak24 and kept
only if it gains there; it is written to `src/napari_cfsr/bundled/refiners`.
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
from napari_cfsr.core.checkpoints import RefinerCard, save_refiner
from napari_cfsr.core.degradation import imresize
from napari_cfsr.core.engines import keep_freed_memory
from napari_cfsr.core.metrics import luma
from napari_cfsr.core.model import SRModel
from napari_cfsr.core.refinenet import RefineNet
from napari_cfsr.core.weights import BUNDLED

SEED, STEPS, BATCH, PATCH, RATE, EVERY, CROP, DECAY = 1, 400, 16, 96, 1e-4, 25, 384, 0.98


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), required=True)
    arguments = parser.parse_args()
    scale = arguments.scale
    keep_freed_memory()
    rng = np.random.default_rng(SEED)
    model = load_model(scale, "official", refiner=None, device="cpu")

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

    refiner = RefineNet(torch.Generator().manual_seed(SEED)).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        refiner, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY)
    )
    optimiser = torch.optim.Adam(refiner.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    best, best_state = 0.0, None
    for step in range(1, STEPS + 1):
        batch = []
        for _ in range(BATCH):
            source, target = crops[rng.integers(len(crops))]
            y, x = (int(rng.integers(0, n - PATCH + 1)) for n in source.shape[2:])
            window = torch.cat([source, target])[:, :, y : y + PATCH, x : x + PATCH]
            window = torch.rot90(window, int(rng.integers(4)), (2, 3))
            batch.append(window.flip(3) if rng.integers(2) else window)
        source, target = torch.stack(batch, 1).contiguous(memory_format=torch.contiguous_format)
        loss = torch.nn.functional.mse_loss(refiner(source), target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(refiner.parameters(), 0.5)
        optimiser.step()
        schedule.step()
        average.update_parameters(refiner)
        if step % EVERY == 0:
            gain = validate(average.module, held_out, scale)
            print(f"step {step}: loss {loss.item():.6f}, gain {gain:+.5f} dB", flush=True)
            if gain > best:
                best = gain
                best_state = {k: v.clone() for k, v in average.module.state_dict().items()}
    if best_state is None or not math.isfinite(best):
        print("no gain on held-out images: nothing saved")
        return
    refiner.load_state_dict(best_state)
    card = RefinerCard(
        scale=scale,
        placement="output",
        backbone_sha256=model.info.backbone_sha256,
        description="Clean images reduced bicubically",
        gain=round(best, 5),
        extra={
            "default": True,
            "backbone": f"official CFSR_x{scale}.pth",
            "degradation": {"kernel": "bicubic"},
            "config": {
                "loss": "MSE",
                "steps": STEPS,
                "batch": BATCH,
                "patch": PATCH,
                "rate": RATE,
                "schedule": "one-cycle",
                "ema": DECAY,
                "clip": 0.5,
            },
            "seed": SEED,
            "training data": "199 photos (CC0, CC BY 4.0, Unsplash, Pexels, public domain)",
            "selected on": "Kodak24, Y PSNR",
            "date": datetime.date.today().isoformat(),
        },
    )
    folder = BUNDLED / "refiners"
    folder.mkdir(exist_ok=True)
    save_refiner(folder / f"clean_official_x{scale}.safetensors", refiner.state_dict(), card)
    print(f"saved, gain {best:+.5f} dB on Kodak24")


if __name__ == "__main__":
    main()
