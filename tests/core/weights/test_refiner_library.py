"""The user's refiners: names, files and cards; a trained refiner is always saved somewhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.training.results import Checkpoint, Report, ReportRow, TrainedRefiner
from napari_cfsr.core.weights import refiner_library, weight_files
from napari_cfsr.core.weights.checkpoints import RefinerCard, read_refiner_card, save_refiner
from napari_cfsr.core.weights.model_files import find_refiner
from napari_cfsr.core.weights.refiner_library import (
    SavedElsewhereError,
    check_target,
    check_writable,
    delete_refiner,
    describe_card,
    export_path,
    export_refiner,
    find_refiner_file,
    import_refiner,
    is_taken,
    refiner_path_for,
    rename_refiner,
    save_named,
    save_or_elsewhere,
    unique_name,
)
from napari_cfsr.errors import (
    ArchitectureError,
    NoGainError,
    OptionError,
    TruncatedWeightsError,
    WeightsError,
    WeightsNotFoundError,
)

BUNDLED = "clean_official_x4"
CARD = RefinerCard(2, "input", weight_files.OFFICIAL_SHA256[2], "A test", 0.25)
STATE = {name: np.full(shape, 0.25, np.float32) for name, shape in refiner_library.SHAPES.items()}


def saved(path: Path, value: float = 0.25, card: RefinerCard = CARD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_refiner(path, {k: np.full_like(v, value) for k, v in STATE.items()}, card)


@pytest.fixture
def folder(home: Path) -> Path:
    """The user's refiners: one called mine."""
    return saved(home / "data" / "refiners" / "mine.safetensors").parent


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def trained(gain: float = 0.25) -> TrainedRefiner:
    rows = (ReportRow("bicubic", 30.0, 0.8), ReportRow("baseline", 31.0, 0.9))
    report = Report(
        (*rows, ReportRow("delta", 31.0 + gain, 0.95)), "gray", 2, ("a.png", "b.png"), (gain, gain)
    )
    return TrainedRefiner(STATE, CARD, report, gain > 0, "Worth using." if gain > 0 else "No gain.")


