"""Engines: the same values whichever runs, in whatever form the network is, and never black."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

import napari_cfsr
from napari_cfsr import load_model, upscale
from napari_cfsr.core.engine import device as devices
from napari_cfsr.core.engine import registry
from napari_cfsr.core.engine.bands import refiner_bands
from napari_cfsr.core.engine.device import choose_device
from napari_cfsr.core.engine.model import PredictOptions, SRModel
from napari_cfsr.core.engine.registry import ENTRIES, Engine, EngineEntry, choose_engine
from napari_cfsr.core.engine.torch_engine import (
    TorchEngine,
    folded_network,
    half_type,
    true_float32,
)
from napari_cfsr.core.metrics.image_metrics import psnr
from napari_cfsr.core.network import CFSR, CFSRConfig, RefineNet, fold
from napari_cfsr.core.upscale.background import Background
from napari_cfsr.core.upscale.schedule import TileSchedule
from napari_cfsr.core.weights import engine_cache
from napari_cfsr.core.weights.checkpoints import RefinerCard, open_backbone, save_refiner
from napari_cfsr.core.weights.weight_files import bundled_path, sha256_of
from napari_cfsr.errors import CancelledError, DeviceError, OptionError, OutOfMemoryError
from tests.helpers.fakes import BoxModel
from tests.helpers.faults import CancelAt, full_disk, run_python
from tests.helpers.tiny_weights import double, shaken, tiny_network

if TYPE_CHECKING:
    from napari_cfsr.core.engine.openvino_import import openvino as ov

needs_openvino = pytest.mark.skipif(not ENTRIES["openvino"].installed, reason="needs OpenVINO")
REFINERS = Path(napari_cfsr.__file__).parent / "bundled" / "refiners"
NAMES = ["torch", *(["openvino"] if ENTRIES["openvino"].installed else [])]
EVERY = pytest.param("torch"), pytest.param("openvino", marks=needs_openvino)


def training_form(scale: int, depths: tuple[int, ...]) -> CFSR:
    return shaken(CFSRConfig(scale=scale, depths=depths, merged=False))


@pytest.fixture(scope="module")
def two_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of an x2 network as wide as the published one, with two blocks."""
    file = tmp_path_factory.mktemp("two_blocks") / "x2.safetensors"
    save_file(training_form(2, (1, 1)).merge().state_dict(), file)
    return file


def as_arrays(network: CFSR) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


# the folded form


