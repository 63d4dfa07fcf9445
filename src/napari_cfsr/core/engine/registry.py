"""The engines: what each can do, how it is chosen and how it is opened. Needs neither of them.

An engine takes and gives numpy arrays, so that its callers need no torch. To add one, write its
module and add an `EngineEntry` to `ENTRIES`.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine.bands import Crop
from napari_cfsr.core.image import ALIGN
from napari_cfsr.core.weights import ModelFiles
from napari_cfsr.errors import DeviceError, OptionError

Float32 = NDArray[np.float32]
Check = Callable[[], None]  # called often during a run; raises to stop it
Precision = Literal["float32", "fast"]

X86 = ("x86_64", "AMD64")  # what Linux, macOS and Windows call it
NO_BFLOAT16 = "fast precision is float32 here: this processor has no bfloat16"
SMALLEST_TILE = 32  # LR pixels
MEMORY_SHARE = 0.5  # of what is free


class Engine(Protocol):
    """Runs a backbone, and a refiner if there is one."""

    name: str
    device: str
    notes: tuple[str, ...]

    def run(
        self, batch: Float32, outputs: tuple[str, ...], check: Check, crop: Crop | None = None
    ) -> dict[str, Float32]:
        """RGB or gray [N,3 or 1,h,w] in [0,1] to `outputs` of as many channels, not clipped.

        Each is [N,3 or 1,h*scale,w*scale]; only the part of it that belongs to `crop`, if given.
        Gray is run as three equal channels and averaged.

        Raises `OutOfMemoryError`, `DeviceError`, and whatever `check` raises.
        """
        ...

    def refine(self, batch: Float32, check: Check) -> Float32:
        """The refiner alone, at the input: gray or RGB to RGB [N,3,h,w]; raises as `run`."""
        ...

    def free_memory(self) -> int:
        """Bytes that are free where the network runs."""
        ...

    def to_cpu(self) -> bool:
        """Move to the CPU; False if it runs there already."""
        ...


Opened = tuple[Engine, str | None]  # an engine, and where its refiner runs


@dataclass(frozen=True)
class EngineEntry:
    """What is known of an engine before it is imported."""

    title: str  # for messages
    # "module:function" in this room; called with the weights (`ModelFiles`), the device, the
    # precision and the number of CPU threads or None, it gives `Opened`
    opener: str
    package: str  # that has to be installed
    # of LR, while the network runs, refiner included; measured with `benchmarks/`
    bytes_per_pixel: int
    # largest side of a tile, LR pixels: larger ones have less halo but wait longer for memory
    cpu_tile: int
    gpu_tile: int  # 0: it runs on the CPU only
    # machines on whose CPU `"auto"` takes it, as `platform.machine` names them
    preferred_on: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def largest_tile(self, device: str, free: int, halo: int) -> int:
        """Largest side of a tile, halo left out, that fits into `free` bytes; LR pixels."""
        side = int((free * MEMORY_SHARE / self.bytes_per_pixel) ** 0.5) - 2 * halo
        most = self.cpu_tile if device == "cpu" else self.gpu_tile
        return max(SMALLEST_TILE, min(side, most) // ALIGN * ALIGN)

    def open(
        self, files: ModelFiles, device: str, precision: Precision, threads: int | None
    ) -> Opened:
        """Load the weights; raises `ImportError` if a library that it needs can't be loaded."""
        module, function = self.opener.split(":")
        opener = getattr(import_module(f"napari_cfsr.core.engine.{module}"), function)
        opened: Opened = opener(files, device, precision, threads)
        return opened


ENTRIES = {
    "torch": EngineEntry(
        "torch",
        "torch_engine:open_engine",
        package="torch",
        bytes_per_pixel=6_000,
        cpu_tile=256,  # cancelling has to wait for a block of the network to end
        gpu_tile=512,
    ),
    "openvino": EngineEntry(
        "OpenVINO",
        "openvino_engine:open_engine",
        package="openvino",
        bytes_per_pixel=3_000,
        cpu_tile=512,
        gpu_tile=0,
        preferred_on=X86,  # where it was measured
    ),
}
ENTRIES["torch-compile"] = replace(
    ENTRIES["torch"], title="torch.compile", opener="torch_engine:open_compiled"
)
DEFAULT = "torch"  # runs everywhere
ENGINES = ("auto", *ENTRIES)


def check_precision(precision: str) -> None:
    """Raise `OptionError` unless it is a precision."""
    if precision not in ("float32", "fast"):
        raise OptionError(f'expected precision "float32" or "fast", got {precision!r}')


def choose_engine(engine: str, device: str) -> str:
    """`"auto"` and the other names of `ENGINES` to one that runs on a device.

    `"auto"` is a rule and not a measurement, so that a machine always gives the same bits: an
    engine that is installed and preferred on this machine's CPU, else torch. Raises `DeviceError`
    if an engine is not installed or does not run on the device, `OptionError` if it does not exist.
    """
    if engine not in ENGINES:
        names = ", ".join(f'"{name}"' for name in ENGINES)
        raise OptionError(f"expected engine {names}, got {engine!r}")
    if engine == "auto":
        return _preferred(device)
    entry = ENTRIES[engine]
    if device != "cpu" and not entry.gpu_tile:
        raise DeviceError(f'engine "{engine}" runs on the CPU, got device {device!r}')
    if not entry.installed:
        raise DeviceError(
            f'engine "{engine}" is not installed: "pip install {entry.package}", or choose "auto"'
        )
    return engine


def _preferred(device: str) -> str:
    """The engine that `"auto"` takes."""
    here = platform.machine() if device == "cpu" else ""
    return next((k for k, e in ENTRIES.items() if here in e.preferred_on and e.installed), DEFAULT)