def full_disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let writing below a folder fail as on a full disk."""
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if folder in Path(target).parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(
    "name",
    ["mine", "Zellkerne 2x, 50 Photonen", "ядра", "細胞", "a", "x" * 200, "v1.2", "50% (new) #3",
     "console", "com", "com10", "nonesuch", "José's"],
)  # fmt: skip
def test_names_that_can_be_used(home, name) -> None:
    expected = home / "data" / "refiners" / f"{name}.safetensors"
    assert refiner_path_for(name) == expected
    assert refiner_path_for(f"  {name}.safetensors ") == expected
    assert saved(expected).is_file()  # this system can store it
    assert is_taken(name)
    assert find_refiner_file(name) == (expected, "imported")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"), ("   ", "is empty"), (".safetensors", "is empty"),
        ("a/b", "contains '/'"), ("../mine", "contains '/'"), ("a\\b", "contains"),
        ("c:mine", "contains ':'"), ("a\nb", "contains"), ("a\0b", "contains"),
        ("what?", r"contains '\?'"), ("\ud800", "contains"),
        (".hidden", "begins with"), ("..", "begins with"), ("-f", "begins with"),
        ("~me", "begins with"), ("end.", "ends with '.'"),
        ("auto", "meaning of its own"), ("None", "meaning of its own"),
        ("OFFICIAL", "meaning of its own"), ("con", "for a device"), ("NUL.old", "for a device"),
        ("Com1", "for a device"), ("lpt9", "for a device"),
        ("x" * 201, r"too long \(201 bytes, 200 at most\)"), ("é" * 101, r"too long \(202 bytes"),
    ],
)  # fmt: skip
def test_names_that_can_not_be_used(name, reason) -> None:
    with pytest.raises(OptionError, match=f"expected a name for a refiner, got .*{reason}"):
        refiner_path_for(name)


def test_a_unique_name(folder) -> None:
    assert unique_name("new") == "new"
    assert unique_name("mine") == "mine 2"
    assert unique_name("mine.safetensors") == "mine 2"
    assert unique_name("MINE") == "MINE 2"  # on some systems the same file
    saved(folder / "mine 2.safetensors")
    assert unique_name("mine") == "mine 3"
    assert unique_name(BUNDLED) == f"{BUNDLED} 2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("images/set: 1*", "images_set_ 1_"), ("", "refiner"), ("...", "refiner"),
        ("auto", "refiner auto"), ("nul", "refiner nul"), ("-x", "x"), ("a\tb", "a_b"),
        ("x" * 300, "x" * 190),
    ],
)  # fmt: skip
def test_an_unusable_name_is_repaired(text, name) -> None:
    assert unique_name(text) == name


@given(st.text(max_size=300))
def test_any_text_gives_a_usable_name(text) -> None:
    name = unique_name(text)
    assert refiner_path_for(name).stem == name
    assert not is_taken(name)


def test_taken_names(folder) -> None:
    for name in ("mine", "Mine", "mine.safetensors", BUNDLED, BUNDLED.upper()):
        assert is_taken(name)
    assert not is_taken("yours")
    saved(folder / "caf\u00e9.safetensors")
    assert is_taken("cafe\u0301")  # the same letters for macOS
    with pytest.raises(OptionError, match="there is a refiner 'mine': use another name"):
        check_target("MINE")
    assert check_target("MINE", overwrite=True) == folder / "mine.safetensors"
    for overwrite in (False, True):
        with pytest.raises(OptionError, match="comes with this program: use another name"):
            check_target(BUNDLED, overwrite)


def test_rename(folder) -> None:
    before = (folder / "mine.safetensors").read_bytes()
    assert rename_refiner("mine", "Zellkerne 2") == folder / "Zellkerne 2.safetensors"
    assert files(folder) == ["Zellkerne 2.safetensors"]
    assert (folder / "Zellkerne 2.safetensors").read_bytes() == before
    backbone = weight_files.WeightsFile(Path("x"), CARD.backbone_sha256, "official")
    found = find_refiner(backbone, "Zellkerne 2")
    assert found.path.name == "Zellkerne 2.safetensors"
    rename_refiner("Zellkerne 2.safetensors", "zellkerne 2")  # letters' case alone
    assert files(folder) == ["zellkerne 2.safetensors"]
    rename_refiner("zellkerne 2", "zellkerne 2")
    assert files(folder) == ["zellkerne 2.safetensors"]


def test_a_failed_rename_changes_nothing(folder) -> None:
    saved(folder / "yours.safetensors", 0.5)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    for new in ("yours", "Yours", BUNDLED):
        with pytest.raises(OptionError, match="use another name"):
            rename_refiner("mine", new)
    with pytest.raises(OptionError, match="expected a name for a refiner"):
        rename_refiner("mine", "a/b")
    with pytest.raises(OptionError, match="comes with this program and can't be renamed"):
        rename_refiner(BUNDLED, "new")
    with pytest.raises(
        WeightsNotFoundError, match=rf"\(.*{BUNDLED}.*, mine, yours\), got 'theirs'"
    ):
        rename_refiner("theirs", "new")
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_names_that_differ_in_case_only(folder) -> None:
    saved(folder / "Mine.safetensors", 0.5)
    if len(files(folder)) == 1:
        pytest.skip("this file system does not tell them apart")
    with pytest.raises(OptionError, match="there is a refiner 'Mine': use another name"):
        rename_refiner("mine", "Mine")
    assert files(folder) == ["Mine.safetensors", "mine.safetensors"]


def test_delete(folder) -> None:
    saved(folder / "yours.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    assert delete_refiner("mine") == folder / "mine.safetensors"
    assert delete_refiner("broken") == folder / "broken.safetensors"
    assert files(folder) == ["yours.safetensors"]
    with pytest.raises(OptionError, match="comes with this program and can't be deleted"):
        delete_refiner(BUNDLED)
    assert find_refiner_file(BUNDLED)[0].is_file()
    for name in ("mine", "", "../refiners/yours", str(folder / "yours.safetensors")):
        with pytest.raises(WeightsNotFoundError, match="expected the name of a refiner"):
            delete_refiner(name)


def test_the_users_own_refiner_takes_precedence(folder) -> None:
    """If a file of a bundled refiner's name was put into the folder by hand."""
    saved(folder / f"{BUNDLED}.safetensors")
    assert find_refiner_file(BUNDLED)[1] == "imported"
    assert rename_refiner(BUNDLED, "new") == folder / "new.safetensors"
    assert find_refiner_file(BUNDLED)[1] == "bundled"


