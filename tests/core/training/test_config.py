"""Configuration of a training: invalid values are refused, missing ones are those of the preset."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from napari_cfsr.core.image.degradation import Degradation
from napari_cfsr.core.training.config import PRESETS, Recipe, TrainConfig
from napari_cfsr.errors import OptionError


def test_the_published_recipe() -> None:
    config = TrainConfig(preset="benchmark")
    assert config.placements == ("output",)
    assert config.run_seed == 69
    recipe = config.recipe("output")
    assert (recipe.loss, recipe.rate, recipe.schedule) == ("l1", 1e-6, "constant")
    assert (recipe.batch, recipe.patch, recipe.every, recipe.patience) == (16, 64, 50, 5)
    assert (recipe.ema, recipe.warm_steps) == (0, 0)


def test_the_default_adapts() -> None:
    config = TrainConfig()
    assert config.preset == "adapt"
    assert set(config.placements) == {"input", "output"}
    assert config.degradation.is_clean
    for placement in ("input", "output"):
        assert config.recipe(placement) == PRESETS["adapt"][placement]
    assert PRESETS["adapt"]["output"].warm_steps == 0


@pytest.mark.parametrize("preset", ["adapt", "benchmark"])
@pytest.mark.parametrize("placement", ["input", "output"])
def test_given_values_override_the_preset(preset, placement) -> None:
    own = {
        "loss": "l1+fft", "rate": 0.5, "schedule": "constant", "steps": 7, "batch": 3, "patch": 17,
        "every": 2, "patience": 9, "ema": 0.5, "warm_steps": 11,
    }  # fmt: skip
    expected = {**own, "warm_steps": 11 if placement == "input" else 0}
    base = TrainConfig(preset=preset).recipe(placement)
    for name, value in own.items():
        changed = TrainConfig(preset=preset, **{name: value}).recipe(placement)
        assert changed == replace(base, **{name: expected[name]})
    changed = TrainConfig(preset=preset, **own).recipe(placement)
    assert changed == replace(base, **expected)
    nothing = TrainConfig(preset=preset, ema=0, warm_steps=0, seed=0)  # 0 is not None
    assert nothing.recipe(placement).ema == nothing.recipe(placement).warm_steps == 0
    assert nothing.run_seed == 0


@pytest.mark.parametrize(
    ("choice", "placements"),
    [("input", ("input",)), ("output", ("output",)), ("auto", ("input", "output"))],
)
def test_placements(choice, placements) -> None:
    for preset in ("adapt", "benchmark"):
        assert set(TrainConfig(preset=preset, placement=choice).placements) == set(placements)


def test_the_degradation() -> None:
    config = TrainConfig(
        kernel="area", blur=0.8, photons=50, read_noise=0.01, gain=2, offset=0.1, jpeg=75
    )
    assert config.degradation == Degradation("area", 0.8, 50, 0.01, 2, 0.1, 75)
    own = {f.name for f in fields(TrainConfig)}
    assert {f.name for f in fields(Degradation)} <= own
    recipe = {f.name for f in fields(Recipe)} - own
    # every other is an entry
    assert all(name.startswith(("warm_", "trial_")) for name in recipe)


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("preset", "best", "expected preset one of adapt, benchmark, got 'best'"),
        ("placement", "both", "expected placement one of None, auto, output, input"),
        ("loss", "l2", "expected loss one of"),
        ("schedule", "cosine", "expected schedule one of"),
        ("kernel", "nearest", "expected kernel"),
        ("blur", -1.0, "expected blur"),
        ("photons", 0, "expected photons"),
        ("read_noise", math.nan, "expected read_noise"),
        ("gain", 0, "expected gain"),
        ("offset", 2.0, "expected offset"),
        ("jpeg", 101, "expected jpeg"),
        ("seed", -1, "expected seed as a whole number of at least 0, got -1"),
        ("seed", 1.5, "expected seed as a whole number"),
        ("steps", 0, "expected steps as a whole number of at least 1, got 0"),
        ("steps", math.nan, "expected steps as a whole number"),
        ("steps", "100", "expected steps as a whole number of at least 1, got '100'"),
        ("steps", True, "expected steps as a whole number"),
        ("batch", 0, "expected batch"),
        ("patch", 15, "expected patch as a whole number of at least 16"),
        ("every", 0, "expected every"),
        ("patience", 0, "expected patience"),
        ("warm_steps", -1, "expected warm_steps"),
        ("reduce", 0, "expected reduce"),
        ("reduce", 1.5, "expected reduce"),
        ("memory", 1000, "expected memory as a whole number of at least 16777216"),
        ("rate", 0, "expected a rate in"),
        ("rate", 1.1, "expected a rate in"),
        ("rate", "fast", "expected rate as a number, got 'fast'"),
        ("rate", math.nan, "expected a rate in"),
        ("ema", 1, "expected ema in"),
        ("ema", -0.1, "expected ema in"),
        ("held_out", 0.01, "expected held_out of 0.05 to 0.4"),
        ("held_out", 0.5, "expected held_out of 0.05 to 0.4"),
        ("held_out", None, "expected held_out as a number, got None"),
        ("intensity", "best", "expected intensity one of auto, dtype, data, percentile"),
        ("intensity", (1, 0), "expected intensity limits low < high"),
        ("intensity", (0, math.inf), "expected intensity limits low < high"),
        ("intensity", (0, math.nan), "expected intensity limits low < high"),
        ("intensity", (1, 2, 3), "expected intensity one of"),
        ("intensity", 3, "expected intensity one of"),
    ],
)  # fmt: skip
def test_invalid_values(entry, value, reason) -> None:
    with pytest.raises(OptionError, match=reason):
        TrainConfig(**{entry: value})


@pytest.mark.parametrize(
    ("entry", "value"),
    [("held_out", 0.05), ("held_out", 0.4), ("rate", 1), ("ema", 0), ("patch", 16), ("seed", 0),
     ("memory", 2**24), ("jpeg", 95), ("warm_steps", 0), ("intensity", (-5, 3))],
)  # fmt: skip
def test_extreme_but_valid_values(entry, value) -> None:
    assert getattr(TrainConfig(**{entry: value}), entry) == value


def test_plain_values_for_the_card() -> None:
    """Whatever kind of number came in: a card is JSON, and holds what was asked for."""
    config = TrainConfig(
        photons=np.float32(50), jpeg=np.int64(75), steps=np.int16(7), intensity=[np.float64(0), 3]
    )
    plain = json.loads(json.dumps(config.to_dict()))
    assert (plain["photons"], plain["jpeg"], plain["steps"]) == (50, 75, 7)
    assert plain["intensity"] == [0, 3]
    assert TrainConfig(**plain) == config
    assert hash(config) == hash(TrainConfig(**plain))
    assert asdict(config) == config.to_dict()
    assert pickle.loads(pickle.dumps(config)) == config
