"""How a refiner is measured and judged."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from napari_cfsr import psnr, ssim
from napari_cfsr.core.image import Degradation, bicubic, denoise, estimate_degradation, imresize
from napari_cfsr.core.training.report import LEAST_GAIN, HeldOutScores, is_gain, verdict
from napari_cfsr.core.training.results import Report, ReportRow
from napari_cfsr.core.training.windows import MOST_PSNR, TrainingWindow
from tests.helpers.small_sets import colours, sim, spots

NOISE = Degradation(photons=50, read_noise=0.01)


def window(
    hr: np.ndarray, degradation: Degradation = NOISE, seed: int = 0, name: str = "cells"
) -> TrainingWindow:
    lr = degradation.apply(hr, 2, np.random.default_rng(seed))
    arrays = (_first(lr), _first(degradation.clean(hr, 2)), _first(hr))
    return TrainingWindow(name, *arrays, (slice(0, lr.shape[0]), slice(0, lr.shape[1])))


def _first(image: np.ndarray) -> np.ndarray:
    return image[None] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, 2, 0))


def _last(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def baseline(lr: np.ndarray) -> np.ndarray:
    """In place of the backbone: bicubic, a little too bright."""
    return np.clip(imresize(lr, 2, axes=(1, 2)) + np.float32(0.02), 0, 1)


def delta(lr: np.ndarray) -> np.ndarray:
    return np.clip(imresize(lr, 2, axes=(1, 2)) + np.float32(0.001), 0, 1)


def measured(windows: list[TrainingWindow], degradation: Degradation | None = NOISE) -> Report:
    measurement = HeldOutScores(2, len(windows[0].hr), degradation)
    for one in windows:
        measurement.add(one, baseline, delta)
    return measurement.report()


@pytest.mark.parametrize("colour", [False, True])
def test_every_score_by_hand(colour) -> None:
    images = colours(2, 160) if colour else spots(2, 128)
    windows = [window(hr, seed=i, name=f"cells {i}") for i, hr in enumerate(images)]
    report = measured(windows)
    assert [row.name for row in report.rows] == [
        "bicubic", "denoised bicubic", "denoised baseline", "baseline", "delta",
    ]  # fmt: skip
    channel = "Y" if colour else "gray"
    assert (report.channel, report.shave) == (channel, 2)
    assert report.images == ("cells 0", "cells 1")
    lrs, hrs = ([_last(getattr(w, side)) for w in windows] for side in ("lr", "hr"))
    cleaned = [denoise(lr, NOISE) for lr in lrs]
    expected: dict[str, list[list[np.ndarray]]] = {
        "bicubic": [[bicubic(lr, 2) for lr in lrs]],
        "baseline": [[_last(baseline(_first(lr))) for lr in lrs]],
        "delta": [[_last(delta(_first(lr))) for lr in lrs]],
        "denoised bicubic": [[bicubic(c[way], 2) for c in cleaned] for way in cleaned[0]],
        "denoised baseline": [
            [_last(baseline(_first(c[way]))) for c in cleaned] for way in cleaned[0]
        ],
    }
    for row in report.rows:
        each = [
            [
                np.mean([f(a, b, shave=2, channel=channel) for a, b in zip(way, hrs, strict=True)])
                for f in (psnr, ssim)
            ]
            for way in expected[row.name]
        ]
        np.testing.assert_allclose([row.psnr, row.ssim], max(each), rtol=1e-6)
    gains = [
        psnr(a, hr, 2, channel) - psnr(b, hr, 2, channel)
        for a, b, hr in zip(expected["delta"][0], expected["baseline"][0], hrs, strict=True)
    ]
    np.testing.assert_allclose(report.gains, gains, rtol=1e-6)
    assert report.gain == pytest.approx(report.psnr("delta") - report.psnr("baseline"))
    assert report.best_conventional.name.startswith("denoised")
    assert math.isnan(report.psnr("nothing"))
    assert f"{report.psnr('delta'):10.2f}" in report.table().splitlines()[-1]
    json.loads(json.dumps(report.to_dict()), parse_constant=pytest.fail)


def test_clean_images_are_not_denoised() -> None:
    clean = Degradation()
    report = measured([window(hr, clean) for hr in spots(2, 128)], clean)
    assert [row.name for row in report.rows] == ["bicubic", "baseline", "delta"]


def test_a_method_counts_on_all_images_or_not_at_all() -> None:
    """A flat image is not denoised; it must not leave the mean of those that are."""
    flat = window(np.full((128, 128), 0.25, np.float32), Degradation(), name="flat")
    report = measured([flat, window(spots(2, 128)[0])])
    rows = {row.name: row for row in report.rows}
    alone = {row.name: row for row in measured([window(spots(2, 128)[0])]).rows}
    for name, plain in (("denoised bicubic", "bicubic"), ("denoised baseline", "baseline")):
        shared = 2 * rows[plain].psnr - alone[plain].psnr  # of the flat one
        assert rows[name].psnr == pytest.approx((shared + alone[name].psnr) / 2)


def test_gain_and_offset_are_undone_for_conventional_methods() -> None:
    how = Degradation(photons=50, gain=0.6, offset=0.2)
    rows = {r.name: r for r in measured([window(hr, how) for hr in spots(2, 128)], how).rows}
    plain = Degradation(photons=50)
    same = {r.name: r for r in measured([window(hr, plain) for hr in spots(2, 128)], plain).rows}
    assert rows["denoised bicubic"].psnr > same["denoised bicubic"].psnr - 0.5
    assert rows["bicubic"].psnr > same["bicubic"].psnr - 0.5


def pair(hr: np.ndarray, how: Degradation, seed: int = 0) -> TrainingWindow:
    """As measured: the HR image has the brightness of the LR image."""
    made = window(hr, how, seed)
    return TrainingWindow(
        "pair", made.lr, made.lr, made.hr * np.float32(how.gain) + how.offset, made.inner
    )


def test_measured_pairs_keep_their_offset(data) -> None:
    """It is estimated from the noise alone; without it, denoised images would be too dark."""
    how = Degradation(photons=20, read_noise=0.01, gain=0.8, offset=0.2)
    made = pair(sim(data, 6, 240)[0], how)
    assert estimate_degradation(made.lr[0]).offset > 0.15
    report = measured([made], None)
    assert report.psnr("denoised bicubic") > report.psnr("bicubic") + 3
    assert report.psnr("denoised bicubic") > 26


def test_measured_values_beyond_the_range() -> None:
    """As by percentiles: some are below 0, some above 1."""
    made = pair(spots(2, 128)[0], Degradation(photons=100))
    beyond = TrainingWindow("pair", made.lr * 1.5 - 0.05, made.lr, made.hr * 1.5 - 0.05, made.inner)
    assert beyond.lr.max() > 1
    assert beyond.lr.min() < 0
    report = measured([beyond], None)
    for row in report.rows:
        assert row.psnr > 15
        assert math.isfinite(row.ssim)


def test_perfect_is_not_infinite() -> None:
    """A black image that comes out black: no NaN in the means, nor in the card."""
    black = np.zeros((1, 64, 64), np.float32)
    made = TrainingWindow(
        "black", black[:, ::2, ::2], black[:, ::2, ::2], black, (slice(0), slice(0))
    )
    measurement = HeldOutScores(2, 1, Degradation())
    measurement.add(made, lambda lr: black, lambda lr: black)
    report = measurement.report()
    assert report.gains == (0,)
    assert {row.psnr for row in report.rows} == {MOST_PSNR}
    json.loads(json.dumps(report.to_dict()), parse_constant=pytest.fail)
    broken = HeldOutScores(2, 1, Degradation())
    broken.add(made, lambda lr: black, lambda lr: black * np.nan)
    assert math.isnan(broken.report().gain)  # and not the greatest there is
    assert not is_gain(broken.report().gains)


def test_what_counts_as_a_gain() -> None:
    assert is_gain((LEAST_GAIN,))
    assert not is_gain((LEAST_GAIN * 0.9,))
    assert not is_gain((-1.0,))
    assert is_gain((1.0, 1.1, 0.9))
    assert is_gain((1e-4, 1.1e-4, 0.9e-4))  # small, but wherever one looks
    assert not is_gain((5.0, -4.0, 0.5))  # by chance
    assert not is_gain((0.0, 0.0))
    assert not is_gain((-0.1, -0.1))
    for odd in (math.nan, math.inf, -math.inf):
        assert not is_gain((1.0, odd))
        assert not is_gain((odd,))


def report_of(denoised: float, base: float, sr: float, count: int = 3) -> Report:
    rows = (
        ReportRow("denoised bicubic", denoised, 0.8),
        ReportRow("baseline", base, 0.5),
        ReportRow("delta", sr, 0.9),
    )
    return Report(rows, "gray", 2, ("a", "b", "c")[:count], (sr - base,) * count)


@pytest.mark.parametrize(
    ("report", "improved", "sentence"),
    [
        (report_of(29, 22, 31), True,
         "Worth using: +9.00 dB over the frozen backbone and +2.00 dB over the best "
         "conventional method (denoised bicubic) on 3 held-out images."),
        (report_of(20, 22, 31, 1), True,
         "Worth using: +9.00 dB over the frozen backbone on 1 held-out image."),
        (report_of(29, 22, 28), True,
         "Not worth using: +6.00 dB over the frozen backbone on 3 held-out images, but "
         "denoised bicubic, a conventional method, is 1.00 dB better still."),
        (report_of(29, 22, 21.9), False,
         "No reliable gain over the frozen backbone on 3 held-out images (-0.100 dB): use the "
         "backbone as it is."),
    ],
)  # fmt: skip
def test_one_sentence(report, improved, sentence) -> None:
    assert verdict(report, improved) == sentence
    assert report.to_dict() == asdict(report)
