"""Train the refiners that ship for common cases, and write the page about their gains.

    python benchmarks/train_ready_refiners.py DATA [--cases ...] [--scales ...] [--backbones ...]

DATA contains `train/photos`, `microscopy/nuclei_dsb2018` (CC0) and `microscopy/cellprofiler`
(BSD): refiners that ship are trained on nothing else. Each refiner is saved to
`src/napari_cfsr/bundled/refiners` if it gains on held-out images; `docs/refiners.md` is then
written from all the cards there. With an empty `--cases` only the page is written.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import numpy as np

import napari_cfsr as nc
from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.training import TrainedRefiner
from napari_cfsr.core.weights import RefinerCard, read_refiner_card, save_refiner
from napari_cfsr.core.weights.weight_files import BUNDLED

FOLDER = BUNDLED / "refiners"
PAGE = Path(__file__).parent.parent / "docs" / "refiners.md"
SEED = 1
BRIGHTEST, DIMMEST = 1.0, 0.25  # factors of an image's 99.9th percentile, and so of its photons


@dataclass(frozen=True)
class Case:
    """A refiner to train: its images and its purpose."""

    images: str
    scales: tuple[int, ...]
    degradation: dict[str, Any]
    description: str
    data: str


FLUORESCENCE = "nuclei (BBBC038, CC0) and CellProfiler's examples (BSD-3)"
PHOTOS = "photos (CC0, CC BY 4.0, Unsplash, Pexels, public domain)"
CASES = {
    "fluorescence_low_light": Case(
        "fluorescence",
        (2, 4),
        {"photons": 100, "read_noise": 0.01},
        "Fluorescence at low light, 25 to 100 photons where it is brightest",
        FLUORESCENCE,
    ),
    "noisy_photo": Case(
        "photos",
        (2, 4),
        {"read_noise": 10 / 255},
        "Photos with noise of about 10 grey levels (of 256)",
        PHOTOS,
    ),
    "jpeg_photo": Case(
        "photos", (4,), {"jpeg": 60}, "Photos saved as JPEG of quality about 60", PHOTOS
    ),
}


def fluorescence(data: Path) -> Iterator[np.ndarray]:
    """Gray images on a dark background, [Y,X] in [0,1], at random brightness."""
    rng = np.random.default_rng(SEED)
    for name in ("nuclei_dsb2018", "cellprofiler"):
        for path in sorted((data / "microscopy" / name).rglob("*.*")):
            if path.suffix not in (".png", ".tif"):
                continue
            pixels = np.asarray(nc.read_image(path).pixels).astype(np.float32)
            colour = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
            gray = colour.mean(-1)
            top = np.percentile(gray, 99.9)
            if np.ptp(colour, axis=-1).mean() > 2 or gray.mean() > 0.5 * top:
                continue  # stained tissue, bright field
            yield (gray / top * rng.uniform(DIMMEST, BRIGHTEST)).clip(0, 1)


def photos(data: Path) -> Iterator[np.ndarray]:
    for path in sorted((data / "train/photos").iterdir()):
        yield np.asarray(nc.read_image(path).pixels)


def train(case: Case, scale: int, backbone: str, images: list[np.ndarray]) -> TrainedRefiner:
    model = nc.load_model(scale, backbone, refiner=None, device="cpu")
    config = nc.TrainConfig(**case.degradation, seed=SEED, intensity=(0, full_range(images[0])))
    return nc.train_refiner(images, model, config)


def full_range(image: np.ndarray) -> float:
    return 255.0 if image.dtype == np.uint8 else 1.0


def save(name: str, case: Case, trained: TrainedRefiner) -> None:
    extra = {**trained.card.extra, "training data": case.data}
    card = replace(trained.card, description=case.description, extra=extra)
    FOLDER.mkdir(exist_ok=True)
    save_refiner(FOLDER / f"{name}.safetensors", trained.state, card)


# the page

TOP = """\
# Refiners that ship

Each belongs to one backbone and is listed with it in the *Upscale* widget; on the command line
`--refiner NAME` selects its backbone, too. Mean PSNR in dB on held-out images, with LR images
simulated as described: your results depend on how similar your images are. *Denoised* is the better
of denoised bicubic and the denoised baseline. A refiner trained for your own microscope or camera
does better than any of these: [training](training.md). The last column is the gain over the best
conventional method.

| refiner | for | placement | bicubic | denoised | backbone | refined | gain | over conventional |
|---|---|---|---|---|---|---|---|---|
"""
BOTTOM = """
Without noise there is nothing to denoise, and bicubic is the conventional method. Figures of the
refiners for clean images, which `auto` selects, are in [measurements](measurements.md).

`python benchmarks/train_ready_refiners.py DATA` trains them and writes this page: one or two
minutes each on two CPU cores. Trained on {sources}. Licence: MIT, like the package.

## Any exposure

`any_exposure` is the large refiner, a U-shaped network of 208,140 parameters for all backbones and
scales. It takes the noise of an image as an input, estimated if need be, so it needs no training;
[trained further on your own noisy images](training.md#noisy-images-alone) it is better. It was
pretrained on the same photos, nuclei and CellProfiler examples by
`python benchmarks/pretrain_refiner.py --data DATA --output FOLDER`. Figures:
[measurements](measurements.md#noisy-images-alone).
"""


def row(name: str, card: RefinerCard) -> str:
    rows = {r["name"]: r["psnr"] for r in card.extra["report"]["rows"]}
    denoised = [value for key, value in rows.items() if key.startswith("denoised")]
    best = max(value for key, value in rows.items() if key != "delta")
    cells = [
        f"{rows['bicubic']:.2f}",
        f"{max(denoised):.2f}" if denoised else "no noise",
        f"{rows['baseline']:.2f}",
        f"{rows['delta']:.2f}",
        f"{rows['delta'] - rows['baseline']:+.2f}",
        f"{rows['delta'] - best:+.2f}",
    ]
    return f"| `{name}` | {card.description} | {card.placement} | {' | '.join(cells)} |\n"


def write_page() -> None:
    cards = {path.stem: read_refiner_card(path) for path in sorted(FOLDER.glob("*.safetensors"))}
    ready = {name: card for name, card in cards.items() if "report" in card.extra}
    sources = "; ".join(sorted({card.extra["training data"] for card in ready.values()}))
    text = TOP + "".join(row(*item) for item in ready.items()) + BOTTOM.format(sources=sources)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--scales", nargs="+", type=int, choices=(2, 4), default=[2, 4])
    parser.add_argument("--backbones", nargs="+", default=["official", "bundled"])
    arguments = parser.parse_args()
    keep_freed_memory()
    for name in arguments.cases:
        case = CASES[name]
        read = fluorescence if case.images == "fluorescence" else photos
        images = list(read(arguments.data))
        for scale in sorted({*case.scales} & {*arguments.scales}):
            for backbone in arguments.backbones:
                trained = train(case, scale, backbone, images)
                full = f"{name}_{backbone}_x{scale}"
                print(f"{full}: {len(images)} images, {trained.seconds:.0f} s, {trained.verdict}")
                print(trained.report.table(), flush=True)
                if trained.improved:
                    save(full, case, trained)
    write_page()


if __name__ == "__main__":
    main()
