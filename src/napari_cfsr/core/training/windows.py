"""Prepared training images: windows in memory for training, validation and the held-out report.

Windows of different roles share no pixel. Needs no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_cfsr.core.image import (
    LEAST_CORRELATION,
    Degradation,
    Region,
    align_pair,
    check_pair,
    estimate_shift,
    imresize,
    scaled,
)
from napari_cfsr.core.training.config import TrainRequest
from napari_cfsr.core.training.data import Source, forget_files
from napari_cfsr.core.training.split import (
    AREA_SHARE,
    LEAST_GROUPS,
    ROLES,
    Part,
    Role,
    promote,
    split,
    thinned,
)
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.errors import ImageError

Float32 = NDArray[np.float32]

SMALLEST = 32  # LR pixels: smallest side of an image, or of a part of one
SMALLEST_SIDE = 64  # LR pixels: smallest side of a window of an image that is at least as large
GAP = 8  # LR pixels between parts of one image
MOST_PIXELS = {"train": 3_000_000, "validation": 110_000, "held_out": 1_050_000}  # LR, in all
LARGEST_SIDE = {"train": 256, "validation": 128, "held_out": 256}  # LR pixels
CONTEXT = 32  # LR pixels around a training window that the backbone sees, like the halo of a tile
MOST_PSNR = 100.0  # dB: beyond float32 accuracy; infinity, of equal images, has no mean
SMOOTHING = (2.0, 2.0)  # sigma in LR pixels, so that pairs are recognised in spite of noise
FLAT = 1e-6  # standard deviation, in [0,1], below which an image is empty


@dataclass(frozen=True, eq=False)
class TrainingWindow:
    """An LR image with its target, in [0,1]: C is 1 for gray, 3 for RGB."""

    name: str  # name of the image, with rows and columns in HR pixels unless it is the whole image
    lr: Float32  # [C,h,w], as measured or simulated
    clean: Float32  # [C,h,w], before the noise; `lr` if measured
    hr: Float32  # [C,H,W]
    inner: Region  # rows and columns in LR pixels, without the context

    def target(self, scale: int) -> Float32:
        """The reduced HR image: the kind of input that the backbone was trained on."""
        return imresize(self.hr, 1 / scale, axes=(1, 2))


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Windows by role."""

    train: tuple[TrainingWindow, ...]
    validation: tuple[TrainingWindow, ...]
    held_out: tuple[TrainingWindow, ...]
    channels: int  # 1 if all images are gray, else 3
    degradation: Degradation | None  # None for measured pairs
    notes: tuple[str, ...] = ()  # what was left out, and shifts that were corrected


def iter_prepare(request: TrainRequest) -> Generator[tuple[int, int, str], None, TrainingImages]:
    """Read, check, crop and reduce all images; yields number, count and name of each.

    Raises
    ------
    ImageError
        Too few or too small images, LR and HR that do not fit, all-black images, NaN.
    """
    preparation = _Preparation(request)
    parts, done, used = preparation.parts, 0, set[int]()
    while done < len(parts):
        yield done, len(parts), request.data.hr[parts[done].index].name
        if preparation.add(parts[done]):
            used.add(parts[done].index)
        else:
            promote(parts, done, request.data, used)
        done += 1
    forget_files()
    return preparation.result()


def prepare(request: TrainRequest) -> TrainingImages:
    """The windows of `iter_prepare`: the same for the same request, noise included."""
    return exhaust(iter_prepare(request))


