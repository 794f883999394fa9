"""The four products of couplings from one recorded pass, against plain autograd."""

import math

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import BIJECTIONS, affine
from kappaflow.bijection import Bijection
from kappaflow.bijections.coupling_derivatives import (
    AdditiveLinearization,
    AffineLinearization,
    SplineLinearization,
)
from kappaflow.linearization import AutogradLinearization
from kappaflow.nets.linearized import RecordedNetwork
from kappaflow.testing.contract import dense_jacobian, jittered

PRODUCTS = ("jv", "vjp", "inverse_jv", "inverse_vjp")
KINDS = ("AffineCoupling", "AdditiveCoupling", "SplineCoupling")
COUPLINGS = [name for name in BIJECTIONS if name.split(",")[0] in KINDS]
RECORDED = (AdditiveLinearization, AffineLinearization, SplineLinearization)


def matrices(coupling, x, context=None):
    """Returns the four matrices by plain autograd, in float64, by product."""
    z = coupling(x, context)[0].detach()
    jacobian = dense_jacobian(coupling.forward, x, context)
    inverse = dense_jacobian(coupling.inverse, z, context)
    return dict(zip(PRODUCTS, (jacobian, jacobian.mT, inverse, inverse.mT), strict=True))


def require_products(linearization, coupling, x, context=None, sizes=((3,),)):
    """Each product is that of the dense matrix, within rounding times the condition number."""
    for name, matrix in matrices(coupling, x, context).items():
        s = torch.linalg.svdvals(matrix)
        for vectors in sizes:
            v = torch.randn(*vectors, *x.shape, dtype=x.dtype)
            flat = v.double().flatten(len(vectors) + 1)
            tolerance = 10 * torch.finfo(x.dtype).eps * s[:, 0] ** 2 / s[:, -1] * flat.norm(dim=-1)
            actual = getattr(linearization, name)(v).detach()
            assert actual.shape == v.shape and actual.dtype == x.dtype
            expected = torch.einsum("bij,...bj->...bi", matrix, flat)
            error = (actual.double().flatten(len(vectors) + 1) - expected).norm(dim=-1)
            assert (error <= tolerance).all(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLINGS)
def test_derivatives_of_the_products_are_those_of_double_autograd(name):
    """By x, context, vector and every parameter, as a regularizer takes them."""
    coupling, x, context = BIJECTIONS[name].build(torch.float64)
    v = torch.randn(2, *x.shape).double().requires_grad_()
    inputs = [t.requires_grad_() for t in (x, context) if t is not None]
    inputs += [v, *coupling.parameters()]

    def gradients(linearization, product):
        loss = getattr(linearization, product)(v).square().sum() + linearization.value.sum()
        loss = loss + linearization.log_det.sum()
        return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)

    for product in PRODUCTS:
        actual = gradients(coupling.linearize(x, context), product)
        expected = gradients(Bijection.linearize(coupling, x, context), product)
        torch.testing.assert_close(actual, expected)


def test_a_saturated_bound_keeps_its_digits():
    """Where a log-scale is at its bound, the slope is tiny and still right: no cancellation."""
    coupling = affine(kf.Partition.half(2), (), scale_bound=2.0)
    layer = coupling.conditioner.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.0]]))
        layer.bias.copy_(torch.tensor([40.0, 0.0]))
    x = torch.tensor([[0.0, 3.0]])
    actual = coupling.linearize(x).inverse_jv(torch.tensor([[1.0, 0.0]]))[0, 1].item()
    assert actual == pytest.approx(-3 / math.cosh(20) ** 2, rel=1e-5, abs=0)


class Doubled(kf.AffineCoupling):
    """Not what its parent's formulas say."""

    def change(self, kept, changed, context):
        changed, log_det = super().change(kept, changed, context)
        return 2 * changed, log_det + changed.shape[1] * math.log(2)

    def restore(self, kept, changed, context):
        changed, log_det = super().restore(kept, changed / 2, context)
        return changed, log_det - changed.shape[1] * math.log(2)


class Sine(kf.nets.MLP):
    """Not what its layers say."""

    def forward(self, x, context=None):
        return super().forward(x.sin(), context)


def altered():
    """Returns couplings that are not what class and layers say, by name."""
    half = kf.Partition.half(4)
    actual = {"subclass": Doubled(half, kf.nets.MLP(2, 4, (8,)))}
    actual["other network"] = kf.AffineCoupling(half, nn.Sequential(nn.Linear(2, 4), nn.Tanh()))
    actual["network's subclass"] = kf.AffineCoupling(half, Sine(2, 4, (8,)))
    actual["hook"] = affine(half)
    actual["hook"].conditioner.register_forward_hook(lambda net, inputs, answer: answer.sin())
    actual["hook before"] = affine(half)
    actual["hook before"].conditioner.register_forward_pre_hook(lambda net, args: args[0].sin())
    actual["hook of a layer"] = affine(half)
    actual["hook of a layer"].conditioner.layers[0].register_forward_hook(
        lambda layer, inputs, answer: 2 * answer
    )
    actual["own method"] = affine(half)
    shift = actual["own method"].parameters_from
    actual["own method"].parameters_from = lambda *inputs, **more: shift(*inputs, **more).sin()
    actual["activation of another kind"] = affine(half)
    layers = actual["activation of another kind"].conditioner.layers
    layers[0] = nn.Sequential(layers[0], nn.Tanh())
    return actual


@pytest.mark.slow
@pytest.mark.parametrize("name", altered())
def test_what_was_altered_is_left_to_autograd(name):
    """Its products are right, because they are not read off the layers of the network."""
    torch.manual_seed(1)
    coupling = jittered(altered()[name]).double()
    x = torch.randn(5, 4).double()
    actual = coupling.linearize(x)
    by_autograd = isinstance(actual, AutogradLinearization)
    assert by_autograd or isinstance(actual._conditioner, RecordedNetwork)
    require_products(actual, coupling, x, sizes=[(), (3,)])


def test_convolutions_are_recorded_as_a_whole():
    """A conditioner of images is no `MLP`, but the coupling around it is known."""
    coupling = jittered(
        kf.AffineCoupling(kf.Partition(3, (0,)), nn.Conv2d(1, 4, 3, padding=1))
    ).double()
    x = torch.randn(2, 3, 2, 2).double()
    actual = coupling.linearize(x)
    assert isinstance(actual, AffineLinearization)
    require_products(actual, coupling, x)


def test_autocast_changes_no_product():
    """What was recorded in float32 stays in float32; under autocast nothing is recorded."""
    coupling, x, _ = BIJECTIONS["AffineCoupling"].build(torch.float32)
    with torch.no_grad():
        actual = coupling.linearize(x)
        expected = {name: getattr(actual, name)(x) for name in PRODUCTS}
        with torch.autocast("cpu", torch.bfloat16):
            for name in PRODUCTS:
                assert torch.equal(getattr(actual, name)(x), expected[name])
            assert isinstance(coupling.linearize(x), AutogradLinearization)
