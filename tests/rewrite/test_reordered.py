"""Couplings of reordered features."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import affine
from kappaflow.rewrite.plan import ReorderedNetwork, reordered

ORDERS = (3, 0, 4, 2, 1), (2, 0, 4, 3, 1)  # the second turns those that change in a ring


class Odd(nn.Module):
    """A conditioner that is no MLP."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x, context=None):
        """Returns six numbers a row."""
        return torch.tanh(self.linear(x if context is None else torch.cat((x, context), 1)))


def couplings():
    """Returns couplings of 5 features that keep 0 and 3, by name."""
    partition = kf.Partition(5, (0, 3))
    return {
        "MLP": affine(partition),
        "no hidden layer": affine(partition, ()),
        "residual, as wide as what it reads": affine(partition, (2, 2), residual=True),
        "context": affine(partition, context=2),
        "additive": kf.bijections.AdditiveCoupling(partition, kf.nets.MLP(2, 3, (8,))),
        "another network": kf.AffineCoupling(partition, Odd(), context_features=2),
    }


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", couplings())
def test_a_reordered_coupling_is_the_same_function(name, order):
    """It maps x[order] to z[order]."""
    torch.manual_seed(0)
    coupling = couplings()[name].double()
    for parameter in coupling.parameters():
        parameter.data.normal_()
    positions = [order.index(f) for f in coupling.partition.kept]
    other = reordered(coupling, order, partition=kf.Partition(5, tuple(positions)))
    x = torch.randn(7, 5, dtype=torch.float64)
    context = torch.randn(7, 2, dtype=torch.float64) if coupling.context_features else None
    z, log_det = coupling(x, context)
    actual, found_log_det = other(x[:, list(order)], context)
    assert torch.allclose(actual, z[:, list(order)], rtol=1e-12, atol=1e-12)
    assert torch.allclose(found_log_det, log_det, rtol=1e-12, atol=1e-12)
    wrapped = isinstance(other.conditioner, ReorderedNetwork)
    assert wrapped == (name in {"another network", "residual, as wide as what it reads"})


def test_the_old_coupling_does_not_change():
    """If the new one is trained."""
    coupling = affine(kf.Partition.half(4))
    other = reordered(coupling, (1, 0, 2, 3), partition=coupling.partition)
    before = [p.clone() for p in coupling.parameters()]
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, coupling.parameters(), strict=True))
