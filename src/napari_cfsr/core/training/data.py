"""Training images: arrays and files, read when they are needed. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import (
    ArrayLike,
    Axes,
    IntensityMapping,
    Limits,
    Mode,
    check_dtype,
    parse_axes,
    resolve_mapping,
)
from napari_cfsr.core.io import PILLOW_SUFFIXES, RESULT, SUFFIXES, ImageFile, check_head, read_image
from napari_cfsr.errors import FileFormatError, ImageError

Float32 = NDArray[np.float32]
Intensity = Mode | Limits

MOST_PLANES = 500  # of one stack, evenly chosen


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A plane in memory: [Y,X] or [Y,X,3] in the dtype of the data."""

    name: str
    group: str  # stack: its planes look alike and must not be on both sides of a split
    pixels: NDArray[Any]
    mapping: IntensityMapping
    site: str = ""  # place in the stack, if there are several: its channels and times look alike

    def read(self) -> Float32:
        """The image as [Y,X] or [Y,X,3], mapped to [0,1] but not clipped."""
        return self.mapping.to_unit(self.pixels)


@dataclass(frozen=True)
class FileSource:
    """A plane of an image file, read each time it is needed."""

    path: Path
    plane: tuple[int, ...]
    intensity: Intensity
    name: str
    group: str  # file; this and the site as in `ArraySource`
    site: str = ""

    def read(self) -> Float32:
        """As `ArraySource.read`."""
        try:
            image, axes = _opened(self.path)
        except FileFormatError as error:
            raise ImageError(str(error)) from error
        return self.mapping.to_unit(_plane(image.pixels, axes, self.plane))

    @property
    def mapping(self) -> IntensityMapping:
        """Of the data to [0,1]; reads the file."""
        _, axes = _opened(self.path)
        mappings = _mappings(self.path, self.intensity, _file_stamp(self.path))
        return mappings[axes.channel_of(self.plane)]


Source = ArraySource | FileSource


@dataclass(frozen=True, eq=False)
class TrainData:
    """HR images, with the LR images if they were measured."""

    hr: tuple[Source, ...]
    lr: tuple[Source, ...] | None = None  # in the order of `hr`; None: LR images are simulated
    origin: str = ""  # name of the source, for the card
    notes: tuple[str, ...] = ()  # what was left out
    noisy: bool = False  # `hr` are noisy images to train on as they are
    strict: bool = True  # an unusable image is an error; of a folder, it is left out with a note


def array_sources(
    array: ArrayLike,
    name: str,
    axes: str | None = None,
    intensity: Intensity = "auto",
    rgb: bool | None = None,
) -> list[ArraySource]:
    """The planes of an array, each as an image of its own; alpha is left out.

    Parameters
    ----------
    array : array
        Any dtype and axes that `upscale` takes; lazy ones are read here.
    name : str
        For messages and the card.
    axes, rgb
        As for `upscale`.
    intensity : {"auto", "dtype", "data", "percentile"} or (low, high)
        As for `upscale`; the same for all T and Z.

    Raises
    ------
    ImageError
        Axes, shape or dtype can't be used.
    """
    parsed = parse_axes(axes, tuple(array.shape), rgb)
    if parsed.is_empty:
        raise ImageError(f"expected an image with pixels, got shape {array.shape} for '{name}'")
    mappings = resolve_mapping(array, parsed, intensity)
    return [
        ArraySource(
            _title(name, parsed, i), name, _plane(array, parsed, i), mappings[c], _site(parsed, i)
        )
        for i in _chosen_planes(parsed)
        for c in [parsed.channel_of(i)]
    ]


def array_data(
    images: Sequence[ArrayLike],
    pairs: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
    intensity: Intensity = "auto",
    noisy: bool = False,
) -> TrainData:
    """Images [Y,X] or [Y,X,3 or 4] in memory, or pairs of LR and HR ones, or noisy images."""

    def sources(arrays: Iterable[ArrayLike], name: str) -> tuple[Source, ...]:
        named = ((array, f"{name} {i}") for i, array in enumerate(arrays))
        return tuple(s for a, title in named for s in array_sources(a, title, None, intensity))

    if pairs is None:
        return TrainData(sources(images, "image"), None, f"{len(images)} arrays", noisy=noisy)
    low, high = ([pair[side] for pair in pairs] for side in (0, 1))
    return TrainData(sources(high, "HR"), sources(low, "LR"), f"{len(pairs)} pairs of arrays")


def folder_data(folder: str | os.PathLike[str], intensity: Intensity = "auto") -> TrainData:
    """The images of a folder and the folders below it, or a single file.

    Files that can't be read are noted. Hidden files and results of `upscale` are left out.

    Raises
    ------
    FileFormatError
        There is no such folder or file, or it holds no image that can be read.
    """
    path = Path(folder)
    sources: list[Source] = []
    notes: list[str] = []
    for file in _files_of(path):
        try:
            found, about = _sources_of(file, intensity)
        except (FileFormatError, ImageError) as error:
            notes.append(str(error))
        else:
            sources += found
            notes += [f"{file}: {note}" for note in about]
    if not sources:
        first = f"; {notes[0]}" if notes else ""
        raise FileFormatError(
            f"expected images ({', '.join(SUFFIXES)}) in {path}, found none that can be read{first}"
        )
    return TrainData(tuple(sources), None, path.resolve().name, tuple(notes), strict=False)


