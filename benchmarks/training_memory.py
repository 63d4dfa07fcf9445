"""Peak memory of training on many large images.

    python benchmarks/training_memory.py DATA [--images 200] [--side 1024]

DATA contains `train/photos`; images of that size are first made from it and written to a temporary
folder, on which `napari-cfsr train` then runs at x4 with noise and is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(source: Path, folder: Path, count: int, side: int) -> None:
    """Photos, resized to `side`, rotated where the same one is used again."""
    paths = sorted(source.iterdir())
    for i in range(count):
        with Image.open(paths[i % len(paths)]) as image:
            scaled = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        turned = np.rot90(np.asarray(scaled), i // len(paths))
        Image.fromarray(turned).save(folder / f"{i:03}.png", compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        write_images(arguments.data / "train" / "photos", images, arguments.images, arguments.side)
        command = ["train", "--data", images, "--scale", 4, "--read-noise", 0.04]
        command += ["--output", Path(folder) / "refiner.safetensors"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "napari_cfsr.cli", *map(str, command)], check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB; bytes on macOS
    print(
        f"{arguments.images} images of {arguments.side}x{arguments.side} RGB: "
        f"peak {peak / 1e6:.2f} GB, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
