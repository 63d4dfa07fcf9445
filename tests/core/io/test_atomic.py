"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_cfsr.core.io.atomic import atomic_write
from napari_cfsr.errors import FileFormatError, OptionError


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "a.json"
    atomic_write(path, b"one")
    with pytest.raises(OptionError, match="exists: pass --overwrite"):
        atomic_write(path, b"two")

    def full(self: Path, *_: object, **__: object) -> None:
        with self.open("wb") as file:
            file.write(b"tw")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileFormatError, match="No space left on device"):
        atomic_write(path, b"two", overwrite=True)
    monkeypatch.undo()
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    atomic_write(path, b"two", overwrite=True)
    assert path.read_text() == "two"
    with pytest.raises(FileFormatError, match="can't be written"):
        atomic_write(tmp_path / "nowhere" / "a.json", b"one", make_folders=False)
    assert not (tmp_path / "nowhere").exists()
