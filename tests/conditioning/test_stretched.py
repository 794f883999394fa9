"""Directions at both ends of a Jacobian, and what a penalty on them derives."""

import pytest
import torch

import kappaflow as kf
from kappaflow.conditioning import stretched as module
from kappaflow.conditioning.stretched import log_stretch, stretched


def bent(features=5, depth=3, seed=0):
    """A float64 flow with random weights."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(features, depth=depth, hidden=(8,)).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow.eval()


def dense_log_condition(flow, x):
    """The log of the condition number by autograd's Jacobian and its singular values."""
    jacobian = torch.autograd.functional.jacobian(
        lambda point: flow.core(point[None])[0][0], x, create_graph=True
    )
    s = torch.linalg.svdvals(jacobian)
    return s[0].log() - s[-1].log()


@pytest.fixture
def points():
    """Seven points in five dimensions."""
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_condition_numbers_are_those_of_the_dense_jacobian(points):
    """At each point, to rounding."""
    flow = bent()
    result = stretched(flow.core.linearize(points), points)
    expected = torch.stack([dense_log_condition(flow, x) for x in points])
    assert expected.min() > 0.3
    assert torch.allclose(result.log_condition_number, expected, atol=1e-10)
    assert torch.allclose(result.most.norm(dim=1), torch.ones(7, dtype=torch.float64))


def test_the_derivative_is_that_of_the_log_of_the_condition_number(points):
    """By every weight, against autograd through the singular values of the dense Jacobian."""
    flow = bent()
    result = stretched(flow.core.linearize(points), points)
    ours = log_stretch(flow.core.linearize(points), result.most, result.least).sum()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    got = torch.autograd.grad(ours, parameters, allow_unused=True)
    dense = torch.stack([dense_log_condition(flow, x) for x in points]).sum()
    expected = torch.autograd.grad(dense, parameters, allow_unused=True)
    assert torch.allclose(ours, dense)
    largest = max(e.abs().max() for e in expected if e is not None)
    for first, second in zip(got, expected, strict=True):
        first, second = (torch.zeros(()) if g is None else g for g in (first, second))
        assert (first - second).abs().max() < 1e-9 * largest


def test_without_a_matrix_the_same_directions_are_found(points, monkeypatch):
    """By twelve steps of the power iteration, from below."""
    flow = bent()
    with_matrix = stretched(flow.core.linearize(points), points)
    monkeypatch.setattr(module, "MATRIX_UP_TO", 4)
    without = stretched(flow.core.linearize(points), points)
    short = with_matrix.log_condition_number - without.log_condition_number
    assert (short > -1e-9).all() and (short < 0.05).all()


def test_a_point_with_a_jacobian_that_is_not_finite_is_nan(points):
    """The other points of the batch are not."""
    flow = bent()
    points[2] = float("inf")
    result = stretched(flow.core.linearize(points), points).log_condition_number
    assert result[2].isnan() and result.isfinite().sum() == 6
