"""The command line: exit status, one line for each fault, and the same numbers as the API."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from safetensors.torch import save_file

import napari_cfsr as nc
from napari_cfsr.cli import main
from napari_cfsr.core.batch import upscale_file as file_run
from napari_cfsr.core.batch.ledger import LEDGER
from napari_cfsr.core.engine.registry import choose_engine
from napari_cfsr.core.io import image_files as files
from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig
from napari_cfsr.core.network.refinenet import RefineNet
from napari_cfsr.core.weights import weight_files
from napari_cfsr.core.weights.checkpoints import RefinerCard, save_refiner

H, W = 9, 14
ENGINE = choose_engine("auto", "cpu")
SUMMARY = re.compile(r"napari-cfsr: \d+ upscaled.* in \d+\.\d s\n\Z")
Run = Callable[..., tuple[int, str, str]]
posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="needs symbolic links or names that Windows does not allow"
)


pytestmark = pytest.mark.usefixtures("nothing_bundled")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; exit status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        out, err = capsys.readouterr()
        err = SUMMARY.sub("", err)  # of several files, whether or not all went well
        assert "Traceback" not in err
        assert status in (0, 2)
        assert (status == 2) == bool(err), err  # and if all went well, not a word
        for line in err.splitlines():
            assert line.startswith("napari-cfsr: "), line
        return status, out, err

    return call


@pytest.fixture
def refiner(tmp_path: Path) -> Path:
    """A refiner of the official x2 backbone that changes a few grey levels."""
    network = RefineNet(torch.Generator().manual_seed(3))
    with torch.no_grad():
        network.body[-1].weight.mul_(100)
    path = tmp_path / "models" / "mine.safetensors"
    path.parent.mkdir()
    card = RefinerCard(2, "output", weight_files.OFFICIAL_SHA256[2], "A test", 0.25)
    save_refiner(path, network.state_dict(), card)
    return path


def picture(path: Path, *shape: int, dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    """Write smooth noise; the pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.random(shape or (H, W, 3))
    pixels = pixels * 0.3 + np.indices(pixels.shape).sum(0) / sum(pixels.shape) * 0.7
    pixels = (pixels * np.iinfo(dtype).max).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        photometric = "rgb" if pixels.shape[-1] == 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=photometric)
    else:
        Image.fromarray(pixels).save(path)
    return pixels


def names(folder: Path) -> list[str]:
    """What is in a folder, but for what a batch remembers."""
    return sorted(p.name for p in folder.iterdir() if p.name != LEDGER)


# upscale


def test_one_file_beside_its_input(official: Path, tmp_path: Path, run: Run) -> None:
    pixels = picture(tmp_path / "in" / "a.png")
    status, out, _ = run("upscale", tmp_path / "in" / "a.png", "--scale", 2, "--device", "cpu")
    assert status == 0
    assert names(tmp_path / "in") == ["a.png", "a_x2_baseline.png"]
    result = nc.upscale(pixels, nc.load_model(2, device="cpu"), axes="YXC")
    with Image.open(tmp_path / "in" / "a_x2_baseline.png") as written:
        np.testing.assert_array_equal(np.asarray(written), result.baseline)
    assert len(out.splitlines()) == 1
    assert out.startswith(f"{tmp_path / 'in' / 'a.png'} -> {tmp_path / 'in' / 'a_x2_baseline.png'}")
    assert f"x2 with official CFSR_x2.pth, no refiner; {ENGINE} on cpu, float32;" in out


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scales(official: Path, tmp_path: Path, run: Run, scale: int) -> None:
    pixels = picture(tmp_path / "a.png", 6, 7)
    assert run("upscale", tmp_path / "a.png", "--scale", scale, "--device", "cpu")[0] == 0
    result = nc.upscale(pixels, nc.load_model(scale, device="cpu"), axes="YX")
    written = files.read_image(tmp_path / f"a_x{scale}_baseline.png").pixels
    np.testing.assert_array_equal(written, result.baseline)


