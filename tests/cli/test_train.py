"""`napari-cfsr train` and the refiners that `models` manages."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.cli import main, parser
from napari_cfsr.cli.train import CHOICES, config_of
from napari_cfsr.core import training as core_training
from napari_cfsr.core.image.degradation import KERNELS, blur_in_pixels
from napari_cfsr.core.training import config as training_config
from napari_cfsr.core.training.config import TrainConfig, TrainRequest
from napari_cfsr.core.training.data import folder_data
from napari_cfsr.core.training.results import (
    Checkpoint,
    Preview,
    Report,
    ReportRow,
    TrainedRefiner,
    TrainProgress,
)
from napari_cfsr.core.training.windows import prepare
from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card, save_refiner
from napari_cfsr.core.weights.refiner_library import SHAPES
from napari_cfsr.errors import ImageError
from tests.helpers.commands import Run, Says
from tests.helpers.faults import run_python
from tests.helpers.small_sets import spots, tiny_backbone

STATE = {name: np.full(shape, 0.25, np.float32) for name, shape in SHAPES.items()}
CARD = RefinerCard(2, "input", weight_files.OFFICIAL_SHA256[2], "data, bicubic", 0.5, {"seed": 1})
BUNDLED = "clean_official_x4"
Calls = list[tuple[Any, ...]]


@pytest.fixture
def run(call: Run) -> Run:
    return call


@dataclass
class FakeTraining:
    """Replaces `iter_train`, with actions before given steps."""

    at: dict[int, Callable[[], None]] = field(default_factory=dict)
    steps: int = 20
    every: int = 5
    gain: float = 0.5
    requests: list[TrainRequest] = field(default_factory=list)
    stopped_at: int | None = None
    closed: bool = False

    def iter_train(
        self,
        request: TrainRequest,
        check: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Generator[TrainProgress, None, TrainedRefiner]:
        self.requests.append(request)
        try:
            for source in request.data.hr:
                yield TrainProgress("preparing", f"Reading {source.name}", 0.0, 0.2)
            yield from self._training(stop)
            self.at.get(-1, lambda: None)()
            yield TrainProgress("measuring", "Measuring a.png", 0.98, 2.0)
            self.at.get(-2, lambda: None)()
        finally:
            self.closed = True
        return self.result()

    def _training(self, stop: Callable[[], bool]) -> Generator[TrainProgress, None, None]:
        for step in range(1, self.steps + 1):
            if stop():
                self.stopped_at = step
                return
            self.at.get(step, lambda: None)()
            gain = best = preview = None
            if step % self.every == 0:
                gain = step / 100
                best = Checkpoint(STATE, CARD, step, gain)
                image = np.full((4, 6), 1.5, np.float32)
                preview = Preview("a.png", image[::2, ::2], image, image, image)
            yield TrainProgress(
                "training", "Training", step / self.steps, 65.0,
                "input", step, 0.01 / step, gain, best, preview,
            )  # fmt: skip

    def result(self) -> TrainedRefiner:
        rows = [ReportRow("bicubic", 30, 0.8), ReportRow("baseline", 31, 0.9)]
        rows.append(ReportRow("delta", 31 + self.gain, 0.95))
        report = Report(tuple(rows), "gray", 2, ("a.png", "b.png"), (self.gain, self.gain))
        better = self.gain > 0
        verdict = f"{'Worth' if better else 'Not worth'} using: {self.gain:+.2f} dB."
        history = ({"placement": "input", "step": 5, "loss": 0.002, "gain": 0.05},)
        notes = ("placement input was better by 0.1 dB",)
        return TrainedRefiner(STATE, CARD, report, better, verdict, notes, history, 12.3)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """A training that takes no time, in place of the real one."""
    result = FakeTraining()
    monkeypatch.setitem(vars(core_training), "iter_train", result.iter_train)
    find = weight_files.find_backbone

    def found(scale: int, backbone: str, **how: Any) -> Any:
        return find(scale, "bundled" if backbone == "auto" else backbone, **how)

    monkeypatch.setattr(weight_files, "find_backbone", found)
    return result


@pytest.fixture
def train(images: Path, fake: FakeTraining, call: Run) -> Run:
    """Run `train` on three images, without a network."""
    return partial(call, "train", "--data", images, "--scale", 2)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (40, 50), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def asked(*arguments: object) -> argparse.Namespace:
    """Options of a training on images."""
    common = ["train", "--data", "x", "--scale", "2", "--name", "n"]
    return parser().parse_args([*common, *map(str, arguments)])


# options


def test_every_field_of_the_configuration_has_an_option() -> None:
    arguments = {
        "--preset": "benchmark", "--placement": "input", "--kernel": "area", "--blur": 0.8,
        "--photons": 50, "--read-noise": 0.01, "--gain": 2, "--offset": 0.1, "--jpeg": 75,
        "--seed": 7, "--loss": "l1+fft", "--rate": 0.001, "--schedule": "constant", "--steps": 70,
        "--batch": 5, "--patch": 48, "--every": 9, "--patience": 3, "--ema": 0.9,
        "--warm-steps": 11, "--reduce": 2, "--held-out": 0.2, "--intensity": "0,255",
        "--memory": "1.5GB",
    }  # fmt: skip
    config = config_of(asked(*(text for pair in arguments.items() for text in pair)))
    given = {name.lstrip("-").replace("-", "_"): value for name, value in arguments.items()}
    given |= {"intensity": (0.0, 255.0), "memory": 1_500_000_000}
    for name, value in given.items():
        assert getattr(config, name) == value, name
    elsewhere = {"align", "match", "size", "init", "noise"}  # of pairs and of noisy images
    assert set(given) | elsewhere == {f.name for f in fields(TrainConfig)}
    assert config_of(asked()) == TrainConfig()


def test_choices_are_those_of_the_configuration() -> None:
    names = {"preset": "Preset", "placement": "PlacementChoice", "loss": "Loss",
             "schedule": "Schedule", "size": "Size"}  # fmt: skip
    for name, choices in CHOICES.items():
        expected = KERNELS if name == "kernel" else get_args(getattr(training_config, names[name]))
        assert choices == expected, name


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("1.5 GiB", 1.5 * 2**30), ("500mb", 5 * 10**8), ("64MiB", 2**26),
     ("20000000", 20_000_000), ("2g", 2 * 10**9), ("40000KB", 4 * 10**7)],
)  # fmt: skip
def test_sizes_of_memory(text: str, size: float) -> None:
    assert config_of(asked("--memory", text)).memory == size


def test_blur_in_units_of_length() -> None:
    config = config_of(asked("--blur-fwhm", 300, "--pixel-size", 100, "--hr-fwhm", 150))
    assert config.blur == blur_in_pixels(300, 100, 150) == pytest.approx(1.1033, abs=1e-4)
    assert config_of(asked("--blur-fwhm", 300, "--pixel-size", 100)).blur > config.blur


def test_options_of_pairs() -> None:
    pairs = ["train", "--pairs", "x", "y", "--scale", "2", "--name", "n"]
    config = config_of(parser().parse_args([*pairs, "--align", "--no-match"]))
    assert (config.align, config.match) == (True, False)
    assert config_of(parser().parse_args(pairs)) == TrainConfig()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: --scale"),
        (["--scale", 2, "--name", "n"], "one of the arguments --data --pairs --noisy is required"),
        (["--scale", 2, "--data", "x"], "one of the arguments -o/--output --name is required"),
        (["--scale", 2, "--data", "x", "--output", "o", "--name", "n"], "not allowed with"),
        (["--data", "x", "--pairs", "x", "y"], "not allowed with argument --data"),
        (["--scale", 5], "argument --scale: invalid choice: 5"),
        (["--pairs", "x"], "argument --pairs: expected 2 arguments"),
        (["--memory", "lots"], "argument --memory: expected a size such as 500MB or 2GB"),
        (["--memory", "1TB"], "argument --memory: expected a size such as"),
        (["--kernel", "nearest"], "argument --kernel: invalid choice: 'nearest'"),
        (["--photons", "many"], "argument --photons: invalid float value: 'many'"),
    ],
    ids=str,
)
def test_invalid_arguments(fault: Says, arguments: list[Any], reason: str) -> None:
    err = fault("train", *arguments)
    assert reason in err
    assert len(err.splitlines()) == 1
    assert "(see 'napari-cfsr train --help')" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--photons", 0], "expected photons"),
        (["--intensity", "1,x"], "expected --intensity LOW,HIGH, got '1,x'"),
        (["--blur-fwhm", 3], "expected both --blur-fwhm and --pixel-size"),
        (["--pixel-size", 3], "expected both --blur-fwhm and --pixel-size"),
        (["--hr-fwhm", 3], "expected both --blur-fwhm and --pixel-size"),
        (["--blur-fwhm", 3, "--pixel-size", 0], "expected 0 <= hr_fwhm <= fwhm and pixel_size > 0"),
        (["--blur-fwhm", 3, "--pixel-size", 1, "--blur", 1], "expected --blur or --blur-fwhm"),
        (["--align"], "--align does not apply to images without measured LR images"),
        (["--no-match"], "--match does not apply to images without measured LR images"),
        (["--backbone", "nothing"], "expected backbone"),
        (["--data", "nowhere"], "nowhere"),
    ],
    ids=str,
)
def test_invalid_values(
    tmp_path: Path, fake: FakeTraining, train: Run, options: list[Any], reason: str
) -> None:
    target = tmp_path / "out" / "a.safetensors"
    status, out, err = train("--output", target, *options)
    assert (status, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1
    assert fake.requests == []
    assert not target.parent.exists()


@pytest.mark.parametrize("option", ["--photons", "--blur", "--reduce", "--jpeg", "--offset"])
def test_measured_pairs_are_not_degraded(
    images: Path, fake: FakeTraining, fault: Says, option: str
) -> None:
    assert f"{option} does not apply to measured pairs: leave it out" in fault(
        "train", "--pairs", images, images, "--scale", 2, "--name", "n", option, 1
    )
    assert fake.requests == []


def test_help(run: Run, done: Says) -> None:
    out = done("train", "--help")
    for title in ("data:", "result:", "degradation:", "recipe:", "backbone and run:"):
        assert f"\n{title}\n" in out
    for action in ("show", "rename", "delete", "export"):
        assert run("models", action, "--help")[1].startswith(f"usage: napari-cfsr models {action}")


# a training


def test_a_training_into_a_file(tmp_path: Path, home: Path, fake: FakeTraining, train: Run) -> None:
    target = tmp_path / "out" / "mine.safetensors"
    status, out, err = train("-o", target, "--device", "cpu", "--photons", 50)
    assert status == 0
    assert out.splitlines() == [
        "                   PSNR (dB)     SSIM",
        "bicubic                30.00   0.8000",
        "baseline               31.00   0.9000",
        "delta                  31.50   0.9500",
        "mean of 2 held-out images (gray, ignored border 2): a.png, b.png",
        "placement input was better by 0.1 dB",
        "Worth using: +0.50 dB.",
        f"saved as {target} (+0.50 dB, 12 s)",
    ]
    assert [line.removeprefix("napari-cfsr: ") for line in err.splitlines()] == [
        "Reading 0.png",
        "input step 1, 1:05 left, loss 0.01, Training",
        "Measuring a.png, 0:02 left",
    ]
    assert read_refiner_card(target) == CARD
    assert files(tmp_path / "out") == ["mine.safetensors"]
    assert not home.exists()
    (request,) = fake.requests
    assert request.load == {"scale": 2, "backbone": "auto", "device": "cpu", "download": False}
    assert request.config == TrainConfig(photons=50)
    assert [s.name for s in request.data.hr] == ["0.png", "1.png", "2.png"]
    assert fake.closed


def test_a_training_under_a_name(home: Path, train: Run, run: Run) -> None:
    arguments = ("--name", "Zellkerne 2x")
    status, out, _ = train(*arguments, "--description", "Nuclei, 50 photons")
    target = home / "data" / "refiners" / "Zellkerne 2x.safetensors"
    assert status == 0
    assert out.endswith(f"saved as {target} (+0.50 dB, 12 s)\n")
    assert read_refiner_card(target).description == "Nuclei, 50 photons"
    assert read_refiner_card(target).gain == 0.5
    rows = json.loads(run("models", "list", "--json")[1])
    (row,) = (r for r in rows if r["kind"] == "imported")
    assert (row["name"], row["gain"], row["placement"]) == ("Zellkerne 2x", 0.5, "input")


def test_pairs(tmp_path: Path, fake: FakeTraining, done: Says) -> None:
    for side, size in {"lr": 20, "hr": 40}.items():
        (tmp_path / side).mkdir()
        for i in range(3):
            noise = np.random.default_rng(i).integers(0, 65536, (size, size), np.uint16)
            tifffile.imwrite(tmp_path / side / f"{i}.tif", noise, photometric="minisblack")
    done(
        "train", "--pairs", tmp_path / "lr", tmp_path / "hr", "--scale", 2, "--name", "n",
        "--align", "--intensity", "0,1000",
    )  # fmt: skip
    (request,) = fake.requests
    assert request.config == TrainConfig(align=True, intensity=(0, 1000))
    assert request.data.lr is not None
    assert [s.read().shape for s in request.data.lr] == [(20, 20)] * 3
    assert request.data.hr[0].read().max() > 60


def test_the_json_record(tmp_path: Path, fake: FakeTraining, train: Run) -> None:
    target = tmp_path / "a.safetensors"
    status, out, err = train("-o", target, "--json")
    assert status == 0
    record = json.loads(out)
    expected = json.loads(fake.result().to_json())
    assert record == {**expected, "path": str(target)}
    assert (record["improved"], record["gain"]) == (True, 0.5)
    assert record["report"]["rows"][2] == {"name": "delta", "psnr": 31.5, "ssim": 0.95}
    assert len(err.splitlines()) == 3


def test_files_that_were_left_out_are_named_once(
    images: Path, fake: FakeTraining, train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "bad.png").write_bytes(b"nonsense")
    note = f"{images / 'bad.png'}: not an image, or damaged"
    real = fake.result

    def result() -> TrainedRefiner:
        told = real()
        return TrainedRefiner(told.state, told.card, told.report, True, "Good.", (note, "Other."))

    fake.result = result  # type: ignore[method-assign]
    status, out, err = train("--name", "n")
    assert status == 0
    assert err.startswith(f"napari-cfsr: {note}\n")
    assert note not in out
    assert "\nOther.\nGood.\n" in out


def test_no_gain_is_not_saved(tmp_path: Path, fake: FakeTraining, train: Run) -> None:
    fake.gain = -0.2
    target = tmp_path / "out" / "a.safetensors"
    for options in (["-o", target], ["--name", "n"], ["-o", target, "--json"]):
        status, out, err = train(*options)
        assert status == 2
        faults = err.splitlines()[3:]
        assert faults == ["napari-cfsr: nothing was saved: Not worth using: -0.20 dB."]
        if "--json" in options:
            record = json.loads(out)
            assert (record["improved"], record["path"], record["gain"]) == (False, None, 0)
        else:
            assert "delta                  30.80   0.9500" in out
            assert "saved" not in out
            assert "using" not in out  # it is said once, as the fault
    assert not target.exists()
    assert files(tmp_path) == ["images/0.png", "images/1.png", "images/2.png"]


def test_bad_images_are_refused_in_one_line(tmp_path: Path, fake: FakeTraining, train: Run) -> None:
    def refuse() -> None:
        raise ImageError("expected at least 3 images, got 1: add images")

    fake.at[1] = refuse
    status, out, err = train("-o", tmp_path / "a")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == "napari-cfsr: expected at least 3 images, got 1: add images"
    assert not (tmp_path / "a.safetensors").exists()


def test_the_output_is_checked_before_training(
    tmp_path: Path, home: Path, fake: FakeTraining, train: Run
) -> None:
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"mine")
    (tmp_path / "file").write_text("")
    saved = home / "data" / "refiners" / "taken.safetensors"
    saved.parent.mkdir(parents=True)
    save_refiner(saved, STATE, CARD)
    before = files(tmp_path)
    cases = [
        (["-o", there], r"there.safetensors exists: pass --overwrite to replace it"),
        (["-o", tmp_path / "a.pth"], r"expected a file name that ends in .safetensors, got"),
        (["-o", tmp_path / "file" / "a.safetensors"], "can't be written"),
        (["--name", "taken"], "there is a refiner 'taken': use another name"),
        (["--name", BUNDLED, "--overwrite"], "comes with this program: use another name"),
        (["--name", "a/b"], "expected a name for a refiner, got 'a/b'"),
    ]
    for options, reason in cases:
        status, out, err = train(*options)
        assert (status, out) == (2, ""), options
        assert reason in err, options
        assert len(err.splitlines()) == 1
    assert fake.requests == []
    assert files(tmp_path) == before


def test_overwrite(tmp_path: Path, home: Path, train: Run) -> None:
    for options, path in {
        ("-o", tmp_path / "a.safetensors"): tmp_path / "a.safetensors",
        ("--name", "b"): home / "data" / "refiners" / "b.safetensors",
        ("-o", tmp_path): tmp_path / "refiner.safetensors",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"before")
        assert train(*options)[0] == 2
        assert path.read_bytes() == b"before"
        assert train(*options, "--overwrite")[0] == 0
        assert read_refiner_card(path) == CARD


def test_a_full_disk_at_the_end(
    tmp_path: Path, home: Path, train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "mine.safetensors"
    real = Path.replace

    def replace(self: Path, other: Path) -> Path:
        if Path(other) == target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, other)

    monkeypatch.setattr(Path, "replace", replace)
    status, out, err = train("-o", target)
    instead = home / "data" / "refiners" / "mine.safetensors"
    assert status == 2
    assert err.splitlines()[-1].startswith(f"napari-cfsr: {target}: can't be written (No space")
    assert err.endswith(f"What was trained is saved as {instead} instead\n")
    assert out.endswith(f"Worth using: +0.50 dB.\nsaved as {instead} (+0.50 dB, 12 s)\n")
    assert read_refiner_card(instead) == CARD
    assert files(tmp_path / "out") == []


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_interrupt_keeps_the_best(tmp_path: Path, fake: FakeTraining, train: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    fake.at[12] = interrupt
    target = tmp_path / "a.safetensors"
    status, out, err = train("-o", target)
    assert status == 0
    assert fake.stopped_at == 13
    assert "stopping: the best refiner so far is kept and measured; Ctrl-C again ends at" in err
    assert out.endswith(f"saved as {target} (+0.50 dB, 12 s)\n")
    assert read_refiner_card(target) == CARD
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "steps", [(2,), (12, -1), (12, -2)], ids=["nothing yet", "measuring", "measured"]
)
def test_an_interrupt_that_ends_the_program(
    tmp_path: Path, fake: FakeTraining, train: Run, steps: tuple[int, ...]
) -> None:
    """The second one; or the first while there is nothing to keep."""
    before = signal.getsignal(signal.SIGINT)
    fake.at |= dict.fromkeys(steps, interrupt)
    status, out, err = train("-o", tmp_path / "a")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == "napari-cfsr: interrupted; nothing was saved"
    assert fake.closed
    assert files(tmp_path) == ["images/0.png", "images/1.png", "images/2.png"]
    assert signal.getsignal(signal.SIGINT) is before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_on_a_terminal(images: Path, train: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_cfsr.cli.train.REFRESH", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        assert main(["train", "--data", str(images), "--scale", "2", "--name", "n"]) == 0
    text = screen.getvalue()
    assert "\n" not in text.strip("\n")
    drawn = [line.strip() for line in text.split("\r") if line.strip()]
    assert re.match(r"0%\|.*\| Reading 0.png$", drawn[1])
    step4 = r"20%\|.*\| input step 4, 1:05 left, loss 0.0025, Training$"
    step9 = (r"45%\|.*\| input step 9, 1:05 left, gain \+0.05, best \+0.05 dB, loss 0.0011, "
             r"Training$")  # fmt: skip
    for pattern in (step4, step9, r"98%\|.*\| Measuring a.png, 0:02 left$"):
        assert any(re.match(pattern, line) for line in drawn), (pattern, drawn)


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands in for `torch.utils.tensorboard`, which needs a package of its own; its calls."""
    calls: Calls = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            if Path(folder).is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            calls.append(("open", folder))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values, **more: calls.append((name, *values))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_tensorboard_log(tmp_path: Path, train: Run, tensorboard: Calls) -> None:
    assert train("--name", "n", "--tensorboard", tmp_path / "log")[0] == 0
    calls: dict[str, list[tuple[Any, ...]]] = {}
    for name, *values in tensorboard:
        calls.setdefault(name, []).append(tuple(values))
    assert calls["open"] == [(str(tmp_path / "log"),)]
    scalars = calls["add_scalar"]
    assert [s[1:] for s in scalars if s[0] == "loss/input"] == [(0.01 / i, i) for i in range(1, 21)]
    assert [s[1:] for s in scalars if s[0] == "gain/input"] == [
        (0.05, 5), (0.1, 10), (0.15, 15), (0.2, 20),
    ]  # fmt: skip
    assert ("held-out PSNR/delta", 31.5, 0) in scalars
    pictures = {(name, step): image for name, image, step in calls["add_image"]}
    assert pictures["a.png/lr", 5].shape == (2, 3)
    assert pictures["a.png/delta", 20].max() == 1  # clipped
    texts = dict(calls["add_text"])
    assert "delta                  31.50   0.9500" in texts["report"]
    assert texts["verdict"] == "Worth using: +0.50 dB."
    assert tensorboard[-1] == ("close",)


