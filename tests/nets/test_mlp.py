"""Fully connected conditioners."""

import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered


def test_the_output_starts_at_zero():
    """Whatever is read, a new network answers exactly zero."""
    net = kf.nets.MLP(3, 4, (16, 16), context_features=2, residual=True)
    assert net(torch.randn(5, 3), torch.randn(5, 2)).abs().max() == 0


def test_hidden_widths_are_those_of_the_layers():
    """(a, b) is Linear-ReLU-Linear-ReLU-Linear, and () a single linear layer."""
    shapes = [
        tuple(layer.weight.shape) for layer in kf.nets.MLP(3, 2, (5, 7), context_features=1).layers
    ]
    assert shapes == [(5, 4), (7, 5), (2, 7)]
    assert len(kf.nets.MLP(3, 2, ()).layers) == 1


def test_it_is_relu_layers_and_a_linear_one():
    """The output is what the formula says."""
    net = jittered(kf.nets.MLP(3, 2, (4, 4)))
    x = torch.randn(6, 3)
    a, b, c = net.layers
    assert torch.equal(net(x), c(torch.relu(b(torch.relu(a(x))))))


def test_residual_adds_layers_of_equal_width_only():
    """A hidden layer is added to the one before it where both are equally wide."""
    net = jittered(kf.nets.MLP(3, 2, (4, 4, 5), residual=True))
    x = torch.randn(6, 3)
    a, b, c, d = net.layers
    h = torch.relu(a(x))
    h = h + torch.relu(b(h))
    assert torch.equal(net(x), d(torch.relu(c(h))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.nets.MLP(0, 2), "a network needs something to read"),
        (lambda: kf.nets.MLP(2, 2, 64), "'hidden' should be a sequence of layer widths, got 64"),
        (lambda: kf.nets.MLP(2, 2, (0,)), "'hidden' should be at least 1"),
    ],
)
def test_widths_that_cannot_be_are_refused(make, message):
    """The message names the argument and its value."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()
