"""Write the model cards of the bundled backbones, with figures measured now.

    python benchmarks/model_cards.py DATA

DATA holds `benchmark`, `validation/Kodak24` and `train/photos.csv`. Each
`src/napari_cfsr/bundled/cfsr_x*.safetensors` gets a page beside it.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.backbone.data import Pair, reduced
from napari_cfsr.core.backbone.files import read_backbone_card
from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.weights.weight_files import BUNDLED, SCALES, bundled_path, sha256_of

SHOWN = ("batch", "patch", "precision", "rate", "rise", "clip", "average", "seed")
PAGE = """\
# CFSR x{scale}, trained by the napari-cfsr project

A backbone for super-resolution by {scale}: CFSR (G. Wu, J. Jiang, J. Jiang, X. Liu, "Transforming
Image Super-Resolution: A ConvFormer-based Efficient Approach", IEEE TIP 2024), {parameters:,}
parameters in merged form, trained from scratch; nothing was taken from the authors' weights.
Licence: MIT, as the package. SHA-256 `{sha}`.

**For**: photos and microscopy images whose LR version is a clean, antialiased reduction.
Super-resolved pixels are predictions, not measurements: don't measure on them what the LR image
does not show. Noise is amplified and blur stays; for those, train a refiner.

## Data

{images} photos, LR made with MATLAB's bicubic. The best checkpoint was picked on Kodak24
(unrestricted).

| source | licence | photos |
|---|---|---|
{sources}

## Recipe

{hours:.2f} hours and {steps:,} steps on {hardware}; {start}. Batches of {batch} patches of
{patch}x{patch} LR pixels, {precision}; L1, MSE in the last {mse:.0%}; Adam, rate {rate:g} with
{rise} steps of warm-up and half a cosine down to zero, gradients clipped at {clip:g}, moving
average of the weights ({average:g}), seed {seed}.

## Figures

Y channel, a border of {scale} pixels left out, clipped and not rounded; PSNR in dB / SSIM.

| | bicubic | this backbone |
|---|---|---|
{rows}

`python benchmarks/model_cards.py DATA` measures them and writes this page.

## To train it again

```sh
napari-cfsr train-backbone --data photos --validation Kodak24 --scale {scale} --hours {planned:g} \\
    --batch {batch} --patch {patch} --rate {rate:g} --precision {precision} \\
    {init}--output cfsr_x{scale}.safetensors
```
"""


def pairs(folder: Path, scale: int) -> Iterator[Pair]:
    """Of a benchmark in EDSR layout, or of HR images alone."""
    if not (folder / "HR").is_dir():
        for path in sorted(folder.glob("*.png")):
            yield reduced(np.asarray(Image.open(path).convert("RGB")), scale)
        return
    for path in sorted((folder / "HR").glob("*.png")):
        lr_path = folder / f"LR_bicubic/X{scale}/{path.stem}x{scale}.png"
        lr = np.asarray(Image.open(lr_path).convert("RGB"))
        hr = np.asarray(Image.open(path).convert("RGB"))
        yield lr, hr[: lr.shape[0] * scale, : lr.shape[1] * scale]


def measure(folder: Path, scale: int) -> str:
    """A row of the table."""
    model = nc.load_model(scale, backbone="bundled", refiner=None)
    found: dict[str, list[tuple[float, float]]] = {"bicubic": [], "ours": []}
    for lr, hr in pairs(folder, scale):
        unit, reference = lr.astype(np.float32) / 255, hr.astype(np.float32) / 255
        images = {
            "bicubic": imresize(unit, scale).clip(0, 1),
            "ours": nc.upscale(unit, model, axes="YXS").baseline,
        }
        for name, image in images.items():
            how = {"shave": scale, "channel": "Y"}
            found[name].append((nc.psnr(image, reference, **how), nc.ssim(image, reference, **how)))
    means = {name: np.mean(values, 0) for name, values in found.items()}
    cells = (f"{psnr:.3f} / {ssim:.4f}" for psnr, ssim in means.values())
    return f"| {folder.name} ({len(found['ours'])}) | {' | '.join(cells)} |"


def page(data: Path, scale: int, path: Path) -> str:
    card = read_backbone_card(path)
    config = card["config"]
    with (data / "train" / "photos.csv").open(encoding="utf-8") as file:
        photos = list(csv.DictReader(file))
    sources = sorted(Counter((photo["source"], photo["licence"]) for photo in photos).items())
    sets = [data / "benchmark" / name for name in ("Set5", "Set14", "B100")]
    folders = [f for f in sets if (f / f"LR_bicubic/X{scale}").is_dir()]
    rows = [measure(folder, scale) for folder in [*folders, data / "validation" / "Kodak24"]]
    init = card.get("init")
    return PAGE.format(
        scale=scale,
        parameters=9 * 48 * 3 * scale**2 + 3 * scale**2 + 286_128,
        sha=sha256_of(path),
        images=card["images"],
        sources="\n".join(f"| {source} | {licence} | {n} |" for (source, licence), n in sources),
        hours=card["hours"],
        steps=card["step"],
        hardware=card["hardware"],
        start=f"started from {init}" if init else "started from nothing",
        init=f"--init {init} " if init else "",
        planned=config["hours"],
        mse=config["mse_share"],
        rows="\n".join(rows),
        **{name: config[name] for name in SHOWN},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    for scale in SCALES:
        path = bundled_path(scale)
        if path is not None:
            text = page(arguments.data, scale, path)
            (BUNDLED / f"cfsr_x{scale}.md").write_text(text, encoding="utf-8")
            print(text)


if __name__ == "__main__":
    main()
