"""`napari-cfsr models`: what is listed, fetched and imported, and faults in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import napari_cfsr as nc
from napari_cfsr.core.io import image_files as files
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner
from tests.helpers.commands import Run, Says, launch, names, picture
from tests.helpers.tiny_weights import tiny_network

pytestmark = pytest.mark.usefixtures("nothing_bundled")


def a_backbone(path: Path, scale: int = 2) -> Path:
    save_file(tiny_network(scale).state_dict(), path)
    return path


def test_weights_that_are_not_available(tmp_path: Path, fault: Says, home: Path) -> None:
    """The mirror that every test has refuses connections."""
    picture(tmp_path / "a.png")
    for command in (["upscale", tmp_path / "a.png"], ["models", "fetch", "--scale", 4],
                    ["demo", "--no-window", "--output", tmp_path / "out"]):  # fmt: skip
        assert "CFSR_x4.pth could not be downloaded from http://127.0.0.1:9/CFSR_x4.pth" in fault(
            *command
        )
    assert not home.exists() or not list(home.rglob("*.pth"))
    assert names(tmp_path)[0] == "a.png"
    assert not (tmp_path / "out").exists()


def test_models_list(tiny: Path, refiner: Path, home: Path, run: Run, done: Says) -> None:
    assert run("models", "import", refiner)[0] == 0
    out = done("models", "list")
    assert f"backbone official x4 CFSR_x4.pth                  {tiny / 'CFSR_x4.pth'}" in out
    line = r"refiner  imported x2 mine +.*mine\.safetensors  A test \(\+0\.2500 dB\)\n"
    assert re.search(line, out)
    rows = json.loads(run("models", "list", "--json")[1])
    assert [(r["what"], r["kind"], r["scale"]) for r in rows] == [
        ("backbone", "official", 2), ("backbone", "official", 3), ("backbone", "official", 4),
        ("refiner", "imported", 2),
    ]  # fmt: skip
    assert rows[-1]["path"] == str(home / "data" / "refiners" / "mine.safetensors")
    assert rows[-1]["gain"] == 0.25


def test_models_list_on_a_bare_machine(run: Run, done: Says) -> None:
    out = done("models", "list")
    assert out.count("not on this machine: 'napari-cfsr models fetch'") == 3
    assert [r["path"] for r in json.loads(run("models", "list", "--json")[1])] == [None] * 3


def test_models_list_with_files_that_make_no_sense(home: Path, done: Says) -> None:
    for folder in ("backbones", "refiners"):
        (home / "data" / folder).mkdir(parents=True)
        (home / "data" / folder / "x.safetensors").write_bytes(b"nonsense")
    out = done("models", "list")
    assert "backbone imported    x" in out
    assert "refiner" not in out


def test_models_path(tiny: Path, home: Path, tmp_path: Path, run: Run) -> None:
    assert run("models", "path") == (0, f"{home / 'cache'}\n{home / 'data'}\n", "")
    assert run("models", "path", "--scale", 3) == (0, f"{tiny / 'CFSR_x3.pth'}\n", "")
    file = shutil.copy(tiny / "CFSR_x2.pth", tmp_path / "mine.pth")
    assert run("models", "path", "--scale", 2, "--backbone", file)[1] == f"{file}\n"


def test_models_path_downloads_nothing(fault: Says) -> None:
    assert "the official x2 weights are not on this machine: fetch them with" in fault(
        "models", "path", "--scale", 2
    )


def test_import_a_backbone_and_use_it(
    tiny: Path, tmp_path: Path, home: Path, run: Run, done: Says
) -> None:
    pixels = picture(tmp_path / "a.png")
    path = a_backbone(tmp_path / "tiny.safetensors")
    target = home / "data" / "backbones" / "tiny.safetensors"
    assert run("models", "import", path) == (0, f"{path} -> {target}\n", "")
    assert target.read_bytes() == path.read_bytes()
    path.unlink()
    out = done("upscale", tmp_path / "a.png", "--scale", 2, "--backbone", "tiny", "--json")
    record = json.loads(out)
    assert record["backbone"] == "imported tiny.safetensors"
    expected = nc.upscale(pixels, nc.load_model(2, "tiny"), axes="YXC").baseline
    scope: dict[str, Any] = {}
    exec(record["python"], scope)
    for array in (scope["result"].baseline,
                  files.read_image(tmp_path / "a_x2_baseline.png").pixels):  # fmt: skip
        np.testing.assert_array_equal(array, expected)


def test_import_replaces_nothing_without_overwrite(
    tmp_path: Path, refiner: Path, home: Path, run: Run, fault: Says
) -> None:
    assert run("models", "import", refiner)[0] == 0
    target = home / "data" / "refiners" / "mine.safetensors"
    before = target.read_bytes()
    save_refiner(refiner, RefineNet().state_dict(), RefinerCard(2, "output", "0" * 64))
    assert "there is a refiner 'mine': use another name, or overwrite it" in fault(
        "models", "import", refiner
    )
    assert target.read_bytes() == before
    assert run("models", "import", refiner, "--overwrite")[0] == 0
    assert target.read_bytes() == refiner.read_bytes()


def test_import_checks_every_file(tmp_path: Path, home: Path, run: Run) -> None:
    good = a_backbone(tmp_path / "good.safetensors")
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "foreign.pth")
    torch.save({"params": torch.nn.Linear(1, 1)}, tmp_path / "code.pth")
    torch.save(RefineNet().state_dict(), tmp_path / "bare.pth")
    shutil.copy(good, tmp_path / "good.bin")
    reasons = {
        "foreign.pth": "holds neither a CFSR backbone nor a refiner (1 tensors, the first is "
        "'conv.weight')",
        "code.pth": "it was not executed",
        "bare.pth": "expected a refiner with metadata 'napari-cfsr refiner 1', got",
        "nothing.pth": "there is no such file",
        "good.bin": "rename it",
    }
    status, out, err = run("models", "import", *(tmp_path / name for name in reasons), good)
    assert status == 2
    for line, (name, reason) in zip(err.splitlines(), reasons.items(), strict=True):
        assert name in line
        assert reason in line
    assert out.startswith(f"{good} -> ")
    assert [p.name for p in home.rglob("*") if p.is_file()] == ["good.safetensors"]


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """As in `napari-cfsr models list | head -0`."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = launch("models", "list", stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == ""
