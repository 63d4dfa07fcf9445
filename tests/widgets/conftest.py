"""Models in the test process, unless a test is about the model process."""

from __future__ import annotations

import pytest

from tests.helpers.local_model import LocalModel


@pytest.fixture
def model_process() -> None:
    """For tests that need the real model process."""


@pytest.fixture(autouse=True)
def local_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process for each test would take seconds to start."""
    if "model_process" not in request.fixturenames:
        for page in ("upscaling", "batch"):
            monkeypatch.setattr(f"napari_cfsr.widgets.{page}.widget.RemoteModel", LocalModel)
