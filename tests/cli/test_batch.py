"""`napari-cfsr upscale` with many files: skipped, resumed, summed up."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.cli import upscale
from napari_cfsr.core.batch import upscale_file as file_run
from napari_cfsr.core.batch.ledger import LEDGER
from napari_cfsr.core.weights.weight_files import bundled_path, sha256_of
from tests.helpers.faults import run_python

Run = Callable[..., tuple[int, list[str], list[str]]]
COMMON = ("--scale", 2, "--backbone", "bundled", "--refiner", "none", "--device", "cpu")

pytestmark = pytest.mark.usefixtures("models_once", "compiled_networks")


@pytest.fixture
def run(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """`upscale in --output out` with the bundled x2 weights; status, lines of both streams."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        where = () if "--output" in arguments else ("--output", "out")
        status, out, err = call("upscale", "in", *arguments, *where, *COMMON)
        return status, out.splitlines(), err.splitlines()

    return run


def picture(path: Path, seed: int = 0, side: int = 12) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side + 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def results() -> dict[str, tuple[bytes, int]]:
    files = (p for p in sorted(Path("out").iterdir()) if not p.name.startswith("."))
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def never(*_: object, **__: object) -> Any:
    raise AssertionError("the model was loaded")


def test_the_second_run_skips_what_is_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = [picture(Path("in", name), i) for i, name in enumerate(["a.png", "b.png", "c.png"])]
    status, out, err = run()
    assert (status, len(out), len(err)) == (0, 3, 1)
    assert re.fullmatch(r"napari-cfsr: 3 upscaled in \d\.\d s", err[0])
    before = results()
    model = nc.load_model(2, "bundled", None, "cpu")
    for name, image in zip(before, pixels, strict=True):
        written = nc.read_image(Path("out", name)).pixels
        np.testing.assert_array_equal(written, nc.upscale(image, model, axes="YXC").baseline)

    monkeypatch.setattr(upscale, "open_found", never)
    status, out, err = run()
    assert status == 0
    assert out == [f"in/{n}.png -> out/{n}_x2_baseline.png: already there" for n in "abc"]
    assert re.fullmatch(r"napari-cfsr: 0 upscaled, 3 already there in \d\.\d s", err[0])
    assert results() == before

    status, out, _ = run("--json")
    assert [json.loads(line)["state"] for line in out] == ["skipped"] * 3
    status, out, err = run("--ensemble")
    assert (status, out, len(err)) == (2, [], 4)
    for name, line in zip("abc", err, strict=False):
        target = f"out/{name}_x2_baseline.png"
        assert line == (
            f"napari-cfsr: in/{name}.png: {target} exists: pass --overwrite to replace it"
        )
    assert re.fullmatch(r"napari-cfsr: 0 upscaled, 3 failed in \d\.\d s", err[3])


def test_the_second_run_needs_no_torch(run: Run) -> None:
    picture(Path("in/a.png"))
    assert run()[0] == 0
    words = ["upscale", "in", "--output", "out", *map(str, COMMON)]
    code = (
        "import sys; from napari_cfsr.cli import main; "
        f"print(main({words!r}), 'torch' in sys.modules)"
    )
    assert run_python(code).splitlines()[-1] == "0 False"


