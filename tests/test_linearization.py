"""The four products: against dense Jacobians, for several vectors, and differentiated."""

import pytest
import torch

import kappaflow as kf
from cases import BIJECTIONS, affine
from kappaflow.bijection import zero_log_det
from kappaflow.linearization import pushed_forward
from kappaflow.testing.contract import dense_jacobian, jittered

NAMES = ["jv", "vjp", "inverse_jv", "inverse_vjp"]


def dense_of(bijection, x, context=None):
    """Returns the four matrices whose products these are."""
    z = bijection(x, context)[0].detach()
    jacobian = dense_jacobian(bijection.forward, x, context)
    inverse = dense_jacobian(bijection.inverse, z, context)
    return dict(zip(NAMES, (jacobian, jacobian.mT, inverse, inverse.mT), strict=True))


@pytest.mark.parametrize("vectors", [None, 1, 5])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "name", ["Chain, embedding", "Inverse of a coupling", "Logit", "Chain, nested"]
)
def test_products_are_those_of_the_dense_jacobian(name, grad, vectors):
    """For one vector a point and for K of them, with and without gradients enabled."""
    bijection, x, context = BIJECTIONS[name].build(torch.float64)
    shape = x.shape if vectors is None else (vectors, *x.shape)
    v = torch.randn(shape, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        linearization = bijection.linearize(x, context)
        for product, matrix in dense_of(bijection, x, context).items():
            actual = getattr(linearization, product)(v)
            expected = torch.einsum("bij,...bj->...bi", matrix, v)
            torch.testing.assert_close(actual.detach(), expected)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_matrices_are_those_of_the_dense_jacobian(name):
    """Couplings fill in blocks, and chains multiply."""
    bijection, x, context = BIJECTIONS[name].build(torch.float64)
    expected = dense_of(bijection, x, context)
    linearization = bijection.linearize(x, context)
    jacobian, inverse = linearization.matrices(x)
    torch.testing.assert_close(linearization.matrix(x), jacobian)
    for product, matrix in (("jv", jacobian), ("inverse_jv", inverse)):
        assert not matrix.requires_grad
        torch.testing.assert_close(matrix, expected[product].detach(), rtol=1e-5, atol=1e-7)


class NoForwardMode(torch.autograd.Function):
    """A hand-written node without forward mode: x exp(x)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.exp()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 + x) * x.exp()


class ByHand(kf.Bijection):
    """A bijection of positive numbers over such a node; the inverse is a Newton iteration."""

    def forward(self, x, context=None):
        return NoForwardMode.apply(x), (x + (1 + x).log()).sum(1)

    def inverse(self, z, context=None):
        x = z.detach().clamp_min(1e-3).log1p()
        for _ in range(20):
            x = x - (x * x.exp() - z.detach()) / ((1 + x) * x.exp())
        x = x + (z - x.detach() * x.detach().exp()) / ((1 + x.detach()) * x.detach().exp())
        return x, -(x + (1 + x).log()).sum(1)


@pytest.mark.parametrize("grad", [True, False])
def test_a_node_without_forward_mode_is_linearized_by_two_reverse_passes(grad):
    """J v is the derivative of u -> J^T u."""
    x = 0.5 + torch.rand(3, 2, dtype=torch.float64)
    v = torch.randn(4, 3, 2, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        actual = ByHand().linearize(x).jv(v)
    torch.testing.assert_close(actual.detach(), v * (1 + x) * x.exp())


def test_a_genuine_error_shows_itself():
    """What is wrong with a function is not hidden by the second attempt."""

    class Broken(kf.Bijection):
        def forward(self, x, context=None):
            if x.dtype == torch.float64 and x.requires_grad:
                raise ZeroDivisionError("broken")
            return x * 1, zero_log_det(x)

        inverse = forward

    x = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ZeroDivisionError, match="broken"):
        Broken().linearize(x).vjp(x)


@pytest.mark.slow
@pytest.mark.parametrize("product", NAMES)
@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_products_can_be_differentiated(product, memory):
    """Gradients of |product|^2 by x, vector and parameters, against finite differences."""
    coupling = jittered(affine(kf.Partition.half(3), hidden=(4,))).double()
    coupling = kf.Chain([coupling, kf.bijections.Permutation((2, 0, 1))], memory=memory)
    x, v = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def squared(x, v, *parameters):
        del parameters  # perturbed in place by gradcheck: the module holds them
        return getattr(coupling.linearize(x), product)(v).square().sum()

    assert torch.autograd.gradcheck(squared, (x, v, *coupling.parameters()))


def test_value_and_log_det_are_those_of_forward():
    """A linearization is a forward pass too."""
    bijection, x, context = BIJECTIONS["Chain, embedding"].build(torch.float32)
    linearization = bijection.linearize(x, context)
    z, log_det = bijection(x, context)
    assert torch.equal(linearization.value, z)
    assert torch.equal(linearization.log_det, log_det)


def test_the_inverse_of_a_linearization_exchanges_the_products():
    """Inverse(f) linearized at f(x) is f linearized at x, seen from the other side."""
    coupling = jittered(affine(kf.Partition.half(3))).double()
    x, v = torch.randn(2, 4, 3, dtype=torch.float64)
    forward, back = coupling.linearize(x), kf.Inverse(coupling).linearize(coupling(x)[0])
    torch.testing.assert_close(back.value, x)
    torch.testing.assert_close(back.log_det, -forward.log_det)
    torch.testing.assert_close(back.jv(v), forward.inverse_jv(v))
    torch.testing.assert_close(back.inverse_vjp(v), forward.vjp(v))


class Searched(torch.autograd.Function):
    """A hand-written inverse of x + x^3 by bisection, which can be differentiated once only."""

    @staticmethod
    def forward(ctx, z):
        low, high = -1 - z.abs(), 1 + z.abs()
        for _ in range(60):
            x = (low + high) / 2
            left = x + x**3 < z
            low, high = torch.where(left, x, low), torch.where(left, high, x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + 3 * x**2)


def searched(z, context=None):
    """A map of which a part alone has a second derivative, which autograd takes for the whole."""
    x = Searched.apply(z[:, :2])
    return torch.cat([x.flip(1) + z[:, 2:], 2 * z[:, 2:]], 1), z.sum(1)


@pytest.mark.parametrize("function", [lambda z, context: (Searched.apply(z), z.sum(1)), searched])
@pytest.mark.parametrize("vectors", [None, 5])
def test_a_map_that_is_differentiated_once_only_is_pushed_forward(function, vectors):
    """Neither dual numbers nor a second pullback know it: the rows of the Jacobian do."""
    z = torch.randn(6, 4, dtype=torch.float64)
    v = torch.randn(z.shape if vectors is None else (vectors, *z.shape), dtype=torch.float64)
    matrix = torch.stack([
        torch.autograd.functional.jacobian(lambda point: function(point[None], None)[0][0], row)
        for row in z
    ])
    expected = torch.einsum("bij,...bj->...bi", matrix, v)
    torch.testing.assert_close(pushed_forward(function, z, None, v), expected)
