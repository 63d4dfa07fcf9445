"""Which files are meant by the inputs of a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_cfsr.cli.common import say


def input_files(
    inputs: Sequence[Path], ours: Callable[[Path], bool] = lambda _: False
) -> tuple[list[Path], int]:
    """What `find_inputs` finds; what is wrong with an input is said, and counted."""
    from napari_cfsr.core.batch import find_inputs

    files, faults = find_inputs(inputs, ours)
    for fault in faults:
        say(fault.text)
    return files, len(faults)
