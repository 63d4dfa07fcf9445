"""Training a backbone: it learns, resumes bit for bit, and starts from another backbone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import napari_cfsr as nc
from napari_cfsr.core.backbone import train as backbone_training
from napari_cfsr.core.backbone.config import BackboneConfig
from napari_cfsr.core.backbone.data import Pairs, iter_pairs, reduced
from napari_cfsr.core.backbone.files import TrainingState, read_backbone_card, save_backbone
from napari_cfsr.core.backbone.initial_weights import started_from
from napari_cfsr.core.backbone.train import (
    BackboneProgress,
    BackboneRequest,
    evaluate_backbone,
    iter_train_backbone,
)
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.network.cpu_gradients import Gradients, flushes_denormals
from napari_cfsr.core.upscale import exhaust
from napari_cfsr.core.weights import find_backbone, load_state, open_backbone
from napari_cfsr.errors import (
    ArchitectureError,
    DivergedError,
    FileFormatError,
    ImageError,
    OptionError,
    ScaleError,
    TruncatedWeightsError,
    WeightsError,
)
from tests.helpers.faults import full_disk

SMALL = {"batch": 2, "patch": 16, "rise": 2, "validations": 2}


@pytest.fixture(autouse=True)
def denormals_as_before() -> Iterator[None]:
    yield
    assert not flushes_denormals()


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Pieces of photos that come with scikit-image, by scale 2."""
    found = {"astronaut": skimage.data.astronaut(), "coffee": skimage.data.coffee()}
    found["cat"] = skimage.data.chelsea()
    return [(name, reduced(image[40:200, 60:220], 2)) for name, image in found.items()]


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a network with few and small blocks."""
    small = partial(CFSRConfig, embed_dim=16, depths=(1, 1), kernel_size=5)
    monkeypatch.setattr(backbone_training, "CFSRConfig", small)


def request(photos: list, folder: Path, **options: object) -> BackboneRequest:
    config = BackboneConfig(**{"scale": 2, **SMALL, **options})
    pairs = [pair for _, pair in photos[:2]]
    return BackboneRequest(pairs, photos[2:], config, folder / "mine.safetensors", "cpu")


def run(wanted: BackboneRequest, until: int | None = None) -> list[BackboneProgress]:
    """All progress; stopped after `until` steps."""
    seen: list[BackboneProgress] = []
    calls = iter(range(10**6))
    stop = (lambda: False) if until is None else (lambda: next(calls) >= until)
    seen += iter_train_backbone(wanted, stop)
    return seen


@pytest.mark.usefixtures("small_network")
def test_it_learns(photos, tmp_path) -> None:
    wanted = request(photos, tmp_path, steps=240, validations=3, batch=4)
    seen = run(wanted)
    validated = [p.psnr for p in seen if p.psnr is not None]
    assert len(validated) == 3
    assert validated[-1] > validated[0]
    (lr, hr) = (x.astype(np.float32) / 255 for x in photos[2][1])
    bicubic = nc.psnr(imresize(lr, 2).clip(0, 1), hr, shave=2, channel="Y")
    assert validated[-1] > bicubic + 0.5
    assert seen[-1].best == max(validated)
    assert (seen[-1].step, seen[-1].fraction, seen[-1].seconds_left) == (240, 1.0, 0.0)
    assert all(p.images_per_second > 0 for p in seen)


def test_the_best_weights_are_written_in_merged_form(photos, tmp_path) -> None:
    wanted = replace(request(photos, tmp_path, steps=6), card={"data": "two photos"})
    best = run(wanted)[-1].best
    model = nc.load_model(2, backbone=wanted.output, refiner=None, device="cpu")
    (name, (lr, hr)) = photos[2]
    got = nc.upscale(lr.astype(np.float32) / 255, model, axes="YXS").baseline
    psnr = nc.psnr(got, hr.astype(np.float32) / 255, shave=2, channel="Y")
    assert psnr == pytest.approx(best, abs=1e-3)
    state = load_state(wanted.output)
    assert sum(v.numel() for v in state.values()) == 291_324
    card = read_backbone_card(wanted.output)
    assert card["data"] == "two photos"
    assert card["validation"] == [name]
    assert card["psnr"] == pytest.approx(best, abs=1e-4)
    assert card["step"] == 6
    assert card["images"] == 2
    assert card["config"] == BackboneConfig(
        scale=2, steps=6, precision="float32", **SMALL
    ).to_dict()  # fmt: skip
    assert "cpu" in card["hardware"]


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_equals_an_uninterrupted_one(photos, tmp_path, precision) -> None:
    """Bit for bit: weights, moving average, moments, best; also across the change of the loss."""
    states = []
    for name, stops in {"whole": [None], "parts": [3, 5, None]}.items():
        (tmp_path / name).mkdir()
        wanted = request(photos, tmp_path / name, steps=12, mse_share=0.4, precision=precision)
        for until in stops:
            run(wanted, until)
            state = TrainingState.load(wanted.state_path)
            wanted = replace(wanted, state=state)
        states.append(state)
    whole, parts = states
    assert parts.about["step"] == whole.about["step"] == 12
    assert parts.about["best_psnr"] == whole.about["best_psnr"]
    for entry in ("step", "loss", "psnr"):
        pairs = zip(whole.about["history"], parts.about["history"], strict=True)
        assert entry == "loss" or all(a[entry] == b[entry] for a, b in pairs)
    assert whole.tensors.keys() == {"network", "average", "best", "adam"}
    torch.testing.assert_close(parts.tensors, whole.tensors, rtol=0, atol=0)
    files = [load_state(tmp_path / name / "mine.safetensors") for name in ("whole", "parts")]
    torch.testing.assert_close(*files, rtol=0, atol=0)


@pytest.mark.usefixtures("small_network")
def test_the_state_is_written_from_time_to_time(photos, tmp_path, monkeypatch) -> None:
    """So that even a crash loses little."""
    monkeypatch.setattr(backbone_training, "SAVE_SECONDS", 0.0)
    wanted = request(photos, tmp_path, steps=1000, validations=1)
    steps = iter_train_backbone(wanted)
    first = next(steps)
    assert TrainingState.load(wanted.state_path).about["step"] == first.step == 10
    second = next(steps)
    assert TrainingState.load(wanted.state_path).about["step"] == second.step == 20
    steps.close()
    assert not wanted.output.exists()


def test_more_hours_continue_at_the_rate_of_a_longer_training() -> None:
    config = BackboneConfig(hours=2, rate=1e-3, rise=0)
    assert config.rate_at(1, config.done(1, 3600)) == pytest.approx(0.5e-3)
    assert config.rate_at(1, config.done(1, 7200)) == pytest.approx(0, abs=1e-12)
    longer = replace(config, hours=4)
    assert longer.rate_at(1, longer.done(1, 7200)) == pytest.approx(0.5e-3)
    assert longer.done(1, 10**6) == 1
    by_steps = replace(config, steps=10)
    assert by_steps.done(5, 10**6) == 0.5
    rising = replace(config, rise=3)
    assert [rising.rate_at(k, 0) for k in range(5)] == pytest.approx(
        [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3]
    )


def bundled(scale: int) -> CFSR:
    """The network of the weights that ship."""
    return open_backbone(find_backbone(scale, "bundled")[0].path)


@pytest.mark.parametrize("scale", [2, 4])
def test_starting_from_the_same_scale_keeps_the_network(scale) -> None:
    source = bundled(scale)
    started = started_from(source, CFSRConfig(scale=scale)).eval()
    x = torch.rand(1, 3, 24, 20)
    with torch.inference_mode():
        torch.testing.assert_close(started(x), source(x), rtol=1e-5, atol=1e-5)
    edges = [p for n, p in started.named_parameters() if "edge_scale" in n]
    assert len(edges) == 12
    assert all(p.requires_grad for p in edges)


@pytest.mark.parametrize(("old", "new"), [(2, 3), (2, 4), (4, 2), (3, 4)])
def test_starting_from_another_scale(old, new) -> None:
    """The body as it is; each output pixel as the nearest one of the other scale."""
    source = bundled(old)
    started = started_from(source, CFSRConfig(scale=new)).eval()
    kept = source.state_dict()
    for name, value in started.merge().state_dict().items():
        assert name.startswith("upsample") or torch.equal(value, kept[name])
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        was, is_ = source(x), started(x)
    nearest = ((torch.arange(16 * new) + 0.5) * old / new).long()
    expected = was[:, :, nearest][:, :, :, nearest]
    torch.testing.assert_close(is_, expected, rtol=1e-5, atol=1e-5)


def test_training_from_another_scale_starts_well(photos, tmp_path) -> None:
    """A few steps from x4 beat a few steps from nothing."""
    init = bundled(4)
    wanted = request(photos, tmp_path, steps=10, rate=1e-4)
    fresh = run(wanted)[-1].best
    started = run(replace(wanted, init=init))[-1].best
    assert started > fresh + 1


@pytest.mark.usefixtures("small_network")
def test_the_last_part_has_another_loss(photos, tmp_path, monkeypatch) -> None:
    used = []
    for name in ("l1_loss", "mse_loss"):
        original = getattr(torch.nn.functional, name)

        def spy(*a: torch.Tensor, name: str = name, original=original) -> torch.Tensor:
            used.append(name)
            return original(*a)

        monkeypatch.setattr(backbone_training.F, name, spy)
    run(request(photos, tmp_path, steps=10, batch=1, mse_share=0.3))
    assert used == ["l1_loss"] * 7 + ["mse_loss"] * 3


def test_half_precision_is_half_the_size_and_nearly_as_good(photos, tmp_path) -> None:
    network = bundled(2)
    path = save_backbone(tmp_path / "half.safetensors", network.state_dict(), {}, half=True)
    assert path.stat().st_size < 0.61e6
    half = open_backbone(path)
    assert half.conv_first.weight.dtype == torch.float32
    before, after = (evaluate_backbone(n, photos) for n in (network, half))
    for name in before:
        assert after[name] == pytest.approx(before[name], abs=0.002)


@pytest.mark.usefixtures("small_network")
def test_a_full_disk_leaves_what_was_there(photos, tmp_path, monkeypatch) -> None:
    wanted = request(photos, tmp_path, steps=4)
    run(wanted)
    before = wanted.state_path.read_bytes()
    state = TrainingState.load(wanted.state_path)
    monkeypatch.setattr("safetensors.torch.save", full_disk)
    with pytest.raises(WeightsError, match=r"can't be written .*No space left"):
        run(replace(wanted, config=replace(wanted.config, steps=8), state=state))
    assert wanted.state_path.read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.usefixtures("small_network")
def test_steps_with_infinite_gradients_are_skipped(photos, tmp_path, monkeypatch) -> None:
    """One step is skipped; many in a row end the training, and the state is an earlier one."""
    wanted = request(photos, tmp_path, steps=6)
    compute = Gradients.compute
    bad = {3}

    def faulty(self: Gradients, *a: object) -> torch.Tensor:
        value = compute(self, *a)
        faulty.calls += 1
        if faulty.calls in bad:
            self._parameters[5].grad.fill_(torch.inf)
        return value

    faulty.calls = 0
    monkeypatch.setattr(Gradients, "compute", faulty)
    seen = run(wanted)
    assert seen[-1].step == 6
    before = TrainingState.load(wanted.state_path)
    assert all(torch.isfinite(v).all() for t in before.tensors.values() for v in t.values())
    bad |= set(range(8, 100))
    state = replace(wanted, state=before, config=replace(wanted.config, steps=100, validations=1))
    with pytest.raises(DivergedError, match=r"diverged at step \d+ .* smaller rate"):
        run(state)
    after = TrainingState.load(wanted.state_path)
    assert after.about["step"] == 6


def test_tiny_images_are_left_out_with_a_note(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name, size in {"icon": 2, "small": 31, "fine": 40}.items():
        Image.fromarray(noise[:size, :size]).save(tmp_path / f"{name}.png")
    found = read(tmp_path, 4)
    assert found.names == ["fine.png"]
    assert found.notes == [
        "icon.png: expected at least 32 pixels in Y and X, got 2x2",
        "small.png: expected at least 32 pixels in Y and X, got 31x31",
    ]


@pytest.mark.usefixtures("small_network")
def test_files_that_are_no_state_are_refused(photos, tmp_path) -> None:
    wanted = request(photos, tmp_path, steps=2)
    run(wanted)
    with pytest.raises(ArchitectureError, match="can start from a backbone, but not resume"):
        TrainingState.load(wanted.output)
    whole = wanted.state_path.read_bytes()
    wanted.state_path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TruncatedWeightsError):
        TrainingState.load(wanted.state_path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"scale": 5}, ScaleError, "2, 3 or 4"),
        ({"hours": 0}, OptionError, "hours between 0"),
        ({"steps": 0}, OptionError, "steps of at least 1, got 0"),
        ({"batch": 2.5}, OptionError, "batch of at least 1, got 2.5"),
        ({"patch": 4}, OptionError, "patch of at least 8"),
        ({"rate": 2.0}, OptionError, "rate between 0 and 1, got 2.0"),
        ({"mse_share": 1.5}, OptionError, "mse_share"),
        ({"average": 1.0}, OptionError, "average"),
        ({"precision": "float16"}, OptionError, "precision"),
    ],
)
def test_invalid_recipes(options, error, text) -> None:
    with pytest.raises(error, match=text):
        BackboneConfig(**options)


def test_the_recipe_as_plain_values() -> None:
    config = BackboneConfig(scale=3, hours=7, seed=4)
    assert BackboneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert BackboneConfig.from_dict({**config.to_dict(), "of another version": 1}) == config
    assert config.on("cuda:1").precision == "bfloat16"
    assert config.on("cuda").patch == 64
    assert replace(config, patch=24).on("cpu").patch == 24


def read(folder: Path, scale: int = 2) -> Pairs:
    return exhaust(iter_pairs(folder, scale))


def test_images_of_a_folder(tmp_path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (31, 40, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"nonsense")
    found = read(tmp_path)
    assert found.names == ["a.png", "b.png"]
    assert np.array_equal(found.pairs[0][1], colour[:30])
    assert np.array_equal(found.pairs[1][1], colour[:30, :, :1].repeat(3, 2))
    assert [note.split(":")[0] for note in found.notes] == [str(tmp_path / "c.png")]
    train, held_out = found.split(seed=1)
    assert sorted(train.names + held_out.names) == found.names
    assert len(held_out.names) == 1
    with pytest.raises(ImageError, match="at least two images"):
        train.split(1)
    with pytest.raises(FileFormatError, match=r"no such file|found none"):
        read(tmp_path / "nowhere")


@pytest.mark.usefixtures("small_network")
def test_the_network_of_the_best_validation_is_kept(photos, tmp_path, monkeypatch) -> None:
    values = iter([20.0, 25.0, 22.0])
    monkeypatch.setattr(
        backbone_training, "evaluate_backbone", lambda network, images: {"x": next(values)}
    )
    wanted = request(photos, tmp_path, steps=6, validations=3)
    kept = [
        (progress.psnr, progress.best, read_backbone_card(wanted.output)["step"])
        for progress in iter_train_backbone(wanted)
    ]
    assert kept == [(20.0, 20.0, 2), (25.0, 25.0, 4), (22.0, 25.0, 4)]
    best = CFSR(backbone_training.CFSRConfig(scale=2))
    best.load_state_dict(TrainingState.load(wanted.state_path).tensors["best"])
    written = load_state(wanted.output)
    assert all(torch.equal(v, written[k]) for k, v in best.state_dict().items())
