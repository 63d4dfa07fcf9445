"""Training on noisy images alone: it gains, says so rightly, and refuses what it can't use."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from napari_cfsr import TrainConfig, load_model, psnr, train_refiner, upscale
from napari_cfsr.core.image import NoiseModel
from napari_cfsr.core.network import make_refiner
from napari_cfsr.core.training import TrainedRefiner, TrainProgress, iter_train
from napari_cfsr.core.training import noisy_train as module
from napari_cfsr.core.training.config import CountsRecipe, TrainRequest
from napari_cfsr.core.training.data import TrainData, array_data
from napari_cfsr.core.training.noisy_report import CountScores, SplitImage, noisy_verdict
from napari_cfsr.core.training.noisy_trainer import CountsTrainer, Denoiser, NoisyImage
from napari_cfsr.core.training.results import Report, ReportRow
from napari_cfsr.core.weights import RefinerCard, read_refiner_card, save_refiner
from napari_cfsr.errors import CancelledError, ImageError, OptionError
from tests.helpers.faults import CancelAt
from tests.helpers.small_sets import finish, photographs, tiny_backbone

NOISE = NoiseModel(1 / 30, 0.01)
FEW = CountsRecipe(40, 10, rate=3e-3, batch=4, patch=32, clip=0.5)
MORE = replace(FEW, counts_steps=200, own_steps=40, batch=8)


def seen(clean: np.ndarray, noise: NoiseModel = NOISE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.poisson(clean / noise.gain) * noise.gain
    return (signal + rng.normal(0, noise.read_noise, clean.shape) + noise.offset).astype(np.float32)


@lru_cache(maxsize=1)
def scenes() -> tuple[np.ndarray, ...]:
    return tuple(0.9 * image + 0.05 for image in photographs(4, 160))


def noisy_scenes() -> list[np.ndarray]:
    return [seen(clean, seed=n) for n, clean in enumerate(scenes())]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOISY_RECIPES", {"small": FEW, "large": replace(FEW, rate=1e-3)})


def sent(images: list[np.ndarray], **config: Any) -> TrainRequest:
    config = {"size": "small", **config}
    data = array_data(images, None, config.get("intensity", "auto"), noisy=True)
    load = {"scale": 2, "backbone": str(tiny_backbone(2)), "device": "cpu"}
    return TrainRequest(data, load, TrainConfig(**config))


@pytest.fixture(scope="module")
def trained() -> TrainedRefiner:
    return run()[1]


@lru_cache(maxsize=1)
def run() -> tuple[list[TrainProgress], TrainedRefiner]:
    """A training that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NOISY_RECIPES", {"small": MORE})
        return finish(iter_train(sent(noisy_scenes())))


def test_noisy_images_are_enough(trained, tmp_path) -> None:
    """Against the clean scene, which the training never sees."""
    assert trained.improved
    path = trained.save(tmp_path / "mine.safetensors")
    model = load_model(2, tiny_backbone(2), path, "cpu")
    clean, noisy = scenes()[0], noisy_scenes()[0]
    result = upscale(noisy, model)
    ideal = upscale(clean, model, outputs=("baseline",)).baseline
    gained = psnr(result.delta, ideal) - psnr(result.baseline, ideal)
    assert gained > 3
    assert 0.3 * gained < trained.gain < gained  # the estimate is careful


def test_the_card_says_how_it_was_trained(trained, tmp_path) -> None:
    card = read_refiner_card(trained.save(tmp_path / "mine.safetensors"))
    assert (card.scale, card.backbone_sha256, card.placement) == (0, "", "input")
    assert card.network == "RefineNet dilated"
    assert card.gain == pytest.approx(trained.gain, abs=1e-3)
    found = NoiseModel(**card.extra["noise"])
    levels = np.array([0.2, 0.5, 0.9], np.float32)
    np.testing.assert_allclose(found.variance(levels), NOISE.variance(levels), rtol=0.15)


def test_progress() -> None:
    seen_, trained = run()
    assert [p.stage for p in seen_[:1] + seen_[-1:]] == ["preparing", "training"]
    fractions = np.array([p.fraction for p in seen_])
    assert (np.diff(fractions) >= 0).all()
    assert fractions[-1] <= 1
    gains = [p.gain for p in seen_ if p.gain is not None]
    assert len(gains) == len(trained.history) > 4
    assert gains[-1] > gains[0]
    best = [p.best for p in seen_ if p.best is not None]
    assert best[-1].gain == max(gains)
    previews = [p.preview for p in seen_ if p.preview is not None]
    assert not previews[-1].has_reference
    shapes = {x.shape for x in (previews[-1].baseline, previews[-1].delta, previews[-1].reference)}
    assert shapes == {tuple(2 * n for n in previews[-1].lr.shape)}
    steps = [p.step for p in seen_ if p.stage == "training"]
    assert steps == list(range(1, len(steps) + 1))


