"""What forms start with: the user's settings in napari's Preferences, else those of the last run.

napari before 0.9 has no Preferences page for plugins; then nothing is set. Values are read when
they are needed, so that a change there takes effect at once.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.weights import data_folder
from napari_cfsr.errors import FileFormatError

PLUGIN = "napari-cfsr"
FORMS, WEIGHTS = "forms", "weights"  # sections in the manifest
LAST_USED = "as last used"  # the form starts with the settings of its last run
SCALES = {"x2": 2, "x3": 3, "x4": 4}  # napari shows no numbers in a list


def _section(name: str) -> Any | None:
    """A section of the page, if there is one."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings(PLUGIN), name)
    except (ImportError, KeyError, AttributeError):  # an older napari, or the plugin is disabled
        return None


def settings_path(form: str) -> Path:
    """Where the settings of a form's last run are kept."""
    return data_folder() / "settings" / f"{form}.json"


def read_settings(form: str) -> dict[str, Any]:
    """Settings of a form's last run; empty if there are none or they can't be read."""
    try:
        values = json.loads(settings_path(form).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_settings(form: str, values: dict[str, Any]) -> None:
    """Keep settings, all of them or none; a full or read-only disk does not stop the run."""
    path = settings_path(form)
    with contextlib.suppress(FileFormatError), atomic_write(path, overwrite=True) as file:
        file.write(json.dumps(values).encode())


def preferred(*fields: str) -> dict[str, Any]:
    """Default `scale`, `backbone`, `device` or `precision`, where the user has set them."""
    section = _section(FORMS)
    found = {field: getattr(section, field, LAST_USED) for field in fields}
    return {k: SCALES.get(v, v) for k, v in found.items() if v != LAST_USED}


def _named_folder() -> Path | None:
    text = str(getattr(_section(WEIGHTS), "folder", "")).strip()
    if not text:
        return None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of a user who does not exist
        return Path(text)


def weights_folder() -> Path | None:
    """The folder with official weights, if one is set and it exists."""
    folder = _named_folder()
    return folder if folder is not None and _exists(folder) else None


def folder_fault() -> str:
    """What is wrong with the folder that is set; empty if nothing is."""
    folder = _named_folder()
    if folder is None or _exists(folder):
        return ""
    return (
        f"There is no folder {folder}, which is set in Preferences for the official weights: "
        "correct it there, or choose the backbone bundled."
    )


def _exists(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # such as a name that is too long
        return False


def folder_changed() -> Any | None:
    """The event that another folder was set; None if there is no such page."""
    section = _section(WEIGHTS)
    return section.events.folder if section is not None else None
