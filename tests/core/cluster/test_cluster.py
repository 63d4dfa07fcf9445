"""Runs on dask clusters: the bytes of one process, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

import napari_cfsr
from napari_cfsr import iter_upscale_to_zarr, open_image
from napari_cfsr.cli import main
from napari_cfsr.core.cluster import client as cluster_client
from napari_cfsr.core.cluster import run as cluster_run
from napari_cfsr.core.cluster.client import connect, local_workers
from napari_cfsr.core.cluster.run import iter_upscale_on_cluster
from napari_cfsr.core.cluster.worker_model import _device, slot_among
from napari_cfsr.core.engine.model import SRModel
from napari_cfsr.core.io.store_metadata import store_status
from napari_cfsr.core.store.growing_store import JOURNAL
from napari_cfsr.core.store.layout import ShardIndex
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.by_hash import find_by_hash, hashed_file, keep_by_hash
from napari_cfsr.errors import CancelledError, ClusterError, TamperedWeightsError

pytestmark = pytest.mark.alone  # how soon workers end

KilledWorker = pytest.importorskip("distributed", reason="needs napari-cfsr[cluster]").KilledWorker

SOURCE = Path(napari_cfsr.__file__).parents[1]
SHAPE = (3, 40, 600)  # 45 blocks of one tile, and 24 of a pyramid's second level
BLOCKS = 45
OPTIONS = UpscaleOptions(axes="ZYX", rgb=False, outputs=("baseline",), tile=40, halo=8)


@pytest.fixture(scope="module")
def bare_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of workers that have no weights but those that ship."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def client(bare_home: Path) -> Iterator[Any]:
    """Of two worker processes, for all tests that leave them as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weight_files.HOME_VARIABLE, str(bare_home))
        patch.delenv(weight_files.WEIGHTS_VARIABLE, raising=False)
        with local_workers(2) as client:
            yield client


@pytest.fixture(autouse=True)
def one_tile_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as small as can be."""
    monkeypatch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "in.tif"
    pixels = np.random.default_rng(3).integers(0, 255, SHAPE, dtype=np.uint8)
    tifffile.imwrite(path, pixels, metadata={"axes": "ZYX"}, imagej=True)
    return path


@pytest.fixture
def model(models: dict[int, SRModel]) -> SRModel:
    return models[2]


@pytest.fixture(scope="module")
def whole(
    models: dict[int, SRModel], image: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one process writes."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))
        list(in_one_process(image, models[2], path))
    return contents(path)


def in_one_process(image: Path, model: SRModel, path: Path) -> Iterator[Any]:
    opened = open_image(image)
    known = {"space": opened.space, "omero": opened.omero, "source": str(image)}
    return iter_upscale_to_zarr(opened.pixels, model, path, OPTIONS, **known)


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    files = (file for file in store.rglob("*") if file.is_file())
    return {str(file.relative_to(store)): file.read_bytes() for file in files}


def level0(shards: str) -> int:
    return sum(line.startswith("0 ") for line in shards.splitlines())


# the same bytes


def test_two_workers_write_the_bytes_of_one_process_and_load_one_model_each(
    client, bare_home: Path, model, image, whole, tmp_path
) -> None:
    """The workers have no official weights: they ask for them by their hash."""
    steps = list(iter_upscale_on_cluster(image, model, tmp_path / "a.zarr", client, OPTIONS))
    assert contents(tmp_path / "a.zarr") == whole
    assert [steps[0].done, steps[-1].done] == [0, np.prod(SHAPE)]
    assert len(steps) == 1 + BLOCKS
    assert not any(step.note for step in steps)
    sent = bare_home / "cache" / "by-hash"
    assert [p.name for p in sent.iterdir()] == [f"{weight_files.OFFICIAL_SHA256[2]}.pth"]

    again = replace(OPTIONS, tile=80)
    list(iter_upscale_on_cluster(image, model, tmp_path / "b.zarr", client, again))
    loads = client.run(lambda: sys.modules["napari_cfsr.core.cluster.worker_model"].MODELS.loads)
    assert list(loads.values()) == [1, 1]


def test_a_worker_killed_in_the_middle_changes_nothing(
    client, model, image, whole, tmp_path
) -> None:
    path = tmp_path / "a.zarr"
    before = client.run(os.getpid)
    steps = iter_upscale_on_cluster(image, model, path, client, OPTIONS)
    while next(steps).done == 0:
        pass
    os.kill(next(iter(before.values())), getattr(signal, "SIGKILL", signal.SIGTERM))
    assert level0((path / JOURNAL).read_text()) < BLOCKS // 2
    *_, last = steps
    assert last.fraction == 1
    assert contents(path) == whole
    client.wait_for_workers(2)
    assert len(set(before.values()) & set(client.run(os.getpid).values())) == 1


PROGRAM = """
import sys; sys.path.insert(0, {root!r})
from napari_cfsr.core.upscale.blocks import plan_blocks
from napari_cfsr.cli import main

