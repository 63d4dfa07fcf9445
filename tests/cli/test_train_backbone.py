"""`napari-cfsr train-backbone`."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from napari_cfsr.cli import train_backbone
from napari_cfsr.core.backbone.files import TrainingState, read_backbone_card
from napari_cfsr.core.network.cfsr import CFSRConfig
from napari_cfsr.core.weights.checkpoints import open_backbone
from tests.helpers.commands import Run

QUICK = ("--batch", 1, "--patch", 16, "--validations", 1, "--rise", 1)


@pytest.fixture
def run(call: Run) -> Run:
    return partial(call, "train-backbone")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of a photo, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("photos")
    image = skimage.data.astronaut()
    for i in range(4):
        Image.fromarray(image[100 * i : 100 * i + 96, 150:278]).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"nonsense")
    return folder


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    Image.fromarray(skimage.data.chelsea()[50:130, 100:180]).save(folder / "cat.png")
    return folder


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a network with few and small blocks."""
    small = partial(CFSRConfig, embed_dim=16, depths=(1, 1), kernel_size=5)
    monkeypatch.setattr("napari_cfsr.core.backbone.train.CFSRConfig", small)


def test_from_nothing_to_a_backbone_of_another_scale(
    run: Run, photos: Path, validation: Path, tmp_path: Path
) -> None:
    x2, x4 = tmp_path / "x2.safetensors", tmp_path / "x4.safetensors"
    common = ("--data", photos, "--validation", validation, *QUICK, "--steps", 6)
    status, out, err = run(*common, "--scale", 2, "--output", x2)
    assert (status, re.sub(r"[\d.]+ dB", "N dB", out)) == (
        0, f"{x2}: N dB on the validation images\n"
    )  # fmt: skip
    assert "broken.png: not an image, or damaged" in err
    assert re.search(r"step 6, loss \S+, rate \S+, \S+ images/s, validation \d+\.\d{3} dB", err)
    status, out, err = run(*common, "--output", x4, "--init", x2, "--json", "--half")
    assert status == 0, err
    record = json.loads(out)
    assert record["path"] == str(x4)
    assert record["finished"] is True
    assert x4.stat().st_size < 0.65e6 < 1.1e6 < x2.stat().st_size
    card = read_backbone_card(x4)
    assert (card["scale"], card["init"], card["step"]) == (4, "x2.safetensors", 6)
    assert card["data"] == photos.name
    assert card["validation"] == ["cat.png"]
    assert card["psnr"] == pytest.approx(record["psnr"], abs=1e-3)
    assert open_backbone(x4).config.scale == 4


