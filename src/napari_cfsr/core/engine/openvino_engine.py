"""Running the networks with OpenVINO on the CPU.

A graph is compiled for the exact shape of a tile, which is a good tenth faster than for any shape;
tiles are cut so that a run has one shape. Compiled graphs are kept on disk (`engine_cache`).
Images of a batch run one after the other, so the result of one never depends on the others.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from napari_cfsr.core.engine.bands import Crop, refiner_bands
from napari_cfsr.core.engine.memory import ask_for_large_pages
from napari_cfsr.core.engine.openvino_graph import (
    VERSION,
    backbone_graph,
    has_wide_vectors,
    refiner_graph,
    with_preferences,
)
from napari_cfsr.core.engine.openvino_import import openvino as ov
from napari_cfsr.core.engine.registry import (
    NO_BFLOAT16,
    X86,
    Check,
    Float32,
    Opened,
    Precision,
    check_precision,
)
from napari_cfsr.core.image import scaled
from napari_cfsr.core.network import REFINER_FIELD, fold
from napari_cfsr.core.weights import (
    Arrays,
    ModelFiles,
    backbone_arrays,
    engine_cache,
    refiner_arrays,
)
from napari_cfsr.errors import DeviceError, OutOfMemoryError

STATIC_PIXELS = 2**15  # from here on, compiling a graph for the exact shape pays
KEPT = 2  # compiled shapes, each with memory for its tile; self-ensemble alternates between two
POLL_MILLISECONDS = 50
NO_PREFERENCES = (
    "the network runs slower than it could: there was no place for a temporary file, from which "
    "OpenVINO reads the fastest implementations"
)
Made = tuple[ov.Model, bool]  # a graph, and whether to keep what is compiled from it
OUT_OF_MEMORY = (  # words of OpenVINO and oneDNN, in lower case
    "bad_alloc", "allocat", "out of memory", "not enough memory", "could not create a memory",
)  # fmt: skip


@contextmanager
def domain_errors() -> Iterator[None]:
    """Turn the RuntimeErrors that OpenVINO raises for everything into errors of this package."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError("out of memory on cpu") from error
    except RuntimeError as error:
        text = str(error).strip()
        last = text.splitlines()[-1] if text else ""
        if any(words in text.lower() for words in OUT_OF_MEMORY):
            raise OutOfMemoryError(f"out of memory on cpu: {last}") from error
        raise DeviceError(f"the network failed on cpu with OpenVINO: {last}") from error


