"""What a figure shows, measured but not drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.figures.comparison import LEFT_OUT, Comparison, Score
from napari_cfsr.core.figures.contrast import Contrast, Diverging
from napari_cfsr.core.figures.crops import Crop, busiest, default_side
from napari_cfsr.core.figures.options import PANELS, FigureOptions
from napari_cfsr.errors import OptionError


@dataclass(frozen=True, eq=False)
class Content:
    """What a figure shows.

    Attributes
    ----------
    comparison : Comparison
    options : FigureOptions
    images : dict of str to array
        Each panel in units of the data: [Y,X] or [Y,X,3], the difference [Y,X].
    scores : dict of str to Score
        Of the panels that are compared with the reference.
    crops : tuple of Crop
    contrast : Contrast
    diverging : Diverging or None
        None without a difference.
    notes : tuple of str
        What was left out.
    """

    comparison: Comparison
    options: FigureOptions
    images: dict[str, NDArray[Any]]
    scores: dict[str, Score]
    crops: tuple[Crop, ...]
    contrast: Contrast
    diverging: Diverging | None
    notes: tuple[str, ...]

    @property
    def whole(self) -> NDArray[Any]:
        """The image that the crops are marked in: the reference, or the input without one."""
        hr, lr = self.comparison.hr, self.comparison.lr
        return lr if hr is None else hr

    def pixels(self, name: str | None, crop: Crop | None = None) -> NDArray[np.uint8]:
        """A panel, or the whole image without a name, as 8-bit RGB; all of it or a crop."""
        image = self.whole if name is None else self.images[name]
        part = image if crop is None else crop.of(image)
        if name == "difference" and self.diverging is not None:
            return self.diverging.pixels(part)
        return self.contrast.pixels(part)


def content_of(comparison: Comparison, options: FigureOptions | None = None) -> Content:
    """What a figure of a comparison shows, measured but not drawn.

    Raises
    ------
    OptionError
        A panel that is asked for is not there, or a crop lies outside.
    """
    options = options or FigureOptions()
    images = comparison.images()
    if options.panels is not None and (missing := set(options.panels) - set(images)):
        missing_names = ", ".join(sorted(missing, key=PANELS.index))
        raise OptionError(
            f"expected panels among {', '.join(images)}; there is no {missing_names} of "
            f"{comparison.name or 'this image'}"
        )
    images = {name: images[name] for name in options.panels or images}
    height, width = comparison.shape[:2]
    for crop in options.crops:
        crop.check(height, width)
    crops = options.crops or (_default_crop(comparison),)
    difference = images.get("difference")
    notes = (LEFT_OUT,) if comparison.difference is None and options.panels is None else ()
    return Content(
        comparison=comparison,
        options=options,
        images=images,
        scores=comparison.scores(images),
        crops=crops,
        contrast=Contrast.of(comparison, options.contrast),
        diverging=None if difference is None else Diverging.of(difference, crops),
        notes=notes,
    )


def _default_crop(comparison: Comparison) -> Crop:
    """Where the reference has the most detail, or the result without one."""
    images = (comparison.hr, comparison.delta, comparison.baseline)
    image = next((i for i in images if i is not None), None)
    if image is None:
        image = comparison.images()["bicubic"]
    height, width = comparison.shape[:2]
    side = default_side(height, width, comparison.scale)
    return busiest(image, side, comparison.scale)
