"""What `napari-cfsr visualize` draws: files, files with references, and data sets."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.cli.common import input_files, say
from napari_cfsr.errors import CFSRError, FileFormatError, ImageError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.evaluate import BenchmarkImage
    from napari_cfsr.core.io import ImageFile

Array = NDArray[Any]

REDUCED = "LR: bicubic reduction of HR (as MATLAB's)"
MICROMETRE = ("µm", "μm", "um", "micron", "microns", r"\u00B5m")
FIGURE_STEM = re.compile(r"_x[234]_comparison$")  # figures that this command wrote
# turns an image with an EXIF orientation upright
UPRIGHT = {
    2: (lambda a: a[:, ::-1]),
    3: (lambda a: a[::-1, ::-1]),
    4: (lambda a: a[::-1]),
    5: (lambda a: a.swapaxes(0, 1)),
    6: (lambda a: np.rot90(a, -1)),
    7: (lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
    8: (lambda a: np.rot90(a)),
}


@dataclass(frozen=True)
class Source:
    """One scene."""

    name: str
    path: Path  # an LR image, or an HR image to make LR from
    is_hr: bool = False  # which of them
    reference: Path | None = None  # HR image of an LR image
    # whether gray counts as colour, as in the tables of data sets, which measure Y
    in_colour: bool = False

    @property
    def hr(self) -> Path | None:
        return self.path if self.is_hr else self.reference

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,) if self.reference is None else (self.path, self.reference)


@dataclass(frozen=True, eq=False)
class Scene:
    """The pixels of a source."""

    lr: Array  # [y,x] or [y,x,3]
    hr: Array | None  # [Y,X] or [Y,X,3]
    pixel_size: float | None  # micrometres of a pixel of the results
    notes: tuple[str, ...]


def sources_of(options: argparse.Namespace) -> tuple[list[Source], int]:
    """What to draw, and how many inputs can't be drawn."""
    if options.dataset is not None or options.data is not None:
        return _of_data_set(options)
    if not options.inputs:
        raise OptionError("expected image files, or --data DIR --dataset NAME")
    if options.images is not None:
        raise OptionError("--images has no meaning without --dataset: leave it out")
    files, faults = input_files(options.inputs, lambda path: bool(FIGURE_STEM.search(path.stem)))
    if options.hr:
        return [Source(path.stem, path, is_hr=True) for path in files], faults
    found = []
    for path in files:
        try:
            hr = _reference(path, options.reference, len(files) == 1, options.scale)
            found.append(Source((hr or path).stem, path, reference=hr))
        except CFSRError as error:
            say(str(error))
            faults += 1
    return found, faults


def _reference(path: Path, reference: Path | None, single: bool, scale: int) -> Path | None:
    """The HR file of an LR file: the one given, or the one of that name in the folder given."""
    if reference is None:
        return None
    if not reference.is_dir():
        if not single:
            raise OptionError(
                f"expected a folder of references for several images, got --reference {reference}"
            )
        return reference
    names = {path.stem, path.stem.removesuffix(f"x{scale}")}
    from napari_cfsr.core.batch import image_files

    found = [p for p in image_files(reference) if p.stem in names]
    if len(found) != 1:
        wanted = " or ".join(sorted(names))
        raise FileFormatError(
            f"{path}: expected one reference named {wanted} in {reference}, found {len(found)}"
        )
    return found[0]


def _of_data_set(options: argparse.Namespace) -> tuple[list[Source], int]:
    """The images of a data set in the EDSR layout."""
    from napari_cfsr.core.evaluate import find_dataset

    if options.dataset is None or options.data is None:
        raise OptionError("expected both --data DIR and --dataset NAME")
    if options.inputs or options.reference is not None or options.hr:
        raise OptionError(
            "expected image files or --dataset, got both: leave out the files, --reference and --hr"
        )
    dataset = find_dataset(options.data, options.dataset, options.scale)
    images = {image.name: image for image in dataset.images}
    wanted = list(images) if options.images is None else options.images.split(",")
    faults = 0
    for name in set(wanted) - set(images):
        say(f"{name}: no such image in {dataset.folder}, which has {', '.join(images)}")
        faults += 1
    chosen = (images[name] for name in wanted if name in images)
    return [_of_image(image) for image in chosen], faults


def _of_image(image: BenchmarkImage) -> Source:
    name = f"{image.name} ({image.dataset})"
    if image.lr is None:
        return Source(name, image.hr, is_hr=True, in_colour=True)
    return Source(name, image.lr, reference=image.hr, in_colour=True)


