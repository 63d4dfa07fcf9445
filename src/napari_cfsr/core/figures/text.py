"""What is written on a figure: captions with scores, the small print, and how wide text is.

Widths come from the outlines of the font, so they are the same for PNG, PDF and SVG. Lengths are in
points (1/72 inch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from matplotlib.font_manager import FontProperties, findfont
from matplotlib.textpath import text_to_path

from napari_cfsr.core.figures.comparison import Score
from napari_cfsr.core.figures.content import Content, Mark
from napari_cfsr.errors import OptionError

LEAST_SHRUNK = 0.7  # of the size of a font
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
SHIPPED = "DejaVu Sans"  # comes with matplotlib, so it is everywhere
LINE = 1.25  # times the font size
BASELINE = 0.95  # of the font size below the top of a line
NAMES = {"LR": ("LR (nearest)", "LR"), "difference": (f"delta {MINUS} baseline", "difference")}
PAD = 2.2  # between an image and its caption, frame included
BAR = 3.5  # height of the colour bar
SLASH = " / "
SQUEEZED = 0.85  # of its width that a unit may take


@dataclass(frozen=True)
class Font:
    """A family and its size in points."""

    family: str = SHIPPED
    size: float = 7.0

    def properties(self, bold: bool = False) -> FontProperties:
        return FontProperties(
            family=self.family, size=self.size, weight="bold" if bold else "normal"
        )

    def smaller(self) -> Font:
        """For the small print: 6 points where captions have 7."""
        return Font(self.family, self.size * 6 / 7)

    def width(self, text: str, bold: bool = False) -> float:
        """Width of one line."""
        return _width(self, text, bold)

    def fitted(self, text: str, width: float) -> str:
        """The text, its middle left out where it is too wide."""
        if self.width(text) <= width:
            return text
        for keep in range(len(text) - 1, 1, -1):
            short = f"{text[: -(-keep // 2)]}…{text[len(text) - keep // 2 :]}"
            if self.width(short) <= width:
                return short
        return text[:1]

    def shrunk(self, text: str, width: float) -> Font:
        """The font, smaller where the text is too wide for it, within limits."""
        share = width / max(self.width(text), 1e-9)
        return Font(self.family, self.size * min(1.0, max(share, LEAST_SHRUNK)))

    def lines(self, text: str, width: float) -> list[str]:
        """The text in lines no wider than `width`, broken between words.

        Matplotlib wraps text only while drawing, when the height of the figure is settled.
        """
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return [self.fitted(line, width) for line in lines if line]


@lru_cache(4096)  # the same words are measured for every figure
def _width(font: Font, text: str, bold: bool) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(
        text, font.properties(bold), ismath=False
    )
    return float(width)


def check_family(family: str) -> None:
    """Raise `OptionError` unless the font is installed."""
    try:
        findfont(FontProperties(family=family), fallback_to_default=False)
    except ValueError as error:
        raise OptionError(
            f"expected an installed font, got {family!r}: {SHIPPED!r} always is"
        ) from error


class Number(NamedTuple):
    """A score below a panel."""

    text: str
    mark: Mark = ""


class Caption(NamedTuple):
    """What is written below a panel."""

    name: str
    short: str  # for narrow panels
    numbers: tuple[Number, ...] = ()  # PSNR and SSIM
    bar: tuple[str, str, str] | None = None  # least value, unit, greatest value of the colour bar
    stacked: bool = False  # SSIM on a line below PSNR, or the unit on a line below the limits

    def height(self, font: Font) -> float:
        line, small = LINE * font.size, LINE * font.smaller().size
        if self.bar:
            return PAD + line + BAR + (2 if self.stacked else 1) * small + 1
        below = len(self.numbers) if self.stacked else min(len(self.numbers), 1)
        return PAD + (1 + below) * line

    def fits(self, font: Font, room: float) -> bool:
        """Whether its second line has room."""
        if self.bar:
            small, (low, unit, high) = font.smaller(), self.bar
            ends = 2 * max(small.width(f"{end} ") for end in (low, high))
            return ends + SQUEEZED * small.width(unit) <= room
        texts = [font.width(number.text, number.mark == "best") for number in self.numbers]
        return 2 * max(texts, default=0) + font.width(SLASH) <= room


def stacked(captions: list[Caption], font: Font, room: float) -> list[Caption]:
    """Captions with two lines instead of one that is too wide; all scores alike."""
    short = {bool(c.bar) for c in captions if c.stacked or not c.fits(font, room)}
    return [c._replace(stacked=bool(c.bar) in short) for c in captions]


def captions(content: Content) -> list[Caption]:
    """Captions of the panels, best and second best marked."""
    scores = content.scores
    psnrs = {name: psnr_text(score) for name, score in scores.items()}
    ssims = {name: ssim_text(score) for name, score in scores.items()}
    of_psnr, of_ssim = marks(psnrs), marks(ssims)
    result = []
    for name in content.images:
        given = content.options.labels.get(name)
        label, short = (given, given) if given else NAMES.get(name, (name, name))
        numbers: tuple[Number, ...] = ()
        if name in scores:
            numbers = (Number(psnrs[name], of_psnr[name]), Number(ssims[name], of_ssim[name]))
        elif name == "HR" and scores:
            numbers = (Number("PSNR"), Number("SSIM"))
        bar = _bar(content) if name == "difference" else None
        result.append(Caption(label, short, numbers, bar))
    return result


def _bar(content: Content) -> tuple[str, str, str] | None:
    if content.diverging is None:
        return None
    limit = f"{content.diverging.limit:g}"
    integer = content.comparison.lr.dtype.kind in "iu"
    return f"{MINUS}{limit}", "grey levels" if integer else "units of the data", f"+{limit}"


def psnr_text(score: Score) -> str:
    if math.isinf(score.psnr):
        return "∞"
    return "n/a" if math.isnan(score.psnr) else f"{score.psnr:.2f}"


def ssim_text(score: Score) -> str:
    return "n/a" if score.ssim is None or math.isnan(score.ssim) else f"{score.ssim:.4f}"


def marks(texts: Mapping[str, str]) -> dict[str, Mark]:
    """Which is best and which second best, unless they are equal as shown."""
    values = {name: _number(text) for name, text in texts.items()}
    order = sorted((v for v in values.values() if not math.isnan(v)), reverse=True)
    alone = [v for v in order[:2] if order.count(v) == 1]
    best = order[0] if len(order) > 1 and order[0] in alone else None
    second = order[1] if best is not None and len(order) > 2 and order[1] in alone else None
    return {
        name: "best" if value == best else "second" if value == second else ""
        for name, value in values.items()
    }


def _number(text: str) -> float:
    return {"∞": math.inf, "n/a": math.nan}.get(text) or float(text)


def whole_caption(content: Content) -> list[str]:
    """Lines below the whole image: its name, if it has one, what it is and how large."""
    comparison = content.comparison
    height, width = content.whole.shape[:2]
    kind = "LR" if comparison.hr is None else "HR"
    size = f"{kind}, {width} {TIMES} {height} pixels"
    return [comparison.name, size] if comparison.name else [size]


def small_print(content: Content) -> str:
    """How the figure was made and measured, in sentences."""
    parts = [
        f"Upscaled {TIMES}{content.comparison.scale}",
        *content.comparison.notes,
        _convention(content),
        _contrast(content),
        _difference(content),
        _crops(content),
        *content.notes,
    ]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def _convention(content: Content) -> str:
    """How PSNR and SSIM were measured."""
    comparison = content.comparison
    if not content.scores:
        return "" if comparison.hr is None else "No PSNR: the reference has no range of values"
    channel = "Y (BT.601)" if comparison.in_colour else "gray values"
    border = (
        f"{comparison.shave} border pixels left out" if comparison.shave else "no border left out"
    )
    text = (
        f"PSNR (dB) / SSIM of the whole image: {channel}, {border}, data range "
        f"{comparison.data_range:g}, results in {comparison.lr.dtype}"
    )
    if len(content.scores) > 1:
        text += "; best in bold, second underlined, unless equal as shown"
    if any(score.ssim is None for score in content.scores.values()):
        text += f"; SSIM n/a: smaller than its window of 11{TIMES}11 pixels"
    return text


def _contrast(content: Content) -> str:
    """Which values are black and white, unless that is the whole 8-bit range."""
    contrast, dtype = content.contrast, content.comparison.lr.dtype
    if dtype == "uint8" and (contrast.low, contrast.high) == (0, 255):
        return ""
    return f"black to white: {contrast.low:.5g} to {contrast.high:.5g} in all images, gamma 1"


def _difference(content: Content) -> str:
    if content.diverging is None:
        return ""
    kind = "of the luma " if content.comparison.in_colour else ""
    return f"difference {kind}before rounding"


def _crops(content: Content) -> str:
    sides = sorted({crop.side for crop in content.crops})
    which = "crop" if len(content.crops) == 1 else "crops"
    return f"{which} of {', '.join(f'{s}{TIMES}{s}' for s in sides)} pixels"
