"""Running the networks with torch: CPU, CUDA, MPS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from napari_cfsr.core.engine.bands import Crop, refiner_bands
from napari_cfsr.core.engine.registry import (
    NO_BFLOAT16,
    Check,
    Float32,
    Opened,
    Precision,
    check_precision,
)
from napari_cfsr.core.image import scaled
from napari_cfsr.core.network import CFSR, REFINER_FIELD, FoldedCFSR, Placement, Refiner, fold
from napari_cfsr.core.weights import ModelFiles, load_backbone, load_refiner
from napari_cfsr.errors import DeviceError, OutOfMemoryError

OUT_OF_MEMORY = (  # words of torch on Linux, Windows, with oneDNN, on CUDA and MPS
    "can't allocate memory", "not enough memory", "could not create a primitive",
    "could not create a memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED", "Invalid buffer size",
)  # fmt: skip


@contextmanager
def domain_errors(device: str) -> Iterator[None]:
    """Turn the RuntimeErrors that torch raises for lack of memory and device faults into ours."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"out of memory on {device}") from error
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or any(s in text for s in OUT_OF_MEMORY):
            raise OutOfMemoryError(f"out of memory on {device}: {text.splitlines()[0]}") from error
        raise DeviceError(f"the network failed on {device}: {text}") from error


def folded_network(backbone: CFSR) -> FoldedCFSR:
    """The inference form of a backbone in merged form."""
    state = {name: value.detach().cpu().numpy() for name, value in backbone.state_dict().items()}
    return FoldedCFSR(fold(state), fold(state, gray=True))


def half_type(device: str) -> torch.dtype | None:
    """The type that `fast` computes in on a device; None where nothing is faster than float32.

    bfloat16 on a processor without instructions for it takes longer than float32.
    """
    if device.split(":")[0] != "cpu":
        return torch.float16
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public ones
    known = (getattr(torch.cpu, name, None) for name in names)
    return torch.bfloat16 if any(ask is not None and ask() for ask in known) else None


def compile_mode(device: str) -> str:
    """Mode of `torch.compile`: with CUDA graphs where these work in any thread."""
    graphs = device.startswith("cuda") and TorchVersion(torch.__version__) >= "2.13"
    return "reduce-overhead" if graphs else "default"


@contextmanager
def true_float32() -> Iterator[None]:
    """Keep CUDA from computing float32 convolutions with ten bits (TF32), its default."""
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):  # before torch 2.9
        with cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        ):
            yield
        return
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before


def open_engine(
    files: ModelFiles,
    device: str,
    precision: Precision,
    _threads: int | None,
    compiled: bool = False,
) -> Opened:
    """Load weights; see `EngineEntry.opener`. Torch has its own setting of threads."""
    network = load_backbone(files.backbone, files.scale)
    refiner, placement = None, None
    if files.refiner is not None:
        refiner, card = load_refiner(files.refiner, files.backbone)
        placement = card.placement
    engine = TorchEngine(network, refiner, placement or "output", device, precision, compiled)
    return engine, placement


open_compiled = partial(open_engine, compiled=True)


