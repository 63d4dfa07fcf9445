"""What tests of commands share."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from napari_cfsr.core.batch.ledger import LEDGER

H, W = 9, 14
SUMMARY = re.compile(r"napari-cfsr: \d+ upscaled.* in \d+\.\d s\n\Z")
Run = Callable[..., tuple[int, str, str]]
Says = Callable[..., str]


def picture(path: Path, *shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    """Write smooth noise; the pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.random(shape or (H, W, 3))
    pixels = pixels * 0.3 + np.indices(pixels.shape).sum(0) / sum(pixels.shape) * 0.7
    pixels = (pixels * np.iinfo(dtype).max).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        photometric = "rgb" if pixels.shape[-1] == 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=photometric)
    else:
        Image.fromarray(pixels).save(path)
    return pixels


def names(folder: Path) -> list[str]:
    """The files in a folder, without the ledger of a batch."""
    return sorted(p.name for p in folder.iterdir() if p.name != LEDGER)


def launch(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program; `upscale` with the bundled backbone alone."""
    if arguments[0] == "upscale":
        arguments = (*arguments, "--backbone", "bundled", "--refiner", "none")
    command = [sys.executable, "-m", "napari_cfsr.cli", *map(str, arguments)]
    return subprocess.run(command, text=True, stdin=subprocess.DEVNULL, **options)
