"""How fast everything is on this machine: tables and, optionally, JSON.

    python benchmarks/run.py [--parts network images training start memory] [--json FILE]

Runs the contenders in turn, round after round, and prints medians and their ratios: the speed of a
machine drifts, ratios do not. Needs the official x4 weights (NAPARI_CFSR_WEIGHTS); ONNX Runtime is
measured if it is installed and the authors' CFSRx4.onnx is in the same folder. Without options it
takes ten minutes on two cores; `--parts images --sizes 4096x4096` takes ten more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as in our programs

import numpy as np
import psutil
import torch
from contenders import MATRIX, MATRIX_SIDE, ONNX, REFERENCE, REFINERS, Contender

import napari_cfsr as nc
from napari_cfsr.core.engine import SRModel, keep_freed_memory
from napari_cfsr.core.engine.registry import ENTRIES
from napari_cfsr.core.weights import official_path

PARTS = ("network", "images", "training", "start", "memory")
SIZE = (180, 320)  # height and width, LR pixels: to 1280x720
OPERATIONS = 2 * 17.5e9  # of the backbone at x4 for that size
ALL = ("baseline", "delta", "difference")
Run = Callable[[], float]  # returns the seconds it took


def medians(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each as it reports them, run in turn; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def timed(call: Callable[[], Any]) -> float:
    """Seconds a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a Markdown table."""
    for row in [header, ["---"] * len(header), *rows]:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def engines(extra: bool) -> list[str]:
    """Those that can run here."""
    return [
        "torch",
        *(["torch-compile"] if extra else []),
        *(["openvino"] * ENTRIES["openvino"].installed),
    ]


def load(engine: str, **options: Any) -> SRModel:
    device = "cuda" if engine.startswith("torch") and torch.cuda.is_available() else "cpu"
    return nc.load_model(4, "official", engine=engine, device=device, **options)


def weights() -> Path:
    path = official_path(4)
    if path is None:
        sys.exit("needs the official x4 weights: name their folder in NAPARI_CFSR_WEIGHTS")
    return path


def network(options: argparse.Namespace) -> dict[str, Any]:
    """The network alone on one image, each contender in its own process."""
    names = [REFERENCE, f"{REFERENCE}, our settings"]
    for engine in engines(options.compile):
        names += [engine, f"{engine}, fast"]
    names += ["auto, gray", *(f"auto, delta, refiner at the {place}" for place in REFINERS)]
    names += [MATRIX, ONNX]
    if ENTRIES["openvino"].installed:
        load("openvino", refiner=None)  # weights as arrays are kept: its process needs no torch
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for number, name in enumerate(names):
            output = Path(folder, f"{number}.npy")
            one = stack.enter_context(closing(Contender(name, weights(), SIZE, output)))
            if one.note:
                print(f"{name}: {one.note}\n")
            else:
                contenders[name] = one
        expected = contenders[REFERENCE].output()
        alike = [n for n in contenders if n == ONNX or n.split(", ")[0] in engines(True)]
        errors = {n: float(np.abs(contenders[n].output() - expected).max()) for n in alike}
        seconds = medians({n: one.run for n, one in contenders.items()}, options.rounds)
    share = OPERATIONS / (2 * MATRIX_SIDE**3)
    seconds["a float32 matrix product of as many operations"] = seconds.pop(MATRIX) * share
    first = seconds[REFERENCE]
    rows = [
        [name, f"{s:.3f}", f"{first / s:.2f}", f"{errors[name]:.0e}" if name in errors else ""]
        for name, s in seconds.items()
    ]
    print(f"x4, {SIZE[1]}x{SIZE[0]} to {4 * SIZE[1]}x{4 * SIZE[0]}, the network alone\n")
    table(["how", "seconds", "times faster", "greatest difference"], rows)
    return {"seconds": seconds, "difference": errors}


def timed_upscale(
    model: SRModel, image: np.ndarray, outputs: tuple[str, ...], tile: int | None
) -> dict[str, Any]:
    """Seconds of `upscale`, and of its calls of the network."""
    calls: list[float] = []
    predict = model.predict

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = predict(*arguments)
        calls.append(time.perf_counter() - began)
        return result

    model.predict = timed  # type: ignore[method-assign]
    try:
        began = time.perf_counter()
        result = nc.upscale(image, model, outputs=outputs, tile=tile)
        seconds = time.perf_counter() - began
    finally:
        del model.predict  # type: ignore[attr-defined]
    return {"seconds": seconds, "calls": sum(calls), "tile": result.options.tile}


def single_tile_rates(sides: tuple[int, ...], rounds: int) -> dict[int, float]:
    """LR pixels per second for an image of a single tile, by side length."""
    rng = np.random.default_rng(0)
    images = {side: rng.random((1, 3, side, side), np.float32) for side in sides}
    # a model for each: one keeps at most two compiled shapes
    models = {side: load("auto", refiner=None) for side in sides}
    runs: dict[str, Run] = {
        str(side): lambda s=side, x=x: timed(lambda: models[s].predict(x))
        for side, x in images.items()
    }
    return {int(side): int(side) ** 2 / s for side, s in medians(runs, rounds).items()}


def images(options: argparse.Namespace) -> dict[str, Any]:
    """`upscale` end to end, compared with its calls of the network and the rate of single tiles."""
    rng = np.random.default_rng(0)
    model = load("auto", refiner="clean_official_x4")
    # the largest one is the size that the default tile reads
    rates = single_tile_rates((96, 192, 320, 576), options.rounds)
    print("One image in one tile, LR pixels per second\n")
    table(["side", "pixels/s"], [[side, f"{rate:,.0f}"] for side, rate in rates.items()])
    record: dict[str, Any] = {"single_tile": rates, "images": []}
    rows = []
    for size in options.sizes:
        width, height = (int(n) for n in size.split("x"))
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        repeats = 1 if width * height > 2**21 else min(options.rounds, 3)
        for outputs in [o for o in (("baseline",), ALL) if not options.baseline or len(o) == 1]:
            each = [timed_upscale(model, image, outputs, options.tile) for _ in range(repeats)]
            each.sort(key=lambda one: one["seconds"])
            one = each[len(each) // 2]
            rate = height * width / one["seconds"]
            share = one["seconds"] / one["calls"]
            record["images"].append({"size": size, "outputs": outputs, **one, "rate": rate})
            rows.append(
                [size, ", ".join(outputs), one["tile"], f"{one['seconds']:.2f}", f"{share:.3f}",
                 f"{rate:,.0f}", f"{rate * 16 / 1e6:.2f}",
                 f"{rate / rates[576]:.0%}", f"{rate / rates[96]:.0%}"]
            )  # fmt: skip
    print(f"`upscale` at x4, {model.info.engine} on {model.info.device}\n")
    table(
        ["image", "outputs", "tile", "seconds", "over its model calls", "LR pixels/s",
         "megapixels/s out", "of one tile of 576", "of one of 96"],
        rows,
    )  # fmt: skip
    return record


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of the published refiner: batch 16, patches of 64 output pixels."""
    from napari_cfsr.core.training import TrainRequest, iter_train
    from napari_cfsr.core.training.data import array_data

    rng = np.random.default_rng(0)
    photos = [rng.random((256, 256, 3), np.float32) for _ in range(8)]
    steps = 40 * options.rounds
    config = nc.TrainConfig(
        preset="benchmark", placement="output", steps=steps, every=10 * steps, seed=1
    )
    request = TrainRequest(
        array_data(photos), {"scale": 4, "backbone": "official", "download": False}, config
    )
    times: list[float] = []
    for progress in iter_train(request):
        if progress.stage == "training" and progress.loss is not None and progress.gain is None:
            times.append(time.perf_counter())
    seconds = statistics.median(np.diff(times[10:]))
    print("Training the published refiner: batch 16, patches of 64, cutting patches included\n")
    table(["steps", "steps per second"], [[len(times), f"{1 / seconds:.1f}"]])
    return {"steps": len(times), "steps_per_second": 1 / seconds}


