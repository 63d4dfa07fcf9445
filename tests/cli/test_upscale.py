"""`napari-cfsr upscale`: exit status, one line for each fault, and the files that are written.

That a file has the values of `upscale` for all options and kinds of images is proved in
`tests/core/batch/test_upscale_file.py`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.cli import parser
from napari_cfsr.cli.upscale import _upscale_options
from napari_cfsr.core.engine.registry import choose_engine
from napari_cfsr.core.io import image_files as files
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.weights import weight_files
from tests.helpers.commands import SUMMARY, H, Run, Says, W, launch, names, picture

ENGINE = choose_engine("auto", "cpu")
posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="needs symbolic links or names that Windows does not allow"
)


def test_one_file_beside_its_input(tiny: Path, tmp_path: Path, done: Says) -> None:
    pixels = picture(tmp_path / "in" / "a.png")
    out = done("upscale", tmp_path / "in" / "a.png", "--scale", 2, "--device", "cpu")
    assert names(tmp_path / "in") == ["a.png", "a_x2_baseline.png"]
    result = nc.upscale(pixels, nc.load_model(2, device="cpu"), axes="YXC")
    with Image.open(tmp_path / "in" / "a_x2_baseline.png") as written:
        np.testing.assert_array_equal(np.asarray(written), result.baseline)
    assert len(out.splitlines()) == 1
    assert out.startswith(f"{tmp_path / 'in' / 'a.png'} -> {tmp_path / 'in' / 'a_x2_baseline.png'}")
    assert f"x2 with official CFSR_x2.pth, no refiner; {ENGINE} on cpu, float32;" in out


def test_three_outputs_of_a_refiner(
    tiny: Path, tmp_path: Path, refiner: Path, run: Run, done: Says
) -> None:
    picture(tmp_path / "a.png")
    arguments = ("upscale", tmp_path / "a.png", "--scale", 2, "--refiner", refiner)
    assert run(*arguments, "-o", tmp_path / "default")[0] == 0
    assert names(tmp_path / "default") == ["a_x2_delta.png"]  # the best there is
    options = ("--baseline", "--delta", "--difference")
    out = done(*arguments, *options, "-o", tmp_path / "all")
    assert names(tmp_path / "all") == ["a_x2_baseline.png", "a_x2_delta.png", "a_x2_difference.tif"]
    assert f"refiner file {refiner.name}" in out


@pytest.mark.parametrize("options", [["--delta"], ["--difference"], ["--baseline", "--delta"]])
def test_an_output_that_needs_a_refiner(
    tiny: Path, tmp_path: Path, fault: Says, options: list[str]
) -> None:
    """One fault, however many files there are: one line, and nothing is written."""
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)
    err = fault("upscale", tmp_path / "in", "--scale", 2, *options)
    assert err == (
        f"napari-cfsr: expected a refiner for {options[-1]}, but official CFSR_x2.pth x2 has none "
        f"loaded: choose one with --refiner or leave {options[-1]} out\n"
    )
    assert names(tmp_path / "in") == ["a.png", "b.png", "c.png"]


def test_a_broken_file_does_not_stop_the_others(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (folder / "c.tif").write_bytes(b"")
    Image.new("CMYK", (W, H)).save(folder / "d.jpg")
    tifffile.imwrite(folder / "e.tif", np.zeros((H, W), np.complex64))
    picture(folder / "f.png")
    missing, stray = tmp_path / "missing.png", tmp_path / "notes.txt"
    stray.write_text("")
    (tmp_path / "empty").mkdir()
    status, out, err = run(
        "upscale", folder, missing, stray, tmp_path / "empty", "--scale", 2, "-o", tmp_path / "out"
    )
    assert status == 2
    assert names(tmp_path / "out") == ["a_x2_baseline.png", "f_x2_baseline.png"]
    assert len(out.splitlines()) == 2
    lines = err.splitlines()
    assert len(lines) == 7
    for name, reason in {
        "b.png": "not an image, or damaged",
        "c.tif": "can't be read",
        "d.jpg": "expected gray or RGB, got CMYK",
        "e.tif": "expected bool, integer or real float pixels, got complex64",
        "missing.png": "there is no such file",
        "notes.txt": "expected one of .png",
        "empty": "expected images in this folder, got none",
    }.items():
        (line,) = (line for line in lines if f"{name}: " in line)
        assert reason in line


@posix_only
@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "x" * 250 + ".png", "loop.png"])
def test_names_that_no_file_can_have(tiny: Path, tmp_path: Path, run: Run, name: str) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    if len(name) == 254:  # it can be read, but its result can't be written
        picture(tmp_path / name)
    picture(tmp_path / "a.png")
    status, out, err = run("upscale", tmp_path / name, tmp_path / "a.png", "--scale", 2)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--axes syx", {"axes": "SYX"}),
        ("--intensity percentile", {"intensity": "percentile"}),
        ("--intensity=-5.5,4e3", {"intensity": (-5.5, 4000.0)}),
        ("--tile 8 --halo 4", {"tile": 8, "halo": 4}),
        ("--halo exact", {"halo": "exact"}),
        ("--ensemble --back-projection", {"ensemble": True, "back_projection": True}),
        ("--delta --baseline", {"outputs": ("baseline", "delta")}),
        ("", {}),
    ],
)
def test_options_are_those_of_upscale(words: str, expected: dict[str, Any]) -> None:
    options = parser().parse_args(["upscale", "a.png", *words.split()])
    assert _upscale_options(options) == UpscaleOptions(**expected)


def test_the_record_makes_the_same_result(
    tiny: Path, tmp_path: Path, refiner: Path, done: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / 'b\'s "stack".tif', 3, H, W, dtype=np.uint16)
    monkeypatch.chdir(tmp_path)
    arguments = ("--scale", 2, "--refiner", refiner, "--delta", "--difference", "--json",
                 "--ensemble", "--tile", 8, "--intensity", "10,60000")  # fmt: skip
    out = done("upscale", "a.png", 'b\'s "stack".tif', *arguments)
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["input"] for r in records] == ["a.png", 'b\'s "stack".tif']
    for record in records:
        assert record["backbone_sha256"] == weight_files.OFFICIAL_SHA256[2]
        assert record["refiner_sha256"] == weight_files.sha256_of(refiner)
        assert (record["scale"], record["tile"], record["ensemble"]) == (2, 8, True)
        assert (record["precision"], record["engine"]) == ("float32", ENGINE)
        assert record["intensity"][0] | {"dtype": ""} == {
            "low": 10.0, "high": 60000.0, "dtype": "", "clip": False,
        }  # fmt: skip
        assert record["seconds"] > 0
        assert record["versions"]["torch"] == torch.__version__
        assert set(record["outputs"]) == {"delta", "difference"}
        scope: dict[str, Any] = {}
        exec(record["python"], scope)
        for name, path in record["outputs"].items():
            written = files.read_image(path).pixels
            np.testing.assert_array_equal(scope["result"].arrays()[name], written)
            assert written.dtype == scope["result"].arrays()[name].dtype


def test_notes_reach_the_user(tiny: Path, tmp_path: Path, done: Says) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.zeros((H, W), np.uint8), metadata=None)
        tif.write(np.zeros((W, H), np.uint8), metadata=None)
    out = done("upscale", tmp_path / "a.tif", "--scale", 2)
    assert out.strip().endswith("; only the first of 2 images in the file was read")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND (see 'napari-cfsr --help')"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["upscale"], "required: inputs (see 'napari-cfsr upscale --help')"),
        (["upscale", "a.png", "--colour"], "unrecognized arguments: --colour"),
        (["upscale", "a.png", "--scale", "5"], "argument --scale: invalid choice: 5"),
        (["upscale", "a.png", "--scale", "two"], "argument --scale: invalid int value: 'two'"),
        (["upscale", "a.png", "--tile", "big"], "argument --tile: invalid int value: 'big'"),
        (["upscale", "a.png", "--halo", "big"],
         "argument --halo: expected a number or 'exact', got 'big'"),
        (["upscale", "a.png", "--precision", "half"], "argument --precision: invalid choice"),
        (["models"], "required: ACTION (see 'napari-cfsr models --help')"),
        (["models", "fetch", "--scale", "7"], "argument --scale: invalid choice: 7"),
        (["models", "import"], "required: files"),
        (["demo", "--no-window"], "expected --output FOLDER with --no-window"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_arguments_that_make_no_sense(fault: Says, arguments: list[str], reason: str) -> None:
    assert reason in fault(*arguments)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--backbone", "nothing"], "expected backbone"),
        (["--refiner", "nothing"], "expected refiner"),
        (["--device", "toaster"], "expected device"),
        (["--device", "cuda:99"], "is not available on this machine"),
        (["--back-projection"], "expected scale 4 for back-projection, got 2"),
        (["--intensity", "1,2,3"], "expected --intensity LOW,HIGH, got '1,2,3'"),
        (["--intensity", "a,b"], "expected --intensity LOW,HIGH, got 'a,b'"),
        (["--intensity", "nan,1"], "expected intensity limits low < high"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_exist(
    tiny: Path, tmp_path: Path, fault: Says, options: list[str], reason: str
) -> None:
    picture(tmp_path / "a.png")
    assert reason in fault("upscale", tmp_path / "a.png", "--scale", 2, *options)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "command",
    [[], ["upscale"], ["demo"], ["models"], ["models", "list"], ["models", "fetch"],
     ["models", "import"], ["models", "path"]],
    ids=" ".join,
)  # fmt: skip
def test_help(done: Says, command: list[str]) -> None:
    out = done(*command, "--help")
    assert out.startswith(" ".join(["usage: napari-cfsr", *command]))


def test_version(run: Run) -> None:
    assert run("--version")[1] == f"napari-cfsr {nc.__version__}\n"


@pytest.mark.usefixtures("compiled_networks")
def test_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing on standard error but faults and summary, whatever libraries log and names hold."""
    name = "caf\u00e9 \u4e2d.png"
    pixels = picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"broken")
    xml = '<?xml version="1.0"?><OME><Image><Pixels SizeX="</OME>'
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((H, W), np.uint8), description=xml, metadata=None)
    done = launch("upscale", tmp_path, "--scale", 2, "--device", "cpu", capture_output=True,
                  env={**os.environ, "PYTHONIOENCODING": "cp1252"}, encoding="cp1252")  # fmt: skip
    assert done.returncode == 2
    fault = f"napari-cfsr: {tmp_path / 'b.png'}: not an image, or damaged\n"
    assert SUMMARY.sub("", done.stderr) == fault
    assert "napari-cfsr: 2 upscaled, 1 failed in " in done.stderr
    damaged, named = done.stdout.splitlines()
    assert "caf\u00e9 \\u4e2d.png -> " in named
    assert "the OME metadata can't be read and are not carried over" in damaged
    expected = nc.upscale(pixels, nc.load_model(2, "bundled", None, "cpu"), axes="YXC").baseline
    written = files.read_image(tmp_path / "caf\u00e9 \u4e2d_x2_baseline.png").pixels
    np.testing.assert_array_equal(written, expected)
