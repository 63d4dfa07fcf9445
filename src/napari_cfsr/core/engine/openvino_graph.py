"""The networks as OpenVINO graphs, built straight from the weights: no torch, no tracing.

The backbone is in the folded form (`folding`), and its features are rotated into other coordinates.
LayerNorm subtracts the mean of the channels and divides by their deviation. In coordinates whose
first axis points along the mean, subtracting it means dropping the first number, which the weights
that follow can do; and the variance is the sum of squares of all others. The first number is scaled
down so far (`FAINT`) that the sum of all squares will do; being a float, it loses no digits. So a
LayerNorm is OpenVINO's NormalizeL2, one pass over memory. The rotation, its inverse and the root of
the number of channels are folded into the convolutions before and after.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.engine.openvino_import import openvino as ov
from napari_cfsr.core.engine.openvino_import import opset13 as op
from napari_cfsr.core.network import MEAN, NORM_EPS, Conv, Folded, FoldedBlock, FoldedStage
from napari_cfsr.core.weights import Arrays

Float64 = NDArray[np.float64]
Node = Any  # OpenVINO's nodes have no types

VERSION = 5  # of the graphs: what was compiled from another version is not used
EXACT = "exact "  # prefix of the names of layers that stay in float32 in half precision
FAINT = 2.0**-20  # a mean a thousand times the deviation adds a millionth to it
CHANNELS = 1  # the axis
PREFERRED = {  # implementations by type of layer, the best first
    "Convolution": ("jit_avx512_1x1", "jit_avx512", "jit_avx2_1x1", "jit_avx2"),
    "GroupConvolution": ("jit_avx512_dw", "jit_avx2_dw"),
}


def _const(values: Any) -> Node:
    return op.constant(np.ascontiguousarray(values, np.float32))


def _conv(x: Node, conv: Conv, dilation: int = 1) -> Node:
    """A convolution that keeps the size; depthwise where each output sees one channel."""
    out, each, side, _ = conv.weight.shape
    ones, pads = [1, 1], [side // 2 * dilation] * 2
    if each == 1 and out > 1:
        kernels = _const(conv.weight[:, None])
        y = op.group_convolution(x, kernels, ones, pads, pads, ones)
    else:
        y = op.convolution(x, _const(conv.weight), ones, pads, pads, [dilation] * 2)
    return op.add(y, _const(conv.bias[None, :, None, None]))


def _exact(y: Node) -> Node:
    """A sum, and the convolution before it if there is one, marked to stay in float32."""
    before = y.input_value(0).get_node()
    for node in (y, before) if before.get_type_name() == "Convolution" else (y,):
        node.set_friendly_name(EXACT + node.get_friendly_name())
    return y


def _gelu(x: Node) -> Node:
    return op.gelu(x, "erf")


class _Rotation:
    """Coordinates of the features: into them, out of them, and from a vector of length one to
    features that are centred, with a deviation of one."""

    def __init__(self, channels: int) -> None:
        basis = np.eye(channels)
        basis[:, 0] = 1
        rotated = np.linalg.qr(basis)[0].T  # orthonormal rows, the first along the mean
        self.into = rotated.copy()
        self.into[0] *= FAINT
        self.out = rotated.T.copy()
        self.out[:, 0] /= FAINT
        self.centred = rotated.T * channels**0.5
        self.centred[:, 0] = 0


def _to_length_one(x: Node, channels: int) -> Node:
    """Each pixel's features over the root of their sum of squares; `NORM_EPS` as in LayerNorm."""
    return op.normalize_l2(x, op.constant(np.array([CHANNELS])), channels * NORM_EPS, "add")


