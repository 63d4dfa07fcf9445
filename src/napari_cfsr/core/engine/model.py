"""A loaded model: backbone, refiner and engine behind one call. `load_model` imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.image import ALIGN, back_project, scaled
from napari_cfsr.core.weights import ModelFiles, Progress, find_model
from napari_cfsr.errors import DeviceError, ImageError, OptionError

if TYPE_CHECKING:
    from napari_cfsr.core.engine.registry import Engine, Precision

Float32 = NDArray[np.float32]
Check = Callable[[], None]

BACKBONE_FIELD = 63  # LR pixels to each side that a pixel depends on
REFINER_FIELD = 3  # pixels to each side, of the image the refiner runs on
BACK_PROJECTION_FIELD = 8  # LR pixels: 4 of the reduction, 2 of the enlargement, rounded up

# What one LR pixel needs while the network runs, refiner included: measured with benchmarks/
BYTES_PER_PIXEL = {"openvino": 3_000, "torch": 6_000}
# LR pixels: larger ones have less halo but wait longer for memory; with torch on a CPU, cancelling
# has to wait for a block of the network to end
LARGEST_TILE = {"openvino": 512, "cpu": 256, "gpu": 512}
SMALLEST_TILE = 32
MEMORY_SHARE = 0.5  # of what is free


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Attributes
    ----------
    outputs : tuple of str
        `baseline`, `delta` or both.
    ensemble : bool
        Average over the eight flips and rotations.
    back_projection : bool
        One back-projection step; for input that is a bicubic reduction, at x4.
    crop : (slice, slice) or None
        The rows and columns, LR pixels, of which the result is wanted; all if None.
    """

    outputs: tuple[str, ...] = ("baseline",)
    ensemble: bool = False
    back_projection: bool = False
    crop: tuple[slice, slice] | None = None


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

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model can predict."""
        return ("baseline",) if self.refiner is None else ("baseline", "delta")

    @property
    def exact_halo(self) -> int:
        """Halo in LR pixels beyond which nothing changes; a multiple of 8."""
        field = BACKBONE_FIELD
        if self.placement == "output":
            field += -(-REFINER_FIELD // self.scale)
        elif self.placement == "input":
            field += REFINER_FIELD
        return -(-field // 8) * 8

    @property
    def _bytes_per_pixel(self) -> int:
        return BYTES_PER_PIXEL.get(self.engine, BYTES_PER_PIXEL["torch"])

    def largest_tile(self, free: int, halo: int) -> int:
        """Greatest side of a tile, halo left out, that fits in `free` bytes; LR pixels."""
        side = int((free * MEMORY_SHARE / self._bytes_per_pixel) ** 0.5) - 2 * halo
        runs_on = self.engine if self.engine == "openvino" else self.device
        most = LARGEST_TILE.get(runs_on, LARGEST_TILE["gpu"])
        return max(SMALLEST_TILE, min(side, most) // ALIGN * ALIGN)


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
        self._engine, self._info = engine, info  # notes: but for those of the engine
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
        self,
        batch: Float32,
        how: PredictOptions = PredictOptions(),
        check: Check = lambda: None,
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
            return self._predict(batch, how, check)

    def _predict(self, batch: Float32, how: PredictOptions, check: Check) -> dict[str, Float32]:
        if not how.ensemble and not how.back_projection:
            return self._engine.run(batch, how.outputs, check, how.crop)
        run = self._ensemble if how.ensemble else self._engine.run
        result = run(batch, how.outputs, check)
        if how.back_projection:
            result = {k: back_project(v, batch, self.scale) for k, v in result.items()}
        if how.crop is not None:
            part = scaled(how.crop, self.scale)
            result = {k: v[:, :, *part] for k, v in result.items()}
        return result

    def _ensemble(
        self, batch: Float32, outputs: tuple[str, ...], check: Check
    ) -> dict[str, Float32]:
        """Mean over eight flips and rotations, summed up as they come."""
        total: dict[str, Float32] = {}
        for quarter in range(4):
            for flip in (False, True):
                turned = np.rot90(batch, quarter, (2, 3))
                part = self._engine.run(turned[..., ::-1] if flip else turned, outputs, check)
                for name, value in part.items():
                    back = np.rot90(value[..., ::-1] if flip else value, -quarter, (2, 3))
                    if name in total:
                        total[name] += back
                    else:
                        total[name] = back.copy()
        for value in total.values():
            value /= 8
        return total

    def free_memory(self) -> int:
        """Bytes that are free where the network runs."""
        return self._engine.free_memory()

    def to_cpu(self) -> bool:
        """Go on on the CPU; False if that is where it runs already."""
        return self._engine.to_cpu()


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
        this machine or to be had, else bundled), `"official"`, `"bundled"`, the name of an
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
        The device is not to be had.
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
    from napari_cfsr.core.engine.registry import choose_device, choose_engine

    device = choose_device(device)
    name = choose_engine(engine, device)
    notes: tuple[str, ...] = ()
    if name == "openvino":
        try:
            made, placement = _openvino(files, precision, threads)
        except ImportError as error:  # it is there, and a library that it needs is not
            if engine != "auto":
                raise DeviceError(f'engine "openvino" can\'t be loaded: {error}') from error
            name, notes = "torch", (f"runs with torch: OpenVINO can't be loaded ({error})",)
    if name != "openvino":
        made, placement = _torch(files, device, precision, compiled=name == "torch-compile")
    return SRModel(made, _describe(files, placement, made, precision, notes))


def _openvino(
    files: ModelFiles, precision: Precision, threads: int | None
) -> tuple[Engine, str | None]:
    """An engine, and where the refiner runs."""
    from napari_cfsr.core.engine.openvino_engine import OpenVINOEngine, Weights
    from napari_cfsr.core.weights import backbone_arrays, refiner_arrays

    backbone = Weights(files.backbone.sha256, backbone_arrays(files.backbone, files.scale))
    refiner, placement = None, None
    if files.refiner is not None:
        arrays, card = refiner_arrays(files.refiner, files.backbone)
        refiner, placement = Weights(files.refiner.sha256, arrays), card.placement
    engine = OpenVINOEngine(
        files.scale, backbone, refiner, placement or "output", precision, threads
    )
    return engine, placement


def _torch(
    files: ModelFiles, device: str, precision: Precision, compiled: bool
) -> tuple[Engine, str | None]:
    """An engine, and where the refiner runs."""
    from napari_cfsr.core.engine.torch_engine import TorchEngine
    from napari_cfsr.core.weights import load_backbone, load_refiner

    network = load_backbone(files.backbone, files.scale)
    refiner, placement = None, None
    if files.refiner is not None:
        refiner, card = load_refiner(files.refiner, files.backbone)
        placement = card.placement
    engine = TorchEngine(network, refiner, placement or "output", device, precision, compiled)
    return engine, placement


def _describe(
    files: ModelFiles,
    placement: str | None,
    engine: Engine,
    precision: str,
    notes: tuple[str, ...],
) -> ModelInfo:
    refiner = files.refiner
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
    )
