"""The network as each contender runs it: one process for one of them.

    python benchmarks/contenders.py NAME WEIGHTS WIDTHxHEIGHT OUTPUT

prints a line of JSON when it is ready, runs once for every line on standard input and prints the
seconds that it took; what the first run gives is written to OUTPUT (.npy). `run.py` starts it.
Each is run as it is in earnest: the reference in a process as it comes, our engines with the
settings of our processes and with nothing else in them, OpenVINO without torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = "eager reference"
MATRIX = "matrix product"
ONNX = "ONNX Runtime, the authors' file"
REFINERS = {"output": "clean_official_x4", "input": "noisy_photo_official_x4"}
MATRIX_SIDE = 2048
PAUSE = 0.05  # seconds: threads of the one before may go on waiting for work with a busy core
Run = Callable[[], Any]


class Contender:
    """One of them, ready to run in a process of its own.

    Attributes
    ----------
    note : str
        Why it does not run, if so.
    """

    def __init__(self, name: str, weights: Path, size: tuple[int, int], output: Path) -> None:
        script = [__file__, name, str(weights), f"{size[1]}x{size[0]}", str(output)]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # as our programs set it
        if name == REFERENCE:
            environment.pop("OMP_WAIT_POLICY")
        self._process = subprocess.Popen(
            [sys.executable, *script],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._output = output
        self.note: str = json.loads(self._line())["note"]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return line

    def run(self) -> float:
        """Seconds of one run, by the clock of its process."""
        assert self._process.stdin is not None
        time.sleep(PAUSE)
        with suppress(BrokenPipeError):  # reading says how it ended
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return float(self._line())

    def output(self) -> np.ndarray:
        """What the first run gave."""
        return np.asarray(np.load(self._output))

    def close(self) -> None:
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def reference(weights: Path, image: np.ndarray, ours: bool) -> Run:
    """Eager PyTorch, from the definition; with our settings of memory and threads or without."""
    if ours:
        from napari_cfsr.core.engine import keep_freed_memory

        keep_freed_memory()
    import torch
    from reference import load

    network, x = load(weights), torch.from_numpy(image)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(x))

    return run


def engine(weights: Path, image: np.ndarray, what: str) -> Run | str:
    """One of our engines, as our processes run it: "openvino, delta, refiner at the output"."""
    from napari_cfsr import load_model
    from napari_cfsr.core.engine import keep_freed_memory
    from napari_cfsr.core.engine.model import PredictOptions

    keep_freed_memory()
    name, *details = what.split(", ")
    device = "cpu"
    if name.startswith("torch"):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = next((p for p in REFINERS if f"refiner at the {p}" in details), None)
    precision = "fast" if "fast" in details else "float32"
    refiner = REFINERS[place] if place else None
    model = load_model(4, weights, refiner, device, precision, engine=name)
    if precision == "fast" and model.info.notes:
        return model.info.notes[-1]
    assert place is None or model.info.placement == place
    if "gray" in details:
        image = np.ascontiguousarray(image[:, :1])
    outputs = "baseline" if place is None else "delta"
    return lambda: model.predict(image, PredictOptions((outputs,)))[outputs]


def onnx(weights: Path, image: np.ndarray) -> Run | str:
    """ONNX Runtime on the file that the authors' weights come with."""
    file = weights.parent / "CFSRx4.onnx"
    if not file.is_file():
        return f"{file} is not there"
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    session = onnxruntime.InferenceSession(file)
    return lambda: session.run(None, {"modelInput": image})[0]


def matrix_product() -> Run:
    """Of two squares, by torch."""
    import torch

    square = torch.rand(MATRIX_SIDE, MATRIX_SIDE)
    return lambda: (square @ square).numpy()


def contender(name: str, weights: Path, image: np.ndarray) -> Run | str:
    """How it runs, or why it does not."""
    if name.startswith(REFERENCE):
        return reference(weights, image, name != REFERENCE)
    if name == ONNX:
        return onnx(weights, image)
    return matrix_product() if name == MATRIX else engine(weights, image, name)


def main() -> None:
    name, weights, size, output = sys.argv[1:]
    width, height = (int(n) for n in size.split("x"))
    image = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    run = contender(name, Path(weights), image)
    if isinstance(run, str):
        print(json.dumps({"note": run}), flush=True)
        return
    np.save(output, run())
    print(json.dumps({"note": ""}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