@pytest.mark.parametrize(("scale", "depths"), [(2, (1, 2)), (3, (1, 2)), (4, (6, 6))])
def test_the_folded_form_gives_the_output_of_the_training_form(scale, depths) -> None:
    """The algebra in float64, and what rounding to float32 costs."""
    with double():
        network = training_form(scale, depths).double()
        folded = folded_network(network.merge())
        image = torch.rand(2, 3, 21, 18)
        with torch.inference_mode():
            expected = network(image)
            mean = network(image[:, :1].expand(-1, 3, -1, -1)).mean(1, keepdim=True)
            torch.testing.assert_close(folded(image), expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(folded(image[:, :1], True), mean, rtol=0, atol=1e-12)
    bound = 2e-6 * expected.abs().max().item()
    folded, image = folded.float(), image.float()
    with torch.inference_mode():
        torch.testing.assert_close(folded(image).double(), expected, rtol=0, atol=bound)
        torch.testing.assert_close(folded(image[:, :1], True).double(), mean, rtol=0, atol=bound)


@needs_openvino
@pytest.mark.parametrize(
    ("scale", "depths", "fixed", "concatenated", "preferring"),
    [
        *product((2, 3, 4), [(1, 2)], (True, False), (True, False), (True, False)),
        (4, (6, 6), True, True, True),
        (4, (6, 6), False, False, False),
    ],
)
def test_the_graph_gives_the_output_of_the_training_form(
    scale, depths, fixed, concatenated, preferring
) -> None:
    from napari_cfsr.core.engine.openvino_graph import backbone_graph, with_preferences
    from napari_cfsr.core.engine.openvino_import import openvino as ov

    network = training_form(scale, depths)
    arrays = as_arrays(network.merge())
    image = images(1, 3, 21, 18)
    size = image.shape[2:] if fixed else None
    core = ov.Core()
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
        of_gray = network(torch.from_numpy(image[:, :1]).expand(-1, 3, -1, -1)).mean(1)[:, None]
    options = {"INFERENCE_PRECISION_HINT": "f32"}

    def as_run(graph: ov.Model) -> ov.Model:
        return with_preferences(core, graph) if preferring else graph

    graph = as_run(backbone_graph(fold(arrays), size, concatenated))
    compiled = core.compile_model(graph, "CPU", options)
    bound = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(compiled(image)[0], expected, rtol=0, atol=bound)
    graph = as_run(backbone_graph(fold(arrays, gray=True), size, concatenated))
    got = core.compile_model(graph, "CPU", options)(image[:, [0, 0, 0]])[0]
    np.testing.assert_allclose(got, of_gray.numpy(), rtol=0, atol=bound)


@needs_openvino
@pytest.mark.parametrize("isa", ["", "AVX2"])
def test_the_implementations_are_the_preferred_ones(isa, tmp_path) -> None:
    """Also on a CPU without AVX-512."""
    program = """
import sys
import numpy as np
from napari_cfsr.core.network.folding import fold
from napari_cfsr.core.engine.openvino_engine import compile_options
from napari_cfsr.core.engine.openvino_graph import backbone_graph, has_wide_vectors
from napari_cfsr.core.engine.openvino_graph import with_preferences
from napari_cfsr.core.engine.openvino_import import openvino as ov

options = compile_options("f32")
core, arrays = ov.Core(), dict(np.load(sys.argv[1]))
wide = has_wide_vectors(core)
nodes = []
for gray in (False, True):
    for size in ((64, 64), (181, 320), None):
        graph = with_preferences(core, backbone_graph(fold(arrays, gray), size, wide))
        compiled = core.compile_model(graph, "CPU", options)
        kept = core.import_model(compiled.export_model(), "CPU", options)
        for one in (compiled, kept):
            nodes += [n.get_rt_info() for n in one.get_runtime_model().get_ops()]
names = ("layerType", "primitiveType", "outputLayouts")
said = {":".join(n[name].value for name in names) for n in nodes}
print(wide, *sorted(one for one in said if one.startswith(("Convolution", "Concatenation"))))
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa} if isa else dict(os.environ)
    weights = tmp_path / "weights.npz"
    np.savez(weights, **as_arrays(CFSR(CFSRConfig(depths=(1, 1)))))
    said = run_python(program, weights, env=environment)
    wide, *found = said.split()
    if "avx" not in said:
        pytest.skip("the processor has no AVX2")
    assert isa != "AVX2" or wide == "False"
    vectors = "avx512" if wide == "True" else "avx2"
    kinds = {one.split(":")[1] for one in found if one.startswith("Convolution")}
    assert kinds == {f"jit_{vectors}{kind}_f32" for kind in ("", "_1x1", "_dw")}
    if wide == "True":
        assert all(one.endswith(":aBcd16b") for one in found)  # in blocks of 16 channels
        assert "Concatenation:unknown_f32:aBcd16b" in found  # in place: a copy would have a name


@needs_openvino
def test_a_mean_far_above_the_deviation_loses_no_digits() -> None:
    """What the coordinates of the graph are chosen for: see `openvino_graph`."""
    from napari_cfsr.core.engine.openvino_graph import _Rotation, _to_length_one
    from napari_cfsr.core.engine.openvino_import import openvino as ov
    from napari_cfsr.core.engine.openvino_import import opset13 as op

    channels = 48
    rotation = _Rotation(channels)
    np.testing.assert_allclose(rotation.out @ rotation.into, np.eye(channels), atol=1e-12)
    y = np.random.default_rng(0).normal(50, 1, (channels, 7))
    x = op.parameter([1, channels, 1, 7], np.float32)
    graph = ov.Model([_to_length_one(x, channels)], [x], "norm")
    run = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rotated = (rotation.into @ y)[None, :, None].astype(np.float32)
    got = rotation.centred @ run(rotated)[0][0, :, 0].astype(np.float64)
    expected = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-6)
    np.testing.assert_allclose(got, expected, atol=5e-6)


# engines


@pytest.fixture(scope="module")
def pairs(
    tiny_backbones: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, SRModel]]:
    """A tiny x4 network with a refiner behind the backbone, and with one before it, by engine."""
    backbone, folder = tiny_backbones[4], tmp_path_factory.mktemp("refiners")
    network = RefineNet(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.body[-1].weight.mul_(300)
    found = []
    for placement in ("output", "input"):
        file, card = folder / placement, RefinerCard(4, placement, sha256_of(backbone))
        save_refiner(file.with_suffix(".safetensors"), network.state_dict(), card)
        found.append(_on_each_engine(backbone, file.with_suffix(".safetensors")))
    return found


@pytest.fixture(scope="module")
def trained_pairs() -> list[dict[str, SRModel]]:
    """The bundled x4 with a refiner behind and with one before the backbone, by engine."""
    names = ("clean_bundled_x4", "noisy_photo_bundled_x4")
    return [_on_each_engine("bundled", REFINERS / f"{name}.safetensors") for name in names]


def _on_each_engine(backbone: Path | str, refiner: Path) -> dict[str, SRModel]:
    return {name: load_model(4, backbone, refiner, "cpu", engine=name) for name in NAMES}


def assert_engines_agree(pair: dict[str, SRModel], batch: np.ndarray) -> None:
    torch_, openvino = (
        pair[name].predict(batch, PredictOptions(("baseline", "delta"))) for name in NAMES
    )
    assert np.abs(torch_["delta"] - torch_["baseline"]).max() > 1e-4
    for output in torch_:
        assert torch_[output].shape == openvino[output].shape
        np.testing.assert_allclose(openvino[output], torch_[output], atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("shape", [(2, 1, 33, 40), (1, 3, 190, 180), (1, 1, 9, 7)])
def test_engines_agree(pairs, shape) -> None:
    for pair in pairs:
        assert_engines_agree(pair, images(*shape) * 1.2 - 0.1)


@needs_openvino
def test_engines_agree_with_trained_weights(trained_pairs) -> None:
    for pair in trained_pairs:
        assert_engines_agree(pair, images(1, 3, 33, 40) * 1.2 - 0.1)


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_is_that_part_of_the_whole(pairs, engine, channels) -> None:
    batch = images(2, channels, 40, 50)
    for pair in pairs:
        model = pair[engine]
        for outputs in (("baseline", "delta"), ("delta",)):
            whole = model.predict(batch, PredictOptions(outputs))
            for crop in ((slice(0, 11), slice(20, 50)), (slice(16, 24), slice(3, 40))):
                part = model.predict(batch, PredictOptions(outputs, crop=crop))
                assert tuple(part) == outputs
                for name in outputs:
                    ys, xs = (slice(4 * s.start, 4 * s.stop) for s in crop)
                    np.testing.assert_allclose(part[name], whole[name][:, :, ys, xs], atol=2e-6)


@pytest.mark.parametrize("engine", EVERY)
def test_images_of_a_batch_do_not_depend_on_each_other(pairs, engine) -> None:
    batch, model = images(3, 3, 24, 30), pairs[0][engine]
    together = model.predict(batch)["baseline"]
    alone = np.concatenate([model.predict(one[None])["baseline"] for one in batch])
    np.testing.assert_allclose(together, alone, atol=2e-6)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.data())
@settings(max_examples=60)
def test_bands_of_the_refiner_cover_the_crop_once(height, width, field, data) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    written = np.zeros((bottom - top) * 2, int)
    grid = np.stack(np.mgrid[: height * 2, : width * 2])
    crop = (slice(top, bottom), slice(left, right))
    for read, keep, where in refiner_bands(crop, (2 * height, 2 * width), 2, field):
        written[where] += 1
        kept = grid[:, *read][:, *keep]
        rows, columns = kept[0, :, 0], kept[1, 0]
        assert rows.tolist() == [top * 2 + i for i in range(where.start, where.stop)]
        assert columns.tolist() == list(range(left * 2, right * 2))
        for axis, (ends, size) in enumerate(((rows, height), (columns, width))):
            assert read[axis].start <= max(ends[0] - field, 0)
            assert read[axis].stop >= min(ends[-1] + 1 + field, 2 * size)
    assert (written == 1).all()


@needs_openvino
@pytest.mark.alone
def test_cancelling_openvino_stops_inside_a_tile(trained_pairs) -> None:
    model, batch = trained_pairs[0]["openvino"], images(1, 3, 400, 400)
    began = time.perf_counter()
    expected = model.predict(batch)["baseline"]
    whole = time.perf_counter() - began
    began = time.perf_counter()
    with pytest.raises(CancelledError):
        model.predict(batch, check=CancelAt(3))
    assert time.perf_counter() - began < max(0.6 * whole, 0.5)
    # and it is as good as new
    np.testing.assert_array_equal(model.predict(batch)["baseline"], expected)


@needs_openvino
@pytest.mark.parametrize("text", ["std::bad_alloc", "Failed to allocate 5 bytes of memory"])
def test_openvino_running_out_of_memory_is_understood(tiny_backbones, monkeypatch, text) -> None:
    model = load_model(2, tiny_backbones[2], None, "cpu", engine="openvino")

    def fail(*_: object) -> None:
        raise RuntimeError(f"Exception from src/inference.cpp:\n{text}")

    monkeypatch.setattr(model._engine, "_infer", fail)
    with pytest.raises(OutOfMemoryError, match="a tile of 32 pixels on cpu"):
        upscale(np.zeros((90, 90), np.uint8), model)


@needs_openvino
def test_memory_stays_bounded_with_many_sizes(two_blocks) -> None:
    model = load_model(2, two_blocks, None, "cpu", engine="openvino")
    process = psutil.Process()
    side, peaks = 256, []
    for more in range(0, 8 * 16, 16):  # none larger than the first
        model.predict(images(1, 3, side + more, side - more))
        peaks.append(process.memory_info().rss)
    assert len(model._engine._requests) <= 2
    # after the first two, a third of what one size needs: 3000 bytes for each pixel
    assert max(peaks[3:]) - peaks[2] < 1000 * side**2


@needs_openvino
def test_importing_openvino_starts_no_telemetry() -> None:
    """OpenVINO would send it from a forked process, which may hang with the pipes it inherits."""
    program = (
        "import sys, threading, psutil\n"
        "import napari_cfsr.core.engine.openvino_engine\n"
        "print('openvino_telemetry' in sys.modules, threading.active_count(), "
        "len(psutil.Process().children()))\n"
        "import openvino_telemetry  # others still can\n"
    )
    assert run_python(program, timeout=60).split() == ["False", "1", "0"]


# choosing


def test_auto_is_a_rule_and_others_say_what_they_need(monkeypatch) -> None:
    assert choose_engine("auto", "cuda") == choose_engine("auto", "mps") == "torch"
    assert choose_engine("torch", "cpu") == "torch"
    with pytest.raises(OptionError, match='expected engine "auto", "torch", "openvino"'):
        choose_engine("onnx", "cpu")
    with pytest.raises(DeviceError, match="runs on the CPU, got device 'cuda'"):
        choose_engine("openvino", "cuda")
    monkeypatch.setattr(EngineEntry, "installed", False)
    with pytest.raises(DeviceError, match="pip install openvino"):
        choose_engine("openvino", "cpu")


@pytest.mark.parametrize(
    ("machine", "there", "expected"),
    [("x86_64", True, "openvino"), ("AMD64", True, "openvino"), ("x86_64", False, "torch"),
     ("arm64", True, "torch"), ("aarch64", True, "torch")],
)  # fmt: skip
def test_auto_falls_back_to_torch(monkeypatch, machine, there, expected) -> None:
    monkeypatch.setattr(registry.platform, "machine", lambda: machine)
    monkeypatch.setattr(EngineEntry, "installed", there)
    assert choose_engine("auto", "cpu") == expected


def test_torch_is_not_asked_for_a_gpu_without_a_driver(monkeypatch) -> None:
    monkeypatch.setattr(devices, "may_have_gpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    assert choose_device("auto") == "cpu"
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"


def test_devices_that_exist_and_that_do_not() -> None:
    assert choose_device("cpu:0") == choose_device("cpu") == "cpu"
    for device in ("auto:1", "gpu", ""):
        with pytest.raises(OptionError, match="expected device"):
            choose_device(device)


def test_torch_runs_where_openvino_cannot_be_loaded(monkeypatch, tiny_backbones) -> None:
    def broken(*_: object) -> None:
        raise ImportError("DLL load failed")

    monkeypatch.setattr("napari_cfsr.core.engine.openvino_engine.open_engine", broken)
    monkeypatch.setattr("napari_cfsr.core.engine.model.choose_engine", lambda *_: "openvino")
    model = load_model(2, tiny_backbones[2], None, "cpu")
    assert model.info.engine == "torch"
    assert model.info.notes[0] == "runs with torch: OpenVINO can't be loaded (DLL load failed)"
    with pytest.raises(DeviceError, match="can't be loaded: DLL load failed"):
        load_model(2, tiny_backbones[2], None, "cpu", engine="openvino")


def test_notes_are_of_the_engine_that_ran() -> None:
    class Moving:
        name, device, notes = "torch", "cuda:0", ("on the GPU",)

        def to_cpu(self) -> bool:
            self.device, self.notes = "cpu", (registry.NO_BFLOAT16,)
            return True

    engine = Moving()
    info = BoxModel(2, device="cuda:0").info
    model = SRModel(engine, replace(info, notes=("bundled weights",)))
    assert model.info.notes == ("bundled weights", "on the GPU")
    assert model.to_cpu()
    assert model.info.device == "cpu"
    assert model.info.notes == ("bundled weights", registry.NO_BFLOAT16)


# what is released


def test_memory_of_a_failed_background_call_is_released() -> None:
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def fail(_: object, check: Callable[[], None]) -> None:
        large = Large()
        held.append(weakref.ref(large))
        check()
        raise MemoryError

    gc.disable()
    try:
        with Background("test") as background:
            background.start(fail, None)
            with pytest.raises(MemoryError) as caught:
                background.result()
            del caught
            assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("engine", EVERY)
def test_a_model_does_not_keep_its_results(engine, tiny_backbones) -> None:
    model = load_model(2, tiny_backbones[2], None, "cpu", engine=engine)
    result = upscale(np.zeros((40, 40), np.uint8), model)
    held = weakref.ref(result.baseline)
    del result
    gc.collect()
    assert held() is None


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="came with torch 2.9")
def test_float32_on_cuda_is_exact_whatever_the_settings_of_torch() -> None:
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        for setting in ("tf32", "ieee", "none"):
            conv.fp32_precision = setting
            kept = conv.fp32_precision
            with true_float32():
                assert conv.fp32_precision == "ieee"
            assert conv.fp32_precision == kept
    finally:
        conv.fp32_precision = before


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="needs large pages of Linux"
)
def test_large_pages_are_asked_for() -> None:
    program = (
        "import re\n"
        "from pathlib import Path\n"
        "from napari_cfsr.core.engine.memory import ask_for_large_pages, keep_freed_memory\n"
        "def heap():\n"
        "    text = Path('/proc/self/smaps').read_text()\n"
        "    return re.search(r'\\[heap\\].*?VmFlags:([^\\n]*)', text, re.S)[1].split()\n"
        "keep_freed_memory()\n"
        "before = 'hg' in heap()\n"
        "ask_for_large_pages()\n"
        "print(before, 'hg' in heap())\n"
    )
    assert run_python(program).split() == ["False", "True"]


# what is kept on disk


def test_entries_come_back_unless_damaged(home) -> None:
    key = {"graph": ["a", 1], "weights": "00"}
    assert engine_cache.read(key) is None
    engine_cache.write(key, b"compiled")
    assert engine_cache.read(key) == b"compiled"
    assert engine_cache.read({**key, "weights": "01"}) is None
    (file,) = engine_cache.folder().iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert engine_cache.read(key) is None
    engine_cache.write(key, b"again")
    assert engine_cache.read(key) == b"again"


def test_entries_are_used_where_nothing_can_be_written(home, monkeypatch) -> None:
    engine_cache.write({"n": 1}, b"compiled")
    monkeypatch.setattr("os.utime", full_disk)
    assert engine_cache.read({"n": 1}) == b"compiled"


def test_the_longest_unused_entries_go_first(home, monkeypatch) -> None:
    monkeypatch.setattr(engine_cache, "MOST_BYTES", 1000)
    for i in range(4):
        engine_cache.write({"n": i}, bytes(300))
        time.sleep(0.02)
        engine_cache.read({"n": 0})
    kept = [i for i in range(4) if engine_cache.read({"n": i}) is not None]
    assert kept == [0, 2, 3]  # 332 bytes each


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(home, monkeypatch) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_bytes(b"a file where the folder should be")
    engine_cache.write({"n": 1}, b"x")
    assert engine_cache.read({"n": 1}) is None
    made = engine_cache.arrays({"n": 2}, lambda: {"a": np.arange(3)})
    assert made["a"].tolist() == [0, 1, 2]


@needs_openvino
def test_a_full_disk_costs_speed_only(tiny_backbones, home, monkeypatch) -> None:
    """Preferences go through a file; a graph without them is slower, noted, and not kept."""

    def predict(engine: str, says: bool = False) -> np.ndarray:
        model = load_model(4, tiny_backbones[4], None, "cpu", engine=engine)
        result = model.predict(images(1, 3, 20, 24))["baseline"]
        assert any("no place for a temporary file" in note for note in model.info.notes) == says
        return result

    expected = predict("torch")
    with monkeypatch.context() as patch:
        patch.setattr(
            "napari_cfsr.core.engine.openvino_graph.tempfile.TemporaryDirectory", full_disk
        )
        np.testing.assert_allclose(predict("openvino", says=True), expected, atol=1e-5)
    kept = len(list(home.rglob("*.bin")))  # the weights
    np.testing.assert_allclose(predict("openvino"), expected, atol=1e-5)
    assert len(list(home.rglob("*.bin"))) == kept + 1


@needs_openvino
def test_the_second_start_needs_no_torch_and_gives_the_same_bits(tmp_path) -> None:
    """Small and large images need different graphs."""
    torch.save({"params": CFSR(CFSRConfig(depths=(1, 1))).state_dict()}, tmp_path / "x4.pth")
    program = (
        "import sys, numpy as np, napari_cfsr as nc\n"
        "model = nc.load_model(4, sys.argv[2], refiner=None, device='cpu')\n"
        "rng = np.random.default_rng(0)\n"
        "small, large = (rng.random((1, 3, n, n), np.float32) for n in (40, 190))\n"
        "out = [model.predict(x)['baseline'] for x in (small, large)]\n"
        "np.savez(sys.argv[1], *out)\n"
        "print('torch' in sys.modules)\n"
    )
    runs = []
    for name in ("first", "second"):
        result = tmp_path / f"{name}.npz"
        has_torch = run_python(program, result, tmp_path / "x4.pth").strip()
        with np.load(result) as arrays:
            runs.append((has_torch, [arrays[key] for key in arrays.files]))
    assert [has_torch for has_torch, _ in runs] == ["True", "False"]
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


@needs_openvino
@pytest.mark.alone
def test_the_second_start_of_the_command_line_is_quick(tmp_path) -> None:
    """2.5 s is for two idle cores; here other tests may run, so processor time counts."""
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    command = [sys.executable, "-m", "napari_cfsr.cli", "upscale", str(image), "--overwrite"]
    command += ["--backbone", "bundled"]
    for _ in range(2):
        before = psutil.Process().cpu_times()
        subprocess.run(command, check=True, capture_output=True)
        after = psutil.Process().cpu_times()
    user, system = after.children_user, after.children_system
    assert user - before.children_user + system - before.children_system < 4.0


# fast precision


def test_fast_precision_is_noted_where_it_is_float32(tiny_backbones) -> None:
    model = load_model(2, tiny_backbones[2], None, "cpu", "fast", engine="torch")
    note = "fast precision is float32 here: this processor has no bfloat16"
    assert (note in model.info.notes) == (half_type("cpu") is None)


@needs_openvino
def test_fast_precision_is_float32_where_onednn_may_not_use_avx512(tiny_backbones) -> None:
    """OpenVINO says that the processor has bfloat16 all the same, and would crash with it."""
    load_model(2, tiny_backbones[2], None, "cpu", engine="openvino")  # kept: no torch is needed
    program = (
        "import sys, numpy as np, napari_cfsr as nc\n"
        "model = nc.load_model(2, sys.argv[1], None, 'cpu', 'fast', engine='openvino')\n"
        "model.predict(np.zeros((1, 3, 32, 32), np.float32))\n"
        "model.predict(np.zeros((1, 3, 192, 192), np.float32))\n"
        "print('torch' in sys.modules, *model.info.notes)\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = run_python(program, tiny_backbones[2], env=environment)
    assert said.startswith("False")
    assert registry.NO_BFLOAT16 in said


def skip_where_bfloat16_crashes(core: ov.Core) -> None:
    from napari_cfsr.core.engine.openvino_engine import has_bfloat16

    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and not has_bfloat16(core):
        pytest.skip("oneDNN may not use AVX-512")


def in_bfloat16(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that computes in it, also where the processor has to emulate it."""
    if name == "openvino":
        engine = load_model(4, path, None, "cpu", engine=name)._engine
        skip_where_bfloat16_crashes(engine._core)
        monkeypatch.setattr(engine, "_type", "bf16")
        return engine
    monkeypatch.setattr("napari_cfsr.core.engine.torch_engine.half_type", lambda _: torch.bfloat16)
    engine = TorchEngine(open_backbone(path), None, "output", "cpu", "fast")
    assert engine.half is torch.bfloat16
    return engine


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_close_and_never_black(monkeypatch, name) -> None:
    path = bundled_path(4)
    exact = TorchEngine(open_backbone(path), None, "output", "cpu")
    engine = in_bfloat16(path, name, monkeypatch)
    cases = {
        "noise": images(1, 3, 48, 48),
        "black": np.zeros((1, 3, 24, 24), np.float32),
        "white": np.ones((1, 3, 24, 24), np.float32),
        "far beyond": images(1, 3, 24, 24) * 200 - 100,
    }
    for name, batch in cases.items():
        low = engine.run(batch, ("baseline",), lambda: None)["baseline"]
        high = exact.run(batch, ("baseline",), lambda: None)["baseline"]
        assert np.isfinite(low).all(), name
        scale = max(1.0, float(np.abs(high).max()))
        found = psnr(low[0, 0] / scale, high[0, 0] / scale, channel="gray")
        assert found > 45, name


@needs_openvino
def test_the_first_and_the_last_convolution_stay_in_float32() -> None:
    """Nearly half of what half precision loses is lost there: 0.005 of 0.011 dB on Set5."""
    from napari_cfsr.core.engine.openvino_graph import backbone_graph, with_preferences
    from napari_cfsr.core.engine.openvino_import import openvino as ov

    folded = fold(as_arrays(CFSR()))
    core = ov.Core()
    skip_where_bfloat16_crashes(core)
    graph = with_preferences(core, backbone_graph(folded, (64, 64)), half=True)
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    nodes = [node for node in nodes if node["layerType"].value == "Convolution"]
    nodes.sort(key=lambda node: int(node["execOrder"].value))
    types = [node["primitiveType"].value.split("_")[-1] for node in nodes]
    if "bf16" not in types:
        pytest.skip("this processor can't even emulate bfloat16")
    assert len(types) == 89
    assert [i for i, found in enumerate(types) if found != "bf16"] == [0, 88]
    assert types[0] == types[-1] == "f32"


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None or sys.platform != "linux", reason="needs a C++ compiler"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler and what it is made of
def test_compiled_torch_gives_the_same(tmp_path) -> None:
    path = tmp_path / "one_block.safetensors"  # few kernels: each takes seconds to compile
    save_file(tiny_network(2, kernel_size=3, layer_scale=0.1).state_dict(), path)
    plain, compiled = (
        load_model(2, path, None, "cpu", engine=name) for name in ("torch", "torch-compile")
    )
    assert compiled.info.engine == "torch-compile"
    batch = images(1, 3, 32, 32)
    np.testing.assert_allclose(
        compiled.predict(batch)["baseline"], plain.predict(batch)["baseline"], atol=1e-5
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("engine", ["torch", "torch-compile"])
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("fast", 2e-2)])
def test_on_a_gpu_the_values_are_those_of_the_cpu(engine, precision, bound) -> None:
    gpu = load_model(4, "bundled", None, "cuda", precision, engine=engine)
    cpu = load_model(4, "bundled", None, "cpu", engine="torch")
    batch = images(3, 3, 64, 64)
    for _ in range(2):  # with CUDA graphs, the second is a replay
        out = gpu.predict(batch)["baseline"]
        np.testing.assert_allclose(out, cpu.predict(batch)["baseline"], atol=bound)


