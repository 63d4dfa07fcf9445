"""How two images are aligned in the world, and which parts of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.metrics import mod_crop
from napari_cfsr.errors import ImageError
from napari_cfsr.layers.image_input import ImageInput, Region, layer_to_world, output_placement

Matrix = NDArray[np.float64]

TOLERANCE = 1e-3  # pixels by which two grids may differ and still count as the same
FACTORS = range(2, 9)  # by which an LR image may be smaller


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image to compare."""

    image: ImageInput  # all of the layer
    enlarge: int = 1  # factor by which it is enlarged bicubically first
    placed: bool = False  # whether its position in the world is known even if that is the origin

    @property
    def name(self) -> str:
        name = self.image.name
        return name if self.enlarge == 1 else f"{name} bicubic x{self.enlarge}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Without colour samples."""
        axes = self.image.axes
        return tuple(
            n * (self.enlarge if a in "YX" else 1)
            for a, n in zip(axes, self.image.data.shape, strict=True)
            if a != "S"
        )

    def to_world(self) -> Matrix:
        """Data to world, homogeneous."""
        if self.enlarge == 1:
            return to_world(self.image)
        placed = output_placement(self.image, self.enlarge)
        return to_world(replace(self.image, **{k: placed[k] for k in ("scale", "translate")}))


@dataclass(frozen=True)
class Match:
    """The part of a reference that an image covers."""

    # index in the reference minus index in the image, on the (last) axes that both have
    offset: tuple[int, ...]
    covered: Region  # the part of the reference, on the same axes
    note: str = ""  # for the user, as is the warning; both may be empty
    warning: str = ""


def to_world(image: ImageInput) -> Matrix:
    """Data to world of a whole layer, homogeneous."""
    return np.asarray(layer_to_world(image).affine_matrix, float)


def plane_axes(axes: str) -> str:
    """Axes without colour samples."""
    return axes.replace("S", "")


def match(reference: ImageInput, candidate: Candidate) -> Match:
    """Find the part of a reference that an image covers, pixel on pixel.

    Images of the same size, or of that which the mod-crop rule gives, are matched by their pixels,
    with a warning if they lie elsewhere in the world. Images of other sizes are matched in the
    world, where their pixel grids have to coincide.

    Raises
    ------
    ImageError
        They can't be compared.
    """
    _check_kinds(reference, candidate.image)
    whole, ndim = Candidate(reference), min(len(candidate.shape), len(reference.scale))
    large, small = whole.shape[-ndim:], candidate.shape[-ndim:]
    if any(n > 1 for n in candidate.shape[:-ndim]):
        raise _mismatch(reference, candidate, "it has more axes")
    between = _between(whole, candidate, ndim)
    fault = _off_grid(between, small)
    offset = tuple(int(o) for o in np.rint(between[:-1, -1]))
    if large == small:
        here = not fault and not any(offset)
        warning = "" if here else _warning(reference, candidate, between)
        return Match((0,) * ndim, _box(small), warning=warning)
    note = _mod_crop_note(reference, large, small)
    if note and (fault or not any(offset)):
        warning = _warning(reference, candidate, between) if fault else ""
        return Match((0,) * ndim, _box(small), f"'{candidate.name}': {note}", warning)
    fault = fault or _nowhere(whole, candidate)
    covered = tuple(
        slice(max(0, o), min(o + m, n)) for o, m, n in zip(offset, small, large, strict=True)
    )
    if not fault and any(s.stop <= s.start for s in covered):
        fault = "they do not overlap in the world"
    if fault:
        raise _mismatch(reference, candidate, fault)
    return Match(offset, covered, _note(reference, candidate, covered, large))


def _nowhere(reference: Candidate, candidate: Candidate) -> str:
    """Why the position of a smaller image is unknown; empty if it is known.

    Layers without a transform all start at the origin with pixels of size 1: an LR image would be
    mistaken for the upper left corner of its reference.
    """
    plain = (np.allclose(x.to_world(), np.eye(len(x.to_world()))) for x in (reference, candidate))
    if candidate.placed or not all(plain):
        return ""
    return "neither has a transform, so it is unknown which part of the reference it shows"


def _mod_crop_note(reference: ImageInput, large: tuple[int, ...], small: tuple[int, ...]) -> str:
    """What the mod-crop rule cuts off a reference; empty if it does not make the sizes the same."""
    axes = plane_axes(reference.axes)[-len(large) :]
    if any(n != m for a, n, m in zip(axes, large, small, strict=True) if a not in "YX"):
        return ""
    where = [axes.index(a) for a in "YX"]
    planes = [np.broadcast_to(np.uint8(0), [s[i] for i in where]) for s in (small, large)]
    try:
        return mod_crop(planes[0], planes[1])[1]
    except ImageError:
        return ""


