"""`napari-cfsr upscale` with OME-Zarr stores: values of the API, resumed, nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import napari_cfsr as nc
from napari_cfsr.core.image.spacing import PixelSpace
from napari_cfsr.core.io.store_metadata import store_status
from napari_cfsr.core.store import plan as store_plan
from napari_cfsr.core.store.growing_store import GrowingStore
from napari_cfsr.core.upscale.blocks import plan_blocks
from tests.helpers.commands import Run, Says

pytestmark = pytest.mark.usefixtures("compiled_networks")


@pytest.fixture
def run(call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_once: None) -> Run:
    """`upscale` at x2 with the weights that ship, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    common = ("--scale", 2, "--backbone", "bundled", "--device", "cpu", "--baseline")
    return lambda *arguments: call("upscale", *arguments, *common)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)


def expected(image: np.ndarray, axes: str) -> Any:
    model = nc.load_model(2, "bundled", refiner=None, device="cpu")
    return nc.upscale(image, model, axes=axes, rgb=False, outputs=("baseline",)).baseline


def stack(path: Path) -> np.ndarray:
    image = pixels(2, 20, 30)
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"}, imagej=True)
    return image


def test_a_file_to_a_store_and_back(run: Run, tmp_path: Path) -> None:
    image = stack(tmp_path / "in.tif")
    status, out, err = run("in.tif", "out.zarr")
    assert (status, err) == (0, "")
    assert "in.tif -> out.zarr: x2 with bundled" in out
    written = nc.open_image("out.zarr")
    assert written.axes == "ZYX"
    assert np.array_equal(np.asarray(written.pixels[...]), expected(image, "ZYX"))

    once_more = np.asarray(written.pixels[...])
    status, _, err = run("out.zarr", "--output", "twice.ome.tif")
    assert (status, err) == (0, "napari-cfsr: out.zarr: Writing twice.ome.tif\n")
    assert np.array_equal(tifffile.imread("twice.ome.tif"), expected(once_more, "ZYX"))

    status, out, err = run("out.zarr", "--json")  # beside it
    assert (status, err) == (0, "")
    assert json.loads(out)["outputs"] == {"baseline": "out_x2_baseline.zarr"}
    assert store_status(Path("out_x2_baseline.zarr")) == "complete"


def test_a_store_of_another_program_is_an_input(run: Run, tmp_path: Path) -> None:
    import zarr

    stack(tmp_path / "in.tif")
    array = zarr.create_array("theirs.zarr", shape=(4, 4), dtype="u1")
    array[...] = 7
    status, _, err = run("in.tif", "theirs.zarr", "--overwrite")
    assert status == 2
    assert "theirs.zarr" in err
    assert (zarr.open_array("theirs.zarr", mode="r")[...] == 7).all()
    assert Path("in_x2_baseline.tif").is_file()


def test_an_interrupted_run_is_resumed(
    run: Run, fault: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = stack(tmp_path / "in.tif")
    monkeypatch.setattr(store_plan, "plan_blocks", lambda *a: plan_blocks(*a, side=1, fill=False))
    enter, entered = GrowingStore.enter, []

    def interrupted(self: Any, unit: Any) -> None:
        enter(self, unit)
        entered.append(unit)
        if len(entered) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(GrowingStore, "enter", interrupted)
    assert "interrupted" in fault("in.tif", "out.zarr", "--tile", 16)
    assert store_status(Path("out.zarr")) == "partial"
    status, out, err = run("in.tif", "out.zarr", "--tile", 16)
    assert (status, err) == (0, "")
    assert "2 of 8 blocks were there" in out
    written = np.asarray(nc.open_image("out.zarr").pixels[...])
    assert np.abs(written - expected(image, "ZYX").astype(float)).max() <= 1


def test_a_folder_with_stores(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    image = stack(folder / "a.tif")
    assert run(folder / "a.tif", "--output", folder / "b.zarr")[0] == 0  # ours: is left out
    theirs = folder / "c.zarr"
    shutil.copytree(folder / "b.zarr", theirs)
    attributes = json.loads((theirs / "zarr.json").read_text())
    del attributes["attributes"]["napari_cfsr"]
    (theirs / "zarr.json").write_text(json.dumps(attributes))
    (folder / "broken.zarr").mkdir()
    (folder / "broken.zarr" / "zarr.json").write_text("{")
    status, out, err = run(folder, "--output", "results")
    assert status == 2
    assert "broken.zarr" in err
    assert err.splitlines()[1].startswith("napari-cfsr: 2 upscaled, 1 failed in ")
    names = {p.name for p in Path("results").iterdir() if p.name != ".napari-cfsr.json"}
    assert names == {"a_x2_baseline.tif", "c_x2_baseline.zarr"}
    assert np.array_equal(tifffile.imread("results/a_x2_baseline.tif"), expected(image, "ZYX"))
    found = nc.open_image("results/c_x2_baseline.zarr")
    assert isinstance(found.space, PixelSpace)
    assert found.pixels.shape == (2, 80, 120)
    assert len(out.splitlines()) == 2
