"""How far the networks see, and the halo that follows from it. Needs no torch."""

from __future__ import annotations

BACKBONE_FIELD = 63  # LR pixels to each side that a pixel depends on
REFINER_FIELD = 3  # of RefineNet: pixels to each side, of the image that the refiner runs on
REFINER_FIELDS = {"RefineNet": REFINER_FIELD, "RefineNet dilated": 4, "UNetRefiner": 31}
BACK_PROJECTION_FIELD = 8  # LR pixels: 4 of the reduction, 2 of the enlargement, rounded up
REFINER_STRIDE = 4  # sides of what a UNetRefiner runs on are multiples of it
MULTIPLE = 8  # of a halo


def exact_halo(scale: int, placement: str | None, network: str = "RefineNet") -> int:
    """Halo in LR pixels beyond which nothing changes; placement None: without a refiner."""
    field, refiner_field = BACKBONE_FIELD, REFINER_FIELDS[network]
    if placement == "output":
        field += -(-refiner_field // scale)
    elif placement == "input":
        field += refiner_field
    return -(-field // MULTIPLE) * MULTIPLE