def test_a_log_that_fails_does_not_end_the_training(
    tmp_path: Path,
    fake: FakeTraining,
    train: Run,
    tensorboard: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = sys.modules["torch.utils.tensorboard"].SummaryWriter
    monkeypatch.setattr(writer, "add_scalar", full, raising=False)
    log = tmp_path / "log"
    arguments = ("--name", "n", "--tensorboard")
    status, out, err = train(*arguments, log)
    assert status == 0
    assert f"{log}: the TensorBoard log can't be written (No space left on device)" in err
    assert "saved as" in out
    (tmp_path / "file").write_text("")
    status, out, err = train(*arguments, tmp_path / "file", "--overwrite")
    assert (status, out) == (2, "")
    assert "file: the TensorBoard log can't be written (Not a directory)" in err
    assert len(fake.requests) == 1


def test_without_tensorboard(
    tmp_path: Path, fake: FakeTraining, train: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    status, out, err = train("--name", "n", "--tensorboard", tmp_path / "log")
    assert (status, out) == (2, "")
    assert "'pip install tensorboard', or leave the log out" in err
    assert len(err.splitlines()) == 1
    assert fake.requests == []
    assert not (tmp_path / "log").exists()


# the real training

QUICK = ("--scale", 2, "--backbone", tiny_backbone(), "--device", "cpu", "--reduce", 2,
         "--warm-steps", 60, "--steps", 20, "--every", 10, "--batch", 4, "--patch", 32)  # fmt: skip
NOISE = ("--photons", 50, "--read-noise", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of an image, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("pieces")
    for i, piece in enumerate(spots(9, 256)):
        Image.fromarray(np.rint(piece * 255).astype(np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"nonsense")
    return folder


def measured_again(path: Path, images: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Gain of a saved refiner on each pair of LR and HR, dB: the array API, and nothing else."""
    model = nc.load_model(2, tiny_backbone(), path, device="cpu")
    gains = []
    for lr, hr in images.values():
        result = nc.upscale(lr, model, axes="YX")
        hr = hr[: result.baseline.shape[0], : result.baseline.shape[1]]
        delta, baseline = (
            nc.psnr(array, hr, shave=2, channel="gray") for array in (result.delta, result.baseline)
        )
        gains.append(delta - baseline)
    return gains


def test_the_gain_is_the_same_wherever_it_is_measured(
    folder: Path, tmp_path: Path, run: Run
) -> None:
    """Printed, in the card, in the record, and by a separate evaluation of the file."""
    target = tmp_path / "mine.safetensors"
    arguments = ("--data", folder, "--output", target, "--placement", "input")
    noise = ("--photons", 20, "--read-noise", 0.01, "--warm-steps", 120)
    status, out, err = run("train", *QUICK, *arguments, *noise, "--json")
    assert status == 0, err
    assert err.startswith(f"napari-cfsr: {folder / 'broken.png'}: not an image, or damaged\n")
    record = json.loads(out)
    card = read_refiner_card(target)
    config = TrainConfig(
        placement="input", photons=20, read_noise=0.01, reduce=2, warm_steps=120, steps=20,
        every=10, batch=4, patch=32,
    )  # fmt: skip
    assert card.extra["config"] == config.to_dict()
    request = TrainRequest(folder_data(folder), {"scale": 2}, config)
    windows = {w.name: (w.lr[0], w.hr[0]) for w in prepare(request).held_out}
    assert list(windows) == record["report"]["images"]
    again = measured_again(target, windows)
    np.testing.assert_allclose(again, record["report"]["gains"], atol=0.01)
    assert record["gain"] == pytest.approx(np.mean(again), abs=0.01)
    assert card.gain == pytest.approx(np.mean(again), abs=0.01)
    assert record["gain"] > 1  # after 140 steps; the backbone amplifies noise
    assert card.placement == record["placement"] == "input"
    shown = run("models", "show", target)[1]
    (printed,) = re.findall(r"^gain: +([+-][0-9.]+) dB on held-out images$", shown, re.M)
    assert float(printed) == pytest.approx(np.mean(again), abs=0.01)
    assert re.search(r"^data: +\S", shown, re.M)
    assert "degradation: bicubic, 20 photons, read noise 0.01\n" in shown
    assert re.search(r"^date: +20\d\d-\d\d-\d\d", shown, re.M)
    assert re.search(r"^  delta +[0-9.]+ +0\.\d{4}$", shown, re.M)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_in_a_terminal(folder: Path, tmp_path: Path) -> None:
    """The real program on a pseudo-terminal: stopped once, it measures and saves the best."""
    import fcntl
    import pty
    import struct
    import termios

    target = tmp_path / "a.safetensors"
    options = ("--data", folder, "--output", target, *NOISE, "--placement", "output", *QUICK)
    command = [sys.executable, "-m", "napari_cfsr.cli", "train", *options, "--steps", 100_000]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))  # rows, columns
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    screen, stopped_at = b"", 0.0
    while chunk := _chunk(ours):
        screen += chunk
        if not stopped_at and b" best +" in screen:
            process.send_signal(signal.SIGINT)
            stopped_at = time.monotonic()
    os.close(ours)
    out = process.communicate()[0].decode()
    assert process.returncode == 0, screen
    assert time.monotonic() - stopped_at < 60  # the report takes a while on a busy machine
    assert b"stopping: the best refiner so far is kept" in screen
    assert f"saved as {target} (+" in out
    gain = read_refiner_card(target).gain
    assert gain is not None
    assert gain > 0
    lines = [line for line in screen.decode().replace("\n", "\r").split("\r") if "%|" in line]
    assert max(map(len, lines)) <= 80


def _chunk(descriptor: int) -> bytes:
    """What came; nothing once the other side is closed."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


# models


@pytest.fixture
def mine(home: Path) -> Path:
    """A refiner of the user's."""
    path = home / "data" / "refiners" / "mine.safetensors"
    path.parent.mkdir(parents=True)
    return save_refiner(path, STATE, CARD)


def test_models_show(mine: Path, tmp_path: Path, run: Run, fault: Says) -> None:
    status, out, err = run("models", "show", "mine")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"mine (imported, {mine})"
    assert "gain:        +0.5000 dB on held-out images" in lines
    record = json.loads(run("models", "show", "mine", "--json")[1])
    assert record == {
        "name": "mine", "kind": "imported", "path": str(mine),
        "sha256": weight_files.sha256_of(mine), **vars(CARD),
    }  # fmt: skip
    elsewhere = mine.replace(tmp_path / "other.safetensors")
    assert run("models", "show", elsewhere)[1].startswith(f"other (file, {elsewhere})\n")
    assert "expected the name of a refiner on this machine" in fault("models", "show", "mine")
    assert run("models", "show", BUNDLED)[1].startswith(f"{BUNDLED} (bundled, ")


def test_models_rename(mine: Path, run: Run) -> None:
    new = mine.with_name("yours.safetensors")
    assert run("models", "rename", "mine", "yours") == (0, f"mine -> {new}\n", "")
    assert files(mine.parent) == ["yours.safetensors"]
    for arguments, reason in {
        ("mine", "x"): "expected the name of a refiner on this machine",
        (BUNDLED, "x"): "comes with this program and can't be renamed",
    }.items():
        status, out, err = run("models", "rename", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert reason in err
    assert files(mine.parent) == ["yours.safetensors"]


def test_models_export_delete_and_import(mine: Path, tmp_path: Path, run: Run, fault: Says) -> None:
    target = tmp_path / "usb" / "mine.safetensors"
    assert run("models", "export", "mine", target) == (0, f"mine -> {target}\n", "")
    assert f"{target} exists" in fault("models", "export", "mine", target)
    assert run("models", "export", "mine", target, "--overwrite")[0] == 0
    status, out, err = run("models", "delete", "nothing", BUNDLED, "mine")
    assert (status, out, len(err.splitlines())) == (2, f"deleted {mine}\n", 2)
    assert files(mine.parent) == []
    assert run("models", "import", target) == (0, f"{target} -> {mine}\n", "")
    assert mine.read_bytes() == target.read_bytes()


def test_managing_refiners_needs_no_torch(mine: Path) -> None:
    actions = (["list"], ["show", "mine"], ["rename", "mine", "x"], ["delete", "x"])
    code = (
        "import sys; from napari_cfsr.cli import main; "
        f"assert not any([main(['models', *action]) for action in {actions}]); "
        "assert 'torch' not in sys.modules"
    )
    run_python(code)


# noisy images


def noisy_files(folder: Path) -> list[Path]:
    """Two stacks of a camera with 3 electrons per level, 100 levels in darkness."""
    rng = np.random.default_rng(0)
    files = []
    for n, image in enumerate(spots(4, 96)[:2]):
        electrons = rng.poisson(300 * image + 20) + rng.normal(0, 3, image.shape)
        files.append(folder / f"dim {n}.tif")
        tifffile.imwrite(files[-1], np.rint(electrons / 3 + 100).astype(np.uint16))
    return files


def test_noisy_images_alone(call, tmp_path, monkeypatch) -> None:
    from napari_cfsr.core.training import noisy_train

    recipe = training_config.CountsRecipe(40, 5, rate=3e-3, batch=4, patch=32, clip=0.5)
    monkeypatch.setattr(noisy_train, "NOISY_RECIPES", {"small": recipe})
    first, second = noisy_files(tmp_path)
    camera = ("--camera-conversion", "3", "--camera-offset", "100", "--camera-read-noise", "3")
    status, out, _ = call(
        "train", "--noisy", first, second, "--size", "small", "--scale", "2",
        "--backbone", tiny_backbone(), *camera, "--output", tmp_path / "mine.safetensors",
    )  # fmt: skip
    assert status == 0
    assert "estimated from photons kept back in 2 noisy images: dim 0.tif, dim 1.tif" in out
    assert "SSIM" not in out
    card = read_refiner_card(tmp_path / "mine.safetensors")
    assert card.extra["noise"] == pytest.approx({"gain": 1 / 3, "read_noise": 1, "offset": 100})
    told = call("models", "show", tmp_path / "mine.safetensors")[1]
    assert "backbone:    any" in told
    assert "RefineNet dilated" in told


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--photons", "50"), "--photons does not apply to noisy images"),
        (("--held-out", "0.2"), "--held-out does not apply to noisy images"),
        (("--camera-offset", "1"), "expected --camera-conversion"),
        (("--camera-conversion", "0"), "electrons per ADU above 0"),
        (("--placement", "output"), "expected placement input"),
    ],
)
def test_options_that_mean_nothing_for_noisy_images(call, tmp_path, options, reason) -> None:
    noisy = noisy_files(tmp_path)
    target = tmp_path / "a.safetensors"
    backbone = tiny_backbone()
    status, _, error = call(
        "train", "--noisy", *noisy, "--scale", "2", "--backbone", backbone, *options, "-o", target
    )
    assert status == 2
    assert reason in error


@pytest.mark.parametrize("option", [("--size", "small"), ("--camera-conversion", "2")])
def test_options_of_noisy_images_alone(call, tmp_path, option) -> None:
    target = tmp_path / "a.safetensors"
    status, _, error = call("train", "--data", tmp_path, "--scale", "2", *option, "-o", target)
    assert status == 2
    assert "noisy images" in error or "--size does not apply" in error


def test_images_are_adapted_to_before_they_are_upscaled(call, tmp_path, monkeypatch, home) -> None:
    from napari_cfsr.core.training import noisy_train

    recipe = training_config.CountsRecipe(40, 5, rate=3e-3, batch=4, patch=32, clip=0.5)
    monkeypatch.setattr(noisy_train, "NOISY_RECIPES", {"small": recipe, "large": recipe})
    monkeypatch.setattr(noisy_train, "READY", None)
    monkeypatch.setitem(noisy_train.NETWORKS, "large", "RefineNet dilated")  # learns quickly
    noisy_files(tmp_path)
    command = ("upscale", tmp_path, "--scale", "2", "--backbone", tiny_backbone(), "--json")
    status, out, error = call(*command, "--adapt", "dim", "--output", tmp_path / "out")
    assert status == 0
    assert "estimated from photons kept back in 2 noisy images" in error
    assert {json.loads(line)["refiner"] for line in out.splitlines()} == {
        "imported dim.safetensors"
    }
    _, _, error = call(*command, "--adapt", "dim", "--output", tmp_path / "again")
    assert "there is a refiner of that name, which is used" in error


def test_images_that_cannot_be_adapted_to_are_upscaled_all_the_same(call, tmp_path, home) -> None:
    yy, xx = np.mgrid[:96, :96]
    clean = (30000 + 20000 * np.sin(yy / 9) * np.cos(xx / 11)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "clean.tif", clean)
    status, _, error = call(
        "upscale", tmp_path / "clean.tif", "--scale", "2", "--backbone", tiny_backbone(),
        "--adapt", "dim", "--output", tmp_path / "out",
    )  # fmt: skip
    assert status == 0
    assert "not adapted: expected images whose noise is independent" in error
    assert len(list((tmp_path / "out").iterdir())) > 0
