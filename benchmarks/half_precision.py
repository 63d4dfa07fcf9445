"""What fast precision costs in PSNR, on any machine: half precision is emulated if necessary.

    python benchmarks/half_precision.py DATA [--datasets Set5 Set14 B100] [--float16]

DATA contains the data sets in EDSR layout. Y PSNR at x4 with the official weights, a border of 4
ignored, results clipped but not rounded. Emulation rounds as the hardware does but may sum in
another order, and it is slow: the figures show accuracy, not speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.engine import torch_engine
from napari_cfsr.core.engine.registry import ENTRIES
from napari_cfsr.core.engine.torch_engine import TorchEngine
from napari_cfsr.core.weights import official_path, open_backbone

Predict = Callable[[np.ndarray], np.ndarray]


def torch_in(dtype: torch.dtype | None) -> Predict:
    """Torch on the CPU with its convolutions in half precision."""
    found = torch_engine.half_type
    torch_engine.half_type = lambda _: dtype
    try:
        path = official_path(4)
        assert path is not None, "name the folder of the official weights in NAPARI_CFSR_WEIGHTS"
        precision = "float32" if dtype is None else "fast"
        engine = TorchEngine(open_backbone(path), None, "output", "cpu", precision)
    finally:
        torch_engine.half_type = found
    return lambda x: engine.run(x, ("baseline",), lambda: None)["baseline"]


def openvino_in_bfloat16() -> Predict:
    model = nc.load_model(4, "official", refiner=None, device="cpu", engine="openvino")
    model._engine._type = "bf16"  # type: ignore[attr-defined]
    return lambda x: model.predict(x)["baseline"]


def images(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """LR and HR, [h,w,3] in [0,1]."""
    pairs = []
    for path in sorted((folder / "LR_bicubic" / "X4").iterdir()):
        name = path.name.replace("x4", "")
        lr, hr = (
            np.asarray(Image.open(p).convert("RGB"), np.float32) / 255
            for p in (path, folder / "HR" / name)
        )
        pairs.append((lr, hr[: 4 * lr.shape[0], : 4 * lr.shape[1]]))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--datasets", nargs="+", default=["Set5", "Set14", "B100"])
    parser.add_argument("--float16", action="store_true", help="float16, too; 1 ms per LR pixel")
    options = parser.parse_args()
    ways = {
        "float32": torch_in(None),
        "torch, bfloat16": torch_in(torch.bfloat16),
    }
    if options.float16:
        ways["torch, float16"] = torch_in(torch.float16)
    if ENTRIES["openvino"].installed:
        ways["OpenVINO, bfloat16"] = openvino_in_bfloat16()
    print("| data | " + " | ".join(ways) + " |\n" + "|---" * (len(ways) + 1) + "|")
    for name in options.datasets:
        found: dict[str, list[float]] = {way: [] for way in ways}
        for lr, hr in images(options.data / name):
            batch = np.ascontiguousarray(np.moveaxis(lr, -1, 0)[None])
            for way, predict in ways.items():
                out = np.moveaxis(predict(batch)[0], 0, -1).clip(0, 1)
                found[way].append(nc.psnr(out, hr, shave=4, channel="Y", data_range=1.0))
        means = {way: float(np.mean(values)) for way, values in found.items()}
        exact = means.pop("float32")
        cells = [f"{exact:.4f}", *(f"{m:.4f} ({m - exact:+.4f})" for m in means.values())]
        print(f"| {name} x4 | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