# the pipeline


class SlowModel:
    """Wraps a model; each prediction takes at least so long."""

    def __init__(self, model: SRModel, seconds: float) -> None:
        self._model, self._seconds = model, seconds
        self.info, self.free_memory, self.to_cpu = model.info, model.free_memory, model.to_cpu

    def predict(self, *arguments: object) -> dict[str, np.ndarray]:
        time.sleep(self._seconds)
        return self._model.predict(*arguments)


@pytest.mark.alone
def test_reading_and_writing_overlap_the_network(tiny_backbones, monkeypatch) -> None:
    """Nine tiles of 0.1 s each that take 0.05 s to read: only the first read takes time."""
    from napari_cfsr.core.upscale import tile_run

    prepare = tile_run.prepare

    def slow(*arguments: object):
        time.sleep(0.05)
        return prepare(*arguments)

    monkeypatch.setattr(tile_run, "prepare", slow)
    monkeypatch.setattr(TileSchedule, "take", lambda self: [self.jobs.popleft()])
    tiny = load_model(4, tiny_backbones[4], None, "cpu", engine="torch")
    model = SlowModel(tiny, 0.1)
    image = np.zeros((48, 48), np.uint8)
    began = time.perf_counter()
    upscale(image, model, tile=16, halo=0, outputs=("baseline",))
    taken = time.perf_counter() - began
    alone = SlowModel(tiny, 0.0)
    began = time.perf_counter()
    for _ in range(9):
        alone.predict(images(1, 1, 16, 16))
    network = time.perf_counter() - began
    assert taken < 9 * 0.1 + network + 0.05 + 0.3  # one after the other: 0.45 more


def test_an_abandoned_run_stops_the_network(trained_pairs) -> None:
    """The background thread stops within a tile."""
    from napari_cfsr.core.upscale.options import UpscaleOptions
    from napari_cfsr.core.upscale.run import iter_upscale

    model, blocks = trained_pairs[0]["torch"], 0

    def count(*_: object) -> None:
        nonlocal blocks
        blocks += 1
        if blocks > 12:  # the second tile takes more than a second
            time.sleep(0.1)

    network = model._engine._network
    hooks = [block.register_forward_pre_hook(count) for stage in network.blocks for block in stage]
    options = UpscaleOptions(tile=32, outputs=("baseline",), intensity=(0, 1))
    steps = iter_upscale(images(64, 32), model, options)
    next(steps)
    next(steps)  # the first tile is done, the second runs
    steps.close()
    for hook in hooks:
        hook.remove()
    assert 12 <= blocks < 24
