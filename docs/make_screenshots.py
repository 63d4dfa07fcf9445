"""Make the screenshots of the docs from the running program.

    python docs/make_screenshots.py FLUORESCENCE FOLDER [NAME...]

FLUORESCENCE is an 8-bit image of nuclei, such as one of BBBC038 (CC0). FOLDER holds fluorescence
images (PNG) to train on, oversampled twice, such as SIM reconstructions. NAME is photo,
fluorescence, low_light, running, disk, batch, training, noisy, quality, themes, or microscopy or
photos for a tutorial; without, all are made. Needs a display (Xvfb will do) and, but for the
tutorials, the official weights. Writes to `docs/images`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tutorial_steps
from screenshot_tools import SIZE, instead, pause, photograph, press, upscaled, wait

IMAGES = Path(__file__).resolve().parent / "images"


def save(viewer, name: str) -> None:
    photograph(viewer, IMAGES / f"{name}.png")


def napari_viewer():
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    return viewer


def open_viewer(name: str = "Upscale"):
    """A viewer as large as a small laptop's screen, with a widget."""
    viewer = napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-cfsr", name)
    return viewer, widget


def photo() -> None:
    """The sample photo: widget and result, then all layers side by side, then Advanced."""
    viewer, widget = open_viewer()
    viewer.open_sample("napari-cfsr", "photo")
    viewer.reset_view()
    save(viewer, "photo-before")
    widget.form.layer.value = "cat LR"
    upscaled(widget)
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
    widget.form.layer.value = "nuclei"
    upscaled(widget)
    viewer.reset_view()
    save(viewer, "fluorescence-after")
    for layer in viewer.layers:
        layer.visible = True
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    save(viewer, "fluorescence-layers")
    viewer.close()


def low_light() -> None:
    """The picture of the README: a dim image, baseline, delta and difference side by side."""
    viewer, widget = open_viewer()
    viewer.open_sample("napari-cfsr", "low_light")
    for name in ("nuclei sharp", "nuclei truth"):
        viewer.layers.remove(name)
    widget.form.scale.value = 2
    widget.form.refiner.value = next(
        x for x in widget.form.refiner.choices if "fluorescence_low_light" in str(x)
    )
    upscaled(widget)
    for layer in viewer.layers:
        layer.visible = True
    viewer.canvas.grid.enabled = True
    viewer.canvas.grid.shape = (1, 4)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.7
    save(viewer, "low-light-layers")
    viewer.close()


def running() -> None:
    """A run in progress, and a form that shows why it can't start."""
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


def disk() -> None:
    """Tissue upscaled to disk, while the store grows."""
    viewer, widget = open_viewer()
    viewer.open_sample("napari-cfsr", "histology")
    layer = viewer.layers[0]
    tiles = np.tile(layer.data, (5, 5, 1))
    viewer.layers.clear()
    viewer.add_image(tiles, name="tissue")
    widget.form.scale.value = 4
    widget.form.output_to.value = "OME-Zarr on disk"
    widget.form.folder.line_edit.value = os.environ["NAPARI_CFSR_HOME"]
    for output in ("delta", "difference"):
        getattr(widget.form, output).value = False
    widget.controls.start_button.click()
    wait(lambda: widget.controls.progress.maximum() == 1000)
    wait(lambda: widget.controls.progress.value() > 400, 600)
    pause(2)
    viewer.reset_view()
    save(viewer, "disk-growing")
    widget.controls.cancel_button.click()
    wait(lambda: not widget.controls.running)
    viewer.close()


def batch() -> None:
    """A folder of tissue images, one of them broken, nearly done."""
    from PIL import Image

    viewer, widget = open_viewer("Batch")
    viewer.open_sample("napari-cfsr", "histology")
    tissue = viewer.layers[0].data
    viewer.layers.clear()
    folder = Path(os.environ["NAPARI_CFSR_HOME"]) / "slides"
    folder.mkdir()
    for i in range(7):
        Image.fromarray(np.roll(tissue, 60 * i, 0)[:200, :250]).save(folder / f"tissue {i + 1}.png")
    broken = folder / "tissue 4.png"
    broken.write_bytes(broken.read_bytes()[:900])
    widget.form.images.value = folder
    wait(lambda: widget.controls.start_button.isEnabled())  # once the folder is listed
    widget.controls.start_button.click()
    wait(lambda: widget.table.over >= 5, 300)
    widget.table.cellDoubleClicked.emit(0, 0)
    viewer.reset_view()
    widget.table.scrollToTop()
    save(viewer, "batch-running")
    wait(lambda: not widget.controls.running)
    viewer.close()


