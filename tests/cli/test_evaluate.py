"""`napari-cfsr evaluate`: the figures of the API, files written whole, faults named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cfsr import load_model
from napari_cfsr.core.evaluate.run import EvaluateOptions, evaluate
from napari_cfsr.core.evaluate.tables import markdown
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.weights import weight_files
from tests.helpers.commands import Run, Says


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "evaluate")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two small data sets, of which one has no LR files."""
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "data" / "one" / "HR", tmp_path / "data" / "two"):
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            smooth = np.clip(imresize(rng.random((6, 7, 3)), 8), 0, 1)
            Image.fromarray((smooth * 255).astype(np.uint8)).save(folder / f"{name}.png")
    lr = tmp_path / "data" / "one" / "LR_bicubic" / "X2"
    lr.mkdir(parents=True)
    for path in (tmp_path / "data" / "one" / "HR").iterdir():
        pixels = np.asarray(Image.open(path))
        Image.fromarray(imresize(pixels, 1 / 2)).save(lr / f"{path.stem}x2.png")
    return tmp_path / "data"


def bicubic(root: Path, *datasets: str) -> EvaluateOptions:
    return EvaluateOptions(root, datasets, 2, ("bicubic",))


def test_printed_and_written_scores_are_those_of_the_api(
    done: Says, data: Path, official: Path, tmp_path: Path
) -> None:
    record, tables = tmp_path / "new" / "x4.json", tmp_path / "new" / "x4.md"
    how = ("--datasets", "Set5", "--limit", 1, "--device", "cpu")
    out = done("--data", data, *how, "--json", record, "--markdown", tables)
    report = evaluate(EvaluateOptions(data, ("Set5",), limit=1), load_model(4, device="cpu"))
    written = json.loads(record.read_text())
    scores = report.to_dict()["datasets"]
    assert written["datasets"] == scores
    assert written["model"]["backbone_sha256"] == weight_files.OFFICIAL_SHA256[4]
    assert len(written["model"]["refiner_sha256"]) == 64
    assert written["options"]["datasets"] == ["Set5"]
    row = next(line for line in out.splitlines() if line.startswith("baby"))
    image = report.images[0]
    expected = [
        figure
        for name in ("bicubic", "baseline", "delta")
        for figure in (f"{image.scores[name].psnr:.4f}", f"{image.scores[name].ssim:.5f}")
    ]
    gain = image.gain("delta")
    assert row.split() == ["baby", *expected, f"{gain.psnr:+.4f}", f"{gain.ssim:+.5f}"]
    assert "official CFSR_x4.pth x4; refiner bundled clean_official_x4" in out
    assert f"written to {record}" in out
    skip = re.compile(r"^- 20.*$", re.MULTILINE)  # the date
    assert skip.sub("", tables.read_text()) == skip.sub("", markdown(report))
    assert sorted(p.name for p in record.parent.iterdir()) == ["x4.json", "x4.md"]


def test_bicubic_alone_needs_no_weights(
    done: Says, fault: Says, root: Path, nothing_bundled: None
) -> None:
    how = ("--data", root, "--datasets", "one,two", "--scale", 2)
    out = done(*how, "--models", "bicubic")
    report = evaluate(bicubic(root, "one", "two"), None)
    for name in ("one", "two"):
        assert f"{report.mean(name, 'bicubic').psnr:.4f}" in out
    assert "no files in LR_bicubic/X2: LR made by MATLAB's bicubic for all images" in out
    assert "CFSR_x2.pth could not be downloaded" in fault(
        *how, "--models", "baseline", "--backbone", "official"
    )


def test_faults_are_reported_and_the_others_measured(run: Run, root: Path, tmp_path: Path) -> None:
    broken = root / "one" / "HR" / "a.png"
    broken.write_bytes(b"nothing")
    record = tmp_path / "x.json"
    how = ("--data", root, "--models", "bicubic", "--scale", 2, "--json", record)
    status, out, err = run(*how, "--datasets", "one,three,two")
    assert status == 2
    lines = err.splitlines()
    assert len(lines) == 2
    assert "'three' not found" in lines[0]
    assert str(root / "benchmark" / "three") in lines[0]
    assert str(broken) in lines[1]
    assert [line[0] for line in out.splitlines() if line[:2] in ("a ", "b ")] == ["b", "a", "b"]
    assert len(json.loads(record.read_text())["faults"]) == 2


def test_nothing_is_written_if_nothing_could_be_measured(
    fault: Says, root: Path, tmp_path: Path
) -> None:
    record = tmp_path / "x.json"
    how = ("--models", "bicubic", "--json", record)
    err = fault("--data", root, "--datasets", "three", *how)
    assert "'three' not found" in err
    assert f"expected a folder at --data, got {root / 'nowhere'}" in fault(
        "--data", root / "nowhere", "--datasets", "one", *how
    )
    assert not record.exists()


def test_files_are_not_overwritten_unless_asked(
    done: Says, fault: Says, root: Path, tmp_path: Path
) -> None:
    record = tmp_path / "x.json"
    record.write_text("mine")
    how = ("--data", root, "--datasets", "one", "--models", "bicubic", "--scale", 2)
    assert f"{record} exists: pass --overwrite" in fault(*how, "--json", record)
    assert record.read_text() == "mine"
    done(*how, "--json", record, "--overwrite")
    assert json.loads(record.read_text())["scale"] == 2


def test_unwritable_results_are_reported_before_any_time_is_spent(
    fault: Says, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_cfsr.core.evaluate.run.iter_evaluate", lambda *_: pytest.fail("it began")
    )
    how = ("--data", root, "--datasets", "one", "--models", "bicubic", "--scale", 2)
    same = tmp_path / "x"
    assert "expected different files for --json and --markdown" in fault(
        *how, "--json", same, "--markdown", same
    )
    (tmp_path / "file").write_text("")
    err = fault(*how, "--json", tmp_path / "file" / "x.json")
    assert "can't be written" in err
    assert "can't be written" in fault(*how, "--json", tmp_path, "--overwrite")


def test_invalid_options(fault: Says, root: Path, official: Path, data: Path) -> None:
    how = ("--data", root, "--datasets", "one")
    for wrong, message in [
        (("--models", "gan"), "expected models among bicubic, baseline, delta, got 'gan'"),
        (("--channel", "red"), "invalid choice: 'red'"),
        (("--scale", 2, "--back-projection"), "expected scale 4 for back-projection"),
        (("--scale", 2, "--models", "delta"), "CFSR_x2.pth is loaded without a refiner"),
    ]:
        assert message in fault(*how, *wrong)
    assert "--data" in fault("--datasets", "one")


def test_without_a_terminal_a_table_is_printed_but_no_bar(
    official: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "HR"
    folder.mkdir(parents=True)
    shutil.copy(data / "benchmark" / "Set5" / "HR" / "butterfly.png", folder)
    arguments = ["--data", str(tmp_path), "--datasets", "mine", "--ensemble", "--device", "cpu"]
    program = [sys.executable, "-m", "napari_cfsr.cli", "evaluate"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    row = next(line for line in done.stdout.splitlines() if line.startswith("butterfly"))
    assert float(row.split()[1]) == pytest.approx(22.100, abs=0.001)  # as with the file of LR
    assert float(row.split()[3]) > 28.95  # 28.909 without the ensemble
    assert "; ensemble; Y (BT.601), ignored border 4" in done.stdout
