"""Autoregressive splines: the structure of the Jacobian, inverses in turn, derivatives."""

import math

import pytest
import torch
from tests.cases import BIJECTIONS

from kappaflow.bijections import AutoregressiveSpline
from kappaflow.bijections.autoregressive import AutoregressiveLinearization
from kappaflow.testing.contract import jittered

NAMES = [name for name in BIJECTIONS if name.startswith("AutoregressiveSpline")]


def jacobian(function, x):
    """Returns the Jacobians, (B, D, D), by plain autograd."""
    return torch.autograd.functional.jacobian(function, x).diagonal(dim1=0, dim2=2).movedim(2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_each_output_depends_on_its_feature_and_on_those_before(name):
    """Above the diagonal are exact zeros; log_dets and matrices are those of autograd."""
    layer, x, context = BIJECTIONS[name].build(torch.float64)
    dense = jacobian(lambda x: layer(x, context)[0], x)
    assert bool((dense.triu(1) == 0).all())
    below = torch.ones_like(dense[0], dtype=torch.bool).tril(-1)
    assert bool((dense != 0).any(0)[below].all()) or "more features" in name
    torch.testing.assert_close(layer(x, context)[1], torch.linalg.slogdet(dense)[1])
    linearization = layer.linearize(x, context)
    assert isinstance(linearization, AutoregressiveLinearization)
    matrix, inverse = linearization.matrices(x)
    torch.testing.assert_close(matrix, dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse, torch.linalg.inv(dense), rtol=1e-10, atol=1e-10)


def test_a_new_layer_is_the_identity():
    x, context = 4 * torch.randn(64, 3), torch.randn(64, 2)
    z, log_det = AutoregressiveSpline(3, (16,), context_features=2)(x, context)
    torch.testing.assert_close((z, log_det), (x, torch.zeros(64)), rtol=0, atol=1e-5)


def test_the_inverse_repeats_dropout_in_training():
    """A chain that recovers inputs from outputs draws the same units in both directions."""
    for skips in (False, True):
        layer = AutoregressiveSpline(4, (32, 32), dropout=0.4, residual=skips, activation="tanh")
        layer = jittered(layer, seed=1).double().train()
        x = torch.randn(16, 4, dtype=torch.float64)
        torch.manual_seed(3)
        z = layer(x)[0]
        assert not torch.allclose(layer(x)[0], z)
        torch.manual_seed(3)
        torch.testing.assert_close(layer.inverse(z)[0], x, rtol=1e-9, atol=1e-9)


def test_log_scales_are_bounded_and_log_dets_are_wide():
    layer = AutoregressiveSpline(1, scale_bound=0.5, bins=2)
    with torch.no_grad():
        layer.network.layers[-1].bias[0] = 1e4
    x = torch.tensor([[30.0]])  # outside of the box of the spline
    torch.testing.assert_close(layer(x), (x * math.exp(0.5), torch.tensor([0.5])))
    assert layer.bfloat16()(x.bfloat16())[1].dtype == torch.float32
