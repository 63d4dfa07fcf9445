"""Pixel sizes, origin and units along each axis of an array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from napari_cfsr.core.image.intensity import Region
from napari_cfsr.errors import OptionError

# common symbols, and the names used by OME-Zarr
UNITS = {
    "Å": "angstrom", "pm": "picometer", "nm": "nanometer", "µm": "micrometer", "mm": "millimeter",
    "cm": "centimeter", "m": "meter", "km": "kilometer", "in": "inch",
    "ns": "nanosecond", "µs": "microsecond", "ms": "millisecond", "s": "second", "min": "minute",
    "h": "hour", "d": "day",
}  # fmt: skip
_SPELLINGS = {"um": "micrometer", "μm": "micrometer", "micron": "micrometer", "us": "microsecond"}
NO_UNIT = ("", "pixel", "pixels", "px", "dimensionless", "reference frame")


@dataclass(frozen=True)
class PixelSpace:
    """Pixel sizes of an array, and the position of the first pixel."""

    axes: str  # a letter for each axis, without colour samples
    sizes: tuple[float, ...]  # of a pixel, in units
    origin: tuple[float, ...]  # centre of the first pixel, in units
    units: tuple[str | None, ...]  # such as `micrometer` or `second`; None for plain numbers

    def __post_init__(self) -> None:
        lengths = {len(self.axes), len(self.sizes), len(self.origin), len(self.units)}
        if len(lengths) > 1:
            raise OptionError(
                f"expected size, origin and unit for each axis of {self.axes!r}, got "
                f"{self.sizes}, {self.origin} and {self.units}"
            )

    def enlarged(self, scale: int, region: Region) -> PixelSpace:
        """The space of these rows and columns enlarged by `scale`, with landmarks in place.

        With pixel centres on whole numbers, pixel q of the result is pixel (q + 1/2) / s - 1/2 of
        the image.
        """
        starts = dict(zip("YX", (s.start for s in region), strict=True))
        sizes, origin = list(self.sizes), list(self.origin)
        for i, name in enumerate(self.axes):
            if name in starts:
                origin[i] += sizes[i] * (starts[name] - (scale - 1) / (2 * scale))
                sizes[i] /= scale
        return replace(self, sizes=tuple(sizes), origin=tuple(origin))

    def halved(self, times: int) -> PixelSpace:
        """The space after averaging 2x2 pixels `times` times."""
        sizes, origin = list(self.sizes), list(self.origin)
        for i, name in enumerate(self.axes):
            if name in "YX":
                origin[i] += sizes[i] * (2**times - 1) / 2
                sizes[i] *= 2**times
        return replace(self, sizes=tuple(sizes), origin=tuple(origin))

    def along(self, axes: str) -> PixelSpace:
        """The space for other axes, in their order; unknown axes have pixels of size 1."""
        known = dict(
            zip(self.axes, zip(self.sizes, self.origin, self.units, strict=True), strict=True)
        )
        rows = [known.get(name, (1.0, 0.0, None)) for name in axes]
        sizes, origin, units = (tuple(r[i] for r in rows) for i in range(3))
        return PixelSpace(axes, sizes, origin, units)  # type: ignore[arg-type]


def pixel_space(
    axes: str,
    sizes: Mapping[str, float] | None = None,
    origin: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> PixelSpace:
    """A pixel space from sizes, origin and units by axis letter; by default 1, 0 and none."""
    axes = axes.upper().replace("S", "")
    return PixelSpace(
        axes,
        tuple(float((sizes or {}).get(name, 1.0)) for name in axes),
        tuple(float((origin or {}).get(name, 0.0)) for name in axes),
        tuple(unit_name((units or {}).get(name, "")) for name in axes),
    )


def unit_name(text: str) -> str | None:
    """The OME-Zarr name of a unit; None for pixels, the text itself if unknown."""
    text = text.strip()
    if text.lower() in NO_UNIT:
        return None
    return UNITS.get(text) or _SPELLINGS.get(text) or text


def unit_symbol(name: str) -> str:
    """The OME-TIFF symbol of a unit, such as `µm`."""
    return next((symbol for symbol, known in UNITS.items() if known == name), name)
