"""The client's side of a cluster: to reach or start one, and to hand out tasks a few at a time.

The scheduling is that of dask.distributed, which is imported when it is needed: it is an extra.
"""

from __future__ import annotations

import os
import queue
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cfsr.core.cluster.worker_task import TaskResult, run_shard, take_weights, version_here
from napari_cfsr.core.store import ShardIndex
from napari_cfsr.core.weights import HashedFile
from napari_cfsr.errors import CFSRError, ClusterError, OptionError, WeightsError

ADDRESS = re.compile(r"(\w+://)?[^/\s]+:\d+(/.*)?")
CONNECT_SECONDS = 8.0
COUNT_SECONDS = 2.0  # between two looks at how many workers there are
NEWS_SECONDS = 10.0  # without a worker, before that is said
LEAST_TASKS = 4  # that wait while there is no worker, so that adaptive clusters see a need
MOST_ASKED = 3  # times that a worker may be sent the same weights
RETRIES = 2  # of a task that failed for a reason that this package does not know
# of workers of our own: Ctrl-C goes to all processes of a terminal, and the client ends them
IGNORE_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def need_distributed() -> Any:
    """The package `distributed`; raises `ClusterError` where it is not installed."""
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "expected the package distributed, which runs clusters: install it with "
            "pip install 'napari-cfsr[cluster]'"
        ) from error
    return distributed


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """A client of a cluster that is there.

    Parameters
    ----------
    address : str
        `tcp://HOST:PORT` of its scheduler, or the scheduler's JSON file.

    Raises
    ------
    ClusterError
        No scheduler answers there.
    """
    distributed = need_distributed()
    file = address.endswith(".json")
    if file and not Path(address).is_file():
        raise ClusterError(f"expected a scheduler's file, got {address}: there is no such file")
    if not file and not ADDRESS.fullmatch(address):
        raise ClusterError(f"expected a dask scheduler as tcp://HOST:PORT, got {address!r}")
    where = {"scheduler_file": address} if file else {"address": address}
    try:
        client = distributed.Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterError(
            f"expected a dask scheduler at {address}, got no reply ({reason}): is it running, and "
            "is that its address?"
        ) from error
    with client:
        yield client


