"""The demo window: a sample photo is upscaled with the Upscale widget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cfsr.layers import photo

if TYPE_CHECKING:
    import napari

    from napari_cfsr.widgets.upscaling.widget import UpscaleWidget


def build(viewer: napari.viewer.Viewer, scale: int, backbone: str) -> UpscaleWidget:
    """Add the sample and the widget to a viewer, without starting a run."""
    from napari_cfsr.widgets.upscaling.widget import UpscaleWidget

    for data, arguments, _ in photo(scale):
        viewer.add_image(data, **arguments)
    viewer.canvas.overlays.scale_bar.visible = True
    widget = UpscaleWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Upscale", area="right")
    widget.form.scale.value = scale
    widget.choose_backbone(backbone)
    return widget


def show(scale: int = 4, backbone: str = "auto") -> None:
    """Open napari and upscale the sample; returns when the window is closed."""
    import napari
    from qtpy.QtCore import QTimer

    viewer = napari.Viewer(title="napari-cfsr demo")
    widget = build(viewer, scale, backbone)
    QTimer.singleShot(500, viewer.reset_view)  # the dock makes the canvas smaller
    QTimer.singleShot(500, widget.controls.start_button.click)
    napari.run()
