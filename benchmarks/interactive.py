"""What a user waits for: import, opening the widget, stalls of the window, cancelling.

    python benchmarks/interactive.py [--json FILE]

Needs a display (Xvfb will do) and the official weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNS = 5


def import_seconds() -> float:
    """Median over new processes, without the start of the interpreter."""
    code = (
        "import time; t = time.perf_counter(); import napari_cfsr; print(time.perf_counter() - t)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        for _ in range(RUNS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def wait(until: Callable[[], bool], timeout: float = 120.0) -> float:
    """Run the event loop, as napari does, until a condition holds; returns the seconds it took.

    Checked every 10 ms: a loop that never sleeps would take a core from the network.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    began = time.perf_counter()
    loop, timer, held = QEventLoop(), QTimer(), []

    def ask() -> None:
        if time.perf_counter() - began > timeout:
            loop.quit()
        elif until():
            held.append(time.perf_counter() - began)
            loop.quit()

    timer.timeout.connect(ask)
    timer.start(10)
    loop.exec()
    timer.stop()
    if not held:
        raise TimeoutError
    return held[0]


class Stalls:
    """Seconds between iterations of the event loop."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self.gaps: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(5)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(now - self._last)
        self._last = now

    def worst(self) -> float:
        """The longest since the last call of this method."""
        worst, self.gaps = max(self.gaps), []
        return worst


def in_window() -> dict[str, float]:
    """Everything that needs a viewer."""
    import napari

    from napari_cfsr.widgets.upscaling.widget import UpscaleWidget

    viewer = napari.Viewer()
    image = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3)).astype(np.uint8)
    viewer.add_image(image, name="image")
    began = time.perf_counter()
    widget = UpscaleWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Upscale")
    figures = {"open the widget, s": time.perf_counter() - began}
    widget.form.scale.value = 4
    wait(lambda: time.perf_counter() - began > 1)
    stalls = Stalls()
    controls = widget.controls
    wait(lambda: bool(stalls.gaps))
    stalls.worst()
    for what in ("starting the model process", "again"):
        controls.start_button.click()
        figures[f"1024x1024 RGB x4, {what}, s"] = wait(lambda: not controls.running)
        figures[f"longest stall during that, {what}, s"] = stalls.worst()
        now = time.perf_counter()
        wait(lambda: not widget._pending and time.perf_counter() - now > 2)  # noqa: B023
        figures[f"longest stall while the layers are added, {what}, s"] = stalls.worst()
        widget.form.layer.value = "image"
    controls.start_button.click()
    wait(lambda: "left" in controls.progress.format())
    controls.cancel_button.click()
    figures["cancel, s"] = wait(lambda: not controls.running)
    figures["torch imported in napari's process"] = float("torch" in sys.modules)
    viewer.close()
    return figures


def measuring() -> dict[str, float]:
    """Measuring and mapping an image of 4096x4096 in the Quality widget."""
    import napari
    import psutil

    from napari_cfsr.widgets.quality.widget import QualityWidget

    viewer = napari.Viewer()
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 255, (4096, 4096), np.uint8)
    viewer.add_image(reference, name="reference")
    viewer.add_image(reference ^ rng.integers(0, 8, reference.shape, np.uint8), name="image")
    widget = QualityWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Quality")
    reference_layer, image = viewer.layers
    widget.form.reference.value = reference_layer
    widget.form.layers.tick([image])
    widget.form.layers.changed.emit()
    began = time.perf_counter()
    wait(lambda: time.perf_counter() - began > 1)
    stalls, controls, memory = Stalls(), widget.controls, psutil.Process()
    figures = {}
    for what, button, handler in (
        ("PSNR and SSIM of 4096x4096", controls.start_button, "_on_measured"),
        ("SSIM map of 4096x4096", widget.result.ssim_button, "_on_map"),
    ):
        wait(lambda: len(stalls.gaps) > 10)
        stalls.worst()
        before, most, worst = memory.memory_info().rss, [0], []
        method = getattr(widget, handler)

        def handle(outcome: Any) -> str:
            worst.append(stalls.worst())  # noqa: B023
            text: str = method(outcome)  # noqa: B023
            return text

        setattr(widget, handler, handle)

        def done() -> bool:
            most.append(memory.memory_info().rss - before)  # noqa: B023
            return not controls.running

        button.click()
        figures[f"{what}, s"] = wait(done)
        figures[f"longest stall during that, {what}, s"] = worst[0]
        figures[f"additional memory, {what}, GB"] = max(most) / 1e9
    figures["total memory, GB"] = memory.memory_info().rss / 1e9
    viewer.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        import os

        os.environ["NAPARI_CFSR_HOME"] = home
        figures = {"import napari_cfsr, s": import_seconds(), **in_window(), **measuring()}
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