@contextmanager
def local_workers(count: int) -> Iterator[Any]:
    """A client of so many worker processes on this machine, which end with it.

    Raises
    ------
    OptionError
        Not a number of workers.
    """
    if count < 1:
        raise OptionError(f"expected at least one worker, got {count}")
    distributed = need_distributed()
    from dask.system import CPU_COUNT

    threads = str(max(1, CPU_COUNT // count))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {**dict.fromkeys(names, threads), "OMP_WAIT_POLICY": "PASSIVE"}
    before = dict(os.environ)
    try:
        yield from _started(distributed, count, env)
    finally:  # starting a worker puts its variables, one thread among them, into this process's
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _started(distributed: Any, count: int, env: dict[str, str]) -> Iterator[Any]:
    cluster = distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",  # its port; None would be 8787, with a warning if in use
        scheduler_kwargs={"dashboard": False},
        memory_limit=0,  # blocks are bounded, and a worker that is paused would wait for ever
        env=env,
        preload=[IGNORE_INTERRUPT],
        silence_logs="CRITICAL",  # of a worker that died: another does its tasks
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@dataclass(eq=False)
class TaskDispatcher:
    """Hands out tasks to a cluster and takes what becomes of them.

    Attributes
    ----------
    client : distributed.Client
    job : bytes
        A pickled `Job`.
    weights : dict of HashedFile to Path
        Files that a worker may have to be sent.
    """

    client: Any
    job: bytes
    weights: Mapping[HashedFile, Path]
    _tasks: dict[str, tuple[Any, ShardIndex]] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # bound to this run: with another's names, one could get another's results
        self._name = f"napari-cfsr-{os.urandom(8).hex()}"
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent: dict[str, Any] = {}  # by worker
        self._count = self._most = 0
        self._counted = self._alone_since = self._told = 0.0

    @property
    def under_way(self) -> int:
        """Tasks that are not back."""
        return len(self._tasks)

    def has_room(self) -> bool:
        """Whether another task is to be handed out: workers are to find one when they are done."""
        now = time.monotonic()
        if now - self._counted > COUNT_SECONDS:
            self._counted = now
            with self._connected():
                threads = self.client.nthreads().values()
            # one in the network, one that reads or writes where there is a thread, one that waits
            self._most = sum(min(n, 2) + 1 for n in threads)
            self._alone_since = 0.0 if threads else self._alone_since or now
        return self.under_way < max(self._most, LEAST_TASKS)

    def news(self) -> str:
        """What the user should know while nothing happens; each thing once."""
        alone = self._alone_since
        if not alone or alone == self._told or time.monotonic() - alone < NEWS_SECONDS:
            return ""
        self._told = alone
        return f"waiting for workers at {self._address()}"

    def submit(self, shard: ShardIndex, after: Any = None) -> None:
        """Hand out a shard."""
        self._count += 1
        with self._connected():
            future = self.client.submit(
                run_shard,
                version_here(),
                self.job,
                (shard.level, *shard.index),
                after,
                key=f"{self._name}-{self._count}",
                retries=RETRIES,
                pure=False,
            )
            self._tasks[future.key] = future, shard
            future.add_done_callback(self._ended.put)

    def poll(self, timeout: float) -> tuple[ShardIndex, TaskResult] | None:
        """A shard that is done, if one is within some seconds.

        Raises
        ------
        ClusterError
            The scheduler is gone, or a task fails again and again.
        CFSRError
            What a task says of why the run can't go on.
        """
        try:
            future = self._ended.get(timeout=timeout)
        except queue.Empty:
            return None
        _, shard = self._tasks.pop(future.key)
        result = self._result(future, shard)
        if result.error is not None:
            raise result.error(result.text)
        if result.missing:
            self.submit(shard, self._send(result))
            return None
        return shard, result

    def _result(self, future: Any, shard: ShardIndex) -> TaskResult:
        if future.status == "error":
            error = future.exception()
            raise _failed(error, shard) from error
        with self._connected():
            result: TaskResult = future.result()
        return result

    def _send(self, result: TaskResult) -> Any:
        """Send a worker the weights it lacks; the task that takes them."""
        worker = result.worker
        asked = self._asked[worker] = self._asked.get(worker, 0) + 1
        there = self._sent.get(worker)
        if there is not None and not there.done():
            return there
        if asked > MOST_ASKED * max(self._most, LEAST_TASKS):
            raise WeightsError(f"worker {worker} was sent the weights and does not find them")
        missing = {f: p for f, p in self.weights.items() if f.sha256 in result.missing}
        contents = {file: path.read_bytes() for file, path in missing.items()}
        with self._connected():
            for file, content in contents.items():
                self._count += 1
                self._sent[worker] = self.client.submit(
                    take_weights,
                    file,
                    content,
                    self._sent.get(worker),
                    key=f"{self._name}-weights-{self._count}",
                    workers=[worker],
                    allow_other_workers=True,  # it may have died
                    pure=False,
                )
        return self._sent[worker]

    def close(self) -> None:
        """Take back what is not done: workers stop within a tile."""
        futures = [future for future, _ in self._tasks.values()]
        self._tasks.clear()
        if futures and self.client.status == "running":
            with suppress(Exception):  # whatever ends the run is said already
                self.client.cancel(futures)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """`ClusterError` for a scheduler that is gone."""
        from concurrent.futures import CancelledError

        try:
            if self.client.status != "running":
                raise OSError(f"the client is {self.client.status}")
            yield
        except (OSError, CancelledError) as error:
            raise ClusterError(
                f"the connection to the scheduler at {self._address()} was lost; what is written "
                "is kept: run the same again to go on"
            ) from error

    def _address(self) -> str:
        scheduler = self.client.scheduler
        return str(scheduler.address) if scheduler is not None else "its address"


def _failed(error: BaseException, shard: ShardIndex) -> CFSRError:
    """A task that distributed gives up."""
    from distributed import KilledWorker

    if isinstance(error, CFSRError):  # of the weights that it waited for
        return error
    block = ", ".join(map(str, shard.index))
    kept = "what is written is kept: run the same again to go on"
    if isinstance(error, KilledWorker):
        return ClusterError(
            f"workers died again and again while they had block ({block}) of level {shard.level}, "
            f"most often for lack of memory: give them more or choose a smaller tile; {kept}"
        )
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, ImportError) or "deserialization" in str(error):
        return ClusterError(
            f"the cluster can't read the tasks ({reason}): scheduler and workers need "
            f"napari-cfsr[cluster] {version_here()}, as here"
        )
    return ClusterError(f"block ({block}) of level {shard.level} failed ({reason}); {kept}")
