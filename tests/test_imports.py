"""What importing costs, what it must not load, and that rooms are entered by their faces."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import napari_cfsr

PACKAGE = Path(napari_cfsr.__file__).parent
FACES = sorted(
    ".".join(("napari_cfsr", *path.relative_to(PACKAGE).parent.parts))
    for path in PACKAGE.rglob("__init__.pyi")
)
HEAVY = ("torch", "qtpy", "PyQt6", "PySide6", "napari", "scipy", "dask", "distributed", "skimage")


def loaded_after(code: str) -> dict[str, float]:
    """Modules that are loaded after `code`, in a new process, and the seconds it took."""
    program = (
        "import json, sys, time; t = time.perf_counter()\n"
        f"{code}\n"
        "print(json.dumps([time.perf_counter() - t, list(sys.modules)]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    seconds, modules = json.loads(out.splitlines()[-1])
    return dict.fromkeys(modules, seconds)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_importing_the_package_is_quick_and_loads_nothing_heavy() -> None:
    loaded = loaded_after("import napari_cfsr")
    assert not [name for name in HEAVY if name in loaded]
    assert min(loaded.values()) < 0.2


def test_windows_commands_and_schedulers_are_imported_without_torch_and_distributed() -> None:
    """Torch takes seconds to import; a window would stand still, a scheduler never needs it."""
    names = {
        room: [module_name(path) for path in sorted((PACKAGE / room).rglob("*.py"))]
        for room in ("layers", "workers", "widgets", "cli", "core/cluster")
    }
    assert all(len(modules) > 3 for modules in names.values())
    # a plugin of dask's workers can't be without dask
    left_out = ("__main__", "cluster.worker_weights")
    modules = [m for found in names.values() for m in found if not m.endswith(left_out)]
    modules.append("napari_cfsr.core.process.remote_training")
    loaded = loaded_after("import " + ", ".join(modules))
    assert set(modules) <= set(loaded)
    assert not {"torch", "distributed"} & set(loaded)


def test_the_help_of_the_command_line_loads_neither_torch_nor_napari() -> None:
    loaded = loaded_after(
        "import contextlib, io, napari_cfsr.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    napari_cfsr.cli.main(['upscale', '--help'])"
    )
    assert not {"torch", "napari", "distributed"} & set(loaded)


@pytest.mark.parametrize("room", FACES)
def test_a_face_hands_out_every_name(room: str) -> None:
    face = importlib.import_module(room)
    assert face.__all__
    for name in face.__all__:
        assert getattr(face, name) is not None
    assert dir(face) == sorted(face.__all__)


def room_of(module: str) -> str:
    """The room that a module of the package is in, or that it is."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["core"] else 2])


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Each absolute import of the package: the module, and the name that is taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def past_the_face(source: str, module: str) -> list[str]:
    """What a module imports from other rooms that their faces do not hand out."""
    found = []
    for other, name in imports(source):
        room = room_of(other)
        if room not in FACES or room in ("napari_cfsr", room_of(module)):
            continue
        if other != room or (name and name not in importlib.import_module(room).__all__):
            found.append(f"{module}: {other} {name}".rstrip())
    return found


def test_rooms_are_imported_by_their_faces() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        assert past_the_face(path.read_text("utf-8"), module_name(path)) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from napari_cfsr.core.io import atomic_write", False),
        ("from napari_cfsr.core.engine.model import SRModel", False),  # its own room
        ("from napari_cfsr.core.io.atomic import atomic_write", True),
        ("import napari_cfsr.core.io.atomic", True),
        ("def f():\n    from napari_cfsr.core.io import atomic", True),
    ],
)
def test_an_import_past_a_face_is_found(source: str, fault: bool) -> None:
    assert bool(past_the_face(source, "napari_cfsr.core.engine.registry")) is fault
