"""Batches: nothing is repeated, a fault stays with one file, the user's files are kept."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.batch import upscale_file as file_run
from napari_cfsr.core.batch.ledger import LEDGER, Ledger
from napari_cfsr.core.batch.plan import BatchPlan, plan_batch
from napari_cfsr.core.batch.run import BatchClock, BatchRecord, BatchStep, iter_batch
from napari_cfsr.core.batch.summary import as_csv, as_json, summary_line, write_summary
from napari_cfsr.core.batch.targets import find_inputs, find_targets
from napari_cfsr.core.engine.model import SRModel, open_model
from napari_cfsr.core.io.store_metadata import store_status
from napari_cfsr.core.store.growing_store import JOURNAL
from napari_cfsr.core.store.run import StoreProgress
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.core.upscale.options import UpscaleOptions, UpscaleProgress
from napari_cfsr.core.weights import ModelFiles, WeightsFile, find_model
from napari_cfsr.errors import CancelledError, FileFormatError, OptionError
from tests.helpers.fakes import BoxModel

FAKE = ModelFiles(2, WeightsFile(Path("fake.pth"), "0", "file"), None)
REFINED = replace(FAKE, refiner=WeightsFile(Path("r"), "fake", "file"))


def picture(path: Path, seed: int = 0) -> np.ndarray:
    """Write a small image; its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pictures(folder: Path, count: int = 3) -> list[np.ndarray]:
    return [picture(folder / f"{'abcdef'[i]}.png", i) for i in range(count)]


class Batch:
    """Runs the inputs of a folder into another; counts the loads and calls of the model."""

    def __init__(self, tmp_path: Path) -> None:
        self.inputs, self.out = [tmp_path / "in"], tmp_path / "out"
        self.files = FAKE
        self.loads = 0
        self.model = BoxModel()
        self.steps: list[BatchStep] = []

    def plan(self, overwrite: bool = False, **options: Any) -> BatchPlan:
        asked = UpscaleOptions(**options)
        return plan_batch(self.inputs, self.out, self.files, asked, overwrite=overwrite)

    def load(self) -> Any:
        self.loads += 1
        return self.model

    def __call__(
        self, overwrite: bool = False, check: Callable[[], None] = lambda: None, **options: Any
    ) -> list[BatchRecord]:
        self.steps, self.loads, self.model.batches = [], 0, []
        generator = iter_batch(self.plan(overwrite, **options), self.load, check)
        return exhaust(generator, self.steps.append)

    def states(self, *arguments: Any, **options: Any) -> str:
        """Of a run, by their first letters."""
        return "".join(record.state[0] for record in self(*arguments, **options))


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


@pytest.fixture
def done(batch: Batch) -> Batch:
    """With the results of three images."""
    pictures(batch.inputs[0])
    assert batch.states() == "ddd"
    return batch


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and times of all files but the ledger."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != LEDGER)
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture(scope="module")
def tiny(tiny_backbones: dict[int, Path]) -> tuple[ModelFiles, SRModel]:
    """A network and not a stand-in."""
    files = find_model(2, tiny_backbones[2], None)
    return files, open_model(files, "cpu")


def test_a_second_run_leaves_everything_as_it_is(tiny, batch) -> None:
    pixels = pictures(batch.inputs[0])
    batch.files, batch.model = tiny
    (first,) = (batch(),)
    assert [r.state for r in first] == ["done"] * 3
    for record, image in zip(first, pixels, strict=True):
        written = nc.read_image(record.outputs["baseline"]).pixels
        expected = nc.upscale(image, tiny[1], axes="YXC").baseline
        np.testing.assert_array_equal(written, expected)
        assert record.provenance["backbone_sha256"] == batch.files.backbone.sha256
        assert record.seconds > record.provenance["seconds"] > 0
    before = content(batch.out)
    ledger = (batch.out / LEDGER).stat().st_mtime_ns
    again = batch()
    assert [(r.state, r.message) for r in again] == [("skipped", "already there")] * 3
    assert [r.outputs for r in again] == [r.outputs for r in first]
    assert (batch.loads, len(before)) == (0, 3)
    assert content(batch.out) == before
    assert (batch.out / LEDGER).stat().st_mtime_ns == ledger


