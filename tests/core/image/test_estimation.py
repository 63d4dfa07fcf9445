"""Noise, offset and blur of real images whose degradation is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cfsr.core.image import Degradation, Estimate, estimate_degradation, imresize
from napari_cfsr.core.image.estimation import _clipped
from napari_cfsr.errors import ImageError, OptionError

Images = dict[str, list[np.ndarray]]


@pytest.fixture(scope="module")
def images(data: Path) -> Images:
    """HR images in [0,1]: fluorescence, stained and fluorescent nuclei, photographs."""
    sim = sorted((data / "microscopy" / "sim").iterdir())[::6]
    nuclei = sorted((data / "microscopy" / "nuclei_dsb2018").iterdir())[:12]
    photos = sorted((data / "validation" / "Kodak24").iterdir())[1:10:3]
    return {
        "sim": [np.clip(imresize(read(file, "L"), 0.5), 0, 1) for file in sim],
        "nuclei": [read(file, "L") for file in nuclei],
        "photos": [read(file, "RGB") for file in photos],
    }


def read(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode)).astype(np.float32) / 255


def degraded(hrs: list[np.ndarray], degradation: Degradation) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [degradation.apply(hr, 2, rng) for hr in hrs]


def says(estimate: Estimate, words: str) -> bool:
    return any(words in note for note in estimate.notes)


@pytest.mark.parametrize("name", ["sim", "nuclei", "photos"])
@pytest.mark.parametrize(
    ("photons", "read_noise"),
    [(20, 0.005), (20, 0.05), (50, 0.01), (50, 0.02), (100, 0.02), (200, 0.01), (500, 0.02)],
)
def test_photons_and_read_noise(images, name, photons, read_noise) -> None:
    lrs = degraded(images[name], Degradation(photons=photons, read_noise=read_noise))
    found = estimate_degradation(lrs)
    assert 1 / 1.5 < found.photons / photons < 1.5
    assert found.offset == 0
    # where read noise can be told at all: shot noise is as strong at intensity photons * sigma**2
    if photons * read_noise**2 > 0.015:
        assert found.read_noise == pytest.approx(read_noise, rel=0.25)
    else:
        assert found.read_noise < 0.035 or says(found, "read-noise estimate is uncertain")


@pytest.mark.parametrize("name", ["sim", "nuclei", "photos"])
@pytest.mark.parametrize("read_noise", [0.01, 0.05])
def test_read_noise_alone(images, name, read_noise) -> None:
    found = estimate_degradation(degraded(images[name], Degradation(read_noise=read_noise)))
    assert found.read_noise == pytest.approx(read_noise, rel=0.2)
    assert found.photons is None or found.photons > 1000


@pytest.mark.parametrize("name", ["sim", "nuclei", "photos"])
def test_images_without_noise(images, name) -> None:
    found = estimate_degradation(degraded(images[name], Degradation()))
    assert found.photons is None
    assert found.read_noise < 0.002
    assert found.blur == 0
    assert says(found, "Blur cannot be estimated without HR images")


def test_an_offset_is_found_where_there_is_darkness(images) -> None:
    camera = Degradation(photons=50, read_noise=0.02, offset=0.1)
    hrs = [hr for hr in images["nuclei"] if np.quantile(hr, 0.02) < 0.03]
    assert len(hrs) >= 3
    for reference in (None, hrs):
        found = estimate_degradation(degraded(hrs, camera), reference, scale=2)
        assert found.offset == pytest.approx(0.1, abs=0.02)
        assert found.photons == pytest.approx(50, rel=0.25)
        assert found.read_noise == pytest.approx(0.02, rel=0.25)
        assert says(found, "offset may in fact be background light")


@pytest.mark.parametrize("name", ["sim", "nuclei", "photos"])
@pytest.mark.parametrize("blur", [0.5, 1.0, 1.5])
def test_blur_from_the_same_scenes(images, name, blur) -> None:
    for degradation, within in (
        (Degradation(blur=blur), 0.05),
        (Degradation(blur=blur, photons=200, read_noise=0.01), 0.2),
    ):
        found = estimate_degradation(degraded(images[name], degradation), images[name], 2)
        assert found.blur == pytest.approx(blur, abs=within)


@pytest.mark.parametrize("blur", [0.5, 1.0, 1.5])
def test_blur_from_other_scenes_of_the_same_kind(images, blur) -> None:
    lrs = degraded(images["sim"][::2], Degradation(blur=blur, photons=200, read_noise=0.01))
    found = estimate_degradation(lrs, images["sim"][1::2], 2)
    assert found.blur == pytest.approx(blur, abs=0.25)


@pytest.mark.parametrize("name", ["sim", "nuclei", "photos"])
@pytest.mark.parametrize("photons", [None, 200])
def test_no_blur(images, name, photons) -> None:
    lrs = degraded(images[name], Degradation(photons=photons))
    found = estimate_degradation(lrs, images[name], 2)
    assert found.blur == 0


def test_an_estimate_as_a_degradation(images) -> None:
    camera = Degradation(blur=1, photons=50, read_noise=0.02)
    found = estimate_degradation(degraded(images["nuclei"], camera), images["nuclei"], 2)
    again = found.degradation("area")
    assert (again.photons, again.blur, again.kernel) == (found.photons, found.blur, "area")
    lrs = degraded(images["nuclei"], found.degradation())
    twice = estimate_degradation(lrs, images["nuclei"], 2)
    assert twice.photons == pytest.approx(found.photons, rel=0.15)
    assert twice.blur == pytest.approx(found.blur, abs=0.15)


def test_saturated_images(images) -> None:
    camera = Degradation(photons=50, read_noise=0.02, gain=4)
    found = estimate_degradation(degraded(images["sim"], camera))
    assert says(found, "saturated")
    # four times the signal for a photon
    assert found.photons == pytest.approx(50 / 4, rel=0.25)


def test_integers_and_a_single_image(images) -> None:
    lr = degraded(images["photos"][:1], Degradation(photons=50, read_noise=0.02))[0]
    expected = estimate_degradation(lr)
    for dtype in (np.uint8, np.uint16):
        found = estimate_degradation(np.rint(lr * np.iinfo(dtype).max).astype(dtype))
        assert found.photons == pytest.approx(expected.photons, rel=0.05)
        assert found.read_noise == pytest.approx(expected.read_noise, rel=0.1)
    smallest = estimate_degradation(lr[:32, :32])
    assert 1 / 3 < (smallest.photons or 0) / 50 < 3


def test_it_is_quick_on_a_megapixel() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.1, 0.9, 1024, dtype=np.float32) * np.ones((1024, 1), np.float32)
    lr = Degradation(photons=100, read_noise=0.02).noise(ramp, rng)
    start = time.process_time()
    found = estimate_degradation(lr)
    assert time.process_time() - start < 5  # about one on a machine with nothing else to do
    assert found.photons == pytest.approx(100, rel=0.1)
    assert found.read_noise == pytest.approx(0.02, rel=0.25)


def test_moments_of_clipped_values() -> None:
    rng = np.random.default_rng(0)
    for mean, sigma in ((0.0, 0.1), (0.05, 0.1), (0.5, 0.02), (0.9, 0.3), (1.2, 0.1)):
        drawn = np.clip(rng.normal(mean, sigma, 200_000), 0, 1)
        first, second, dark = _clipped(np.array([mean]), np.array([sigma]))
        assert first[0] == pytest.approx(drawn.mean(), abs=1e-3)
        assert second[0] == pytest.approx((drawn**2).mean(), abs=1e-3)
        assert dark[0] == pytest.approx((drawn == 0).mean(), abs=5e-3)


def test_images_that_can_not_be_used() -> None:
    good = np.random.default_rng(0).random((64, 64))
    for bad, message in (
        (np.zeros((64, 64)), "with contrast, got 0 everywhere"),
        (np.ones((64, 64, 3)), "got 1 everywhere"),
        (good[:31], "at least 32x32"),
        (good * 300, r"in \[0,1\]"),
        (np.full((64, 64), np.nan), "finite"),
        ([], "at least one LR image"),
    ):
        with pytest.raises(ImageError, match=message):
            estimate_degradation(bad)
    with pytest.raises(ImageError, match="reduced HR images of at least 32x32"):
        estimate_degradation(good, good[:60, :60], 2)
    with pytest.raises(OptionError, match="expected the scale"):
        estimate_degradation(good, good)
    with pytest.raises(OptionError, match="expected scale as a whole number"):
        estimate_degradation(good, good, 0)
    assert estimate_degradation(good, np.zeros((128, 128)), 2).blur == 0