def test_a_file_that_cannot_be_changed(folder, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "it is open in another program")

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(WeightsError, match=r"can't be renamed to new.safetensors \(it is open"):
        rename_refiner("mine", "new")
    with pytest.raises(WeightsError, match=r"can't be deleted \(it is open"):
        delete_refiner("mine")


def test_export(folder, tmp_path) -> None:
    for path, expected in {
        "a.safetensors": "a.safetensors",
        "b": "b.safetensors",
        "new/sub/c.safetensors": "new/sub/c.safetensors",
        "new": "new/mine.safetensors",
    }.items():
        assert export_refiner("mine", tmp_path / path) == tmp_path / expected
        assert (tmp_path / expected).read_bytes() == (folder / "mine.safetensors").read_bytes()
    exported = export_refiner(BUNDLED, str(tmp_path))
    assert read_refiner_card(exported).scale == 4
    assert not list(tmp_path.rglob("*.partial"))
    delete_refiner("mine")
    again = import_refiner(tmp_path / "a.safetensors")
    assert again.read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert files(folder) == ["a.safetensors"]


def test_export_replaces_files_only_with_overwrite(folder, tmp_path) -> None:
    target = saved(tmp_path / "a.safetensors", 0.5)
    before = target.read_bytes()
    with pytest.raises(OptionError, match=r"a.safetensors exists: pass overwrite=True"):
        export_refiner("mine", target)
    with pytest.raises(OptionError, match=r"ends in .safetensors, got .*a.png"):
        export_refiner("mine", tmp_path / "a.png")
    with pytest.raises(WeightsNotFoundError):
        export_refiner("yours", tmp_path / "b.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TruncatedWeightsError):
        export_refiner("broken", tmp_path / "b.safetensors")
    assert target.read_bytes() == before
    assert export_refiner("mine", target, overwrite=True).read_bytes() != before
    assert not (tmp_path / "b.safetensors").exists()


def test_full_disks_keep_what_was_there(folder, tmp_path, monkeypatch) -> None:
    usb = saved(tmp_path / "usb" / "mine.safetensors", 0.5)
    before = {path: path.read_bytes() for path in (usb, folder / "mine.safetensors")}
    full_disk(monkeypatch, tmp_path)
    full_disk(monkeypatch, folder)
    for write in (partial(export_refiner, "mine", usb), partial(import_refiner, usb)):
        with pytest.raises(WeightsError, match=r"mine.safetensors: can't be written \(No space"):
            write(overwrite=True)
    assert {path: path.read_bytes() for path in before} == before
    assert files(usb.parent) == files(folder) == ["mine.safetensors"]


def test_export_into_an_impossible_folder(folder, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.safetensors", tmp_path / ("x" * 300)):
        with pytest.raises(WeightsError, match="can't be written"):
            export_refiner("mine", path)


def test_import(home, tmp_path) -> None:
    source = saved(tmp_path / "from usb.safetensors")
    target = home / "data" / "refiners" / "from usb.safetensors"
    assert import_refiner(source) == target
    assert import_refiner(str(source)) == target  # again, the same
    assert target.read_bytes() == source.read_bytes()
    saved(source, 0.5)
    with pytest.raises(
        OptionError, match="there is a refiner 'from usb': use another name, or overwrite it"
    ):
        import_refiner(source)
    assert target.read_bytes() != source.read_bytes()
    assert import_refiner(source, overwrite=True) == target
    assert target.read_bytes() == source.read_bytes()
    assert files(home) == [str(Path("data", "refiners", "from usb.safetensors"))]


def test_import_checks_the_file(folder, tmp_path) -> None:
    good = saved(tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(good[:-100])
    save_file(STATE, tmp_path / "bare.safetensors")
    less = {k: v for k, v in STATE.items() if k != "body.4.bias"}
    save_refiner(tmp_path / "less.safetensors", less, CARD)
    more = {**STATE, "body.6.weight": np.ones(1)}
    save_refiner(tmp_path / "more.safetensors", more, CARD)
    other = {**STATE, "body.0.weight": np.ones((32, 1, 3, 3))}
    save_refiner(tmp_path / "other.safetensors", other, CARD)
    torch.save(RefineNet().state_dict(), tmp_path / "torch.pth")
    shutil.copy(tmp_path / "good.safetensors", tmp_path / "auto.safetensors")
    shutil.copy(tmp_path / "good.safetensors", tmp_path / f"{BUNDLED}.safetensors")
    shutil.copy(tmp_path / "good.safetensors", tmp_path / "MINE.safetensors")
    cases = {
        "none.safetensors": (WeightsNotFoundError, "there is no such file"),
        "cut.safetensors": (TruncatedWeightsError, "get it again"),
        "bare.safetensors": (ArchitectureError, "expected a refiner with metadata"),
        "less.safetensors": (ArchitectureError, r"expected body.4.bias of shape \[3\], got None"),
        "more.safetensors": (ArchitectureError, r"expected body.6.weight of shape None, got \[1\]"),
        "other.safetensors": (ArchitectureError, r"body.0.weight of shape \[32, 3, 3, 3\], got "),
        "torch.pth": (ArchitectureError, "which is no safetensors file"),
        "auto.safetensors": (OptionError, "has a meaning of its own"),
        f"{BUNDLED}.safetensors": (OptionError, "comes with this program"),
        "MINE.safetensors": (OptionError, "there is a refiner 'mine'"),
    }
    for name, (kind, reason) in cases.items():
        with pytest.raises(kind, match=reason):
            import_refiner(tmp_path / name)
    assert files(folder) == ["mine.safetensors"]


def test_the_shapes_are_those_of_the_network() -> None:
    shapes = {k: list(v.shape) for k, v in RefineNet().state_dict().items()}
    assert shapes == refiner_library.SHAPES


def test_save_under_a_name(home) -> None:
    result = trained()
    path = save_named(result, "Kerne")
    assert path == home / "data" / "refiners" / "Kerne.safetensors"
    assert read_refiner_card(path) == CARD
    with pytest.raises(OptionError, match="there is a refiner 'Kerne'"):
        save_named(result, "kerne")
    assert save_named(result, "kerne", overwrite=True) == path
    assert files(path.parent) == ["Kerne.safetensors"]
    save_named(Checkpoint(STATE, CARD, 100, 0.2), "best so far")
    with pytest.raises(NoGainError, match=r"nothing was saved: No gain\."):
        save_named(trained(-0.1), "worse")
    assert files(path.parent) == ["Kerne.safetensors", "best so far.safetensors"]


def test_saved_where_it_was_asked_for(home, tmp_path) -> None:
    target = tmp_path / "new" / "a.safetensors"
    assert save_or_elsewhere(trained(), target) == target
    assert save_or_elsewhere(trained(), target, overwrite=True) == target
    assert files(tmp_path) == [str(Path("new", "a.safetensors"))]
    with pytest.raises(SavedElsewhereError, match=r"a.safetensors exists") as caught:
        save_or_elsewhere(trained(), target)  # it appeared meanwhile
    assert caught.value.path == home / "data" / "refiners" / "a.safetensors"
    with pytest.raises(NoGainError):
        save_or_elsewhere(trained(0), tmp_path / "b.safetensors")
    assert files(tmp_path) == [str(Path("new", "a.safetensors"))]


def test_saved_elsewhere_where_the_disk_is_full(folder, tmp_path, monkeypatch) -> None:
    target = saved(tmp_path / "out" / "mine.safetensors", 0.5)
    before = target.read_bytes()
    full_disk(monkeypatch, tmp_path / "out")
    with pytest.raises(SavedElsewhereError, match="No space left") as caught:
        save_or_elsewhere(trained(), target, overwrite=True)
    assert caught.value.path == folder / "mine 2.safetensors"
    assert str(caught.value).endswith(f"What was trained is saved as {caught.value.path} instead")
    assert read_refiner_card(caught.value.path) == CARD
    assert target.read_bytes() == before


def test_saved_in_the_temporary_folder_as_a_last_resort(home, tmp_path, monkeypatch) -> None:
    home.write_text("a file where the folder should be")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(SavedElsewhereError) as caught:
        save_or_elsewhere(trained(), home / "a.safetensors")
    assert tmp_path / "temporary" in caught.value.path.parents
    assert caught.value.path.name == "a.safetensors"
    assert read_refiner_card(caught.value.path) == CARD

    full_disk(monkeypatch, tmp_path)
    with pytest.raises(WeightsError, match="No space left") as other:
        save_or_elsewhere(trained(), tmp_path / "b.safetensors")
    assert not isinstance(other.value, SavedElsewhereError)
    assert list(tmp_path.rglob("*.partial")) == []


def test_a_target_is_checked_beforehand(tmp_path, monkeypatch) -> None:
    check_writable(tmp_path / "a.safetensors")
    check_writable(tmp_path / "new" / "sub" / "a.safetensors")
    assert list(tmp_path.iterdir()) == []  # it left nothing behind
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for path in (
        tmp_path / "file" / "a.safetensors",
        tmp_path / "folder.safetensors",
        tmp_path / ("x" * 244 + ".safetensors"),
        tmp_path / "new" / ("y" * 300),
    ):
        with pytest.raises(WeightsError, match="can't be written"):
            check_writable(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(refiner_library.tempfile, "TemporaryFile", refuse)
    with pytest.raises(WeightsError, match="Read-only file system"):
        check_writable(tmp_path / "a.safetensors")


def test_a_missing_suffix_is_added(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert export_path("~", "x") == tmp_path / "x.safetensors"
    assert export_path("~/y", "x") == tmp_path / "y.safetensors"
    with pytest.raises(OptionError):
        export_path("y.v2", "x")


def test_a_card_in_words() -> None:
    report = trained().report.to_dict()
    extra = {
        "backbone": "official CFSR_x2.pth",
        "data": "images",
        "degradation": {"photons": 50, "read_noise": 0.01, "blur": 0.8},
        "seed": 1,
        "date": "2026-11-23",
        "version": "0.2",
        "report": report,
        "something": "else",
    }
    card = RefinerCard(2, "input", "ab" * 32, "Mine", 8.123456, json.loads(json.dumps(extra)))
    assert describe_card(card) == [
        "description: Mine",
        "backbone:    official CFSR_x2.pth x2",
        f"SHA-256:     {'ab' * 32}",
        "placement:   input (before the backbone)",
        "gain:        +8.1235 dB on held-out images",
        "data:        images",
        "degradation: bicubic, blur 0.8 px, 50 photons, read noise 0.01",
        "seed:        1",
        "date:        2026-11-23",
        "version:     0.2",
        "held-out report, mean of 2 images:",
        "                     PSNR (dB)     SSIM",
        "  bicubic                30.00   0.8000",
        "  baseline               31.00   0.9000",
        "  delta                  31.25   0.9500",
    ]


@pytest.mark.parametrize("report", [None, {}, [], "good", {"rows": [1], "images": 2}])
def test_a_card_with_few_facts(report) -> None:
    card = RefinerCard(3, "output", "0" * 64, extra={"report": report, "degradation": {"haze": 3}})
    assert describe_card(card) == [
        "backbone:    unknown x3",
        f"SHA-256:     {'0' * 64}",
        "placement:   output (after the backbone)",
        "gain:        not measured",
        "degradation: haze 3",
    ]