if __name__ == "__main__":
    plan_blocks.__defaults__ = (1, 1, False)
    sys.exit(main({arguments!r}))
"""


def test_a_killed_client_goes_on_when_it_is_started_again(
    official, image, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("store/a.zarr")
    common = ["upscale", str(image), "--scale=2", "--device=cpu", "--tile=40", "--output"]
    (tmp_path / "run.py").write_text(
        PROGRAM.format(root=str(SOURCE), arguments=[*common, str(path), "--workers=2"])
    )
    victim = subprocess.Popen([sys.executable, "run.py"])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and victim.poll() is None:
        if (path / JOURNAL).is_file() and (path / JOURNAL).read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.005)
    workers = psutil.Process(victim.pid).children(recursive=True)
    victim.kill()
    victim.wait()
    there = level0((path / JOURNAL).read_text())
    assert 2 <= there < BLOCKS
    assert store_status(path) == "partial"
    assert psutil.wait_procs(workers, timeout=20)[1] == []  # they end with it

    again = subprocess.run([sys.executable, "run.py"], capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{there} of {BLOCKS} blocks were there" in again.stdout
    assert main([*common, "whole/a.zarr"]) == 0
    assert contents(path) == contents(Path("whole/a.zarr"))


def test_when_the_scheduler_is_lost_one_process_can_go_on(model, image, whole, tmp_path) -> None:
    path = tmp_path / "a.zarr"
    with local_workers(1) as own, connect(own.scheduler.address) as client:
        steps = iter_upscale_on_cluster(image, model, path, client, OPTIONS)
        while next(steps).done == 0:
            pass
        own.cluster.close()
        with pytest.raises(ClusterError, match=r"was lost; what is written is kept: run the same"):
            list(steps)
    there = level0((path / JOURNAL).read_text())
    assert 1 <= there < BLOCKS
    first = next(in_one_process(image, model, path))
    assert first.done == first.earlier == there * 40 * 40
    list(in_one_process(image, model, path))
    assert contents(path) == whole


def test_workers_stop_soon_after_a_cancel(
    client, model, image, whole, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (4096, 2**27, True)
    )
    slow = replace(OPTIONS, ensemble=True, tile=16, halo=32)  # one block of some 30 s
    asked = time.monotonic()

    def check() -> None:
        if time.monotonic() > asked + 4:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        list(iter_upscale_on_cluster(image, model, tmp_path / "a.zarr", client, slow, check))
    busy = "executing_count"
    assert time.monotonic() < asked + 6
    while any(client.run(lambda dask_worker: getattr(dask_worker.state, busy)).values()):
        assert time.monotonic() < asked + 7
        time.sleep(0.05)
    assert contents(tmp_path / "a.zarr").keys().isdisjoint({"0/c/0/0/0"})


# what can be wrong


def test_workers_that_see_other_files_end_the_run(client, model, image, tmp_path) -> None:
    opened = open_image(image)
    elsewhere = replace(opened, path=tmp_path / "none.tif")
    with pytest.raises(ClusterError, match=r"none\.tif.*workers have to see the image under this"):
        list(iter_upscale_on_cluster(elsewhere, model, tmp_path / "a.zarr", client, OPTIONS))
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, opened.pixels[...] + 1, metadata={"axes": "ZYX"}, imagej=True)
    with pytest.raises(ClusterError, match=r"expected the image that the client has, got another"):
        list(
            iter_upscale_on_cluster(
                replace(opened, path=other), model, tmp_path / "a.zarr", client, OPTIONS
            )
        )


def test_workers_of_another_version_end_the_run(
    client, model, image, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cluster_run, "version_here", lambda: "9.9")
    with pytest.raises(ClusterError, match=r"expected napari-cfsr 9\.9 on every worker, as here"):
        list(iter_upscale_on_cluster(image, model, tmp_path / "a.zarr", client, OPTIONS))


def test_a_task_that_fails_again_and_again_ends_the_run(
    client, model, image, tmp_path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd\nthing")

    monkeypatch.setattr(cluster_run, "run_shard", fail)
    with pytest.raises(
        ClusterError, match=r"^block \(0, \d, \d+\) of level 0 failed \(RuntimeError: odd\)"
    ):
        list(iter_upscale_on_cluster(image, model, tmp_path / "a.zarr", client, OPTIONS))
    died = cluster_run._failure(KilledWorker("task", None, 3), ShardIndex(0, (1, 2)))
    assert "workers died again and again while they had block (1, 2) of level 0" in str(died)


def test_a_fault_of_the_command_line_is_one_line(image, official, capsys, monkeypatch) -> None:
    monkeypatch.chdir(image.parent)
    assert cluster_client.CONNECT_SECONDS <= 9
    monkeypatch.setattr(cluster_client, "CONNECT_SECONDS", 0.5)

    def fault(*arguments: str) -> str:
        assert main(["upscale", "in.tif", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    for address in ("tcp://127.0.0.1:1", "127.0.0.1:1", "no-such-host:8786", "foo://a:1"):
        assert f"expected a dask scheduler at {address}, " in fault("out.zarr", "--dask", address)
    for address in ("", "tcp://127.0.0.1", "8786"):
        assert "a dask scheduler as tcp://HOST:PORT, got" in fault("out.zarr", "--dask", address)
    assert "there is no such file" in fault("out.zarr", "--dask", "none.json")
    assert "expected at least one worker, got 0" in fault("out.zarr", "--workers=0")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'napari-cfsr[cluster]'" in fault("out.zarr", "--workers=2")
    assert not Path("out.zarr").exists()


def test_a_cluster_writes_stores_only(image, official, capsys, monkeypatch) -> None:
    monkeypatch.chdir(image.parent)
    monkeypatch.setattr(cluster_client, "local_workers", lambda count: pytest.MonkeyPatch.context())
    assert main(["upscale", "in.tif", "-o", "out.tif", "--scale=2", "--workers=2"]) == 2
    assert "expected OUT.zarr for a cluster, got out.tif" in capsys.readouterr().err


# parts


def test_workers_of_a_host_count_by_their_names() -> None:
    names = {"tcp://a:1": "w-10", "tcp://a:2": "w-2", "tcp://a:3": "w-0", "tcp://b:4": "w-1"}
    workers = {a: {"host": a[6:7], "name": name} for a, name in names.items()}
    assert [slot_among(a, workers) for a in names] == [2, 1, 0, 0]


def test_workers_of_a_machine_share_its_gpus_out(client) -> None:
    workers = list(client.nthreads())
    taken = [client.submit(_device, "auto", 4, workers=[w], pure=False).result() for w in workers]
    assert sorted(taken) == ["cuda:0", "cuda:1"]
    assert _device("auto", 1) == _device("cuda", 1) == "cuda:0"  # without a cluster to ask
    assert [_device("auto", 0), _device("cpu", 2), _device("cuda:1", 2)] == [
        "auto",
        "cpu",
        "cuda:1",
    ]


def test_weights_are_found_by_their_bytes(official_folder: Path, home: Path) -> None:
    source = official_folder / "CFSR_x2.pth"
    wanted = hashed_file(source, weight_files.OFFICIAL_SHA256[2])
    assert find_by_hash(wanted) is None
    content = source.read_bytes()
    with pytest.raises(TamperedWeightsError, match=r"expected SHA-256 e6440c.*got [0-9a-f]{64}"):
        keep_by_hash(wanted, content[:-1] + b"x")
    assert find_by_hash(wanted) is None
    kept = keep_by_hash(wanted, content)
    assert find_by_hash(wanted) == kept
    kept.write_bytes(content[:-1] + b"x")  # damaged since
    assert find_by_hash(wanted) is None
    bundled = weight_files.bundled_path(2)
    assert bundled is not None
    assert find_by_hash(hashed_file(bundled, weight_files.sha256_of(bundled))) == bundled


def test_the_environment_of_this_process_stays_what_it_was() -> None:
    before = dict(os.environ)
    with local_workers(1):
        pass
    after = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    assert after == {k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"}
