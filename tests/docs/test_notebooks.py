"""The notebooks: each runs from start to end on little data and computes what it says.

With `-m docs` they also run with the official weights, at full length, and on other images.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from skimage import data as samples

from napari_cfsr import degrade, load_model, psnr, ssim, upscale
from napari_cfsr.core.weights.checkpoints import read_refiner_card
from napari_cfsr.core.weights.weight_files import BUNDLED, OFFICIAL_SHA256, WEIGHTS_VARIABLE
from tests.conftest import SHARED

FOLDER = Path(__file__).parents[2] / "notebooks"
BASELINE, TRAINING, INFERENCE = (
    "01_baseline_verification",
    "02_training_a_refiner",
    "03_inference_and_visualisation",
)
LINUX = sys.platform.startswith("linux")
MOST_CELLS = 16
SECONDS = 600  # for a cell, on a busy machine; a whole notebook takes a tenth of it
SHORT = {"placement": "input", "warm_steps": 120, "steps": 1, "every": 1}  # a recipe of seconds

pytestmark = pytest.mark.filterwarnings("ignore:Proactor event loop")  # zmq, on Windows

Run = Callable[..., tuple[dict[str, Any], str]]


def load(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tagged(notebook: nbformat.NotebookNode) -> list[int]:
    """Indices of the cells with parameters."""
    tags = [cell.metadata.get("tags", ()) for cell in notebook.cells]
    return [i for i, names in enumerate(tags) if "parameters" in names]


@pytest.fixture
def run(compiled_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a notebook with other parameters; gives values of expressions at its end, and its output.

    The kernel is this interpreter in a process of its own, without anyone's settings. No cell may
    write to standard error, where warnings go.
    """
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # tqdm warns of missing ipywidgets, for a progress bar that is not used
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")

    def run(name: str, wanted: dict[str, str], **parameters: object) -> tuple[dict[str, Any], str]:
        notebook = load(name)
        given = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
        notebook.cells.insert(tagged(notebook)[0] + 1, nbformat.v4.new_code_cell(given))
        values = ", ".join(f"{key!r}: {expression}" for key, expression in wanted.items())
        last = f"import json\nprint(json.dumps({{{values}}}, default=float))"
        # not a cell of its own: with napari's window open, the kernel runs Qt's event loop between
        # cells, and on a busy machine it sometimes ended there before it had answered
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        code[-1].source += f"\n{last}"
        where = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        streams = {"stdout": "", "stderr": ""}
        for output in outputs:
            if output.output_type == "stream":
                streams[output.name] += output.text
        assert streams["stderr"] == ""
        found = json.loads(streams["stdout"].splitlines()[-1])
        found["pictures"] = sum("image/png" in output.get("data", {}) for output in outputs)
        return found, streams["stdout"]

    return run


def test_all_notebooks_are_known() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == [BASELINE, TRAINING, INFERENCE]


@pytest.mark.parametrize("name", [BASELINE, TRAINING, INFERENCE])
def test_notebooks_are_short_say_what_they_are_and_hold_no_output(name) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"minutes?\b.* on two CPU cores", first.source)
    assert tagged(notebook) == [1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}  # no version of whoever saved it


@pytest.mark.docs
def test_the_published_figures_of_set5_come_out(run: Run, data: Path, official) -> None:
    wanted = {
        "off": "off",
        "mean": "[means['Set5', m].psnr for m in ('bicubic', 'baseline', 'delta')]",
        "rounding": "rounding['Set5']",
        "ssim_in_8_bits": "means['Set5', 'baseline'].ssim_uint8",
        "by_hand": "by_hand",
        "above": "[scores.psnr, scores.ssim]",
    }
    found, said = run(BASELINE, wanted, DATA=str(data), DATASETS=("Set5", "Set6"))
    assert list(found["off"]) == ["Set5"]
    off_psnr, off_ssim = found["off"]["Set5"]
    assert abs(off_psnr) < 0.002
    assert abs(off_ssim) < 0.0005
    # measured by others with the authors' code, and in docs/measurements.md
    assert found["mean"] == pytest.approx([28.4321, 32.330, 32.3302], abs=0.001)
    assert -0.005 < found["rounding"] < -0.002
    assert round(found["ssim_in_8_bits"], 4) == 0.8964  # that of the authors is of rounded results
    assert found["by_hand"] == pytest.approx(found["above"], abs=1e-6)
    assert "not measured: data set 'Set6' not found" in said
    assert re.search(r"Set5 +baseline +32\.\d{4} +0\.89\d\d +32\.33 +0\.8964 ", said)
    assert found["pictures"] == 1


