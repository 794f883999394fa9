"""Two fully connected networks in the weights of one."""

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError
from kappaflow.testing.contract import jittered


def test_it_answers_what_two_networks_answer():
    """One behind the other, of the rows of the first layer and the blocks behind it."""
    twins = jittered(kf.nets.PairedMLP(3, 4, (6, 8), context_features=2, activation="tanh"))
    x, context = torch.randn(5, 3), torch.randn(5, 2)
    answers = []
    for number in range(2):
        one = kf.nets.MLP(3, 2, (3, 4), context_features=2, activation="tanh")
        state = {}
        for layer, (rows, columns) in enumerate(((3, 5), (4, 3), (2, 4))):
            own = slice(number * rows, (number + 1) * rows)
            read = slice(number * columns, (number + 1) * columns) if layer else slice(None)
            state[f"layers.{layer}.weight"] = twins.layers[layer].weight[own, read]
            state[f"layers.{layer}.bias"] = twins.layers[layer].bias[own]
        one.load_state_dict(state)
        answers.append(one(x, context))
    assert torch.allclose(twins(x, context), torch.cat(answers, 1), atol=1e-6)


def test_what_does_not_count_is_zero_and_stays_so():
    """Behind a few steps of a training."""
    net = kf.nets.PairedMLP(3, 4, (6, 8))
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for _ in range(3):
        loss = (net(torch.ones(2, 3)) - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    middle = net.layers[1].weight
    assert not middle[:4, 3:].any() and not middle[4:, :3].any()
    assert middle[:4, :3].all() and middle[4:, 3:].all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: kf.nets.PairedMLP(2, 2, (3,)), "should be even, got (3, 2)"),
        (lambda: kf.nets.PairedMLP(2, 3, (4,)), "should be even, got (4, 3)"),
        (lambda: kf.nets.ResidualMLP(2, 2, gated=True), "'context_features' should be at least 1"),
        (
            lambda: kf.nets.ResidualMLP(2, 2, activation="sin"),
            "'activation' should be one of 'relu'",
        ),
    ],
)
def test_bad_widths_are_refused(make, text):
    """In one sentence."""
    with pytest.raises(ArgumentError) as caught:
        make()
    assert text in str(caught.value)