def test_a_broken_file_and_a_summary_of_all(run: Run) -> None:
    for i, name in enumerate(["a.png", "caf\u00e9 \u4e2d.png"]):
        picture(Path("in", name), i)
    assert run()[0] == 0
    Path("in/b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    picture(Path("in/d.png"), 4)
    status, out, err = run("--summary", "s.csv")
    assert (status, len(out)) == (2, 3)
    assert err[0] == "napari-cfsr: in/b.png: not an image, or damaged"
    assert re.fullmatch(r"napari-cfsr: 1 upscaled, 2 already there, 1 failed in \d\.\d s", err[1])
    with Path("s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["input"], r["state"]) for r in rows] == [
        ("in/a.png", "skipped"), ("in/b.png", "failed"), ("in/caf\u00e9 \u4e2d.png", "skipped"),
        ("in/d.png", "done"),
    ]  # fmt: skip
    assert [r["outputs"] for r in rows] == [
        "out/a_x2_baseline.png", "", "out/caf\u00e9 \u4e2d_x2_baseline.png",
        "out/d_x2_baseline.png",
    ]  # fmt: skip
    assert rows[1]["message"] == "in/b.png: not an image, or damaged"

    status, out, err = run("--summary", "s.json", "--overwrite")
    assert (status, len(out)) == (2, 3)
    listed = json.loads(Path("s.json").read_text("utf-8"))
    assert [entry["state"] for entry in listed] == ["done", "failed", "done", "done"]
    assert listed[0]["provenance"]["backbone_sha256"] == sha256_of(bundled_path(2))
    assert listed[0]["provenance"]["input"] == "in/a.png"
    assert listed[1]["provenance"] is None
    scope: dict[str, Any] = {}
    exec(listed[0]["provenance"]["python"], scope)
    written = nc.read_image(listed[0]["outputs"]["baseline"]).pixels
    np.testing.assert_array_equal(scope["result"].baseline, written)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s.txt", "expected a summary ending in .csv or .json, got s.txt"),
        ("s.csv", "s.csv exists: name another file for --summary or remove this one"),
        ("in/a.json", "in/a.json exists: name another file"),
    ],
)
def test_a_summary_that_cannot_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    picture(Path("in/a.png"))
    for path in (Path("s.csv"), Path("in/a.json")):
        path.write_text("precious")
    monkeypatch.setattr(upscale, "open_found", never)
    status, out, err = run("--summary", name)
    assert (status, out, len(err)) == (2, [], 1)
    assert reason in err[0]
    assert Path("s.csv").read_text() == Path("in/a.json").read_text() == "precious"
    assert not Path("out").exists()


def test_an_interruption_leaves_a_summary(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(["a.png", "b.png", "c.png"]):
        picture(Path("in", name), i)
    read = file_run.read_image

    def interrupted(path: Path) -> Any:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(file_run, "read_image", interrupted)
        status, out, err = run("--summary", "s.json")
    assert (status, len(out)) == (2, 1)
    assert err[0].startswith("napari-cfsr: 1 upscaled, 2 not done in ")
    assert err[1] == "napari-cfsr: interrupted; files that were finished are complete"
    listed = json.loads(Path("s.json").read_text())
    assert [(e["state"], e["message"]) for e in listed][1:] == [
        ("waiting", "not finished"), ("waiting", ""),
    ]  # fmt: skip
    assert listed[0]["state"] == "done"
    status, out, err = run()
    assert (status, len(out)) == (0, 3)
    assert err[0].startswith("napari-cfsr: 2 upscaled, 1 already there in ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_and_started_again(run: Run, tmp_path: Path) -> None:
    for i in range(6):
        picture(Path("in", f"{i}.png"), i, side=60)
    words = ["upscale", "in", "--output", "out", *map(str, COMMON)]
    process = subprocess.Popen([sys.executable, "-m", "napari_cfsr.cli", *words],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    end = time.monotonic() + 120
    while not Path("out/1_x2_baseline.png").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = results()
    assert 2 <= len(before) < 6
    status, out, err = run()
    assert (status, len(out)) == (0, 6)
    assert err == [err[0]]
    made, there = len(out) - len(before), len(before)
    assert err[0].startswith(f"napari-cfsr: {made} upscaled, {there} already there in ")
    after = results()
    assert {name: after[name] for name in before} == before
    run("--output", "whole")
    for folder in ("out", "whole"):  # and nothing else, such as half a file
        assert {p.name for p in Path(folder).iterdir()} == {LEDGER, *after}
    for name in after:
        assert sha256_of(Path("whole", name)) == sha256_of(Path("out", name))
