"""Shared by the screenshot scripts: waiting, pressing buttons, and small image files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (1366, 768)  # a small laptop
MOST = 300_000  # bytes per image file


def wait(until: Callable[[], bool], timeout: float = 120.0) -> None:
    """Run the event loop until a condition holds."""
    from qtpy.QtWidgets import QApplication

    began = time.perf_counter()
    while not until():
        QApplication.instance().processEvents()
        time.sleep(0.001)
        if time.perf_counter() - began > timeout:
            raise TimeoutError


def pause(seconds: float) -> None:
    began = time.perf_counter()
    wait(lambda: time.perf_counter() - began > seconds)


def press(widget, button, timeout: float = 120.0) -> None:
    """Press a button and wait until its run is over."""
    button.click()
    wait(lambda: not widget.controls.running, timeout)
    pause(0.5)


def upscaled(widget) -> None:
    """Press Upscale and wait for the layers."""
    widget.controls.start_button.click()
    wait(lambda: not widget.controls.running and not widget._pending)
    pause(0.5)


def instead(viewer, widget, name: str):
    """Close a widget and open another."""
    if widget is not None:
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()  # as when the user closes it; its process ends with it
    _, other = viewer.window.add_plugin_dock_widget("napari-cfsr", name)
    pause(0.5)
    return other


def photograph(viewer, path: Path) -> None:
    """Save the whole window as a small file."""
    pause(1)
    window = viewer.window.screenshot(None, canvas_only=False, flash=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    for exact, others in ((64, 192), (64, 64), (48, 16)):
        in_few_colours(window[..., :3], exact, others).save(path, optimize=True)
        if path.stat().st_size <= MOST:
            return
    raise SystemExit(f"expected at most {MOST} bytes, got {path.stat().st_size}: {path}")


def in_few_colours(pixels: np.ndarray, exact: int, others: int) -> Image.Image:
    """Reduce to a palette; the most frequent colours, those of the window, stay exact."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:exact]
    rest = np.repeat(
        colours, np.minimum(counts, 20), axis=0
    )  # limit the weight of a plain background
    found = Image.fromarray(rest[np.newaxis]).quantize(others, Image.Quantize.MEDIANCUT)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colours[frequent].ravel().tolist(), *found.getpalette()[: 3 * others]])
    return Image.fromarray(np.ascontiguousarray(pixels)).quantize(
        palette=palette, dither=Image.Dither.FLOYDSTEINBERG
    )
