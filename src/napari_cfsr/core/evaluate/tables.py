"""Tables of an evaluation, for a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from napari_cfsr.core.evaluate.report import REFERENCE, BenchmarkReport, ImageScores, Scores

Select = Callable[[Scores], tuple[float, float]]
Cell = tuple[str, str]  # PSNR and SSIM

INFINITE = "infinite"
MODES = ("ensemble", "back_projection")  # options to show with the name of the model
DIGITS = (4, 5)  # of PSNR and SSIM


def as_it_is(scores: Scores) -> tuple[float, float]:
    """PSNR and SSIM of the result, not rounded."""
    return scores.psnr, scores.ssim


def in_8_bits(scores: Scores) -> tuple[float, float]:
    """PSNR and SSIM of the result rounded to 8 bits."""
    return scores.psnr_uint8, scores.ssim_uint8


def number(value: float, digits: int, signed: bool = False) -> str:
    """A number in fixed-point notation; infinity as a word."""
    if math.isinf(value):
        return INFINITE if value > 0 else f"-{INFINITE}"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def model_line(report: BenchmarkReport) -> str:
    """The model, and how it was measured."""
    parts = [f"x{report.scale}"]
    if report.info is not None:
        info = report.info
        refiner = f"refiner {info.refiner}" if info.refiner else "no refiner"
        parts = [f"{info.backbone} x{info.scale}", refiner]
        parts += [f"{info.engine} on {info.device}, {info.precision}"]
    parts += [name.replace("_", "-") for name in MODES if report.options.get(name)]
    channel = {"Y": "Y (BT.601)"}.get(report.channel, report.channel)
    return "; ".join([*parts, f"{channel}, ignored border {report.shave}"])


# for a terminal


def table(report: BenchmarkReport) -> str:
    """Scores of each image, a block for each data set, with means below."""
    blocks = ["\n".join(_block(report, name)) for name in report.datasets]
    return "\n\n".join([*blocks, model_line(report)])


def _block(report: BenchmarkReport, dataset: str) -> Iterator[str]:
    images = report.of(dataset)
    names = [image.name for image in images]
    lead = max(map(len, [*names, "mean in 8 bits", dataset]))
    titles = _titles(report)
    widths = [max(18, len(title)) for title in titles]
    columns = zip(titles, widths, strict=True)
    yield "  ".join([f"{dataset:{lead}}", *(f"{title:>{width}}" for title, width in columns)])
    yield "  ".join([" " * lead, *(f"{'PSNR':>{width - 9}} {'SSIM':>8}" for width in widths)])
    for image in images:
        yield _row(image.name, lead, _cells(report, image, as_it_is), widths)
    for name, select in (("mean", as_it_is), ("mean in 8 bits", in_8_bits)):
        yield _row(name, lead, _cells(report, dataset, select), widths)
    yield from report.notes(dataset)


def _row(name: str, lead: int, cells: list[Cell], widths: list[int]) -> str:
    parts = (f"{a:>{w - 9}} {b:>8}" for (a, b), w in zip(cells, widths, strict=True))
    return "  ".join([f"{name:{lead}}", *parts])


def _with_gain(report: BenchmarkReport) -> tuple[str, ...]:
    """Models whose gain is shown; the gain of bicubic is only in the record."""
    return tuple(model for model in report.gaining if model != "bicubic")


def _pair(scores: tuple[float, float], signed: bool = False) -> Cell:
    a, b = (number(v, d, signed) for v, d in zip(scores, DIGITS, strict=True))
    return a, b


def _titles(report: BenchmarkReport) -> list[str]:
    """Columns: the models, then the gains."""
    return [*report.models, *(f"{model} - {REFERENCE}" for model in _with_gain(report))]


def _cells(report: BenchmarkReport, shown: ImageScores | str, select: Select) -> list[Cell]:
    """PSNR and SSIM of each column: of an image, or the means of the data set of that name."""
    scores: Callable[[str], Scores]
    gain: Callable[[str], Scores]
    if isinstance(shown, ImageScores):
        scores, gain = shown.scores.__getitem__, shown.gain
    else:
        scores, gain = partial(report.mean, shown), partial(report.gain, shown)
    cells = [_pair(select(scores(model))) for model in report.models]
    return [*cells, *(_pair(select(gain(model)), True) for model in _with_gain(report))]


# Markdown


def markdown(report: BenchmarkReport) -> str:
    """Means of all data sets, then the images of each."""
    lines = [f"# PSNR and SSIM, x{report.scale}", "", model_line(report), ""]
    lines += [*_facts(report), *_summary(report)]
    for name in report.datasets:
        lines += ["", f"## {name}", "", *_images(report, name)]
        for note in report.notes(name):
            lines += ["", _escaped(note)]
    if report.faults:
        lines += ["", "## Not measured", "", *(f"- {_escaped(f.text)}" for f in report.faults)]
    return "\n".join([*lines, ""])


def _facts(report: BenchmarkReport) -> Iterator[str]:
    """Date, versions, weights."""
    yield f"- {report.date}, " + ", ".join(f"{k} {v}" for k, v in report.versions.items())
    if report.info is not None:
        yield f"- backbone SHA-256 `{report.info.backbone_sha256}`"
        if report.info.refiner_sha256:
            yield f"- refiner SHA-256 `{report.info.refiner_sha256}`"
    yield ""


def _summary(report: BenchmarkReport) -> Iterator[str]:
    heads = ["data", "images", "model", "PSNR", "SSIM", "gain, dB", "gain, SSIM"]
    heads += ["PSNR in 8 bits", "SSIM in 8 bits", "gain in 8 bits, dB"]
    yield _line(heads)
    yield _rule(heads)
    for name in report.datasets:
        for model in report.models:
            has_gain = model in _with_gain(report)
            gain = report.gain(name, model) if has_gain else None
            cells = [_escaped(name), str(len(report.of(name))), model]
            cells += _pair(as_it_is(report.mean(name, model)))
            cells += _pair(as_it_is(gain), True) if gain else ("", "")
            cells += _pair(in_8_bits(report.mean(name, model)))
            yield _line([*cells, _pair(in_8_bits(gain), True)[0] if gain else ""])


def _images(report: BenchmarkReport, dataset: str) -> Iterator[str]:
    titles = _titles(report)
    heads = ["image", *titles, *(f"{title} in 8 bits" for title in titles)]
    yield _line(heads)
    yield _rule(heads)
    for image in report.of(dataset):
        cells = [*_cells(report, image, as_it_is), *_cells(report, image, in_8_bits)]
        yield _line([_escaped(image.name), *(f"{a} / {b}" for a, b in cells)])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(heads: list[str]) -> str:
    return f"|{'---|' * len(heads)}"


def _escaped(text: str) -> str:
    """Escape characters of file names that have a meaning in Markdown."""
    for sign in "\\|*_`<":
        text = text.replace(sign, f"\\{sign}")
    return text
