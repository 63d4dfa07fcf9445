"""Where a result comes from: everything that is needed to reproduce it."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from napari_cfsr.core.engine import ModelInfo
from napari_cfsr.core.upscale.options import UpscaleOptions
from napari_cfsr.core.upscale.run import UpscaleResult
from napari_cfsr.core.weights import official_path

PACKAGES = ("napari-cfsr", "torch", "openvino", "numpy", "napari")


def load_call(arguments: dict[str, Any]) -> str:
    """Python source of the `load_model` call with these arguments."""
    inside = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    return f"model = nc.load_model({inside})"


def upscale_call(options: UpscaleOptions, store: str = "") -> str:
    """Python source of the `upscale` call with these options; defaults are left out.

    With the path of a store, of the `upscale_to_zarr` call.
    """
    default = UpscaleOptions()
    given = {k: v for k, v in vars(options).items() if v != getattr(default, k)}
    function = "upscale_to_zarr" if store else "upscale"
    positional = ["image", "model", *([repr(store)] if store else [])]
    inside = ", ".join([*positional, *(f"{k}={v!r}" for k, v in given.items())])
    return f"result = nc.{function}({inside})"


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
    return "\n".join(
        [
            "import napari_cfsr as nc",
            "",
            f"image = {image}",
            load_call(load),
            upscale_call(options, store),
            "",
        ]
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
        "scale": info.scale,
        "backbone": info.backbone,
        "backbone_sha256": info.backbone_sha256,
        "refiner": info.refiner,
        "refiner_sha256": info.refiner_sha256,
        "placement": info.placement,
        "engine": info.engine,
        "device": info.device,
        "precision": info.precision,
        "tile": options.tile,
        "halo": options.halo,
        "ensemble": options.ensemble,
        "back_projection": options.back_projection,
        "axes": result.axes.names,
        "intensity": [
            {"low": m.low, "high": m.high, "dtype": m.dtype, "clip": m.clip} for m in result.mapping
        ],
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
