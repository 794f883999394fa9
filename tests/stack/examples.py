"""What the tests of stacks share: how to make one, and how to compare it with plain couplings."""

from dataclasses import dataclass

import torch
from torch import nn

import kappaflow as kf
from kappaflow.testing.contract import jittered

half = kf.Partition.half
MEMORY = ("store", "recompute", "invert")
WAYS = ("forward", "inverse")


def turns(features, depth):
    """Returns halves that take turns."""
    return [half(features) if i % 2 == 0 else half(features).swapped() for i in range(depth)]


def partitions_of(kind, features, depth):
    """Returns the partitions of a stack, by the name of their kind."""
    if kind == "alternating":
        first = [kf.Partition.alternating(features)] * depth
    elif kind == "random-half":
        first = [kf.Partition.random_half(features, seed=i // 2) for i in range(depth)]
    elif kind == "uneven":
        return [kf.Partition(features, tuple(range(1 + i % (features - 1)))) for i in range(depth)]
    elif kind == "scattered":
        return [kf.Partition(features, (features - 1, i % (features - 1))) for i in range(depth)]
    elif kind == "nothing kept":
        return [kf.Partition(features, ())] * depth
    elif kind == "one way":
        return [half(features)] * depth
    else:
        return turns(features, depth)
    return [p if i % 2 == 0 else p.swapped() for i, p in enumerate(first)]


def shuffles(features, depth):
    """Returns a permutation in front of each coupling but every third one."""
    orders = [
        kf.bijections.Permutation.random(features, seed=i).index.tolist() for i in range(depth)
    ]
    return [None if i % 3 == 1 else order for i, order in enumerate(orders)]


def stack_of(
    features=4,
    depth=4,
    hidden=(8,),
    *,
    partition="half",
    permuted=False,
    dtype=torch.float64,
    total_bound=4.0,
    **settings,
):
    """Returns a stack off its start, whose log-scales add up to at most `total_bound`."""
    torch.manual_seed(3)
    stack = kf.CouplingStack(
        partitions_of(partition, features, depth),
        hidden,
        scale_bound=settings.pop("scale_bound", total_bound / depth),
        permutations=shuffles(features, depth) if permuted else None,
        **settings,
    )
    assert stack.blocks, "it should not run layer by layer"
    return jittered(stack, seed=1).to(dtype)


def rows_of(count=16, features=4, *, dtype=torch.float64, seed=5):
    """Returns the same N(0, 1) rows for the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, dtype=torch.float64, generator=generator).to(dtype)


def points(stack, rows, *, dtype=torch.float64, seed=5):
    """Returns N(0, 1) points for a stack, and a context or None."""
    widths = stack.partitions[0].features, stack.context_features
    generator = torch.Generator().manual_seed(seed)
    x, context = (
        torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in widths
    )
    return x.to(dtype), context.to(dtype) if widths[1] else None


class Noisy(nn.Module):
    """Drops units in training: once as torch does, once as the library does."""

    def __init__(self):
        super().__init__()
        self.net = kf.nets.MLP(2, 8, (16,), dropout=0.3)
        self.last = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 4))

    def forward(self, x):
        return self.last(self.net(x))


def silu():
    """Returns a network of two inputs and four outputs."""
    return nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 4))


def chain_of(depth, memory, network=silu, *, seed=0, **settings):
    """Returns couplings of four features in training mode, whose halves take turns."""
    torch.manual_seed(seed)
    settings = {"scale_bound": 6 / max(depth, 6), **settings}
    parts = [kf.AffineCoupling(p, network(), **settings) for p in turns(4, depth)]
    return kf.Chain(parts, memory=memory).train()


def weighted_loss(module, x, context=None, direction="forward"):
    """Returns a number that depends on every entry of value and log_det."""
    torch.manual_seed(11)
    value, log_det = (module if direction == "forward" else module.inverse)(x, context)
    weight = torch.linspace(0.5, 1.5, value.numel(), dtype=x.dtype).view_as(value)
    return (value.square() * weight).mean() + log_det.sin().mean()


def gradients(module, x, context=None, direction="forward"):
    """Returns gradients to x, the context if it requires one, and all parameters."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    weighted_loss(module, x, context, direction).backward()
    leaves = [x, *([] if context is None or not context.requires_grad else [context])]
    computed = [leaf.grad for leaf in (*leaves, *module.parameters())]
    if context is not None:
        context.grad = None
    return computed


def largest_difference(actual, expected):
    """Returns the largest relative difference between gradients, None being equal to None."""
    assert [a is None for a in actual] == [e is None for e in expected]
    pairs = [(a, e) for a, e in zip(actual, expected, strict=True) if a is not None]
    size = max((e.abs().max() for _, e in pairs), default=torch.ones(()))
    return max(((a - e).abs().max() / size).item() for a, e in pairs)


def second_order(module, x, context=None, direction="forward"):
    """Returns first derivatives with a graph, and the derivatives of their squares."""
    inputs = [x.detach().requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]
    inputs += [] if context is None else [context]
    loss = weighted_loss(module, inputs[0], context, direction)
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    penalty = sum(gradient.square().sum() for gradient in first)
    assert largest_difference(torch.autograd.grad(loss, inputs, retain_graph=True), first) < 1e-12
    return [*first, *torch.autograd.grad(penalty, inputs)]


def same_bits(actual, expected):
    """Returns whether gradients are equal to the last bit."""
    return all(
        (a is None and e is None) or torch.equal(a, e)
        for a, e in zip(actual, expected, strict=True)
    )


def loss_of(z, log_det):
    """Returns a number that depends on each entry in another way."""
    features = torch.arange(1, z.shape[1] + 1, dtype=z.dtype)
    rows = torch.linspace(0.5, 1.5, len(z), dtype=log_det.dtype)
    return (z * features).sin().sum() + (log_det * rows).sum()


@dataclass(frozen=True)
class Result:
    """Value and log_det, and gradients of x, the context (where there is one) and the weights."""

    value: torch.Tensor
    log_det: torch.Tensor
    gradients: list[torch.Tensor]


def result_of(module, way, x, context=None):
    """Returns what a module makes of points, and the gradients of `loss_of` that."""
    module.zero_grad()
    x = x.detach().requires_grad_()
    context = None if context is None else context.detach().requires_grad_()
    value, log_det = (module if way == "forward" else module.inverse)(x, context)
    loss_of(value, log_det).backward()
    inputs = [x.grad] if context is None else [x.grad, context.grad]
    gradients = inputs + [g.clone() for g in (p.grad for p in module.parameters())]
    module.zero_grad()
    return Result(value.detach(), log_det.detach(), gradients)


def assert_alike(actual, expected, tolerance):
    """Asserts that two results are equal to a relative tolerance.

    A gradient can be a small sum of large terms: where it is much smaller than the largest one,
    its error is measured by a hundredth of that.
    """
    assert actual.value.dtype == expected.value.dtype
    assert _error(actual.value, expected.value) <= tolerance * expected.value.norm()
    assert _error(actual.log_det, expected.log_det) <= tolerance * (1 + expected.log_det.norm())
    assert_close_gradients(actual.gradients, expected.gradients, tolerance)


def assert_close_gradients(actual, expected, tolerance):
    """Asserts the same of gradients, one after the other."""
    largest = max(g.norm() for g in expected)
    for number, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert mine.shape == theirs.shape
        allowed = tolerance * (theirs.norm() + 0.01 * largest)
        assert _error(mine, theirs) <= allowed, f"gradient {number} of {len(expected)}"


def _error(actual, expected):
    return (actual.to(expected.dtype) - expected).norm()


def same(actual, expected):
    """Returns whether two results are equal bit for bit."""
    pairs = zip(actual.gradients, expected.gradients, strict=True)
    return (
        torch.equal(actual.value, expected.value)
        and torch.equal(actual.log_det, expected.log_det)
        and all(torch.equal(a, b) for a, b in pairs)
    )
