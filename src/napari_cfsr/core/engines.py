"""How a network is run: on which device, in which precision, with how much memory.

An engine takes and gives numpy arrays, so that whoever calls it needs no torch.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cfsr.core.cfsr import CFSR, on_each_block
from napari_cfsr.core.refinenet import RECEPTIVE_FIELD, Placement, RefineNet
from napari_cfsr.errors import DeviceError, OptionError, OutOfMemoryError

Float32 = NDArray[np.float32]
Check = Callable[[], None]  # called often during a run; raises to stop it
Precision = Literal["float32", "fast"]

OUT_OF_MEMORY = (  # what torch says of it on Linux, Windows, with oneDNN, on CUDA and MPS
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory",
    "out of memory",
    "Invalid buffer size",
)
BAND = 2**18  # pixels of a band that the refiner runs on at a time: its 32 channels stay in cache


class Engine(Protocol):
    """Runs a backbone, and a refiner if there is one."""

    name: str
    device: str

    def run(self, batch: Float32, outputs: tuple[str, ...], check: Check) -> dict[str, Float32]:
        """RGB [N,3,h,w] in [0,1] to `outputs`, each [N,3,h*scale,w*scale], not clipped.

        Raises `OutOfMemoryError`, `DeviceError`, and whatever `check` raises.
        """
        ...

    def free_memory(self) -> int:
        """Bytes that are free where the network runs."""
        ...

    def to_cpu(self) -> bool:
        """Go on on the CPU; False if that is where it runs already."""
        ...


def choose_device(device: str) -> str:
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"` to a torch device that is there.

    Raises
    ------
    DeviceError
        It is not there.
    OptionError
        It does not exist.
    """
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise OptionError(f'expected device "auto", "cpu", "cuda" or "mps", got {device!r}')
    there = {"cpu": True, "cuda": cuda, "mps": mps}[kind]
    if kind == "cuda" and there and ":" in device:
        there = device.split(":")[1] in map(str, range(torch.cuda.device_count()))
    if not there:
        raise DeviceError(
            f"device {device!r} is not to be had with this machine and this torch "
            f'({torch.__version__}): choose "auto" or "cpu"'
        )
    return device


def keep_freed_memory() -> None:
    """Let the C library keep large blocks for reuse instead of giving each back to the system.

    For processes that do nothing but run a network. Without it, each layer's output is mapped anew
    and the system clears every page of it: the network then takes two to four times as long.
    Only with glibc; elsewhere, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
        mallopt(m_mmap_threshold, 2**30)
        mallopt(m_trim_threshold, 2**29)
        mallopt(m_top_pad, 2**26)


@contextmanager
def domain_errors(device: str) -> Iterator[None]:
    """Torch raises RuntimeErrors for lack of memory and for faults of the device; name them."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(f"out of memory on {device}") from error
    except RuntimeError as error:
        text = str(error)
        oom = isinstance(error, torch.OutOfMemoryError) or any(s in text for s in OUT_OF_MEMORY)
        if oom:
            raise OutOfMemoryError(f"out of memory on {device}: {text.splitlines()[0]}") from error
        raise DeviceError(f"the network failed on {device}: {text}") from error


class TorchEngine:
    """Runs the networks with torch, channels last.

    Parameters
    ----------
    backbone : CFSR
        In evaluation mode.
    refiner : RefineNet or None
    placement : {"output", "input"}
        Where the refiner runs.
    device : str
        A torch device.
    precision : {"float32", "fast"}
        `fast` computes the convolutions in bfloat16 on the CPU and in float16 elsewhere; LayerNorm
        stays in float32, since its squares overflow float16.
    """

    name = "torch"

    def __init__(
        self,
        backbone: CFSR,
        refiner: RefineNet | None,
        placement: Placement,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if precision not in ("float32", "fast"):
            raise OptionError(f'expected precision "float32" or "fast", got {precision!r}')
        self._backbone, self._refiner, self._placement = backbone, refiner, placement
        self._precision = precision
        self._check: Check = lambda: None
        on_each_block(backbone, lambda: self._check())
        self._move(device)

    def _move(self, device: str) -> None:
        self.device = device
        with domain_errors(device):
            for network in (self._backbone, self._refiner):
                if network is not None:
                    # the keyword form of `to` has no overload for both arguments
                    network.to(device)
                    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to_cpu(self) -> bool:
        if self.device == "cpu":
            return False
        self._move("cpu")
        return True

    def free_memory(self) -> int:
        if self.device.startswith("cuda"):
            return int(torch.cuda.mem_get_info(self.device)[0])
        return int(psutil.virtual_memory().available)

    def run(self, batch: Float32, outputs: tuple[str, ...], check: Check) -> dict[str, Float32]:
        self._check = check
        with (
            domain_errors(self.device),
            torch.inference_mode(),
            self._autocast(),
            self._true_float32(),
        ):
            # a copy: torch takes no negative strides, not even along an axis of length 1
            x = torch.from_numpy(batch.copy()).to(self.device)
            x = x.contiguous(memory_format=torch.channels_last)
            result = self._forward(x, outputs)
            return {k: v.float().contiguous().cpu().numpy() for k, v in result.items()}

    def _forward(self, x: Tensor, outputs: tuple[str, ...]) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        at_input = self._placement == "input"
        if "baseline" in outputs or not at_input:
            result["baseline"] = self._backbone(x)
        if "delta" in outputs and self._refiner is not None:
            if at_input:
                result["delta"] = self._backbone(self._refiner(x))
            else:
                result["delta"] = self._refine(result["baseline"])
        return {name: result[name] for name in outputs}

    def _refine(self, image: Tensor) -> Tensor:
        """The refiner in bands of rows: its 32 channels at output resolution are large."""
        assert self._refiner is not None
        height, width = image.shape[2:]
        rows = max(16, BAND // max(width, 1))
        result = torch.empty_like(image)
        for start in range(0, height, rows):
            self._check()
            stop = min(start + rows, height)
            top, bottom = max(start - RECEPTIVE_FIELD, 0), min(stop + RECEPTIVE_FIELD, height)
            band = self._refiner(image[:, :, top:bottom])
            result[:, :, start:stop] = band[:, :, start - top : stop - top]
        return result

    def _true_float32(self) -> AbstractContextManager[None]:
        """Keep CUDA from computing float32 convolutions with ten bits (TF32), its default."""
        if self._precision != "float32" or not self.device.startswith("cuda"):
            return nullcontext()
        cudnn = torch.backends.cudnn
        flags: AbstractContextManager[None] = cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        )
        return flags

    def _autocast(self) -> Any:
        kind = self.device.split(":")[0]
        dtype = torch.bfloat16 if kind == "cpu" else torch.float16
        return torch.autocast(kind, dtype=dtype, enabled=self._precision == "fast")
