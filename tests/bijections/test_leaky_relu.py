"""The leaky ReLU as a bijection."""

import math

import pytest
import torch
from torch.nn.functional import leaky_relu

import kappaflow as kf


@pytest.mark.parametrize("slope", [0.01, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_the_map_is_that_of_torch_and_counts_what_is_negative(slope, shape):
    """Value, inverse and log_det, on tables and on images."""
    layer, x = kf.bijections.LeakyReLU(slope), torch.randn(5, *shape, dtype=torch.float64)
    z, log_det = layer(x)
    assert torch.equal(z, leaky_relu(x, slope))
    torch.testing.assert_close(log_det, math.log(slope) * (x < 0).flatten(1).sum(1).double())
    back, negative = layer.inverse(z)
    torch.testing.assert_close(back, x)
    assert torch.equal(negative, -log_det)


def test_zero_stays_zero_and_counts_as_not_negative():
    """In both directions alike."""
    x = torch.zeros(1, 3)
    for direction in (kf.bijections.LeakyReLU(), kf.bijections.LeakyReLU().inverse):
        value, log_det = direction(x)
        assert torch.equal(value, x)
        assert log_det.item() == 0


@pytest.mark.parametrize("slope", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.3, 2.0])
def test_a_rounded_corner_is_a_branch_of_a_hyperbola(slope, smoothing):
    """By its formula, with slopes between the two, near both lines far out, with its log_det."""
    layer = kf.bijections.LeakyReLU(slope, smoothing=smoothing)
    x = torch.linspace(-400, 400, 2001, dtype=torch.float64)[:, None].requires_grad_()
    z, log_det = layer(x)
    root = (x.square() + smoothing**2).sqrt()
    torch.testing.assert_close(z, (1 + slope) / 2 * x + (1 - slope) / 2 * root)
    slopes = torch.autograd.grad(z.sum(), x)[0][:, 0]
    torch.testing.assert_close(log_det, slopes.log())
    assert slopes.min() >= min(slope, 1) and slopes.max() <= max(slope, 1)
    torch.testing.assert_close(layer.inverse(z)[0], x)
    far = (x.abs() > 300).squeeze(1)
    torch.testing.assert_close(z[far], leaky_relu(x, slope)[far], rtol=0, atol=0.01)


@pytest.mark.parametrize("smoothing", [-0.1, math.inf, math.nan, "0.3"])
def test_a_smoothing_that_cannot_be_is_refused(smoothing):
    """It is a finite number, 0 or more."""
    with pytest.raises(kf.errors.ArgumentError, match="'smoothing' should be a"):
        kf.bijections.LeakyReLU(smoothing=smoothing)


@pytest.mark.parametrize("slope", [0, -0.1, math.inf, math.nan, "0.2", True])
def test_a_slope_that_cannot_be_is_refused(slope):
    """It is a finite number above 0."""
    with pytest.raises(kf.errors.ArgumentError, match="'negative_slope' should be a"):
        kf.bijections.LeakyReLU(slope)
