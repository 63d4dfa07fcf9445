"""`napari-cfsr upscale --dask | --workers`: faults, before any time is spent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cfsr.cli import main
from napari_cfsr.core.cluster import client as cluster_client

pytest.importorskip("distributed", reason="needs napari-cfsr[cluster]")
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, np.zeros((9, 14), np.uint8))
    return path


def test_a_fault_of_the_command_line_is_one_line(image, capsys, monkeypatch) -> None:
    monkeypatch.chdir(image.parent)
    assert cluster_client.CONNECT_SECONDS <= 9
    monkeypatch.setattr(cluster_client, "CONNECT_SECONDS", 0.5)

    def fault(*arguments: str) -> str:
        assert main(["upscale", "in.tif", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    for address in ("tcp://127.0.0.1:1", "127.0.0.1:1", "no-such-host:8786", "foo://a:1"):
        assert f"expected a dask scheduler at {address}, " in fault("out.zarr", "--dask", address)
    for address in ("", "tcp://127.0.0.1", "8786"):
        assert "a dask scheduler as tcp://HOST:PORT, got" in fault("out.zarr", "--dask", address)
    assert "there is no such file" in fault("out.zarr", "--dask", "none.json")
    assert "expected at least one worker, got 0" in fault("out.zarr", "--workers=0")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'napari-cfsr[cluster]'" in fault("out.zarr", "--workers=2")
    assert not Path("out.zarr").exists()


def test_a_cluster_writes_stores_only(image, capsys, monkeypatch) -> None:
    monkeypatch.chdir(image.parent)
    monkeypatch.setattr(cluster_client, "local_workers", lambda count: pytest.MonkeyPatch.context())
    assert main(["upscale", "in.tif", "-o", "out.tif", "--scale=2", "--workers=2"]) == 2
    assert "expected OUT.zarr for a cluster, got out.tif" in capsys.readouterr().err