def start(options: argparse.Namespace) -> dict[str, Any]:
    """The command line on a small image: the first start, then later ones."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        image = home / "image.png"
        from PIL import Image

        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
        record: dict[str, Any] = {}
        for engine in engines(False):
            environment = {**os.environ, "NAPARI_CFSR_HOME": str(home / engine)}
            command = [
                sys.executable, "-m", "napari_cfsr.cli", "upscale", str(image), "--overwrite",
                "--scale=4", "--backbone=official", f"--engine={engine}", "--output",
                str(home / "o"),
            ]  # fmt: skip
            seconds = []
            for _ in range(options.rounds + 1):
                began = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                seconds.append(time.perf_counter() - began)
            record[engine] = {"first": seconds[0], "later": statistics.median(seconds[1:])}
    print("`napari-cfsr upscale` of 64x64 at x4: from start to exit of the process\n")
    table(
        ["engine", "first start, s", "later, s"],
        [[name, f"{r['first']:.2f}", f"{r['later']:.2f}"] for name, r in record.items()],
    )
    return record


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process that upscales 2048x2048, by engine and outputs."""
    del options
    script = Path(__file__).with_name("memory.py")
    record, rows = {}, []
    for engine in engines(False):
        for outputs in ("baseline", ",".join(ALL)):
            command = [sys.executable, str(script), "--engine", engine, "--outputs", outputs]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            figures = json.loads(run.stdout)
            record[f"{engine}, {outputs}"] = figures
            rows.append([engine, outputs, figures["tile"], figures["peak_gb"], figures["rest_gb"]])
    print("Peak memory of a process that upscales 2048x2048 RGB at x4, GB\n")
    table(["engine", "outputs", "tile", "peak", "without input and outputs"], rows)
    return record


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    named = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = next((x.split(": ")[1] for x in lines if x.startswith("model name")), named)
    versions = {}
    for package in ("napari-cfsr", "torch", "openvino", "onnxruntime", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": named,
        "cores": psutil.cpu_count(logical=False),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", default=["320x180", "1024x1024"], metavar="WxH")
    parser.add_argument("--baseline", action="store_true", help="for images: the baseline only")
    parser.add_argument("--tile", type=int, help="for images: instead of the default tile")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each comparison (9)")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile, too: needs a C++ compiler"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    keep_freed_memory()
    record: dict[str, Any] = {"machine": machine()}
    print(json.dumps(record["machine"]) + "\n", flush=True)
    for part in options.parts:
        record[part] = globals()[part](options)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