def compile_options(number_type: str, threads: int | None = None) -> dict[str, Any]:
    """How OpenVINO compiles a graph and imports a compiled one: both need the same options.

    Without them, an import computes in bfloat16 on CPUs that have it. `number_type` is "f32" or
    "bf16"; `threads` of the CPU are by default one for each core.
    """
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": number_type,
        "ENABLE_CPU_PINNING": False,  # several processes would be bound to the same cores
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def has_bfloat16(core: ov.Core) -> bool:
    """Whether OpenVINO can compute in bfloat16 on this CPU.

    Where the variable ONEDNN_MAX_CPU_ISA forbids AVX-512, OpenVINO says so and then crashes.
    """
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return False
    return platform.machine() not in X86 or has_wide_vectors(core)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of one network: a CFSR in merged form, or a refiner."""

    sha256: str  # of their file
    arrays: Arrays  # by name
    network: str = "CFSR"


def open_engine(
    files: ModelFiles, _device: str, precision: Precision, threads: int | None
) -> Opened:
    """Load weights; see `EngineEntry.opener`."""
    backbone = Weights(files.backbone.sha256, backbone_arrays(files.backbone, files.scale))
    refiner, placement = None, None
    if files.refiner is not None:
        arrays, card = refiner_arrays(files.refiner, files.backbone)
        refiner = Weights(files.refiner.sha256, arrays, card.network)
        placement = card.placement
    engine = OpenVINOEngine(
        files.scale, backbone, refiner, placement or "output", precision, threads
    )
    return engine, placement


class OpenVINOEngine:
    """Runs the networks with OpenVINO; `fast` is bfloat16 on CPUs that have it, else float32.

    `placement` ("output" or "input") says where the refiner runs; `threads` is by default one for
    each core.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        scale: int,
        backbone: Weights,
        refiner: Weights | None,
        placement: str,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        check_precision(precision)
        self._scale = scale
        self._backbone, self._refiner, self._placement = backbone, refiner, placement
        self._core = ov.Core()
        low = precision == "fast" and has_bfloat16(self._core)
        slow = precision == "fast" and not low
        self.notes: tuple[str, ...] = (NO_BFLOAT16,) if slow else ()
        self._type = "bf16" if low else "f32"
        self._threads = threads
        self._requests: dict[tuple[Any, ...], Any] = {}  # the most recently used comes last

    def to_cpu(self) -> bool:
        return False

    def free_memory(self) -> int:
        return int(psutil.virtual_memory().available)

    def run(
        self, batch: Float32, outputs: tuple[str, ...], check: Check, crop: Crop | None = None
    ) -> dict[str, Float32]:
        crop = crop or (slice(0, batch.shape[2]), slice(0, batch.shape[3]))
        with domain_errors():
            each = [self._run(image[None], outputs, check, crop) for image in batch]
            if len(each) == 1:
                return each[0]
            return {name: np.concatenate([one[name] for one in each]) for name in outputs}

    def refine(self, batch: Float32, check: Check) -> Float32:
        with domain_errors():
            x = np.repeat(batch, 3, axis=1) if batch.shape[1] == 1 else batch
            request = self._refiner_request()
            each = [self._infer(request, one[None], one[None].shape, check) for one in x]
        refined = np.concatenate(each)
        assert self._refiner is not None
        return x + refined if self._refiner.network == "UNetRefiner" else refined

    def _run(
        self, x: Float32, outputs: tuple[str, ...], check: Check, crop: Crop
    ) -> dict[str, Float32]:
        """One image [1,3 or 1,h,w]."""
        gray, at_input = x.shape[1] == 1, self._placement == "input"
        x = np.repeat(x, 3, axis=1) if gray else x  # costs nothing compared with the network
        refined = "delta" in outputs and self._refiner is not None
        in_colour = refined and not at_input  # the refiner sees all three channels
        channels = 1 if gray and not in_colour else 3
        part = scaled(crop, self._scale)
        result: dict[str, Float32] = {}
        if "baseline" in outputs or in_colour:
            full = self._upscaled(x, channels, check)
            result["baseline"] = full[:, :, *part]
        if refined and at_input:
            seen = self._infer(self._refiner_request(), x, x.shape, check)
            result["delta"] = self._upscaled(seen, channels, check)[:, :, *part]
        elif refined:
            result["delta"] = self._refine(full, check, crop)
        wanted = {name: result[name] for name in outputs}
        if gray and in_colour:
            wanted = {name: value.mean(1, keepdims=True) for name, value in wanted.items()}
        return wanted

    def _upscaled(self, x: Float32, channels: int, check: Check) -> Float32:
        """The backbone's output [1,channels,h*scale,w*scale]."""
        height, width = x.shape[2:]
        shape = (1, channels, height * self._scale, width * self._scale)
        return self._infer(self._backbone_request(height, width, channels), x, shape, check)

    def _refine(self, image: Float32, check: Check, crop: Crop) -> Float32:
        """The refiner on what is kept of an image, in bands of rows."""
        scale = self._scale
        size = [(s.stop - s.start) * scale for s in crop]
        result = np.empty((1, 3, *size), np.float32)
        for read, keep, rows in refiner_bands(crop, image.shape, scale, REFINER_FIELD):
            band = np.ascontiguousarray(image[:, :, *read])
            out = self._infer(self._refiner_request(), band, band.shape, check)
            result[:, :, rows] = out[:, :, *keep]
        return result

    def _infer(self, request: Any, x: Float32, shape: tuple[int, ...], check: Check) -> Float32:
        """Run a request; stops early if `check` raises."""
        check()
        result = np.empty(shape, np.float32)
        # held here until the request is done: it reads and writes their memory
        source, target = (
            ov.Tensor(a, shared_memory=True) for a in (np.ascontiguousarray(x), result)
        )
        request.set_input_tensor(source)
        request.set_output_tensor(target)
        request.start_async()
        try:
            while not request.wait_for(POLL_MILLISECONDS):
                check()
        except BaseException:
            request.cancel()
            with suppress(RuntimeError):  # says that it was cancelled
                request.wait()
            raise
        return result

    # compiled networks

    def _key(self, kind: str, weights: Weights, *details: Any) -> dict[str, Any]:
        """All that a compiled network depends on, except instructions that a virtual processor of
        the same name may lack: OpenVINO itself refuses to import what was compiled with those."""
        return {
            "graph": [kind, VERSION, *details],
            "weights": weights.sha256,
            "type": self._type,
            "openvino": ov.__version__,
            "cpu": self._core.get_property("CPU", "FULL_DEVICE_NAME"),
        }

    def _backbone_request(self, height: int, width: int, channels: int) -> Any:
        fixed = (height, width) if height * width >= STATIC_PIXELS else None

        def graph() -> Made:
            folded, half = fold(self._backbone.arrays, gray=channels == 1), self._type != "f32"
            x86 = platform.machine() in X86
            if not half and not x86:
                return backbone_graph(folded, fixed), True
            concatenated = not half and has_wide_vectors(self._core)
            preferring = with_preferences(
                self._core, backbone_graph(folded, fixed, concatenated), half
            )
            if preferring is not None:
                return preferring, True
            if NO_PREFERENCES not in self.notes:
                self.notes = (*self.notes, NO_PREFERENCES)
            return backbone_graph(folded, fixed), False

        return self._request((fixed, channels), "backbone", self._backbone, graph)

    def _refiner_request(self) -> Any:
        refiner = self._refiner
        assert refiner is not None

        def graph() -> Made:
            return refiner_graph(refiner.network, refiner.arrays), True

        return self._request((refiner.network,), "refiner", refiner, graph)

    def _request(
        self, details: tuple[Any, ...], kind: str, weights: Weights, graph: Callable[[], Made]
    ) -> Any:
        """A request for a graph, compiled unless this process or another one did so recently."""
        name = (kind, *details)
        request = self._requests.pop(name, None)
        if request is None:
            large = [key for key in self._requests if key[0] == kind]
            for key in large[: len(large) - KEPT + 1]:
                del self._requests[key]
            compiled = self._compiled(self._key(kind, weights, *details), graph)
            request = compiled.create_infer_request()
            ask_for_large_pages()  # for memory that is allocated but not yet used
        self._requests[name] = request
        return request

    def _compiled(self, key: dict[str, Any], graph: Callable[[], Made]) -> Any:
        options = compile_options(self._type, self._threads)
        stored = engine_cache.read(key)
        if stored is not None:
            with suppress(RuntimeError):
                return self._core.import_model(stored, "CPU", options)
        made, keep = graph()
        compiled = self._core.compile_model(made, "CPU", options)
        if keep:
            blob = compiled.export_model()
            engine_cache.write(key, blob if isinstance(blob, bytes) else blob.getvalue())
        return compiled
