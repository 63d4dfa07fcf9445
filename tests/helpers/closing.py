"""How tests close a widget in the middle of something, and what must not be left then."""

from __future__ import annotations

import threading
from typing import Any

from napari.qt.threading import GeneratorWorker
from qtpy.QtWidgets import QWidget

from napari_cfsr.core.process import remote_model, remote_training
from napari_cfsr.widgets.parts import threaded_plot

THREADS = (remote_model.THREAD, remote_training.THREAD, threaded_plot.THREAD)


def leftovers() -> list[object]:
    """Threads and workers of ours that still live."""
    threads = [t for t in threading.enumerate() if t.name in THREADS]
    return [*threads, *GeneratorWorker._worker_set]


def close(viewer: Any, widget: QWidget, what: str) -> None:
    """Close the `dock` of the widget, the `window` of the viewer, or the `viewer`."""
    if what == "dock":
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
    elif what == "window":
        viewer.window.close()
    else:
        viewer.close()