def test_three_outputs_of_a_refiner(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    pixels = picture(tmp_path / "a.png")
    arguments = ("upscale", tmp_path / "a.png", "--scale", 2, "--refiner", refiner)
    assert run(*arguments, "-o", tmp_path / "default")[0] == 0
    assert names(tmp_path / "default") == ["a_x2_delta.png"]  # the best there is
    options = ("--baseline", "--delta", "--difference")
    status, out, _ = run(*arguments, *options, "-o", tmp_path / "all")
    assert status == 0
    assert names(tmp_path / "all") == ["a_x2_baseline.png", "a_x2_delta.png", "a_x2_difference.tif"]
    assert f"refiner file {refiner.name}" in out

    result = nc.upscale(pixels, nc.load_model(2, refiner=refiner), axes="YXC")
    for name, expected in result.arrays().items():
        suffix = ".tif" if name == "difference" else ".png"
        written = files.read_image(tmp_path / "all" / f"a_x2_{name}{suffix}")
        np.testing.assert_array_equal(written.pixels, expected)
        assert written.pixels.dtype == expected.dtype
    assert np.abs(result.difference).max() > 1
    delta = files.read_image(tmp_path / "default" / "a_x2_delta.png").pixels
    np.testing.assert_array_equal(delta, result.delta)


def test_an_imported_refiner_by_name(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    picture(tmp_path / "a.png")
    assert run("models", "import", refiner)[0] == 0
    status, out, _ = run("upscale", tmp_path / "a.png", "--scale", 2, "--refiner", "mine")
    assert status == 0
    assert "refiner imported mine.safetensors" in out
    assert run("upscale", tmp_path / "a.png", "--scale", 2, "--refiner", "none")[0] == 0
    assert names(tmp_path)[:3] == ["a.png", "a_x2_baseline.png", "a_x2_delta.png"]


def test_a_refiner_of_another_backbone_names_both(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    picture(tmp_path / "a.png")
    status, _, err = run("upscale", tmp_path / "a.png", "--scale", 3, "--refiner", refiner)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "was trained on another backbone" in err
    assert weight_files.OFFICIAL_SHA256[2] in err
    assert weight_files.OFFICIAL_SHA256[3] in err


@pytest.mark.parametrize("options", [["--delta"], ["--difference"], ["--baseline", "--delta"]])
def test_an_output_that_needs_a_refiner(
    official: Path, tmp_path: Path, run: Run, options: list[str]
) -> None:
    """One fault, however many files there are: one line, and nothing is written."""
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "in" / name)
    status, out, err = run("upscale", tmp_path / "in", "--scale", 2, *options)
    assert (status, out) == (2, "")
    assert err == (
        f"napari-cfsr: expected a refiner for {options[-1]}, but official CFSR_x2.pth x2 has none "
        f"loaded: choose one with --refiner or leave {options[-1]} out\n"
    )
    assert names(tmp_path / "in") == ["a.png", "b.png", "c.png"]


def test_many_files_and_folders(official: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    for i, name in enumerate(["b.png", "a.jpg", "sub/c.png"]):
        picture(folder / name, seed=i)
    picture(folder / "d.tif", H, W)
    (folder / "notes.txt").write_text("not an image")
    picture(folder / ".hidden.png")
    picture(tmp_path / "e.png")
    arguments = ("--scale", 2, "--tile", 8, "-o", tmp_path / "out")
    status, out, _ = run("upscale", folder, tmp_path / "e.png", *arguments)
    assert status == 0
    assert names(tmp_path / "out") == [
        "a_x2_baseline.jpg", "b_x2_baseline.png", "d_x2_baseline.tif", "e_x2_baseline.png",
    ]  # fmt: skip
    order = [Path(line.split(" -> ")[0]).name for line in out.splitlines()]
    assert order == ["a.jpg", "b.png", "d.tif", "e.png"]


def test_a_folder_is_not_upscaled_twice(official: Path, tmp_path: Path, run: Run) -> None:
    """Results lie beside their inputs; a second run takes the inputs only."""
    picture(tmp_path / "in" / "a.png")
    arguments = ("upscale", tmp_path / "in", "--scale", 2)
    assert run(*arguments)[0] == 0
    paths = tmp_path / "in" / "a.png", tmp_path / "in" / "a_x2_baseline.png"
    assert run(*arguments) == (0, f"{paths[0]} -> {paths[1]}: already there\n", "")
    (tmp_path / "in" / LEDGER).unlink()  # so that nothing says where it comes from
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err == f"napari-cfsr: {paths[0]}: {paths[1]} exists: pass --overwrite to replace it\n"
    assert run(*arguments, "--overwrite")[0] == 0
    assert names(tmp_path / "in") == ["a.png", "a_x2_baseline.png"]
    assert run("upscale", tmp_path / "in" / "a_x2_baseline.png", "--scale", 2)[0] == 0


def test_a_file_named_twice_is_upscaled_once(official: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in" / "a.png"
    picture(path)
    status, out, _ = run("upscale", path, tmp_path / "in", path, "--scale", 2)
    assert (status, len(out.splitlines())) == (0, 1)


def test_an_output_file(official: Path, tmp_path: Path, run: Run) -> None:
    """Its suffix names the format."""
    pixels = picture(tmp_path / "a.png")
    for name in ("x.tif", "new/y.png", "z.JPG"):
        arguments = ("--scale", 2, "--output", tmp_path / "out" / name)
        assert run("upscale", tmp_path / "a.png", *arguments)[0] == 0
    expected = nc.upscale(pixels, nc.load_model(2), axes="YXC").baseline
    for name in ("x.tif", "new/y.png"):
        written = files.read_image(tmp_path / "out" / name).pixels
        np.testing.assert_array_equal(written, expected)
    error = files.read_image(tmp_path / "out" / "z.JPG").pixels.astype(int) - expected
    assert np.abs(error).mean() < 4


def test_an_output_file_for_several_outputs_is_refused(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    for arguments in (
        (tmp_path / "a.png", tmp_path / "b.png"),
        (tmp_path / "a.png", "--baseline", "--delta", "--refiner", refiner),
        (tmp_path,),
    ):
        status, out, err = run("upscale", *arguments, "--scale", 2, "-o", tmp_path / "x.png")
        assert (status, out) == (2, "")
        assert "expected a folder for several files or outputs, got --output" in err
    assert not (tmp_path / "x.png").exists()


def test_a_broken_file_does_not_stop_the_others(official: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (folder / "c.tif").write_bytes(b"")
    Image.new("CMYK", (W, H)).save(folder / "d.jpg")
    tifffile.imwrite(folder / "e.tif", np.zeros((H, W), np.complex64))
    picture(folder / "f.png")
    missing, stray = tmp_path / "missing.png", tmp_path / "notes.txt"
    stray.write_text("")
    (tmp_path / "empty").mkdir()
    status, out, err = run(
        "upscale", folder, missing, stray, tmp_path / "empty", "--scale", 2, "-o", tmp_path / "out"
    )
    assert status == 2
    assert names(tmp_path / "out") == ["a_x2_baseline.png", "f_x2_baseline.png"]
    assert len(out.splitlines()) == 2
    lines = err.splitlines()
    assert len(lines) == 7
    for name, reason in {
        "b.png": "not an image, or damaged",
        "c.tif": "can't be read",
        "d.jpg": "expected gray or RGB, got CMYK",
        "e.tif": "expected bool, integer or real float pixels, got complex64",
        "missing.png": "there is no such file",
        "notes.txt": "expected one of .png",
        "empty": "expected images in this folder, got none",
    }.items():
        (line,) = (line for line in lines if f"{name}: " in line)
        assert reason in line


@posix_only
@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "x" * 250 + ".png", "loop.png"])
def test_names_that_no_file_can_have(official: Path, tmp_path: Path, run: Run, name: str) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    if len(name) == 254:  # it can be read, but its result can't be written
        picture(tmp_path / name)
    picture(tmp_path / "a.png")
    status, out, err = run("upscale", tmp_path / name, tmp_path / "a.png", "--scale", 2)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert len(out.splitlines()) == 1


def test_nothing_is_overwritten(official: Path, tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a_x2_baseline.png").write_bytes(b"precious")
    arguments = ("upscale", tmp_path / "a.png", "--scale", 2)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "a_x2_baseline.png exists: pass --overwrite to replace it" in err
    assert (tmp_path / "a_x2_baseline.png").read_bytes() == b"precious"
    assert run(*arguments, "--overwrite")[0] == 0
    assert files.read_image(tmp_path / "a_x2_baseline.png").pixels.shape == (2 * H, 2 * W, 3)


@posix_only
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_the_input_is_never_the_output(
    official: Path, tmp_path: Path, run: Run, overwrite: list[str]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for output in ("a.png", "link.png", "../" + tmp_path.name + "/a.png"):
        arguments = ("upscale", tmp_path / "a.png", "--scale", 2, "-o", tmp_path / output)
        status, _, err = run(*arguments, *overwrite)
        assert status == 2
        assert "is an input itself: choose another --output" in err
    assert (tmp_path / "a.png").read_bytes() == before


def test_another_input_is_no_output_either(official: Path, tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "a_x2_baseline.png", 4, 5)
    before = (tmp_path / "a_x2_baseline.png").read_bytes()
    status, out, err = run(
        "upscale", tmp_path / "a.png", tmp_path / "a_x2_baseline.png", "--scale", 2, "--overwrite"
    )
    assert status == 2
    assert "a_x2_baseline.png is an input itself" in err
    assert len(out.splitlines()) == 1
    assert (tmp_path / "a_x2_baseline.png").read_bytes() == before


def test_two_inputs_of_one_name_do_not_replace_each_other(
    official: Path, tmp_path: Path, run: Run
) -> None:
    pixels = picture(tmp_path / "1" / "a.png", seed=1)
    picture(tmp_path / "2" / "a.png", seed=2)
    inputs = (tmp_path / "1" / "a.png", tmp_path / "2" / "a.png")
    arguments = ("--scale", 2, "-o", tmp_path / "out", "--overwrite")
    status, _, err = run("upscale", *inputs, *arguments)
    assert status == 2
    assert err.startswith(f"napari-cfsr: {inputs[1]}: ")
    assert f"a_x2_baseline.png is where the result of {inputs[0]} goes: choose another" in err
    expected = nc.upscale(pixels, nc.load_model(2), axes="YXC").baseline
    written = files.read_image(tmp_path / "out" / "a_x2_baseline.png").pixels
    np.testing.assert_array_equal(written, expected)


def test_what_the_format_cannot_hold_is_told_before_the_work(
    official: Path, tmp_path: Path, refiner: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it ran")

    picture(tmp_path / "a.png", H, W, 4)
    picture(tmp_path / "b.tif", 3, H, W, dtype=np.uint16)
    monkeypatch.setattr(file_run, "iter_upscale", never)
    for arguments, reason in [
        ((tmp_path / "a.png", "-o", tmp_path / "x.jpg"), "JPEG holds 8-bit gray or RGB only"),
        ((tmp_path / "b.tif", "-o", tmp_path / "x.png"), "expected a single image, got axes QYX"),
        ((tmp_path / "a.png", "-o", tmp_path / "x.png", "--difference", "--refiner", refiner),
         "can't hold float32"),
    ]:  # fmt: skip
        status, _, err = run("upscale", *arguments, "--scale", 2)
        assert status == 2
        assert reason in err


# upscale: kinds of images


def test_sixteen_bit_and_alpha_and_one_bit(official: Path, tmp_path: Path, run: Run) -> None:
    arrays = {
        "gray16": picture(tmp_path / "in" / "gray16.png", H, W, dtype=np.uint16),
        "alpha": picture(tmp_path / "in" / "alpha.png", H, W, 4),
        "gray": picture(tmp_path / "in" / "gray.png", H, W, 2),
    }
    arrays["bit"] = arrays["gray"][..., 0] > 99
    Image.fromarray(arrays["bit"]).save(tmp_path / "in" / "bit.png")
    assert run("upscale", tmp_path / "in", "--scale", 2, "-o", tmp_path / "out")[0] == 0
    model = nc.load_model(2)
    for name, pixels in arrays.items():
        axes = "YXS"[: pixels.ndim]
        expected = nc.upscale(pixels, model, axes=axes).baseline
        written = files.read_image(tmp_path / "out" / f"{name}_x2_baseline.png")
        np.testing.assert_array_equal(written.pixels, expected)
        assert written.pixels.dtype == pixels.dtype


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_what_a_photo_carries_is_kept(official: Path, tmp_path: Path, run: Run, name: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif.get_ifd(0x8769)[0xA002] = W  # width
    Image.fromarray(picture(tmp_path / name)).save(
        tmp_path / name, icc_profile=profile, exif=exif, dpi=(72, 72)
    )
    assert run("upscale", tmp_path / name, "--scale", 2, "-o", tmp_path / "out")[0] == 0
    with Image.open(tmp_path / "out" / name.replace(".", "_x2_baseline.")) as written:
        assert written.size == (2 * W, 2 * H)
        assert written.info["icc_profile"] == profile
        assert written.info["dpi"] == pytest.approx((144, 144), abs=0.05)
        assert written.getexif()[0x0112] == 6
        assert written.getexif().get_ifd(0x8769)[0xA002] == 2 * W


def test_five_channels_in_a_big_endian_tiff(official: Path, tmp_path: Path, run: Run) -> None:
    """More samples than colours have: each is an image of its own."""
    pixels = picture(tmp_path / "a.tif", H, W, 5, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig",
                     byteorder=">")  # fmt: skip
    assert run("upscale", tmp_path / "a.tif", "--scale", 2)[0] == 0
    model = nc.load_model(2)
    with tifffile.TiffFile(tmp_path / "a_x2_baseline.tif") as tif:
        assert tif.pages[0].samplesperpixel == 5
        written = tif.asarray()
    expected = nc.upscale(pixels, model, axes="YXC", rgb=False).baseline
    np.testing.assert_array_equal(written, expected)
    for i in range(5):  # in batches of another size, sums are made in another order
        alone = nc.upscale(np.ascontiguousarray(pixels[..., i]), model, axes="YX").baseline
        assert np.abs(written[..., i].astype(int) - alone).max() <= 2


def test_a_stack_in_an_ome_tiff(official: Path, tmp_path: Path, refiner: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 4000, (2, 3, H, W), dtype=np.uint16)
    about = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm",
             "PhysicalSizeZ": 2.0, "Channel": {"Name": ["DAPI", "488", "x"]}}  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=about, photometric="minisblack")
    options = ("--refiner", refiner, "--delta", "--difference")
    assert run("upscale", tmp_path / "a.ome.tif", "--scale", 2, *options)[0] == 0
    result = nc.upscale(pixels, nc.load_model(2, refiner=refiner), axes="ZCYX", rgb=False)
    for name in ("delta", "difference"):
        with tifffile.TiffFile(tmp_path / f"a_x2_{name}.ome.tif") as tif:
            np.testing.assert_array_equal(tif.asarray(), result.arrays()[name])
            assert tif.series[0].axes == "ZCYX"
            assert 'PhysicalSizeX="0.25"' in tif.ome_metadata
            assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata
            assert 'Name="488"' in tif.ome_metadata


def test_an_imagej_stack_and_its_difference(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    pixels = picture(tmp_path / "rgb.png", H, W, 3)
    about = {"axes": "YXS", "unit": "um", "spacing": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=about, resolution=(4, 4))
    options = ("--refiner", refiner, "--delta", "--difference")
    assert run("upscale", tmp_path / "a.tif", "--scale", 2, *options)[0] == 0
    with tifffile.TiffFile(tmp_path / "a_x2_delta.tif") as tif:
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.pages[0].resolution == (8, 8)
    difference = tifffile.imread(tmp_path / "a_x2_difference.tif")
    assert (difference.shape, difference.dtype) == ((2 * H, 2 * W, 3), np.float32)


def test_axes(official: Path, tmp_path: Path, run: Run) -> None:
    """Three slices are no colour unless the user says so, and the other way round."""
    pixels = picture(tmp_path / "a.tif", 3, H, W)
    model = nc.load_model(2)
    for axes, same in (("ZYX", "ZYX"), ("syx", "SYX"), ("CYX", "CYX")):
        out = tmp_path / f"{axes}.tif"
        assert run("upscale", tmp_path / "a.tif", "--scale", 2, "--axes", axes, "-o", out)[0] == 0
        expected = nc.upscale(pixels, model, axes=same).baseline
        np.testing.assert_array_equal(tifffile.imread(out), expected)
        assert files.read_image(out).axes == same


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ("YX", "expected one letter for each of the 3 dimensions"),
        ("YYX", "expected different letters"),
        ("ZCX", "expected both Y and X"),
    ],
)
def test_axes_that_do_not_fit(
    official: Path, tmp_path: Path, run: Run, axes: str, reason: str
) -> None:
    picture(tmp_path / "a.tif", 3, H, W)
    status, _, err = run("upscale", tmp_path / "a.tif", "--scale", 2, "--axes", axes)
    assert status == 2
    assert f"a.tif: {reason}" in err


@pytest.mark.parametrize("intensity", ["100,3000", "-5.5,4e3", "data", "percentile", "dtype"])
def test_intensity(official: Path, tmp_path: Path, run: Run, intensity: str) -> None:
    pixels = picture(tmp_path / "a.tif", H, W, dtype=np.uint16) // 16
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    status, _, _ = run("upscale", tmp_path / "a.tif", "--scale", 2, f"--intensity={intensity}")
    assert status == 0
    numbers = tuple(float(n) for n in intensity.split(",")) if "," in intensity else intensity
    expected = nc.upscale(pixels, nc.load_model(2), axes="YX", intensity=numbers).baseline
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a_x2_baseline.tif"), expected)


@pytest.mark.parametrize(
    ("intensity", "reason"),
    [
        ("bright", "expected intensity one of auto, dtype, data, percentile or (low, high)"),
        ("1,2,3", "expected --intensity LOW,HIGH, got '1,2,3'"),
        ("a,b", "expected --intensity LOW,HIGH, got 'a,b'"),
        ("5,5", "expected intensity limits low < high, got (5.0, 5.0)"),
        ("nan,1", "expected intensity limits low < high"),
    ],
)
def test_intensity_that_makes_no_sense(
    official: Path, tmp_path: Path, run: Run, intensity: str, reason: str
) -> None:
    picture(tmp_path / "a.png")
    status, _, err = run("upscale", tmp_path / "a.png", "--scale", 2, "--intensity", intensity)
    assert status == 2
    assert reason in err
    assert len(err.splitlines()) == 1


def test_tile_halo_ensemble_and_back_projection(official: Path, tmp_path: Path, run: Run) -> None:
    pixels = picture(tmp_path / "a.png", 20, 24)
    model = nc.load_model(4)
    for i, (options, same) in enumerate([
        (["--tile", 8, "--halo", 4], {"tile": 8, "halo": 4}),
        (["--halo", "exact"], {"halo": "exact"}),
        (["--ensemble"], {"ensemble": True}),
        (["--back-projection"], {"back_projection": True}),
    ]):  # fmt: skip
        assert run("upscale", tmp_path / "a.png", *options, "-o", tmp_path / f"{i}.png")[0] == 0
        expected = nc.upscale(pixels, model, axes="YX", **same).baseline
        np.testing.assert_array_equal(files.read_image(tmp_path / f"{i}.png").pixels, expected)


def test_the_record_makes_the_same_result(
    official: Path, tmp_path: Path, refiner: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.tif", 3, H, W, dtype=np.uint16)
    monkeypatch.chdir(tmp_path)
    arguments = ("--scale", 2, "--refiner", refiner, "--delta", "--difference", "--json",
                 "--ensemble", "--tile", 8, "--intensity", "10,60000")  # fmt: skip
    status, out, _ = run("upscale", "a.png", "b.tif", *arguments)
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["input"] for r in records] == ["a.png", "b.tif"]
    for record in records:
        assert record["backbone_sha256"] == weight_files.OFFICIAL_SHA256[2]
        assert record["refiner_sha256"] == weight_files.sha256_of(refiner)
        assert (record["scale"], record["tile"], record["ensemble"]) == (2, 8, True)
        assert (record["precision"], record["engine"]) == ("float32", ENGINE)
        assert record["intensity"][0] | {"dtype": ""} == {
            "low": 10.0, "high": 60000.0, "dtype": "", "clip": False,
        }  # fmt: skip
        assert record["seconds"] > 0
        assert record["versions"]["torch"] == torch.__version__
        assert set(record["outputs"]) == {"delta", "difference"}
        scope: dict[str, Any] = {}
        exec(record["python"], scope)
        for name, path in record["outputs"].items():
            written = files.read_image(path).pixels
            np.testing.assert_array_equal(scope["result"].arrays()[name], written)
            assert written.dtype == scope["result"].arrays()[name].dtype


@posix_only
@pytest.mark.parametrize("axes", [None, "TYX"])
def test_the_record_of_a_stack_makes_the_same_result(
    official: Path, tmp_path: Path, run: Run, axes: str | None
) -> None:
    picture(tmp_path / 'it\'s a "stack".tif', 3, H, W, dtype=np.uint16)
    options = () if axes is None else ("--axes", axes)
    path = tmp_path / 'it\'s a "stack".tif'
    status, out, _ = run("upscale", path, "--scale", 2, "--json", *options)
    assert status == 0
    record = json.loads(out)
    assert record["axes"] == (axes or "QYX")
    scope: dict[str, Any] = {}
    exec(record["python"], scope)
    written = files.read_image(record["outputs"]["baseline"]).pixels
    np.testing.assert_array_equal(scope["result"].baseline, written)


def test_notes_reach_the_user(official: Path, tmp_path: Path, run: Run) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(np.zeros((H, W), np.uint8), metadata=None)
        tif.write(np.zeros((W, H), np.uint8), metadata=None)
    status, out, _ = run("upscale", tmp_path / "a.tif", "--scale", 2)
    assert status == 0
    assert out.strip().endswith("; only the first of 2 images in the file was read")


def test_what_a_tiff_cannot_keep_of_a_photo_is_said_once(
    official: Path, tmp_path: Path, refiner: Path, run: Run
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x829A] = (1, 250)  # exposure time
    Image.fromarray(picture(tmp_path / "a.jpg")).save(tmp_path / "a.jpg", exif=exif)
    note = "; EXIF beyond camera, date and author is not carried over"
    arguments = ("upscale", tmp_path / "a.jpg", "--scale", 2)
    status, out, _ = run(*arguments, "-o", tmp_path / "x.tif")
    assert status == 0
    assert out.endswith(f"{note}\n")
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        assert tif.pages[0].tags["Make"].value == "Maker"
    assert note not in run(*arguments)[1]  # a JPEG keeps all of it
    options = ("--refiner", refiner, "--delta", "--difference", "--json")
    summary = json.loads(run(*arguments, *options)[1])["summary"]
    assert summary.count(note) == 1


def test_a_disk_that_takes_no_more(
    official: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = run("upscale", tmp_path / "a.png", "--scale", 2)
    assert status == 2
    assert "a_x2_baseline.png: can't be written (No space left on device)" in err
    assert names(tmp_path) == ["a.png"]


def test_an_interruption_says_what_is_left(
    official: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(file_run, "iter_upscale", interrupted)
    status, _, err = run("upscale", tmp_path / "a.png", "--scale", 2)
    assert status == 2
    assert "interrupted; files that were finished are complete" in err


# models and options that do not exist


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND (see 'napari-cfsr --help')"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["upscale"], "required: inputs (see 'napari-cfsr upscale --help')"),
        (["upscale", "a.png", "--colour"], "unrecognized arguments: --colour"),
        (["upscale", "a.png", "--scale", "5"], "argument --scale: invalid choice: 5"),
        (["upscale", "a.png", "--scale", "two"], "argument --scale: invalid int value: 'two'"),
        (["upscale", "a.png", "--tile", "big"], "argument --tile: invalid int value: 'big'"),
        (["upscale", "a.png", "--halo", "big"],
         "argument --halo: expected a number or 'exact', got 'big'"),
        (["upscale", "a.png", "--precision", "half"], "argument --precision: invalid choice"),
        (["models"], "required: ACTION (see 'napari-cfsr models --help')"),
        (["models", "fetch", "--scale", "7"], "argument --scale: invalid choice: 7"),
        (["models", "import"], "required: files"),
        (["demo", "--no-window"], "expected --output FOLDER with --no-window"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_arguments_that_make_no_sense(run: Run, arguments: list[str], reason: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--backbone", "nothing"], "expected backbone"),
        (["--refiner", "nothing"], "expected refiner"),
        (["--device", "toaster"], "expected device"),
        (["--device", "cuda:99"], "is not available on this machine"),
        (["--tile", "0"], "expected tile >= 1, got 0"),
        (["--halo", "-1"], "expected halo >= 0, got -1"),
        (["--back-projection"], "expected scale 4 for back-projection, got 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_exist(
    official: Path, tmp_path: Path, run: Run, options: list[str], reason: str
) -> None:
    picture(tmp_path / "a.png")
    status, out, err = run("upscale", tmp_path / "a.png", "--scale", 2, *options)
    assert (status, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "command",
    [[], ["upscale"], ["demo"], ["models"], ["models", "list"], ["models", "fetch"],
     ["models", "import"], ["models", "path"]],
    ids=" ".join,
)  # fmt: skip
def test_help(run: Run, command: list[str]) -> None:
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert out.startswith(" ".join(["usage: napari-cfsr", *command]))


def test_version(run: Run) -> None:
    assert run("--version")[1] == f"napari-cfsr {nc.__version__}\n"


def test_weights_that_are_not_to_be_had(tmp_path: Path, run: Run, home: Path) -> None:
    """The mirror that every test has refuses connections."""
    picture(tmp_path / "a.png")
    for command in (["upscale", tmp_path / "a.png"], ["models", "fetch", "--scale", 4],
                    ["demo", "--no-window", "--output", tmp_path / "out"]):  # fmt: skip
        status, out, err = run(*command)
        assert (status, out) == (2, "")
        assert "CFSR_x4.pth could not be downloaded from http://127.0.0.1:9/CFSR_x4.pth" in err
        assert len(err.splitlines()) == 1
    assert not home.exists() or not list(home.rglob("*.pth"))
    assert names(tmp_path)[0] == "a.png"
    assert not (tmp_path / "out").exists()


# models


def test_models_list(official: Path, refiner: Path, home: Path, run: Run) -> None:
    assert run("models", "import", refiner)[0] == 0
    status, out, _ = run("models", "list")
    assert status == 0
    assert f"backbone official x4 CFSR_x4.pth                  {official / 'CFSR_x4.pth'}" in out
    line = r"refiner  imported x2 mine +.*mine\.safetensors  A test \(\+0\.2500 dB\)\n"
    assert re.search(line, out)
    rows = json.loads(run("models", "list", "--json")[1])
    assert [(r["what"], r["kind"], r["scale"]) for r in rows] == [
        ("backbone", "official", 2), ("backbone", "official", 3), ("backbone", "official", 4),
        ("refiner", "imported", 2),
    ]  # fmt: skip
    assert rows[-1]["path"] == str(home / "data" / "refiners" / "mine.safetensors")
    assert rows[-1]["gain"] == 0.25


def test_models_list_on_a_bare_machine(run: Run) -> None:
    status, out, _ = run("models", "list")
    assert status == 0
    assert out.count("not on this machine: 'napari-cfsr models fetch'") == 3
    assert [r["path"] for r in json.loads(run("models", "list", "--json")[1])] == [None] * 3


def test_models_list_with_files_that_make_no_sense(home: Path, run: Run) -> None:
    for folder in ("backbones", "refiners"):
        (home / "data" / folder).mkdir(parents=True)
        (home / "data" / folder / "x.safetensors").write_bytes(b"nonsense")
    status, out, _ = run("models", "list")
    assert status == 0
    assert "backbone imported    x" in out
    assert "refiner" not in out


def test_models_path(official: Path, home: Path, tmp_path: Path, run: Run) -> None:
    assert run("models", "path") == (0, f"{home / 'cache'}\n{home / 'data'}\n", "")
    assert run("models", "path", "--scale", 3) == (0, f"{official / 'CFSR_x3.pth'}\n", "")
    file = shutil.copy(official / "CFSR_x2.pth", tmp_path / "mine.pth")
    assert run("models", "path", "--scale", 2, "--backbone", file)[1] == f"{file}\n"


def test_models_path_downloads_nothing(run: Run) -> None:
    status, out, err = run("models", "path", "--scale", 2)
    assert (status, out) == (2, "")
    assert "the official x2 weights are not on this machine: fetch them with" in err


def test_models_fetch_of_what_is_there(official: Path, run: Run) -> None:
    status, out, _ = run("models", "fetch")
    assert status == 0
    assert out.splitlines() == [f"x{s} {official / f'CFSR_x{s}.pth'}" for s in (2, 3, 4)]


def test_tampered_weights_are_one_line(
    official_folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((official_folder / "CFSR_x2.pth").read_bytes())
    data[5000] ^= 1
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "CFSR_x2.pth").write_bytes(data)
    monkeypatch.setenv(weight_files.WEIGHTS_VARIABLE, str(tmp_path / "w"))
    picture(tmp_path / "a.png")
    for command in (["upscale", tmp_path / "a.png", "--scale", 2], ["models", "fetch"],
                    ["models", "path", "--scale", 2]):  # fmt: skip
        status, _, err = run(*command)
        assert status == 2
        assert "is not the published CFSR_x2.pth: expected SHA-256 e6440c1a" in err
        assert len(err.splitlines()) == 1


def a_backbone(path: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = {"scale": 2, "embed_dim": 8, "depths": (1,), **changes}
    save_file(CFSR(CFSRConfig(**config)).state_dict(), path)
    return path


def test_import_a_backbone_and_use_it(official: Path, tmp_path: Path, home: Path, run: Run) -> None:
    pixels = picture(tmp_path / "a.png")
    path = a_backbone(tmp_path / "tiny.safetensors")
    target = home / "data" / "backbones" / "tiny.safetensors"
    assert run("models", "import", path) == (0, f"{path} -> {target}\n", "")
    assert target.read_bytes() == path.read_bytes()
    path.unlink()
    status, out, _ = run(
        "upscale", tmp_path / "a.png", "--scale", 2, "--backbone", "tiny", "--json"
    )
    assert status == 0
    record = json.loads(out)
    assert record["backbone"] == "imported tiny.safetensors"
    expected = nc.upscale(pixels, nc.load_model(2, "tiny"), axes="YXC").baseline
    scope: dict[str, Any] = {}
    exec(record["python"], scope)
    for array in (scope["result"].baseline,
                  files.read_image(tmp_path / "a_x2_baseline.png").pixels):  # fmt: skip
        np.testing.assert_array_equal(array, expected)


def test_import_an_official_file(
    official_folder: Path, tmp_path: Path, home: Path, run: Run
) -> None:
    path = Path(shutil.copy(official_folder / "CFSR_x2.pth", tmp_path / "from usb.pth"))
    target = home / "cache" / "CFSR_x2.pth"
    assert run("models", "import", path) == (0, f"{path} -> {target}\n", "")
    assert run("models", "path", "--scale", 2) == (0, f"{target}\n", "")


def test_import_replaces_nothing_without_being_told(
    tmp_path: Path, refiner: Path, home: Path, run: Run
) -> None:
    assert run("models", "import", refiner)[0] == 0
    target = home / "data" / "refiners" / "mine.safetensors"
    before = target.read_bytes()
    save_refiner(refiner, RefineNet().state_dict(), RefinerCard(2, "output", "0" * 64))
    status, _, err = run("models", "import", refiner)
    assert status == 2
    assert "exists and differs: pass --overwrite to replace it" in err
    assert target.read_bytes() == before
    assert run("models", "import", refiner, "--overwrite")[0] == 0
    assert target.read_bytes() == refiner.read_bytes()


def test_import_checks_every_file(
    official_folder: Path, tmp_path: Path, home: Path, run: Run
) -> None:
    good = a_backbone(tmp_path / "good.safetensors")
    official_data = (official_folder / "CFSR_x2.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(official_data[:9999])
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "foreign.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"params": torch.nn.Linear(1, 1)}, tmp_path / "code.pth")
    a_backbone(tmp_path / "x8.safetensors", scale=8)
    torch.save(RefineNet().state_dict(), tmp_path / "bare.pth")
    card = RefinerCard(2, "output", "0" * 64).to_metadata()
    save_file({"body.0.weight": torch.ones(1)}, tmp_path / "odd.safetensors", card)
    (tmp_path / "suffix").mkdir()
    renamed = a_backbone(tmp_path / "suffix" / "good.bin")
    reasons = {
        "cut.pth": "is no complete PyTorch file: get it again",
        "foreign.pth": "holds neither a CFSR backbone nor a refiner (1 tensors, the first is "
        "'conv.weight')",
        "list.pth": "expected tensors by name",
        "code.pth": "it was not executed",
        "x8.safetensors": "expected weights for scale 2, 3 or 4, got",
        "bare.pth": "expected a refiner with metadata 'napari-cfsr refiner 1', got",
        "odd.safetensors": "holds another network than RefineNet",
        "nothing.pth": "there is no such file",
    }
    status, out, err = run(
        "models", "import", *(tmp_path / name for name in reasons), renamed, good
    )
    assert status == 2
    lines = err.splitlines()
    assert len(lines) == len(reasons) + 1
    for line, (name, reason) in zip(lines, reasons.items(), strict=False):
        assert str(tmp_path / name) in line
        assert reason in line
    assert "rename it" in lines[-1]
    assert out.startswith(f"{good} -> ")
    kept = [p.name for p in home.rglob("*") if p.is_file()]
    assert kept == ["good.safetensors"]


def test_import_into_a_place_that_cannot_be_written(tmp_path: Path, home: Path, run: Run) -> None:
    home.write_text("a file where the folder should be")
    status, _, err = run("models", "import", a_backbone(tmp_path / "tiny.safetensors"))
    assert status == 2
    assert "can't be written" in err


# demo


def test_the_demo_in_files(official: Path, tmp_path: Path, run: Run) -> None:
    out_folder = tmp_path / "out"
    arguments = ("demo", "--no-window", "--output", out_folder, "--device", "cpu")
    status, out, _ = run(*arguments)
    assert status == 0
    assert names(out_folder) == [
        "cat_HR.png", "cat_LR.png", "cat_baseline.png", "cat_comparison.png",
    ]  # fmt: skip
    found = dict(re.findall(r"^(\w+): Y PSNR ([0-9.]+) dB$", out, re.M))
    assert float(found["bicubic"]) == pytest.approx(31.47, abs=0.02)
    assert float(found["baseline"]) == pytest.approx(32.54, abs=0.02)
    assert out.endswith(f"written to {out_folder}\n")

    hr, lr, baseline = (
        files.read_image(out_folder / f"cat_{name}.png").pixels for name in ("HR", "LR", "baseline")
    )
    assert (hr.shape, lr.shape) == ((300, 448, 3), (75, 112, 3))
    np.testing.assert_array_equal(
        nc.upscale(lr, nc.load_model(4, device="cpu"), axes="YXC").baseline, baseline
    )
    assert nc.psnr(baseline / 255, hr / 255, shave=4, channel="Y") == pytest.approx(
        float(found["baseline"]), abs=5e-4
    )
    with Image.open(out_folder / "cat_comparison.png") as figure:
        assert figure.width > 1500
        assert np.asarray(figure.convert("L")).std() > 30

    before = (out_folder / "cat_LR.png").read_bytes()
    status, _, err = run(*arguments)
    assert status == 2
    assert "cat_LR.png exists: pass --overwrite to replace it" in err
    assert (out_folder / "cat_LR.png").read_bytes() == before


def test_the_demo_with_a_refiner(official: Path, tmp_path: Path, refiner: Path, run: Run) -> None:
    arguments = ("--no-window", "--scale", 2, "--refiner", refiner, "--output", tmp_path / "out")
    status, out, _ = run("demo", *arguments)
    assert status == 0
    assert "cat_delta.png" in names(tmp_path / "out")
    assert re.search(r"^delta: Y PSNR [0-9.]+ dB$", out, re.M)


def test_the_demo_into_a_place_that_cannot_be(official: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file/out", "x" * 300):
        arguments = ("--no-window", "--scale", 2, "--output", tmp_path / folder)
        status, _, err = run("demo", *arguments)
        assert status == 2
        assert "can't be written" in err
        assert len(err.splitlines()) == 1
    assert names(tmp_path) == ["file"]


# in a process of its own


def launch(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program; `upscale` without the refiners that this version may ship."""
    if arguments[0] == "upscale":
        arguments = (*arguments, "--refiner", "none")
    command = [sys.executable, "-m", "napari_cfsr.cli", *map(str, arguments)]
    return subprocess.run(command, text=True, stdin=subprocess.DEVNULL, **options)


def test_a_process_of_its_own(official: Path, tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    done = launch("upscale", tmp_path / "b.png", tmp_path / "a.png", "--scale", 2, "--device",
                  "cpu", "--json", capture_output=True)  # fmt: skip
    assert done.returncode == 2
    fault = f"napari-cfsr: {tmp_path / 'b.png'}: not an image, or damaged\n"
    assert SUMMARY.sub("", done.stderr) == fault
    assert "napari-cfsr: 1 upscaled, 1 failed in " in done.stderr
    record = json.loads(done.stdout)
    expected = nc.upscale(pixels, nc.load_model(2, refiner=None, device="cpu"), axes="YXC").baseline
    written = files.read_image(record["outputs"]["baseline"]).pixels
    np.testing.assert_array_equal(written, expected)


def test_a_failed_download_in_a_process_of_its_own(home: Path) -> None:
    done = launch("models", "fetch", "--scale", 3, capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("napari-cfsr: CFSR_x3.pth could not be downloaded from http://")


def test_damaged_metadata_in_a_process_of_its_own(official: Path, tmp_path: Path) -> None:
    """Libraries that log must not add lines of their own to standard error."""
    xml = '<?xml version="1.0"?><OME><Image><Pixels SizeX="</OME>'
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((H, W), np.uint8), description=xml, metadata=None)
    done = launch("upscale", tmp_path / "a.tif", "--scale", 2, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the OME metadata can't be read and are not carried over" in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(official: Path) -> None:
    """As in `napari-cfsr models list | head -0`."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = launch("models", "list", stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == ""


def test_names_that_the_terminal_cannot_print(official: Path, tmp_path: Path) -> None:
    name = "caf\u00e9 \u4e2d.png"
    picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = launch("upscale", tmp_path / name, "--scale", 2, capture_output=True, env=environment,
                  encoding="cp1252")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\u00e9 \\u4e2d.png -> " in done.stdout
    assert (tmp_path / "caf\u00e9 \u4e2d_x2_baseline.png").is_file()
