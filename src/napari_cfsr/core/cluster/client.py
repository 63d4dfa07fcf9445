"""Connecting to a dask cluster, or starting one on this machine.

dask.distributed is imported when it is needed: it is an extra.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_cfsr.errors import ClusterError, OptionError, reason

ADDRESS = re.compile(r"(\w+://)?[^/\s]+:\d+(/.*)?")
CONNECT_SECONDS = 8.0
# for our own workers: Ctrl-C reaches all processes of a terminal, and the client ends them
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
    """A client of a running cluster; `ClusterError` if no scheduler answers there.

    `address` is `tcp://HOST:PORT` of its scheduler, or the scheduler's JSON file.
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
        raise ClusterError(
            f"expected a dask scheduler at {address}, got no reply ({reason(error)}): is it "
            "running, and is that its address?"
        ) from error
    with client:
        yield client


@contextmanager
def local_workers(count: int) -> Iterator[Any]:
    """A client of `count` worker processes on this machine, at least one, which end with it."""
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
    finally:  # starting a worker sets its variables, such as one thread, in this process, too
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _started(distributed: Any, count: int, env: dict[str, str]) -> Iterator[Any]:
    cluster = distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",  # any free port; None is 8787, with a warning if in use
        scheduler_kwargs={"dashboard": False},
        memory_limit=0,  # blocks are bounded, and a paused worker would wait for ever
        env=env,
        preload=[IGNORE_INTERRUPT],
        silence_logs="CRITICAL",  # of workers that died: others take their tasks
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client
