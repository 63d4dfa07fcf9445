"""A loaded model: backbone, refiner and engine behind one call. `load_model` imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

import numpy as np

from napari_cfsr.core.engine.device import choose_device
from napari_cfsr.core.engine.registry import (
    DEFAULT,
    ENTRIES,
    Check,
    Engine,
    Float32,
    Precision,
    choose_engine,
)
from napari_cfsr.core.image import NoiseModel, back_project, scaled
from napari_cfsr.core.network import REFINER_STRIDE, exact_halo
from napari_cfsr.core.weights import ModelFiles, Progress, find_model, read_refiner_card
from napari_cfsr.errors import DeviceError, ImageError, OptionError


@dataclass(frozen=True)
class PredictOptions:
    """How to predict."""

    outputs: tuple[str, ...] = ("baseline",)  # `baseline`, `delta` or both
    ensemble: bool = False  # average over the eight flips and rotations
    back_projection: bool = False  # one step; for input that is a bicubic reduction, at x4
    # rows and columns, LR pixels, of which the result is wanted
    crop: tuple[slice, slice] | None = None
    refiner_ensemble: bool = False  # placement `input`: average the refiner alone, likewise
    # of each image of the batch, in [0,1]; None where there is none. For a large refiner
    noise: tuple[NoiseModel | None, ...] = ()
    # rows and columns of the image before the batch: those that a large refiner joins lie on a grid
    origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class ModelInfo:
    """What a model is made of; plain values only.

    Attributes
    ----------
    scale : int
    backbone, backbone_sha256, backbone_path : str
    refiner, refiner_sha256, refiner_path, placement : str or None
        None without a refiner.
    engine, device, precision : str
    notes : tuple of str
        What the user should know of how it was chosen.
    network : str
        Of the refiner; one of `napari_cfsr.core.network.REFINER_FIELDS`.
    noise : NoiseModel or None
        That the refiner was trained for, in data values.
    """

    scale: int
    backbone: str
    backbone_sha256: str
    backbone_path: str
    refiner: str | None
    refiner_sha256: str | None
    refiner_path: str | None
    placement: str | None
    engine: str
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    network: str = "RefineNet"
    noise: NoiseModel | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model can predict."""
        return ("baseline",) if self.refiner is None else ("baseline", "delta")

    @property
    def exact_halo(self) -> int:
        """Halo in LR pixels beyond which nothing changes."""
        return exact_halo(self.scale, self.placement, self.network)

    @property
    def needs_noise(self) -> bool:
        """Whether the refiner has to be told the noise of an image."""
        return self.refiner is not None and self.network == "UNetRefiner"

    def largest_tile(self, free: int, halo: int) -> int:
        """Largest side of a tile, halo left out, that fits into `free` bytes; LR pixels."""
        entry = ENTRIES.get(self.engine, ENTRIES[DEFAULT])
        return entry.largest_tile(self.device, free, halo)


class Model(Protocol):
    """What `upscale` needs of a model; `SRModel` here, `RemoteModel` in another process."""

    @property
    def info(self) -> ModelInfo: ...

    def predict(
        self, batch: Float32, how: PredictOptions, check: Check = ...
    ) -> dict[str, Float32]: ...

    def free_memory(self) -> int: ...

    def to_cpu(self) -> bool: ...


