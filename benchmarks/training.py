"""Where a refiner pays: train on real images, measure on held-out ones, beside classical rivals.

    python benchmarks/training.py DATA [--cases fluorescence photos ...] [--seeds 10] [--json FILE]

DATA is laid out as the development data: `microscopy/sim`, `microscopy/nuclei_dsb2018`,
`microscopy/em_sstem`, `train/photos`. Prints a row for each case: seconds from the call to the
first measurement of held-out images (reading and preparing included), the placement, and mean
PSNR on the held-out images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.data import folder_data
from napari_cfsr.core.training.request import TrainRequest
from napari_cfsr.core.training.results import TrainedRefiner
from napari_cfsr.core.training.train import iter_train

SIM, NUCLEI, EM = "microscopy/sim", "microscopy/nuclei_dsb2018", "microscopy/em_sstem"
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "fluorescence": (SIM, 2, {"photons": 50, "read_noise": 0.01, "reduce": 2}),
    "photos": ("train/photos", 4, {"read_noise": 10 / 255}),
    "nuclei": (NUCLEI, 2, {"photons": 200, "read_noise": 0.02}),
    "em": (EM, 2, {"read_noise": 0.05}),
    "blurred photos": ("train/photos", 2, {"blur": 0.8}),
    "jpeg photos": ("train/photos", 4, {"jpeg": 60}),
    "clean fluorescence": (SIM, 2, {"reduce": 2}),
    "clean photos": ("train/photos", 4, {}),
}


def train(data: Path, case: str, **options: Any) -> tuple[TrainedRefiner, float]:
    """Train; the refiner, and seconds until the measuring began."""
    folder, scale, degradation = CASES[case]
    config = TrainConfig(**{**degradation, **options})
    load = {"scale": scale, "backbone": "official", "download": False}
    steps = iter_train(TrainRequest(folder_data(data / folder), load, config))
    started, trained = time.perf_counter(), None
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value, trained or time.perf_counter() - started
        if progress.stage == "measuring" and trained is None:
            trained = time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=1, help="train with seeds 1 to this")
    parser.add_argument("--placement", choices=("auto", "output", "input"))
    parser.add_argument("--preset", choices=("adapt", "benchmark"), default="adapt")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    names = ("bicubic", "denoised bicubic", "denoised baseline", "baseline", "delta")
    print("| case | seed | seconds | placement | " + " | ".join(names) + " | gain | over rivals |")
    print("|---" * (len(names) + 6) + "|")
    records = []
    for case in arguments.cases:
        for seed in range(1, arguments.seeds + 1):
            trained, seconds = train(
                arguments.data,
                case,
                seed=seed,
                placement=arguments.placement,
                preset=arguments.preset,
            )
            report = trained.report
            found = (report.psnr(name) for name in names)
            rows = " | ".join("" if math.isnan(value) else f"{value:.2f}" for value in found)
            lead = report.psnr("delta") - report.best_rival.psnr
            gain = f"{trained.gain:+.4f}" if trained.improved else "none, identity kept"
            print(
                f"| {case} | {seed} | {seconds:.0f} | {trained.card.placement} | {rows} | {gain} | "
                f"{lead:+.2f} |",
                flush=True,
            )
            records.append({"case": case, "seed": seed, **json.loads(trained.to_json())})
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