def noisy_data(paths: Sequence[str | os.PathLike[str]], intensity: Intensity = "auto") -> TrainData:
    """Noisy images to train on as they are: files or folders; raises as `folder_data`."""
    parts = [folder_data(path, intensity) for path in paths]
    sources = tuple(source for part in parts for source in part.hr)
    origin = ", ".join(dict.fromkeys(part.origin for part in parts))
    notes = tuple(note for part in parts for note in part.notes)
    return TrainData(sources, None, origin, notes, noisy=True, strict=False)


def pair_data(
    lr: str | os.PathLike[str], hr: str | os.PathLike[str], intensity: Intensity = "auto"
) -> TrainData:
    """Measured pairs: two files, or two folders with the same number of files, paired by order.

    Raises
    ------
    FileFormatError
        A file can't be read, or one side has more files than the other.
    """
    files = [_files_of(Path(side)) for side in (lr, hr)]
    if len(files[0]) != len(files[1]):
        raise FileFormatError(
            f"expected as many LR as HR files, got {len(files[0])} in {lr} and {len(files[1])} in "
            f"{hr}: name the files so that each LR image and its HR image sort alike"
        )
    if not files[0]:
        raise FileFormatError(f"expected images ({', '.join(SUFFIXES)}) in {lr} and {hr}, got none")
    sides: tuple[list[Source], list[Source]] = ([], [])
    for paths in zip(*files, strict=True):
        low, high = (_sources_of(path, intensity)[0] for path in paths)
        if len(low) != len(high):
            raise FileFormatError(
                f"expected as many LR as HR planes, got {len(low)} in {paths[0]} and "
                f"{len(high)} in {paths[1]}"
            )
        sides[0].extend(low)
        sides[1].extend(high)
    return TrainData(tuple(sides[1]), tuple(sides[0]), f"{Path(lr).name} and {Path(hr).name}")


def _files_of(path: Path) -> list[Path]:
    """The file itself, or all images in and below a folder, sorted by name."""
    try:
        if not path.is_dir():
            return [path]
        images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:  # an impossible name, or no permission
        raise FileFormatError(f"{path}: can't be read ({error.strerror})") from error
    return [p for p in images if not p.name.startswith(".") and not RESULT.search(p.stem)]


def _sources_of(path: Path, intensity: Intensity) -> tuple[list[FileSource], tuple[str, ...]]:
    """The planes of a file, and notes on what is left out."""
    if path.suffix.lower() in PILLOW_SUFFIXES:  # a single plane: not decoded yet
        return [FileSource(path, (), intensity, path.name, str(path))], check_head(path)
    image, axes = _opened(path)
    planes = [
        FileSource(path, i, intensity, _title(path.name, axes, i), str(path), _site(axes, i))
        for i in _chosen_planes(axes)
    ]
    return planes, image.notes


def _opened(path: Path) -> tuple[ImageFile, Axes]:
    """The current content of a file."""
    return _opened_cached(path, _file_stamp(path))


def forget_files() -> None:
    """Release the cached files."""
    _opened_cached.cache_clear()


def _file_stamp(path: Path) -> tuple[int, int]:
    """Changes when the file is rewritten."""
    try:
        about = path.stat()
    except OSError:  # reading the file will report it
        return 0, 0
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=2)
def _opened_cached(path: Path, _: tuple[int, int]) -> tuple[ImageFile, Axes]:
    """The last two files (LR and HR of a pair), whose planes are read one after the other."""
    image = read_image(path)
    try:
        axes = parse_axes(image.axes, image.pixels.shape, rgb=False)
        check_dtype(image.pixels.dtype)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if axes.is_empty:
        raise ImageError(f"expected an image with pixels, got shape {image.pixels.shape} in {path}")
    return image, axes


@lru_cache(maxsize=1024)
def _mappings(path: Path, intensity: Intensity, _: tuple[int, int]) -> tuple[IntensityMapping, ...]:
    image, axes = _opened(path)
    return resolve_mapping(image.pixels, axes, intensity)


def _chosen_planes(axes: Axes) -> list[tuple[int, ...]]:
    """All planes, or `MOST_PLANES` of them, evenly chosen."""
    planes = list(axes.planes())
    count = min(len(planes), MOST_PLANES)
    return [planes[i * len(planes) // count] for i in range(count)]


def _plane(array: ArrayLike, axes: Axes, plane: tuple[int, ...]) -> NDArray[Any]:
    """[Y,X] or [Y,X,3] of one plane."""
    whole = axes.read(array, plane, slice(0, axes.height), slice(0, axes.width))
    colours = whole[: axes.samples - axes.has_alpha]
    return colours[0] if len(colours) == 1 else np.moveaxis(colours, 0, -1)


def _site(axes: Axes, plane: tuple[int, ...]) -> str:
    """Indices of a plane without the channel, and without the time if there are other axes."""
    letters = [axes.names[i] for i in axes.looped]
    alike = "CT" if set(letters) - {"C", "T"} else "C"
    return ", ".join(f"{a}{i}" for a, i in zip(letters, plane, strict=True) if a not in alike)


def _title(name: str, axes: Axes, plane: tuple[int, ...]) -> str:
    """Name and position in the stack."""
    if not plane:
        return name
    letters = [axes.names[i] for i in axes.looped]
    return f"{name} [{', '.join(f'{a}{i}' for a, i in zip(letters, plane, strict=True))}]"
