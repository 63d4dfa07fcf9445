"""Where a result comes from: everything that is needed to reproduce it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from napari_cfsr.core.engine import ModelInfo
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.upscale.run import UpscaleResult
from napari_cfsr.core.weights import official_path

OF_MODEL = (
    "scale", "backbone", "backbone_sha256", "refiner", "refiner_sha256", "placement", "engine",
    "device", "precision",
)  # fmt: skip
OF_RUN = ("tile", "halo", "ensemble", "back_projection", "refiner_ensemble")
PACKAGES = ("napari-cfsr", "torch", "openvino", "numpy", "napari")


def python_call(image: str, load: dict[str, Any], options: UpscaleOptions, store: str = "") -> str:
    """Python source that makes the result.

    Parameters
    ----------
    image : str
        An expression for the image.
    load : dict
        Arguments of `load_model`.
    options : UpscaleOptions
        Options of `upscale`.
    store : str
        Path of the store that the result goes to; in memory if empty.
    """
    default = UpscaleOptions()
    loading = [f"{k}={v!r}" for k, v in load.items()]
    given = [f"{k}={v!r}" for k, v in vars(options).items() if v != getattr(default, k)]
    given = [text.replace("NoiseModel(", "nc.NoiseModel(") for text in given]
    function, target = ("upscale_to_zarr", [repr(store)]) if store else ("upscale", [])
    return (
        "import napari_cfsr as nc\n\n"
        f"image = {image}\n"
        f"model = nc.load_model({', '.join(loading)})\n"
        f"result = nc.{function}({', '.join(['image', 'model', *target, *given])})\n"
    )


def load_arguments(info: ModelInfo) -> dict[str, Any]:
    """Arguments of `load_model` that give exactly this model on this machine."""
    kind = info.backbone.split()[0]
    # that word does not find official weights in a folder that only napari's preferences name
    by_word = kind == "bundled" or (kind == "official" and official_path(info.scale) is not None)
    return {
        "scale": info.scale,
        "backbone": kind if by_word else info.backbone_path,
        "refiner": info.refiner_path,
        "device": info.device,
        "precision": info.precision,
        "engine": info.engine,
    }


def record_provenance(
    result: UpscaleResult, source: str, image: str, store: str = ""
) -> dict[str, Any]:
    """Record of a run, in plain values.

    Parameters
    ----------
    result : UpscaleResult
    source : str
        Name of the input layer or file.
    image : str
        Expression for the image in the Python call.
    store : str
        Path of the store that the result went to, if it did.
    """
    options, info = result.options, result.info
    return {
        "input": source,
        **{name: getattr(info, name) for name in OF_MODEL},
        **{name: getattr(options, name) for name in OF_RUN},
        **({"noise": [n and asdict(n) for n in options.noise]} if options.noise else {}),
        "axes": result.axes.names,
        "intensity": [asdict(mapping) for mapping in result.mapping],
        "versions": versions(),
        "seconds": round(result.seconds, 3),
        "notes": list(result.notes),
        "python": python_call(image, load_arguments(info), options, store),
    }


def describe(result: UpscaleResult) -> str:
    """What ran, in one line."""
    info = result.info
    refiner = f"refiner {info.refiner}" if info.refiner else "no refiner"
    parts = [
        f"x{info.scale} with {info.backbone}, {refiner}",
        f"{info.engine} on {info.device}, {info.precision}",
        f"{result.seconds:.1f} s",
        *result.notes,
    ]
    return "; ".join(parts)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Of Python, and of those packages that are installed."""
    return dict(_versions(packages))


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
