"""Stacks made of plain couplings, and plain couplings made of stacks."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from kappaflow.errors import ArgumentError
from stack.examples import assert_alike, half, points, result_of, same, stack_of

of = kf.CouplingStack.of


def affine(partition=None, net=None, **settings):
    """Returns an affine coupling of four features."""
    return kf.AffineCoupling(partition or half(4), net or kf.nets.MLP(2, 4, (8,)), **settings)


def additive(**settings):
    """Returns an additive coupling of four features."""
    return kf.bijections.AdditiveCoupling(half(4), kf.nets.MLP(2, 2, (8,)), **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kind": "additive", "residual": True, "hidden": (8, 8), "context_features": 2},
        {"partition": "uneven", "permuted": True, "features": 5, "dropout": 0.25},
        {"depth": 40, "hidden": (5,), "permuted": True},
        {"hidden": (6, 4), "wiring": "paired", "scale": "exp"},
        {"hidden": (5, 5, 5), "wiring": "blocks", "scale": "softplus", "context_features": 2},
    ],
)
def test_there_and_back_again(settings):
    """A stack of the chain of a stack has its state, its arguments and its results, exactly."""
    stack = stack_of(**settings).eval()
    chain = stack.to_chain()
    other = of(chain)
    assert repr(other) == repr(stack)
    assert list(other.state_dict()) == list(stack.state_dict())
    assert other.partitions == stack.partitions
    assert other.permutations == stack.permutations
    x, context = points(stack, 6)
    for way in ("forward", "inverse"):
        expected = result_of(stack, way, x, context)
        assert same(result_of(other, way, x, context), expected)
        assert_alike(result_of(chain, way, x, context), expected, 1e-11)
    again = other.to_chain()
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, chain.state_dict()[key])


def test_copies_share_nothing():
    """The weights of `of` and of `to_chain` are copies."""
    chain = kf.Chain([affine(), affine(half(4).swapped())])
    stack = of(chain)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.fill_(1.0)
    assert not any((p == 1.0).all() for p in chain.parameters())
    plain = stack.to_chain()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.fill_(2.0)
    assert all((p == 1.0).all() for p in stack.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_dtype_and_modes_are_kept(training):
    """The training flag, the dtype of the weights and the memory mode."""
    chain = kf.Chain([affine(), affine()]).train(training).double()
    stack = of(chain, memory="invert")
    assert {p.dtype for p in stack.parameters()} == {torch.float64}
    assert stack.memory == stack.to_chain().memory == "invert"
    assert all(m.training == training for m in stack.modules())
    assert all(m.training == training for m in stack.to_chain().modules())
    assert all(m.training == training for part in stack.plain() for m in part.modules())


def test_lists_and_iterators_will_do():
    """Couplings may come as a chain, a list, a part of a chain or an iterator."""
    parts = [affine(), kf.bijections.Permutation((3, 2, 1, 0)), affine()]
    chain = kf.Chain(parts)
    lengths = [len(of(given)) for given in (chain, parts, iter(parts), chain[1:], chain[:1])]
    assert lengths == [3, 3, 3, 2, 1]


class Subclass(kf.AffineCoupling):
    """A coupling that may do anything."""


class Net(kf.nets.MLP):
    """A conditioner that may do anything."""


def other_layer():
    """Returns an MLP one of whose layers is not linear any more."""
    net = kf.nets.MLP(2, 4, (8,))
    net.layers[0] = nn.Sequential(nn.Linear(2, 8))
    return net


def parametrized():
    """Returns an MLP with a weight that is computed."""
    net = kf.nets.MLP(2, 4, (8,))
    nn.utils.parametrizations.weight_norm(net.layers[0])
    return net


def hooked(part):
    """Returns a coupling with a hook on itself or on its conditioner."""
    coupling = affine()
    module = {"coupling": coupling, "net": coupling.conditioner}[part]
    module.register_forward_hook(lambda *_: None)
    return coupling


def embedded():
    """Returns a chain whose couplings see the context through a network."""
    coupling = affine(net=kf.nets.MLP(2, 4, (8,), context_features=3), context_features=3)
    return kf.Chain([coupling], embedding=nn.Linear(5, 3), context_features=5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (list, "should end with a coupling"),
        (lambda: [kf.bijections.Permutation((1, 0, 3, 2))], "end with a coupling"),
        (lambda: [affine(), kf.bijections.Permutation((1, 0, 3, 2))], "end with a coupling"),
        (
            lambda: [
                kf.bijections.Permutation((1, 0, 3, 2)),
                kf.bijections.Permutation((1, 0, 3, 2)),
                affine(),
            ],
            "at most one permutation",
        ),
        (lambda: [affine(), kf.bijections.ActNorm(4)], "got ActNorm at place 1"),
        (lambda: [kf.Chain([affine()])], "got Chain at place 0"),
        (lambda: [Subclass(half(4), kf.nets.MLP(2, 4, (8,)))], "got Subclass at place 0"),
        (lambda: [affine(net=nn.Linear(2, 4))], "MLP conditioners.*got Linear"),
        (lambda: [affine(net=Net(2, 4, (8,)))], "MLP conditioners.*got Net"),
        (lambda: [affine(net=other_layer())], "plain linear layers.*got Sequential"),
        (lambda: [affine(net=parametrized())], "plain linear layers.*ParametrizedLinear"),
        (
            lambda: [affine(), additive()],
            "kind='affine' in coupling 0 and 'additive' in coupling 1",
        ),
        (
            lambda: [affine(), affine(), affine(scale_bound=1.0)],
            "scale_bound=2.0 in coupling 0 and 1.0 in coupling 2",
        ),
        (lambda: [affine(), affine(net=kf.nets.MLP(2, 4, (9,)))], r"hidden=\(8,\) in coupling 0"),
        (
            lambda: [affine(), affine(net=kf.nets.MLP(2, 4, (8,), residual=True))],
            "residual=False in coupling 0",
        ),
        (
            lambda: [affine(), affine(net=kf.nets.MLP(2, 4, (8,), dropout=0.5))],
            "dropout=0.0 in coupling 0",
        ),
        (
            lambda: [
                affine(),
                affine(net=kf.nets.MLP(2, 4, (8,), context_features=1), context_features=1),
            ],
            "context_features=0 in coupling 0",
        ),
        (
            lambda: [affine(), kf.AffineCoupling(half(5), kf.nets.MLP(2, 6, (8,)))],
            "the same number of features",
        ),
        (lambda: [hooked("coupling")], "no hooks"),
        (lambda: [hooked("net")], "no hooks"),
        (embedded, "embedding"),
    ],
)
def test_what_cannot_be_stacked_is_refused(parts, message):
    """Other bijections, conditioners, hooks and unlike couplings are refused, and named."""
    with pytest.raises(ArgumentError, match=message):
        of(parts())


def test_frozen_weights_stay_frozen():
    """Both ways, parameter by parameter."""
    chain = stack_of(4, 2).to_chain()
    chain[0].requires_grad_(False)
    chain[1].conditioner.layers[0].bias.requires_grad_(False)
    frozen = [p.requires_grad for p in chain.parameters()]
    stack = kf.CouplingStack.of(chain)
    for module in (stack, stack.to_chain()):
        assert [p.requires_grad for p in module.parameters()] == frozen
