"""Planar maps: their formula, the search of their inverse, and derivatives through it."""

import numpy as np
import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import planar_radial
from kappaflow.testing.contract import dense_jacobian


def drawn(seed, features=4, size=1.0):
    """Returns a planar map in float64 with u, w and b drawn from N(0, size^2)."""
    layer = kf.bijections.Planar(features).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(size * noise)
    return layer


def slope_of(layer):
    """Returns 1 + w.v, by the formula of the docstring."""
    product = (layer.w @ layer.u).item()
    return np.log1p((np.e - 1) * np.exp(product))


def moving(layer):
    """Returns v, w and b as arrays, v by the formula of the docstring."""
    u, w, b = (p.detach().numpy() for p in (layer.u, layer.w, layer.b))
    return u + (slope_of(layer) - 1 - w @ u) * w / (w @ w), w, b


@pytest.mark.parametrize("seed", range(5))
def test_the_map_is_its_formula(seed):
    """Value and log_det from u, w and b, and log_det from the dense Jacobian too."""
    layer, x = drawn(seed), torch.randn(6, 4, dtype=torch.float64)
    v, w, b = moving(layer)
    bend = np.tanh(x.numpy() @ w + b)
    with torch.no_grad():
        z, log_det = layer(x)
    np.testing.assert_allclose(z, x.numpy() + bend[:, None] * v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(1 + (1 - bend**2) * (w @ v)), rtol=1e-9)
    dense = torch.linalg.slogdet(dense_jacobian(layer, x, None))
    assert (dense.sign > 0).all()
    torch.testing.assert_close(log_det, dense.logabsdet, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_search_ends_at_rounding_wherever_the_root_is(dtype, monkeypatch):
    """Slopes at zero from that of a near fold to a steep one, targets from tiny to large."""
    monkeypatch.setattr(planar_radial, "MOST_STEPS", 50)
    eps = torch.finfo(dtype).eps
    size = torch.logspace(-30, 6, 145, dtype=dtype)
    target = torch.cat((-size, torch.zeros(1, dtype=dtype), size))
    for slope in torch.logspace(np.log10(eps), 6, 60, dtype=dtype):
        s = planar_radial._root(target, slope)
        excess = s + (slope - 1) * torch.tanh(s) - target
        assert (excess.abs() <= 4 * eps * (s.abs() + target.abs())).all(), slope
        assert torch.equal(s.sign(), target.sign())


@pytest.mark.parametrize("product", [-30.0, -5.0, -1.0, 0.0, 1.0, 30.0])
def test_the_map_is_increasing_whatever_the_product_of_u_and_w_is(product):
    """1 + w.v is above zero and what the log_det says of a point with w.x + b = 0."""
    layer = drawn(0)
    with torch.no_grad():
        layer.u.copy_(product * layer.w / layer.w.square().sum())
        at_zero = -layer.b * layer.w / layer.w.square().sum()
        log_det = layer(at_zero[None])[1].item()
        x = torch.linspace(-9, 9, 400, dtype=torch.float64)[:, None] * layer.w
        z = layer(x)[0]
    assert log_det == pytest.approx(np.log(slope_of(layer)), rel=1e-9, abs=1e-9)
    assert ((z @ layer.w).diff() > 0).all()


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-6])
def test_without_a_direction_to_look_along_the_map_is_a_shift(length):
    """V stays bounded where w goes to zero, gradients are finite, and nothing is scaled."""
    layer = drawn(0)
    with torch.no_grad():
        layer.w.copy_(length * torch.tensor([1.0, 0.0, 0.0, 0.0]))
    x = torch.randn(5, 4, dtype=torch.float64)
    z, log_det = layer(x)
    moved = z - x
    assert moved.norm(dim=1).max() <= layer.u.norm() + 1e-12
    torch.testing.assert_close(moved, moved[:1].expand(5, 4), rtol=0, atol=1e-5)
    (z.square().sum() + log_det.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
    torch.testing.assert_close(layer.inverse(z)[0], x)


@pytest.mark.parametrize("slope", [0.2, 5.0])
def test_the_root_has_right_derivatives_to_the_third_order(slope):
    """Of s with h(s) = s + c tanh(s) = target, by the derivatives of inverse functions."""
    target = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    s = planar_radial._root(target, torch.tensor(slope, dtype=torch.float64))
    actual, derivative = [], s
    for _ in range(3):
        derivative = torch.autograd.grad(derivative.sum(), target, create_graph=True)[0]
        actual.append(derivative.item())
    t, c = np.tanh(s.item()), slope - 1
    bell = 1 - t**2
    h1, h2, h3 = 1 + c * bell, -2 * c * t * bell, c * bell * (6 * t**2 - 2)
    expected = [1 / h1, -h2 / h1**3, (3 * h2**2 - h1 * h3) / h1**5]
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_transforms_of_functions_take_the_inverse_too():
    """The Jacobian of each row under `vmap` is that of plain autograd."""
    layer, z = drawn(2), torch.randn(3, 4, dtype=torch.float64)

    def one(row):
        return layer.inverse(row[None])[0][0]

    actual = torch.func.vmap(torch.func.jacrev(one))(z)
    torch.testing.assert_close(actual, dense_jacobian(lambda z, _: layer.inverse(z), z, None))


def test_a_new_map_is_the_identity_and_learns():
    """U has a gradient at once since w is not zero, and after a step of it all have one."""
    layer, x = kf.bijections.Planar(3, seed=1), torch.randn(64, 3).exp()
    z, log_det = layer(x)
    assert torch.equal(z, x)
    torch.testing.assert_close(log_det, torch.zeros(64), rtol=0, atol=1e-6)
    assert layer.w.norm().item() == pytest.approx(1, abs=1e-6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        z, log_det = layer(x)
        optimizer.zero_grad()
        (0.5 * z.square().sum(1) - log_det).mean().backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())


def test_a_seed_draws_the_direction():
    """The same one each time, and another for another seed."""
    first, same, other = (kf.bijections.Planar(5, seed=seed).w for seed in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
