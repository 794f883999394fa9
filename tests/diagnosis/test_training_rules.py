"""Rules on gradients and on points far out: planted faults at twenty seeds."""

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, SEEDS, Right, findings, moved, points
from kappaflow.diagnosis.measures.gradient import DIRECTIONS, _direction, gradient_of
from kappaflow.diagnosis.unchanged import another


class Detached(Right):
    """Its log_det has no gradient."""

    def encode(self, x):
        z, log_det = super().encode(x)
        return z, log_det.detach()


@SEEDS
def test_a_log_det_without_gradient_is_found(seed):
    """KF209 alone; the right one is silent."""
    found = findings(Detached(seed), points(seed))
    assert set(found) == {"KF209"} and found["KF209"].severity == "error"
    assert findings(Right(seed), points(seed)) == {}


def test_the_derivatives_are_those_of_log_prob():
    """Against autograd on the flow, along the same direction."""
    flow = moved(3)
    with torch.no_grad():
        found = gradient_of(flow, points(3), None, another(flow, points(3), None, torch.float64))
    flow.double()
    value = flow.log_prob(points(3)[:16].double()).mean()
    gradients = torch.autograd.grad(value, list(flow.parameters()), allow_unused=True)
    along = [
        sum(
            (g * d).sum().item()
            for g, d in zip(gradients, _direction(flow, seed), strict=True)
            if g is not None
        )
        for seed in range(DIRECTIONS)
    ]
    wanted = min(along, key=lambda one: abs(one - found.wide))
    assert found.wide == pytest.approx(wanted, rel=1e-9)
    assert found.difference == pytest.approx(wanted, rel=1e-5)
    assert found.own == pytest.approx(wanted, rel=1e-3) and found.layer is None


def test_the_layer_without_gradient_is_named():
    """The second of three."""

    class Cut(kf.ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return z, log_det.detach()

    layers = [kf.ElementwiseAffine(FEATURES) for _ in range(3)]
    layers[1] = Cut(FEATURES)
    flow = kf.Flow(kf.StandardNormal(FEATURES), kf.Chain(layers))
    assert findings(flow, points())["KF209"].layer == "2 Cut"


def test_a_backward_pass_that_loses_digits_is_a_warning():
    """Right in float64, and three times as large in float32."""

    class Rough(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (3 if gradient.dtype == torch.float32 else 1)

    class Losing(Right):
        def __init__(self, seed):
            super().__init__(seed)
            self.shift = torch.nn.Parameter(torch.full((FEATURES,), 2.0))

        def encode(self, x):
            z, log_det = super().encode(x)
            return z + Rough.apply(self.shift), log_det

        def decode(self, z):
            return super().decode(z - self.shift)

    found = findings(Losing(0), points())
    assert set(found) == {"KF209"} and found["KF209"].severity == "warning"


@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
def test_the_gradients_of_each_memory_mode_are_right(memory):
    """Those by inversion among them."""
    flow = moved(1, memory=memory)
    assert findings(flow, points(1)) == {}
    with torch.no_grad():
        found = gradient_of(
            flow.eval(), points(1), None, another(flow, points(1), None, torch.float64)
        )
    assert found.own == pytest.approx(found.difference, rel=1e-3)


@SEEDS
def test_points_far_out_that_carry_the_mean_are_found(seed):
    """KF503 with their number and the worst row; none for draws, and none where all are far."""
    flow = moved(seed)
    x = flow.sample(1000, generator=torch.Generator().manual_seed(seed))
    assert "KF503" not in findings(flow, x)
    x[10:13] *= 30
    found = findings(flow, x)["KF503"]
    assert found.severity == "warning" and found.evidence["far"] == 3
    assert found.evidence["worst_row"] in (10, 11, 12)
    away = torch.arange(1000) > 12
    log_prob = flow.log_prob(x).detach().double()
    assert found.evidence["mean"] == pytest.approx(log_prob.mean().item(), rel=1e-3)
    assert found.evidence["mean_without"] == pytest.approx(
        log_prob[away | (torch.arange(1000) < 10)].mean().item(), rel=1e-3
    )
    assert "KF503" not in findings(flow, 30 * x)


def test_the_slope_that_heavy_tails_need_is_that_of_the_furthest_point():
    """The identity has slopes of one: a point at 40 needs some ten of them."""
    flow = kf.Flow(kf.StandardNormal(FEATURES), kf.ElementwiseAffine(FEATURES))
    x = points(0, 1000)
    x[17] = 20
    found = findings(flow, x)["KF503"].evidence
    assert found["slope_measured"] == pytest.approx(1)
    assert 6 < found["slope_needed"] < 10 and found["worst_row"] == 17
