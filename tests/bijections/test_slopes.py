"""Slopes above zero and their logarithms."""

import math

import pytest
import torch

from kappaflow.bijections.planar_radial import _radius, log_slope, positive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logarithm_is_accurate_near_one_and_near_zero(dtype):
    """To rounding, from an excess of 1e-30 and from a slope of 1e-30, with finite derivatives."""
    slope = torch.tensor([1e-30, 1e-3, 0.49, 0.51, 1, 1, 3.0], dtype=dtype)
    excess = slope - 1
    excess[4:6] = torch.tensor([1e-30, -1e-9], dtype=dtype)
    inputs = excess.requires_grad_(), slope.requires_grad_()
    actual = log_slope(*inputs)
    exact = [
        math.log(1e-30),
        math.log(1e-3),
        math.log(0.49),
        math.log(0.51),
        1e-30,
        math.log1p(-1e-9),
    ]
    expected = torch.tensor([*exact, math.log(3)], dtype=torch.float64)
    error = (actual.double() - expected).abs() / expected.abs()
    assert error.max() < 4 * torch.finfo(dtype).eps, error
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(actual.sum(), inputs))


def test_positive_numbers_are_one_at_zero():
    """And grow with the raw ones."""
    numbers = positive(torch.tensor([-50.0, -1.0, 0.0, 1.0, 50.0], dtype=torch.float64))
    assert numbers[2].item() == pytest.approx(1, abs=1e-15)
    assert (numbers > 0).all() and (numbers.diff() > 0).all()


@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e6])
def test_the_radius_is_accurate_wherever_the_point_is(ratio):
    """To rounding, of radii from 1e-9 to 1e9, the equation for the length solved for them."""
    r, alpha = torch.logspace(-9, 9, 50, dtype=torch.float64), 2.0
    length = r * (r + alpha * ratio) / (r + alpha)
    actual = _radius(length, *torch.tensor([alpha, ratio], dtype=torch.float64))
    slope = (r * (r + 2 * alpha) + alpha**2 * ratio) / (r + alpha).square()
    assert ((actual - r).abs() <= 1e-14 * (r + length / slope)).all()
