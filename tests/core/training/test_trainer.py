"""One refiner in training: patches, noise, steps, averages and validation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_cfsr import load_model, psnr
from napari_cfsr.core.engine.model import PredictOptions
from napari_cfsr.core.image import Degradation, imresize
from napari_cfsr.core.training import trainer as trainer
from napari_cfsr.core.training.config import CLIP, Recipe, TrainConfig
from napari_cfsr.core.training.trainer import (
    TRAINERS,
    InputTrainer,
    OutputTrainer,
    TrainingContext,
    noisy,
)
from napari_cfsr.core.training.windows import TrainingWindow, prepare
from napari_cfsr.core.weights import WeightsFile, load_backbone
from tests.helpers.small_sets import colours, request, spots, tiny_backbone

PLACEMENTS = ("input", "output")
RECIPE = Recipe(
    loss="mse", rate=3e-3, schedule="constant", steps=4, batch=3, patch=24, every=2, patience=2,
    warm_steps=4, warm_batch=3, warm_patch=24,
)  # fmt: skip


def context_of(images: tuple[np.ndarray, ...], **how: Any) -> TrainingContext:
    file = WeightsFile(tiny_backbone(), "", "file")
    backbone = load_backbone(file, 2).to(memory_format=torch.channels_last)
    return TrainingContext(backbone, prepare(request(images, **how)))


@pytest.fixture(scope="module")
def gray() -> TrainingContext:
    return context_of(spots(), photons=50, read_noise=0.01)


@pytest.fixture(scope="module")
def colour() -> TrainingContext:
    return context_of(colours(4))


def made(
    context: TrainingContext, placement: str, recipe: Recipe = RECIPE, seed: int = 1, **own: Any
) -> Any:
    """A refiner, ready for steps."""
    result = TRAINERS[placement](context, replace(recipe, **own), seed)
    for _ in result.prepare():
        pass
    if not context.validation:
        list(context.upscale_validation())
    return result


@pytest.mark.parametrize("kind", ["gray", "colour"])
def test_the_baseline_equals_that_of_the_model(kind, request) -> None:
    context = request.getfixturevalue(kind)
    window = context.images.validation[0]
    mine = context.array(context.baseline(window.lr))
    model = load_model(2, tiny_backbone(), refiner=None, device="cpu")
    expected = model.predict(window.lr[None], PredictOptions(("baseline",)))["baseline"][0]
    np.testing.assert_allclose(mine, np.clip(expected, 0, 1), atol=1e-5)
    assert mine.shape == window.hr.shape
    image = np.moveaxis(mine, 0, -1) if kind == "colour" else mine[0]
    hr = np.moveaxis(window.hr, 0, -1) if kind == "colour" else window.hr[0]
    channel = "Y" if kind == "colour" else "gray"
    assert context.psnr(mine, window) == pytest.approx(psnr(image, hr, 2, channel))
    assert math.isnan(context.psnr(mine * np.float32(np.nan), window))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_backbone_does_not_change(gray, placement) -> None:
    before = {k: v.clone() for k, v in gray.backbone.state_dict().items()}
    trained = made(gray, placement)
    for _ in trained.steps("main"):
        pass
    assert all(torch.equal(v, before[k]) for k, v in gray.backbone.state_dict().items())
    assert all(p.grad is None for p in gray.backbone.parameters())
    assert all(p.grad is not None for p in trained.network.parameters())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_refiner_starts_as_the_identity(gray, placement) -> None:
    trained = made(gray, placement)
    assert abs(trained.gain()) < 0.05
    window = gray.images.validation[0]
    np.testing.assert_allclose(
        gray.array(trained.predict(window.lr)), gray.array(gray.baseline(window.lr)), atol=0.02
    )


def test_patches_of_the_output_are_those_of_whole_windows(gray) -> None:
    """The backbone sees them with their surroundings."""
    rng = np.random.default_rng(0)
    large = context_of(tuple(rng.random((4, 560, 560), np.float32)), memory=2**24)
    assert any(w.inner[0] != slice(0, w.lr.shape[1]) for w in large.images.train)
    for context in (gray, large):
        trained = TRAINERS["output"](context, RECIPE, 1)
        assert len(list(trained.prepare())) == len(context.images.train)
        for (source, target), window in zip(trained._pool, context.images.train, strict=True):
            ys, xs = (slice(2 * s.start, 2 * s.stop) for s in window.inner)
            np.testing.assert_array_equal(source, context.baseline(window.lr)[0, :, ys, xs].numpy())
            np.testing.assert_array_equal(target, window.hr[:, ys, xs])


def test_the_number_of_upscaled_windows_is_limited(gray, monkeypatch) -> None:
    size = gray.images.train[0].lr[0].size
    monkeypatch.setattr(trainer, "MOST_UPSCALED", 3 * size)
    assert len(made(gray, "output")._pool) == 3
    monkeypatch.setattr(trainer, "MOST_UPSCALED", 1)
    assert len(made(gray, "output")._pool) == 1


@pytest.mark.parametrize("kind", ["gray", "colour"])
def test_patches_show_the_same_place(kind) -> None:
    """Without noise: LR patches are the reduced HR patches, however they are turned."""
    context = context_of(spots() if kind == "gray" else colours(4))
    trained = made(context, "input")
    seen = set()
    for _ in range(8):
        lr, wanted = trained._batch(4, 24, reduced=True)
        assert lr.shape == wanted.shape == (4, context.images.channels, 24, 24)
        np.testing.assert_allclose(lr, np.clip(wanted, 0, 1), atol=1e-5)
        lr, hr = trained._batch(4, 24, reduced=False)
        assert hr.shape == (4, context.images.channels, 48, 48)
        inner = (..., slice(3, -3), slice(3, -3))
        reduced = imresize(hr, 0.5, axes=(2, 3))
        np.testing.assert_allclose(lr[inner], np.clip(reduced, 0, 1)[inner], atol=1e-4)
        seen |= {patch.tobytes() for patch in lr}
    assert len(seen) == 32
    output = made(context, "output")
    (source, target) = output._pool[0]
    turned = output._flipped(source, target)
    assert abs(turned[0].mean(0) - turned[1].mean(0)).mean() < 0.05


def test_all_eight_orientations_occur(gray) -> None:
    trained = made(gray, "input")
    corner = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    ways = {np.array2string(trained._flipped(corner)[0]) for _ in range(200)}
    assert len(ways) == 8


def test_the_noise_is_fresh_at_every_step(gray) -> None:
    trained = made(gray, "input")
    lr, clean = zip(*(trained._batch(8, 32, reduced=True) for _ in range(12)), strict=True)
    noise, clean = np.stack(lr) - np.clip(clean, 0, 1), np.clip(np.stack(clean), 0, 1)
    bright = clean > 0.2  # where nothing is clipped
    expected = np.sqrt(clean[bright].mean() / 50 + 0.01**2)
    assert noise[bright].std() == pytest.approx(expected, rel=0.1)
    assert abs(noise[bright].mean()) < 0.01
    measured = prepare_same(gray)
    trained = made(measured, "input")
    assert trained._batch(8, 32, reduced=True)[0].tobytes() != lr[0].tobytes()


def prepare_same(context: TrainingContext) -> TrainingContext:
    """The same images as measured ones: their noise is what it is."""
    windows = {
        role: tuple(replace(w, clean=w.lr) for w in getattr(context.images, role))
        for role in ("train", "validation", "held_out")
    }
    return TrainingContext(context.backbone, replace(context.images, **windows, degradation=None))


def test_measured_images_get_no_noise(gray) -> None:
    trained = made(prepare_same(gray), "input")
    pixels = {p for w in gray.images.train for p in np.unique(w.lr)}
    lr, _ = trained._batch(4, 24, reduced=True)
    assert set(np.unique(lr)) <= pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("jpeg", [None, 40])
def test_noise_of_a_batch(channels, jpeg) -> None:
    how = Degradation(photons=100, jpeg=jpeg)
    clean = np.full((4, channels, 24, 24), 0.5, np.float32)
    result = noisy(clean, how, np.random.default_rng(3))
    assert result.shape == clean.shape
    assert result.dtype == np.float32
    assert 0.02 < (result - clean).std() < 0.1
    assert len({patch.tobytes() for patch in result}) == 4
    if jpeg is not None:
        rng = np.random.default_rng(3)
        first = clean[0, 0] if channels == 1 else np.ascontiguousarray(clean[0].transpose(1, 2, 0))
        expected = how.noise(first, rng)
        mine = result[0, 0] if channels == 1 else result[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(mine, expected)


def test_small_images_give_small_patches() -> None:
    context = context_of(tuple(im[:64, :80] for im in spots(4)))
    for placement in PLACEMENTS:
        trained = made(context, placement, patch=500, warm_patch=500)
        for phase in ("warm", "main"):
            assert all(math.isfinite(loss) for loss in trained.steps(phase))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_same_seed_takes_the_same_steps(gray, placement) -> None:
    def run(seed: int) -> tuple[list[float], bytes]:
        trained = made(gray, placement, seed=seed)
        phases = ("warm", "main") if placement == "input" else ("main",)
        losses = [loss for phase in phases for loss in trained.steps(phase)]
        return losses, b"".join(v.tobytes() for v in trained.state().values())

    first = run(1)
    assert first == run(1)
    assert first[0] != run(2)[0]
    starts = [made(gray, placement, seed=seed).state()["body.0.weight"] for seed in (1, 1, 2)]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])


@pytest.mark.parametrize(
    ("placement", "phase"), [("input", "warm"), ("input", "main"), ("output", "main")]
)
def test_steps_reduce_the_loss(gray, placement, phase) -> None:
    count = 60
    trained = made(gray, placement, steps=count, warm_steps=count, ema=0.9)
    losses = list(trained.steps(phase))
    assert len(losses) == trained.taken == trained.count(phase) == count
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert trained.gain() > 0.3


def norm(network: torch.nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in network.parameters()]).norm())


def test_gradients_are_clipped(gray) -> None:
    trained = made(gray, "output")
    plain = trained.loss
    next(iter(trained.steps("main")))
    small = norm(trained.network)
    assert small < CLIP == 0.5
    huge = made(gray, "output")
    huge.loss = lambda a, b, step: 1e6 * plain(a, b, step)
    next(iter(huge.steps("main")))
    assert norm(huge.network) == pytest.approx(0.5, rel=1e-3)


class Recorder(torch.optim.Adam):
    """Adam that remembers its rates."""

    rates: list[float] = []

    def step(self, *args: Any) -> Any:
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(*args)


def rates(
    context: TrainingContext, monkeypatch: pytest.MonkeyPatch, phase: str, **own: Any
) -> list[float]:
    monkeypatch.setattr(Recorder, "rates", [])
    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    trained = made(context, "input", warm_rate=5e-3, **own)
    for _ in trained.steps(phase):
        pass
    return Recorder.rates


def test_the_rate(gray, monkeypatch) -> None:
    assert rates(gray, monkeypatch, "main") == [3e-3] * 4
    assert rates(gray, monkeypatch, "warm") == [5e-3] * 4
    cycle = rates(gray, monkeypatch, "warm", schedule="one-cycle", warm_steps=50)
    assert max(cycle) == pytest.approx(5e-3)
    assert np.argmax(cycle) == pytest.approx(9)  # a fifth of the way
    assert cycle[0] < max(cycle) / 10
    assert cycle[-1] < max(cycle) / 1000


@pytest.mark.parametrize("steps", range(1, 12))
def test_the_one_cycle_schedule_of_few_steps(gray, monkeypatch, steps) -> None:
    cycle = rates(gray, monkeypatch, "warm", schedule="one-cycle", warm_steps=steps)
    assert len(cycle) == steps
    assert all(0 < rate <= 5e-3 * (1 + 1e-9) for rate in cycle)
    assert steps == 1 or max(cycle) == pytest.approx(5e-3, rel=0.05)


def test_the_average(gray) -> None:
    """Of the weights, by hand; it is what is validated and kept."""
    trained = made(gray, "output", ema=0.75)
    average: dict[str, np.ndarray] = {}
    for _ in trained.steps("main"):
        now = {k: v.detach().numpy().copy() for k, v in trained.network.state_dict().items()}
        average = {k: 0.75 * average[k] + 0.25 * v if average else v for k, v in now.items()}
    assert trained.refiner is not trained.network
    for name, value in trained.state().items():
        np.testing.assert_allclose(value, average[name], atol=1e-6)
    plain = made(gray, "output")
    list(plain.steps("main"))
    assert plain.refiner is plain.network


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_weights_can_be_restored(gray, ema) -> None:
    trained = made(gray, "output", ema=ema, steps=20)
    list(trained.steps("main"))
    kept, gain = trained.state(), trained.gain()
    copies = {k: v.copy() for k, v in kept.items()}
    list(trained.steps("main"))
    assert trained.gain() != gain
    assert all(np.array_equal(kept[k], copies[k]) for k in kept)  # copies, not views
    trained.load(kept)
    assert trained.gain() == gain
    assert all(np.array_equal(v, kept[k]) for k, v in trained.state().items())
    other = made(gray, "output", ema=ema)
    other.load(kept)
    assert other.gain() == gain


def test_the_psnr_of_a_baseline_is_computed_once(gray, monkeypatch) -> None:
    trained, scored = made(gray, "output"), []
    expected = np.mean(
        [
            gray.psnr(gray.array(trained.predict(w.lr)), w)
            - gray.psnr(gray.array(gray.baseline(w.lr)), w)
            for w in gray.images.validation
        ]
    )
    psnr_of = TrainingContext.psnr

    def counted(self: TrainingContext, image: np.ndarray, window: TrainingWindow) -> float:
        scored.append(window)
        return psnr_of(self, image, window)

    monkeypatch.setattr(TrainingContext, "psnr", counted)
    assert trained.gain() == expected
    assert scored == list(gray.images.validation)


def test_a_baseline_that_is_known_is_not_computed(gray, monkeypatch) -> None:
    trained, window = made(gray, "output"), gray.images.validation[0]
    expected = trained.predict(window.lr)
    known = gray.validation[0].baseline
    monkeypatch.setattr(TrainingContext, "baseline", None)
    assert torch.equal(trained.predict(window.lr, known), expected)


def test_the_published_recipe_runs(gray) -> None:
    recipe = replace(TrainConfig(preset="benchmark").recipe("output"), steps=2, batch=2)
    trained = made(gray, "output", recipe)
    assert isinstance(trained, OutputTrainer)
    assert trained.refiner is trained.network
    before = trained.state()
    losses = list(trained.steps("main"))
    assert all(0 < loss < 1 for loss in losses)
    moved = max(float(abs(v - before[k]).max()) for k, v in trained.state().items())
    assert 1e-6 < moved < 2.5e-6  # two steps of Adam


def test_a_window_reduces_as_the_training_data_of_the_backbone() -> None:
    image = spots()[0]
    window = TrainingWindow("cells", image[None], image[None], image[None], (slice(0), slice(0)))
    np.testing.assert_array_equal(window.target(2)[0], imresize(image, 0.5))
    assert InputTrainer.placement == "input"