def training(folder: Path) -> None:
    """The Train widget: fresh, estimating, training, with its result; then the refiners."""
    from napari_cfsr import read_image

    viewer, widget = open_viewer("Train")
    for i, path in enumerate(sorted(folder.glob("*.png"))[:6]):
        viewer.add_image(
            read_image(path).pixels.squeeze(), name=f"cells {i + 1}", colormap="cyan",
            scale=(0.04, 0.04), units=("um", "um"),
        )  # fmt: skip
    widget.form.layers.value = list(viewer.layers)
    widget.form.reduce.value = 2
    viewer.reset_view()
    save(viewer, "train-setup")
    estimating(viewer, widget)
    train(viewer, widget)
    widget.result.save_button.click()
    wait(lambda: not widget.controls.running)
    viewer.window.remove_dock_widget(widget)
    _, refiners = viewer.window.add_plugin_dock_widget("napari-cfsr", "Refiners")
    refiners.table.selectRow(refiners.table.rowCount() - 1)
    save(viewer, "train-refiners")
    viewer.close()


def estimating(viewer, widget) -> None:
    """A real LR image (here a simulated one), the estimate from it, and the preview."""
    from napari_cfsr.core.image.degradation import degrade
    from napari_cfsr.core.image.resize import imresize

    hr = imresize(viewer.layers[0].data, 0.5)
    lr = degrade(hr, 2, photons=50, read_noise=0.01, seed=1)
    viewer.add_image(lr, name="camera", colormap="cyan", scale=(0.16, 0.16), units=("um", "um"))
    widget.form.real.value = next(x for x in viewer.layers if x.name == "camera")
    widget.form.estimate_button.click()
    wait(lambda: not widget.controls.running)
    for layer in viewer.layers:
        layer.visible = layer.name == "camera"
    widget.form.preview_button.click()
    wait(lambda: not widget.controls.running)
    widget.pages.widget(0).verticalScrollBar().setValue(180)
    save(viewer, "train-estimated")
    for name in ("camera", "cells 1 simulated LR x2"):
        viewer.layers.remove(name)


def train(viewer, widget) -> None:
    """A training in progress, and its result."""
    for layer in viewer.layers:
        layer.visible = False
    widget.controls.start_button.click()
    wait(lambda: widget.controls.progress.value() > 700, 600)
    save(viewer, "train-running")
    wait(lambda: not widget.controls.running, 600)
    pause(1)
    save(viewer, "train-result")


def noisy(folder: Path) -> None:
    """Training on noisy layers alone: the form, and the result with the preview."""
    from napari_cfsr import read_image
    from napari_cfsr.core.image.degradation import degrade
    from napari_cfsr.core.image.resize import imresize
    from napari_cfsr.widgets.training.fields import NOISY

    viewer, widget = open_viewer("Train")
    for i, path in enumerate(sorted(folder.glob("*.png"))[:6]):
        sharp = imresize(read_image(path).pixels.squeeze(), 0.5)
        dim = degrade(sharp, 2, photons=50, read_noise=0.01, seed=i)
        levels = np.rint(4000 * dim).astype(np.uint16)
        viewer.add_image(levels, name=f"dim {i + 1}", scale=(0.16, 0.16), units=("um", "um"))
    form = widget.form
    form.layers.value, form.source.value = list(viewer.layers), NOISY[0]
    viewer.reset_view()
    save(viewer, "train-noisy-setup")
    for layer in viewer.layers:
        layer.visible = False
    form.steps.value = 400  # enough to see
    widget.controls.start_button.click()
    wait(lambda: not widget.controls.running, 600)
    pause(1)
    save(viewer, "train-noisy-result")
    viewer.close()


def quality(folder: Path) -> None:
    """The Quality widget: a photo measured, mapped and blinking; a stack slice by slice."""
    viewer, upscale = open_viewer()
    viewer.open_sample("napari-cfsr", "photo")
    viewer.reset_view()
    upscale.form.layer.value = "cat LR"
    upscaled(upscale)
    widget = instead(viewer, upscale, "Quality")
    viewer.reset_view()
    save(viewer, "quality-setup")
    press(widget, widget.controls.start_button)
    press(widget, widget.result.error_button)
    save(viewer, "quality-result")
    viewer.scene.camera.zoom *= 2
    widget.pages.setCurrentIndex(2)
    widget.compare.first.value = next(x for x in viewer.layers if x.name == "cat HR")
    widget.compare.blink_button.click()
    pause(0.9)  # the second of the two is shown
    widget.compare.seconds.value = 0
    save(viewer, "quality-blink")
    widget.compare.blink_button.click()
    viewer.close()
    quality_of_stack(folder)


