"""What the user has set for this plugin in napari's Preferences.

napari before 0.9 has no such page; then nothing is set. Values are read when they are needed, so
that a change there counts at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLUGIN = "napari-cfsr"
FORMS, WEIGHTS = "forms", "weights"  # sections in the manifest
LAST_USED = "as last used"  # the form begins as it was when it last ran
SCALES = {"x2": 2, "x3": 3, "x4": 4}  # words in the page, for napari shows no number in a list


def _section(name: str) -> Any | None:
    """A section of the page; None where there is none."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings(PLUGIN), name)
    except (ImportError, KeyError, AttributeError):  # an older napari, or the plugin is disabled
        return None


def preferred(*fields: str) -> dict[str, Any]:
    """What a form is to begin with, of those fields that the user has set.

    Parameters
    ----------
    *fields : str
        Of `scale`, `backbone`, `device` and `precision`.
    """
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
    """The folder with official weights, if one is named and it is there."""
    folder = _named_folder()
    return folder if folder is not None and _is_there(folder) else None


def folder_fault() -> str:
    """What is wrong with the folder that is named; empty if nothing is."""
    folder = _named_folder()
    if folder is None or _is_there(folder):
        return ""
    return (
        f"There is no folder {folder}, which Preferences name for the official weights: "
        "correct it there, or choose the backbone bundled."
    )


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # such as too long a name
        return False


def folder_changed() -> Any | None:
    """The event of another folder being named; None where there is no such page."""
    section = _section(WEIGHTS)
    return section.events.folder if section is not None else None
