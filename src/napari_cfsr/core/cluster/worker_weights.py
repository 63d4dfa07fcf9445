"""The weights of a run, for each worker of a cluster, now and later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import WorkerPlugin

from napari_cfsr.core.weights import HashedFile, find_by_hash, keep_by_hash


class WeightsPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Keeps weights in the cache of a worker's machine, unless it has files with those hashes."""

    def __init__(self, contents: Mapping[HashedFile, bytes]) -> None:
        self.contents = dict(contents)

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        for file, content in self.contents.items():
            if find_by_hash(file) is None:
                keep_by_hash(file, content)
