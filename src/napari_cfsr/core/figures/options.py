"""What a figure shows and how it looks: panels, crops, arrangement, contrast, size, text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from napari_cfsr.core.image import MODES, Limits, Mode
from napari_cfsr.errors import OptionError

ArrangementName = Literal["auto", "left", "above", "columns"]
ARRANGEMENTS: tuple[ArrangementName, ...] = get_args(ArrangementName)
PANELS = ("LR", "bicubic", "baseline", "delta", "HR", "difference")
RANGES = {"width": (1.0, 40.0), "dpi": (30, 2400), "font_size": (3.0, 40.0)}


@dataclass(frozen=True)
class Crop:
    """A square, in HR pixels.

    Attributes
    ----------
    top, left : int
        Its first row and column.
    side : int
    """

    top: int
    left: int
    side: int

    def check(self, height: int, width: int) -> None:
        """Raise `OptionError` if it is empty or not within an image of this size."""
        inside = self.top + self.side <= height and self.left + self.side <= width
        if self.side < 1 or self.top < 0 or self.left < 0 or not inside:
            raise OptionError(
                f"expected a crop within {height}x{width} HR pixels, got {self}: its first row, "
                "first column and side"
            )

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """That part of an image [Y,X] or [Y,X,C]; a view."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def __str__(self) -> str:
        return f"{self.top},{self.left},{self.side}"


@dataclass(frozen=True)
class FigureOptions:
    """What a figure shows and how it looks.

    Attributes
    ----------
    panels : tuple of str, optional
        Which of `PANELS`, in this order; by default all available ones.
    crops : tuple of Crop
        Squares to magnify, HR pixels; by default the square with the most detail.
    arrangement : {"auto", "left", "above", "columns"}
        Where the whole image goes: left of the crops, above them, or each panel's own above its
        column of crops. `auto` decides between the first two.
    contrast : {"auto", "dtype", "data", "percentile"} or (low, high)
        Which values are black and white, the same in all panels; see
        `napari_cfsr.core.image.resolve_mapping`. `auto`: the range of the dtype for
        colour and 8 bits, else the percentiles.
    width : float
        Inches; 7.16 is the width of a page of two columns.
    dpi : int
        Pixels per inch, at least: PNG gets a few more where that makes each pixel of a crop a whole
        number of pixels wide.
    font : str
        An installed font.
    font_size : float
        Points; the small print is a seventh smaller.
    labels : mapping
        Other names for panels.
    small_print : bool
        Whether lines at the bottom say how the scores were measured.

    Raises
    ------
    OptionError
        An option does not exist or is out of range.
    """

    panels: tuple[str, ...] | None = None
    crops: tuple[Crop, ...] = ()
    arrangement: ArrangementName = "auto"
    contrast: Mode | Limits = "auto"
    width: float = 7.16
    dpi: int = 300
    font: str = "DejaVu Sans"
    font_size: float = 7.0
    labels: Mapping[str, str] = field(default_factory=dict)
    small_print: bool = True

    def __post_init__(self) -> None:
        for name in (*(self.panels or ()), *self.labels):
            if name not in PANELS:
                raise OptionError(f"expected panels among {', '.join(PANELS)}; got {name!r}")
        if self.panels is not None and (
            not self.panels or len(set(self.panels)) < len(self.panels)
        ):
            raise OptionError(f"expected panels, each once, got {','.join(self.panels)!r}")
        if self.arrangement not in ARRANGEMENTS:
            kinds = ", ".join(ARRANGEMENTS)
            raise OptionError(f"expected an arrangement of {kinds}; got {self.arrangement!r}")
        if isinstance(self.contrast, str) and self.contrast not in MODES:
            raise OptionError(
                f"expected contrast one of {', '.join(MODES)} or (low, high), got {self.contrast!r}"
            )
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise OptionError(
                    f"expected {name.replace('_', ' ')} from {low:g} to {high:g}, got "
                    f"{getattr(self, name):g}"
                )
