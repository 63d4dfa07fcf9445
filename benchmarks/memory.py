"""Peak memory of upscaling a large image on the CPU.

    python benchmarks/memory.py [--side 2048] [--scale 4] [--engine auto] [--tile N]
        [--outputs baseline,delta,difference]

Prints the peak resident memory of the process, what input and outputs take of it, and the rest.
Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine import ENGINES, keep_freed_memory


def peak_bytes() -> int:
    """Greatest resident memory of this process so far."""
    if sys.platform == "linux":  # ru_maxrss counts the process that started this one, too
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--outputs", help="by default all that the model can give")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    options = parser.parse_args()
    keep_freed_memory()
    image = np.random.default_rng(0).integers(0, 255, (options.side, options.side, 3), np.uint8)
    model = load_model(options.scale, device="cpu", engine=options.engine)
    outputs = tuple(options.outputs.split(",")) if options.outputs else None
    began = time.perf_counter()
    result = upscale(image, model, axes="YXC", outputs=outputs, tile=options.tile)
    arrays = result.arrays()
    out = sum(array.nbytes for array in arrays.values())
    figures = {
        "outputs": list(arrays),
        "peak_gb": round(peak_bytes() / 1e9, 3),
        "input_gb": round(image.nbytes / 1e9, 3),
        "output_gb": round(out / 1e9, 3),
        "rest_gb": round((peak_bytes() - image.nbytes - out) / 1e9, 3),
        "tile": result.options.tile,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
