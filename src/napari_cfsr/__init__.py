"""Super-resolution of napari layers with a frozen CFSR backbone and a small trainable refiner.

The array API: arrays in, arrays out. Importing this package imports neither torch nor Qt; each
name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cfsr._version import __version__
    from napari_cfsr.core.cluster.run import iter_upscale_on_cluster
    from napari_cfsr.core.engine.model import SRModel, load_model
    from napari_cfsr.core.image.degradation import degrade
    from napari_cfsr.core.io.image_files import read_image
    from napari_cfsr.core.io.lazy_reader import open_image
    from napari_cfsr.core.metrics.image_metrics import error_map, psnr, ssim, ssim_map
    from napari_cfsr.core.store.run import iter_upscale_to_zarr, upscale_to_zarr
    from napari_cfsr.core.training.config import TrainConfig
    from napari_cfsr.core.training.results import TrainedRefiner
    from napari_cfsr.core.training.train import iter_train, train_refiner
    from napari_cfsr.core.upscale.dask_arrays import upscale_dask
    from napari_cfsr.core.upscale.run import UpscaleResult, iter_upscale, upscale

_WHERE = {
    "SRModel": "core.engine.model",
    "TrainConfig": "core.training.config",
    "TrainedRefiner": "core.training.results",
    "UpscaleResult": "core.upscale.run",
    "__version__": "_version",
    "degrade": "core.image.degradation",
    "error_map": "core.metrics.image_metrics",
    "iter_train": "core.training.train",
    "iter_upscale": "core.upscale.run",
    "iter_upscale_on_cluster": "core.cluster.run",
    "iter_upscale_to_zarr": "core.store.run",
    "load_model": "core.engine.model",
    "open_image": "core.io.lazy_reader",
    "psnr": "core.metrics.image_metrics",
    "read_image": "core.io.image_files",
    "ssim": "core.metrics.image_metrics",
    "ssim_map": "core.metrics.image_metrics",
    "train_refiner": "core.training.train",
    "upscale": "core.upscale.run",
    "upscale_dask": "core.upscale.dask_arrays",
    "upscale_to_zarr": "core.store.run",
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