@pytest.mark.usefixtures("small_network")
def test_images_smaller_than_a_patch_are_counted(
    run: Run, photos: Path, validation: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.open(photos / "0.png").save(folder / "large.png")
    for name in "ab":
        Image.open(photos / "0.png").crop((0, 0, 31, 96)).save(folder / f"{name}.png")
    output = tmp_path / "x2.safetensors"
    common = ("--validation", validation, *QUICK, "--steps", 1, "--scale", 2, "--output", output)
    status, _, err = run("--data", folder, *common)
    assert status == 0, err
    assert "2 of 3 images are smaller than a patch (32 pixels) and left out" in err
    assert read_backbone_card(output)["images"] == 1
    assert "smaller than a patch" not in run("--data", photos, *common, "--overwrite")[2]


@pytest.mark.usefixtures("small_network")
def test_without_validation_images_some_are_held_out(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x3.safetensors"
    status, _, err = run(
        "--data", photos, *QUICK, "--steps", 2, "--scale", 3, "--output", output, "--seed", 2
    )
    assert status == 0, err
    card = read_backbone_card(output)
    assert card["images"] == 3
    assert len(card["validation"]) == 1


@pytest.mark.usefixtures("small_network")
def test_resuming_keeps_the_options(
    run: Run, photos: Path, validation: Path, tmp_path: Path
) -> None:
    output, state = tmp_path / "x2.safetensors", tmp_path / "x2.state.safetensors"
    common = ("--data", photos, "--validation", validation, "--output", output)
    assert run(*common, *QUICK, "--scale", 2, "--steps", 3, "--rate", 0.001)[0] == 0
    status, out, err = run(*common, *QUICK, "--scale", 2)
    assert (status, out) == (2, "")
    assert f"{state} exists: continue with --resume {state}, or pass --overwrite" in err
    assert run(*common, "--resume", state, "--steps", 5)[0] == 0
    about = TrainingState.load(state).about
    assert about["step"] == 5
    assert (about["config"]["rate"], about["config"]["patch"]) == (0.001, 16)
    status, _, err = run(*common, "--resume", state, "--scale", 4)
    assert status == 2
    assert "expected the scale of the state, 2, got 4" in err
    status, _, err = run(*common, "--resume", output)
    assert status == 2
    assert "can start from a backbone, but not resume from one" in err
    output.unlink()
    status, out, _ = run(*common, "--resume", state, "--json")  # nothing is left to do
    assert (status, json.loads(out)["path"]) == (0, str(output))
    assert output.is_file()
    foreign = tmp_path / "precious.safetensors"
    foreign.write_text("precious")
    status, _, err = run(*common[:4], "--output", foreign, "--resume", state, "--steps", 9)
    assert (status, foreign.read_text()) == (2, "precious")
    assert f"{foreign} exists" in err
    assert run(*common, *QUICK, "--scale", 2, "--steps", 1, "--overwrite")[0] == 0
    assert TrainingState.load(state).about["step"] == 1


def test_resuming_keeps_the_validation_images(
    run: Run, photos: Path, validation: Path, tmp_path: Path
) -> None:
    """Otherwise PSNR could not be compared, and training images might be used for validation."""
    output, state = tmp_path / "x2.safetensors", tmp_path / "x2.state.safetensors"
    common = ("--data", photos, "--output", output)
    first = ("--validation", validation, *QUICK, "--scale", 2, "--steps", 2, "--half")
    assert run(*common, *first)[0] == 0
    output.unlink()
    assert run(*common, "--resume", state, "--steps", 3)[0] == 0
    assert output.stat().st_size < 0.65e6  # as before
    assert read_backbone_card(output)["validation"] == ["cat.png"]
    status, _, err = run(*common, "--validation", photos, "--resume", state, "--steps", 4)
    assert status == 2
    assert "expected the validation images of the resumed training" in err
    assert TrainingState.load(state).about["step"] == 3


@pytest.mark.usefixtures("small_network")
def test_stopped_before_the_first_report(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says that it is not finished."""
    stopped = threading.Event()
    stopped.set()
    monkeypatch.setattr(train_backbone, "_stopping", lambda: contextlib.nullcontext(stopped))
    output = tmp_path / "x2.safetensors"
    status, out, err = run("--data", photos, *QUICK, "--scale", 2, "--output", output, "--json")
    assert status == 2
    assert json.loads(out)["finished"] is False
    assert "nothing is lost" in err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--scale", 5), "expected scale 2, 3 or 4"),
        (("--output", "mine.pth"), "expected --output with the ending .safetensors"),
        (("--data", "nowhere"), "nowhere"),
        (("--patch", 200), "expected images of at least 800 pixels in Y and X"),
        (("--init", "nowhere.safetensors"), "no such file"),
        (("--rate", 7), "expected rate between 0 and 1"),
    ],
)
def test_faults_are_reported_before_training(
    run: Run, photos: Path, validation: Path, tmp_path: Path, options: tuple, text: str
) -> None:
    given = {"--data": photos, "--validation": validation, "--output": tmp_path / "a.safetensors"}
    given |= {"--steps": 1, **dict([options])}
    status, out, err = run(*(x for pair in given.items() for x in pair))
    assert (status, out) == (2, "")
    assert text in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_starting_from_the_official_weights_shows_their_notice(
    run: Run, photos: Path, validation: Path, tmp_path: Path, official_folder: Path
) -> None:
    init = official_folder / "CFSR_x2.pth"
    status, _, err = run(
        "--data", photos, "--validation", validation, *QUICK, "--steps", 1, "--scale", 2,
        "--init", init, "--output", tmp_path / "a.safetensors",
    )  # fmt: skip
    assert status == 0
    assert "weights that start from the official ones are derived from them" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_stop_a_training(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with train_backbone._stopping() as stopped:
        signal.raise_signal(number)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):  # the second one
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_stopped_by_a_signal_nothing_is_lost(
    run: Run, photos: Path, validation: Path, tmp_path: Path
) -> None:
    output, state = tmp_path / "x2.safetensors", tmp_path / "x2.state.safetensors"
    common = ("--data", photos, "--validation", validation, "--output", output)
    options = [str(x) for x in (*common, *QUICK, "--scale", 2, "--hours", 1, "--validations", 9999)]
    command = [sys.executable, "-m", "napari_cfsr.cli", "train-backbone", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"stopped; nothing is lost: continue with --resume {state}" in err
    step = TrainingState.load(state).about["step"]
    assert step > 0
    status, _, err = run(*common, "--resume", state, "--steps", step + 2)
    assert status == 0, err
    assert TrainingState.load(state).about["step"] == step + 2
