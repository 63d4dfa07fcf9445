"""What is written on a figure, and where everything stands."""

from __future__ import annotations

from dataclasses import dataclass

from napari_cfsr.core.figures.arrangements import Sizes
from napari_cfsr.core.figures.content import Content
from napari_cfsr.core.figures.contrast import Mark, marks, psnr_text, ssim_text
from napari_cfsr.core.figures.layout import Layout, arrange
from napari_cfsr.core.figures.notes import small_print, unit
from napari_cfsr.core.figures.text import LINE, MINUS, TIMES, Font, check_family

NAMES = {"LR": ("LR (nearest)", "LR"), "difference": (f"delta {MINUS} baseline", "difference")}
PAD = 2.2  # points between an image and its caption, frame included
BAR = 3.5  # points; height of the bar of colours
SLASH = " / "
SQUEEZED = 0.85  # of its width that a unit may take
NARROWEST_CAPTION = 36.0  # points; below, there is no room for words


@dataclass(frozen=True)
class Number:
    """A figure below a panel."""

    text: str
    mark: Mark = ""

    @property
    def bold(self) -> bool:
        return self.mark == "best"


@dataclass(frozen=True)
class Stacking:
    """What stands on a line of its own where there is too little room.

    Attributes
    ----------
    numbers : bool
        SSIM, below PSNR.
    unit : bool
        The unit of the bar of colours, below its limits.
    """

    numbers: bool = False
    unit: bool = False

    def __or__(self, other: Stacking) -> Stacking:
        return Stacking(self.numbers or other.numbers, self.unit or other.unit)


@dataclass(frozen=True)
class Caption:
    """What stands below a panel.

    Attributes
    ----------
    name, short : str
        Its name, and one for little room.
    numbers : tuple of Number
        PSNR and SSIM, if there are any.
    bar : (str, str, str) or None
        Least value, unit and greatest value of the bar of colours.
    """

    name: str
    short: str
    numbers: tuple[Number, ...] = ()
    bar: tuple[str, str, str] | None = None

    def height(self, font: Font, stacking: Stacking) -> float:
        """Points."""
        line, small = LINE * font.size, LINE * font.smaller().size
        if self.bar:
            return PAD + line + BAR + (2 if stacking.unit else 1) * small + 1
        below = (len(self.numbers) if stacking.numbers else 1) if self.numbers else 0
        return PAD + (1 + below) * line

    def needs(self, font: Font, room: float) -> Stacking:
        """What does not fit into so many points."""
        texts = [font.width(n.text, n.bold) for n in self.numbers]
        pair = 2 * max(texts, default=0) + font.width(SLASH)
        low, unit, high = self.bar or ("", "", "")
        ends = 2 * max(font.smaller().width(f"{end} ") for end in (low, high))
        return Stacking(pair > room, ends + SQUEEZED * font.smaller().width(unit) > room)


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
        result.append(
            Caption(label, short, numbers, _bar(content) if name == "difference" else None)
        )
    return result


def _bar(content: Content) -> tuple[str, str, str] | None:
    if content.diverging is None:
        return None
    limit = f"{content.diverging.limit:g}"
    return f"{MINUS}{limit}", unit(content.comparison.lr.dtype), f"+{limit}"


def whole_caption(content: Content) -> list[str]:
    """Lines below the whole image: its name, if it has one, what it is and how large."""
    comparison = content.comparison
    height, width = content.whole.shape[:2]
    kind = "LR" if comparison.hr is None else "HR"
    size = f"{kind}, {width} {TIMES} {height} pixels"
    return [comparison.name, size] if comparison.name else [size]


@dataclass(frozen=True, eq=False)
class Sheet:
    """Everything but the images.

    Attributes
    ----------
    layout : Layout
    font : Font
    captions : tuple of Caption
        Of the panels.
    stacking : Stacking
    whole : tuple of str
        Lines below the whole image; none where it is too narrow for them.
    lines : tuple of str
        The small print.
    """

    layout: Layout
    font: Font
    captions: tuple[Caption, ...]
    stacking: Stacking
    whole: tuple[str, ...]
    lines: tuple[str, ...]


def sheet_of(content: Content) -> Sheet:
    """The sheet of a figure; raises `OptionError` if the font or the room is not there."""
    options = content.options
    check_family(options.font)
    note = small_print(content) if options.small_print else ""
    whole = whole_caption(content)
    sheet = _sheet(content, whole, note)
    box = sheet.layout.whole_caption
    if box is None or box.width / sheet.layout.dpi * 72 >= NARROWEST_CAPTION:
        return sheet
    return _sheet(content, [], f"{', '.join(whole)}. {note}" if note else "")


def _sheet(content: Content, whole: list[str], note: str) -> Sheet:
    """Text on lines of its own where one line has no room for it, which makes the crops smaller."""
    options = content.options
    font, texts = Font(options.font, options.font_size), captions(content)
    lines = font.smaller().lines(note, options.width * 72 - 5)
    stacking, known = Stacking(), None
    while stacking != known:
        known = stacking
        sizes = _sizes(content, font, texts, stacking, len(lines))
        layout = arrange(sizes, options.arrangement, options.width, options.dpi)
        room = layout.captions[0].width / layout.dpi * 72
        for text in texts:
            stacking |= text.needs(font, room)
    return Sheet(layout, font, tuple(texts), stacking, tuple(whole), tuple(lines))


def _sizes(
    content: Content, font: Font, texts: list[Caption], stacking: Stacking, lines: int
) -> Sizes:
    height, width = content.comparison.shape[:2]
    return Sizes(
        aspect=width / height,
        sides=tuple(crop.side for crop in content.crops),
        captions=tuple(text.height(font, stacking) / 72 for text in texts),
        whole_caption=(PAD + 2 * LINE * font.size) / 72,
        note=lines * LINE * font.smaller().size / 72,
    )
