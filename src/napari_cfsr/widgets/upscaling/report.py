"""What the Upscale widget says of a run that is over."""

from __future__ import annotations

from napari_cfsr.core.upscale import UpscaleResult, duration
from napari_cfsr.workers import StoreOutcome, UpscaleOutcome


def stored(outcome: StoreOutcome) -> str:
    """What ran and where the result is."""
    done = outcome.done
    parts = [*_ran(done.result), f"written to {done.path}"]
    if done.resumed:
        parts.append(f"{done.resumed} of {done.blocks} blocks were there from an earlier run")
    return "; ".join([*parts, *done.result.notes]) + "."


def summary(outcome: UpscaleOutcome) -> str:
    """What ran, in one line or two."""
    result = outcome.result
    parts = _ran(result)
    if outcome.difference is not None:
        low, high = outcome.limits
        unit = "units of the data" if result.mapping[0].dtype.startswith("float") else "grey levels"
        of_luma = " of luma" if "S" in result.axes.names else ""
        parts.append(f"difference{of_luma} {low:+.3g} to {high:+.3g} {unit}")
    return "; ".join([*parts, *result.notes]) + "."


def _ran(result: UpscaleResult) -> list[str]:
    """Scale, time, weights and engine."""
    info = result.info
    return [
        f"x{info.scale} in {duration(result.seconds)}",
        info.backbone,
        f"refiner {info.refiner}" if info.refiner else "no refiner for this backbone",
        f"{info.engine} on {info.device}, {info.precision}",
    ]
