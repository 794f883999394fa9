"""Couplings by splines: their start, the bound on their conditioning, narrow types, arguments."""

import pytest
import torch

import kappaflow as kf
from cases import splines
from kappaflow.testing.contract import dense_jacobian, jittered

half = kf.Partition.half
EPS = torch.finfo().eps


def extreme(coupling, size, seed=0):
    """Returns a coupling whose last layer is as large as can be, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in coupling.conditioner.layers[-1].parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return coupling.double()


@pytest.mark.parametrize("bins", [2, 3, 8, 11])
def test_a_new_coupling_is_the_identity(bins):
    """Up to rounding, with log_det zero; bit for bit outside of the box."""
    coupling = splines(half(5), bins=bins, bound=2.0)
    x = 2 * torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
    for way in (coupling.forward, coupling.inverse):
        z, log_det = way(x)
        assert (z - x).abs().max() <= 8 * EPS and log_det.abs().max() <= 30 * EPS
        beyond = x.abs() >= 2
        assert torch.equal(z[beyond], x[beyond])


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("shape", [{}, {"bins": 3, "min_bin": 0.3, "min_slope": 0.4, "bound": 1}])
def test_the_condition_number_is_bounded_as_stated(shape, size):
    """(h + mu)(1 + mu) / l, of dense Jacobians; h / l where the conditioner answers the same."""
    coupling = extreme(splines(half(4), **shape), size)
    low, high = coupling.slopes
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 4, dtype=torch.float64, generator=generator)
    jacobian = dense_jacobian(coupling.forward, x, None)
    changed = jacobian[:, 2:, 2:].diagonal(dim1=1, dim2=2)
    assert low <= changed.min() and changed.max() <= high
    mu = torch.linalg.matrix_norm(jacobian[:, 2:, :2], ord=2)
    values = torch.linalg.svdvals(jacobian)
    assert (values[:, 0] / values[:, -1] <= (high + mu) * (1 + mu) / low * (1 + 1e-9)).all()
    with torch.no_grad():
        coupling.conditioner.layers[-1].weight.zero_()
    values = torch.linalg.svdvals(dense_jacobian(coupling.forward, x, None))
    assert (values[:, 0] / values[:, -1] <= high / low).all()


def test_random_couplings_come_near_the_stated_ends():
    """So that a bound a few times narrower is seen to fail."""
    coupling = extreme(splines(half(4), min_bin=0.4, min_slope=0.3), 100.0)
    low, high = coupling.slopes
    x = torch.rand(20_000, 4, dtype=torch.float64) * 10 - 5
    slope = coupling.linearize(x)._slope
    assert slope.min() < 3 * low and slope.max() > high / 3


def test_training_under_autocast_keeps_the_splines_in_float32():
    """The network is narrow; knots and values are not. Sampling and scoring are in float32."""
    flow = jittered(kf.spline(4, depth=2, hidden=(8,))).train()
    x = torch.randn(64, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = -flow.log_prob(x).mean()
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    flow.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        z = flow.bijection(x)[0]
        assert (flow.bijection.inverse(z)[0] - x).abs().max() < 1e-4


def test_the_memory_of_a_training_step_is_that_of_the_answers():
    """The node keeps what is changed and the answer: no more than two tensors of it."""
    kept = []
    coupling, x = jittered(splines(half(4))), torch.randn(100, 4)

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        coupling(x)
    assert sum(size > 100 * 40 for size in kept) == 1


def test_its_repr_says_its_shape():
    """As a line of `print(flow)`."""
    assert "bins=8, bound=5, min_bin=" in repr(splines(half(4)))
