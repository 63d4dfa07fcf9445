"""Files are written completely or not at all, whoever else writes them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from napari_cfsr.core.io.atomic import atomic_write
from napari_cfsr.errors import CancelledError, FileFormatError, OptionError, WeightsError

WRITER = """
import sys
from pathlib import Path
from napari_cfsr.core.io.atomic import atomic_write
sys.stdin.readline()
for i in range(300):
    with atomic_write(Path(sys.argv[1]), overwrite=True) as file:
        file.write(sys.argv[2].encode() * 1000)
"""


def write(path: Path, content: bytes, **options: bool) -> None:
    with atomic_write(path, **options) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a folder of its own that holds `one`."""
    path = tmp_path / "folder" / "a.json"
    write(path, b"one")
    return path


def only_holds(path: Path, content: str) -> None:
    """Check that the file has this content and that there is nothing else in its folder."""
    assert path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_is_replaced_only_where_that_is_allowed(path) -> None:
    with pytest.raises(OptionError, match=r"a\.json exists: pass overwrite=True to replace it"):
        write(path, b"two")
    only_holds(path, "one")
    write(path, b"two", overwrite=True)
    only_holds(path, "two")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (OSError(28, "No space left on device"), FileFormatError, "No space left on device"),
        (CancelledError("cancelled"), CancelledError, "cancelled"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_failure_halfway_changes_nothing(path, fault, error, message) -> None:
    with pytest.raises(error, match=message), atomic_write(path, overwrite=True) as file:  # noqa: PT012
        file.write(b"tw")
        file.flush()
        assert len(list(path.parent.iterdir())) == 2
        raise fault
    only_holds(path, "one")


def test_a_folder_in_the_way_and_a_missing_one_leave_nothing_behind(tmp_path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(FileFormatError, match="can't be written"):
        write(tmp_path / "a.json", b"one", overwrite=True)
    path = tmp_path / "nowhere" / "a.json"
    with (
        pytest.raises(WeightsError, match="can't be written"),
        atomic_write(path, make_folders=False, error=WeightsError),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["x" * 255, "ß" * 127])
def test_the_longest_names_can_be_written(tmp_path, name) -> None:
    write(tmp_path / name, b"one")
    only_holds(tmp_path / name, "one")


def test_two_programs_can_write_the_same_file(path) -> None:
    programs = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, letter], stdin=subprocess.PIPE)
        for letter in "ab"
    ]
    for program in programs:  # both are waiting for this line
        program.stdin.write(b"go\n")
        program.stdin.flush()
    for program in programs:
        program.communicate()
    assert [program.returncode for program in programs] == [0, 0]
    only_holds(path, path.read_text()[:1] * 1000)


def test_no_link_is_followed(path, tmp_path, monkeypatch) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    names = [".a.json.partial", ".a.json.guessed.partial"]
    for name in names:
        (path.parent / name).symlink_to(mine)
    write(path, b"two", overwrite=True)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    with pytest.raises(FileFormatError, match="exists"):
        write(path, b"three", overwrite=True)
    monkeypatch.undo()
    assert path.read_text() == "two"
    assert mine.read_text() == "mine"
    assert all((path.parent / name).is_symlink() for name in names)
    link = path.with_name("link")
    link.symlink_to(mine)
    write(link, b"four", overwrite=True)
    assert (mine.read_text(), link.read_text(), link.is_symlink()) == ("mine", "four", False)


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path, mask, mode) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "a", b"one")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
