"""Text of a figure: how wide it will be, cut to fit and broken into lines.

Widths come from the outlines of the font, so they are the same for PNG, PDF and SVG. Lengths are in
points (1/72 inch).
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.font_manager import FontProperties, findfont
from matplotlib.textpath import text_to_path

from napari_cfsr.errors import OptionError

LEAST_SHRUNK = 0.7  # of the size of a font
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
SHIPPED = "DejaVu Sans"  # comes with matplotlib, so it is everywhere


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
        """For what is read last: 6 points where captions have 7."""
        return Font(self.family, self.size * 6 / 7)

    def width(self, text: str, bold: bool = False) -> float:
        """Width of one line."""
        width, _, _ = text_to_path.get_text_width_height_descent(
            text, self.properties(bold), ismath=False
        )
        return float(width)

    def fitted(self, text: str, width: float, bold: bool = False) -> str:
        """The text, its middle left out where it is too wide."""
        if self.width(text, bold) <= width:
            return text
        for keep in range(len(text) - 1, 1, -1):
            short = f"{text[: -(-keep // 2)]}…{text[len(text) - keep // 2 :]}"
            if self.width(short, bold) <= width:
                return short
        return text[:1]

    def shrunk(self, text: str, width: float) -> Font:
        """The font, smaller where the text is too wide for it, within limits."""
        share = width / max(self.width(text), 1e-9)
        return Font(self.family, self.size * min(1.0, max(share, LEAST_SHRUNK)))

    def lines(self, text: str, width: float) -> list[str]:
        """The text in lines no wider than `width`, broken between words."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return [self.fitted(line, width) for line in lines if line]


def check_family(family: str) -> None:
    """Raise `OptionError` unless the font is on this machine."""
    try:
        findfont(FontProperties(family=family), fallback_to_default=False)
    except ValueError as error:
        raise OptionError(
            f"expected a font of this machine, got {family!r}: {SHIPPED!r} is always there"
        ) from error


LINE = 1.25  # times the font size


BASELINE = 0.95  # of the font size below the top of a line
