"""Opening an image of any format for a run that reads it piece by piece."""

from __future__ import annotations

import os
from pathlib import Path

from napari_cfsr.core.image import pixel_space
from napari_cfsr.core.io.image_files import TIFF_SUFFIXES, read_image
from napari_cfsr.core.io.images import LazyImage
from napari_cfsr.core.io.lazy_tiff import open_tiff
from napari_cfsr.errors import CFSRError, FileFormatError, reason


def open_image(path: str | os.PathLike[str]) -> LazyImage:
    """Open an OME-Zarr store (a folder), a TIFF, a PNG or a JPEG.

    Pixels of stores and TIFFs are read when they are indexed; PNG and JPEG are read completely.

    Raises
    ------
    FileFormatError
        No such file or store, an unsupported format, a damaged file, or an unfinished store.
    """
    path = Path(path)
    if path.is_dir():
        from napari_cfsr.core.io.ome_zarr import open_ome_zarr

        return open_ome_zarr(path)
    if path.suffix.lower() not in TIFF_SUFFIXES or not path.is_file():
        image = read_image(path)
        space = pixel_space(image.axes)
        return LazyImage(image.pixels, image.axes, path, space, (image.pixels,), None, image.notes)
    try:
        return open_tiff(path)
    except CFSRError:
        raise
    except Exception as error:  # tifffile raises all kinds of errors
        raise FileFormatError(f"{path}: can't be read ({reason(error)})") from error
