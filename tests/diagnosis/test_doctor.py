"""The doctor: each rule fires on its planted fault and is silent on healthy flows."""

import json
import math

import pytest
import torch

import kappaflow as kf
from kappaflow.conditioning import layers_of

FEATURES = 4


def points(seed=0):
    """64 points of N(0, I)."""
    return torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(seed))


def healthy(seed=0, dtype=torch.float32):
    """A fitted, jittered RealNVP of moderate conditioning."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=6, hidden=(16,), scale_bound=3.0)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    flow.bijection.bijections[0].fit(points(seed))
    return flow.to(dtype)


def with_layer(layer, at=3):
    """A healthy flow with another layer put in."""
    flow = healthy()
    parts = [part.bijection for part in layers_of(flow.bijection)]
    return kf.Flow(flow.base, kf.Chain([*parts[:at], layer, *parts[at:]]))


def found(flow, x=None):
    """The findings by code."""
    return {
        finding.code: finding for finding in kf.doctor(flow, points() if x is None else x).findings
    }


class Scaled(kf.Bijection):
    """x times a constant, with a log_det and an inverse that can be wrong on purpose."""

    def __init__(self, factor=2.0, log_det_sign=1.0, inverse_error=0.0):
        super().__init__()
        self.factor, self.log_det_sign, self.inverse_error = factor, log_det_sign, inverse_error

    def _log_det(self, x):
        return x.new_full((len(x),), self.log_det_sign * x.shape[1] * math.log(self.factor))

    def forward(self, x, context=None):
        return x * self.factor, self._log_det(x)

    def inverse(self, z, context=None):
        return z / self.factor + self.inverse_error, -self._log_det(z)


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_flow_has_no_finding(seed):
    """20 of 20: false alarms are the enemy."""
    assert found(healthy(seed), points(seed)) == {}


def test_a_log_det_of_the_wrong_sign_is_found():
    """KF203, an error, with the size of the disagreement."""
    finding = found(with_layer(Scaled(log_det_sign=-1.0)))["KF203"]
    assert finding.severity == "error"
    assert finding.evidence["worst_nats"] == pytest.approx(2 * FEATURES * math.log(2), rel=1e-3)


def test_a_layer_that_is_not_its_own_inverse_is_blamed_on_both_sides():
    """KF201 and KF202 name the layer, and say that rounding does not explain it."""
    findings = found(with_layer(Scaled(inverse_error=0.1)))
    for code in ("KF201", "KF202"):
        assert findings[code].layer == "3 Scaled" and "not its own inverse" in findings[code].cause


@pytest.mark.parametrize(("stretch", "severity"), [(30.0, None), (3e3, "warning"), (1e6, "error")])
def test_an_ill_conditioned_layer_is_an_error_or_a_warning_by_its_size(stretch, severity):
    """KF301 follows eps times the condition number, and names the layer."""
    layer = kf.ElementwiseAffine(FEATURES, log_scale=[math.log(stretch), 0.0, 0.0, 0.0])
    finding = found(with_layer(layer)).get("KF301")
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.layer == "3 ElementwiseAffine"


def test_the_same_flow_is_fine_in_float64():
    """The verdict depends on the float type: what float32 cannot carry, float64 can."""
    layer = kf.ElementwiseAffine(FEATURES, log_scale=[math.log(1e6), 0.0, 0.0, 0.0])
    assert "KF301" in found(with_layer(layer))
    assert "KF301" not in found(with_layer(layer).double(), points().double())


def test_one_layer_that_carries_the_conditioning_is_noted():
    """KF302 names it; it is worth knowing and no alarm."""
    layer = kf.ElementwiseAffine(FEATURES, log_scale=[math.log(800.0), 0.0, 0.0, 0.0])
    finding = found(with_layer(layer))["KF302"]
    assert (finding.layer, finding.severity) == ("3 ElementwiseAffine", "note")


def test_a_change_of_units_is_no_ill_conditioning():
    """Columns in units that differ by 1e12 trouble nobody once they are standardised."""
    flow = healthy()
    x = points() * torch.tensor([1e6, 1.0, 1e-6, 1.0])
    flow.bijection.bijections[0].fit(x)
    assert found(flow, x) == {}


def test_a_value_that_is_not_finite_is_blamed_on_the_first_layer_that_makes_it():
    """KF101 and KF102, and nothing derived from them."""
    flow = healthy()
    flow.bijection.bijections[1].bijections[3].conditioner.layers[-1].bias.data[0] = math.nan
    findings = found(flow)
    assert set(findings) == {"KF101", "KF102"}
    assert findings["KF101"].layer == "4 AffineCoupling"


def test_an_actnorm_that_waits_for_data_is_noted():
    """KF401: the flow has not been trained."""
    finding = found(with_layer(kf.ActNorm(FEATURES)))["KF401"]
    assert finding.severity == "note" and "3" in finding.layer


def test_examining_changes_nothing():
    """State, mode and the global random generator are as before, in training mode too."""
    flow = with_layer(kf.ActNorm(FEATURES)).train()
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    random_state = torch.get_rng_state()
    kf.doctor(flow, points())
    assert flow.training and all(module.training for module in flow.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_diagnosis_is_valid_json_even_where_nothing_is_finite():
    """Strict JSON: no bare NaN."""
    flow = healthy()
    flow.bijection.bijections[1].bijections[1].conditioner.layers[-1].bias.data[0] = math.nan
    diagnosis = kf.doctor(flow, points())

    def refuse(token):
        raise AssertionError(token)

    content = json.loads(diagnosis.to_json(), parse_constant=refuse)
    assert content["ok"] is False and content["findings"][0]["code"] == "KF101"


def test_the_most_severe_finding_comes_first_and_leads_the_verdict():
    """Errors before warnings before notes; the verdict says not to believe."""
    layer = kf.ElementwiseAffine(FEATURES, log_scale=[math.log(1e7), 0.0, 0.0, 0.0])
    diagnosis = kf.doctor(with_layer(layer), points())
    order = [("error", "warning", "note").index(f.severity) for f in diagnosis.findings]
    assert order == sorted(order) and not diagnosis.ok
    assert diagnosis.verdict.startswith("Do not believe this flow yet")


def test_without_points_a_flow_is_examined_at_its_own_samples():
    """Also where it is conditional, given contexts."""
    assert kf.doctor(healthy()).ok
    conditional = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    assert kf.doctor(conditional, context=torch.rand(16, 1)).ok


@pytest.mark.boundary
def test_what_cannot_be_examined_is_refused_by_name():
    """A module that is no flow, a missing context, points of another width."""
    with pytest.raises(kf.ArgumentError, match="Linear"):
        kf.doctor(torch.nn.Linear(2, 2))
    with pytest.raises(kf.ArgumentError, match="'context'"):
        kf.doctor(kf.real_nvp(2, context_features=1), torch.zeros(3, 2))
    with pytest.raises(kf.ArgumentError, match="'x'"):
        kf.doctor(kf.real_nvp(2), torch.zeros(3, 5))
