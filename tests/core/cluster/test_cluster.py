"""Runs on dask clusters: the bytes of one process, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

import napari_cfsr
from napari_cfsr import iter_upscale_to_zarr, open_image
from napari_cfsr.core.cluster import run as cluster_run
from napari_cfsr.core.cluster.client import connect, local_workers
from napari_cfsr.core.cluster.worker_model import _device, slot_among
from napari_cfsr.core.engine.model import SRModel, load_model
from napari_cfsr.core.io.store_metadata import store_status
from napari_cfsr.core.store.growing_store import JOURNAL
from napari_cfsr.core.store.layout import ShardIndex
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.weights import find_by_hash, hashed_file, keep_by_hash, weight_files
from napari_cfsr.errors import CancelledError, ClusterError, TamperedWeightsError
from tests.helpers.tiny_weights import write_tiny_weights

distributed = pytest.importorskip("distributed", reason="needs napari-cfsr[cluster]")

SOURCE = Path(napari_cfsr.__file__).parents[1]
SHAPE = (3, 40, 600)  # 45 blocks of one tile, and 24 of a pyramid's second level
BLOCKS = 45
SHARDS = 45 + 24
iter_upscale_on_cluster = partial(cluster_run.iter_upscale_on_cluster, engine="torch")
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
        before = environment()
        with local_workers(2) as client:
            yield client
        assert environment() == before  # starting workers leaves it as it was


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}


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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SRModel:
    """A tiny backbone that no worker has."""
    path = write_tiny_weights(tmp_path_factory.mktemp("tiny")) / "CFSR_x2.pth"
    return load_model(2, path, refiner=None, device="cpu", engine="torch")


@pytest.fixture(scope="module")
def whole(
    model: SRModel, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one process writes."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (1, 1, False))
        list(in_one_process(image, model, path))
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
    client, bare_home: Path, model, image, whole, tmp_path, monkeypatch
) -> None:
    """The workers have no such weights: each gets and keeps them, by their hash."""
    submit, waited_for = client.submit, {}

    def recorded(*arguments: Any, key: str, **options: Any) -> Any:
        if arguments[0] is cluster_run.run_shard:
            waited_for[key] = [part.key for part in arguments[-1]]
        return submit(*arguments, key=key, **options)

    with monkeypatch.context() as patch:
        patch.setattr(client, "submit", recorded)
        steps = list(iter_upscale_on_cluster(image, model, tmp_path / "a.zarr", client, OPTIONS))
    assert contents(tmp_path / "a.zarr") == whole
    # a shard of the pyramid waits for those of its parts that are in flight
    assert len(waited_for) == SHARDS
    indices = {key: [int(i) for i in key.split("-")[3:]] for key in waited_for}
    assert any(waited_for[key] for key, (level, *_) in indices.items() if level)
    for key, parts in waited_for.items():
        level, plane, y, x = indices[key]
        for part in parts:
            below, p, i, j = indices[part]
            assert (below, p, i // 2, j // 2) == (level - 1, plane, y, x)
    assert [steps[0].done, steps[-1].done] == [0, np.prod(SHAPE)]
    assert len(steps) == 1 + BLOCKS
    assert not any(step.note for step in steps)
    sent = bare_home / "cache" / "by-hash"
    assert [p.name for p in sent.iterdir()] == [f"{model.info.backbone_sha256}.pth"]

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


def test_a_killed_client_takes_its_workers_with_it_and_is_resumed(
    client, model, image, whole, tmp_path
) -> None:
    path = tmp_path / "a.zarr"
    backbone = model.info.backbone_path
    arguments = [
        "upscale", str(image), "--scale=2", "--backbone", backbone, "--refiner=none",
        "--device=cpu", "--engine=torch", "--tile=40", "--halo=8", f"--output={path}",
        "--workers=1",
    ]  # fmt: skip
    (tmp_path / "run.py").write_text(PROGRAM.format(root=str(SOURCE), arguments=arguments))
    victim = subprocess.Popen([sys.executable, str(tmp_path / "run.py")])
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
    steps = iter_upscale_on_cluster(image, model, path, client, OPTIONS)
    assert next(steps).earlier == there * 40 * 40
    list(steps)
    assert contents(path) == whole


def test_late_workers_get_the_weights_and_one_process_resumes_without_a_scheduler(
    model, image, whole, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(cluster_run, "NO_WORKER_SECONDS", 0.2)
    monkeypatch.setattr(cluster_run, "COUNT_SECONDS", 0.1)
    path = tmp_path / "a.zarr"
    asked = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, memory_limit=0, silence_logs="CRITICAL", **asked
        ) as own,
        connect(own.scheduler_address) as client,
    ):
        steps = iter_upscale_on_cluster(image, model, path, client, OPTIONS)
        while not (step := next(steps)).note:
            pass
        assert step.note == f"waiting for workers at {own.scheduler_address}"
        own.scale(1)
        while next(steps).done == 0:
            pass
        own.close()
        with pytest.raises(ClusterError, match=r"was lost; what is written is kept: run the same"):
            list(steps)
    there = level0((path / JOURNAL).read_text())
    assert 1 <= there < BLOCKS
    first = next(in_one_process(image, model, path))
    assert first.done == first.earlier == there * 40 * 40
    list(in_one_process(image, model, path))
    assert contents(path) == whole


@pytest.mark.alone
def test_workers_stop_soon_after_a_cancel(client, image, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "napari_cfsr.core.upscale.blocks.plan_blocks.__defaults__", (4096, 2**27, True)
    )
    model = load_model(2, "bundled", refiner=None, device="cpu", engine="torch")
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
    died = cluster_run._failure(distributed.KilledWorker("task", None, 3), ShardIndex(0, (1, 2)))
    assert "workers died again and again while they had block (1, 2) of level 0" in str(died)


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


def test_weights_are_found_by_their_bytes(model: SRModel, home: Path) -> None:
    source = Path(model.info.backbone_path)
    wanted = hashed_file(source, model.info.backbone_sha256)
    assert find_by_hash(wanted) is None
    content = source.read_bytes()
    expected = rf"expected SHA-256 {wanted.sha256}.*got [0-9a-f]{{64}}"
    with pytest.raises(TamperedWeightsError, match=expected):
        keep_by_hash(wanted, content[:-1] + b"x")
    assert find_by_hash(wanted) is None
    kept = keep_by_hash(wanted, content)
    assert find_by_hash(wanted) == kept
    kept.write_bytes(content[:-1] + b"x")  # damaged since
    assert find_by_hash(wanted) is None
    bundled = weight_files.bundled_path(2)
    assert bundled is not None
    assert find_by_hash(hashed_file(bundled, weight_files.sha256_of(bundled))) == bundled