def _block(y: Node, block: FoldedBlock, rotation: _Rotation, concatenated: bool) -> Node:
    channels = len(rotation.into)
    n = _to_length_one(y, channels)
    gate = _gelu(_conv(n, block.gate.after(rotation.centred)))
    gated = op.multiply(_conv(gate, block.large), _conv(n, block.value.after(rotation.centred)))
    # the new part first: that way OpenVINO adds in place, within the convolution
    y = op.add(_conv(gated, block.proj.before(rotation.into)), y)
    n = _to_length_one(y, channels)
    fc1, pos, fc2 = block.fc1.after(rotation.centred), block.pos, block.fc2.before(rotation.into)
    if not concatenated:
        h = _gelu(_conv(n, fc1))
        return op.add(_conv(op.add(h, _gelu(_conv(h, pos))), fc2), y)
    middle = len(fc1.bias) // 2
    for part in (slice(0, middle), slice(middle, None)):
        h = _gelu(_conv(n, Conv(fc1.weight[part], fc1.bias[part])))
        more = _gelu(_conv(h, Conv(pos.weight[part], pos.bias[part])))
        weight, bias = fc2.weight[:, part], fc2.bias if part.start == 0 else 0 * fc2.bias
        summed = _conv(op.concat([h, more], CHANNELS), Conv(np.tile(weight, (1, 2, 1, 1)), bias))
        y = op.add(summed, y)
    return y


def _stage(
    y: Node, stage: FoldedStage, rotation: _Rotation, is_last: bool, concatenated: bool
) -> Node:
    """A stage, its residual folded into its last convolution; the last stage also centres."""
    for block in stage.blocks:
        y = _block(y, block, rotation, concatenated)
    channels = len(stage.conv.bias)
    identity = np.eye(channels)
    end = Conv(stage.conv.weight + identity[:, :, None, None], stage.conv.bias).after(rotation.out)
    return _conv(y, end.before(identity - 1 / channels if is_last else rotation.into))


def _last_norm(centred: Node, scale: Float64, offset: Float64) -> Node:
    """LayerNorm whose offset can't be folded, since the convolution after it pads with zeros."""
    channels = len(scale)
    n = _to_length_one(centred, channels)
    n = op.multiply(n, _const(channels**0.5 * scale[None, :, None, None]))
    return op.add(n, _const(offset[None, :, None, None]))


def backbone_graph(
    folded: Folded, size: tuple[int, int] | None, concatenated: bool = False
) -> ov.Model:
    """The backbone as a graph: [1,3,h,w] to [1,folded.channels,h*scale,w*scale], not clipped.

    `size` is that of the input, (height, width); None is for any size, which is slower.
    `concatenated` says how the two branches of a feed-forward part are joined: concatenated, with
    one convolution on both, in two halves of the channels; otherwise added. Results are equal up to
    rounding; the first is faster where the CPU computes with 16 numbers at a time.
    """
    x = op.parameter([1, 3, *(size or (-1, -1))], np.float32, name="image")
    rotation = _Rotation(len(folded.first.bias))
    shifted = op.subtract(x, _const(np.reshape(MEAN, (1, 3, 1, 1))))
    # nearly half of the loss of half precision is at the two ends of the network
    first = _exact(_conv(shifted, folded.first.before(rotation.into)))
    y = first
    for stage in folded.stages:
        y = _stage(y, stage, rotation, stage is folded.stages[-1], concatenated)
    y = op.add(_conv(_last_norm(y, *folded.norm), folded.after.before(rotation.into)), first)
    y = _exact(_conv(_exact(y), folded.upsample.after(rotation.out)))
    return ov.Model([op.depth_to_space(y, "depth_first", folded.scale)], [x], "backbone")


