"""Benchmark data sets: finding their images, and reading LR and HR of the same size.

The EDSR layout: ``<set>/HR/<name>.png`` and ``<set>/LR_bicubic/X<s>/<name>x<s>.png``, with HR at
its original size. A folder of HR images is enough. Missing LR images are made like those files: by
MATLAB's bicubic, rounded to uint8 between the two passes and after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import Degradation, check_image, parse_axes, to_unit
from napari_cfsr.core.io import RESULT, SUFFIXES, read_image
from napari_cfsr.core.metrics import CHANNELS, Channel, mod_crop
from napari_cfsr.errors import FileFormatError, ImageError, OptionError

Float32 = NDArray[np.float32]

SUBFOLDERS = ("", "benchmark", "validation")  # of the data folder, in which sets are searched for


@dataclass(frozen=True, eq=False)
class Sample:
    """An LR image and the HR image of the same scene."""

    lr: Float32  # [h,w] or [h,w,3], in [0,1]
    hr: NDArray[Any]  # [h*scale,w*scale] or [h*scale,w*scale,3], in the dtype of the file
    cropped: str = ""  # how HR was cropped; empty if it was not
    notes: tuple[str, ...] = ()  # what was left out


@dataclass(frozen=True)
class BenchmarkImage:
    """One image of a data set."""

    dataset: str
    name: str
    hr: Path
    lr: Path | None  # None: made from HR

    def read(self, scale: int, channel: Channel = "Y") -> Sample:
        """Read both images and crop HR to the size of LR x scale.

        For channel `gray`, colour images with three equal channels become gray; for `Y` and `RGB`,
        gray images become colour, as in the tables of the literature.

        Raises
        ------
        FileFormatError
            A file is missing or damaged, or has an unknown format.
        ImageError
            A stack, a dtype or range that can't be compared, sizes that do not fit, or colours with
            channel `gray`.
        """
        if channel not in CHANNELS:
            raise OptionError(f'expected channel "Y", "RGB" or "gray", got {channel!r}')
        hr, notes = _read(self.hr, channel)
        if self.lr is None:
            try:
                lr = Degradation().clean(hr, scale)
            except ImageError as error:
                raise ImageError(f"{self.hr}: {error}") from error
        else:
            pixels, more = _read(self.lr, channel)
            lr, notes = to_unit(pixels), notes + more
        sr_shape = (lr.shape[0] * scale, lr.shape[1] * scale, *lr.shape[2:])
        try:
            hr, cropped = mod_crop(np.broadcast_to(np.float32(0), sr_shape), hr, scale)
        except ImageError as error:
            raise ImageError(f"{self.lr} enlarged by {scale} and {self.hr}: {error}") from error
        return Sample(lr, hr, cropped, notes)


@dataclass(frozen=True)
class Dataset:
    """The images of a data set."""

    name: str
    folder: Path
    images: tuple[BenchmarkImage, ...]  # sorted by name
    orphans: tuple[Path, ...] = ()  # LR files without an HR file


def find_dataset(root: Path, name: str, scale: int) -> Dataset:
    """The images of a data set.

    Parameters
    ----------
    root : Path
        Folder of data sets.
    name : str
        Name of the set: a folder in `root`, or in `benchmark` or `validation` below it. Empty:
        `root` is the data set itself.
    scale : int
        Scale factor, which selects the LR files.

    Returns
    -------
    Dataset

    Raises
    ------
    FileFormatError
        There is no such data set; the message lists the folders that were searched.
    """
    places = [root / sub / name for sub in SUBFOLDERS] if name else [root]
    try:
        for folder in places:
            hr = _images(folder / "HR") or _images(folder)
            if hr:
                return _paired(name or root.resolve().name, folder, hr, scale)
    except OSError as error:
        raise FileFormatError(f"{folder}: can't be read ({error.strerror})") from error
    looked = ", ".join(str(place) for place in places)
    raise FileFormatError(
        f"data set '{name or root}' not found: expected images, or HR/ with images "
        f"({', '.join(SUFFIXES)}), in one of {looked}"
    )


def _paired(name: str, folder: Path, hr: dict[str, Path], scale: int) -> Dataset:
    """HR files with their LR files."""
    ending = f"x{scale}"
    lr = _images(folder / "LR_bicubic" / f"X{scale}")
    images = tuple(BenchmarkImage(name, k, path, lr.get(k + ending)) for k, path in hr.items())
    orphans = [path for k, path in lr.items() if k.removesuffix(ending) not in hr]
    return Dataset(name, folder, images, tuple(orphans))


def _images(folder: Path) -> dict[str, Path]:
    """Images of a folder by name without suffix, except hidden files and results."""
    if not folder.is_dir():
        return {}
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    return {p.stem: p for p in paths if not (p.name.startswith(".") or RESULT.search(p.stem))}


def _read(path: Path, channel: Channel) -> tuple[NDArray[Any], tuple[str, ...]]:
    """[Y,X] or [Y,X,3] of uint8, uint16 or float in [0,1], depending on the channel, and notes."""
    image = read_image(path)
    try:
        axes = parse_axes(image.axes, image.pixels.shape, rgb=False)
        if axes.plane_count != 1:
            raise ImageError(f"expected a single image, got axes {axes.names} {axes.shape}")
        (plane,) = axes.planes()
        whole = axes.read(image.pixels, plane, slice(None), slice(None))
        pixels = _in_channels(whole[: axes.samples - axes.has_alpha], channel)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        check_image(pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    notes = (*image.notes, *(["alpha is left out"] if axes.has_alpha else []))
    return pixels, tuple(f"{path.name}: {note}" for note in notes)


def _in_channels(samples: NDArray[Any], channel: Channel) -> NDArray[Any]:
    """[S,Y,X] to [Y,X] for gray, [Y,X,3] for Y and RGB."""
    if channel != "gray":
        colour = np.broadcast_to(samples, (3, *samples.shape[1:]))
        return np.ascontiguousarray(np.moveaxis(colour, 0, -1))
    gray: NDArray[Any] = samples[0]
    if any(not np.array_equal(gray, other) for other in samples[1:]):
        raise ImageError(
            'expected a gray image for channel "gray", got colours: choose channel Y or RGB'
        )
    return gray
