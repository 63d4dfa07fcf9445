"""Every command and every piece of Python in README and docs, run on small files.

What can't be run here is in `NOT_RUN`, with the reason. A command that is in neither is a failure:
no page shows a command that no test runs.
"""

from __future__ import annotations

import argparse
import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_cfsr as nc
from napari_cfsr.cli import main, parser
from napari_cfsr.core.weights import weight_files
from tests.helpers.documented import PAGES, ROOT, Snippet, make_files, nuclei, photo, snippets

NOT_RUN = {  # what a command begins with, and why it is not run
    r"pip (download|install|uninstall)": "installs; .ci/run does, in fresh environments",
    r"python3 \.ci/try\.py": "makes an environment; .ci/run does",
    r"napari-cfsr demo$": "its window stays open; tests/widgets/test_upscale.py opens the same",
    r"napari( --info)?$": "its window stays open, or it prints what napari itself prints",
    r"xvfb-run -a napari$": "the same",
    r"LIBGL_ALWAYS_SOFTWARE=1 napari$": "the same",
    r"napari-cfsr models fetch": "needs a network; tests/core/weights has a server of its own",
    r"napari-cfsr upscale .*--(workers|dask) ": "starts workers; tests/core/cluster does",
    r"dask (scheduler|worker)": "runs until it is stopped; tests/core/cluster starts the same",
    r"(git|cd|source|sudo|pre-commit|npe2|bash \.ci/run)": "changes the clone or the system",
    r"(pytest|ruff|mypy|lint-imports|tox run|towncrier|mkdocs)": "checks; .ci/run runs them",
    r"(xvfb-run -a )?python (benchmarks|docs)/": "takes minutes and needs data; parsed below",
    r"python -P -m": "how processes are started; tests/core/process starts them",
    r"napari-cfsr COMMAND --help": "a placeholder for each of them",
}
NOT_RUN_PYTHON = {  # page: what its Python is about, and why it is not run
    "docs/cluster.md": ("dask_", "starts jobs on SLURM or Kubernetes")
}
Shorter = dict[str, tuple[str, str]]
SHORTER: Shorter = {  # documented options, appended or in place of others, so that it takes seconds
    "napari-cfsr train --data": ("", " --placement input --warm-steps 40 --steps 1 --every 1"),
    "napari-cfsr train --pairs": ("", " --placement input --warm-steps 40 --steps 1 --every 1"),
    "napari-cfsr train --noisy": ("", " --steps 2"),
    "nc.TrainConfig(": ("photons=50", "placement='input', warm_steps=40, steps=1, photons=50"),
    "nc.train_refiner([], model, pairs": (
        "[], model, ",
        "[], model, nc.TrainConfig(placement='input', warm_steps=40, steps=1), ",
    ),
    "nc.train_refiner(noisy=": ("model=model", "model=model, config=nc.TrainConfig(steps=2)"),
    "nc.adapt(": ('"dim cells"', '"dim cells", nc.TrainConfig(steps=2)'),
}
ALWAYS_SHORTER = {"napari-cfsr train-backbone ": (" --hours 10", " --steps 4 --batch 2 --patch 16")}
PLACEHOLDERS = {  # of short forms in running text
    "napari-cfsr models import FILE": "napari-cfsr models import another.safetensors",
    "napari-cfsr evaluate --backbone ...": (
        "napari-cfsr evaluate --data DATA/Set5 --backbone bundled"
    ),
    "napari-cfsr evaluate --data DATA --datasets Set5,Set14,B100 --refiner FILE": (
        "napari-cfsr evaluate --data DATA --datasets Set5,Set14,B100 --refiner clean_bundled_x4"
    ),
    "napari-cfsr models import mine.safetensors": (
        "napari-cfsr models import mine.safetensors --overwrite"
    ),
}  # fmt: skip
NAMES = ("mine", "dim", "dim nuclei")  # refiners that pages use and do not train

COMMANDS = [["train"], ["train-backbone"], ["visualize"], ["evaluate"], ["upscale"], ["models"]]

SNIPPETS = {page.relative_to(ROOT).as_posix(): snippets(page) for page in PAGES}


