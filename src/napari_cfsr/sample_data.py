"""Sample images for napari's menu: each with a reduced version that lies exactly under it.

The images ship with scikit-image, all CC0 or without known restrictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.degradation import imresize

LayerData = tuple[NDArray[Any], dict[str, Any], str]


def reduced_pair(image: NDArray[np.uint8], scale: int, name: str) -> list[LayerData]:
    """An image as reference, and its bicubic reduction; both in the pixels of the image."""
    height, width = (n // scale * scale for n in image.shape[:2])
    image = image[:height, :width]
    small = imresize(image, 1 / scale)
    rgb = image.ndim == 3
    shift = (scale - 1) / 2
    return [
        (image, {"name": f"{name} HR", "rgb": rgb, "visible": False}, "image"),
        (
            small,
            {
                "name": f"{name} LR",
                "rgb": rgb,
                "scale": (scale, scale),
                "translate": (shift, shift),
            },
            "image",
        ),
    ]


def photo(scale: int = 4) -> list[LayerData]:
    """A cat (Stefan van der Walt, CC0), reduced four times."""
    from skimage import data

    return reduced_pair(data.chelsea(), scale, "cat")


def histology() -> list[LayerData]:
    """Stained colon tissue (no known restrictions), reduced twice."""
    from skimage import data

    return reduced_pair(data.immunohistochemistry(), 2, "tissue")


def cell() -> list[LayerData]:
    """A cell in phase microscopy (Paul Müller, CC0), reduced three times."""
    from skimage import data

    return reduced_pair(data.cell(), 3, "cell")
