"""OpenVINO without its telemetry: `from napari_cfsr.core.engine.openvino_import import openvino`.

On import, OpenVINO tells a server of its makers so, from a process that it forks, unless the user
has opted out. Nobody who upscales an image has agreed to that; and the forked process may hang,
with the pipes that it has inherited. OpenVINO does without when the package is not to be had.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TELEMETRY = "openvino_telemetry"


@contextmanager
def _not_to_be_had(package: str) -> Iterator[None]:
    """Importing a package fails, unless it is there already."""
    if package in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[package] = None
    try:
        yield
    finally:
        modules.pop(package, None)


with _not_to_be_had(TELEMETRY):
    import openvino
    from openvino import opset13

__all__ = ["openvino", "opset13"]