def test_the_same_seed_gives_the_same_refiner() -> None:
    few = sent(noisy_scenes()[:1], steps=4)
    first, again = (finish(iter_train(few))[1] for _ in range(2))
    for name, value in first.state.items():
        np.testing.assert_array_equal(again.state[name], value)
    assert again.verdict == first.verdict


def test_one_image_is_enough_and_camera_values_can_be_given() -> None:
    images = [np.round(seen(s) * 1000 + 200).astype(np.uint16) for s in scenes()[:1]]
    noise = NoiseModel(1000 / 30, 10, 200)
    _, trained = finish(iter_train(sent(images, noise=noise)))
    assert trained.improved
    assert trained.card.extra["noise"] == vars(noise)
    assert not any("as strong" in note for note in trained.notes)
    _, doubted = finish(iter_train(sent(images, noise=replace(noise, gain=60.0), steps=2)))
    assert any(re.search(r"1\.[6-9] times as strong", note) for note in doubted.notes)


def test_colour_images_and_python_call() -> None:
    colours = [np.stack([seen(s, seed=c) for c in range(3)], -1) for s in scenes()[:2]]
    model = load_model(2, tiny_backbone(2), None, "cpu")
    trained = train_refiner(noisy=colours, model=model, config=TrainConfig(size="small"))
    assert trained.improved
    assert trained.report.channel == "Y"
    with pytest.raises(OptionError, match="expected a model"):
        train_refiner(noisy=colours)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (lambda: [gaussian_filter(s, 1) for s in scenes()], "no white noise is visible"),
        (lambda: [convolve(y, np.full((2, 2), 0.25)) for y in noisy_scenes()], "pixel to pixel"),
        (lambda: [y[:40] for y in noisy_scenes()], "at least 48x48"),
        (lambda: [np.full((64, 64), np.nan)], "NaN"),
        (list, "got none"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_the_reason(images, reason) -> None:
    with pytest.raises(ImageError, match=reason):
        finish(iter_train(sent(images())))


def test_a_way_out_is_offered_where_reducing_whitens_the_noise() -> None:
    """Neighbours share their noise, pixels further apart don't."""
    shared = [seen(s, seed=n).repeat(2, 0).repeat(2, 1) for n, s in enumerate(scenes()[:2])]
    with pytest.raises(ImageError, match=r"Reduced by 2 .* half the resolution"):
        finish(iter_train(sent(shared)))


def test_one_bad_image_of_a_folder_does_not_stop_the_others() -> None:
    request = sent([*noisy_scenes()[:2], np.full((64, 64), np.nan)], steps=2)
    data = TrainData(request.data.hr, None, "mine", noisy=True, strict=False)
    _, trained = finish(iter_train(replace(request, data=data)))
    assert any("NaN" in note for note in trained.notes)


def test_placement_output_is_refused() -> None:
    with pytest.raises(OptionError, match="placement input"):
        finish(iter_train(sent(noisy_scenes(), placement="output")))


def test_a_large_refiner_starts_from_one_on_this_machine(home) -> None:
    large = make_refiner("UNetRefiner")
    folder = home / "data" / "refiners"
    folder.mkdir(parents=True)
    card = RefinerCard(0, "input", "", network="UNetRefiner")
    save_refiner(folder / "mine.safetensors", large.state_dict(), card)
    request = sent(noisy_scenes()[:1], size="large", init="mine", steps=4)
    _, trained = finish(iter_train(request))
    assert trained.card.network == "UNetRefiner"
    with pytest.raises(OptionError, match="expected a small refiner to start from"):
        finish(iter_train(sent(noisy_scenes()[:1], size="small", init="mine")))


def test_stopping_keeps_what_was_learned_and_cancelling_ends_at_once() -> None:
    steps = [0]

    def stop() -> bool:
        steps[0] += 1
        return steps[0] > 40

    _, trained = finish(iter_train(sent(noisy_scenes()), stop=stop))
    assert trained.history[-1]["step"] <= 42
    assert trained.improved
    with pytest.raises(CancelledError):
        finish(iter_train(sent(noisy_scenes()), CancelAt(30)))


# measuring without references


def test_squared_errors_need_no_reference() -> None:
    """Pooled over images: the mean over many splits is the error against the clean scene."""
    rng, clean = np.random.default_rng(0), scenes()[0][None]
    image = NoisyImage("a", seen(clean), NOISE)
    found, true = list[float](), list[float]()
    for _ in range(20):
        split = SplitImage.of(image, rng)
        blurred = convolve(split.a.pixels, np.full((1, 3, 3), 1 / 9))
        found.append(float(split.errors(blurred).mean()))
        true.append(float(((blurred - clean)[:, 4:-4, 4:-4] ** 2).mean()))
    assert np.mean(found) == pytest.approx(np.mean(true), abs=3 * np.std(found) / 20**0.5)
    assert np.mean(true) > 5 * np.std(found) / 20**0.5


def test_the_better_method_is_told_and_equal_ones_are_not() -> None:
    rng, scores = np.random.default_rng(0), CountScores()
    for n, clean in enumerate(scenes()):
        split = SplitImage.of(NoisyImage(str(n), seen(clean[None], seed=n), NOISE), rng)
        blurred = convolve(split.a.pixels, np.full((1, 3, 3), 1 / 9))
        nearly = blurred + rng.normal(0, 1e-3, blurred.shape).astype(np.float32)
        scores.add(split, {"noisy": split.a.pixels, "blurred": blurred, "nearly": nearly})
    assert scores.lead("blurred", "noisy") > 5
    assert scores.gain("blurred", "noisy") > 2
    assert scores.best(["noisy", "nearly", "blurred"]) == "nearly"
    assert scores.lead("noisy", "blurred", bias=1.0) < scores.lead("noisy", "blurred")


@pytest.mark.parametrize(
    ("lead", "delta", "words"),
    [
        (3.0, 31.0, "Worth using: +3.00 dB over the frozen backbone and +1.00 dB over the best"),
        (0.5, 30.1, "cannot be told"),
        (-3.0, 29.0, "Not worth using"),
    ],
)
def test_the_verdict_says_what_can_be_told(lead, delta, words) -> None:
    names = {"bicubic": 27.0, "denoised bicubic": 30.0, "baseline": 28.0, "delta": delta}
    rows = tuple(ReportRow(name, value, None) for name, value in names.items())
    report = Report(rows, "gray", 0, ("a", "b"), (delta - 28.0,), estimated=True)
    leads = dict.fromkeys(names, lead)
    assert words in noisy_verdict(report, True, leads)
    assert "No reliable gain" in noisy_verdict(report, False, leads)
    assert "SSIM" not in report.table()


def test_parts_of_an_image_that_was_cut_off_hold_photons_alone() -> None:
    image = NoisyImage("a", np.maximum(seen(scenes()[0] * 0.05), 0)[None], NOISE)
    rng = np.random.default_rng(0)
    assert min(part.pixels.min() for part in image.parts(0.2, rng)) < 0  # fresh read noise
    cut = replace(image, darkest=0.0)
    assert min(part.pixels.min() for part in cut.parts(0.2, rng)) == 0


def test_fresh_noise_is_that_of_the_camera() -> None:
    image = NoisyImage("a", scenes()[0][None], NOISE, darkest=0.0)
    rng = np.random.default_rng(0)
    clean = np.full((1, 200, 200), 0.5, np.float32)
    assert image.fresh(clean, rng).var() == pytest.approx(0.5 / 30 + 1e-4, rel=0.03)
    assert image.fresh(np.zeros_like(clean), rng).min() == 0


def test_training_sees_what_the_model_runs(tmp_path, tiny_backbones) -> None:
    """The same refiner in training and in an engine."""
    denoiser = Denoiser("UNetRefiner", 0, "cpu")
    image = NoisyImage("a", seen(scenes()[0])[None, :101, :118], NOISE)
    trainer = CountsTrainer(denoiser, replace(FEW, patch=48), 0)
    for _ in trainer.steps("counts", [image], 3):
        pass
    card = RefinerCard(0, "input", "", network="UNetRefiner")
    path = save_refiner(tmp_path / "a.safetensors", denoiser.state(), card)
    model = load_model(2, tiny_backbones[2], path, "cpu")
    for ensemble in (False, True):
        ours = denoiser.image(image, ensemble)
        how = {"intensity": (0, 2), "refiner_ensemble": ensemble}
        theirs = upscale(image.pixels[0], model, noise=NOISE, **how).delta
        again = upscale(ours[0], model, outputs=("baseline",), intensity=(0, 2)).baseline
        assert np.abs(theirs - again).max() < 1e-4
