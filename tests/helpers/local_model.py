"""A model in the test process, where a test is about the window and not about the model process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from napari_cfsr.core.engine import keep_freed_memory
from napari_cfsr.core.engine.model import ModelInfo, PredictOptions, SRModel, load_model
from napari_cfsr.errors import ModelProcessError
from tests.helpers.fakes import BoxModel

_loaded: dict[str, SRModel] = {}  # by their infos


class LocalModel:
    """As `RemoteModel`, without its process. Models are kept for the next test."""

    def __init__(self) -> None:
        self._model: SRModel | None = None

    def load(
        self,
        arguments: dict[str, Any],
        check: Callable[[], None] = lambda: None,
        progress: Any = None,
    ) -> ModelInfo:
        keep_freed_memory()
        self._model = None
        model = load_model(**arguments, progress=progress)
        self._model = _loaded.setdefault(repr(model.info), model)
        return self.info

    @property
    def info(self) -> ModelInfo:
        if self._model is None:
            raise ModelProcessError("expected a loaded model, got none: load one first")
        return self._model.info

    def predict(
        self,
        batch: np.ndarray,
        how: PredictOptions = PredictOptions(),  # noqa: B008 - frozen
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, np.ndarray]:
        assert self._model is not None
        return self._model.predict(batch, how, check)

    def free_memory(self) -> int:
        assert self._model is not None
        return self._model.free_memory()

    def to_cpu(self) -> bool:
        assert self._model is not None
        return self._model.to_cpu()

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


class LocalBoxModel(LocalModel):
    """The same, with a mean filter in place of the network."""

    seconds = 0.0  # that a batch takes

    def predict(
        self,
        batch: np.ndarray,
        how: PredictOptions = PredictOptions(),  # noqa: B008 - frozen
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, np.ndarray]:
        time.sleep(self.seconds)
        return BoxModel(self.info.scale, refiner=True).predict(batch, how, check)
