"""Layers to compare with a reference layer, and their planes, read as needed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import check_dtype, enlarge_in_dtype
from napari_cfsr.core.metrics import Channel
from napari_cfsr.errors import ImageError
from napari_cfsr.layers.alignment import Candidate, Match, match, plane_axes
from napari_cfsr.layers.image_input import ImageInput, Region

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class QualityRequest:
    """What to measure, read on the GUI thread."""

    reference: ImageInput  # all of the layer
    region: Region  # the part of it to measure
    part: str  # the same in words
    candidates: tuple[Candidate, ...]
    channel: Channel
    shave: int
    data_range: float | None  # None: from the reference, see `core.metrics.default_range`


class Comparison:
    """Which part of each image is compared with which part of the reference.

    Raises
    ------
    ImageError
        No image can be compared, or they cover no common part of the reference.
    """

    def __init__(self, request: QualityRequest) -> None:
        self.request = request
        self.axes = plane_axes(request.reference.axes)
        self.region = request.region  # the part of the reference that all images cover
        self.matches: dict[int, Match] = {}  # of those that can be compared, by their index
        self.faults: dict[int, str] = {}  # why the others can't be compared
        self.notes: list[str] = []
        self.warnings: list[str] = []
        check_dtype(request.reference.data.dtype)
        for i, candidate in enumerate(request.candidates):
            try:
                self._match(i, candidate)
            except ImageError as error:
                self.faults[i] = str(error)
        if not self.matches:
            raise ImageError("; ".join(dict.fromkeys(self.faults.values())))
        self._restrict()

    def _match(self, i: int, candidate: Candidate) -> None:
        """Find the part that an image covers, if it can be compared."""
        request, reference = self.request, self.request.reference
        check_dtype(candidate.image.data.dtype)
        found = match(reference, candidate)
        extra = len(request.region) - len(found.covered)
        if any(s.stop - s.start > 1 for s in request.region[:extra]):
            raise ImageError(
                f"expected '{candidate.name}' with as many axes as '{reference.name}', got shape "
                f"{candidate.shape} against {Candidate(reference).shape}: measure the current slice"
            )
        if _overlap(request.region[extra:], found.covered) is None:
            raise ImageError(
                f"expected '{candidate.name}' to cover {request.part} of '{reference.name}', got "
                "none of its pixels there"
            )
        self.matches[i] = found
        self.notes += [found.note] if found.note else []
        self.warnings += [found.warning] if found.warning else []

    def _restrict(self) -> None:
        """Restrict the region to what all images cover: else their values are not comparable."""
        for found in self.matches.values():
            extra = len(self.region) - len(found.covered)
            common = _overlap(self.region[extra:], found.covered)
            if common is None:
                raise ImageError(
                    "expected layers that cover a common part of the reference, got none: measure "
                    "them one by one"
                )
            self.region = (*self.region[:extra], *common)
        if self.region != self.request.region and len(self.matches) > 1:
            self.notes.append("all were measured in the part that every one of them covers")

    @property
    def slices(self) -> list[Index]:
        """Indices of the planes on the axes of the reference other than Y and X."""
        others = [s for a, s in zip(self.axes, self.region, strict=True) if a not in "YX"]
        return list(itertools.product(*(range(s.start, s.stop) for s in others)))

    def slice_name(self, at: Index) -> str:
        """Such as `T=0, Z=3`; axes of length 1 are left out."""
        lengths = Candidate(self.request.reference).shape
        axes = [(a, n) for a, n in zip(self.axes, lengths, strict=True) if a not in "YX"]
        return ", ".join(f"{a}={i}" for (a, n), i in zip(axes, at, strict=True) if n > 1)

    def box(self, at: Index) -> Region:
        """The region of one plane."""
        places = (slice(i, i + 1) for i in at)
        parts = zip(self.axes, self.region, strict=True)
        return tuple(s if axis in "YX" else next(places) for axis, s in parts)

    def reference_plane(self, at: Index) -> NDArray[Any]:
        """[Y,X] or [Y,X,3] of the reference."""
        return read_plane(self.request.reference, self.box(at))

    def plane(self, i: int, at: Index) -> NDArray[Any]:
        """The plane of an image that lies over that of the reference."""
        candidate, found = self.request.candidates[i], self.matches[i]
        box = self.box(at)[-len(found.offset) :]
        own = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, found.offset, strict=True))
        own = (slice(0, 1),) * (len(candidate.shape) - len(own)) + own
        if candidate.enlarge == 1:
            return read_plane(candidate.image, own)
        axes = plane_axes(candidate.image.axes)
        whole = tuple(
            slice(0, n // candidate.enlarge) if a in "YX" else s
            for a, s, n in zip(axes, own, candidate.shape, strict=True)
        )
        large = enlarge_in_dtype(read_plane(candidate.image, whole), candidate.enlarge)
        return large[own[axes.index("Y")], own[axes.index("X")]]


def _overlap(region: Region, covered: Region) -> Region | None:
    both = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(region, covered, strict=True)
    )
    return both if all(s.stop > s.start for s in both) else None


def read_plane(image: ImageInput, box: Region) -> NDArray[Any]:
    """One plane [Y,X] or [Y,X,3] of a layer, without alpha; read if it is lazy.

    Parameters
    ----------
    image : ImageInput
    box : tuple of slice
        One for each axis but colour samples; of length 1 for all but Y and X.
    """
    slices = dict(zip(plane_axes(image.axes), box, strict=True))
    key = tuple(
        slice(0, 3) if a == "S" else slices[a] if a in "YX" else slices[a].start for a in image.axes
    )
    left = [a for a in image.axes if a in "YXS"]
    plane = np.asarray(image.data[key])
    return plane.transpose([left.index(a) for a in "YXS" if a in left])
