"""Which device a network runs on.

A CPU is chosen without torch unless there may be a GPU: importing torch takes longer than upscaling
a small image.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from napari_cfsr.errors import DeviceError, OptionError


def choose_device(device: str) -> str:
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"` to a torch device of this machine.

    Raises `DeviceError` if this machine or this torch does not have it, `OptionError` if there is
    no such device.
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
    available = {"cuda": cuda, "mps": mps}[kind]
    if kind == "cuda" and available and ":" in device:
        available = device.split(":")[1] in map(str, range(torch.cuda.device_count()))
    if not available:
        raise DeviceError(
            f"device {device!r} is not available on this machine with this torch "
            f'({torch.__version__}): choose "auto" or "cpu"'
        )
    return device


def may_have_gpu() -> bool:
    """Whether it is worth asking torch for a GPU: a driver, or a torch for AMD."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        return True  # not installed as a package: let torch say
    if "rocm" in torch_version:
        return True
    if torch_version.endswith("+cpu"):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
