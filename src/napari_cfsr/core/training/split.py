"""Which images are trained on, which pick the step, and which are held out for the report.

Three parts that share no image, or no pixel where there are fewer than three. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from napari_cfsr.core.training.config import TrainConfig
from napari_cfsr.core.training.data import TrainData

Role = Literal["train", "pick", "held_out"]
ROLES: tuple[Role, ...] = ("held_out", "pick", "train")

AREA_SHARE = 0.2  # of the longer side, for each of `pick` and `held_out` of one image
MOST_IMAGES = {"train": 500, "pick": 12, "held_out": 16}
LEAST_GROUPS = 3  # that are split as they are: one for each role
LEAST_SITES = 3  # of a stack, likewise


@dataclass(frozen=True)
class Part:
    """A part of an image that has one role.

    Attributes
    ----------
    index : int
        Of the image in the data.
    role : {"train", "pick", "held_out"}
    area : (float, float) or None
        Share of the longer side, from and to; None for the whole image.
    """

    index: int
    role: Role
    area: tuple[float, float] | None = None


def split(data: TrainData, config: TrainConfig) -> list[Part]:
    """Give each image, or each part of an image, its role; the seed decides.

    By what images come from (files, stacks) where there are at least three such groups; by runs
    of neighbouring places within a stack, each with all its channels and times; by area, the same
    one of all planes, where a stack shows fewer than three places.
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
    """Held out first, then those that pick the step, then those to train on."""
    few = max(1, round(count * share))
    few = min(few, (count - 1) // 2)
    roles: dict[Role, int] = {"held_out": few, "pick": few, "train": count - 2 * few}
    return [role for role, number in roles.items() for _ in range(number)]


def _areas(index: int, flipped: bool) -> list[Part]:
    ends: list[Role] = ["held_out", "pick"]
    first, last = ends[::-1] if flipped else ends
    return [
        Part(index, first, (0.0, AREA_SHARE)),
        Part(index, "train", (AREA_SHARE, 1 - AREA_SHARE)),
        Part(index, last, (1 - AREA_SHARE, 1.0)),
    ]


def thinned(parts: list[Part], most_to_train: int) -> list[Part]:
    """At most so many for each role, evenly; in the order of roles, then of images."""
    most = {**MOST_IMAGES, "train": min(most_to_train, MOST_IMAGES["train"])}
    result = []
    for role in ROLES:
        mine = sorted((p for p in parts if p.role == role), key=lambda p: p.index)
        step = max(1.0, len(mine) / most[role])
        result += [mine[int(i * step)] for i in range(int(len(mine) / step + 1e-9))]
    return result


def promote(parts: list[Part], done: int, data: TrainData, used: set[int]) -> None:
    """Where a part that was to be held out won't do, find another among those not read yet.

    Other planes of its stack stand in for it. If there are none, the nearest image that was to be
    trained on changes over, but never the last one. It takes along what looks like it, all planes
    of its stack or of its place in the stack; as many as are needed are held out, the others are
    not used.

    Parameters
    ----------
    parts : list of Part
        In the order in which they are read; changed.
    done : int
        Place of the part that won't do.
    data : TrainData
    used : set of int
        Images that were read and do.
    """
    failed, rest = parts[done], parts[done + 1 :]
    if failed.role == "train" or failed.area is not None:
        return
    groups = [source.group for source in data.hr]
    alike = [p for p in parts if p.role == failed.role and groups[p.index] == groups[failed.index]]
    if any(p.index in used or p in rest for p in alike):
        return
    whole = len(set(groups)) >= LEAST_GROUPS  # otherwise the planes of a stack are split anyway
    sites = [(source.group, "" if whole else source.site) for source in data.hr]
    units = {p: sites[p.index] for p in rest if p.role == "train"}
    if len(set(units.values())) < 2:
        return
    nearest = min(units, key=lambda p: abs(p.index - failed.index))
    moved = [p for p, unit in units.items() if unit == units[nearest]]
    step = max(1.0, len(moved) / len(alike))
    held = [replace(moved[int(i * step)], role=failed.role) for i in range(int(len(moved) / step))]
    parts[done + 1 :] = held + [p for p in rest if p not in moved]
