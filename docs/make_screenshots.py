"""Make the screenshots of the docs from the running program.

    python docs/make_screenshots.py FLUORESCENCE

FLUORESCENCE is an 8-bit image of nuclei, such as one of BBBC038 (CC0). Needs a display (Xvfb will
do) and the official weights. Writes to `docs/images`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).parent / "images"
SIZE = (1366, 768)  # a small laptop


def wait(until: Callable[[], bool], timeout: float = 120.0) -> None:
    """Run the event loop until something holds."""
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


def save(viewer, name: str) -> None:
    """The whole window, as it is."""
    pause(1)
    viewer.window.screenshot(str(IMAGES / f"{name}.png"), canvas_only=False, flash=False)


def open_viewer():
    """A window of the size of a small laptop's screen, with the Upscale widget."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", "Upscale")
    return viewer, widget


def upscaled(widget, layer: str, scale: int) -> None:
    """Press Upscale and wait for the layers."""
    widget.form.layer.value, widget.form.scale.value = layer, scale
    widget.controls.start_button.click()
    wait(lambda: not widget.controls.running and not widget._pending)
    pause(0.5)


def photo() -> None:
    """The sample photo: widget and result, then all layers side by side, then Advanced."""
    viewer, widget = open_viewer()
    viewer.open_sample("napari-cfsr", "photo")
    viewer.reset_view()
    save(viewer, "photo-before")
    upscaled(widget, "cat LR", 4)
    viewer.canvas.overlays.scale_bar.visible = True
    save(viewer, "photo-after")
    widget.advanced.expand(animate=False)
    save(viewer, "widget-advanced")
    widget.advanced.collapse(animate=False)
    for layer in viewer.layers:
        layer.visible = True
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    save(viewer, "photo-layers")
    viewer.close()


def fluorescence(path: Path) -> None:
    """Nuclei with a pixel size, upscaled four times; the result in grid mode beside the input."""
    from PIL import Image

    viewer, widget = open_viewer()
    image = np.asarray(Image.open(path).convert("L"))
    viewer.add_image(
        image, name="nuclei", colormap="cyan", scale=(0.65, 0.65), units=("um", "um"),
        contrast_limits=(int(image.min()), int(np.percentile(image, 99.9))),
    )  # fmt: skip
    viewer.canvas.overlays.scale_bar.visible = True
    upscaled(widget, "nuclei", 4)
    viewer.reset_view()
    save(viewer, "fluorescence-after")
    for layer in viewer.layers:
        layer.visible = True
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    save(viewer, "fluorescence-layers")
    viewer.close()


def running() -> None:
    """A run under way, and a form that says why it can't start."""
    from skimage import data

    viewer, widget = open_viewer()
    save(viewer, "widget-no-image")
    viewer.add_image(data.retina(), name="retina")
    widget.form.scale.value = 4
    widget.controls.start_button.click()
    wait(lambda: widget.controls.progress.value() > 100)
    save(viewer, "widget-running")
    widget.controls.cancel_button.click()
    wait(lambda: not widget.controls.running)
    viewer.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_CFSR_HOME"] = home
        photo()
        fluorescence(Path(sys.argv[1]))
        running()


if __name__ == "__main__":
    main()
