"""Sample images for napari's menu, each with a reduced version exactly aligned with it.

The images ship with scikit-image, all CC0 or without known restrictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import degrade, imresize

LayerData = tuple[NDArray[Any], dict[str, Any], str]

SHARP_COLUMNS = 320  # of 512


def reduced_pair(image: NDArray[np.uint8], scale: int, name: str) -> list[LayerData]:
    """An image as reference, and its bicubic reduction, in the same world coordinates."""
    height, width = (n // scale * scale for n in image.shape[:2])
    image = image[:height, :width]
    small = imresize(image, 1 / scale)
    rgb = image.ndim == 3
    place = {"scale": (scale, scale), "translate": ((scale - 1) / 2,) * 2}
    return [
        (image, {"name": f"{name} HR", "rgb": rgb, "visible": False}, "image"),
        (small, {"name": f"{name} LR", "rgb": rgb, **place}, "image"),
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


def low_light() -> list[LayerData]:
    """Nuclei of the stained tissue as in a low-light camera image, to train a refiner on.

    The stain of the nuclei is one gray channel with 12 bits in 16. Left, a sharp image to train on;
    right, a camera image with pixels twice as large and 50 photons, and its ground truth.
    """
    from skimage import color, data

    stain = color.rgb2hed(data.immunohistochemistry())[..., 0]
    low, high = np.percentile(stain, (1, 99.9))
    tissue = np.clip((stain - low) / (high - low), 0, 1)
    truth = tissue[:, SHARP_COLUMNS:]
    camera = degrade(truth, 2, photons=50, read_noise=0.01, seed=1)
    look = {"colormap": "cyan", "contrast_limits": (0, 4095)}
    place = {"translate": (0, SHARP_COLUMNS)}
    over = {"scale": (2, 2), "translate": (0.5, SHARP_COLUMNS + 0.5)}
    return [
        (_twelve_bits(tissue[:, :SHARP_COLUMNS]), {"name": "nuclei sharp", **look}, "image"),
        (_twelve_bits(truth), {"name": "nuclei truth", "visible": False, **place, **look}, "image"),
        (_twelve_bits(camera), {"name": "nuclei camera", **over, **look}, "image"),
    ]


def _twelve_bits(image: NDArray[Any]) -> NDArray[np.uint16]:
    """From [0,1]."""
    return np.rint(np.clip(image, 0, 1) * 4095).astype(np.uint16)