def reason_not_to_run(snippet: Snippet) -> str | None:
    if snippet.python:
        about, reason = NOT_RUN_PYTHON.get(snippet.page, ("\0", None))
        return reason if about in snippet.text else None
    return next((why for begin, why in NOT_RUN.items() if re.match(begin, snippet.text)), None)


TO_RUN = {
    page: [snippet for snippet in found if reason_not_to_run(snippet) is None]
    for page, found in SNIPPETS.items()
}
LISTED = [snippet for found in SNIPPETS.values() for snippet in found if reason_not_to_run(snippet)]
TRAINING = [  # pages that show how to train a refiner
    page
    for page, found in TO_RUN.items()
    if any(begin in snippet.text for begin in SHORTER for snippet in found)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages name."""
    folder = tmp_path_factory.mktemp("documented")
    make_files(folder)
    return folder


@pytest.fixture(scope="module")
def refiner(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refiner, trained in seconds."""
    model = nc.load_model(2, "bundled", None, "cpu")
    config = nc.TrainConfig("adapt", "input", warm_steps=40, steps=1, photons=50, read_noise=0.01)
    images = [nuclei(96, 96, 64 * i) for i in range(8)]
    path = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    nc.train_refiner(images, model, config).save(path)
    return path


@pytest.fixture(scope="module")
def already_run() -> set[str]:
    """Commands that another page shows too: each is run once."""
    return set()


@pytest.fixture
def place(
    files: Path, refiner: Path, compiled_networks: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """A folder of this test's own with those files, the current one."""
    folder = tmp_path / "place"
    shutil.copytree(files, folder)
    shutil.copy(refiner, folder / "another.safetensors")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", [page for page, found in TO_RUN.items() if found])
def test_commands_and_code_of_a_page_run(
    page: str, place: Path, refiner: Path, already_run: set[str]
) -> None:
    run_page(page, place, refiner, SHORTER | ALWAYS_SHORTER, already_run)


@pytest.mark.docs
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", TRAINING)
def test_trainings_of_a_page_run_at_full_length(page: str, place: Path, refiner: Path) -> None:
    run_page(page, place, refiner, ALWAYS_SHORTER, set())


def run_page(
    page: str, place: Path, refiner: Path, shorter: Shorter, already_run: set[str]
) -> None:
    """Run all that a page shows, in its order, but commands that were already run."""
    names: dict[str, Any] = {}
    prepare(page, place, names)
    import_refiners(page, refiner)
    for snippet in TO_RUN[page]:
        text = shortened(PLACEHOLDERS.get(snippet.text, snippet.text), shorter)
        if snippet.python:
            exec(compile(text, page, "exec"), names)
        elif text in already_run:
            import_refiner(refiner, name_given(text))
        else:
            assert status(text) == 0, text
            already_run.add(text)


def import_refiners(page: str, refiner: Path) -> None:
    """Import a refiner under each name that the page uses and does not train."""
    trained = {name_given(snippet.text) for snippet in SNIPPETS[page] if not snippet.python}
    for name in set(NAMES) - trained:
        import_refiner(refiner, name)


def import_refiner(refiner: Path, name: str | None) -> None:
    if name is not None:
        file = shutil.copy(refiner, refiner.with_name(f"{name}.safetensors"))
        assert main(["models", "import", str(file)]) == 0


def name_given(command: str) -> str | None:
    """The name that a command gives to what it trains."""
    words = shlex.split(command)
    return words[words.index("--name") + 1] if "--name" in words else None


def prepare(page: str, place: Path, names: dict[str, Any]) -> None:
    """Make the variables and files that a page takes for granted."""
    if page == "docs/training.md":
        names["hr_images"] = [nuclei(96, 96, 64 * i) for i in range(8)]
        names["noisy_images"] = [nc.read_image(place / "dim" / f"{i}.tif").pixels for i in range(2)]
    if page == "docs/how-to/paired-data.md":
        sharp = nuclei(320, 192) / np.float32(4095)
        names["lr"] = nc.degrade(sharp, 2, photons=50, read_noise=0.01, seed=1)
        names["hr"] = sharp
    if page == "docs/big.md":
        names["array"] = np.stack([nuclei(24, 32)] * 2)
    if page == "docs/how-to/offline.md":  # like the official files, in torch's own format
        import torch
        from safetensors.torch import load_file

        own = weight_files.bundled_path(4)
        assert own is not None
        torch.save({"params": load_file(own)}, place / "CFSR_x4.pth")


def shortened(text: str, shorter: Shorter) -> str:
    """The same command or code with options that make it quick."""
    for begin, (old, new) in shorter.items():
        if begin in text:
            assert old in text, f"{text}: expected {old}"
            text = text.replace(old, new) if old else text + new
    return text


def status(text: str) -> int:
    """Exit status of a command."""
    program, *arguments = shlex.split(text)
    if program == "napari-cfsr":
        if arguments in COMMANDS:
            arguments = [*arguments, "--help"]  # a command that is only named
        try:
            return main(arguments)
        except SystemExit as exit_:  # --help and --version
            return int(exit_.code or 0)
    assert program == "python", f"{text}: neither run nor in NOT_RUN"
    return subprocess.run([sys.executable, *arguments], check=False).returncode


@pytest.mark.parametrize("begin", NOT_RUN)
def test_each_reason_is_still_needed(begin: str) -> None:
    assert any(re.match(begin, snippet.text) for snippet in LISTED if not snippet.python)


@pytest.mark.parametrize("text", sorted({s.text for s in LISTED if "napari-cfsr " in s.text}))
def test_options_of_commands_that_are_not_run_exist(text: str) -> None:
    if not text.startswith("napari-cfsr ") or "COMMAND" in text:
        return
    parser().parse_args(shlex.split(text)[1:])  # exits with status 2 otherwise


class Parsed(Exception):  # noqa: N818 - no error
    """Raised once the arguments are parsed."""


STARTED = {snippet.text.removeprefix("xvfb-run -a ") for snippet in LISTED}
SCRIPTS = sorted(text for text in STARTED if re.match(r"python (benchmarks|docs)/", text))


@pytest.fixture
def stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop(*arguments: Any, **more: Any) -> None:
        parse(*arguments, **more)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)


@pytest.mark.parametrize("text", SCRIPTS)
def test_scripts_take_their_documented_arguments(
    text: str, stop_after_parsing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script is really started, and stopped once it has parsed its arguments."""
    line = re.sub(r"[][]", "", text).replace("--scale S ", "--scale 4 ")
    line = re.sub(r"--(side|planes) [SN]\b", r"--\1 64", line)
    _, script, *arguments = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr(sys, "path", [str((ROOT / script).parent), *sys.path])
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_try_takes_its_documented_arguments(
    stop_after_parsing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {s.text for s in LISTED if s.text.startswith("python3 .ci/try.py")}
    assert len(lines) >= 3
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line)[1:])
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / ".ci" / "try.py"), run_name="__main__")


def test_extras_files_and_environments_that_commands_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tox = (ROOT / "tox.ini").read_text("utf-8")
    for snippet in LISTED:
        for extra in re.findall(r"napari-cfsr\[(\w+)\]", snippet.text):
            assert extra in project["optional-dependencies"], snippet
        for file in re.findall(r"(?:tests|docs|benchmarks|\.ci)/[\w./]+", snippet.text):
            assert (ROOT / file).exists(), snippet
        for environment in re.findall(r"tox run -e (\S+)", snippet.text):
            for name in environment.split(","):
                known = re.search(rf"testenv:{name}\]", tox)
                assert known or re.fullmatch(r"py31[123]-py(qt6|side6)", name), snippet


def test_python_that_is_not_run_is_python_with_names_that_exist() -> None:
    pieces = [snippet.text for snippet in LISTED if snippet.python]
    assert pieces
    for piece in pieces:
        for node in ast.walk(ast.parse(piece)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "nc":
                assert node.attr in nc.__all__


def test_the_pages_are_found() -> None:
    """A guard against a pattern that finds nothing."""
    assert sum(len(found) for found in TO_RUN.values()) > 50
    assert any(snippet.python for snippet in TO_RUN["README.md"])
    assert photo(8, 8).shape == (8, 8, 3)
