"""What the settings of our processes save: see docs/decisions/0002, and 0012 for large pages.

    python benchmarks/process_settings.py [--pages]

Each figure comes from a process of its own. Needs the official x4 weights.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

PROGRAM = """
import sys, time
import numpy as np
from napari_cfsr import load_model
from napari_cfsr.core.engine import keep_freed_memory
side, keep, runs = (int(a) for a in sys.argv[1:4])
engine, pages = sys.argv[4:]
if keep:
    keep_freed_memory()
if pages == "small":
    from napari_cfsr.core.engine import openvino_engine
    openvino_engine.ask_for_large_pages = lambda: None
model = load_model(4, "official", refiner=None, device="cpu", engine=engine)
image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
model.predict(image)
times = []
for _ in range(runs):
    began = time.perf_counter()
    model.predict(image)
    times.append(time.perf_counter() - began)
print(sorted(times)[len(times) // 2])
"""


def median(
    side: int,
    keep: bool,
    runs: int = 5,
    policy: str | None = None,
    engine: str = "torch",
    pages: str = "large",
) -> float:
    """Seconds that an image of `side` x `side` takes."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-c", PROGRAM, str(side), str(int(keep)), str(runs), engine, pages]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(run.stdout)


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other programs that compute with two threads each, as any with OpenMP does."""
    program = "import torch; x = torch.rand(500, 500)\nwhile True: x @ x"
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", action="store_true", help="large pages only, with OpenVINO")
    if parser.parse_args().pages:
        print("| 240x240, s, small pages | large pages |\n|---|---|")
        for _ in range(7):
            seconds = [median(240, True, 15, "PASSIVE", "openvino", p) for p in ("small", "large")]
            print(f"| {seconds[0]:.3f} | {seconds[1]:.3f} |", flush=True)
        return
    print("| side | as it comes, us per pixel | large blocks kept |\n|---|---|---|")
    for side in (128, 256, 384, 576):
        per_pixel = [median(side, keep) / side**2 * 1e6 for keep in (False, True)]
        print(f"| {side} | {per_pixel[0]:.1f} | {per_pixel[1]:.1f} |", flush=True)
    print("\n| side | beside two busy processes, s | without spinning |\n|---|---|---|")
    with busy(2):
        for side in (32, 320):
            seconds = [median(side, True, policy=policy) for policy in (None, "PASSIVE")]
            print(f"| {side} | {seconds[0]:.3f} | {seconds[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
