"""What importing costs, and what it must not bring along."""

from __future__ import annotations

import json
import subprocess
import sys

import napari_cfsr

HEAVY = ("torch", "qtpy", "PyQt6", "PySide6", "napari", "scipy", "dask", "distributed", "skimage")


def loaded_after(code: str) -> dict[str, float]:
    """Modules that are there after `code`, in a new process, and the seconds it took."""
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


def test_importing_the_package_is_quick_and_brings_nothing_heavy() -> None:
    loaded = loaded_after("import napari_cfsr")
    assert not [name for name in HEAVY if name in loaded]
    assert min(loaded.values()) < 0.2


def test_the_widget_module_brings_no_torch() -> None:
    loaded = loaded_after(
        "import napari_cfsr.widgets.upscaling.widget, napari_cfsr.layers.image_input"
    )
    assert "napari" in loaded
    assert "torch" not in loaded


def test_clusters_bring_distributed_only_when_one_is_asked_for() -> None:
    loaded = loaded_after("import napari_cfsr.core.cluster.run")
    assert "distributed" not in loaded
    assert "torch" not in loaded  # the scheduler imports it too


def test_help_of_the_command_line_brings_neither_torch_nor_napari() -> None:
    loaded = loaded_after(
        "import contextlib, io, napari_cfsr.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    napari_cfsr.cli.main(['upscale', '--help'])"
    )
    assert "torch" not in loaded
    assert "napari" not in loaded
    assert "distributed" not in loaded


def test_every_public_name_is_there() -> None:
    for name in napari_cfsr.__all__:
        assert getattr(napari_cfsr, name) is not None
    assert dir(napari_cfsr) == sorted(napari_cfsr.__all__)
