"""Glow's three convolutions."""

import torch
from torch.nn.functional import conv2d

import kappaflow as kf
from kappaflow.testing.contract import jittered


def test_it_is_three_convolutions_with_relu_between_them():
    """The context is added before the first ReLU; layouts differ from this by rounding only."""
    net = jittered(kf.nets.ConvNet(2, 3, 5, context_features=4)).double()
    x, context = torch.randn(6, 2, 4, 3).double(), torch.randn(6, 4).double()
    first = net.first.convolution
    h = conv2d(x, first.weight, first.bias, padding=1)
    h = torch.relu(h + (context @ net.first.context.weight.T)[:, :, None, None])
    h = torch.relu(conv2d(h, net.middle.weight, net.middle.bias))
    expected = conv2d(h, net.last.weight, net.last.bias, padding=1)
    torch.testing.assert_close(net(x, context), expected, rtol=1e-12, atol=1e-12)


def test_a_place_sees_the_five_by_five_places_around_it():
    """As the docstring says, and nothing beyond."""
    net = jittered(kf.nets.ConvNet(1, 1, 8))
    x = torch.randn(1, 1, 9, 9, requires_grad=True)
    seen = torch.autograd.grad(net(x)[0, 0, 4, 4], x)[0][0, 0] != 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    assert torch.equal(seen, expected)


def test_its_state_has_these_names_and_shapes():
    """Model files depend on them."""
    state = kf.nets.ConvNet(2, 3, 5, context_features=4).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "first.convolution.weight": (5, 2, 3, 3),
        "first.convolution.bias": (5,),
        "first.context.weight": (5, 4),
        "middle.weight": (5, 5, 1, 1),
        "middle.bias": (5,),
        "last.weight": (3, 5, 3, 3),
        "last.bias": (3,),
    }


def test_a_map_of_contexts_alone_has_a_bias():
    """Next to a convolution it needs none, since that has one."""
    names = kf.nets.ConvNet(0, 3, 5, context_features=4).state_dict().keys()
    assert {name for name in names if name.startswith("first")} == {
        "first.context.weight",
        "first.context.bias",
    }


def test_its_parameters_and_their_gradients_can_be_made_one_vector():
    """As optimizers of second order and others do; channels last would not let them."""
    net = jittered(kf.nets.ConvNet(2, 2, 5))
    x, before = torch.randn(3, 2, 4, 4), torch.nn.utils.parameters_to_vector(net.parameters())
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=2)

    def loss():
        optimizer.zero_grad()
        value = net(x).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    after = torch.nn.utils.parameters_to_vector(net.parameters())
    assert not torch.equal(before, after)
