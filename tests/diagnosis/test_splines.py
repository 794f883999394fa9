"""A healthy spline flow has no finding above a note."""

import pytest
import torch

import kappaflow as kf
from cases import splines
from kappaflow.bijections.spline import numbers, spline_knots
from kappaflow.diagnosis.checks.gradient import gradient
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.flows.recipe import from_options
from kappaflow.testing import assert_healthy

KINDS = {
    "halves": {"depth": 4},
    "random": {"depth": 4, "partition": "random", "memory": "invert"},
    "mixed": {"depth": 3, "mixing": "lu"},
}


def train_and_diagnose(kind, seed):
    """Trains a flow on an elongated ring and returns its diagnosis."""
    generator = torch.Generator().manual_seed(seed)
    angle = 6.283 * torch.rand(1200, generator=generator)
    noise = torch.randn(1200, 3, generator=generator)
    ring = torch.stack((10 * angle.cos(), 1 + angle.sin(), angle.sin() * angle.cos()), 1)
    data = ring + noise * torch.tensor([1.0, 0.1, 0.2])
    torch.manual_seed(seed)
    flow = from_options(kf.spline, 3, hidden=(32,), seed=seed, **KINDS[kind])
    kf.fit(flow, data[:1000], max_epochs=15, learning_rate=5e-3, batch_size=100, seed=seed)
    assert_healthy(flow, data[1000:])


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("random", 1),
        *(pytest.param(kind, seed, marks=pytest.mark.slow) for kind in KINDS for seed in (2, 3)),
    ],
)
def test_a_healthy_spline_flow_has_no_finding(kind, seed):
    """After a short training."""
    train_and_diagnose(kind, seed)


@torch.no_grad()
def test_a_gradient_near_a_knot_is_not_called_wrong():
    """At a knot the two sides have different derivatives; central differences average them."""
    torch.manual_seed(3)
    coupling = splines(kf.Partition.half(1), context=1)
    torch.nn.init.normal_(coupling.conditioner.layers[-1].bias)
    flow, context = kf.Flow(kf.StandardNormal(1), coupling).double().eval(), torch.ones(16, 1)
    answer = coupling.conditioner(torch.empty(16, 0).double(), context.double())
    raw = numbers(answer, torch.empty(16, 1), coupling.shape)
    x = spline_knots(raw, coupling.shape)[2][:, 0, 4] + 1e-10
    found = gradient(Measurements(flow, x, context.double()))
    assert found is not None and not found.is_wrong
