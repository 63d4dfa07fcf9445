"""Super-resolution of napari layers with a frozen CFSR backbone and a small trainable refiner.

The array API: arrays in, arrays out. Importing this package imports neither torch nor Qt; each
name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cfsr._version import __version__
    from napari_cfsr.core.cluster import iter_upscale_on_cluster
    from napari_cfsr.core.degradation import degrade
    from napari_cfsr.core.files import read_image
    from napari_cfsr.core.inference import UpscaleResult, iter_upscale, upscale
    from napari_cfsr.core.lazy import upscale_dask
    from napari_cfsr.core.metrics import error_map, psnr, ssim, ssim_map
    from napari_cfsr.core.model import SRModel, load_model
    from napari_cfsr.core.open_image import open_image
    from napari_cfsr.core.trained import TrainedRefiner
    from napari_cfsr.core.training import iter_train, train_refiner
    from napari_cfsr.core.training_config import TrainConfig
    from napari_cfsr.core.zarr_run import iter_upscale_to_zarr, upscale_to_zarr

_WHERE = {
    "SRModel": "core.model",
    "TrainConfig": "core.training_config",
    "TrainedRefiner": "core.trained",
    "UpscaleResult": "core.inference",
    "__version__": "_version",
    "degrade": "core.degradation",
    "error_map": "core.metrics",
    "iter_train": "core.training",
    "iter_upscale": "core.inference",
    "iter_upscale_on_cluster": "core.cluster",
    "iter_upscale_to_zarr": "core.zarr_run",
    "load_model": "core.model",
    "open_image": "core.open_image",
    "psnr": "core.metrics",
    "read_image": "core.files",
    "ssim": "core.metrics",
    "ssim_map": "core.metrics",
    "train_refiner": "core.training",
    "upscale": "core.inference",
    "upscale_dask": "core.lazy",
    "upscale_to_zarr": "core.zarr_run",
}

__all__ = [
    "SRModel",
    "TrainConfig",
    "TrainedRefiner",
    "UpscaleResult",
    "__version__",
    "degrade",
    "error_map",
    "iter_train",
    "iter_upscale",
    "iter_upscale_on_cluster",
    "iter_upscale_to_zarr",
    "load_model",
    "open_image",
    "psnr",
    "read_image",
    "ssim",
    "ssim_map",
    "train_refiner",
    "upscale",
    "upscale_dask",
    "upscale_to_zarr",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
