"""Which images are for training, which for validation, and which are held out for the report.

The three parts share no image, or no pixel if there are fewer than three images. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.data import TrainData

Role = Literal["train", "validation", "held_out"]
ROLES: tuple[Role, ...] = ("held_out", "validation", "train")

AREA_SHARE = 0.2  # of the longer side, for each of validation and held out of one image
MOST_IMAGES = {"train": 500, "validation": 12, "held_out": 16}
LEAST_GROUPS = 3  # fewer groups are not split as a whole: one is needed for each role
LEAST_SITES = 3  # places of a stack, likewise


@dataclass(frozen=True)
class Part:
    """An image, or a part of one, with its role."""

    index: int  # of the image in the data
    role: Role
    # start and end as shares of the longer side; None for the whole image
    area: tuple[float, float] | None = None


def split(data: TrainData, config: TrainConfig) -> list[Part]:
    """Give each image, or each part of an image, a role, depending on the seed.

    Whole groups (files, stacks) if there are at least three of them. Otherwise runs of neighbouring
    places within a stack, each with all its channels and time points. Stacks with fewer than three
    places are split by area, the same for all planes.
    """
    rng = np.random.default_rng([config.run_seed, 0])
    groups: dict[str, list[int]] = {}
    for i, source in enumerate(data.hr):
        groups.setdefault(source.group, []).append(i)
    if len(groups) >= LEAST_GROUPS:
        names = [str(name) for name in rng.permutation(list(groups))]
        roles = _roles(len(names), config.held_out)
        return [Part(i, r) for name, r in zip(names, roles, strict=True) for i in groups[name]]
    parts = []
    for members in groups.values():
        sites: dict[str, list[int]] = {}
        for i in members:
            sites.setdefault(data.hr[i].site, []).append(i)
        places = list(sites.values())
        if len(places) >= LEAST_SITES:
            start = int(rng.integers(len(places)))
            order = places[start:] + places[:start]
            roles = _roles(len(places), config.held_out)
            parts += [Part(i, r) for at, r in zip(order, roles, strict=True) for i in at]
        else:
            flipped = bool(rng.integers(2))
            parts += [part for i in members for part in _areas(i, flipped)]
    return parts


def _roles(count: int, share: float) -> list[Role]:
    """Roles of so many images: held out, then validation, then training."""
    few = min(max(1, round(count * share)), (count - 1) // 2)
    roles: dict[Role, int] = {"held_out": few, "validation": few, "train": count - 2 * few}
    return [role for role, number in roles.items() for _ in range(number)]


def _areas(index: int, flipped: bool) -> list[Part]:
    ends: list[Role] = ["held_out", "validation"]
    first, last = ends[::-1] if flipped else ends
    return [
        Part(index, first, (0.0, AREA_SHARE)),
        Part(index, "train", (AREA_SHARE, 1 - AREA_SHARE)),
        Part(index, last, (1 - AREA_SHARE, 1.0)),
    ]


def thinned(parts: list[Part], most_to_train: int) -> list[Part]:
    """At most so many parts for each role, evenly chosen; in the order of roles, then of images."""
    most = {**MOST_IMAGES, "train": min(most_to_train, MOST_IMAGES["train"])}
    result = []
    for role in ROLES:
        mine = sorted((p for p in parts if p.role == role), key=lambda p: p.index)
        step = max(1.0, len(mine) / most[role])
        result += [mine[int(i * step)] for i in range(int(len(mine) / step + 1e-9))]
    return result


def promote(parts: list[Part], failed_at: int, data: TrainData, used: set[int]) -> None:
    """Replace an unusable held-out or validation part by one that has not been read yet.

    Nothing changes if its stack has other planes with that role. Otherwise the nearest training
    image takes the role, unless it is the last one, together with all that look like it: all planes
    of its stack, or of its place in the stack. As many as needed are used, the others are dropped.
    `parts` are in the order in which they are read; `used` are the images read and found usable.
    """
    failed, rest = parts[failed_at], parts[failed_at + 1 :]
    if failed.role == "train" or failed.area is not None:
        return
    groups = [source.group for source in data.hr]
    alike = [p for p in parts if p.role == failed.role and groups[p.index] == groups[failed.index]]
    if any(p.index in used or p in rest for p in alike):
        return
    whole = len(set(groups)) >= LEAST_GROUPS  # otherwise stacks are split by place
    sites = [(source.group, "" if whole else source.site) for source in data.hr]
    units = {p: sites[p.index] for p in rest if p.role == "train"}
    if len(set(units.values())) < 2:
        return
    nearest = min(units, key=lambda p: abs(p.index - failed.index))
    moved = [p for p, unit in units.items() if unit == units[nearest]]
    step = max(1.0, len(moved) / len(alike))
    held = [replace(moved[int(i * step)], role=failed.role) for i in range(int(len(moved) / step))]
    parts[failed_at + 1 :] = held + [p for p in rest if p not in moved]
