"""A figure drawn: whole image, crops, captions, the bar of the difference, the small print."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from napari_cfsr.core.figures.arrangements import FRAME
from napari_cfsr.core.figures.canvas import Canvas, settings
from napari_cfsr.core.figures.content import Content
from napari_cfsr.core.figures.layout import Box
from napari_cfsr.core.figures.scale_bar import round_length
from napari_cfsr.core.figures.sheet import BAR, PAD, SLASH, Caption, Number, Sheet, sheet_of
from napari_cfsr.core.figures.text import BASELINE, LEAST_SHRUNK, LINE, Font
from napari_cfsr.errors import OptionError

# of the crops; bright, different to colour-blind eyes, and rare in photographs
COLOURS = ("#ffd400", "#00c8ff", "#ff4fb0", "#6fe000", "#ff7a00", "#b388ff")
LARGEST = 2**27  # pixels of a PNG
GRAY = "#404040"


def drawn(content: Content, raster: bool) -> Figure:
    """The figure of a content."""
    with settings():
        drawing = _Drawing(content, sheet_of(content), raster)
        for part in (drawing.wholes, drawing.crops, drawing.captions, drawing.note):
            part()
        return drawing.canvas.figure


class _Drawing:
    """One figure in the making."""

    def __init__(self, content: Content, sheet: Sheet, raster: bool) -> None:
        self.content, self.sheet = content, sheet
        self.layout, self.font = sheet.layout, sheet.font
        width, height = self.layout.width, self.layout.height
        if raster and width * height > LARGEST:
            raise OptionError(
                f"expected a figure of at most {LARGEST} pixels, got {width} x {height}: choose "
                "fewer pixels per inch, a smaller width, or PDF"
            )
        self.canvas = Canvas(width, height, self.layout.dpi, self.font, raster)

    def wholes(self) -> None:
        """The whole image, or that of each panel, with the crops marked."""
        content, layout = self.content, self.layout
        names = list(content.images) if layout.whole_caption is None else [None]
        height, width = content.comparison.shape[:2]
        for box, name in zip(layout.wholes, names, strict=True):
            self.canvas.whole(box, content.pixels(name))
            across, down = box.width / width, box.height / height
            for crop, colour in zip(content.crops, self._colours(), strict=False):
                left, top = round(crop.left * across), round(crop.top * down)
                right = round((crop.left + crop.side) * across)
                bottom = round((crop.top + crop.side) * down)
                mark = Box(box.left + left, box.top + top, right - left, bottom - top)
                self.canvas.mark(mark, colour, box)

        self._scale_bar(layout.wholes[0], width)

    def _scale_bar(self, box: Box, pixels: int) -> None:
        """A bar at the bottom right of an image that is `pixels` wide, if their size is known."""
        size = self.content.comparison.pixel_size
        if size is None:
            return
        length, label = round_length(pixels * size)
        bar = box.width * length / (pixels * size)
        self.canvas.scale_bar(box, bar, label)

    def _colours(self) -> Iterator[str]:
        while True:
            yield from COLOURS

    def crops(self) -> None:
        """The crops of each panel, framed in the colour of their mark."""
        for crop, colour, boxes in zip(
            self.content.crops, self._colours(), self.layout.crops, strict=False
        ):
            for box, name in zip(boxes, self.content.images, strict=True):
                self.canvas.magnified(box, self.content.pixels(name, crop))
                self.canvas.frame(box, colour, FRAME * 72)
            self._scale_bar(boxes[0], crop.side)

    def captions(self) -> None:
        for box, text in zip(self.layout.captions, self.sheet.captions, strict=True):
            self._name(box, text)
            if text.bar:
                self._bar(box, text.bar)
            elif text.numbers and self.sheet.stacking.numbers:
                for line, number in enumerate(text.numbers):
                    self._number(box.left + box.width / 2, self._baseline(box, line + 1), number)
            elif text.numbers:
                self._pair(box, text.numbers)
        if self.layout.whole_caption is not None:
            self._whole_caption(self.layout.whole_caption)

    def _baseline(self, box: Box, line: int) -> float:
        size = self.font.size
        return box.top + self.canvas.points(PAD + line * LINE * size + BASELINE * size)

    def _points(self, pixels: float) -> float:
        return pixels * 72 / self.layout.dpi

    def _name(self, box: Box, text: Caption) -> None:
        fits = self.font.width(text.name) * LEAST_SHRUNK <= self._points(box.width)
        name = text.name if fits else text.short
        self._squeezed(box.left + box.width / 2, self._baseline(box, 0), name, self.font, box.width)

    def _squeezed(self, x: float, baseline: float, text: str, font: Font, pixels: float) -> None:
        """Text around x that takes at most so many pixels."""
        room = self._points(pixels)
        font = font.shrunk(text, room)
        # a trifle more: widths are not quite in proportion to the size of a font
        self.canvas.text(x, baseline, font.fitted(text, room * 1.02), font=font)

    def _pair(self, box: Box, numbers: tuple[Number, ...]) -> None:
        """PSNR / SSIM, the slash in the middle, so that they line up and other fonts do no harm."""
        middle, baseline = box.left + box.width / 2, self._baseline(box, 1)
        away = self.canvas.points(self.font.width(SLASH)) / 2
        self.canvas.text(middle, baseline, "/")
        self._number(middle - away, baseline, numbers[0], -1)
        self._number(middle + away, baseline, numbers[1], 1)

    def _number(self, x: float, baseline: float, number: Number, side: int = 0) -> None:
        """A number left of x (side -1), right of it (1), or around it (0)."""
        align = {-1: "right", 0: "center", 1: "left"}[side]
        self.canvas.text(x, baseline, number.text, align, number.bold)  # type: ignore[arg-type]
        if number.mark == "second":
            width = self.canvas.points(self.font.width(number.text))
            left = x - width * {-1: 1.0, 0: 0.5, 1: 0.0}[side]
            self.canvas.underline(left, left + width, baseline)

    def _bar(self, box: Box, texts: tuple[str, str, str]) -> None:
        """The colours of the difference, their limits and the unit."""
        diverging = self.content.diverging
        if diverging is None:
            return
        low, unit, high = texts
        points, small = self.canvas.points, self.font.smaller()
        top = box.top + points(PAD + LINE * self.font.size + 1)
        bar = Box(box.left, round(top), box.width, max(1, round(points(BAR))))
        self.canvas.ramp(bar, diverging.bar())
        baseline = bar.bottom + points(0.5 + BASELINE * small.size)
        self.canvas.text(box.left, baseline, low, "left", font=small)
        self.canvas.text(box.right, baseline, high, "right", font=small)
        room = box.width - 2 * points(small.width(f"{high} "))
        if self.sheet.stacking.unit:
            room, baseline = box.width, baseline + points(LINE * small.size)
        self._squeezed(box.left + box.width / 2, baseline, unit, small, room)

    def _whole_caption(self, box: Box) -> None:
        """Name of the image, what it is and how large."""
        for line, text in enumerate(self.sheet.whole):
            middle, baseline = box.left + box.width / 2, self._baseline(box, line)
            self._squeezed(middle, baseline, text, self.font, box.width)

    def note(self) -> None:
        """The small print, at the left."""
        small = self.font.smaller()
        for line, text in enumerate(self.sheet.lines):
            top = self.canvas.points(line * LINE * small.size + BASELINE * small.size)
            box = self.layout.note
            self.canvas.text(box.left, box.top + top, text, "left", colour=GRAY, font=small)
