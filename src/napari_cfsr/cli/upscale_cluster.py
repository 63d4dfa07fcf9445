"""`napari-cfsr upscale --dask | --workers`: the client of a cluster, or of local workers."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_cfsr.errors import OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.batch import BatchPlan


def add_cluster_options(command: argparse.ArgumentParser) -> None:
    """Options that spread a run into a store over processes or machines."""
    group = command.add_argument_group(
        "clusters",
        "for OUT.zarr, with pip install 'napari-cfsr[cluster]'; all workers have to "
        "see image and OUT.zarr under the same path",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--dask", metavar="ADDRESS", help="tcp://HOST:PORT of a dask scheduler, or its JSON file"
    )
    which.add_argument(
        "--workers", type=int, metavar="N", help="start N worker processes on this machine"
    )


@contextlib.contextmanager
def cluster_client(options: argparse.Namespace) -> Iterator[Any]:
    """The client of the requested cluster; None without one."""
    if options.dask is None and options.workers is None:
        yield None
        return
    from napari_cfsr.core.cluster import connect, local_workers, need_distributed

    need_distributed()  # its import sets the log levels
    # logs of libraries are for developers; users get errors and notes
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    asked = connect(options.dask) if options.dask is not None else local_workers(options.workers)
    with asked as client:
        yield client


def check_cluster(plan: BatchPlan, options: argparse.Namespace) -> None:
    """Raise an error for results on a cluster that are not stores."""
    if options.dask is None and options.workers is None:
        return
    for item in plan.items:
        for target in item.targets.paths if item.targets is not None else ():
            if target.suffix.lower() != ".zarr":
                raise OptionError(f"expected OUT.zarr for a cluster, got {target}")
