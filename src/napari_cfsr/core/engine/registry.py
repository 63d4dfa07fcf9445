"""How a network is run: by which engine, on which device, with how much memory.

An engine takes and gives numpy arrays, so that whoever calls it needs no torch. Choosing one needs
none either, unless there may be a GPU: importing torch takes longer than upscaling a small image.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.errors import DeviceError, OptionError

Float32 = NDArray[np.float32]
Check = Callable[[], None]  # called often during a run; raises to stop it
Precision = Literal["float32", "fast"]
Crop = tuple[slice, slice]  # rows and columns, LR pixels

ENGINES = ("auto", "torch", "openvino", "torch-compile")
X86 = ("x86_64", "AMD64")  # what Linux, macOS and Windows call it
NO_BFLOAT16 = "fast precision is float32 here: this processor has no bfloat16"
BAND = 2**18  # pixels of a band that the refiner runs on at a time: its 32 channels stay in cache


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

    def free_memory(self) -> int:
        """Bytes that are free where the network runs."""
        ...

    def to_cpu(self) -> bool:
        """Go on on the CPU; False if that is where it runs already."""
        ...


def check_precision(precision: str) -> None:
    """Raise `OptionError` unless it is one."""
    if precision not in ("float32", "fast"):
        raise OptionError(f'expected precision "float32" or "fast", got {precision!r}')


def choose_device(device: str) -> str:
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"` to a torch device that is there.

    Raises
    ------
    DeviceError
        It is not there.
    OptionError
        It does not exist.
    """
    kind = device.split(":")[0]
    if kind == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    if device != "auto" and kind not in ("cuda", "mps"):
        raise OptionError(f'expected device "auto", "cpu", "cuda" or "mps", got {device!r}')
    import torch

    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    there = {"cuda": cuda, "mps": mps}[kind]
    if kind == "cuda" and there and ":" in device:
        there = device.split(":")[1] in map(str, range(torch.cuda.device_count()))
    if not there:
        raise DeviceError(
            f"device {device!r} is not to be had with this machine and this torch "
            f'({torch.__version__}): choose "auto" or "cpu"'
        )
    return device


def may_have_gpu() -> bool:
    """Whether it is worth asking torch for a GPU: there is a driver, or torch is made for AMD's."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        return True  # installed in some way of its own: let torch say
    if "rocm" in torch_version:
        return True
    if torch_version.endswith("+cpu"):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def choose_engine(engine: str, device: str) -> str:
    """`"auto"` and the other names of `ENGINES` to one that runs on a device.

    `"auto"` is OpenVINO on the CPUs that it was measured on (x86-64), where it is installed; torch
    elsewhere. It is a rule and not a measurement, so that a machine always gives the same bits.

    Raises
    ------
    DeviceError
        OpenVINO is not installed, or the device is not one of its.
    OptionError
        There is no such engine.
    """
    if engine not in ENGINES:
        names = ", ".join(f'"{name}"' for name in ENGINES)
        raise OptionError(f"expected engine {names}, got {engine!r}")
    if engine in ("torch", "torch-compile"):
        return engine
    if engine == "auto":
        fits = device == "cpu" and platform.machine() in X86
        return "openvino" if fits and has_openvino() else "torch"
    if device != "cpu":
        raise DeviceError(f'engine "openvino" runs on the CPU, got device {device!r}')
    if not has_openvino():
        raise DeviceError(
            'engine "openvino" is not installed: "pip install openvino", or choose "auto"'
        )
    return engine


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def keep_freed_memory() -> None:
    """Let the C library keep large blocks for reuse instead of giving each back to the system.

    For processes that do nothing but run a network. Without it, each layer's output is mapped anew
    and the system clears every page of it: with torch, the network then takes up to two and a half
    times as long.
    Only with glibc; elsewhere, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8  # malloc.h
        mallopt(m_arena_max, 1)  # arenas of other threads than the first keep nothing above 64 MB
        mallopt(m_mmap_threshold, 2**30)
        mallopt(m_trim_threshold, 2**29)
        mallopt(m_top_pad, 2**26)


def ask_for_large_pages() -> None:
    """Ask the system for large pages where this process has allocated memory and not yet used it.

    In each layer, a network reads and writes features that lie on tens of thousands of small pages,
    and looking those up takes time. Only on Linux, and of use only after `keep_freed_memory`.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise, hugepage = ctypes.CDLL(None).madvise, 14  # sys/mman.h
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            if line.endswith("[heap]\n"):
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                madvise(start, end - start, hugepage)  # a wish: nothing is wrong if it is not met


def refiner_bands(
    crop: Crop, shape: tuple[int, ...], scale: int, field: int
) -> list[tuple[slice, slice, slice]]:
    """Bands of rows that the refiner runs on: its 32 channels at output resolution are large.

    Parameters
    ----------
    crop : (slice, slice)
        Part of the input that is kept, LR pixels.
    shape : tuple of int
        [..., height, width] of the image that the refiner runs on, output pixels.
    scale : int
    field : int
        Pixels that the refiner sees to each side.

    Returns
    -------
    list of (slice, slice, slice)
        Rows to read, output pixels; rows of what comes out that are kept; rows of the kept part
        that they are. Columns to read are those of `crop`, and `field` more where there are any.
    """
    top, bottom = crop[0].start * scale, crop[0].stop * scale
    width = (crop[1].stop - crop[1].start) * scale
    rows = max(16, BAND // max(width, 1))
    bands = []
    for start in range(top, bottom, rows):
        stop = min(start + rows, bottom)
        read = slice(max(start - field, 0), min(stop + field, shape[-2]))
        keep = slice(start - read.start, stop - read.start)
        bands.append((read, keep, slice(start - top, stop - top)))
    return bands


def refiner_columns(
    crop: Crop, shape: tuple[int, ...], scale: int, field: int
) -> tuple[slice, slice]:
    """Columns that the refiner reads for `crop`, output pixels, and which of them are kept."""
    left, right = crop[1].start * scale, crop[1].stop * scale
    read = slice(max(left - field, 0), min(right + field, shape[-1]))
    return read, slice(left - read.start, right - read.start)
