"""What a form remembers between sessions: a small JSON file in the user's data folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, LineEdit

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.weights import data_folder
from napari_cfsr.errors import FileFormatError


def settings_path(form: str) -> Path:
    return data_folder() / "settings" / f"{form}.json"


def read_settings(form: str) -> dict[str, Any]:
    """Settings of a form; empty where there are none or where they can't be read."""
    try:
        values = json.loads(settings_path(form).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_settings(form: str, values: dict[str, Any]) -> None:
    """Keep settings, all of them or none; a full or read-only disk is no reason to stop work."""
    path = settings_path(form)
    with contextlib.suppress(FileFormatError), atomic_write(path, overwrite=True) as file:
        file.write(json.dumps(values).encode())


def restore_field(field: Any, value: Any) -> None:
    """Set a field to what was kept, unless it is the value of another version."""
    if isinstance(field, CheckBox) != isinstance(value, bool):
        return
    if isinstance(field, LineEdit) and not isinstance(value, str):
        return
    if hasattr(field, "choices") and value not in field.choices:
        return
    with contextlib.suppress(ValueError, TypeError):
        field.value = value
