"""The networks: form, size, and what they compute."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from napari_cfsr.core.engine.model import PredictOptions
from napari_cfsr.core.network.cfsr import CFSR, CFSRConfig, EdgeConv
from napari_cfsr.core.network.receptive_field import BACKBONE_FIELD, REFINER_FIELD
from napari_cfsr.core.network.refinenet import RefineNet
from tests.helpers.tiny_weights import double, shaken


@pytest.mark.parametrize(("scale", "depths"), [(2, (1, 2)), (3, (1, 2)), (4, (6, 6))])
def test_merged_form_gives_the_output_of_the_training_form(scale, depths) -> None:
    with double():
        network = shaken(CFSRConfig(scale=scale, depths=depths, merged=False)).double()
        image = torch.rand(2, 3, 20, 17)
        with torch.inference_mode():
            expected = network(image)
            got = network.merge()(image)
    assert expected.shape == (2, 3, 20 * scale, 17 * scale)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_the_training_form_is_the_sum_of_its_branches() -> None:
    """A 3x3 convolution and three edge filters side by side, as in the paper."""
    torch.manual_seed(1)
    conv = EdgeConv(4)
    image = torch.rand(1, 4, 9, 9)
    conv2d = torch.nn.functional.conv2d
    with torch.no_grad():
        conv.edge_scale.copy_(torch.randn(3, 4))
        conv.edge_bias.copy_(torch.randn(3, 4))
        expected = conv2d(image, conv.weight, conv.bias, padding=1, groups=4)
        for kernel, scale, bias in zip(
            conv.edge_filters, conv.edge_scale, conv.edge_bias, strict=True
        ):
            edges = conv2d(image, kernel.expand(4, 1, 3, 3), padding=1, groups=4)
            branch = scale[:, None, None] * edges + bias[:, None, None]
            assert branch.abs().max() > 0.3
            expected += branch
        torch.testing.assert_close(conv(image), expected)
        weight, bias = conv.merge()
        torch.testing.assert_close(conv2d(image, weight, bias, padding=1, groups=4), expected)


def test_edge_filters_answer_to_what_they_are_named_after() -> None:
    ramp_x = torch.arange(9.0).expand(9, 9)
    filters = EdgeConv(1).edge_filters[:, None]
    inside = torch.nn.functional.conv2d(ramp_x[None, None], filters)[0, :, 3, 3]
    assert inside.tolist() == [-8.0, 0.0, 0.0]
    inside = torch.nn.functional.conv2d(ramp_x.T[None, None], filters)[0, :, 3, 3]
    assert inside.tolist() == [0.0, -8.0, 0.0]
    inside = torch.nn.functional.conv2d(ramp_x[None, None] ** 2, filters)[0, 2, 3, 3]
    assert inside.item() == 2.0


def test_initial_layer_scale_and_gradients_of_the_training_form() -> None:
    network = CFSR(CFSRConfig(merged=False))
    assert torch.all(network.layers[0].blocks[0].layer_scale_1 == 1e-6)
    assert torch.all(network.layers[1].blocks[5].layer_scale_2 == 1e-6)
    image = torch.rand(1, 3, 8, 8)
    loss = network(image).square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_output_is_that_of_the_onnx_file_of_the_authors(official_folder, models) -> None:
    image = np.random.default_rng(0).random((2, 3, 40, 33), np.float32)
    session = onnxruntime.InferenceSession(official_folder / "CFSRx4.onnx")
    (expected,) = session.run(None, {"modelInput": image})
    got = models[4].predict(image, PredictOptions())["baseline"]
    np.testing.assert_allclose(got, expected, atol=5e-6)


def test_gradient_reaches_exactly_as_far_as_the_stated_field() -> None:
    network = shaken(CFSRConfig(scale=2, embed_dim=8))
    image = torch.rand(1, 3, 132, 132, requires_grad=True)
    out = network(image)
    out[0, :, 132, 132].sum().backward()  # LR pixel 66
    ys, xs = torch.nonzero(image.grad.abs().sum((0, 1)), as_tuple=True)
    assert BACKBONE_FIELD == 63
    assert max(66 - int(ys.min()), int(ys.max()) - 66) == BACKBONE_FIELD
    assert max(66 - int(xs.min()), int(xs.max()) - 66) == BACKBONE_FIELD


def test_the_initial_refiner_is_small_and_the_identity() -> None:
    refiner = RefineNet(torch.Generator().manual_seed(5))
    assert sum(p.numel() for p in refiner.parameters()) == 11_011
    last = refiner.body[-1]
    assert torch.all(last.bias == 0)
    assert last.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    image = torch.rand(1, 3, 64, 64)
    change = (refiner(image) - image).abs().max().item()
    assert 0 < change < 1e-3
    again = RefineNet(torch.Generator().manual_seed(5))
    assert torch.equal(refiner(image), again(image))


def test_refiner_sees_three_pixels() -> None:
    refiner = RefineNet()
    image = torch.rand(1, 3, 21, 21, requires_grad=True)
    refiner.body(image)[0, :, 10, 10].sum().backward()
    ys, _ = torch.nonzero(image.grad.abs().sum((0, 1)), as_tuple=True)
    assert (int(ys.min()), int(ys.max())) == (10 - REFINER_FIELD, 10 + REFINER_FIELD)


def test_gray_is_the_mean_of_three_equal_channels(tiny_models) -> None:
    image = np.random.default_rng(0).random((1, 1, 20, 24), np.float32)
    gray = tiny_models[3].predict(image, PredictOptions())["baseline"]
    rgb = tiny_models[3].predict(np.repeat(image, 3, 1), PredictOptions())["baseline"]
    assert gray.shape == (1, 1, 60, 72)
    # the mean is taken of the last weights, not of the channels
    np.testing.assert_allclose(gray, rgb.mean(1, keepdims=True), atol=5e-6)
