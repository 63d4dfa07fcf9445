"""`napari-cfsr visualize`: what is drawn, where it is written, and what it says otherwise.

What a figure looks like is tested in `tests/core/figures`; most figures here need no network.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import napari_cfsr as nc
from napari_cfsr.cli import visualize
from napari_cfsr.cli.visualize_sources import UPRIGHT, Source, read_scene
from napari_cfsr.core.figures import Crop, drawing
from napari_cfsr.core.figures import options as figure_options
from napari_cfsr.core.image.resize import imresize
from napari_cfsr.core.weights import weight_files
from napari_cfsr.errors import OptionError
from tests.helpers.commands import Run, Says, names

H, W = 48, 64
QUICK = ("--scale", 2, "--dpi", 72)
BUNDLED = ("--backbone", "bundled", "--device", "cpu")
PLAIN = ("--panels", "bicubic,HR")  # needs no network

pytestmark = pytest.mark.usefixtures("compiled_networks")


@pytest.fixture
def run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `visualize` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return partial(run, "visualize")


@pytest.fixture
def refiner(make_refiner: Callable[[str], Path]) -> Path:
    """A refiner of the bundled x2 backbone."""
    return make_refiner(weight_files.sha256_of(weight_files.BUNDLED / "cfsr_x2.safetensors"))


def picture(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    """Smooth noise."""
    rng = np.random.default_rng(seed)
    shape = shape or (H, W, 3)
    small = rng.random((shape[0] // 4, shape[1] // 4, *shape[2:]))
    smooth = np.clip(imresize(small, 4), 0, 1)
    return (smooth * np.iinfo(dtype).max).astype(dtype)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def texts(path: Path) -> list[str]:
    return re.findall(r">([^<>]+)</text>", path.read_text("utf-8"))


def test_an_hr_image(tmp_path: Path, refiner: Path, done: Says) -> None:
    """LR is its bicubic reduction; the figures are those of the array API."""
    hr = picture()
    save(tmp_path / "in" / "a.png", hr)
    crop = ("--crop", "28,0,16")
    out = done("in/a.png", "--hr", *QUICK, *BUNDLED, "--refiner", refiner, "--json", *crop)
    assert names(tmp_path) == ["a_x2_comparison.png", "in", "models"]
    record = json.loads(out)
    assert record["figure"] == "a_x2_comparison.png"
    assert (record["lr"], record["hr"]) == (None, "in/a.png")
    assert record["panels"] == list(figure_options.PANELS)

    lr = imresize(hr, 0.5)
    result = nc.upscale(lr, nc.load_model(2, "bundled", refiner=refiner, device="cpu"), axes="YXC")
    made = {"LR": lr.repeat(2, 0).repeat(2, 1), "bicubic": imresize(lr, 2)}
    made |= {"baseline": result.baseline, "delta": result.delta}
    assert list(record["scores"]) == list(made)
    for name, image in made.items():
        score, how = record["scores"][name], {"shave": 2, "channel": "Y"}
        assert score["psnr"] == pytest.approx(nc.psnr(image / 255, hr / 255, **how), abs=1e-9)
        assert score["ssim"] == pytest.approx(nc.ssim(image / 255, hr / 255, **how), abs=1e-9)
    summary = record["summary"]
    assert summary.startswith("in/a.png -> a_x2_comparison.png: PSNR/SSIM LR ")
    assert f"baseline {record['scores']['baseline']['psnr']:.2f}/" in summary
    assert "LR: bicubic reduction of HR (as MATLAB's)" in summary
    assert "refiner file mine.safetensors" in summary
    assert "; crop 28,0,16;" in summary
    with Image.open(tmp_path / "a_x2_comparison.png") as figure:
        assert figure.width > 500
        assert np.asarray(figure.convert("L")).std() > 30


def test_without_a_reference(tmp_path: Path, done: Says) -> None:
    save(tmp_path / "a.png", picture())
    out = done("a.png", *QUICK, *BUNDLED, "--refiner", "none", "-o", "fig.svg")
    assert "a.png -> fig.svg: no reference; crop " in out
    assert "difference left out: there is no refined result" in out
    assert names(tmp_path) == ["a.png", "fig.svg"]
    shown = texts(tmp_path / "fig.svg")
    assert {"a", "LR (nearest)", "bicubic", "baseline"} <= set(shown)
    assert not any("PSNR" in text or "delta" in text for text in shown)
    assert "Network bundled cfsr_x2.safetensors, no refiner." in " ".join(shown)


def test_a_reference_at_its_original_size(tmp_path: Path, done: Says, fault: Says) -> None:
    hr = picture(H + 4, W + 4, 3)[: H + 1, : W + 1]
    save(tmp_path / "hr.png", hr)
    lr = imresize(hr[:H, :W], 0.5)
    save(tmp_path / "lr.png", lr)
    arguments = ("lr.png", *PLAIN, *QUICK, "--json", "--reference")
    out = done(*arguments, "hr.png", "-o", "out.png")
    record = json.loads(out)
    expected = nc.psnr(imresize(lr, 2) / 255, hr[:H, :W] / 255, shave=2, channel="Y")
    assert record["scores"]["bicubic"]["psnr"] == pytest.approx(expected, abs=1e-9)
    assert f"got image ({H}, {W}, 3) and reference ({H // 2}, {W // 2}, 3)" in fault(
        *arguments, "lr.png", "-o", "out2.png"
    )
    assert not (tmp_path / "out2.png").exists()


def test_references_by_name(tmp_path: Path, run: Run) -> None:
    """One without a reference is named, the others are drawn."""
    for i, name in enumerate(("a", "bx2", "c")):
        save(tmp_path / "lr" / f"{name}.png", imresize(picture(seed=i), 0.5))
    save(tmp_path / "hr" / "a.png", picture(seed=0))
    save(tmp_path / "hr" / "b.png", picture(seed=1))
    arguments = ("lr", "--reference", "hr", *PLAIN, *QUICK, "-o", "out")
    status, out, err = run(*arguments)
    assert status == 2
    assert "lr/c.png: expected one reference named c in hr, found 0" in err
    assert len(err.splitlines()) == 1
    assert names(tmp_path / "out") == ["a_x2_comparison.png", "bx2_x2_comparison.png"]
    assert len(out.splitlines()) == 2
    assert min(float(v) for v in re.findall(r"bicubic ([0-9.]+)/", out)) > 25  # the right ones
    status, _, err = run("lr", "--reference", "hr/a.png", *QUICK)
    assert (status, len(err.splitlines())) == (2, 3)
    assert "expected a folder of references for several images, got --reference hr/a.png" in err


def test_a_data_set(tmp_path: Path, run: Run, done: Says) -> None:
    folder = tmp_path / "data" / "benchmark" / "Mini"
    for i, name in enumerate(("one", "two", "three")):
        hr = picture(H + 4, W, 3, seed=i)[: H + 1]
        save(folder / "HR" / f"{name}.png", hr)
        if name != "three":
            save(folder / "LR_bicubic" / "X2" / f"{name}x2.png", imresize(hr[:H], 0.5))
    arguments = ("--data", "data", "--dataset", "Mini", *PLAIN, *QUICK, "-o", "out", "--json")
    out = done(*arguments)
    records = {Path(r["hr"]).stem: r for r in map(json.loads, out.splitlines())}
    assert sorted(records) == ["one", "three", "two"]
    assert names(tmp_path / "out") == [f"{name}_x2_comparison.png" for name in sorted(records)]
    assert Path(records["one"]["lr"]).name == "onex2.png"
    assert records["three"]["lr"] is None  # made of HR
    status, out, err = run(*arguments, "--images", "two,nobody", "--overwrite")
    assert status == 2
    assert [Path(json.loads(line)["hr"]).stem for line in out.splitlines()] == ["two"]
    assert "nobody: no such image in" in err
    assert "which has one, three, two" in err


def test_gray_images_of_a_data_set_count_as_colour(tmp_path: Path, done: Says) -> None:
    """As in the tables of `evaluate`: Y has 219 levels where gray has 255."""
    hr = picture(H, W)
    save(tmp_path / "data" / "Mini" / "a.png", hr)
    arguments = (*PLAIN, *QUICK, "--json")
    psnrs = []
    for images in (("--data", "data", "--dataset", "Mini"), ("data/Mini/a.png", "--hr")):
        out = done(*images, *arguments, "--overwrite")
        psnrs.append(json.loads(out)["scores"]["bicubic"]["psnr"])
    bicubic = imresize(imresize(hr, 0.5), 2)
    assert psnrs[1] == pytest.approx(nc.psnr(bicubic / 255, hr / 255, shave=2), abs=1e-9)
    assert psnrs[0] - psnrs[1] == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_faults_do_not_stop_the_others(tmp_path: Path, run: Run) -> None:
    save(tmp_path / "in" / "a.png", picture())
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG nothing")
    save(tmp_path / "in" / "z.png", picture(seed=1))
    status, out, err = run("in", "nowhere.png", *QUICK, "--panels", "LR", "-o", "out")
    assert status == 2
    assert names(tmp_path / "out") == ["a_x2_comparison.png", "z_x2_comparison.png"]
    assert len(out.splitlines()) == 2
    lines = err.splitlines()
    assert len(lines) == 2
    assert "in/broken.png: not an image, or damaged" in lines[0]
    assert "nowhere.png: expected an image file, there is no such file" in lines[1]


def test_nothing_is_overwritten(tmp_path: Path, run: Run, fault: Says) -> None:
    save(tmp_path / "a.png", picture())
    (tmp_path / "a_x2_comparison.png").write_text("mine")
    arguments = ("a.png", "--hr", *QUICK, "--panels", "HR")
    assert "a_x2_comparison.png exists: pass --overwrite to replace it" in fault(*arguments)
    assert (tmp_path / "a_x2_comparison.png").read_text() == "mine"
    assert run(*arguments, "--overwrite")[0] == 0
    before = (tmp_path / "a.png").read_bytes()
    assert "a.png is an input itself: choose another output" in fault(
        *arguments, "--overwrite", "-o", "a.png"
    )
    assert (tmp_path / "a.png").read_bytes() == before


def test_files_of_one_name(tmp_path: Path, run: Run) -> None:
    for folder in ("x", "y"):
        save(tmp_path / folder / "a.png", picture())
    status, out, err = run("x", "y", "--hr", *QUICK, "--panels", "HR,LR")
    assert status == 2
    assert len(out.splitlines()) == 1
    assert "was written from x/a.png just now: choose another output" in err


def test_our_own_figures_are_no_input(tmp_path: Path, run: Run) -> None:
    save(tmp_path / "in" / "a.png", picture())
    for _ in range(2):
        arguments = ("in", "--hr", *QUICK, "--panels", "HR,LR", "-o", "in", "--overwrite")
        assert run(*arguments)[0] == 0
        assert names(tmp_path / "in") == ["a.png", "a_x2_comparison.png"]


@pytest.mark.usefixtures("nothing_bundled")
def test_panels_that_need_no_network(tmp_path: Path, done: Says, fault: Says) -> None:
    """No weights are on this machine, and the mirror refuses."""
    save(tmp_path / "a.png", picture())
    out = done("a.png", "--hr", *QUICK, "--panels", "bicubic,HR,LR")
    assert "x2 with" not in out
    assert "CFSR_x2.pth could not be downloaded" in fault(
        "a.png", "--hr", *QUICK, "--panels", "baseline,HR", "--overwrite"
    )


def test_crops_labels_and_panels(tmp_path: Path, done: Says) -> None:
    save(tmp_path / "a.png", picture())
    out = done(
        "a.png", "--hr", *QUICK, "--format", "svg", "--json",
        "--crop", "0,0,16", "--crop", "20,30,24", "--panels", "HR,bicubic,LR",
        "--label", "bicubic=ours", "--label", "LR=nearest", "--no-small-print",
        "--arrangement", "above", "--contrast=-10,300",
    )  # fmt: skip
    record = json.loads(out)
    assert record["crops"] == [[0, 0, 16], [20, 30, 24]]
    assert record["panels"] == ["HR", "bicubic", "LR"]
    shown = texts(tmp_path / "a_x2_comparison.svg")
    assert [t for t in shown if t in ("HR", "ours", "nearest")] == ["HR", "ours", "nearest"]
    assert not any("Upscaled" in text for text in shown)


def test_a_crop_from_text() -> None:
    assert visualize.crop_of("12, 0,64") == Crop(12, 0, 64)
    assert str(Crop(12, 0, 64)) == "12,0,64"
    for text in ("12,0", "a,b,c", "-1,0,8", "1,2,3,4", "", "1.5,0,8"):
        with pytest.raises(OptionError, match=rf"expected --crop Y,X,SIZE.*{re.escape(text)}"):
            visualize.crop_of(text)


def test_contrast_is_stated(tmp_path: Path, run: Run) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(H, W, dtype=np.uint16) // 32 + 500)
    arguments = ("a.tif", "--hr", *QUICK, *PLAIN, "-o", "f.svg", "--contrast", "0,4000")
    assert run(*arguments)[0] == 0
    said = " ".join(texts(tmp_path / "f.svg"))
    assert "Black to white: 0 to 4000 in all images, gamma 1." in said
    assert "data range 4095" in said


def test_identical_images(tmp_path: Path, done: Says) -> None:
    save(tmp_path / "a.png", np.full((32, 32), 7, np.uint8))
    out = done("a.png", "--hr", *QUICK, *PLAIN, "--json")
    record = json.loads(out)
    assert record["scores"]["bicubic"] == {"psnr": "Infinity", "ssim": 1.0}
    assert float(record["scores"]["bicubic"]["psnr"]) == math.inf
    assert "bicubic ∞/1.0000" in record["summary"]


def test_a_plane_of_a_stack(tmp_path: Path, done: Says, fault: Says) -> None:
    stack = np.stack([picture(H, W, seed=i) for i in range(3)])
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    err = fault("s.tif", "--hr", *QUICK)
    assert (
        "s.tif: expected a single image, got axes ZYX (3, 48, 64): choose one with --plane Z=0"
        in err
    )
    assert "s.tif: expected Z below 3 in --plane, got 3" in fault(
        "s.tif", "--hr", *QUICK, "--plane", "Z=3"
    )
    arguments = ("--hr", *QUICK, *PLAIN, "--json")
    out = done("s.tif", *arguments, "--plane", "z=2")
    expected = nc.psnr(imresize(imresize(stack[2], 0.5), 2) / 255, stack[2] / 255, shave=2)
    found = json.loads(out)["scores"]["bicubic"]["psnr"]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    image = Image.fromarray(picture(16, 24, 3))
    image.getexif()[0x0112] = orientation
    turned = UPRIGHT.get(orientation, lambda a: a)(np.asarray(image))
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))


def test_photos_are_put_upright(tmp_path: Path, run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(H, W - 16, 3)).save(tmp_path / "a.png", exif=exif)
    assert run("a.png", "--hr", *QUICK, *PLAIN, "-o", "f.svg")[0] == 0
    assert f"HR, {H} × {W - 16} pixels" in texts(tmp_path / "f.svg")  # noqa: RUF001


def test_transparency_is_not_shown(tmp_path: Path, done: Says) -> None:
    pixels = picture(H, W, 4)
    save(tmp_path / "a.png", pixels)
    out = done("a.png", "--hr", *QUICK, *PLAIN, "--json")
    record = json.loads(out)
    hr = pixels[..., :3]
    bicubic = imresize(imresize(hr, 0.5), 2)
    expected = nc.psnr(bicubic / 255, hr / 255, shave=2, channel="Y")
    assert record["scores"]["bicubic"]["psnr"] == pytest.approx(expected, abs=1e-9)
    assert "transparency is not shown" in record["summary"]


def test_scale_bars(tmp_path: Path, run: Run) -> None:
    """From OME or ImageJ metadata, or as given: in pixels of the input."""
    pixels = picture(H, W)
    tifffile.imwrite(
        tmp_path / "imagej.tif", pixels, imagej=True, resolution=(10, 10), metadata={"unit": "um"}
    )
    tifffile.imwrite(
        tmp_path / "ome.ome.tif",
        pixels,
        metadata={"axes": "YX", "PhysicalSizeX": 300, "PhysicalSizeXUnit": "nm"},
    )
    save(tmp_path / "plain.png", pixels)
    cases = [  # micrometres that a pixel of the results is wide
        ("imagej.tif", True, None, 0.1),
        ("imagej.tif", False, None, 0.05),
        ("ome.ome.tif", True, None, 0.3),
        ("plain.png", True, 0.01, 0.01),
        ("imagej.tif", True, 2, 2),
        ("plain.png", True, None, None),
    ]
    for name, is_hr, given, expected in cases:
        options = argparse.Namespace(scale=2, plane=None, axes=None, pixel_size=given)
        found = read_scene(Source("", tmp_path / name, is_hr), options).pixel_size
        assert found == (expected and pytest.approx(expected)), name
    chosen = ("--panels", "LR,bicubic", "--crop", "0,0,24", "-o", "f.svg")
    assert run("imagej.tif", "--hr", *QUICK, *chosen)[0] == 0
    shown = [text for text in texts(tmp_path / "f.svg") if re.fullmatch(r"\d+ [µn]m", text)]
    assert shown[0] == "1 µm"  # 64 x 0.1, at most 0.3 of it


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "expected image files, or --data DIR --dataset NAME"),
        (["--data", "d"], "expected both --data DIR and --dataset NAME"),
        (["--dataset", "Set5"], "expected both --data DIR and --dataset NAME"),
        (["a.png", "--data", "d", "--dataset", "s"], "expected image files or --dataset, got both"),
        (["--data", "d", "--dataset", "s"], "data set 's' not found"),
        (["a.png", "--images", "b"], "--images has no meaning without --dataset"),
        (["a.png", "--hr", "--reference", "b.png"], "not allowed with argument"),
        (["a.png", "--crop", "1,2"], "expected --crop Y,X,SIZE in HR pixels, got '1,2'"),
        (["a.png", "--panels", "HR,best"], "expected panels among LR, bicubic"),
        (["a.png", "--panels", "HR,LR"], "expected a reference for the panel HR"),
        (["a.png", "--label", "delta"], "expected --label PANEL=TEXT, got 'delta'"),
        (["a.png", "--contrast", "1,x"], "expected --contrast LOW,HIGH, got '1,x'"),
        (["a.png", "--plane", "Z3", "--panels", "LR"], "as Z=3,C=0; got 'Z3'"),
        (["a.png", "--dpi", "1"], "expected dpi from 30 to 2400, got 1"),
        (["a.png", "--pixel-size", "0"], "expected --pixel-size above 0, got 0"),
        (["a.png", "--format", "pdf", "-o", "f.svg"], "expected the same format, got --format pdf"),
        (["a.png", "--crop", "60,0,48", "--panels", "LR"], "within 96x128 HR pixels, got 60"),
        (["a.png", "--hr", *BUNDLED, "--refiner", "none", "--panels", "HR,difference"],
         "expected a refiner for the panels delta and difference, but bundled"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_invalid_arguments(tmp_path: Path, fault: Says, arguments: list[str], reason: str) -> None:
    save(tmp_path / "a.png", picture())
    assert reason in fault(*arguments, "--scale", 2)
    assert names(tmp_path) == ["a.png"]


def test_several_figures_into_one_file(tmp_path: Path, run: Run) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", picture())
    status, out, err = run("a.png", "b.png", *QUICK, "--panels", "LR", "-o", "f.pdf")
    assert (status, out) == (2, "")
    assert err.count("expected a folder for several figures, got --output f.pdf") == 2


def test_choices_are_those_of_the_figures() -> None:
    """Every command builds this parser; the module that holds these takes long to import."""
    assert visualize.FORMATS == drawing.FORMATS
    assert visualize.ARRANGEMENTS == figure_options.ARRANGEMENTS


def test_help(done: Says) -> None:
    out = done("--help")
    assert out.startswith("usage: napari-cfsr visualize")
    assert "--crop Y,X,SIZE" in out
