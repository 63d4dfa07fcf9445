"""The outcome of a batch: in one line, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from napari_cfsr.core.batch.run import BatchRecord
from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.upscale import duration
from napari_cfsr.errors import OptionError

SUFFIXES = (".csv", ".json")
COLUMNS = ("input", "state", "outputs", "seconds", "message")
BETWEEN = "; "  # outputs in a cell


def summary_line(records: Sequence[BatchRecord], seconds: float) -> str:
    """`12 upscaled, 3 already there, 1 failed in 2 min 05 s`; zeros are left out."""
    states = Counter(record.state for record in records)
    parts = [f"{states['done']} upscaled"]
    parts += [f"{states['skipped']} already there"] if states["skipped"] else []
    parts += [f"{states['failed']} failed"] if states["failed"] else []
    left = states["waiting"] + states["running"]
    parts += [f"{left} not done"] if left else []
    return f"{', '.join(parts)} in {duration(seconds)}"


def check_summary(path: Path) -> None:
    """Raise `OptionError` for a name that is neither CSV nor JSON."""
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"expected a summary ending in {' or '.join(SUFFIXES)}, got {path}")


def write_summary(path: Path, records: Sequence[BatchRecord], overwrite: bool = False) -> None:
    """Write a summary, whole or not at all.

    Parameters
    ----------
    path : Path
        `.csv`: a line for each input. `.json`: a list of records, with the provenance of results.
    records : sequence of BatchRecord
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    OptionError
        Another suffix, or it exists.
    FileFormatError
        It can't be written.
    """
    check_summary(path)
    text = as_csv(records) if path.suffix.lower() == ".csv" else as_json(records)
    # file names need not be valid text
    with atomic_write(path, overwrite) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def as_csv(records: Sequence[BatchRecord]) -> str:
    """A header and a line for each input."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        outputs = BETWEEN.join(str(path) for path in record.outputs.values())
        writer.writerow(
            [record.path, record.state, outputs, f"{record.seconds:.3f}", record.message]
        )
    return out.getvalue()


def as_json(records: Sequence[BatchRecord]) -> str:
    """A list of objects."""
    rows = [
        {
            "input": str(record.path),
            "state": record.state,
            "outputs": {name: str(path) for name, path in record.outputs.items()},
            "seconds": round(record.seconds, 3),
            "message": record.message,
            "provenance": record.provenance,
        }
        for record in records
    ]
    return json.dumps(rows, indent=1) + "\n"
