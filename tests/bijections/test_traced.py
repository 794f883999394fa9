"""Traces of couplings: derivatives written by hand against those of autograd."""

import copy

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import affine
from kappaflow.autograd.trace import Trace, gradients
from kappaflow.bijections.coupling_derivatives import AdditiveTrace, AffineTrace
from kappaflow.bijections.spline import SplineTrace

half = kf.Partition.half
KINDS = {  # and how many numbers they need for each changed feature
    "affine": (kf.AffineCoupling, AffineTrace, 2),
    "additive": (kf.bijections.AdditiveCoupling, AdditiveTrace, 1),
    "spline": (kf.bijections.SplineCoupling, SplineTrace, 23),
}


def points(image=False, dtype=torch.float64, rows=7):
    """Returns points of five features."""
    generator = torch.Generator().manual_seed(3)
    shape = (rows, 5, 3, 2) if image else (rows, 5)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def pulled(trace, module):
    """Returns the cotangents of x and the parameters for the same random ones."""
    generator = torch.Generator().manual_seed(4)
    cotangents = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in (trace.x.shape, trace.x.shape[:1])
    ]
    inputs = [trace.leaf, *module.parameters()]
    of_leaf, *others = gradients(trace.outputs, inputs, trace.seeds(*cotangents))
    return [trace.cotangent(of_leaf), *others]


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
    actual = []
    for chain in runs:
        leaf = x.clone().requires_grad_()
        value, log_det = chain(leaf)
        (value.square().sum() + log_det.sin().sum()).backward()
        actual.append([leaf.grad, *(p.grad for p in chain.parameters())])
    for each in actual[1:]:
        torch.testing.assert_close(each, actual[0], rtol=1e-12, atol=1e-12)


def test_a_network_without_a_gradient_passes_what_is_kept():
    """Where no path leads back, the kept features have the cotangent of the output."""

    class Blind(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    for kind, outputs in (("affine", 6), ("additive", 3), ("spline", 69)):
        coupling = KINDS[kind][0](half(5), Blind(2, outputs).double())
        z = coupling(points())[0].detach()
        assert type(coupling.trace_from_output(z)) is KINDS[kind][1]
        expected, actual = (
            pulled(t, coupling)
            for t in (Trace(coupling, points(), None), coupling.trace_from_output(z))
        )
        torch.testing.assert_close(actual[0], expected[0], rtol=1e-12, atol=1e-12)
        assert actual[1:] == expected[1:] == [None, None]


class Tempered(kf.AffineCoupling):
    """A coupling with a formula of its own."""

    def change(self, kept, changed, context):
        value, log_det = super().change(kept, changed, context)
        return value, 3 * log_det


def hooked(register):
    """Returns a coupling with a hook of one kind."""
    coupling = affine(half(5)).double()
    getattr(coupling, register)(lambda *_: None)
    return coupling


def patched():
    """Returns a coupling with a method of its own."""
    coupling = affine(half(5)).double()
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
        lambda: affine(half(5)).bfloat16(),
    ],
)
def test_what_is_not_as_defined_is_traced_whole(make):
    """A subclass, a hook, a method of an object, and types that are converted on the way."""
    coupling = make()
    x = points(dtype=next(coupling.parameters()).dtype)
    assert type(coupling.trace_from_output(x)) is Trace