class TorchEngine:
    """Runs the networks with torch, channels last.

    The backbone is in merged form, the refiner in evaluation mode; `placement` says where it runs.
    `fast` computes the convolutions in float16, or in bfloat16 on CPUs that have it; sums and
    LayerNorm, whose squares overflow float16, stay in float32. `compiled`: `torch.compile` makes
    kernels for each shape, which needs a compiler and time; on CUDA, it records CUDA graphs.
    """

    def __init__(
        self,
        backbone: CFSR,
        refiner: Refiner | None,
        placement: Placement,
        device: str = "cpu",
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        check_precision(precision)
        self.name = "torch-compile" if compiled else "torch"
        self._network = folded_network(backbone)
        self._refiner, self._placement = refiner, placement
        self._precision, self._compiled = precision, compiled
        self._move(device)

    def _move(self, device: str) -> None:
        if device == "cuda":  # which one it is depends on the thread
            device = f"cuda:{torch.cuda.current_device()}"
        self.device = device
        self.half = half_type(device) if self._precision == "fast" else None
        slow = self._precision == "fast" and self.half is None
        self.notes: tuple[str, ...] = (NO_BFLOAT16,) if slow else ()
        with domain_errors(device):
            for network in (self._network, self._refiner):
                if network is not None:
                    # the keyword form of `to` has no overload for both arguments
                    network.to(device)
                    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._backbone: Any = self._network
        if self._compiled:
            self._backbone = torch.compile(self._network, dynamic=False, mode=compile_mode(device))

    def to_cpu(self) -> bool:
        if self.device == "cpu":
            return False
        self._move("cpu")
        return True

    def free_memory(self) -> int:
        if self.device.startswith("cuda"):
            kept = torch.cuda.memory_reserved(self.device)  # by torch, some of it unused
            unused = kept - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0] + unused)
        return int(psutil.virtual_memory().available)

    def run(
        self, batch: Float32, outputs: tuple[str, ...], check: Check, crop: Crop | None = None
    ) -> dict[str, Float32]:
        height, width = batch.shape[2:]
        crop = crop or (slice(0, height), slice(0, width))
        # a compiled network can't call Python half-way
        self._network.check = (lambda: None) if self._compiled else check
        check()
        true = self._precision == "float32" and self.device.startswith("cuda")
        try:
            with (
                domain_errors(self.device),
                torch.inference_mode(),
                self._autocast(),
                true_float32() if true else nullcontext(),
            ):
                result = self._forward(self._upload(batch), outputs, check, crop)
                return {name: self._download(value) for name, value in result.items()}
        finally:
            self._network.check = lambda: None  # it may hold a whole image and its result

    def refine(self, batch: Float32, check: Check) -> Float32:
        check()
        assert self._refiner is not None
        true = self._precision == "float32" and self.device.startswith("cuda")
        with (
            domain_errors(self.device),
            torch.inference_mode(),
            self._autocast(),
            true_float32() if true else nullcontext(),
        ):
            x = self._upload(batch).expand(-1, 3, -1, -1)
            return self._download(x + self._refiner.body(x).float())

    def _upload(self, batch: Float32) -> Tensor:
        # a copy: torch takes no negative strides, not even along an axis of length 1
        x = torch.from_numpy(batch.copy())
        cuda = self.device.startswith("cuda")
        if cuda:
            x = x.pin_memory()
        # elsewhere the copy could still be running when its source is freed
        x = x.to(self.device, non_blocking=cuda)
        return x.contiguous(memory_format=torch.channels_last)

    def _download(self, value: Tensor) -> Float32:
        value = value.float().contiguous()
        if self.device.startswith("cuda"):
            pinned = torch.empty(value.shape, pin_memory=True)
            value = pinned.copy_(value)
        array: Float32 = value.cpu().numpy()
        return array

    def _forward(
        self, x: Tensor, outputs: tuple[str, ...], check: Check, crop: Crop
    ) -> dict[str, Tensor]:
        gray, at_input = x.shape[1] == 1, self._placement == "input"
        refined = "delta" in outputs and self._refiner is not None
        in_colour = refined and not at_input  # the refiner sees all three channels
        scale = self._network.scale
        part = scaled(crop, scale)
        result: dict[str, Tensor] = {}
        if "baseline" in outputs or in_colour:
            full = self._backbone(x, gray and not in_colour)
            if self._compiled:
                full = full.clone()  # the next call reuses its memory
            result["baseline"] = full[..., *part]
        if refined and self._refiner is not None:
            if at_input:
                seen = self._refiner(x.expand(-1, 3, -1, -1))
                result["delta"] = self._backbone(seen, gray)[..., *part]
            else:
                result["delta"] = self._refine(full, scale, check, crop)
        wanted = {name: result[name] for name in outputs}
        if gray and in_colour:
            wanted = {name: value.float().mean(1, keepdim=True) for name, value in wanted.items()}
        return wanted

    def _refine(self, image: Tensor, scale: int, check: Check, crop: Crop) -> Tensor:
        """The refiner on what is kept of an image, in bands of rows."""
        assert self._refiner is not None
        shape = tuple(image.shape)
        size = [(s.stop - s.start) * scale for s in crop]
        result = image.new_empty((*shape[:2], *size))
        for read, keep, rows in refiner_bands(crop, shape, scale, REFINER_FIELD):
            check()
            result[:, :, rows] = self._refiner(image[:, :, *read])[:, :, *keep]
        return result

    def _autocast(self) -> Any:
        kind = self.device.split(":")[0]
        dtype = self.half or torch.bfloat16
        return torch.autocast(kind, dtype=dtype, enabled=self.half is not None)