def refiner_graph(network: str, arrays: Arrays) -> ov.Model:
    """A refiner for any size, [1,3,h,w] to the same: `x + body(x)`, of a UNetRefiner `body(x)`.

    What a UNetRefiner sees is beyond [0,1], where half precision would spoil the sum.
    """
    x = op.parameter([1, 3, -1, -1], np.float32, name="image")

    def conv(y: Node, layer: str, dilation: int = 1) -> Node:
        return _conv(y, Conv(arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]), dilation)

    if network == "UNetRefiner":
        return ov.Model([_unet_body(x, conv, arrays)], [x], "refiner")
    y = op.relu(conv(x, "body.0"))
    y = op.relu(conv(y, "body.2", 2 if network == "RefineNet dilated" else 1))
    return ov.Model([op.add(conv(y, "body.4"), x)], [x], "refiner")


def _unet_body(x: Node, conv: Callable[..., Node], arrays: Arrays) -> Node:
    def block(y: Node, name: str) -> Node:
        return op.add(conv(op.relu(conv(y, f"{name}.first")), f"{name}.second"), y)

    def resized(y: Node, layer: str, convolution: Callable[..., Node]) -> Node:
        """By 2, with a kernel of 2x2."""
        z = convolution(y, _const(arrays[f"{layer}.weight"]), [2, 2], [0, 0], [0, 0], [1, 1])
        return op.add(z, _const(arrays[f"{layer}.bias"][None, :, None, None]))

    y = block(conv(op.space_to_depth(x, "depth_first", 2), "head"), "before")
    z = block(block(resized(y, "down", op.convolution), "middle.0"), "middle.1")
    y = op.add(y, resized(z, "up", _transposed))
    return op.depth_to_space(conv(block(y, "after"), "tail"), "depth_first", 2)


def _transposed(
    y: Node, weight: Node, strides: list[int], begin: list[int], end: list[int], ones: list[int]
) -> Node:
    return op.convolution_backprop_data(y, weight, strides, None, begin, end, ones)


def with_preferences(core: ov.Core, graph: ov.Model, half: bool = False) -> ov.Model | None:
    """The same graph, with preferences of how its layers are run; None if the disk is full.

    OpenVINO reads such preferences only from the file of a graph, so one is written and read. To
    run in half precision, some layers stay in float32 (`EXACT`). Otherwise the implementations that
    are fastest for this network are preferred (`PREFERRED`): with AVX-512, features then lie in
    blocks of 16 channels; by default, OpenVINO keeps all channels of a pixel together. Where one is
    not available, OpenVINO chooses as usual.
    """
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            description, values = Path(folder, "graph.xml"), Path(folder, "graph.bin")
            ov.serialize(graph, description, values)
            tree = ElementTree.parse(description)
            weights = np.fromfile(values, np.uint8)
        for layer in tree.iter("layer"):
            names = PREFERRED.get(layer.get("type", ""))
            if half and layer.get("name", "").startswith(EXACT):
                _prefer(layer, {"name": "precise", "version": "0"})
            elif names is not None and not half:
                value = ",".join(f"cpu:{name}" for name in names)
                _prefer(layer, {"name": "primitives_priority", "version": "0", "value": value})
        return core.read_model(ElementTree.tostring(tree.getroot()), ov.Tensor(weights))
    except (OSError, RuntimeError, ElementTree.ParseError):
        return None


def _prefer(layer: ElementTree.Element, attribute: dict[str, str]) -> None:
    """Add a preference to a layer, after its data."""
    preferences = layer.find("rt_info")
    if preferences is None:
        preferences = ElementTree.Element("rt_info")
        data = layer.find("data")
        layer.insert(0 if data is None else list(layer).index(data) + 1, preferences)
    ElementTree.SubElement(preferences, "attribute", attribute)


def has_wide_vectors(core: ov.Core) -> bool:
    """Whether OpenVINO computes with 16 numbers at a time on this CPU (AVX-512)."""
    x = op.parameter([1, 16, 16, 16], np.float32)
    graph = ov.Model([_conv(x, Conv(np.ones((16, 16, 1, 1)), np.ones(16)))], [x], "probe")
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = compiled.get_runtime_model().get_ops()
    return any("avx512" in node.get_rt_info()["primitiveType"].value for node in nodes)
