"""How far the networks see, and the halo that follows from it. Needs no torch."""

from __future__ import annotations

BACKBONE_FIELD = 63  # LR pixels to each side that a pixel depends on
REFINER_FIELD = 3  # pixels to each side, of the image that the refiner runs on
BACK_PROJECTION_FIELD = 8  # LR pixels: 4 of the reduction, 2 of the enlargement, rounded up
MULTIPLE = 8  # of a halo


def exact_halo(scale: int, placement: str | None) -> int:
    """Halo in LR pixels beyond which nothing changes; placement None: without a refiner."""
    field = BACKBONE_FIELD
    if placement == "output":
        field += -(-REFINER_FIELD // scale)
    elif placement == "input":
        field += REFINER_FIELD
    return -(-field // MULTIPLE) * MULTIPLE