def _check_kinds(reference: ImageInput, image: ImageInput) -> None:
    """Raise `ImageError` unless both are colour or both gray, with Y and X in the same places."""
    if reference.rgb != image.rgb:
        colour, gray = (reference, image) if reference.rgb else (image, reference)
        raise ImageError(
            f"expected two gray or two colour layers, got '{colour.name}' in colour, shape "
            f"{tuple(colour.data.shape)}, and '{gray.name}' in gray, shape "
            f"{tuple(gray.data.shape)}: convert one"
        )
    places = [[plane_axes(x.axes)[::-1].index(a) for a in "YX"] for x in (reference, image)]
    if places[0] != places[1]:
        raise ImageError(
            f"expected Y and X on the same axes, got {reference.axes} in '{reference.name}' and "
            f"{image.axes} in '{image.name}': set the axis labels of one"
        )


def _between(reference: Candidate, candidate: Candidate, n: int) -> Matrix:
    """Pixels of the image to pixels of the reference, on the last `n` axes."""
    keep = np.ix_(*[np.arange(-n - 1, 0)] * 2)
    between: Matrix = np.linalg.inv(reference.to_world())[keep] @ candidate.to_world()[keep]
    return between


def _off_grid(between: Matrix, shape: tuple[int, ...]) -> str:
    """Why two pixel grids do not coincide; empty if they do."""
    linear, offset = between[:-1, :-1], between[:-1, -1]
    drift = np.abs(linear - np.eye(len(linear))) @ np.array(shape, float)
    if drift.max() > TOLERANCE:
        diagonal = np.diag(linear)
        if np.abs(linear - np.diag(diagonal)).max() * max(shape) <= TOLERANCE:
            return f"its pixels are {_times(diagonal)} those of the reference"
        return "it is rotated or sheared against the reference"
    if np.abs(offset - np.rint(offset)).max() > TOLERANCE:
        return f"it is shifted by {_times(offset)} pixels, not by whole ones"
    return ""


def _times(values: NDArray[np.float64]) -> str:
    """A number for each axis; one, if they are all the same."""
    texts = [f"{v:.4g}" for v in values]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


def _box(shape: tuple[int, ...]) -> Region:
    return tuple(slice(0, n) for n in shape)


def _note(
    reference: ImageInput, candidate: Candidate, covered: Region, shape: tuple[int, ...]
) -> str:
    """The part of a reference that is covered."""
    axes = plane_axes(reference.axes)[-len(shape) :]
    parts = [
        f"{a} {s.start} to {s.stop - 1}"
        for a, s, n in zip(axes, covered, shape, strict=True)
        if (s.start, s.stop) != (0, n)
    ]
    if not parts:
        return ""
    sizes = f"{_size(candidate.shape)} against {_size(Candidate(reference).shape)} pixels"
    return f"'{candidate.name}' covers {', '.join(parts)} of the reference ({sizes})"


def _warning(reference: ImageInput, candidate: Candidate, between: Matrix) -> str:
    """Two layers are compared pixel by pixel although their transforms differ."""
    why = _off_grid(between, candidate.shape[-(len(between) - 1) :])
    why = why or f"it is shifted by {_times(between[:-1, -1])} pixels"
    return (
        f"'{candidate.name}' and '{reference.name}' have different transforms ({why}): compared "
        "pixel by pixel, as if they were aligned"
    )


def _mismatch(reference: ImageInput, candidate: Candidate, why: str) -> ImageError:
    return ImageError(
        f"'{candidate.name}' is {_size(candidate.shape)} but the reference '{reference.name}' is "
        f"{_size(Candidate(reference).shape)}, and {why}: choose layers of the same size or "
        "on the same pixel grid"
    )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def reduction(reference: ImageInput, image: ImageInput) -> int | None:
    """The factor by which an LR image is smaller than a reference, if it is.

    From the transforms if they show one; else from the sizes, by the mod-crop rule.
    """
    n = min(len(plane_axes(x.axes)) for x in (reference, image))
    if n < 2:
        return None
    try:
        _check_kinds(reference, image)
    except ImageError:
        return None
    axes = plane_axes(reference.axes)
    places = [axes[::-1].index(a) + 1 for a in "YX"]
    shapes = [[Candidate(x).shape[-p] for p in places] for x in (reference, image)]
    diagonal = np.diag(_between(Candidate(reference), Candidate(image), n)[:-1, :-1])
    ratios = np.array([diagonal[-p] for p in places])
    factor = int(np.rint(ratios[0]))
    if factor in FACTORS and np.abs(ratios - factor).max() * max(shapes[1]) <= TOLERANCE * factor:
        return factor
    factor = shapes[0][0] // shapes[1][0]
    rest = [large - small * factor for large, small in zip(*shapes, strict=True)]
    return factor if factor in FACTORS and all(0 <= r < factor for r in rest) else None
