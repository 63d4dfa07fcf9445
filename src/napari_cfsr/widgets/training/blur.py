"""The blur of the Train form: in LR pixels, or in the unit of the layer."""

from __future__ import annotations

from magicgui.widgets import ComboBox, FloatSpinBox

PIXELS = "LR px"
FWHM = 2.3548200450309493  # of a Gaussian of sigma 1


class Blur:
    """The widgets `value` and `unit`; what they mean stays when the unit is changed."""

    def __init__(self) -> None:
        self.value = FloatSpinBox(value=0, min=0, max=1e6, step=0.1)
        self.value.native.setDecimals(3)
        self.unit = ComboBox(choices=[PIXELS])
        self._size = 1.0  # of an LR pixel
        self._shown = PIXELS  # the unit that the value is in

    def offer(self, pixel: tuple[float, str] | None) -> None:
        """Offer units of length where an LR pixel has a size and a unit."""
        units = [PIXELS] if pixel is None else [PIXELS, pixel[1], f"{pixel[1]} FWHM"]
        if list(self.unit.choices) != units:
            self.unit.choices = units
        if self.unit.value != self._shown:
            sigma = self.sigma
            self._size, self._shown = pixel[0] if pixel else 1.0, self.unit.value
            self.sigma = sigma
        self._size = pixel[0] if pixel else 1.0

    @property
    def has_units(self) -> bool:
        """Whether there is a unit of length to choose."""
        return len(self.unit.choices) > 1

    @property
    def sigma(self) -> float:
        """In LR pixels."""
        return float(self.value.value / self._factor)

    @sigma.setter
    def sigma(self, sigma: float) -> None:
        self.value.value = sigma * self._factor

    @property
    def _factor(self) -> float:
        """What is shown for a sigma of one LR pixel."""
        if self._shown == PIXELS:
            return 1.0
        return self._size * (FWHM if self._shown.endswith(" FWHM") else 1.0)