def quality_of_stack(folder: Path) -> None:
    """A stack of fluorescence images at low light, reduced, upscaled, and measured."""
    from napari_cfsr import read_image
    from napari_cfsr.core.image.degradation import degrade
    from napari_cfsr.core.image.resize import imresize

    viewer, upscale = open_viewer()
    files = sorted(folder.glob("*.png"))[-8:]
    images = [read_image(path).pixels.squeeze()[:440, :440] for path in files]
    hr = np.stack(
        [np.clip(imresize(image, 0.5) / 255, 0, 1).astype(np.float32) for image in images]
    )
    lr = np.stack(
        [degrade(plane, 2, photons=50, read_noise=0.01, seed=i) for i, plane in enumerate(hr)]
    )
    look = {"colormap": "cyan", "contrast_limits": (0, 0.8), "units": ("um",) * 3}
    viewer.add_image(hr, name="cells HR", scale=(0.2, 0.08, 0.08), **look)
    place = {"scale": (0.2, 0.16, 0.16), "translate": (0, 0.04, 0.04)}
    viewer.add_image(lr, name="cells LR", **place, **look)
    upscale.form.scale.value = 2
    fitting = [x for x in upscale.form.refiner.choices if "fluorescence" in str(x)]
    upscale.form.refiner.value = fitting[0] if fitting else "auto"
    upscale.form.layer.value = "cells LR"
    upscaled(upscale)
    widget = instead(viewer, upscale, "Quality")
    viewer.reset_view()
    press(widget, widget.controls.start_button)
    wait(lambda: widget.result.plot.drawn > 0)
    pause(1)
    save(viewer, "quality-stack")
    viewer.close()


def tutorial(steps: Callable) -> None:
    """The pictures of a tutorial, with bundled weights only, as after a fresh installation."""
    before, here = dict(os.environ), Path.cwd()
    os.environ.pop("NAPARI_CFSR_WEIGHTS", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CFSR_HOME"] = str(Path(folder) / "home")
        pictures = Path(folder) / "Pictures"  # where the tutorial's files are made
        pictures.mkdir()
        os.chdir(pictures)
        viewer = napari_viewer()
        for name in steps(viewer):
            save(viewer, f"tutorials/{name}")
        viewer.close()
        os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


def themes() -> None:
    """All widgets in napari's dark and light theme."""
    for theme in ("dark", "light"):
        for name in ("Upscale", "Batch", "Train", "Refiners", "Quality"):
            viewer, widget = open_viewer(name)
            viewer.theme = theme
            {"Batch": fill_batch, "Quality": fill_quality}.get(name, fill)(viewer, widget)
            save(viewer, f"themes-{name.lower()}-{theme}")
            if name == "Upscale":
                preferences(viewer, IMAGES / f"themes-preferences-{theme}.png")
            viewer.close()


def preferences(viewer, path: Path) -> None:
    """The page of napari's Preferences."""
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog

    dialog = PreferencesDialog(viewer.window._qt_window)
    dialog._list.setCurrentRow(dialog._list.count() - 1)
    dialog.resize(1065, 470)
    dialog.show()
    pause(1)
    dialog.grab().save(str(path))
    dialog.accept()


def fill(viewer, _) -> None:
    """An image of cells to look at."""
    viewer.open_sample("napari-cfsr", "cell")
    viewer.reset_view()


def fill_batch(viewer, widget) -> None:
    """A folder of cells, one of them broken, upscaled."""
    from PIL import Image

    fill(viewer, widget)
    home = Path(tempfile.mkdtemp(dir=os.environ["NAPARI_CFSR_HOME"]))
    folder = home / "cells in phase microscopy"  # as long as the field
    folder.mkdir()
    pixels = np.asarray(viewer.layers[0].data)
    for i in range(5):
        Image.fromarray(pixels[:60, i : i + 70]).save(folder / f"cell {i + 1}.png")
    broken = folder / "cell 3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    widget.form.images.value = folder
    wait(lambda: not widget._looking)
    press(widget, widget.controls.start_button)


def fill_quality(viewer, widget) -> None:
    """A stack at varying focus, measured against noisy and blurred ones."""
    from scipy.ndimage import gaussian_filter
    from skimage import data

    cell = data.cell()[220:420, 180:380] / 255
    cells = np.stack([gaussian_filter(cell, abs(z - 4) / 2) for z in range(10)])
    noise = np.random.default_rng(0).normal(0, 0.02, cells.shape)
    images = {
        "cell": cells,
        "cell noisy": cells + noise,
        "cell blurred": gaussian_filter(cells, (0, 1, 1)),
        "cell noisy and blurred": gaussian_filter(cells + noise, (0, 1, 1)),
    }
    for name, stack in images.items():
        viewer.add_image(stack.astype(np.float32), name=name)
    widget.form.reference.value = viewer.layers[0]
    widget.form.layers.tick(list(viewer.layers)[1:])
    widget.form.layers.changed.emit()
    press(widget, widget.controls.start_button)
    widget.result.over.value = 1
    wait(lambda: widget.result.plot.drawn > 0)
    viewer.reset_view()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fluorescence", type=Path, metavar="FLUORESCENCE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    wanted = arguments.names
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_CFSR_HOME"] = home
        for shots, inputs in (
            (photo, ()), (fluorescence, (arguments.fluorescence,)), (low_light, ()), (running, ()),
            (disk, ()), (batch, ()),
            (training, (arguments.folder,)), (noisy, (arguments.folder,)),
            (quality, (arguments.folder,)),
            (themes, ()),
        ):  # fmt: skip
            if not wanted or shots.__name__ in wanted:
                shots(*inputs)
    for steps in (tutorial_steps.microscopy, tutorial_steps.photos):
        if not wanted or steps.__name__ in wanted:
            tutorial(steps)


if __name__ == "__main__":
    main()
