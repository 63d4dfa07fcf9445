"""Time of a training step of a backbone on the CPU: torch alone, and in threads and strips.

    python benchmarks/backbone_steps.py [--batch 16] [--patch 32] [--scale 2]

Prints microseconds for each LR pixel: loss and gradients of random patches, median of interleaved
runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_cfsr.core.backbone.initial_weights import fresh
from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.network.cfsr import CFSRConfig
from napari_cfsr.core.network.cpu_gradients import Gradients, depthwise

RUNS = 7


def medians(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, after one run to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(RUNS + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if round_:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--scale", type=int, default=2)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    n, p = arguments.batch, arguments.patch
    config = CFSRConfig(scale=arguments.scale)
    lr = torch.rand(n, 3, p, p).contiguous(memory_format=torch.channels_last)
    hr = torch.rand(n, 3, p * config.scale, p * config.scale)
    hr = hr.contiguous(memory_format=torch.channels_last)

    def step(network: nn.Module, gradients: Gradients | None, low: bool) -> Callable[[], object]:
        def loss(x: Tensor, y: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                sr = network(x)
            return F.l1_loss(sr.float(), y)

        if gradients is not None:
            return lambda: gradients.compute(loss, lr, hr)
        return lambda: torch.autograd.grad(loss(lr, hr), list(network.parameters()))

    runs = {}
    for how in ("torch alone", "threads and strips"):
        network = fresh(config).to(memory_format=torch.channels_last)
        gradients = None if how == "torch alone" else Gradients(network, "cpu")
        for low in (False, True):
            runs[f"{how}, {'bfloat16' if low else 'float32'}"] = step(network, gradients, low)
    for name, seconds in medians(runs).items():
        print(f"{name:32} {1e6 * seconds / (n * p * p):6.1f} us for each LR pixel")

    torch.set_num_threads(1)  # as each thread runs a layer alone
    conv = nn.Conv2d(48, 48, 9, padding=4, groups=48)
    x = torch.rand(8, 48, 32, 32).contiguous(memory_format=torch.channels_last)
    upstream = torch.rand_like(x)
    convolutions = {"torch alone": conv, "strips": lambda x: depthwise(x, conv)}
    found = medians(
        {
            name: lambda run=run: torch.autograd.grad(run(x), conv.weight, upstream)
            for name, run in convolutions.items()
        }
    )
    for name, seconds in found.items():
        print(
            f"9x9 depthwise and its weight gradient, {name:12} {1e3 * seconds:6.2f} ms, one thread"
        )


if __name__ == "__main__":
    main()
