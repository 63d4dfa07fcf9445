"""Memory and speed of upscaling to OME-Zarr, beside upscaling in memory.

    python benchmarks/big.py [--side 2048] [--planes 1] [--scale 4] [--runs 1] [--out FOLDER]

Each run is a process of its own. Prints the peak resident memory, the seconds, the bytes on disk
and the number of files; `--in-memory` also runs `upscale` on the same image and prints the ratio
of the times. The image is computed where it is read, so it takes no memory and no disk: RGB of
uint8 for one plane, uint16 for a stack. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


class Scene:
    """Waves and grain at any place, from the coordinates: an image that is never there as a whole.

    Parameters
    ----------
    side : int
        Of a plane, pixels.
    planes : int
        1 gives [Y,X,3] of uint8, more give [Z,Y,X] of uint16.
    """

    def __init__(self, side: int, planes: int) -> None:
        self.stack = planes > 1
        self.shape = (planes, side, side) if self.stack else (side, side, 3)
        self.dtype = np.dtype(np.uint16 if self.stack else np.uint8)
        self.axes = "ZYX" if self.stack else "YXS"

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        shift = np.arange(self.shape[0 if self.stack else 2])[key[0] if self.stack else key[2]]
        ys, xs = (np.arange(self.shape[i])[key[i]] for i in ((1, 2) if self.stack else (0, 1)))
        y, x = ys[:, None].astype(np.float32), xs[None].astype(np.float32)
        wave = np.sin(y / 7) * np.cos(x / 11) + np.sin((x + 2 * y) / 40)
        grain = ((ys[:, None] * 7919 + xs[None] * 104729) % 61).astype(np.float32) / 61
        plane = (wave + 2) / 4 * 0.8 + grain * 0.2
        values = [plane * (1 - 0.01 * (s % 7)) for s in np.atleast_1d(shift)]
        top = np.iinfo(self.dtype).max
        result = np.stack(values, 0 if self.stack else 2) * np.float32(top)
        if np.ndim(shift) == 0:
            result = result[0 if self.stack else (slice(None), slice(None), 0)]
        return result.astype(self.dtype)


def peak_bytes() -> int:
    """Greatest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run, in this process."""
    from napari_cfsr import load_model, upscale, upscale_to_zarr
    from napari_cfsr.core.engine import keep_freed_memory

    keep_freed_memory()
    scene = Scene(options.side, options.planes)
    model = load_model(options.scale, refiner=None, device="cpu")
    outputs: dict[str, Any] = {"axes": scene.axes, "outputs": ("baseline",)}
    outputs["intensity"] = "dtype"
    began = time.perf_counter()
    figures: dict[str, Any] = {"kind": options.child}
    if options.child == "memory":
        image = scene[tuple(slice(0, n) for n in scene.shape)]
        began = time.perf_counter()
        result = upscale(image, model, **outputs)
        figures["output_gb"] = round(result.baseline.nbytes / 1e9, 3)
    else:
        store = Path(options.out) / "big.zarr"
        upscale_to_zarr(scene, model, store, overwrite=True, **outputs)
        files = [file for file in store.rglob("*") if file.is_file()]
        figures["files"] = len(files)
        figures["disk_gb"] = round(sum(file.stat().st_size for file in files) / 1e9, 3)
        shutil.rmtree(store)
    figures["seconds"] = round(time.perf_counter() - began, 2)
    figures["peak_gb"] = round(peak_bytes() / 1e9, 3)
    return figures


def child(kind: str, folder: str) -> dict[str, Any]:
    """Figures of one run in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", kind, "--out", folder]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    figures: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--planes", type=int, default=1)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--in-memory", action="store_true", help="run `upscale` beside it")
    parser.add_argument("--out", help="a folder for the store, which is removed again")
    parser.add_argument("--child", choices=("memory", "zarr"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return
    ratios = []
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        for _ in range(options.runs):
            stored = child("zarr", folder)
            print(json.dumps(stored), flush=True)
            if options.in_memory:
                held = child("memory", folder)
                print(json.dumps(held), flush=True)
                ratios.append(stored["seconds"] / held["seconds"])
    if ratios:
        print(f"to OME-Zarr, it takes {statistics.median(ratios):.3f} times as long as in memory")


if __name__ == "__main__":
    main()
