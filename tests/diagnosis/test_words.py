"""Causes and fixes fit the library of the examined flow, and name what really happened."""

import math
import re

import pytest
import torch
from torch import nn

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import doctor, findings
from kappaflow.diagnosis.advice import bound_scales, without_own_names
from kappaflow.diagnosis.check import CHECKS, Symptom

OWN_NAMES = re.compile(
    r"kappaflow|\bkf\.|real_nvp|scale_bound|check_bijection|flow\.standardization|max_epochs|"
    r"\bdepth\b|hidden|--[a-z]"
)


def own_names(results):
    """The names of kappaflow alone in the texts of findings."""
    texts = [f"{finding.message} {finding.cause} {finding.fix}" for finding in results]
    return [name for text in texts for name in OWN_NAMES.findall(text)]


def test_no_text_of_a_check_names_kappaflow_to_users_of_other_libraries():
    """Except the checks of trainings and of energies, which only kappaflow has."""
    checks = [c for c in CHECKS.values() if c.subject != "run" and c.code < "KF8"]
    defaults = [check.finding(Symptom("A message.")) for check in checks]
    assert own_names(defaults)  # kappaflow's own users see these hints
    assert own_names(map(without_own_names, defaults)) == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (truth.NotInverse, "plain"),
        (truth.Stretched, "zuko MAF"),
        *(
            pytest.param(kind, source, marks=pytest.mark.slow)
            for kind in truth.KINDS
            for source in ("zuko MAF", "FrEIA AllInOne")
        ),
    ],
)
def test_a_finding_on_a_foreign_flow_names_nothing_of_kappaflow(kind, source):
    """In its message, cause and fix."""
    case = truth.planted(kind, source)
    results = doctor(case.flow, case.x, make=case.make).findings
    assert results and own_names(results) == []


class Cancelling(nn.Module):
    """Adds and subtracts a number so large that float32 keeps three digits of the sum."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))

    def encode(self, x):
        z = x * self.log_scale.exp() + 3e4
        return z - 3e4, self.log_scale.sum().expand(len(x))

    def decode(self, z):
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(z))


def test_cancellation_in_float32_is_not_blamed_on_the_inverse():
    """The same layer in float64 is its own inverse."""
    by_code = findings(Cancelling(), 0.1 * torch.randn(64, 2))
    assert "float64" in by_code["KF201"].message and "lose digits" in by_code["KF201"].cause


def test_a_saturated_coupling_is_not_a_linear_layer():
    """Its slopes are the same at the rows and different elsewhere."""

    class Saturated(nn.Module):
        def forward(self, x):
            return torch.cat((100 * (x + 10), torch.zeros_like(x)), 1)

    coupling = kf.bijections.AffineCoupling(kf.Partition.half(2), Saturated(), scale_bound=12.0)
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([coupling]))
    by_code = findings(flow, torch.rand(64, 2) * 1e-3)
    assert "KF305" not in by_code and "KF301" in by_code
    assert "an argument of AffineCoupling" in by_code["KF301"].fix
    linear = kf.bijections.ElementwiseAffine(2, log_scale=[6.0, -6.0])
    assert "KF305" in findings(kf.Flow(kf.StandardNormal(2), linear), torch.randn(64, 2))


@pytest.mark.parametrize(
    ("flow", "argument"),
    [
        (kf.spline(2, depth=2, hidden=(4,)), "spline: couplings={'min_slope': ...}"),
        (kf.real_nvp(2, depth=2, hidden=(4,)), "real_nvp: couplings={'scale_bound': ...}"),
        (kf.nice(2, depth=2, hidden=(4,)), "torch.tanh(raw / bound)"),
    ],
)
def test_a_bound_is_an_argument_of_the_recipe(flow, argument):
    """Splines have no log-scales; a flow without any bound gets general advice."""
    assert argument in bound_scales(flow)


LOGARITHM = (
    lambda x: (x.log(), -x.log().sum(1)),
    lambda z: (z.exp(), z.sum(1)),
)


@pytest.mark.parametrize(
    ("value", "cause"), [(0.0, "logarithm of zero"), (-1.0, "logarithm of a negative number")]
)
def test_a_row_on_the_edge_of_a_domain_is_no_overflow(value, cause):
    """The layer is not defined there."""
    x = torch.rand(64, 2) + 0.5
    x[3, 1] = value
    finding = findings(LOGARITHM, x)["KF101"]
    assert cause in finding.cause and "clamp" in finding.fix


def test_a_broken_parameter_is_named():
    """Instead of a scale that overflowed."""
    flow = Cancelling()
    flow.log_scale.data[1] = math.nan
    assert findings(flow, torch.randn(64, 2))["KF101"].cause.startswith("log_scale holds")


def test_a_base_without_density_at_the_rows_is_named():
    """The layers are finite there."""
    base = torch.distributions.Independent(torch.distributions.Uniform(torch.zeros(2), 1.0), 1)
    transform = torch.distributions.AffineTransform(0.0, 2.0)
    flow = torch.distributions.TransformedDistribution(base, [transform])
    finding = findings(flow, torch.full((64, 2), 3.0))["KF101"]
    assert "support of the base" in finding.cause
