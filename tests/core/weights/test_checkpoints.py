"""Loading weights: each fault of a file has its own error, and no code in it is executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from napari_cfsr.core.engine.model import PredictOptions, load_model
from napari_cfsr.core.network import CFSR, CFSRConfig, RefineNet
from napari_cfsr.core.weights import checkpoints, weight_files
from napari_cfsr.core.weights.checkpoints import (
    RefinerCard,
    load_backbone,
    load_refiner,
    load_state,
    open_refiner,
    read_refiner_card,
    save_refiner,
)
from napari_cfsr.core.weights.model_files import backbone_of_refiner, find_model, find_refiner
from napari_cfsr.core.weights.refiner_library import refiner_cards
from napari_cfsr.core.weights.weight_files import OFFICIAL_SHA256, WeightsFile, sha256_of
from napari_cfsr.errors import (
    ArchitectureError,
    NotTensorsError,
    RefinerMismatchError,
    ScaleError,
    TruncatedWeightsError,
    UnsafeWeightsError,
    WeightsError,
    WeightsNotFoundError,
)
from tests.helpers.faults import full_disk, run_python

SMALL = CFSRConfig(scale=2, embed_dim=8, depths=(1, 1))
SHIPPED = weight_files.BUNDLED

pytestmark = pytest.mark.usefixtures("nothing_bundled")


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def a_file(path: Path) -> WeightsFile:
    return WeightsFile(path, sha256_of(path), "file")


def small_backbone(path: Path, **changes: Any) -> WeightsFile:
    """A file with a small CFSR, far from its initial values."""
    torch.manual_seed(1)
    state = CFSR(CFSRConfig(**{**vars(SMALL), **changes})).state_dict()
    state = {k: v + 0.1 * torch.randn_like(v) for k, v in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"params": state}, path)
    return a_file(path)


def a_refiner(path: Path, backbone_sha256: str, **changes: Any) -> Path:
    card = RefinerCard(**{"scale": 2, "placement": "output", **changes,
                          "backbone_sha256": backbone_sha256})  # fmt: skip
    save_refiner(path, RefineNet(torch.Generator().manual_seed(3)).state_dict(), card)
    return path


@pytest.mark.parametrize("wrapped", [None, "params", "params_ema", "state_dict"])
def test_the_usual_wrappers_of_tensors_are_known(tmp_path, wrapped) -> None:
    state = {"a": torch.arange(3, dtype=torch.float16), "b.c": torch.eye(2, dtype=torch.int64)}
    torch.save(state if wrapped is None else {wrapped: state, "iter": 5}, tmp_path / "x.pth")
    loaded = load_state(tmp_path / "x.pth")
    assert {k: (v.dtype, v.tolist()) for k, v in loaded.items()} == {
        "a": (torch.float32, [0.0, 1.0, 2.0]),
        "b.c": (torch.float32, [[1.0, 0.0], [0.0, 1.0]]),
    }


def test_files_are_recognised_by_content_and_averaged_weights_are_preferred(tmp_path) -> None:
    for name in ("x.safetensors", "x.SAFETENSORS", "x.bin", "x"):
        save_file({"a": torch.ones(2)}, tmp_path / name)
        assert load_state(tmp_path / name)["a"].tolist() == [1.0, 1.0]
    states = {"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}}
    for name, in_a_zip in product(("x.pth", "x.pt", "x.PTH", "x.ckpt"), (True, False)):
        torch.save(states, tmp_path / name, _use_new_zipfile_serialization=in_a_zip)
        assert load_state(tmp_path / name)["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["nothing.pth", "nothing.safetensors", "x" * 5000 + ".pth"])
def test_no_such_file(tmp_path, name) -> None:
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(WeightsNotFoundError, match="there is no such file"):
            load_state(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"P", b"<html>404</html>", b"\x80", b"\0" * 100, b"PK\3\4" + b"x" * 99]
)
def test_files_that_hold_no_weights(tmp_path, suffix, content) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    kind = "PyTorch" if suffix == ".pth" else "safetensors"
    with pytest.raises(TruncatedWeightsError, match=f"no complete {kind} file.*get it again"):
        load_state(path)


@pytest.mark.parametrize(("suffix", "kind"), [(".pth", "PyTorch"), (".safetensors", "safetensors")])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, suffix, kind, share) -> None:
    path = small_backbone(tmp_path / f"x{suffix}").path
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TruncatedWeightsError, match=f"no complete {kind} file.*get it again"):
        load_state(path)


def test_a_pytorch_file_of_the_old_format_truncated_anywhere(tmp_path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "x.pth"
    state = {"a.weight": torch.ones(9), "b.bias": torch.ones(2, 2)}
    torch.save({"params": state}, whole, _use_new_zipfile_serialization=False)
    data = whole.read_bytes()
    for length in [*range(0, len(data), 5), *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:length])
        with pytest.raises(TruncatedWeightsError):
            load_state(path)


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_damaged_bytes_raise_only_weights_errors(tmp_path, form) -> None:
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    state = {"a.weight": torch.ones(9), "b.bias": torch.ones(2, 2)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"params": state}, path, _use_new_zipfile_serialization=form == "zip")
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_state(path)
        except WeightsError:
            continue


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (None, "a NoneType"),
        ([1, 2], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "an empty dict"),
        ({"params": {}}, "an empty dict"),
        ({"epoch": 3}, "a int as 'epoch'"),
        ({"a": torch.ones(1), "b": "text"}, "a str as 'b'"),
        ({1: torch.ones(1)}, "a Tensor as 1"),
        ({"a": {"b": torch.ones(1)}}, "a dict as 'a'"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.ones(2, device="meta")}, "meta"),
        ({"a": torch.eye(2).to_sparse()}, "sparse"),
        ({"a": torch.ones(1).expand(10**12)}, "a Tensor of torch.float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_content_than_named_tensors(tmp_path, content, description) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(NotTensorsError) as caught:
        load_state(path)
    assert f"tensors by name in {path}, got " in str(caught.value)
    assert description in str(caught.value)


def test_a_safetensors_file_without_tensors(tmp_path) -> None:
    save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(NotTensorsError, match="an empty dict"):
        load_state(tmp_path / "x.safetensors")


CARRIERS: dict[str, Callable[[Path, object], object]] = {
    "beside tensors": lambda path, x: torch.save({"params": {"a": torch.ones(1)}, "x": x}, path),
    "among tensors": lambda path, x: torch.save({"a": torch.ones(1), "x": x}, path),
    "old format": lambda path, x: torch.save({"x": x}, path, _use_new_zipfile_serialization=False),
    **{
        f"pickle {n}": lambda path, x, n=n: path.write_bytes(pickle.dumps({"params": x}, n))
        for n in range(6)
    },
}


@pytest.mark.parametrize("carrier", list(CARRIERS))
def test_pickled_code_is_refused_and_not_executed(tmp_path, carrier) -> None:
    mark, path = tmp_path / "executed", tmp_path / "x.pth"
    CARRIERS[carrier](path, Payload(mark))
    for call in (
        lambda: load_state(path),
        lambda: load_backbone(a_file(path), 2),
        lambda: load_model(2, path, device="cpu"),
    ):
        with pytest.raises(UnsafeWeightsError, match="it was not executed"):
            call()
    assert not mark.exists()
    Payload(mark).__reduce__()[0](mark)  # otherwise it would have been
    assert mark.exists()


def test_pickled_code_under_another_suffix_is_not_executed(tmp_path) -> None:
    mark = tmp_path / "executed"
    for name in ("x.safetensors", "x.bin", "x"):
        torch.save({"params": Payload(mark)}, tmp_path / name)
        with pytest.raises(WeightsError):
            load_state(tmp_path / name)
        with pytest.raises(WeightsError):
            read_refiner_card(tmp_path / name)
    assert not mark.exists()


def test_a_pickled_and_a_compiled_network_are_code(tmp_path) -> None:
    """The latter is an archive as `torch.jit.save` writes it."""
    torch.save(torch.nn.Linear(1, 1), tmp_path / "x.pth")
    with pytest.raises(UnsafeWeightsError, match="Python code"):
        load_state(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("x/code/__torch__.py", "def forward(self): pass")
        archive.writestr("x/constants.pkl", pickle.dumps((), 2))
        archive.writestr("x/version", "3\n")
    with pytest.raises(UnsafeWeightsError, match="it was not executed"):
        load_state(tmp_path / "x.pt")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_official_backbones_are_found_and_load(official_folder, monkeypatch, scale) -> None:
    """The published files themselves."""
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(official_folder))
    file, notes = weight_files.find_backbone(scale, "official", download=False)
    assert file == WeightsFile(
        official_folder / f"CFSR_x{scale}.pth", OFFICIAL_SHA256[scale], "official"
    )
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert (file.name, notes) == (f"official CFSR_x{scale}.pth", [])
    network = load_backbone(file, scale)
    assert (
        sum(p.numel() for p in network.parameters()) == {2: 291_324, 3: 297_819, 4: 306_912}[scale]
    )
    assert network.config == CFSRConfig(scale=scale)
    assert not network.training
    assert {p.device.type for p in network.parameters()} == {"cpu"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_training_form_and_merged_form_give_the_same_output(tmp_path, suffix) -> None:
    torch.manual_seed(5)
    network = CFSR(CFSRConfig(**{**vars(SMALL), "merged": False, "layer_scale": 0.5}))
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "edge_" in name:
                value.add_(torch.randn_like(value))
    network.eval()
    merged = network.merge()
    files = {}
    for form, module in {"training": network, "merged": merged}.items():
        path = tmp_path / f"{form}{suffix}"
        state = {k: v.contiguous() for k, v in module.state_dict().items()}
        save_file(state, path) if suffix == ".safetensors" else torch.save({"params": state}, path)
        files[form] = a_file(path)
    x = torch.rand(1, 3, 12, 15)
    with torch.no_grad():
        expected = network(x)
        loaded = {form: load_backbone(file, 2) for form, file in files.items()}
        outputs = {form: module(x) for form, module in loaded.items()}
    assert all(module.config.merged and not module.training for module in loaded.values())
    assert torch.equal(outputs["training"], outputs["merged"])
    assert torch.allclose(outputs["training"], expected, rtol=0, atol=1e-5)
    without_edges = {k: v for k, v in network.state_dict().items() if ".edge_" not in k}
    plain = CFSR(SMALL)
    plain.load_state_dict(without_edges)
    with torch.no_grad():
        assert (plain(x) - expected).abs().max() > 1e-3  # the edge branches do matter


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_another_scale_is_reported(tmp_path, suffix) -> None:
    file = small_backbone(tmp_path / f"x{suffix}", scale=3)
    with pytest.raises(ScaleError) as caught:
        load_backbone(file, 4)
    assert f"expected weights for scale x4, got {file.path} for x3" in str(caught.value)
    with pytest.raises(ScaleError, match="choose scale 3"):
        load_model(2, file.path, device="cpu")
    assert load_model(3, file.path, device="cpu").info.backbone_sha256 == file.sha256


FOREIGN: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "another network": lambda s: [s.clear(), s.update({"conv.weight": torch.ones(3, 3, 3, 3)})],
    "a tensor too few": lambda s: s.pop("norm.bias"),
    "a tensor too many": lambda s: s.update(extra=torch.ones(1)),
    "another shape": lambda s: s.update({"norm.bias": torch.ones(9)}),
    "no pixel shuffle": lambda s: s.update({"upsample.0.weight": torch.ones(13, 8, 3, 3)}),
    "no number": lambda s: s.update({"conv_first.weight": torch.tensor(1.0)}),
    "no channels": lambda s: s.update({"conv_first.weight": torch.ones(0, 3, 3, 3)}),
    "odd name": lambda s: s.update({"layers.0.blocks.first": torch.ones(1)}),
    "empty stage": lambda s: s.update({"layers.2.conv.weight": torch.ones(8, 8, 1, 1)}),
    "too deep": lambda s: s.update({"layers.1.blocks.99999999.x": torch.ones(1)}),
    "too wide": lambda s: s.update({"conv_first.weight": torch.ones(100_000, 3, 3, 3)}),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("change", list(FOREIGN))
def test_tensors_of_another_network(tmp_path, change, suffix) -> None:
    state = CFSR(SMALL).state_dict()
    FOREIGN[change](state)
    path = tmp_path / f"x{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    with pytest.raises(ArchitectureError) as caught:
        load_backbone(a_file(path), 2)
    text = str(caught.value)
    assert text.startswith(f"{path} holds another network than CFSR ({len(state)} tensors, ")
    assert "\n" not in text
    assert len(text) < 600


def test_a_refiner_and_its_card_round_trip(tmp_path) -> None:
    backbone = small_backbone(tmp_path / "b.pth")
    card = RefinerCard(
        2, "input", backbone.sha256, "For a confocal", 0.123, {"seed": 7, "config": {"lr": 1e-4}}
    )
    network = RefineNet(torch.Generator().manual_seed(3))
    save_refiner(tmp_path / "r.safetensors", network.state_dict(), card)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["b.pth", "r.safetensors"]
    assert read_refiner_card(tmp_path / "r.safetensors") == card
    loaded, same = load_refiner(a_file(tmp_path / "r.safetensors"), backbone)
    assert same == card
    assert not loaded.training
    assert sum(p.numel() for p in loaded.parameters()) == 11_011
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(loaded(x), network.eval()(x))
    with safe_open(tmp_path / "r.safetensors", framework="np") as file:  # what other programs see
        assert file.metadata()["format"] == "napari-cfsr refiner 1"
        assert json.loads(file.metadata()["card"])["backbone_sha256"] == backbone.sha256


def test_a_refiner_of_another_backbone_names_both(official, tmp_path) -> None:
    path = a_refiner(
        tmp_path / "r.safetensors", "f" * 64, scale=4, extra={"backbone": "bundled cfsr_x4"}
    )
    with pytest.raises(RefinerMismatchError) as caught:
        load_model(4, refiner=path, device="cpu")
    text = str(caught.value)
    assert "bundled cfsr_x4 x4 with SHA-256 " + "f" * 64 in text
    assert f"official CFSR_x4.pth with {weight_files.OFFICIAL_SHA256[4]}" in text
    assert str(path) in text


def test_a_refiner_of_the_official_backbone_gives_delta(official, tmp_path) -> None:
    path = a_refiner(tmp_path / "r.safetensors", weight_files.OFFICIAL_SHA256[2])
    model = load_model(2, refiner=path, device="cpu")
    assert model.info.outputs == ("baseline", "delta")
    assert model.info.refiner == "file r.safetensors"
    assert model.info.refiner_sha256 == sha256_of(path)
    assert model.info.placement == "output"
    assert load_model(2, refiner=None, device="cpu").info.outputs == ("baseline",)


def test_a_file_that_is_not_a_refiner(tmp_path, published) -> None:
    backbone = small_backbone(tmp_path / "b.safetensors")
    with pytest.raises(ArchitectureError, match=r"napari-cfsr refiner 1.*with none"):
        read_refiner_card(backbone.path)
    with pytest.raises(ArchitectureError, match=r"CFSR_x2\.pth, which is no safetensors file"):
        read_refiner_card(published / "CFSR_x2.pth")
    (tmp_path / "cut.safetensors").write_bytes(backbone.path.read_bytes()[:-5])
    with pytest.raises(TruncatedWeightsError, match="no complete safetensors file"):
        read_refiner_card(tmp_path / "cut.safetensors")
    for name in ("nothing.safetensors", "x" * 5000):
        with pytest.raises(WeightsNotFoundError, match="there is no such file"):
            read_refiner_card(tmp_path / name)


def test_a_refiner_with_tensors_of_another_network(tmp_path) -> None:
    backbone = small_backbone(tmp_path / "b.pth")
    card = RefinerCard(2, "output", backbone.sha256)
    path = tmp_path / "r.safetensors"
    save_file({"body.0.weight": torch.ones(1)}, path, card.to_metadata())
    with pytest.raises(ArchitectureError, match="another network than RefineNet"):
        load_refiner(a_file(path), backbone)


GOOD = {"scale": 2, "placement": "output", "backbone_sha256": "0" * 64}


@pytest.mark.parametrize(
    "card",
    [
        "not JSON",
        "[]",
        "null",
        "{}",
        json.dumps({**GOOD, "colour": 1}),
        json.dumps({**GOOD, "scale": "two"}),
        json.dumps({**GOOD, "placement": "middle"}),
        json.dumps({**GOOD, "placement": ["output"]}),
        json.dumps({**GOOD, "backbone_sha256": 5}),
        json.dumps({**GOOD, "gain": "a lot"}),
        json.dumps({**GOOD, "extra": None}),
        json.dumps({**GOOD, "description": None}),
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_an_invalid_card(tmp_path, home, card) -> None:
    """It is an error if the file is named, and the list of all refiners leaves it out."""
    folder = home / "data" / "refiners"
    folder.mkdir(parents=True)
    save_refiner(folder / "good.safetensors", RefineNet().state_dict(), RefinerCard(**GOOD))
    bad = folder / "bad.safetensors"
    metadata = {"format": checkpoints.REFINER_FORMAT, "card": card}
    save_file(RefineNet().state_dict(), bad, metadata)
    with pytest.raises(ArchitectureError, match=r"bad\.safetensors: .*card"):
        read_refiner_card(bad)
    assert [path.name for path, *_ in refiner_cards()] == ["good.safetensors"]


def test_cards_are_read_without_torch(tmp_path) -> None:
    """The widget lists refiners, and torch takes seconds to import."""
    path = a_refiner(tmp_path / "r.safetensors", "0" * 64, gain=0)
    assert read_refiner_card(path).gain == 0  # may be an integer
    code = (
        "import sys; from pathlib import Path; from napari_cfsr.core.weights import checkpoints; "
        f"print(checkpoints.read_refiner_card(Path({str(path)!r})).scale, 'torch' in sys.modules)"
    )
    assert run_python(code) == "2 False\n"


def test_refiners_are_found_by_name_and_by_file(home, tmp_path, monkeypatch) -> None:
    backbone = small_backbone(tmp_path / "b.pth")
    bundled, imported = tmp_path / "bundled", home / "data" / "refiners"
    (bundled / "refiners").mkdir(parents=True)
    imported.mkdir(parents=True)
    monkeypatch.setattr(weight_files, "BUNDLED", bundled)
    assert find_refiner(backbone, "auto") is None
    a_refiner(imported / "mine.safetensors", backbone.sha256, extra={"default": True})
    a_refiner(bundled / "refiners" / "other.safetensors", backbone.sha256)
    a_refiner(bundled / "refiners" / "default4.safetensors", "0" * 64, extra={"default": True})
    assert find_refiner(backbone, "auto") is None  # no bundled default of this backbone
    default = a_refiner(
        bundled / "refiners" / "z.safetensors", backbone.sha256, extra={"default": True}
    )
    found = find_refiner(backbone, "auto")
    assert found == WeightsFile(default, sha256_of(default), "bundled")
    for name in ("mine", "mine.safetensors"):
        found = find_refiner(backbone, name)
        assert (found.path, found.kind) == (imported / "mine.safetensors", "imported")
    found = find_refiner(backbone, imported / "mine.safetensors")
    assert found.kind == "file"
    assert find_refiner(backbone, None) is find_refiner(backbone, "none") is None


def test_a_named_refiner_selects_its_backbone(official, home, monkeypatch) -> None:
    """`auto` would be the official backbone, which a refiner for a bundled one does not fit."""
    monkeypatch.setattr(weight_files, "BUNDLED", home / "bundled")
    for folder in ("bundled", "data/refiners", "data/backbones"):
        (home / folder).mkdir(parents=True)
    network = load_backbone(a_file(official / "CFSR_x2.pth"), 2)
    files = {}
    for number, path in enumerate(
        (home / "bundled/cfsr_x2.safetensors", home / "data/backbones/own.safetensors")
    ):
        with torch.no_grad():
            network.norm.bias += 0.01 * (number + 1)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
        files[path.parent.name] = a_file(path)
        refiner = home / f"data/refiners/for_{path.parent.name}.safetensors"
        a_refiner(refiner, sha256_of(path))
        for named in (refiner, refiner.stem):
            found = find_model(2, refiner=named)
            assert found.backbone.sha256 == sha256_of(path)
            assert found.outputs == ("baseline", "delta")
    a_refiner(home / "data/refiners/authors.safetensors", weight_files.OFFICIAL_SHA256[2])
    assert find_model(2, refiner="authors").backbone.name == "official CFSR_x2.pth"
    assert backbone_of_refiner(4, "authors") is None  # for another scale
    with pytest.raises(RefinerMismatchError):  # an explicit backbone is not replaced
        load_model(2, "official", refiner="for_bundled", device="cpu")
    with pytest.raises(RefinerMismatchError):
        load_model(4, refiner="authors", device="cpu")


@pytest.mark.parametrize("refiner", ["nothing", "", "~nobody-here/r", "x" * 5000])
def test_an_unknown_refiner_lists_what_is_possible(tmp_path, refiner) -> None:
    backbone = small_backbone(tmp_path / "b.pth")
    with pytest.raises(WeightsNotFoundError, match='"auto", None, the name of a refiner or a file'):
        find_refiner(backbone, refiner)


def test_saving_is_all_or_nothing(tmp_path, monkeypatch) -> None:
    path = a_refiner(tmp_path / "r.safetensors", "0" * 64)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(WeightsError, match=r"r\.safetensors: can't be written.*No space left"):
        a_refiner(path, "1" * 64)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_is_a_clear_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("nowhere", "file"):
        with pytest.raises(WeightsError, match="can't be written"):
            a_refiner(tmp_path / folder / "r.safetensors", "0" * 64)


def test_what_this_version_ships(monkeypatch) -> None:
    """Every refiner belongs to a backbone that users have, and has a gain, or fits all."""
    monkeypatch.setattr(weight_files, "BUNDLED", SHIPPED)
    ours = {s: weight_files.bundled_path(s) for s in weight_files.SCALES}
    backbones = set(OFFICIAL_SHA256.items())
    backbones |= {(s, sha256_of(path)) for s, path in ours.items() if path is not None}
    for scale, path in ours.items():
        if path is not None:
            assert load_backbone(a_file(path), scale).config == CFSRConfig(scale=scale)
    shipped = sorted((SHIPPED / "refiners").glob("*.safetensors"))
    assert len(refiner_cards()) == len(shipped)
    for path in shipped:
        _, card = open_refiner(path)
        assert card.description
        if (card.scale, card.backbone_sha256) == (0, ""):
            assert card.network == "UNetRefiner"
            continue
        assert (card.scale, card.backbone_sha256) in backbones
        assert card.gain > 0
    defaults = [
        (card.scale, card.backbone_sha256)
        for _, _, card in refiner_cards()
        if card.extra.get("default")
    ]
    assert len(defaults) == len(set(defaults)), "one default for each backbone"


def test_the_output_of_a_refiner_is_that_of_its_formula(official, tmp_path) -> None:
    """delta = baseline + body(baseline) at the output; backbone(lr + body(lr)) at the input."""
    rng = np.random.default_rng(0)
    lr = rng.random((1, 3, 10, 11), dtype=np.float32)
    network = RefineNet(torch.Generator().manual_seed(3)).eval()
    file = a_file(official / "CFSR_x2.pth")
    backbone = load_backbone(file, 2)
    with torch.no_grad():
        x = torch.from_numpy(lr)
        expected = {"output": network(backbone(x)), "input": backbone(network(x))}
    for placement, want in expected.items():
        path = a_refiner(tmp_path / f"{placement}.safetensors", file.sha256, placement=placement)
        model = load_model(2, refiner=path, device="cpu")
        got = model.predict(lr, PredictOptions(("baseline", "delta")))
        np.testing.assert_allclose(got["delta"], want.numpy(), rtol=0, atol=1e-5)
        assert np.abs(got["delta"] - got["baseline"]).max() > 1e-5
