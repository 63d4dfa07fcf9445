"""Commands in this process, with networks of a few parameters that are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_cfsr.cli import main
from napari_cfsr.core.weights import weight_files
from tests.helpers.commands import SUMMARY, Run, Says


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.tiny_weights import write_tiny_weights

    return write_tiny_weights(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None) -> Path:
    """The folder of tiny backbones, which are taken for the official ones."""
    from tests.helpers.tiny_weights import use_as_official

    use_as_official(tiny_folder, monkeypatch)
    return tiny_folder


@pytest.fixture(scope="session")
def opened_models() -> dict[str, Any]:
    return {}


@pytest.fixture
def models_once(opened_models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep models from test to test."""
    from napari_cfsr.core.engine import model

    open_model = model.open_model

    def once(*arguments: Any, **options: Any) -> Any:
        key = repr((arguments, options))
        if key not in opened_models:
            opened_models[key] = open_model(*arguments, **options)
        return opened_models[key]

    monkeypatch.setattr(model, "open_model", once)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        out, err = capsys.readouterr()
        assert status in (0, 2)
        for line in err.splitlines():  # no traceback
            assert line.startswith("napari-cfsr: "), line
        return status, out, err

    return call


@pytest.fixture
def run(call: Run, models_once: None) -> Run:
    """The same for commands that show no progress."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status, out, err = call(*arguments)
        err = SUMMARY.sub("", err)  # of several files, whether or not all went well
        assert (status == 2) == bool(err), err  # and if all went well, not a word
        return status, out, err

    return run


@pytest.fixture
def done(run: Run) -> Says:
    """Run a command that succeeds; standard output."""

    def done(*arguments: object) -> str:
        status, out, err = run(*arguments)
        assert status == 0, err
        return out

    return done


@pytest.fixture
def fault(run: Run) -> Says:
    """Run a command that fails; the one line that it prints."""

    def fault(*arguments: object) -> str:
        status, out, err = run(*arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        return err

    return fault


@pytest.fixture
def make_refiner(tmp_path: Path) -> Callable[[str], Path]:
    """Save a refiner that changes a few grey levels, of the x2 backbone of a SHA-256."""
    import torch

    from napari_cfsr.core.network.refinenet import RefineNet
    from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner

    def make(backbone: str) -> Path:
        network = RefineNet(torch.Generator().manual_seed(3))
        with torch.no_grad():
            network.body[-1].weight.mul_(100)
        path = tmp_path / "models" / "mine.safetensors"
        path.parent.mkdir()
        card = RefinerCard(2, "output", backbone, "A test", 0.25)
        return save_refiner(path, network.state_dict(), card)

    return make


@pytest.fixture
def refiner(make_refiner: Callable[[str], Path], tiny: Path) -> Path:
    """A refiner of the tiny x2 backbone."""
    return make_refiner(weight_files.OFFICIAL_SHA256[2])
