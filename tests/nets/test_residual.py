"""Residual networks of convolutions."""

import pytest
import torch
from torch.nn.functional import conv2d

import kappaflow as kf
from kappaflow.testing.contract import jittered


def convolved(layer, h):
    """Returns what a convolution says, by its formula."""
    return conv2d(h, layer.weight, layer.bias, padding=layer.weight.shape[2] // 2)


def test_it_is_a_convolution_blocks_and_a_convolution():
    """Each block adds two convolutions after ReLU to what it is given, which stays as it was."""
    net = jittered(kf.nets.ResidualConvNet(2, 3, 5, blocks=2, context_features=4)).double()
    x, context = torch.randn(6, 2, 4, 3).double(), torch.randn(6, 4).double()
    h = convolved(net.first.convolution, x)
    h = h + (context @ net.first.context.weight.T)[:, :, None, None]
    for block in net.blocks:
        h = h + convolved(block.second, torch.relu(convolved(block.first, torch.relu(h))))
    expected = convolved(net.last, torch.relu(h))
    torch.testing.assert_close(net(x, context), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("blocks", [0, 1, 20])
def test_new_blocks_change_nothing_however_many_there_are(blocks):
    """Only the last layer separates a new network from one without blocks."""
    net = kf.nets.ResidualConvNet(2, 3, 5, blocks=blocks)
    torch.nn.init.normal_(net.last.weight)
    x = torch.randn(4, 2, 3, 3)
    expected = convolved(net.last, torch.relu(convolved(net.first.convolution, x)))
    assert len(net.blocks) == blocks
    torch.testing.assert_close(net(x), expected)


def test_a_place_sees_two_places_further_with_each_block():
    """1 + 2 * blocks in each direction, as the docstring says."""
    net = jittered(kf.nets.ResidualConvNet(1, 1, 8, blocks=2))
    x = torch.randn(1, 1, 15, 15, requires_grad=True)
    seen = torch.autograd.grad(net(x)[0, 0, 7, 7], x)[0][0, 0] != 0
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[2:13, 2:13] = True
    assert torch.equal(seen, expected)
