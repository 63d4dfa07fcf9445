"""`napari-cfsr demo` without a window."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.io import image_files as files
from tests.helpers.commands import Says, names

pytestmark = pytest.mark.usefixtures("nothing_bundled")


def test_the_demo_in_files(official: Path, tmp_path: Path, done: Says, fault: Says) -> None:
    out_folder = tmp_path / "out"
    arguments = ("demo", "--no-window", "--output", out_folder, "--device", "cpu")
    out = done(*arguments)
    assert names(out_folder) == [
        "cat_HR.png", "cat_LR.png", "cat_baseline.png", "cat_comparison.png",
    ]  # fmt: skip
    found = dict(re.findall(r"^(\w+): Y PSNR ([0-9.]+) dB$", out, re.M))
    assert float(found["bicubic"]) == pytest.approx(31.47, abs=0.02)
    assert float(found["baseline"]) == pytest.approx(32.54, abs=0.02)
    assert out.endswith(f"written to {out_folder}\n")

    hr, lr, baseline = (
        files.read_image(out_folder / f"cat_{name}.png").pixels for name in ("HR", "LR", "baseline")
    )
    assert (hr.shape, lr.shape) == ((300, 448, 3), (75, 112, 3))
    np.testing.assert_array_equal(
        nc.upscale(lr, nc.load_model(4, device="cpu"), axes="YXC").baseline, baseline
    )
    assert nc.psnr(baseline / 255, hr / 255, shave=4, channel="Y") == pytest.approx(
        float(found["baseline"]), abs=5e-4
    )
    with Image.open(out_folder / "cat_comparison.png") as figure:
        assert figure.width > 1500
        assert np.asarray(figure.convert("L")).std() > 30

    before = (out_folder / "cat_LR.png").read_bytes()
    assert "cat_LR.png exists: pass --overwrite to replace it" in fault(*arguments)
    assert (out_folder / "cat_LR.png").read_bytes() == before


def test_the_demo_with_a_refiner(tiny: Path, tmp_path: Path, refiner: Path, done: Says) -> None:
    arguments = ("--no-window", "--scale", 2, "--refiner", refiner, "--output", tmp_path / "out")
    out = done("demo", *arguments)
    assert "cat_delta.png" in names(tmp_path / "out")
    assert re.search(r"^delta: Y PSNR [0-9.]+ dB$", out, re.M)


def test_the_demo_into_a_place_that_cannot_be(tiny: Path, tmp_path: Path, fault: Says) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file/out", "x" * 300):
        arguments = ("--no-window", "--scale", 2, "--output", tmp_path / folder)
        assert "can't be written" in fault("demo", *arguments)
    assert names(tmp_path) == ["file"]
