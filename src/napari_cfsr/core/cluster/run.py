"""Upscaling to an OME-Zarr store on the workers of a dask cluster.

The client plans the run and keeps its journal, as a run in one process does; workers read the image
and write the store themselves, a shard at a time. The store is the same. The scheduling is that of
dask.distributed: shards of a higher level of the pyramid depend on the futures of their parts.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_cfsr.core.cluster.client import need_distributed
from napari_cfsr.core.cluster.worker_model import ModelRecipe
from napari_cfsr.core.cluster.worker_task import (
    Job,
    TaskResult,
    run_shard,
    version_here,
    wait_for_files,
)
from napari_cfsr.core.engine import Check, Model
from napari_cfsr.core.io import LazyImage, open_image, read_store_metadata
from napari_cfsr.core.store import ShardIndex, StoreProgress, StoreResult, StoreRun, plan_store
from napari_cfsr.core.upscale import UpscaleOptions, versions
from napari_cfsr.core.weights import HashedFile, hashed_file
from napari_cfsr.errors import ClusterError, WeightsError

POLL_SECONDS = 0.05
COUNT_SECONDS = 2.0  # between two counts of the workers
NO_WORKER_SECONDS = 10.0  # before a note says that no worker is there
LEAST_TASKS = 4  # that wait while there is no worker, so that adaptive clusters see a need
RETRIES = 2  # of a task that failed for a reason unknown to this package
RESUMABLE = "what is written is kept: run the same again to resume"


def iter_upscale_on_cluster(
    image: LazyImage | str | os.PathLike[str],
    model: Model,
    path: str | os.PathLike[str],
    client: Any,
    options: UpscaleOptions | None = None,
    check: Check = lambda: None,
    *,
    device: str = "auto",
    engine: str = "auto",
    source: str | None = None,
    overwrite: bool = False,
) -> Generator[StoreProgress, None, StoreResult]:
    """Upscale an image to a store on a dask cluster: yields progress after each block.

    As `iter_upscale_to_zarr`, with the same bytes; each can resume a run of the other.

    Parameters
    ----------
    image : LazyImage or path
        From `open_image`, or what it would open. Workers open it by its path.
    model : Model
        Says which weights, scale and precision; each worker loads the same once. The tile is chosen
        by the memory that is free where `model` is, unless `options` has one.
    path : str or path
        The store. Client and workers have to see it and the image under the same absolute path.
    client : distributed.Client
        Of the cluster. Each worker is best a process of its own.
    options : UpscaleOptions, optional
        Without axes, those of the image.
    check : callable
        Called several times a second; an exception from it ends the run, which can be resumed.
    device : str
        Of the workers, as for `load_model`. With `"auto"` and `"cuda"`, the workers of a machine
        share its GPUs.
    engine : str
        Of the workers, as for `load_model`.
    source : str, optional
        What the image is called in the store's record; its path by default.
    overwrite : bool
        As for `upscale_to_zarr`.

    Returns
    -------
    StoreResult

    Raises
    ------
    ImageError, OptionError, OutOfMemoryError, FileFormatError
        As `upscale_to_zarr`.
    ClusterError
        The scheduler is lost, or workers die repeatedly, do not see the files, or run another
        version of this package. Finished blocks are kept, and the same call resumes.
    """
    if not isinstance(image, LazyImage):
        image = open_image(image)
    options = options or UpscaleOptions()
    if options.axes is None:
        options = replace(options, axes=image.axes, rgb=False)
    plan = plan_store(
        image.pixels, model, path, options, check, space=image.space, omero=image.omero,
        source=str(image.path) if source is None else source, overwrite=overwrite,
    )  # fmt: skip
    run = ClusterRun(StoreRun(image.pixels, model, plan, check), client, image.path, device, engine)
    yield from run.shards()
    return run.finish()


class ClusterRun:
    """Has the shards of a run written by workers, a few at a time."""

    def __init__(self, run: StoreRun, client: Any, image: Path, device: str, engine: str) -> None:
        self.run, self.client, self.device = run, client, device
        self.ran_on: set[str] = set()  # devices of the workers
        # unique to this run: with another's names, one could get another's results
        self._name = f"napari-cfsr-{os.urandom(8).hex()}"
        self._files = weights_files(run.model)
        self._job = pickle.dumps(job_of(run, image, device, engine, list(self._files)))
        self._completed = need_distributed().as_completed(loop=client.loop)
        self._futures: dict[ShardIndex, Any] = {}  # in flight
        self._most = 0  # tasks in flight that do not wait for others
        self._counted = self._alone_since = self._reported = 0.0

    def shards(self) -> Generator[StoreProgress, None, None]:
        """Have the missing shards written."""
        yield self.run.start()
        todo = deque(self.run.missing())
        try:
            if todo:
                self._send_weights()
            while todo or self._futures:
                self.run.check()
                while todo and self._has_room():
                    self._submit(todo.popleft())
                if self._completed.has_ready():
                    yield from self._take(next(self._completed))
                elif note := self._waiting():
                    yield self.run.progress(note=note)
                else:
                    time.sleep(POLL_SECONDS)
        finally:
            self._cancel()

    def finish(self) -> StoreResult:
        """Complete the store; what was done, and on which kind of device."""
        devices = sorted(self.ran_on)
        if len(devices) > 1:
            self.run.notes.append(f"blocks were made on {' and '.join(devices)}")
        device = devices[0] if len(devices) == 1 else self.device
        # without a device, there was nothing left to do but to complete the store
        return self.run.finish(None if device == "auto" and not devices else device)

    # tasks

    def _send_weights(self) -> None:
        """Give each worker the weights, those that come later, too.

        Scattering them needs a worker now, and loses them with the last worker that holds them.
        """
        from napari_cfsr.core.cluster.worker_weights import WeightsPlugin

        contents = {file: path.read_bytes() for file, path in self._files.items()}
        try:
            with self._connected():
                self.client.register_plugin(WeightsPlugin(contents), name=self._name)
        except (ClusterError, WeightsError):
            raise
        except Exception as error:
            raise _unreadable(error) from error

    def _has_room(self) -> bool:
        """Whether to submit another task: a worker that is done should find one."""
        now = time.monotonic()
        if now - self._counted > COUNT_SECONDS:
            self._counted = now
            with self._connected():
                threads = self.client.nthreads().values()
            # one in the network, one that reads or writes where there is a thread, one that waits
            self._most = sum(min(n, 2) + 1 for n in threads)
            self._alone_since = 0.0 if threads else self._alone_since or now
        ready = sum(not self._parts(shard) for shard in self._futures)
        return ready < max(self._most, LEAST_TASKS)

    def _parts(self, shard: ShardIndex) -> list[Any]:
        """The futures that a shard waits for."""
        parts = self.run.plan.layout.parts(shard)
        return [self._futures[part] for part in parts if part in self._futures]

    def _submit(self, shard: ShardIndex) -> None:
        index = (shard.level, *shard.index)
        with self._connected():
            future = self.client.submit(
                run_shard,
                version_here(),
                self._job,
                index,
                self._parts(shard),
                key=f"{self._name}-{'-'.join(map(str, index))}",
                retries=RETRIES,
                pure=False,
            )
        self._futures[shard] = future
        self._completed.add(future)

    def _take(self, future: Any) -> Generator[StoreProgress, None, None]:
        """Enter a shard that a worker wrote."""
        shard = next(s for s, f in self._futures.items() if f.key == future.key)
        if future.status == "error":
            error = future.exception()
            raise _failure(error, shard) from error
        with self._connected():
            result: TaskResult = future.result()
        if result.error is not None:
            raise result.error(result.text)
        run = self.run
        wait_for_files(
            run.store, shard, run.check, f"worker {result.worker} wrote a block that is not here"
        )
        run.enter(shard)
        del self._futures[shard]
        if shard.level == 0:
            self.ran_on.add(result.device.split(":")[0])
            yield run.progress(note="; ".join(self._new_notes(result)))

    def _new_notes(self, result: TaskResult) -> list[str]:
        notes = list(result.notes)
        if result.torch != versions(("torch",)).get("torch"):
            notes.append(f"some blocks were made with torch {result.torch}")
        new = [note for note in dict.fromkeys(notes) if note not in self.run.notes]
        self.run.notes += new
        return new

    def _waiting(self) -> str:
        """A note if there has been no worker for a while; once."""
        since = self._alone_since
        if not since or since == self._reported or time.monotonic() - since < NO_WORKER_SECONDS:
            return ""
        self._reported = since
        return f"waiting for workers at {self._address()}"

    def _cancel(self) -> None:
        """Cancel what is in flight: workers stop within a tile."""
        futures = list(self._futures.values())
        self._futures.clear()
        if self.client.status == "running":
            with suppress(Exception):  # the run has ended for another reason
                self.client.cancel(futures)
                self.client.unregister_worker_plugin(self._name)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """`ClusterError` where the scheduler is lost."""
        from concurrent.futures import CancelledError

        try:
            if self.client.status != "running":
                raise OSError(f"the client is {self.client.status}")
            yield
        except (OSError, CancelledError) as error:
            raise ClusterError(
                f"the connection to the scheduler at {self._address()} was lost; {RESUMABLE}"
            ) from error

    def _address(self) -> str:
        scheduler = self.client.scheduler
        return str(scheduler.address) if scheduler is not None else "its address"


def weights_files(model: Model) -> dict[HashedFile, Path]:
    """The files of backbone and refiner, on this machine."""
    info = model.info
    named = [(info.backbone_path, info.backbone_sha256)]
    if info.refiner_path and info.refiner_sha256:
        named.append((info.refiner_path, info.refiner_sha256))
    return {hashed_file(Path(path), sha256): Path(path) for path, sha256 in named}


def job_of(run: StoreRun, image: Path, device: str, engine: str, files: list[HashedFile]) -> Job:
    """What workers need to know."""
    plan, info = run.plan, run.model.info
    recipe = ModelRecipe(info.scale, tuple(files), device, info.precision, engine)
    plan = replace(plan, path=plan.path.absolute())
    return Job(image.absolute(), plan, read_store_metadata(plan.path) or {}, recipe)


def _failure(error: BaseException, shard: ShardIndex) -> ClusterError:
    """The error for a task that distributed gave up."""
    from distributed import KilledWorker

    block = f"block ({', '.join(map(str, shard.index))}) of level {shard.level}"
    if isinstance(error, KilledWorker):
        return ClusterError(
            f"workers died again and again while they had {block}, most often for lack of memory: "
            f"give them more or choose a smaller tile; {RESUMABLE}"
        )
    if isinstance(error, ImportError) or "deserialization" in str(error):
        return _unreadable(error)
    return ClusterError(f"{block} failed ({_first_line(error)}); {RESUMABLE}")


def _unreadable(error: BaseException) -> ClusterError:
    return ClusterError(
        f"the cluster can't read the tasks ({_first_line(error)}): scheduler and workers need "
        f"napari-cfsr[cluster] {version_here()}, as here"
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