class SRModel:
    """A model in this process; made by `load_model`.

    Attributes
    ----------
    info : ModelInfo
        What it is made of.
    scale : int
        Scale factor.
    halo : int
        Exact receptive field, LR pixels to each side, as a multiple of 8.
    """

    def __init__(self, engine: Engine, info: ModelInfo) -> None:
        self._engine, self._info = engine, info  # without the notes of the engine
        self._lock = Lock()  # an engine has one network, with its memory

    @property
    def info(self) -> ModelInfo:
        engine = self._engine  # which may have moved
        return replace(self._info, device=engine.device, notes=self._info.notes + engine.notes)

    @property
    def scale(self) -> int:
        return self._info.scale

    @property
    def halo(self) -> int:
        return self._info.exact_halo

    def __repr__(self) -> str:
        i = self.info
        return f"SRModel(x{i.scale}, {i.backbone}, refiner={i.refiner}, {i.engine} on {i.device})"

    def predict(
        self, batch: Float32, how: PredictOptions = PredictOptions(), check: Check = lambda: None
    ) -> dict[str, Float32]:
        """Super-resolve a batch of images that fit in memory.

        Parameters
        ----------
        batch : array [N,1,h,w] or [N,3,h,w] of float32
            Gray or RGB in [0,1]; values beyond are allowed. Gray is run as three equal channels
            and averaged back.
        how : PredictOptions
            Which outputs, and how.
        check : callable
            Called several times a second; raises to stop.

        Returns
        -------
        dict of str to array [N,1 or 3,h*scale,w*scale] of float32
            Not clipped.

        Raises
        ------
        ImageError
            The batch has another shape.
        OutOfMemoryError, DeviceError
        """
        if batch.ndim != 4 or batch.shape[1] not in (1, 3):
            raise ImageError(f"expected a batch [N,1,h,w] or [N,3,h,w], got shape {batch.shape}")
        missing = [name for name in how.outputs if name not in self.info.outputs]
        if missing:
            raise OptionError(f"expected outputs among {self.info.outputs}, got {missing[0]!r}")
        check_back_projection(how.back_projection, self.scale)
        batch = batch.astype(np.float32, copy=False)
        with self._lock:
            if "delta" in how.outputs and (self.info.needs_noise or how.refiner_ensemble):
                return self._refined_first(batch, how, check)
            return self._predict(batch, how, check)

    def _refined_first(
        self, batch: Float32, how: PredictOptions, check: Check
    ) -> dict[str, Float32]:
        """Delta as the baseline of the refined batch."""
        if self.info.placement != "input":
            raise OptionError("expected a refiner before the backbone for an ensemble of it alone")
        rest = tuple(name for name in how.outputs if name != "delta")
        result = self._predict(batch, replace(how, outputs=rest), check) if rest else {}
        refined = self._refined(batch, how, check)
        made = self._predict(refined, replace(how, outputs=("baseline",)), check)
        return {**result, "delta": made["baseline"]}

    def _refined(self, batch: Float32, how: PredictOptions, check: Check) -> Float32:
        """A batch refined, in as many channels."""
        if not self.info.needs_noise:
            refined = self._turned(batch, how, lambda x: self._engine.refine(x, check))
        else:
            if len(how.noise) != len(batch):
                raise OptionError(
                    f"expected the noise of each of {len(batch)} images, got {len(how.noise)}"
                )
            parts = zip(batch[:, None], how.noise, strict=True)
            refined = np.concatenate([self._denoised(x, n, how, check) for x, n in parts])
        return refined.mean(1, keepdims=True) if batch.shape[1] == 1 else refined

    def _denoised(
        self, image: Float32, noise: NoiseModel | None, how: PredictOptions, check: Check
    ) -> Float32:
        """An image [1,1 or 3,h,w] by a large refiner; without noise, nothing is to be done."""
        if noise is None:
            return image
        before = [start % REFINER_STRIDE for start in how.origin]
        edges = [
            (b, -(b + n) % REFINER_STRIDE) for b, n in zip(before, image.shape[2:], strict=True)
        ]

        def refine(x: Float32) -> Float32:
            return noise.restore(self._engine.refine(noise.stabilise(x), check))

        refined = self._turned(np.pad(image, ((0, 0), (0, 0), *edges), mode="edge"), how, refine)
        inside = (slice(b, b + n) for b, n in zip(before, image.shape[2:], strict=True))
        return refined[:, :, *inside]

    def _turned(
        self, batch: Float32, how: PredictOptions, refine: Callable[[Float32], Float32]
    ) -> Float32:
        """A refined batch, or the mean over eight flips and rotations."""
        if not (how.refiner_ensemble or how.ensemble):
            return refine(batch)
        return _mean_of_eight(batch, lambda x: {"refined": refine(x)})["refined"]

    def _predict(self, batch: Float32, how: PredictOptions, check: Check) -> dict[str, Float32]:
        if not how.ensemble and not how.back_projection:
            return self._engine.run(batch, how.outputs, check, how.crop)

        def run(x: Float32) -> dict[str, Float32]:
            return self._engine.run(x, how.outputs, check)

        result = _mean_of_eight(batch, run) if how.ensemble else run(batch)
        if how.back_projection:
            result = {k: back_project(v, batch, self.scale) for k, v in result.items()}
        if how.crop is not None:
            part = scaled(how.crop, self.scale)
            result = {k: v[:, :, *part] for k, v in result.items()}
        return result

    def free_memory(self) -> int:
        """Bytes that are free where the network runs."""
        return self._engine.free_memory()

    def to_cpu(self) -> bool:
        """Move to the CPU; False if it runs there already."""
        return self._engine.to_cpu()