def test_without_benchmark_images_photos_are_measured(run: Run, bundled_models) -> None:
    wanted = {"off": "off", "scores": "[scores.psnr, scores.ssim]"}
    found, said = run(BASELINE, wanted, LIMIT=1, BACKBONE="bundled")
    hr = samples.astronaut()
    baseline, truth = upscale(degrade(hr, 4), bundled_models[4]).baseline, hr / 255
    own = [metric(baseline, truth, shave=4, channel="Y") for metric in (psnr, ssim)]
    assert found["scores"] == pytest.approx(own, abs=1e-5)
    assert found["off"] == {}  # nothing is published for them
    assert "1 images" in said


def test_a_refiner_is_trained_saved_and_loaded(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tissue.safetensors"
    found, said = run(TRAINING, TRAINED, BACKBONE="bundled", RECIPE=SHORT, REFINER=str(path))
    check_training(found, path, "bundled")
    assert "orth using" in said  # or not worth


@pytest.mark.docs
@pytest.mark.timeout(1200)
def test_a_refiner_gains_on_an_unseen_image(run: Run, monkeypatch, tmp_path: Path) -> None:
    """With the official weights if they are there, else with those that ship."""
    folder = SHARED / "weights" / "official"
    if folder.is_dir():
        monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    path = tmp_path / "tissue.safetensors"
    found, said = run(TRAINING, TRAINED, REFINER=str(path))
    check_training(found, path, "auto")
    report, figures = found["report"], found["figures"]
    assert found["gain"] > 3
    assert report["delta"] > max(v for k, v in report.items() if k != "delta") + 0.5
    assert figures["delta"] > max(v for k, v in figures.items() if k != "delta") + 0.5
    assert "Worth using" in said


TRAINED = {
    "gain": "trained.gain",
    "report": "{row.name: row.psnr for row in trained.report.rows}",
    "figures": "{k.replace('\\n', ' '): v[0] for k, v in figures.items()}",
    "held_out": "trained.report.images",
}


def check_training(found: dict[str, Any], path: Path, backbone: str) -> None:
    """What holds with any recipe."""
    report, figures = found["report"], found["figures"]
    assert report["delta"] - report["baseline"] == pytest.approx(found["gain"])
    assert len(report) == 5  # bicubic, two that are denoised, the frozen network, delta
    assert len(found["held_out"]) == 2

    card = read_refiner_card(path)
    assert card.gain == pytest.approx(found["gain"], abs=1e-4)
    assert card.extra["degradation"]["photons"] == 100
    # the image that was put aside, with the file that was saved, in this process
    unseen = samples.immunohistochemistry()[:128, :128].astype(np.float32) / 255
    lr = degrade(unseen, 2, photons=100, read_noise=0.02, seed=1)
    result = upscale(lr, load_model(2, backbone, path, "cpu"))
    for name in ("baseline", "delta"):
        own = psnr(getattr(result, name), unseen, shave=2, channel="Y")
        assert figures[name] == pytest.approx(own, abs=1e-3)
    means = {f"non-local means, {name}" for name in ("bicubic", "baseline")}
    assert set(figures) == {"bicubic", "baseline", "delta", *means}
    assert found["pictures"] == 2


@pytest.mark.docs
def test_own_images_that_gain_nothing_save_nothing(run: Run, tmp_path: Path) -> None:
    folder, path = tmp_path / "images", tmp_path / "none.safetensors"
    folder.mkdir()
    photo = samples.camera()
    for i in range(5):
        Image.fromarray(photo[90 * i : 90 * i + 130, 100:300]).save(folder / f"{i}.png")
    wanted = {"improved": "trained.improved", "figures": "figures", "shape": "unseen.shape"}
    recipe = {"placement": "output", "steps": 1, "rate": 1e-9}
    clean = {"BACKBONE": "bundled", "PHOTONS": None, "READ_NOISE": 0.0, "RECIPE": recipe}
    found, said = run(TRAINING, wanted, FOLDER=str(folder), REFINER=str(path), **clean)
    assert found["improved"] is False
    assert not path.exists()
    assert "No reliable gain over the frozen backbone" in said
    assert said.count("refiner=None") == 2  # before the training and after it
    assert set(found["figures"]) == {"bicubic", "baseline"}
    assert found["shape"] == [130, 200]


WANTED = {
    "psnr": "psnr",
    "shown": "{k: v.psnr for k, v in shown.scores.items()}",
    "same": "same",
    "channel_off": "channel_off",
    "stack": "[stack.baseline.shape, str(stack.baseline.dtype)]",
    "region_off": "region_off",
    "crop_off": "crop_off",
    "outputs": "model.info.outputs",
    "sha256": "record['backbone_sha256']",
    "opened": "viewer is not None",
}


def check_inference(found: dict[str, Any], model: Any) -> None:
    """What holds with any backbone."""
    hr = samples.chelsea()[:300, :448]
    lr = np.rint(degrade(hr, 4) * 255).astype(np.uint8)
    own = psnr(upscale(lr, model).baseline, hr, shave=4, channel="Y", data_range=255)
    assert found["psnr"] == pytest.approx(own, abs=1e-3)
    assert found["shown"]["baseline"] == pytest.approx(found["psnr"], abs=1e-9)
    assert found["same"] is True
    assert found["channel_off"] <= 1
    assert found["stack"] == [[3, 512, 512], "uint16"]
    assert found["region_off"] <= 1
    assert found["crop_off"] > 5
    assert found["sha256"] == model.info.backbone_sha256
    assert found["pictures"] == 1


def test_inference_with_the_weights_that_ship_and_without_a_display(
    run: Run, bundled_models, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    found, said = run(INFERENCE, WANTED, BACKBONE="bundled", REFINER=None, OPEN_NAPARI=LINUX)
    check_inference(found, bundled_models[4])
    assert found["outputs"] == ["baseline"]
    assert not found["opened"]
    assert "no display: napari is not opened" in said


@pytest.mark.docs
@pytest.mark.skipif(not (LINUX and os.environ.get("DISPLAY")), reason="needs a display on Linux")
def test_inference_with_official_weights_opens_napari(run: Run, official, models) -> None:
    ends = "([-0.5, -0.5], [n - 0.5 for n in layer.data.shape[:2]])"
    world = (
        f"{{layer.name: [list(layer.data_to_world(p)) for p in {ends}] for layer in viewer.layers}}"
    )
    # its window stays open: closing the last one ends the kernel
    wanted = {**WANTED, "world": world}
    found, _ = run(INFERENCE, wanted)
    check_inference(found, models[4])
    assert found["outputs"] == ["baseline", "delta"]
    assert (BUNDLED / "refiners" / "clean_official_x4.safetensors").is_file()
    assert found["sha256"] == OFFICIAL_SHA256[4]
    assert found["shown"].keys() == {"LR", "bicubic", "baseline", "delta"}
    assert list(found["world"]) == ["LR", "baseline", "delta"]
    for corner in found["world"].values():  # all cover the same part of the world
        assert np.allclose(corner, [[-0.5, -0.5], [74.5, 111.5]])
