"""A training without a network, for tests of all that is around it; runs in the child process.

`request.load` says what it does: `steps`, `seconds` per step, `preparing` seconds before, and at
which step to do what.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from napari_cfsr.core.training.config import TrainRequest
from napari_cfsr.core.training.results import (
    Checkpoint,
    Preview,
    Report,
    TrainedRefiner,
    TrainProgress,
)
from napari_cfsr.core.weights.checkpoints import RefinerCard
from napari_cfsr.errors import ImageError, OutOfMemoryError

COMMAND = (
    "-P",
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    "import fake_training; fake_training.main()",
)
CARD = RefinerCard(2, "input", "0" * 64)
FAULTS: dict[str, Callable[[], BaseException]] = {
    "image": lambda: ImageError("expected an image with contrast, got black"),
    "key": lambda: KeyError("weight"),
    "memory": lambda: MemoryError(),
    "engine memory": lambda: OutOfMemoryError("out of memory on cuda: 7 GB"),
    "unpicklable": lambda: type("Odd", (Exception,), {})("odd"),
}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint({"body.0.weight": np.full((32, 3), step, np.float32)}, CARD, step, step / 100)


def iter_train(
    request: TrainRequest,
    check: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[TrainProgress, None, TrainedRefiner]:
    how = request.load
    print("libraries print what they please", flush=True)
    began = time.perf_counter()
    while time.perf_counter() - began < how.get("preparing", 0):
        check()
        time.sleep(0.05)
        yield TrainProgress("preparing", "Preparing", 0.0)
    mean = float(np.mean([source.read().mean() for source in request.data.hr]))
    step = 0
    for step in range(1, how.get("steps", 5) + 1):
        if stop():
            break
        check()
        time.sleep(how.get("seconds", 0.0))
        if step == how.get("fault_at"):
            raise FAULTS[how["fault"]]()
        if step == how.get("kill_at"):
            kill()
        best = preview = None
        if step % how.get("every", 10) == 0:
            best = checkpoint(step)
            image = np.full((8, 8), step, np.float32)
            preview = Preview("an image", image[::2, ::2], image, image.T, image)
        yield TrainProgress(
            "training", f"Step {step}", step / how.get("steps", 5), None, "input", step,
            1 / step, best.gain if best else None, best, preview,
        )  # fmt: skip
    yield TrainProgress("measuring", "Measuring", 0.99)
    state = {"mean": np.float32([mean]), "step": np.float32([step])}
    report, seconds = Report((), "gray", 2, (), (0.5,)), time.perf_counter() - began
    lr, align = len(request.data.lr or ()), "" if request.config.align else "not "
    notes = (f"{lr} measured LR image, {align}to be aligned",) if lr else ()
    return TrainedRefiner(state, CARD, report, True, "Worth it.", notes, seconds=seconds)


def main() -> None:
    """As the real process, without the seconds that torch takes to be imported."""
    from napari_cfsr.core.process import training_server as training_process

    training = types.ModuleType("napari_cfsr.core.training.train")
    training.iter_train = iter_train
    sys.modules[training.__name__] = training
    training_process.main()
