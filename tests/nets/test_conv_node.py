"""The three convolutions as one node: gradients, what is kept, when autograd sees all of it."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.autograd.checkpoint import memory_modes_bypassed
from kappaflow.testing.contract import jittered


def networks(context=0, memory="store", dtype=torch.float64):
    """Returns a network off its start."""
    torch.manual_seed(0)
    net = kf.nets.ConvNet(2, 3, 5, context_features=context, memory=memory)
    return jittered(net).to(dtype)


def points(context=0, dtype=torch.float64):
    """Returns images and contexts that want gradients."""
    torch.manual_seed(1)
    x = torch.randn(4, 2, 5, 3, dtype=dtype, requires_grad=True)
    return (x, torch.randn(4, context, dtype=dtype, requires_grad=True)) if context else (x,)


def gradients(net, inputs, **settings):
    """Returns the gradients of a sum of squares by points, contexts and parameters."""
    loss = net(*inputs).square().sum()
    return torch.autograd.grad(loss, [*inputs, *net.parameters()], **settings)


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_gradients_are_those_of_the_single_layers(memory, context):
    """By plain autograd, which a bypass of memory modes leaves alone with the layers."""
    net, inputs = networks(context, memory), points(context)
    with memory_modes_bypassed():
        expected = gradients(net, inputs)
    for actual, right in zip(gradients(net, inputs), expected, strict=True):
        assert torch.allclose(actual, right, rtol=1e-10, atol=1e-12)


def test_running_again_gives_the_same_bits():
    """Of values and of gradients, in float32."""
    stored, recomputed = (networks(3, memory, torch.float32) for memory in ("store", "recompute"))
    inputs = points(3, torch.float32)
    assert torch.equal(stored(*inputs), recomputed(*inputs))
    pairs = zip(gradients(stored, inputs), gradients(recomputed, inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def kept(net, inputs):
    """Returns how many numbers are kept for the backward pass, parameters left out."""
    own = {p.data_ptr() for p in net.parameters()}
    actual = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            actual[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(*inputs)
    return sum(actual.values())


def test_only_the_input_is_kept_where_hidden_layers_run_again():
    """15 places of 4 images, with 2 channels; stored there are twice 5 more."""
    assert kept(networks(memory="recompute"), points()) == 4 * 15 * 2
    assert kept(networks(memory="store"), points()) == 4 * 15 * (2 + 5 + 5)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_second_derivatives_are_right(memory):
    """Through the backward pass, by finite differences."""
    net, inputs = networks(3, memory), points(3)
    assert torch.autograd.gradgradcheck(lambda *arguments: net(*arguments), inputs)


def test_a_frozen_input_and_frozen_weights_are_fine():
    """What wants no gradient gets none."""
    net, (x,) = networks(memory="recompute"), points()
    net.first.convolution.weight.requires_grad_(False)
    net(x.detach()).sum().backward()
    assert x.grad is None
    assert net.first.convolution.weight.grad is None
    assert net.last.weight.grad.any()


def test_a_hook_or_another_layer_is_seen_by_autograd():
    """What was done to the network is done in both directions."""
    plain, inputs = networks(), points()
    hooked = networks()
    hooked.middle.register_forward_hook(lambda layer, inputs, answer: 2 * answer)
    assert not torch.allclose(hooked(*inputs), plain(*inputs))
    exchanged = networks()
    exchanged.middle = nn.Sequential(exchanged.middle, nn.Tanh())
    assert not torch.allclose(exchanged(*inputs), plain(*inputs))
    gradients(exchanged, inputs)


def test_there_are_two_modes():
    """A chain has the third."""
    with pytest.raises(
        kf.errors.ArgumentError, match="'memory' should be one of 'recompute', 'store'"
    ):
        kf.nets.ConvNet(1, 1, memory="invert")
