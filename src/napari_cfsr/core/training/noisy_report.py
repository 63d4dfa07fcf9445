"""Report of a refiner on noisy images without clean ones: against photons kept back.

An image is split into parts a, b and c. What a method makes of a is compared with b and c: the
noise of the three is independent, so the mean of (o - b) (o - c) is the squared error of o, without
any reference. Methods are compared pair by pair, in small squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import Degradation, IntensityMapping, denoise, imresize
from napari_cfsr.core.training.noisy_trainer import NoisyImage
from napari_cfsr.core.training.results import Report, ReportRow
from napari_cfsr.core.training.windows import channels_first, channels_last

Float32 = NDArray[np.float32]

KEPT_BACK = 0.2  # of the photons: half in b, half in c
SQUARE = 16  # pixels, of the squares in which methods are compared
EDGE = 4  # pixels at the border that are left out
SURE = 2.0  # standard errors
UNCERTAIN = (0.1, 0.2)  # of the variance of the noise: estimated from many images, from one
MANY_PIXELS = 200_000  # from which the first applies
MEASURED_PIXELS = 100_000  # for the report, which takes several passes of the backbone
LEAST_PIXELS = 48**2  # of an image
WINDOW = 256  # largest side of what is measured
PROBE = 0.1  # of the noise, by which a method's reaction to noise is found
PROBED = 1 / 3  # of the images
DENOISED = "non-local means"
ROWS = ("bicubic", "denoised bicubic", "denoised baseline", "baseline", "delta")


@dataclass(frozen=True)
class SplitImage:
    """Independent parts of an image, on one scale."""

    a: NoisyImage
    b: Float32  # [C,h,w]
    c: Float32

    @classmethod
    def of(cls, image: NoisyImage, rng: np.random.Generator) -> SplitImage:
        a, rest = image.parts(KEPT_BACK, rng)
        b, c = rest.parts(0.5, rng)
        return cls(a, b.pixels, c.pixels)

    def window(self, pixels: int) -> SplitImage:
        """The middle of it, of at most so many pixels."""
        side = min(WINDOW, int(pixels**0.5))
        ys, xs = (slice(max(0, (n - side) // 2), (n + side) // 2) for n in self.b.shape[1:])
        where = (slice(None), ys, xs)
        a = replace(self.a, pixels=self.a.pixels[where])
        return SplitImage(a, self.b[where], self.c[where])

    def errors(self, result: Float32) -> Float32:
        """Squared error [h,w] of what a method makes of `a`, without bias but noisy."""
        inside = (slice(None), slice(EDGE, -EDGE), slice(EDGE, -EDGE))
        o, b, c = result[inside], self.b[inside], self.c[inside]
        return np.asarray(((o - b) * (o - c)).mean(0), np.float32)


@dataclass
class CountScores:
    """Errors of methods, in squares, image by image.

    The parts of an image share what noise there is beyond the model, which squared errors then
    lack: `doubt` is that much, the uncertain share of the variance of the noise.
    """

    doubt: float = 0.0
    squares: dict[str, list[Float32]] = field(default_factory=dict)

    def add(self, image: SplitImage, results: dict[str, Float32]) -> None:
        """Score what methods made of an image; all methods score the same images."""
        for name, result in results.items():
            self.squares.setdefault(name, []).append(_squares(image.errors(result)))

    def psnr(self, name: str) -> float:
        """Of a range of 1, dB: at least that, whatever in its uncertainty the noise is."""
        squares = np.concatenate(self.squares[name]).astype(np.float64)
        doubt = math.hypot(squares.std() / math.sqrt(squares.size), self.doubt)
        return -10 * math.log10(max(float(squares.mean()), 0.0) + doubt)

    def gain(self, name: str, other: str) -> float:
        """Of a method over another, dB, as far as it can be told."""
        return self.psnr(name) - self.psnr(other)

    def lead(self, name: str, other: str, bias: float = 0.0) -> float:
        """By how many standard errors a method has the smaller error, less a bias."""
        pairs = zip(self.squares[other], self.squares[name], strict=True)
        differences = np.concatenate([theirs - ours for theirs, ours in pairs]).astype(np.float64)
        spread = differences.std(ddof=1) / math.sqrt(len(differences))
        return float((differences.mean() - bias) / max(spread, 1e-30))

    def best(self, names: Sequence[str]) -> str:
        """The method with the least error; of those that can't be told apart, the first."""
        best = names[0]
        for name in names[1:]:
            if self.lead(name, best) >= SURE:
                best = name
        return best


def doubt_of(splits: Sequence[SplitImage]) -> tuple[float, float]:
    """The uncertain share of the variance of the noise, and that times the mean variance."""
    pixels = sum(split.b[0].size for split in splits)
    share = UNCERTAIN[0] if pixels >= MANY_PIXELS else UNCERTAIN[1]
    return share, share * float(np.mean([s.a.noise.variance(s.a.pixels).mean() for s in splits]))


