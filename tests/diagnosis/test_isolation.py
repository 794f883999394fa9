"""Isolated copies, also in another dtype; the original stays unchanged."""

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, ComposeTransform, TanhTransform

from kappaflow.diagnosis.isolation import isolated_copy


def affine():
    """Two transforms with tensors, one inside the other."""
    inner = AffineTransform(torch.ones(2), torch.tensor([2.0, 3.0]), event_dim=1)
    return [ComposeTransform([inner, TanhTransform()])]


def spline():
    """A transform that is a module."""
    pyro_transforms = pytest.importorskip("pyro.distributions.transforms")
    return [pyro_transforms.Spline(2, count_bins=4)]


@pytest.mark.parametrize("transforms", [affine, spline])
def test_a_distribution_has_a_copy_in_float64(transforms):
    """With all of its tensors, so that the effect of rounding shows."""
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = TransformedDistribution(base, transforms())
    x = flow.sample((8,)).detach()
    copy64 = isolated_copy(flow, x, None, torch.float64)
    assert copy64 is not None and copy64.dtype == torch.float64
    near = copy64.log_prob(x.double()).detach()
    assert near.dtype == torch.float64
    torch.testing.assert_close(near.float(), flow.log_prob(x).detach(), rtol=1e-3, atol=1e-3)
    assert flow.base_dist.base_dist.loc.dtype == torch.float32
    assert flow.log_prob(x).dtype == torch.float32


class Keeping(torch.nn.Module):
    """A scale that keeps its last result, as transforms of Pyro do."""

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.ones(2))

    def encode(self, x):
        self.last = x * self.log_scale.exp()
        return self.last, self.log_scale.sum().expand(len(x))

    def decode(self, z):
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(z))


def test_a_kept_result_is_copied_without_its_graph():
    """Torch does not copy a tensor with a graph; the original keeps its own."""
    flow, x = Keeping(), torch.ones(8, 2)
    flow.encode(x)
    own = isolated_copy(flow, x, None)
    assert own is not None
    (copied,) = own.original
    assert copied.last.grad_fn is None and flow.last.grad_fn is not None
    torch.testing.assert_close(copied.last, flow.last.detach())
    assert copied.log_scale is not flow.log_scale