def test_other_weights_make_other_results(tiny, batch) -> None:
    pictures(batch.inputs[0], 1)
    assert batch.states() == "d"
    batch.files, batch.model = tiny
    assert batch.states() == "f"
    assert batch.states(overwrite=True) == "d"
    assert batch.states() == "s"


def break_input(batch: Batch) -> dict[str, Any]:
    """Other bytes of the same length, at the same time."""
    path = batch.inputs[0] / "a.png"
    times = path.stat()
    with Image.open(path) as image:
        pixels = np.asarray(image)
    Image.fromarray(255 - pixels).save(path)
    path.write_bytes(path.read_bytes()[: times.st_size].ljust(times.st_size, b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    return {}


def touch_output(batch: Batch) -> dict[str, Any]:
    os.utime(batch.out / "a_x2_baseline.png", ns=(1, 1))
    return {}


def replace_output(batch: Batch) -> dict[str, Any]:
    (batch.out / "a_x2_baseline.png").write_bytes(b"the user's")
    return {}


def other_refiner(batch: Batch) -> dict[str, Any]:
    batch.files = replace(FAKE, refiner=WeightsFile(Path("r.safetensors"), "1", "file"))
    batch.model = BoxModel(refiner=True)
    return {"outputs": ("baseline",)}


CHANGES = {
    "input": break_input,
    "time of output": touch_output,
    "bytes of output": replace_output,
    "refiner": other_refiner,
    "tile": lambda batch: {"tile": 8},
    "halo": lambda batch: {"halo": "exact"},
    "ensemble": lambda batch: {"ensemble": True},
    "intensity": lambda batch: {"intensity": (0.0, 128.0)},
    "axes": lambda batch: {"axes": "YXS"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_was_made_otherwise_is_not_skipped(done, change) -> None:
    options = change(done)
    before = content(done.out)
    records = done(**options)
    others = "f" if options or done.files is not FAKE else "s"
    assert "".join(r.state[0] for r in records) == "f" + 2 * others
    target = done.out / "a_x2_baseline.png"
    assert records[0].message == (
        f"{done.inputs[0] / 'a.png'}: {target} exists: pass overwrite=True to replace it"
    )
    assert (content(done.out), done.loads) == (before, 0)


def test_with_overwrite_everything_is_redone(done) -> None:
    before = content(done.out)
    assert done.states(overwrite=True) == "ddd"
    assert len(done.model.batches) == 3
    after = content(done.out)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}
    assert done.states() == "sss"


def test_only_what_is_missing_is_made(done) -> None:
    (done.out / "b_x2_baseline.png").unlink()
    picture(done.inputs[0] / "d.png", 9)
    os.utime(done.inputs[0] / "c.png", ns=(5, 5))  # as a copy of it: the same bytes
    assert done.states() == "sdsd"
    assert len(done.model.batches) == 2


def test_results_beside_their_inputs(batch, tmp_path) -> None:
    """A ledger in each folder."""
    batch.inputs, batch.out = [tmp_path / "1", tmp_path / "2"], None
    pictures(tmp_path / "1", 2)
    pictures(tmp_path / "2", 1)
    assert batch.states() == "ddd"
    for folder, count in (("1", 2), ("2", 1)):
        ledger = json.loads((tmp_path / folder / LEDGER).read_text())
        assert len(ledger["outputs"]) == count
    assert batch.states() == "sss"


def test_a_single_file_has_no_ledger(batch) -> None:
    pictures(batch.inputs[0], 1)
    batch.inputs = [batch.inputs[0] / "a.png"]
    assert batch.states() == "d"
    assert not (batch.out / LEDGER).exists()
    assert batch.states() == "f"


def test_killed_between_two_files(batch) -> None:
    pictures(batch.inputs[0])
    steps = iter_batch(batch.plan(), batch.load)
    while next(steps).state != "done":
        pass
    del steps
    before = content(batch.out)
    assert list(before) == ["a_x2_baseline.png"]
    assert batch.states() == "sdd"
    assert content(batch.out)["a_x2_baseline.png"] == before["a_x2_baseline.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_before_a_result_is_entered(batch, monkeypatch, overwrite) -> None:
    pictures(batch.inputs[0])
    if overwrite:
        assert batch.states() == "ddd"
    old, finish = content(batch.out), Ledger.finish

    def killed(self: Ledger, path: Path, targets: Any) -> None:
        if path.name == "b.png":
            raise KeyboardInterrupt
        finish(self, path, targets)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            batch(overwrite)
    new = content(batch.out)
    made = {name for name in new if new[name] != old.get(name)}
    assert made == {"a_x2_baseline.png", "b_x2_baseline.png"}
    assert batch.states() == ("sss" if overwrite else "ssd")
    after = content(batch.out)
    assert {name: after[name] for name in new} == new


def test_killed_between_two_results_of_a_file(batch, monkeypatch) -> None:
    """The first is ours, and is made again with the second."""
    pictures(batch.inputs[0], 2)
    batch.files, batch.model = REFINED, BoxModel(refiner=True)
    both = {"outputs": ("baseline", "delta")}
    write, written = file_run.write_image, []

    def killed(*arguments: Any) -> Any:
        if written:
            raise KeyboardInterrupt
        written.append(arguments[0])
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(file_run, "write_image", killed)
        with pytest.raises(KeyboardInterrupt):
            batch(**both)
    assert [path.name for path in written] == ["a_x2_baseline.png"]
    assert batch.states(**both) == "dd"
    assert batch.states(**both) == "ss"
    assert len(content(batch.out)) == 4


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_of_the_user_is_not_taken_for_ours_after_a_kill(
    batch, monkeypatch, overwrite
) -> None:
    """Neither one that was to be replaced, nor one that was put there since."""
    pictures(batch.inputs[0])
    target = batch.out / "a_x2_baseline.png"
    if overwrite:
        batch.out.mkdir()
        target.write_bytes(b"precious")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(file_run, "write_image", killed)
        with pytest.raises(KeyboardInterrupt):
            batch(overwrite)
    if not overwrite:
        target.write_bytes(b"precious")
        os.utime(target, ns=(10**18, 10**18))  # copied with its time
    assert batch.states() == "fdd"
    assert target.read_bytes() == b"precious"


def test_cancel_keeps_what_is_finished(batch) -> None:
    pictures(batch.inputs[0])
    calls = []

    def check() -> None:
        calls.append(1)
        if len(batch.model.batches) == 2:
            raise CancelledError("cancelled")

    records = batch(check=check)
    assert [(r.state, r.message) for r in records][1:] == [("waiting", "not finished"),
                                                           ("waiting", "")]  # fmt: skip
    assert records[0].state == "done"
    assert list(content(batch.out)) == ["a_x2_baseline.png"]
    assert summary_line(records, 3.04) == "1 upscaled, 2 not done in 3.0 s"
    assert batch.states() == "sdd"


def test_an_input_that_changes_while_it_is_read(batch, monkeypatch) -> None:
    """What the result was made from is unknown: it is not skipped."""
    pictures(batch.inputs[0])
    predict = batch.model.predict

    def changed(*arguments: Any) -> Any:
        picture(batch.inputs[0] / "a.png", 77)
        return predict(*arguments)

    before = (batch.inputs[0] / "a.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(batch.model, "predict", changed)
        assert batch.states() == "ddd"
    assert batch.states() == "fss"
    (batch.inputs[0] / "a.png").write_bytes(before)
    assert batch.states() == "fss"


def test_a_broken_file_is_reported_and_does_not_stop_the_others(batch) -> None:
    pictures(batch.inputs[0])
    (batch.inputs[0] / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    batch.inputs += [batch.inputs[0] / "missing.png", batch.out]
    batch.out.mkdir()
    records = batch()
    assert {r.path.name: r.state for r in records} == {
        "out": "failed", "a.png": "done", "b.png": "failed", "c.png": "done",
        "missing.png": "failed",
    }  # fmt: skip
    messages = {r.path.name: r.message for r in records}
    assert messages["b.png"] == f"{batch.inputs[0] / 'b.png'}: not an image, or damaged"
    assert messages["missing.png"].endswith("expected an image file, there is no such file")
    assert messages["out"] == f"{batch.out}: expected images in this folder, got none"
    assert sorted(content(batch.out)) == ["a_x2_baseline.png", "c_x2_baseline.png"]
    assert summary_line(records, 125.2) == "2 upscaled, 3 failed in 2 min 05 s"
    assert batch.states() == "fsfsf"


def test_clashes_are_known_before_the_model_is_loaded(batch, tmp_path) -> None:
    batch.inputs = [tmp_path / "1" / "a.png", tmp_path / "2" / "a.png",
                    tmp_path / "3" / "b.png", tmp_path / "out" / "b_x2_baseline.png"]  # fmt: skip
    for i, path in enumerate(batch.inputs):
        picture(path, i)
    before = batch.inputs[3].read_bytes()
    plan = batch.plan()
    faults = [item.fault for item in plan.items]
    assert (faults[0], faults[3]) == ("", "")
    assert faults[1] == (
        f"{batch.inputs[1]}: {tmp_path / 'out' / 'a_x2_baseline.png'} is where the result of "
        f"{batch.inputs[0]} goes: choose another output"
    )
    assert faults[2] == (
        f"{batch.inputs[2]}: {batch.inputs[3]} is an input itself: choose another output"
    )
    steps, loaded = iter_batch(plan, batch.load), []
    for step in steps:
        loaded.append((step.index, step.state, batch.loads))
    failed = [entry for entry in loaded if entry[1] == "failed"]
    assert failed == [(1, "failed", 0), (2, "failed", 0)]
    assert [entry[0] for entry in loaded if entry[1] == "done"] == [0, 3]
    assert batch.inputs[3].read_bytes() == before
    assert [r.state for r in batch(overwrite=True)] == ["done", "failed", "failed", "done"]
    assert batch.inputs[3].read_bytes() == before


def test_inputs_are_the_images_of_folders_each_once(tmp_path) -> None:
    folder, other = tmp_path / "in", tmp_path / "e.png"
    for path in ("in/b.png", "in/a.jpg", "in/sub/c.png", "in/.hidden.png", "e.png"):
        picture(tmp_path / path)
    result = folder / "b_x2_baseline.png"
    picture(result)
    (folder / "notes.txt").write_text("not an image")
    found, faults = find_inputs([folder, other, folder / "b.png", folder])
    assert ([p.name for p in found], faults) == (["a.jpg", "b.png", "e.png"], [])
    assert find_inputs([result]) == ([result], [])  # named, it is an input


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_input_is_never_the_output(batch, tmp_path, overwrite) -> None:
    batch.inputs = [tmp_path / "a.png"]
    picture(batch.inputs[0])
    (tmp_path / "link.png").symlink_to(batch.inputs[0])
    before = batch.inputs[0].read_bytes()
    for output in ("a.png", "link.png", f"../{tmp_path.name}/a.png"):
        batch.out = tmp_path / output
        (record,) = batch(overwrite)
        assert "is an input itself: choose another output" in record.message
    assert (batch.loads, batch.inputs[0].read_bytes()) == (0, before)


def test_a_file_for_several_inputs_or_outputs_is_refused(batch, tmp_path) -> None:
    pictures(batch.inputs[0], 2)
    batch.out, batch.files = tmp_path / "x.png", REFINED
    reason = "expected a folder for several files or outputs, got"
    assert all(reason in item.fault for item in batch.plan().items)
    batch.inputs = [batch.inputs[0] / "a.png"]
    (item,) = batch.plan(outputs=("baseline", "delta")).items
    assert reason in item.fault
    assert not batch.plan().items[0].fault


def test_files_of_one_name_and_two_formats(batch) -> None:
    """Their differences are both TIFFs."""
    picture(batch.inputs[0] / "a.png")
    picture(batch.inputs[0] / "a.jpg")
    batch.files = REFINED
    faults = [bool(item.fault) for item in batch.plan(outputs=("difference",)).items]
    assert faults == [False, True]
    assert not any(item.fault for item in batch.plan(outputs=("delta",)).items)


def test_other_systems_know_no_capitals(batch, tmp_path, monkeypatch) -> None:
    batch.inputs = [tmp_path / "1" / "caf\u00e9.png", tmp_path / "2" / "Cafe\u0301.png"]
    for path in batch.inputs:
        picture(path)
    assert [bool(item.fault) for item in batch.plan().items] == [False, False]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [bool(item.fault) for item in batch.plan().items] == [False, True]


def test_weights_of_another_plan(batch) -> None:
    pictures(batch.inputs[0])
    batch.model = BoxModel(scale=3)
    with pytest.raises(OptionError, match="expected the weights that the batch was planned for"):
        batch()
    assert not batch.out.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 99, "requests": {}, "outputs": {}}',
               b'{"format": 1, "requests": {}, "outputs": {"a_x2_baseline.png": {}}}'],
)  # fmt: skip
def test_a_damaged_ledger_counts_as_empty(done, damage) -> None:
    (done.out / LEDGER).write_bytes(damage)
    (done.out / "c_x2_baseline.png").unlink()
    assert done.states() == "ffd"
    texts = [step.text for step in done.steps if step.state == "waiting" and step.text]
    assert texts == [
        f"{done.out / LEDGER}: can't be used (damaged, or of another version): "
        "results of earlier runs are not recognised"
    ]
    assert done.states() == "ffs"


def test_a_ledger_that_cannot_be_written_is_no_fault(batch) -> None:
    pictures(batch.inputs[0])
    (batch.out / LEDGER).mkdir(parents=True)
    assert batch.states() == "ddd"
    texts = [step.text for step in batch.steps if step.text and step.record is None]
    assert len(texts) == 2  # when it was to be read, and once when it was to be written
    assert texts[1].startswith(f"{batch.out / LEDGER}: can't be written (")


def test_two_runs_into_one_folder_keep_both_their_entries(tmp_path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    request = {"scale": 2}
    for ledger, name in ((first, "a"), (second, "b"), (first, "a")):
        target = tmp_path / f"{name}_x2_baseline.png"
        ledger.begin({"name": f"{name}.png"}, [target], request)
        target.write_bytes(b"1")
        ledger.finish(tmp_path / f"{name}.png", [target])
    assert set(json.loads((tmp_path / LEDGER).read_text())["outputs"]) == {
        "a_x2_baseline.png", "b_x2_baseline.png",
    }  # fmt: skip


NAMES = ["caf\u00e9 \u4e2d\u6587.png", "\u0420\u0438\u0441 1.png", "\U0001f9ec.png", "a;b,c'd.png"]


def test_names_in_any_script(batch) -> None:
    for i, name in enumerate(NAMES):
        picture(batch.inputs[0] / name, i)
    assert batch.states() == "dddd"
    assert set(content(batch.out)) == {n.replace(".png", "_x2_baseline.png") for n in NAMES}
    assert batch.states() == "ssss"


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not text are a thing of Linux")
def test_names_that_are_not_text(batch, tmp_path) -> None:
    picture(batch.inputs[0] / "a.png")
    (batch.inputs[0] / "a.png").rename(batch.inputs[0] / os.fsdecode(b"caf\xe9.png"))
    records = batch()
    assert [r.state for r in records] == ["done"]
    write_summary(tmp_path / "s.csv", records)
    assert "caf\\udce9.png,done," in (tmp_path / "s.csv").read_text("utf-8")
    write_summary(tmp_path / "s.json", records)
    (row,) = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert row["input"] == str(records[0].path)
    assert batch.states() == "s"


def store(path: Path) -> zarr.Array[Any]:
    """An OME-Zarr image of someone else's; its pixels."""
    pixels = np.random.default_rng(3).integers(0, 255, (2, 20, 30), dtype=np.uint8)
    nc.upscale_to_zarr(pixels, BoxModel(), path, axes="ZYX", outputs=("baseline",))
    about = json.loads((path / "zarr.json").read_text())
    del about["attributes"]["napari_cfsr"]
    (path / "zarr.json").write_text(json.dumps(about))
    return zarr.open_array(path / "0")


def test_stores_are_skipped_and_redone(batch) -> None:
    picture(batch.inputs[0] / "a.png")
    pixels = store(batch.inputs[0] / "b.zarr")
    target = batch.out / "b_x2_baseline.zarr"
    assert batch.states() == "dd"
    assert store_status(target) == "complete"
    before = content(batch.out)
    assert batch.states() == "ss"
    assert (content(batch.out), batch.loads) == (before, 0)
    chunk = max((p for p in target.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    chunk.unlink()  # not what it was
    assert batch.states() == "sf"
    shutil.rmtree(target)
    assert batch.states() == "sd"
    pixels[0, 0, 0] += 1
    assert batch.states() == "sf"
    assert batch.states(overwrite=True) == "dd"


def test_an_unfinished_store_is_resumed(batch, monkeypatch) -> None:
    store(batch.inputs[0] / "b.zarr")
    target = batch.out / "b_x2_baseline.zarr"

    def cancelled(*_: object) -> None:
        raise CancelledError("cancelled")

    with monkeypatch.context() as patch:
        patch.setattr(batch.model, "predict", cancelled)
        assert batch.states() == "w"
    assert store_status(target) == "partial"
    with (target / JOURNAL).open("a") as journal:  # it has grown since it was begun
        journal.write("0 0")
    assert batch.states(tile=16) == "f"
    assert "was begun with tile = None, now it is 16" in batch.steps[-1].text
    assert batch.states() == "d"
    assert batch.states() == "s"


def test_several_outputs_of_a_store_are_images_in_it(batch) -> None:
    store(batch.inputs[0] / "b.zarr")
    batch.files, batch.model = REFINED, BoxModel(refiner=True)
    both = {"outputs": ("baseline", "delta")}
    (done,) = batch(**both)
    assert {k: p.name for k, p in done.outputs.items()} == {"baseline": "baseline",
                                                            "delta": "delta"}  # fmt: skip
    (skipped,) = batch(**both)
    assert (skipped.state, skipped.outputs) == ("skipped", done.outputs)
    assert find_targets(done.path, batch.out, ("baseline", "delta"), 2, False).paths == (
        batch.out / "b_x2.zarr",
    )


def test_the_time_left_follows_from_the_sizes(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = BatchClock()
    clock.expect({0: 100, 1: 300, 2: 0})
    clock.begin(0)
    assert clock.seconds_left() is None
    assert clock.seconds_left(UpscaleProgress(0, 50, 0.0)) is None
    # a quarter of 100 bytes in 2 s: 6 s for the rest of it, 24 s for 300 bytes, 0.08 s for one
    assert clock.seconds_left(UpscaleProgress(10, 40, 2.0)) == pytest.approx(6 + 24 + 0.08)
    now[0] = 110.0
    clock.end()
    assert clock.seconds == 10
    assert clock.seconds_left() == pytest.approx(30.1)
    clock.begin(1)
    # half of it was there: the other half of 300 bytes takes 20 s, and so does 100 bytes in 10 s
    half = StoreProgress(60, 80, 10.0, earlier=40)
    assert clock.seconds_left(half) == pytest.approx(10 + (10 + 20) / (100 + 150))
    clock.end(worked=False)
    clock.begin(2)
    assert clock.seconds_left() == pytest.approx(0.1)
    clock.end()
    assert clock.seconds_left() == 0


def test_summaries(batch, tmp_path) -> None:
    pictures(batch.inputs[0], 2)
    assert batch.states() == "dd"
    (batch.inputs[0] / "b.png").write_bytes(b"broken")
    picture(batch.inputs[0] / "c.png", 5)
    (batch.out / "b_x2_baseline.png").unlink()
    records = batch()
    assert summary_line(records, 59.4) == "1 upscaled, 1 already there, 1 failed in 59 s"
    rows = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert list(rows[0]) == ["input", "state", "outputs", "seconds", "message"]
    assert [row["state"] for row in rows] == ["skipped", "failed", "done"]
    assert [row["input"] for row in rows] == [str(batch.inputs[0] / f"{n}.png") for n in "abc"]
    assert [row["outputs"] for row in rows] == [
        str(batch.out / "a_x2_baseline.png"), "", str(batch.out / "c_x2_baseline.png"),
    ]  # fmt: skip
    assert rows[1]["message"] == f"{batch.inputs[0] / 'b.png'}: not an image, or damaged"
    assert rows[2]["message"].startswith("x2 with fake, no refiner; fake on cpu, float32; ")
    assert float(rows[0]["seconds"]) == 0 < float(rows[2]["seconds"]) < 60

    listed = json.loads(as_json(records))
    for row, entry in zip(rows, listed, strict=True):
        assert {k: entry[k] for k in ("input", "state", "message")} == {
            k: row[k] for k in ("input", "state", "message")
        }
    assert [entry["provenance"] is None for entry in listed] == [True, True, False]
    assert listed[2]["provenance"]["backbone"] == "fake"
    assert listed[2]["outputs"] == {"baseline": str(batch.out / "c_x2_baseline.png")}

    write_summary(tmp_path / "s.csv", records)
    assert (tmp_path / "s.csv").read_text("utf-8") == as_csv(records)
    with pytest.raises(OptionError, match=r"s\.csv exists"):
        write_summary(tmp_path / "s.csv", records)
    with pytest.raises(OptionError, match=r"expected a summary ending in \.csv or \.json, got"):
        write_summary(tmp_path / "s.txt", records)
    with pytest.raises(FileFormatError, match="can't be written"):
        write_summary(tmp_path / "s.csv" / "s.json", records)