@dataclass(frozen=True, eq=False)
class _Image:
    """An image or a part of one, as read: [Y,X] or [Y,X,3]."""

    name: str
    lr: Float32 | None  # as measured
    hr: Float32
    start: tuple[int, int] | None = None  # of a part, in HR pixels; None for a whole image

    def area(self, area: tuple[float, float], scale: int) -> _Image:
        """A share of the longer side, on the LR grid, with a gap to its neighbours.

        The two ends have at least the smallest side if there is room for that.
        """
        axis = int(self.hr.shape[1] > self.hr.shape[0])
        length = self.hr.shape[axis] // scale
        end = round(AREA_SHARE * length)
        if length >= 3 * SMALLEST + 2 * GAP:
            end = max(end, SMALLEST + GAP // 2)
        cuts = {0.0: 0, AREA_SHARE: end, 1 - AREA_SHARE: length - end, 1.0: length}
        start, stop = (cuts[share] for share in area)
        start, stop = start + GAP // 2 * (start > 0), stop - GAP // 2 * (stop < length)
        rows, columns = slice(start, stop), slice(None)
        where = (columns, rows) if axis else (rows, columns)
        hr = self.hr[tuple(slice(start * scale, stop * scale) if w == rows else w for w in where)]
        lr = None if self.lr is None else self.lr[where]
        return replace(self, lr=lr, hr=hr, start=(0, start * scale) if axis else (start * scale, 0))

    def check(self, scale: int) -> None:
        """Raise `ImageError` unless it is large enough and not empty."""
        if min(self.hr.shape[:2]) // scale < SMALLEST:
            raise ImageError(
                f"expected at least {SMALLEST * scale} pixels in Y and X of each image (or of each "
                f"part, where one image is split), got {self.hr.shape[0]}x{self.hr.shape[1]} for "
                f"'{self.name}': add larger images, or more of them"
            )
        for image, factor in ((self.hr, 1), (self.lr, scale)):
            if image is not None:
                _check_contrast(image, self.name, self._where(image, factor))

    def _where(self, image: Float32, factor: int) -> str:
        """Rows and columns of a part, in HR pixels; empty for a whole image."""
        if self.start is None:
            return ""
        ends = (o + n * factor for o, n in zip(self.start, image.shape[:2], strict=True))
        spans = zip(("rows", "columns"), self.start, ends, strict=True)
        return ", ".join(f"{name} {first}:{last}" for name, first, last in spans)


class _Preparation:
    """Reads part by part, so that only one image and the windows are in memory."""

    def __init__(self, request: TrainRequest) -> None:
        self.data, self.config = request.data, request.config
        self.scale: int = request.load["scale"]
        if not self.data.hr:
            raise ImageError("expected at least one image to train on, got none: add images")
        if self.data.lr is not None and len(self.data.lr) != len(self.data.hr):
            raise ImageError(
                f"expected an HR image for each LR image, got {len(self.data.hr)} and "
                f"{len(self.data.lr)}: leave out images without a partner"
            )
        self.degradation = None if self.data.lr is not None else self.config.degradation
        self.notes = list(self.data.notes)
        self.faults: list[str] = []
        self.windows: dict[Role, list[TrainingWindow]] = {role: [] for role in ROLES}
        least = (SMALLEST_SIDE + 2 * CONTEXT) ** 2
        self.parts = thinned(split(self.data, self.config), max(1, int(self._room // least)))
        self.counts = {role: max(1, sum(p.role == role for p in self.parts)) for role in ROLES}
        planes = Counter(source.group for source in self.data.hr)
        if len(planes) < LEAST_GROUPS and any(s.site.startswith("T") for s in self.data.hr):
            self.notes.append(
                "held-out images are other time points of the training images: on other data the "
                "gain may be smaller"
            )
        self.alone = [planes[source.group] == 1 for source in self.data.hr]

    def add(self, part: Part) -> bool:
        """Read one part; False if it is unusable.

        Unusable files of a folder and planes of a stack are left out. An image that was chosen
        individually is an error.
        """
        try:
            image = self._read(part)
            image.check(self.scale)
        except ImageError as error:
            if self.data.strict and self.alone[part.index]:
                raise
            self.faults.append(str(error))
            return False
        rng = np.random.default_rng([self.config.run_seed, 1 + ROLES.index(part.role), part.index])
        self.windows[part.role] += self._windows(part.role, image, rng)
        return True

    def _read(self, part: Part) -> _Image:
        source = self.data.hr[part.index]
        hr, lr = checked_image(source), None
        if self.data.lr is not None:
            lr = checked_image(self.data.lr[part.index])
            try:
                lr, hr = self._paired(source.name, lr, hr)
            except ImageError as error:
                raise ImageError(
                    f"'{source.name}': {error}; change the scale, or leave the pair out"
                ) from error
        elif self.config.reduce > 1:
            hr = imresize(hr, 1 / self.config.reduce).astype(np.float32)
        if lr is None:
            hr = hr[tuple(slice(n // self.scale * self.scale) for n in hr.shape[:2])]
        image = _Image(source.name, lr, hr)
        return image if part.area is None else image.area(part.area, self.scale)

    def _paired(self, name: str, lr: Float32, hr: Float32) -> tuple[Float32, Float32]:
        """A measured pair, cropped to fit, and aligned and matched in brightness if requested."""
        lr, hr = check_pair(lr, hr, self.scale)
        if self.config.align:
            shift = estimate_shift(lr, hr, self.scale)
            lr, hr = align_pair(lr, hr, self.scale, shift)
            note = f"{name}: a shift of {shift.dy:+.2f}, {shift.dx:+.2f} LR pixels was corrected"
            if note not in self.notes:
                self.notes.append(note)
        check_scene(lr, hr, self.scale)
        return lr, matched(hr, lr, self.scale) if self.config.match else hr

    def _windows(
        self, role: Role, image: _Image, rng: np.random.Generator
    ) -> Iterator[TrainingWindow]:
        """Windows of an image: at random positions for training, otherwise the middle."""
        shape = tuple(n // self.scale for n in image.hr.shape[:2])
        side, count, context = self._side(role), 1, 0
        if role == "train":
            context = CONTEXT
            share = self._pixels_of_each(role) / (side + 2 * context) ** 2
            count = int(np.clip(share, 1, np.ceil(shape[0] * shape[1] / side**2)))
        for _ in range(count):
            inner, outer = [], []
            for length in shape:
                room = max(0, length - side)
                start = int(rng.integers(room + 1)) if role == "train" else room // 2
                stop = min(start + side, length)
                outer.append(slice(max(0, start - context), min(stop + context, length)))
                inner.append(slice(start - outer[-1].start, stop - outer[-1].start))
            yield self._window(image, (outer[0], outer[1]), (inner[0], inner[1]), rng)

    @property
    def _room(self) -> float:
        """LR pixels for training that fit into the memory, context included.

        LR, clean, target, HR and baseline have three channels of four bytes.
        """
        return min(MOST_PIXELS["train"], self.config.memory / (12 * (3 + 2 * self.scale**2)))

    def _pixels_of_each(self, role: Role) -> float:
        """LR pixels for each image."""
        return (self._room if role == "train" else MOST_PIXELS[role]) / self.counts[role]

    def _side(self, role: Role) -> int:
        """Side of a window in LR pixels, without context."""
        side = int(self._pixels_of_each(role) ** 0.5) - (2 * CONTEXT if role == "train" else 0)
        return int(np.clip(side // 8 * 8, SMALLEST_SIDE, LARGEST_SIDE[role]))

    def _window(
        self, image: _Image, where: Region, inner: Region, rng: np.random.Generator
    ) -> TrainingWindow:
        s = self.scale
        inside = scaled(where, s)
        hr, name = image.hr[inside], image.name
        if hr.shape != image.hr.shape or image.start is not None:
            spans = zip(inside, image.start or (0, 0), strict=True)
            name += " [" + ", ".join(f"{w.start + o}:{w.stop + o}" for w, o in spans) + "]"
        if image.lr is not None:
            lr = channels_first(image.lr[where])
            return TrainingWindow(name, lr, lr, channels_first(hr), inner)
        assert self.degradation is not None
        hr = np.clip(hr, 0, 1)
        clean = self.degradation.clean(hr, s, clip=False)
        arrays = (self.degradation.noise(clean, rng), clean, hr)
        lr, clean, hr = map(channels_first, arrays)
        return TrainingWindow(name, lr, clean, hr, inner)

    def result(self) -> TrainingImages:
        """All windows; raises `ImageError` if there are too few."""
        if any(not self.windows[role] for role in ROLES):
            why = f" ({self.faults[0]})" if self.faults else ""
            raise ImageError(
                "expected images for training, validation and the held-out report; of "
                f"{len(self.data.hr)} image(s), too few can be used{why}. Add images"
            )
        colour = any(w.hr.shape[0] == 3 for windows in self.windows.values() for w in windows)
        made = {
            role: tuple(_in_colour(w) if colour else w for w in self.windows[role])
            for role in ROLES
        }
        notes = (*self.notes, *self.faults)
        return TrainingImages(
            **made, channels=3 if colour else 1, degradation=self.degradation, notes=notes
        )


def check_scene(lr: Float32, hr: Float32, scale: int) -> None:
    """Raise `ImageError` unless LR and HR show the same scene.

    Otherwise the HR image, matched in brightness, would be nearly flat, and a refiner that makes
    everything gray would seem to be worth using.
    """
    pair = (lr, np.asarray(imresize(hr, 1 / scale)))
    sigma = (*SMOOTHING, 0)[: lr.ndim]
    a, b = (gaussian_filter(x.astype(np.float64), sigma) for x in pair)
    a, b = a - a.mean((0, 1)), b - b.mean((0, 1))
    found = float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-12))
    if found < LEAST_CORRELATION:
        raise ImageError(
            f"expected LR and HR of the same scene, correlation at least {LEAST_CORRELATION}, got "
            f"{found:.2f}: check that the files have the same order on both sides, and that the "
            "images overlap"
        )


def matched(hr: Float32, lr: Float32, scale: int) -> Float32:
    """HR matched to the brightness of LR by a straight line (least squares)."""
    reduced = imresize(hr, 1 / scale)
    a, b = np.polyfit(reduced.ravel().astype(np.float64), lr.ravel().astype(np.float64), 1)
    return np.asarray(hr * np.float32(a) + np.float32(b), np.float32)


def checked_image(source: Source) -> Float32:
    """Read an image; raises `ImageError` if it is empty or not finite."""
    image = source.read()
    if not np.isfinite(image).all():
        raise ImageError(
            f"expected finite pixels, got NaN or infinity in '{source.name}': repair it or leave "
            "it out"
        )
    _check_contrast(image, source.name)
    return image


def _check_contrast(image: Float32, name: str, where: str = "") -> None:
    if float(image.std()) >= FLAT:
        return
    if where:
        raise ImageError(
            f"expected contrast in each part of '{name}', which is split because there are few "
            f"images; all pixels are the same in {where}: crop that off, or add images"
        )
    raise ImageError(
        f"expected an image with contrast, but all pixels of '{name}' are the same: leave it out"
    )


def channels_first(image: Float32) -> Float32:
    """[Y,X] or [Y,X,3] to [C,Y,X]."""
    moved = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    return np.ascontiguousarray(moved, np.float32)


def channels_last(image: Float32) -> Float32:
    """[C,Y,X] to [Y,X] or [Y,X,3]; a view."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def _in_colour(window: TrainingWindow) -> TrainingWindow:
    if window.hr.shape[0] == 3:
        return window
    lr, clean, hr = (np.repeat(a, 3, axis=0) for a in (window.lr, window.clean, window.hr))
    return replace(window, lr=lr, clean=clean, hr=hr)