def _mean_of_eight(
    batch: Float32, run: Callable[[Float32], dict[str, Float32]]
) -> dict[str, Float32]:
    """Mean over eight flips and rotations, summed up as they come."""
    total: dict[str, Float32] = {}
    for quarter in range(4):
        for flip in (False, True):
            turned = np.rot90(batch, quarter, (2, 3))
            for name, value in run(turned[..., ::-1] if flip else turned).items():
                back = np.rot90(value[..., ::-1] if flip else value, -quarter, (2, 3))
                if name in total:
                    total[name] += back
                else:
                    total[name] = back.copy()
    for value in total.values():
        value /= 8
    return total


def check_back_projection(asked: bool, scale: int) -> None:
    """Raise `OptionError` where back-projection was measured not to help."""
    if asked and scale != 4:
        raise OptionError(
            f"expected scale 4 for back-projection, got {scale}: at x2 and x3 it was measured to "
            "change nothing or to do harm"
        )


def load_model(
    scale: int = 4,
    backbone: str | os.PathLike[str] = "auto",
    refiner: str | os.PathLike[str] | None = "auto",
    device: str = "auto",
    precision: Precision = "float32",
    *,
    engine: str = "auto",
    threads: int | None = None,
    download: bool = True,
    progress: Progress | None = None,
    weights_folder: str | os.PathLike[str] | None = None,
) -> SRModel:
    """Load a backbone and the refiner that belongs to it.

    Parameters
    ----------
    scale : int
        Scale factor: 2, 3 or 4.
    backbone : str or path
        `"auto"` (the one that a refiner given by name or file was trained on; else official if on
        this machine or downloadable, else bundled), `"official"`, `"bundled"`, the name of an
        imported one, or a .pth or .safetensors file.
    refiner : str, path or None
        `"auto"` (the one that belongs to the backbone, if there is one), None, a name or a file.
    device : str
        `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.
    precision : {"float32", "fast"}
        `"fast"`: bfloat16 on CPUs that have it, float16 on GPUs; float32 elsewhere.
    engine : {"auto", "torch", "openvino", "torch-compile"}
        What runs the network; see `napari_cfsr.core.engine.registry.choose_engine`.
    threads : int, optional
        Of the CPU, for OpenVINO; by default one for each core. Torch has a setting of its own.
    download : bool
        Whether the official weights may be fetched if they are not on this machine.
    progress : callable, optional
        Called with bytes done and bytes in all during a download.
    weights_folder : str or path, optional
        A folder that may hold official weights; the one that `NAPARI_CFSR_WEIGHTS` names comes
        before it.

    Returns
    -------
    SRModel

    Raises
    ------
    WeightsError
        One of its kinds: not found, damaged, unsafe, another network, another scale, a refiner of
        another backbone.
    DeviceError
        The device is not available.
    """
    files = find_model(
        scale, backbone, refiner, download=download, progress=progress,
        weights_folder=weights_folder,
    )  # fmt: skip
    return open_model(files, device, precision, engine, threads)


def open_model(
    files: ModelFiles,
    device: str = "auto",
    precision: Precision = "float32",
    engine: str = "auto",
    threads: int | None = None,
) -> SRModel:
    """Load what `find_model` found; parameters and errors as for `load_model`."""
    device = choose_device(device)
    name, notes = choose_engine(engine, device), tuple[str, ...]()
    entry = ENTRIES[name]
    try:
        opened, placement = entry.open(files, device, precision, threads)
    except ImportError as error:  # it is installed, but a library that it needs can't be loaded
        if engine != "auto" or name == DEFAULT:
            raise DeviceError(f'engine "{name}" can\'t be loaded: {error}') from error
        notes = (f"runs with torch: {entry.title} can't be loaded ({error})",)
        opened, placement = ENTRIES[DEFAULT].open(files, device, precision, threads)
    return SRModel(opened, _describe(files, placement, opened, precision, notes))


def _describe(
    files: ModelFiles, placement: str | None, engine: Engine, precision: str, notes: tuple[str, ...]
) -> ModelInfo:
    refiner = files.refiner
    card = read_refiner_card(refiner.path) if refiner else None
    noise = card.extra.get("noise") if card else None
    return ModelInfo(
        scale=files.scale,
        backbone=files.backbone.name,
        backbone_sha256=files.backbone.sha256,
        backbone_path=str(files.backbone.path),
        refiner=refiner.name if refiner else None,
        refiner_sha256=refiner.sha256 if refiner else None,
        refiner_path=str(refiner.path) if refiner else None,
        placement=placement,
        engine=engine.name,
        device=engine.device,
        precision=precision,
        notes=notes + files.notes,
        network=card.network if card else "RefineNet",
        noise=NoiseModel(**noise) if noise else None,
    )