def read_scene(source: Source, options: argparse.Namespace) -> Scene:
    """The pixels of a source; LR is made from HR if there is no LR.

    Raises
    ------
    FileFormatError
        A file can't be read.
    ImageError, OptionError
        It is not a single image, or the images do not fit together.
    """
    from napari_cfsr.core.figures import reduced

    scale, plane = options.scale, plane_of(options.plane)
    pixels, notes, size = _read(source.path, options.axes, plane, source.in_colour)
    size = size if options.pixel_size is None else options.pixel_size
    if source.is_hr:
        return Scene(reduced(pixels, scale), pixels, size, (REDUCED, *notes))
    hr: Array | None = None
    if source.reference is not None:
        hr, more, _ = _read(source.reference, options.axes, plane, source.in_colour)
        notes = tuple(dict.fromkeys((*notes, *more)))
    return Scene(pixels, hr, size and size / scale, notes)


def plane_of(text: str | None) -> dict[str, int]:
    """Which plane of a stack, from `Z=3,C=0`."""
    if text is None:
        return {}
    parts = [re.fullmatch(r"\s*([A-Za-z])=(\d+)\s*", part) for part in text.split(",")]
    if any(part is None for part in parts):
        raise OptionError(f"expected --plane with an index for each axis, as Z=3,C=0; got {text!r}")
    return {part[1].upper(): int(part[2]) for part in parts if part is not None}


def _read(
    path: Path, axes: str | None, plane: dict[str, int], in_colour: bool
) -> tuple[Array, tuple[str, ...], float | None]:
    """[Y,X] or [Y,X,3] upright, notes, and the micrometres of a pixel, if known."""
    from napari_cfsr.core.image import parse_axes
    from napari_cfsr.core.io import exif_facts, read_image

    image = read_image(path)
    try:
        named = (axes or image.axes).upper()
        found = parse_axes(named, image.pixels.shape, rgb=None if axes else False)
        index = _index(found.names, found.shape, plane)
        samples = found.read(image.pixels, index, slice(None), slice(None))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
    notes = (*image.notes, *(("transparency is not shown",) if found.has_alpha else ()))
    samples = samples[: found.samples - found.has_alpha]
    if in_colour:
        samples = np.broadcast_to(samples, (3, *samples.shape[1:]))
    pixels = samples[0] if len(samples) == 1 else np.moveaxis(samples, 0, -1)
    orientation = image.tiff.get("orientation") or exif_facts(image.exif)[0]
    pixels = UPRIGHT.get(orientation or 1, lambda a: a)(pixels)
    return np.ascontiguousarray(pixels), notes, micrometres(image)


def _index(names: str, shape: tuple[int, ...], plane: dict[str, int]) -> tuple[int, ...]:
    """Index of the requested plane, in the order of the looped axes."""
    sizes = {name: n for name, n in zip(names, shape, strict=True) if name not in "YXS"}
    asked = {name: n for name, n in plane.items() if name in sizes}
    missing = [name for name, n in sizes.items() if n != 1 and name not in asked]
    if missing:
        example = ",".join(f"{name}=0" for name in missing)
        raise OptionError(
            f"expected a single image, got axes {names} {shape}: choose one with --plane {example}"
        )
    for name, n in asked.items():
        if n >= sizes[name]:
            raise OptionError(f"expected {name} below {sizes[name]} in --plane, got {n}")
    return tuple(asked.get(name, 0) for name in sizes)


def micrometres(image: ImageFile) -> float | None:
    """Width of a pixel from OME or ImageJ metadata, if known."""
    ome, imagej = image.tiff.get("ome"), image.tiff.get("imagej")
    try:
        if ome and "PhysicalSizeX" in ome:
            return _in_micrometres(float(ome["PhysicalSizeX"]), ome.get("PhysicalSizeXUnit", "µm"))
        resolution = image.tiff.get("resolution")
        if imagej and resolution:
            return _in_micrometres(1 / resolution[0], str(imagej.get("unit", "")))
    except (ValueError, ZeroDivisionError):
        return None
    return None


def _in_micrometres(size: float, unit: str) -> float | None:
    factor = {"nm": 1e-3, "mm": 1e3, **dict.fromkeys(MICROMETRE, 1.0)}.get(unit)
    return size * factor if factor and np.isfinite(size) and size > 0 else None