class NoisyReport:
    """A refiner beside the frozen backbone and conventional methods, on split images.

    `refine` removes the noise of an image, `upscale` is the backbone: [C,h,w] to [C,H,W].
    """

    def __init__(
        self,
        splits: Sequence[SplitImage],
        scale: int,
        refine: Callable[[NoisyImage], Float32],
        upscale: Callable[[Float32], Float32],
        rng: np.random.Generator,
    ) -> None:
        self._scale, self._refine, self._upscale, self._rng = scale, refine, upscale, rng
        each = max(MEASURED_PIXELS // len(splits), LEAST_PIXELS)
        count = max(1, MEASURED_PIXELS // each)
        self._windows = [s.window(each) for s in splits[:: max(1, len(splits) // count)][:count]]
        self._uncertain, doubt = doubt_of(splits)
        self._scores = CountScores(doubt)
        self._reactions: dict[str, list[float]] = {}

    def measure(self) -> Iterator[str]:
        """Score all methods, image by image; yields the name of the next."""
        probed = max(1, round(PROBED * len(self._windows)))
        for n, window in enumerate(self._windows):
            yield window.a.name
            made = self._methods(window.a)
            self._scores.add(window, made)
            if n < probed:
                self._probe(window.a, made)

    def _methods(self, image: NoisyImage) -> dict[str, Float32]:
        """What each method makes of an image, reduced to it again."""
        clean = _conventional(image)
        inputs = {
            "denoised baseline": clean,
            "baseline": image.pixels,
            "delta": self._refine(image),
        }
        made = {name: self._upscale(x) for name, x in inputs.items()}
        for name, x in (("bicubic", image.pixels), ("denoised bicubic", clean)):
            made[name] = imresize(x, self._scale, axes=(1, 2))
        return {
            name: np.asarray(imresize(x, 1 / self._scale, axes=(1, 2)), np.float32)
            for name, x in made.items()
        }

    def _probe(self, image: NoisyImage, made: dict[str, Float32]) -> None:
        """How much of the noise each method passes on, in units of its variance.

        If the noise is stronger than assumed by some share, the parts of a split image are not
        independent, and squared errors seem smaller by twice that share of this.
        """
        noise = np.sqrt(image.noise.variance(np.maximum(made["delta"], 0)))
        probe = noise * self._rng.standard_normal(noise.shape, dtype=np.float32)
        nudged = replace(image, pixels=image.pixels + np.float32(PROBE) * probe)
        for name, result in self._methods(nudged).items():
            moved = float(((result - made[name]) * probe).mean()) / PROBE
            self._reactions.setdefault(name, []).append(moved)

    def leads(self) -> dict[str, float]:
        """By how many standard errors the refiner leads over each method, whatever the noise."""
        reactions = {name: float(np.mean(values)) for name, values in self._reactions.items()}
        result = {}
        for other in ROWS[:-1]:
            bias = 2 * self._uncertain * (reactions[other] - reactions["delta"])
            result[other] = _weaker(
                *(self._scores.lead("delta", other, sign * bias) for sign in (-1, 1))
            )
        return result

    def report(self) -> Report:
        rows = tuple(ReportRow(name, self._scores.psnr(name), None) for name in ROWS)
        channel: Literal["Y", "gray"] = "gray" if len(self._windows[0].b) == 1 else "Y"
        names = tuple(window.a.name for window in self._windows)
        gain = self._scores.gain("delta", "baseline")
        return Report(rows, channel, 0, names, (gain,), estimated=True)


def noisy_verdict(report: Report, improved: bool, leads: dict[str, float]) -> str:
    """One sentence: whether the refiner is worth using, or that it can't be told."""
    count = len(report.images)
    where = f"estimated from photons kept back in {count} noisy image{'s' * (count > 1)}"
    if not improved:
        return (
            f"No reliable gain over the frozen backbone ({report.gain:+.2f} dB, {where}): use the "
            "backbone as it is."
        )
    best = report.best_conventional
    over = f"{report.gain:+.2f} dB over the frozen backbone"
    if best.name == "baseline":
        return f"Worth using: {over}, {where}."
    lead = report.psnr("delta") - best.psnr
    if leads[best.name] >= SURE:
        return (
            f"Worth using: {over} and {lead:+.2f} dB over the best conventional method "
            f"({best.name}), {where}."
        )
    if leads[best.name] <= -SURE:
        return (
            f"Not worth using: {over}, but {best.name}, a conventional method, is {-lead:.2f} dB "
            f"better still, {where}."
        )
    return (
        f"Better than the frozen backbone by {report.gain:.2f} dB; whether it is better than "
        f"{best.name}, a conventional method, cannot be told ({lead:+.2f} dB, {where})."
    )


def _weaker(a: float, b: float) -> float:
    """The weaker of two statements; 0 if they contradict each other."""
    if a * b <= 0:
        return 0.0
    return min(a, b, key=abs)


def _conventional(image: NoisyImage) -> Float32:
    """An image without its noise, by the best conventional method on board."""
    pixels = image.pixels
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return pixels
    mapping = IntensityMapping(low, high, "float32")
    noise = image.noise.mapped(mapping)
    degradation = Degradation(
        photons=1 / noise.gain if noise.gain else None,
        read_noise=min(noise.read_noise, 1),
        offset=min(max(noise.offset, -1), 1),
    )
    clean = denoise(mapping.to_unit(channels_last(pixels)), degradation).get(DENOISED)
    if clean is None:  # there is hardly any
        return pixels
    return channels_first(mapping.to_data(clean + np.float32(degradation.offset)))


def _squares(errors: Float32) -> Float32:
    """Means over squares; what does not fill one is left out."""
    side = min(SQUARE, *errors.shape)
    h, w = (n // side * side for n in errors.shape)
    parts = errors[:h, :w].reshape(h // side, side, w // side, side)
    return np.asarray(parts.mean((1, 3)).ravel(), np.float32)
