"""The gradient of a spline next to a knot."""

import torch

import kappaflow as kf
from cases import splines
from kappaflow.bijections.spline import numbers, spline_knots
from kappaflow.diagnosis.checks.gradient import gradient
from kappaflow.diagnosis.measurements import Measurements


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
    result = gradient(Measurements(flow, x, context.double()))
    assert result is not None and not result.is_wrong
