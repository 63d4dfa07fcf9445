"""Y PSNR on benchmark data sets in the EDSR layout, as a Markdown table.

    python benchmarks/accuracy.py DATA [--sets Set5:4 Set14:4 B100:4 Set5:2 Set5:3]

DATA holds `<set>/HR/<name>.png` and `<set>/LR_bicubic/X<s>/<name>x<s>.png`. Border of the scale
left out, clipped to [0,1], not rounded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from napari_cfsr import load_model, psnr, upscale
from napari_cfsr.core.degradation import imresize
from napari_cfsr.core.engines import keep_freed_memory

Pair = tuple[np.ndarray, np.ndarray]


def read(path: Path) -> np.ndarray:
    """RGB [Y,X,3] in [0,1]."""
    return np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 255


def pairs(folder: Path, scale: int) -> Iterator[Pair]:
    """LR and HR of each image."""
    for file in sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png")):
        lr = read(file)
        hr = read(folder / "HR" / file.name.replace(f"x{scale}.", "."))
        yield lr, hr[: lr.shape[0] * scale, : lr.shape[1] * scale]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--sets", nargs="+", default=["Set5:4", "Set14:4", "B100:4", "Set5:2", "Set5:3"]
    )
    options = parser.parse_args()
    keep_freed_memory()
    columns = ("bicubic", "baseline", "delta", "ensemble", "back-projection", "fast precision")
    print(f"| data | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for entry in options.sets:
        name, scale = entry.split(":")
        print(f"| {name} x{scale} | {' | '.join(row(options.data / name, int(scale), columns))} |")


def row(folder: Path, scale: int, columns: tuple[str, ...]) -> list[str]:
    """Mean PSNR of each column on one data set."""
    model = load_model(scale, device="cpu")
    fast = load_model(scale, refiner=None, device="cpu", precision="fast")
    values: dict[str, list[float]] = {name: [] for name in columns}
    for lr, hr in pairs(folder, scale):
        result = upscale(lr, model)
        images = {
            "bicubic": imresize(lr, scale).clip(0, 1),
            "baseline": result.baseline,
            "delta": result.delta,
            "ensemble": upscale(lr, model, outputs=("baseline",), ensemble=True).baseline,
            "fast precision": upscale(lr, fast).baseline,
        }
        if scale == 4:
            projected = upscale(lr, model, outputs=("baseline",), back_projection=True)
            images["back-projection"] = projected.baseline
        for key, image in images.items():
            if image is not None:
                values[key].append(psnr(image, hr, shave=scale, channel="Y"))
    return [f"{np.mean(v):.4f}" if v else "" for v in values.values()]


if __name__ == "__main__":
    main()
