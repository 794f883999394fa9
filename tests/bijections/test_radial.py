"""Radial maps: their formula, the center, and derivatives in both directions."""

import math

import pytest
import torch
from torch.nn.functional import softplus

import kappaflow as kf
from kappaflow.testing.contract import dense_jacobian


def made(features, raw_alpha, raw_ratio, seed=5):
    """Returns a radial map in float64 with these raw numbers."""
    layer = kf.bijections.Radial(features, seed=seed).double()
    with torch.no_grad():
        layer.raw_alpha.fill_(raw_alpha)
        layer.raw_ratio.fill_(raw_ratio)
    return layer


NUMBERS = [(0.0, 0.0), (1.0, -2.0), (-2.0, 3.0), (2.0, -8.0), (0.0, 20.0)]


@pytest.mark.parametrize(("raw_alpha", "raw_ratio"), NUMBERS)
@pytest.mark.parametrize("features", [1, 2, 5])
def test_the_map_is_its_formula(features, raw_alpha, raw_ratio):
    """Value and log_det from center, alpha and beta, and log_det from the dense Jacobian too."""
    layer, x = made(features, raw_alpha, raw_ratio), torch.randn(6, features).double()
    shift = math.log(math.e - 1)
    alpha, ratio = (softplus(torch.tensor(raw + shift).double()) for raw in (raw_alpha, raw_ratio))
    beta = alpha * (ratio - 1)
    assert beta > -alpha
    away = x - layer.center.detach()
    r = away.norm(dim=1)
    h = 1 / (alpha + r)
    with torch.no_grad():
        z, log_det = layer(x)
    torch.testing.assert_close(z, x + (beta * h)[:, None] * away)
    slope = 1 + beta * h - beta * h**2 * r
    torch.testing.assert_close(log_det, (features - 1) * (1 + beta * h).log() + slope.log())
    dense = torch.linalg.slogdet(dense_jacobian(layer, x, None)).logabsdet
    torch.testing.assert_close(log_det, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("raw_alpha", "raw_ratio"), NUMBERS)
def test_the_inverse_comes_back(raw_alpha, raw_ratio):
    """From points near the center and far away, with a root of the quadratic equation."""
    layer = made(3, raw_alpha, raw_ratio)
    away = torch.randn(40, 3).double() * torch.logspace(-9, 6, 40, dtype=torch.float64)[:, None]
    with torch.no_grad():
        z, log_det = layer(layer.center + away)
        x, back = layer.inverse(z)
        values = torch.linalg.svdvals(dense_jacobian(layer, layer.center + away, None))
    reach = torch.maximum(values[:, 0] * (layer.center + away).norm(dim=1), z.norm(dim=1))
    error = (x - layer.center - away).norm(dim=1)
    assert (error <= 10 * 2.3e-16 * reach / values[:, -1]).all()
    torch.testing.assert_close(log_det, -back, rtol=0, atol=1e-9)


def test_at_the_center_all_derivatives_are_finite():
    """Of value and log_det, to points and parameters, once and twice, in both directions."""
    layer = made(3, 0.5, 1.5)
    inputs = [layer.center.detach().repeat(2, 1).requires_grad_(), *layer.parameters()]
    for direction in (layer, layer.inverse):
        value, log_det = direction(inputs[0])
        torch.testing.assert_close(value, inputs[0])
        loss = value.square().sum() + log_det.sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        assert all(torch.isfinite(g).all() for g in (*first, *second))
    jacobian = dense_jacobian(layer, inputs[0], None)
    ratio = softplus(torch.tensor(1.5 + math.log(math.e - 1)).double())
    torch.testing.assert_close(jacobian, ratio * torch.eye(3).double().expand(2, 3, 3))
    at = layer.linearize(inputs[0])
    torch.testing.assert_close(at.jv(torch.ones(2, 3).double()), jacobian.sum(2))


def test_a_new_map_is_the_identity_and_learns():
    """Its strength has a gradient at once, and after a step of it the others have one."""
    layer, x = kf.bijections.Radial(3, seed=1), torch.randn(64, 3).exp()
    z, log_det = layer(x)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(64), rtol=0, atol=1e-6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        z, log_det = layer(x)
        optimizer.zero_grad()
        (0.5 * z.square().sum(1) - log_det).mean().backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 1e-4 for p in layer.parameters())


def test_a_seed_draws_the_center():
    """The same one each time, and another for another seed."""
    first, same, other = (kf.bijections.Radial(5, seed=seed).center for seed in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
