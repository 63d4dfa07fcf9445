"""Table of the PSNR and SSIM of several images, with means, gains and the best."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from napari_cfsr.core.io import atomic_write
from napari_cfsr.core.metrics.masked import QualityOptions, QualityScores
from napari_cfsr.errors import FileFormatError

Column = Literal["psnr", "ssim", "psnr_gain", "ssim_gain"]

COLUMNS: tuple[Column, ...] = ("psnr", "ssim", "psnr_gain", "ssim_gain")
TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "psnr_gain": "gain (dB)", "ssim_gain": "gain (SSIM)"}
DECIMALS = {"psnr": 3, "ssim": 4, "psnr_gain": 3, "ssim_gain": 4}
MEAN = "mean"


@dataclass(frozen=True)
class QualityRow:
    """Scores of one image."""

    name: str
    figures: tuple[QualityScores, ...] = ()  # one for each slice; empty if there is a fault
    fault: str = ""  # why the image can't be compared

    def value(self, column: Literal["psnr", "ssim"], at: int | None) -> float:
        """PSNR or SSIM of slice `at`, or with None the mean of all slices that have one."""
        values = [float(getattr(f, column)) for f in self.figures]
        if at is not None:
            return values[at] if values else math.nan
        known = [v for v in values if not math.isnan(v)]
        return math.fsum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    row: int  # index of the image
    at: int | None  # index of the slice; None for the mean
    name: str
    slice_name: str
    values: dict[Column, float]  # by column; NaN if there is none
    # columns in which it has the greatest value of all images for the same slice
    best: frozenset[Column] = frozenset()


@dataclass(frozen=True)
class QualityTable:
    """Results of one quality run."""

    reference: str
    part: str  # the compared part of it, in words
    options: QualityOptions
    range_words: str  # reason for the data range
    slice_names: tuple[str, ...]
    rows: tuple[QualityRow, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self, over: int | None = None, every_slice: bool = False) -> list[Line]:
        """The lines of the table; gains are over row `over`, without it NaN.

        `every_slice`: a line for each image and slice instead of the means.
        """
        places = list(range(len(self.slice_names))) if every_slice else [None]
        return [line for at in places for line in self._at(at, over)]

    def _at(self, at: int | None, over: int | None) -> list[Line]:
        """A line for each image."""
        title = MEAN if len(self.slice_names) > 1 else ""
        name = title if at is None else self.slice_names[at]
        all_values = [self._values(row, at, over) for row in self.rows]
        best = {c: best_of([v[c] for v in all_values], DECIMALS[c]) for c in COLUMNS}
        return [
            Line(
                i, at, row.name, name, all_values[i], frozenset(c for c in COLUMNS if i in best[c])
            )
            for i, row in enumerate(self.rows)
        ]

    def _values(self, row: QualityRow, at: int | None, over: int | None) -> dict[Column, float]:
        values: dict[Column, float] = {"psnr": row.value("psnr", at), "ssim": row.value("ssim", at)}
        base = None if over is None else self.rows[over]
        for column in ("psnr", "ssim"):
            gain = math.nan if base is None else _less(values[column], base.value(column, at))
            values["psnr_gain" if column == "psnr" else "ssim_gain"] = gain
        return values

    @property
    def describe(self) -> str:
        """How it was measured, in one sentence."""
        options, count = self.options, len(self.slice_names)
        means = f", mean of {count} slices" if count > 1 else ""
        return (
            f"Against '{self.reference}', {self.part}{means}; channel {options.channel}, "
            f"ignored border {options.shave}, data range {options.data_range:g} "
            f"({self.range_words})."
        )

    def text(self, lines: Sequence[Line]) -> str:
        """Lines as tab-separated text, for a spreadsheet."""
        head = ["layer", *(["slice"] if len(self.slice_names) > 1 else [])]
        head += [TITLES[c] for c in COLUMNS]
        rows = [head]
        for line in lines:
            names = [line.name, *([line.slice_name] if len(self.slice_names) > 1 else [])]
            rows.append(names + [_plain(line.values[c], DECIMALS[c]) for c in COLUMNS])
        clean = ([cell.replace("\t", " ").replace("\n", " ") for cell in row] for row in rows)
        return "\n".join("\t".join(row) for row in clean) + "\n"

    def csv(self, over: int | None = None) -> str:
        """Means and, for stacks, all slices as CSV; each line says how it was measured."""
        options = self.options
        lines = self.lines(over)
        lines += self.lines(over, every_slice=True) if len(self.slice_names) > 1 else []
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["layer", "slice", "psnr_db", "ssim", "psnr_gain_db", "ssim_gain", "gain_over",
             "reference", "part", "channel", "shave", "data_range", "invalid_pixels", "fault"]
        )  # fmt: skip
        for line in lines:
            row = self.rows[line.row]
            figures = row.figures if line.at is None else row.figures[line.at : line.at + 1]
            writer.writerow(
                [line.name, line.slice_name, *(_plain(line.values[c], 6) for c in COLUMNS),
                 "" if over is None else self.rows[over].name, self.reference, self.part,
                 options.channel, options.shave, f"{options.data_range:.9g}",
                 sum(f.invalid for f in figures), row.fault]
            )  # fmt: skip
        return out.getvalue()


def _less(value: float, base: float) -> float:
    """The difference; 0 for two infinite values."""
    return 0.0 if value == base else value - base


def best_of(values: Sequence[float], decimals: int) -> set[int]:
    """Indices of the greatest value after rounding; empty if all are the same."""
    known = {i: round(v, decimals) for i, v in enumerate(values) if not math.isnan(v)}
    most = max(known.values(), default=0.0)
    best = {i for i, v in known.items() if v == most}
    return best if len(best) < len(known) else set()


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them start with."""
    words = [name.split(" ") for name in names]
    columns = zip(*(w[:-1] for w in words), strict=False)  # at least one word of each remains
    shared = list(takewhile(lambda column: len(set(column)) == 1, columns))
    common = len(shared) if len(names) > 1 else 0
    return ["…" * bool(common) + " ".join(w[common:]) for w in words]


def shown(value: float, column: Column) -> str:
    """A value as displayed; `∞` for infinity, a dash for NaN."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 - a dash
    signed = "+" if column.endswith("gain") else ""
    if math.isinf(value):
        return ("-" if value < 0 else signed) + "∞"
    decimals = DECIMALS[column]
    return f"{round(value, decimals) + 0.0:{signed}.{decimals}f}"  # + 0.0: no negative zero


def _plain(value: float, decimals: int) -> str:
    """A value for programs: `inf` for infinity, empty for NaN."""
    return "" if math.isnan(value) else f"{value:.{decimals}f}"


def csv_path(chosen: str | Path) -> Path:
    """The chosen file, with the suffix .csv if it has none."""
    path = Path(chosen)
    return path if path.suffix else path.with_name(f"{path.name}.csv")


def write_csv(path: Path, text: str, overwrite: bool) -> Path:
    """Write a table to a file, atomically; raises `FileFormatError` if it exists already."""
    if path.exists() and not overwrite:
        raise FileFormatError(f"expected a new name, got {path}, which exists: choose another one")
    with atomic_write(path, overwrite=True, make_folders=False) as file:
        file.write(text.encode())
    return path
