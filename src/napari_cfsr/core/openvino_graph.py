"""The networks as OpenVINO graphs, built straight from the weights: no torch, no tracing.

The backbone is in the folded form (`folding`), and its features are turned into other coordinates.
LayerNorm has to subtract the mean of the channels and to divide by their deviation. In coordinates
whose first axis points along the mean, subtracting it is leaving out that one number, which the
weights after it can do; and the variance is the sum of squares of all others. The first number is
made so small (`FAINT`) that the sum of all squares is as good; being a float, it loses no digits.
So a LayerNorm is one sum of squares and one product. The turn itself and its inverse are folded
into the convolutions before and after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cfsr.core.folding import MEAN, NORM_EPS, Conv, Folded, FoldedBlock, FoldedStage
from napari_cfsr.core.quiet_openvino import openvino as ov
from napari_cfsr.core.quiet_openvino import opset13 as op

Float64 = NDArray[np.float64]
Node = Any  # OpenVINO's nodes have no types

VERSION = 3  # of the graphs: what was compiled from another one is not used
FAINT = 2.0**-20  # a mean a thousand times the deviation adds a millionth to it
CHANNELS = 1  # the axis


def _const(values: Any) -> Node:
    return op.constant(np.ascontiguousarray(values, np.float32))


def _conv(x: Node, conv: Conv) -> Node:
    """A convolution that keeps the size; depthwise where each output sees one channel."""
    out, each, side, _ = conv.weight.shape
    ones, pads = [1, 1], [side // 2] * 2
    if each == 1 and out > 1:
        kernels = _const(conv.weight[:, None])
        y = op.group_convolution(x, kernels, ones, pads, pads, ones)
    else:
        y = op.convolution(x, _const(conv.weight), ones, pads, pads, ones)
    return op.add(y, _const(conv.bias[None, :, None, None]))


def _gelu(x: Node) -> Node:
    return op.gelu(x, "erf")


class _Turn:
    """Coordinates of the features: into them, out of them, and what a normalised one stands for."""

    def __init__(self, channels: int) -> None:
        basis = np.eye(channels)
        basis[:, 0] = 1
        turned = np.linalg.qr(basis)[0].T  # orthonormal rows, the first along the mean
        self.into = turned.copy()
        self.into[0] *= FAINT
        self.out = turned.T.copy()
        self.out[:, 0] /= FAINT
        self.centred = turned.T.copy()
        self.centred[:, 0] = 0


def _divided(x: Node, squares: Node, channels: int) -> Node:
    """x over the deviation of its channels, from the root of their sum of squares."""
    variance = op.multiply(op.multiply(squares, squares), _const(1 / channels))
    return op.multiply(x, op.divide(_const(1), op.sqrt(op.add(variance, _const(NORM_EPS)))))


def _root_of_squares(x: Node) -> Node:
    return op.reduce_l2(x, op.constant(np.array([CHANNELS])), True)


def _block(y: Node, block: FoldedBlock, turn: _Turn, half: bool) -> Node:
    channels = len(turn.into)
    n = _divided(y, _root_of_squares(y), channels)
    gate = _gelu(_conv(n, block.gate.after(turn.centred)))
    gated = op.multiply(_conv(gate, block.large), _conv(n, block.value.after(turn.centred)))
    # the new part first: that way OpenVINO adds in place, within the convolution
    y = op.add(_conv(gated, block.proj.before(turn.into)), y)
    n = _divided(y, _root_of_squares(y), channels)
    h = _gelu(_conv(n, block.fc1.after(turn.centred)))
    more, last = _gelu(_conv(h, block.pos)), block.fc2.before(turn.into)
    if half:  # each sum rounds
        return op.add(_conv(op.add(h, more), last), y)
    # twice the same convolution and two sums within it take less than a sum of their inputs
    return op.add(_conv(more, Conv(last.weight, 0 * last.bias)), op.add(_conv(h, last), y))


def _stage(y: Node, stage: FoldedStage, turn: _Turn, turn_after: bool, half: bool) -> Node:
    """A stage, its residual held by its last convolution, which may also turn back."""
    for block in stage.blocks:
        y = _block(y, block, turn, half)
    identity = np.eye(len(stage.conv.bias))[:, :, None, None]
    end = Conv(stage.conv.weight + identity, stage.conv.bias).after(turn.out)
    return _conv(y, end.before(turn.into) if turn_after else end)


def _last_norm(y: Node, scale: Float64, offset: Float64) -> Node:
    """LayerNorm whose offset can't be folded, since the convolution after it pads with zeros."""
    centred = op.subtract(y, op.reduce_mean(y, op.constant(np.array([CHANNELS])), True))
    n = _divided(centred, _root_of_squares(centred), len(scale))
    n = op.multiply(n, _const(scale[None, :, None, None]))
    return op.add(n, _const(offset[None, :, None, None]))


def backbone_graph(
    folded: Folded, shape: tuple[int, int, int, int] | None, gray: bool, half: bool = False
) -> ov.Model:
    """The backbone as a graph.

    Parameters
    ----------
    folded : Folded
    shape : (1, channels, height, width) or None
        Of the input; None for any size, which is slower.
    gray : bool
        Whether the input has one channel, which stands for three equal ones.
    half : bool
        Whether it is to run in half precision, where fewer sums matter more than speed.

    Returns
    -------
    openvino.Model
        [1,3 or 1,h,w] to [1,folded.channels,h*scale,w*scale], not clipped.
    """
    x = op.parameter(list(shape or (1, 1 if gray else 3, -1, -1)), np.float32, name="image")
    turn = _Turn(len(folded.first.bias))
    first = _conv(
        op.subtract(x, _const(np.reshape(MEAN, (1, 3, 1, 1)))), folded.first.before(turn.into)
    )
    y = first
    for stage in folded.stages:
        y = _stage(y, stage, turn, stage is not folded.stages[-1], half)
    y = op.add(_conv(_last_norm(y, *folded.norm), folded.after.before(turn.into)), first)
    y = _conv(y, folded.upsample.after(turn.out))
    return ov.Model([op.depth_to_space(y, "depth_first", folded.scale)], [x], "backbone")


def refiner_graph(convs: tuple[Conv, Conv, Conv]) -> ov.Model:
    """RefineNet for any size: `x + body(x)`, [1,3,h,w] to the same."""
    x = op.parameter([1, 3, -1, -1], np.float32, name="image")
    a, b, c = convs
    body = _conv(op.relu(_conv(op.relu(_conv(x, a)), b)), c)
    return ov.Model([op.add(body, x)], [x], "refiner")
