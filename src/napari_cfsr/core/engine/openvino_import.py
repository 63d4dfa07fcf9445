"""OpenVINO without its telemetry: `from napari_cfsr.core.engine.openvino_import import openvino`.

On import, OpenVINO reports to a server of its makers, from a forked process, unless the user has
opted out. Nobody who upscales an image has agreed to that, and the forked process may hang with the
pipes it inherits. OpenVINO works without its telemetry package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TELEMETRY = "openvino_telemetry"


@contextmanager
def _import_fails(package: str) -> Iterator[None]:
    """Importing a package fails, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[package] = None
    try:
        yield
    finally:
        modules.pop(package, None)


with _import_fails(TELEMETRY):
    import openvino
    from openvino import opset13

__all__ = ["openvino", "opset13"]
