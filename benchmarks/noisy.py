"""Trained on noisy images alone, beside the best methods that need no training.

    python benchmarks/noisy.py DATA [--photons 10 50 200 1000] [--single 10] [--sizes small large]
    python benchmarks/noisy.py DATA --real

DATA contains the development data. `microscopy/sim` is halved, then reduced by 2 with shot noise
and a read noise of 0.01: 45 of the 60 images are trained on, or with --single each of the first
images alone; 15 are measured. `--real` trains on each raw frame of `microscopy/fmd` alone, binned
2x2, against the average of many frames. Mean PSNR after the official x2 backbone, borders of 2 left
out; BM3D (Anscombe before it, given the true noise) where the package `bm3d` is installed, whose
licence is for non-commercial use.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import numpy as np
from numpy.typing import NDArray

from napari_cfsr import TrainConfig, load_model, psnr, read_image, train_refiner, upscale
from napari_cfsr.core.engine import PredictOptions, SRModel, keep_freed_memory
from napari_cfsr.core.image import (
    Degradation,
    NoiseModel,
    bicubic,
    denoise,
    estimate_noise,
    imresize,
)
from napari_cfsr.core.training import TrainedRefiner
from napari_cfsr.core.weights import save_refiner
from napari_cfsr.errors import ImageError

Float32 = NDArray[np.float32]
READ_NOISE, TRAINED_ON, BORDER = 0.01, 45, 2
WORK = Path(os.environ.get("TMPDIR", "/tmp")) / "noisy-benchmark.safetensors"


def fluorescence(data: Path) -> list[Float32]:
    """HR images in [0,1]."""
    return [
        np.clip(imresize(gray(path), 0.5), 0, 1)
        for path in sorted((data / "microscopy" / "sim").glob("*.png"))
    ]


def gray(path: Path) -> Float32:
    pixels = np.squeeze(read_image(path).pixels).astype(np.float32) / 255
    return pixels if pixels.ndim == 2 else pixels[..., :3].mean(-1)


def bm3d_of(noise: NoiseModel) -> Callable[[Float32], Float32] | None:
    """BM3D where noise is stabilised; None if it is not installed."""
    if importlib.util.find_spec("bm3d") is None:
        return None
    from bm3d import bm3d

    def run(image: Float32) -> Float32:
        photons = 1 / noise.gain
        floor = 3 / 8 + (photons * noise.read_noise) ** 2
        stable = 2 * np.sqrt(np.maximum(photons * (image - noise.offset) + floor, 0))
        low = stable.min()
        d = np.maximum(np.asarray(bm3d(stable - low, 1.0)) + low, np.sqrt(1.5))
        root = np.sqrt(1.5)  # closed form of the exact unbiased inverse
        counts = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + 5 / 8 * root / d**3 - 1 / 8
        light = (counts - floor + 3 / 8) / photons + noise.offset
        return light.clip(0, 1).astype(np.float32)

    return run


class Comparison:
    """PSNR of each method on images with a reference."""

    def __init__(self, backbone: SRModel) -> None:
        self.backbone = backbone
        self.scores: dict[str, list[float]] = {}

    def enlarged(self, image: Float32) -> Float32:
        batch = np.ascontiguousarray(image[None, None], np.float32)
        result: Float32 = self.backbone.predict(batch, PredictOptions())["baseline"][0, 0]
        return result

    def add(self, name: str, result: Float32, reference: Float32) -> None:
        image = np.clip(result, 0, 1)
        score = psnr(image, reference, shave=BORDER, channel="gray")
        self.scores.setdefault(name, []).append(score)

    def conventional(self, image: Float32, reference: Float32, noise: NoiseModel) -> None:
        """All methods without training."""
        self.add("bicubic", bicubic(np.clip(image, 0, 1), 2), reference)
        self.add("backbone", self.enlarged(image), reference)
        signal = np.clip(image - np.float32(noise.offset), 0, 1)
        known = Degradation(photons=1 / noise.gain, read_noise=noise.read_noise)
        means = denoise(signal, known)["non-local means"] + np.float32(noise.offset)
        self.add("non-local means", self.enlarged(means), reference)
        bm3d = bm3d_of(noise)
        if bm3d is not None:
            self.add("BM3D", self.enlarged(bm3d(image)), reference)

    def refined(
        self, name: str, trained: TrainedRefiner, image: Float32, reference: Float32
    ) -> None:
        """A refiner, once and as an ensemble of eight, whatever its verdict."""
        save_refiner(WORK, trained.state, trained.card)
        model = load_model(2, self.backbone.info.backbone_path, WORK, "cpu")
        for ensemble in (False, True):
            result = upscale(image, model, refiner_ensemble=ensemble, intensity=(0, 1)).delta
            assert result is not None
            self.add(f"{name}{' x8' * ensemble}", result, reference)

    def show(self, title: str) -> None:
        means = {name: float(np.mean(values)) for name, values in self.scores.items()}
        print(f"\n{title}")
        for name, value in means.items():
            line = f"  {name:24} {value:6.2f}"
            if "BM3D" in means and name != "BM3D":
                lead = np.subtract(self.scores[name], self.scores["BM3D"])
                ahead = f"ahead on {(lead > 0).sum()} of {len(lead)}"
                line += f"  {lead.mean():+.2f} over BM3D, {ahead}"
            print(line, flush=True)


def train(images: list[Float32], backbone: SRModel, size: str) -> TrainedRefiner:
    config = TrainConfig(size=size, intensity=(0, 1))
    started = time.perf_counter()
    trained = train_refiner(noisy=images, model=backbone, config=config)
    print(f"  {size}: {time.perf_counter() - started:.0f} s; {trained.verdict}", flush=True)
    print(f"  {'; '.join(trained.notes)}", flush=True)
    return trained


def simulated(options: argparse.Namespace, backbone: SRModel) -> None:
    """Fluorescence, many images or one at a time."""
    sharp = fluorescence(options.data)
    for photons in options.photons:
        noise, rng = NoiseModel(1 / photons, READ_NOISE), np.random.default_rng(0)
        degradation = Degradation(photons=photons, read_noise=READ_NOISE)
        noisy = [degradation.apply(image, 2, rng) for image in sharp]
        comparison = Comparison(backbone)
        pairs = list(zip(noisy, sharp, strict=True))
        measured = pairs[: options.single] if options.single else pairs[TRAINED_ON:]
        for image, reference in measured:
            comparison.conventional(image, reference, noise)
        for size in options.sizes:
            if options.single:
                for image, reference in measured:
                    comparison.refined(size, train([image], backbone, size), image, reference)
                continue
            trained = train(noisy[:TRAINED_ON], backbone, size)
            for image, reference in measured:
                comparison.refined(size, trained, image, reference)
        images = f"each of {options.single} alone" if options.single else f"{TRAINED_ON} images"
        comparison.show(f"{photons:g} photons, {images}")


def real(options: argparse.Namespace, backbone: SRModel) -> None:
    """Raw frames of real microscopes, one at a time."""
    folder = options.data / "microscopy" / "fmd"
    for path in sorted((folder / "raw").glob("*.png")):
        frame, average = gray(path), gray(folder / "gt" / path.name)
        low = frame.reshape(256, 2, 256, 2).mean((1, 3))
        comparison = Comparison(backbone)
        noise = estimate_noise([low]).noise
        print(f"\n{path.stem}: {noise}", flush=True)
        try:
            trained = train([low], backbone, options.sizes[-1])
        except ImageError as error:
            print(f"  refused: {error}", flush=True)
            continue
        assert noise is not None
        reference = average
        comparison.conventional(low, reference, noise)
        comparison.refined(options.sizes[-1], trained, low, reference)
        comparison.show(path.stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photons", type=float, nargs="+", default=[10, 50, 200, 1000])
    parser.add_argument("--single", type=int, default=0, help="train on each of so many alone")
    sizes = ["small", "large"]
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=sizes)
    parser.add_argument("--real", action="store_true", help="raw frames of real microscopes")
    options = parser.parse_args()
    keep_freed_memory()
    backbone = load_model(2, "official", refiner=None, device="cpu")
    (real if options.real else simulated)(options, backbone)


if __name__ == "__main__":
    main()
