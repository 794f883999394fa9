"""The derivative of a convolutional network from one recorded pass."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.nets.linearized import LinearizedConvNet, RecordedNetwork, is_plain_conv
from kappaflow.testing.contract import jittered


def built(dtype=torch.float64, rows=3, context_features=0):
    """Returns a network off its start, with images and contexts."""
    torch.manual_seed(3)
    net = kf.nets.ConvNet(2, 3, 5, context_features=context_features)
    net = jittered(net, seed=5).to(dtype)
    context = torch.randn(rows, context_features, dtype=dtype) if context_features else None
    return net, torch.randn(rows, 2, 4, 3, dtype=dtype), context


def jacobians(net, x, context):
    """Returns the matrices (B, outputs, inputs) by autograd, an image at a time."""
    return torch.stack([
        torch.autograd.functional.jacobian(
            lambda row, i=i: net(row[None], None if context is None else context[i : i + 1])[0],
            x[i],
        ).reshape(36, 24)
        for i in range(len(x))
    ])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("vectors", [(), (1,), (4,)])
@pytest.mark.parametrize("context_features", [0, 2])
def test_products_are_those_of_the_dense_jacobian(dtype, vectors, context_features):
    """C v and C^T u, for one vector a point and for several; the value is the network's."""
    net, x, context = built(dtype, context_features=context_features)
    actual, matrix = LinearizedConvNet(net, x, context), jacobians(net, x, context)
    v = torch.randn(*vectors, *x.shape, dtype=dtype)
    u = torch.randn(*vectors, 3, 3, 4, 3, dtype=dtype)
    size = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(actual.value, net(x, context), rtol=size, atol=size)
    torch.testing.assert_close(
        actual.jv(v).flatten(-3),
        torch.einsum("bij,...bj->...bi", matrix, v.flatten(-3)),
        rtol=size,
        atol=size,
    )
    torch.testing.assert_close(
        actual.vjp(u).flatten(-3),
        torch.einsum("bij,...bi->...bj", matrix, u.flatten(-3)),
        rtol=size,
        atol=size,
    )


class Doubled(kf.nets.ConvNet):
    """Not what its layers say."""

    def forward(self, x, context=None):
        return 2 * super().forward(x, context)


def altered():
    """Returns networks that are not what class and layers say."""
    hooked, exchanged = kf.nets.ConvNet(2, 4, 5), kf.nets.ConvNet(2, 4, 5)
    hooked.register_forward_hook(lambda net, inputs, answer: answer.sin())
    exchanged.middle = nn.Sequential(exchanged.middle, nn.Tanh())
    return {"subclass": Doubled(2, 4, 5), "hook": hooked, "exchanged": exchanged}


@pytest.mark.parametrize("name", altered())
def test_what_was_altered_is_left_to_autograd(name):
    """So that its products are those of what it computes."""
    net, x = altered()[name], torch.zeros(1, 2, 4, 3)
    assert not is_plain_conv(net, x) and is_plain_conv(kf.nets.ConvNet(2, 4, 5), x)
    coupling = kf.AffineCoupling(kf.Partition(4, (0, 1)), jittered(net))
    actual = coupling.linearize(torch.randn(1, 4, 4, 3))
    assert not isinstance(getattr(actual, "_conditioner", None), LinearizedConvNet)


def test_a_coupling_of_channels_is_linearized_so_and_one_of_places_is_not():
    """A checkerboard sets what the network says of some places to zero."""
    x = torch.randn(1, 4, 4, 4)
    own = kf.AffineCoupling(kf.Partition(4, (0, 1)), kf.nets.ConvNet(2, 4, 5)).linearize(x)
    assert isinstance(own._conditioner, LinearizedConvNet)
    places = kf.SpatialPartition(4, "checkerboard")
    masked = kf.AffineCoupling(places, kf.nets.ConvNet(4, 8, 5)).linearize(x)
    assert isinstance(masked._conditioner, RecordedNetwork)
