"""The map of the rooms agrees with the folders, so that nobody looks in a room that is gone."""

from __future__ import annotations

import itertools
import re
import tomllib

from tests.helpers.documented import ROOT

SOURCE = ROOT / "src" / "napari_cfsr"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def paths_in_tree() -> list[str]:
    """Entries of the first tree on the page, as paths from the root of the repository."""
    match = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    found: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in match[1].splitlines():
        entry = re.match(r"( *)([\w./]+)(?: |$)", line)
        if entry is None or len(entry[1]) > 8:  # the second line of an explanation
            continue
        parents = [(indent, name) for indent, name in parents if indent < len(entry[1])]
        found.append("".join(name for _, name in parents) + entry[2])
        parents.append((len(entry[1]), entry[2]))
    return found


def test_the_tree_shows_every_room_and_nothing_that_is_gone() -> None:
    found = paths_in_tree()
    assert [path for path in found if not (ROOT / path).exists()] == []
    folders = {path.strip("/") for path in found if path.endswith("/")}
    rooms = {init.parent.relative_to(ROOT).as_posix() for init in SOURCE.rglob("__init__.py")}
    assert rooms - folders == set()


def test_tests_and_folders_that_the_page_names_exist() -> None:
    places = "tests|benchmarks|docs|core|widgets|cli|layers|workers"
    named = re.findall(rf"`((?:{places})/[\w./]*)`", PAGE)
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists() or (SOURCE / path).exists(), path


def test_the_diagram_shows_every_room_and_arrows_only_point_down() -> None:
    match = re.search(r"```mermaid\nflowchart TD\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    floors = floor_of_each_room()
    drawn = set()
    for chain in re.findall(r"\w+(?: --> \w+)+", match[1]):
        names = chain.split(" --> ")
        drawn |= set(names)
        for above, below in itertools.pairwise(names):
            assert floors[above] < floors[below], (above, below)
    rooms = {init.parent.name for init in (SOURCE / "core").glob("*/__init__.py")}
    assert rooms - drawn == set()


def floor_of_each_room() -> dict[str, int]:
    """From the contracts of import-linter; 0 is at the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = {c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers"}
    outer, inner = layers["napari_cfsr"], layers["napari_cfsr.core"]
    at_core = outer.index("core")
    floors = [*outer[: at_core + 1], *inner, *outer[at_core + 1 :]]
    return {room: i for i, floor in enumerate(floors) for room in floor.split(" | ")}
