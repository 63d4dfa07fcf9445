"""The steps of the tutorials, one after another, in a window of napari.

Each function does what a page of `docs/tutorials` tells the reader to do, with the controls that it
names, and yields the name of the picture that the page shows at that point. `make_screenshots.py`
takes the pictures, `tests/docs/test_tutorials.py` follows the steps and checks the outcome:
page, pictures and test can't contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from screenshot_tools import instead, pause, press, upscaled, wait

PAGES = Path(__file__).parent / "tutorials"
NAME = "dim nuclei"  # of the refiner that the first tutorial trains


def layer(viewer, name: str):
    return next(x for x in viewer.layers if x.name == name)


def code(page: str) -> str:
    """The Python that a page tells the reader to run."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def microscopy(viewer) -> Iterator[str]:
    """Dim nuclei: what the network makes of noise, and a refiner that knows better."""
    viewer.open_sample("napari-cfsr", "low_light")
    viewer.reset_view()
    yield "microscopy-1-sample"

    widget = instead(viewer, None, "Upscale")
    widget.form.layer.value, widget.form.scale.value = "nuclei camera", 2
    widget.form.refiner.value = "none"
    upscaled(widget)
    close_up(viewer)
    yield "microscopy-2-noise"

    widget.form.refiner.value = next(
        x for x in widget.form.refiner.choices if "fluorescence_low_light" in str(x)
    )
    widget.form.baseline.value = widget.form.difference.value = False
    upscaled(widget)
    yield "microscopy-3-ready-made"

    widget = instead(viewer, widget, "Train")
    widget.form.layers.value = [layer(viewer, "nuclei sharp")]
    widget.form.real.value = layer(viewer, "nuclei camera")
    press(widget, widget.form.estimate_button)
    widget.pages.widget(0).verticalScrollBar().setValue(180)
    yield "microscopy-4-estimated"

    widget.controls.start_button.click()
    wait(lambda: widget.controls.progress.value() > 500, 600)
    yield "microscopy-5-training"
    wait(lambda: not widget.controls.running, 600)
    pause(1)
    yield "microscopy-6-result"

    widget.result.name.setText(NAME)
    press(widget, widget.result.save_button)
    widget.result.use_button.click()  # opens Upscale, with the refiner chosen
    widget = instead(viewer, widget, "Upscale")
    widget.form.layer.value = "nuclei camera"
    upscaled(widget)
    for name in ("preview reference", "preview baseline", "preview delta"):
        viewer.layers.remove(name)
    close_up(viewer)
    yield "microscopy-7-refined"

    widget = instead(viewer, widget, "Quality")
    widget.form.reference.value = layer(viewer, "nuclei truth")
    press(widget, widget.controls.start_button)
    yield "microscopy-8-measured"


def close_up(viewer) -> None:
    """Zoom in on the camera's image."""
    viewer.reset_view()
    viewer.scene.camera.center = (150, 416)
    viewer.scene.camera.zoom *= 2.2
    pause(0.5)


def photos(viewer) -> Iterator[str]:
    """A photo, a compressed one, and a folder of them; files are in the current folder."""
    viewer.open_sample("napari-cfsr", "photo")
    widget = instead(viewer, None, "Upscale")
    viewer.reset_view()
    upscaled(widget)
    yield "photos-1-upscaled"

    widget = instead(viewer, widget, "Quality")
    viewer.scene.camera.center, viewer.scene.camera.zoom = (140, 170), 3
    widget.pages.setCurrentIndex(2)
    widget.compare.first.value = layer(viewer, "cat LR")
    widget.compare.second.value = layer(viewer, "cat LR x4 delta")
    widget.compare.seconds.value = 0
    widget.compare.blink_button.click()
    widget.compare.switch_button.click()
    yield "photos-2-compared"
    widget.compare.blink_button.click()

    exec(code("photos"), {})
    viewer.layers.clear()
    viewer.open("holiday/coffee.jpg")
    widget = instead(viewer, widget, "Upscale")
    widget.form.scale.value = 4
    widget.form.refiner.value = next(
        x for x in widget.form.refiner.choices if "jpeg_photo" in str(x)
    )
    viewer.reset_view()
    upscaled(widget)
    viewer.scene.camera.zoom *= 2
    yield "photos-3-compressed"

    widget = instead(viewer, widget, "Batch")
    viewer.layers.clear()
    widget.form.scale.value = 4
    widget.form.refiner.value = next(
        x for x in widget.form.refiner.choices if "jpeg_photo" in str(x)
    )
    widget.form.images.value = Path("holiday").resolve()
    widget.form.results.value = Path("larger").resolve()
    wait(lambda: widget.controls.start_button.isEnabled())
    press(widget, widget.controls.start_button)
    widget.table.cellDoubleClicked.emit(0, 0)
    wait(lambda: len(viewer.layers) > 0)
    viewer.reset_view()
    yield "photos-4-batch"
