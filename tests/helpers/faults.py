"""Faults that tests bring about, and programs run in a process of their own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from napari_cfsr.errors import CancelledError


def full_disk(*_: object, **__: object) -> Any:
    """In place of a function that writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The operating system limits the size of files that this process writes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class CancelAt:
    """A `check` that counts its calls and cancels at the n-th, at none if that is 0."""

    def __init__(self, last: int) -> None:
        self.last, self.calls = last, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.last:
            raise CancelledError("cancelled")


def run_python(program: str, *arguments: object, **options: Any) -> str:
    """What a program prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
