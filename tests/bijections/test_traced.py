"""Traces of couplings: derivatives written by hand against those of autograd."""

import copy

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import alternating
from kappaflow.autograd.trace import Trace, gradients
from kappaflow.bijections.coupling_derivatives import AdditiveTrace, AffineTrace
from kappaflow.bijections.spline import SplineTrace
from kappaflow.testing.contract import jittered

half = kf.Partition.half
KINDS = {  # and how many numbers they need for each changed feature
    "affine": (kf.AffineCoupling, AffineTrace, 2),
    "additive": (kf.bijections.AdditiveCoupling, AdditiveTrace, 1),
    "spline": (kf.bijections.SplineCoupling, SplineTrace, 23),
}
PARTITIONS = {
    "half": half(5),
    "swapped": half(5).swapped(),
    "alternating": kf.Partition.alternating(5),
    "scattered": kf.Partition(5, (1, 4)),
    "context only": kf.Partition(5, ()),
}
SHAPES = [
    (partition, image, context)
    for partition in PARTITIONS
    for image in (False, True)
    for context in (0, 3)
    if partition != "context only" or (context and not image)  # something has to be read
]


class Reading(nn.Module):
    """A network of tables or images that adds what it makes of a context."""

    def __init__(self, inputs, outputs, *, image, context):
        super().__init__()
        first = nn.Conv2d(inputs, 8, 3, padding=1) if image else nn.Linear(max(inputs, 1), 8)
        self.net = first if inputs else None
        self.last = nn.Conv2d(8, outputs, 1) if image else nn.Linear(8, outputs)
        self.side = nn.Linear(context, 8) if context else None

    def forward(self, x, context=None):
        h = 0 if self.net is None else self.net(x)
        if self.side is not None:
            side = self.side(context)
            h = h + side.view(*side.shape, *(1,) * (x.dim() - 2))
        return self.last(h.tanh())


def coupling_of(kind, partition, *, image=False, context=0, dtype=torch.float64, **settings):
    """Returns a coupling off its start."""
    torch.manual_seed(1)
    made, _, numbers = KINDS[kind]
    outputs = numbers * len(partition.changed)
    net = Reading(len(partition.kept), outputs, image=image, context=context)
    coupling = made(partition, net, context_features=context, **settings)
    return jittered(coupling).to(dtype).train()


def points(image=False, dtype=torch.float64, rows=7):
    """Returns points of five features."""
    generator = torch.Generator().manual_seed(3)
    shape = (rows, 5, 3, 2) if image else (rows, 5)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def pulled(trace, module, context, *, seed=4):
    """Returns the cotangents of x, the context and the parameters for the same random ones."""
    generator = torch.Generator().manual_seed(seed)
    cotangents = [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(trace.x.dtype)
        for shape in (trace.x.shape, trace.x.shape[:1])
    ]
    given = [] if context is None else [context]
    inputs = [trace.leaf, *given, *module.parameters()]
    of_leaf, *others = gradients(trace.outputs, inputs, trace.seeds(*cotangents))
    return [trace.cotangent(of_leaf), *others]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"),
    alternating(SHAPES, torch.float64, torch.float32, torch.float32, torch.float64),
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_is_what_autograd_finds_in_the_definition(kind, shape, dtype):
    """Up to rounding, its inverse included."""
    partition, image, context = shape
    coupling = coupling_of(kind, PARTITIONS[partition], image=image, context=context, dtype=dtype)
    x, context = points(image, dtype), torch.randn(7, context, dtype=dtype) if context else None
    context = None if context is None else context.requires_grad_()
    z = coupling(x, context)[0].detach()
    reference = Trace(coupling, x, context)
    expected = pulled(reference, coupling, context)
    found = coupling.trace_from_output(z, context)
    assert type(found) is KINDS[kind][1]
    close = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.x, x, rtol=close, atol=close)
    torch.testing.assert_close(
        pulled(found, coupling, context), expected, rtol=close, atol=10 * close
    )


class Same(nn.Module):
    """A network that answers with one row for all, or one number for a channel."""

    def __init__(self, shape):
        super().__init__()
        self.answer = nn.Parameter(torch.randn(shape, dtype=torch.float64))

    def forward(self, x):
        return self.answer


@pytest.mark.parametrize(
    ("kind", "shape", "image"),
    [
        ("affine", (1, 6), False),
        ("additive", (1, 3), False),
        ("spline", (1, 69), False),
        ("affine", (1, 6, 1, 1), True),
        ("additive", (1, 3, 1, 2), True),
        ("spline", (1, 69, 1, 1), True),
    ],
)
def test_an_answer_that_is_broadcast_gets_the_sum(kind, shape, image):
    """Of the cotangents of all entries that it serves, as in the definition."""
    torch.manual_seed(0)
    coupling, x = KINDS[kind][0](half(5), Same(shape)), points(image)
    runs = [kf.Chain([copy.deepcopy(coupling)], memory=m) for m in (None, "recompute", "invert")]
    found = []
    for chain in runs:
        leaf = x.clone().requires_grad_()
        value, log_det = chain(leaf)
        (value.square().sum() + log_det.sin().sum()).backward()
        found.append([leaf.grad, *(p.grad for p in chain.parameters())])
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-12, atol=1e-12)


def test_a_network_without_a_gradient_passes_what_is_kept():
    """Where no path leads back, the kept features have the cotangent of the output."""

    class Blind(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    for kind, outputs in (("affine", 6), ("additive", 3), ("spline", 69)):
        coupling = KINDS[kind][0](half(5), Blind(2, outputs).double())
        z = coupling(points())[0].detach()
        expected, found = (
            pulled(t, coupling, None)
            for t in (Trace(coupling, points(), None), coupling.trace_from_output(z))
        )
        torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
        assert found[1:] == expected[1:] == [None, None]


class Tempered(kf.AffineCoupling):
    """A coupling with a formula of its own."""

    def change(self, kept, changed, context):
        value, log_det = super().change(kept, changed, context)
        return value, 3 * log_det


def hooked(register):
    """Returns a coupling with a hook of one kind."""
    coupling = coupling_of("affine", half(5))
    getattr(coupling, register)(lambda *_: None)
    return coupling


def patched():
    """Returns a coupling with a method of its own."""
    coupling = coupling_of("affine", half(5))
    coupling.change = lambda kept, changed, context: (changed, kept.sum(1))
    return coupling


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tempered(half(5), nn.Linear(2, 6)).double(),
        lambda: hooked("register_forward_hook"),
        lambda: hooked("register_forward_pre_hook"),
        lambda: hooked("register_full_backward_hook"),
        lambda: hooked("register_full_backward_pre_hook"),
        patched,
        lambda: coupling_of("affine", half(5), dtype=torch.bfloat16),
    ],
)
def test_what_is_not_as_defined_is_traced_whole(make):
    """A subclass, a hook, a method of an object, and types that are converted on the way."""
    coupling = make()
    x = points(dtype=next(coupling.parameters()).dtype)
    assert type(coupling.trace_from_output(x)) is Trace
