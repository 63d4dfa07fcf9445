"""How much longer an evaluation takes than the model alone.

    python benchmarks/evaluation_speed.py DATA [--dataset Set5] [--scale 4] [--repeats 5]

Baseline and delta of all images by calls of `upscale`, one after the other, then the same images by
`evaluate`: reading, bicubic, PSNR and SSIM as they are and in 8 bits. The least of the repeats in
seconds, by the clock and of the processor, and their ratios. On a machine that does other things
too, only the latter means anything.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.engine.model import SRModel
from napari_cfsr.core.evaluate.data_sets import find_dataset
from napari_cfsr.core.evaluate.run import EvaluateOptions, evaluate

Seconds = tuple[float, float]  # by the clock, of the processor


def timed(call: Callable[[], object]) -> Seconds:
    """How long a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - processor


def compare(options: EvaluateOptions, model: SRModel, repeats: int) -> tuple[Seconds, Seconds]:
    """Least seconds of the model alone, and of the evaluation, by turns."""
    found = find_dataset(options.data, options.datasets[0], options.scale)
    images = [image.read(options.scale).lr for image in found.images[: options.limit]]

    def model_alone() -> None:
        for lr in images:
            upscale(lr, model, axes="YXS", outputs=model.info.outputs, intensity="dtype")

    evaluate(options, model)  # imports, caches
    pairs = [(timed(model_alone), timed(lambda: evaluate(options, model))) for _ in range(repeats)]
    alone, whole = np.array(pairs).min(0).tolist()
    return tuple(alone), tuple(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--dataset", default="Set5")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    model = load_model(options.scale, device="cpu")
    asked = EvaluateOptions(options.data, (options.dataset,), options.scale)
    alone, whole = compare(asked, model, options.repeats)
    for kind, a, b in zip(("clock", "processor"), alone, whole, strict=True):
        print(f"{kind}: model alone {a:.3f} s, evaluation {b:.3f} s, ratio {b / a:.3f}")


if __name__ == "__main__":
    main()
