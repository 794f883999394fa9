"""The doctor: each check finds its planted fault and is silent on healthy flows."""

import json
import math
import re

import pytest
import torch

import kappaflow as kf
from kappaflow.diagnosis import Comparison, comparison_findings, with_findings

FEATURES = 4


def points(seed=0):
    """64 rows of N(0, I)."""
    return torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(seed))


def healthy(seed=0, dtype=torch.float32):
    """A fitted, jittered RealNVP of moderate conditioning."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=6, hidden=(16,), couplings={"scale_bound": 3.0})
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    flow.bijection.bijections[0].fit(points(seed))
    return flow.to(dtype)


def with_layer(layer, at=3):
    """A healthy flow with another layer inserted."""
    flow = healthy()
    units, stack = flow.bijection
    parts = [units, *stack.to_chain()]
    return kf.Flow(flow.base, kf.Chain([*parts[:at], layer, *parts[at:]]))


def spoil(flow, layer):
    """Makes a coupling return nan."""
    coupling = flow.bijection.bijections[1].plain().bijections[layer]
    coupling.conditioner.layers[-1].bias.data[0] = math.nan


def found(flow, x=None):
    """The findings by code."""
    return {
        finding.code: finding for finding in kf.doctor(flow, points() if x is None else x).findings
    }


class Scaled(kf.Bijection):
    """x times a constant, with a log_det and an inverse that may be wrong."""

    def __init__(
        self, factor=2.0, log_det_sign=1.0, inverse_error=0.0, forward_off=0.0, inverse_off=0.0
    ):
        super().__init__()
        self.factor, self.log_det_sign, self.inverse_error = factor, log_det_sign, inverse_error
        self.forward_off, self.inverse_off = forward_off, inverse_off

    def _log_det(self, x):
        return x.new_full((len(x),), self.log_det_sign * x.shape[1] * math.log(self.factor))

    def forward(self, x, context=None):
        return x * self.factor, self._log_det(x) + self.forward_off

    def inverse(self, z, context=None):
        return z / self.factor + self.inverse_error, -self._log_det(z) + self.inverse_off


class Broken(kf.Bijection):
    """The identity, except that one direction returns nan where a feature is above 5."""

    def __init__(self, direction, above=5.0):
        super().__init__()
        self.direction, self.above = direction, above

    def _map(self, x, direction):
        broken = (x > self.above) & (direction == self.direction)
        return torch.where(broken, x * math.nan, x), x.new_zeros(len(x))

    def forward(self, x, context=None):
        return self._map(x, "forward")

    def inverse(self, z, context=None):
        return self._map(z, "inverse")


def alone(*layers):
    """A flow of these layers, without a standardization."""
    return kf.Flow(kf.StandardNormal(FEATURES), kf.Chain(layers))


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_flow_has_no_finding(seed):
    """At any seed."""
    assert found(healthy(seed), points(seed)) == {}


@pytest.mark.slow
def test_a_log_det_of_the_wrong_sign_is_found():
    """KF203, an error, with the size of the disagreement."""
    finding = found(with_layer(Scaled(log_det_sign=-1.0)))["KF203"]
    assert finding.severity == "error"
    assert finding.evidence["worst_nats"] == pytest.approx(2 * FEATURES * math.log(2), rel=1e-3)


@pytest.mark.slow
def test_a_layer_that_is_not_its_own_inverse_is_blamed_on_both_sides():
    """KF201 and KF202 name the layer; rounding does not explain the errors."""
    findings = found(with_layer(Scaled(inverse_error=0.1)))
    for code in ("KF201", "KF202"):
        assert findings[code].layer == "3 Scaled" and "not its own inverse" in findings[code].cause


@pytest.mark.parametrize(
    ("std", "seed"), [(0.5, 6), pytest.param(0.8, 14, marks=pytest.mark.slow)]
)
def test_no_inverse_is_blamed_where_rounding_leaves_no_digit(std, seed):
    """Such a round trip may exceed eps times the condition number, which is not a bound."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=16, hidden=(16,), couplings={"scale_bound": 48.0})
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=std)
    flow.bijection.bijections[0].fit(points(seed))
    findings = found(flow, points(seed))
    assert findings["KF202"].evidence["worst"] > 2 * findings["KF202"].evidence["predicted"]
    for code in ("KF201", "KF202"):
        assert findings[code].cause.endswith("amplifies rounding.")


@pytest.mark.slow
@pytest.mark.parametrize(("stretch", "severity"), [(30.0, None), (3e3, "warning"), (1e6, "error")])
def test_an_ill_conditioned_layer_is_an_error_or_a_warning_by_its_size(stretch, severity):
    """KF301 follows eps times the condition number, and names the layer."""
    layer = kf.bijections.ElementwiseAffine(FEATURES, log_scale=[math.log(stretch), 0.0, 0.0, 0.0])
    finding = found(with_layer(layer)).get("KF301")
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.layer == "3 ElementwiseAffine"


@pytest.mark.slow
def test_the_same_flow_is_fine_in_float64():
    """The verdict depends on the dtype."""
    layer = kf.bijections.ElementwiseAffine(FEATURES, log_scale=[math.log(1e6), 0.0, 0.0, 0.0])
    assert "KF301" in found(with_layer(layer))
    assert "KF301" not in found(with_layer(layer).double(), points().double())


@pytest.mark.slow
def test_one_layer_with_most_of_the_conditioning_is_noted():
    """KF302 names it in a note."""
    layer = kf.bijections.ElementwiseAffine(FEATURES, log_scale=[math.log(800.0), 0.0, 0.0, 0.0])
    finding = found(with_layer(layer))["KF302"]
    assert (finding.layer, finding.severity) == ("3 ElementwiseAffine", "note")


@pytest.mark.slow
def test_a_standardization_does_not_count_as_ill_conditioning():
    """Columns with scales that differ by 1e12 are fine once standardized."""
    flow = healthy()
    x = points() * torch.tensor([1e6, 1.0, 1e-6, 1.0])
    flow.bijection.bijections[0].fit(x)
    assert found(flow, x) == {}


@pytest.mark.slow
def test_a_value_that_is_not_finite_is_blamed_on_the_first_layer_with_one():
    """KF101 and KF102, without findings that follow from them."""
    flow = healthy()
    flow.bijection.bijections[1].plain().bijections[3].conditioner.layers[-1].bias.data[0] = (
        math.nan
    )
    findings = found(flow)
    assert set(findings) == {"KF101", "KF102"}
    assert findings["KF101"].layer == "4 AffineCoupling"


@pytest.mark.slow
def test_an_actnorm_that_waits_for_data_is_noted():
    """KF401: the flow has not been trained."""
    finding = found(with_layer(kf.bijections.ActNorm(FEATURES)))["KF401"]
    assert finding.severity == "note" and "3" in finding.layer


def test_the_doctor_changes_nothing():
    """State, mode and the global random generator are unchanged, in training mode too."""
    flow = with_layer(kf.bijections.ActNorm(FEATURES)).train()
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    random_state = torch.get_rng_state()
    kf.doctor(flow, points())
    assert flow.training and all(module.training for module in flow.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.slow
def test_a_diagnosis_is_valid_json_even_where_nothing_is_finite():
    """Strict JSON: no bare NaN."""
    flow = healthy()
    flow.bijection.bijections[1].plain().bijections[1].conditioner.layers[-1].bias.data[0] = (
        math.nan
    )
    diagnosis = kf.doctor(flow, points())

    def refuse(token):
        raise AssertionError(token)

    content = json.loads(diagnosis.to_json(), parse_constant=refuse)
    assert content["ok"] is False and content["findings"][0]["code"] == "KF101"


@pytest.mark.slow
def test_the_most_severe_finding_comes_first_and_leads_the_verdict():
    """Errors before warnings before notes; the verdict says not to trust it."""
    layer = kf.bijections.ElementwiseAffine(FEATURES, log_scale=[math.log(1e7), 0.0, 0.0, 0.0])
    diagnosis = kf.doctor(with_layer(layer), points())
    order = [("error", "warning", "note").index(f.severity) for f in diagnosis.findings]
    assert order == sorted(order) and not diagnosis.ok
    assert diagnosis.verdict.startswith("Do not trust this flow yet")


@pytest.mark.slow
def test_without_rows_a_flow_is_diagnosed_at_its_own_samples():
    """Also for a conditional flow with contexts."""
    assert kf.doctor(healthy()).ok
    conditional = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    assert kf.doctor(conditional, context=torch.rand(16, 1)).ok


@pytest.mark.boundary
def test_what_cannot_be_diagnosed_is_refused():
    """A module that is not a flow, a missing context, rows of another width."""
    with pytest.raises(kf.errors.ArgumentError, match="Linear"):
        kf.doctor(torch.nn.Linear(2, 2))
    with pytest.raises(kf.errors.ArgumentError, match="'context'"):
        kf.doctor(kf.real_nvp(2, context_features=1), torch.zeros(3, 2))
    with pytest.raises(kf.errors.ArgumentError, match="'x'"):
        kf.doctor(kf.real_nvp(2), torch.zeros(3, 5))


def with_one_point_at_6():
    """64 rows, one of them far out."""
    x = points().clamp(-4, 4)
    x[7, 0] = 6.0
    return x


def test_a_reconstruction_that_is_not_finite_is_an_error_though_likelihoods_are_finite():
    """KF201 counts the rows and names the layer whose inverse fails first."""
    flow = alone(
        kf.bijections.Permutation((1, 0, 2, 3)),
        Broken("inverse"),
        kf.bijections.ElementwiseAffine(FEATURES),
    )
    diagnosis = kf.doctor(flow, with_one_point_at_6())
    by_code = {finding.code: finding for finding in diagnosis.findings}
    assert not diagnosis.ok and set(by_code) == {"KF201"}
    assert by_code["KF201"].layer == "2 Broken"
    assert "not finite at 1 of the 64 points" in by_code["KF201"].message


def test_a_reconstruction_of_latents_that_is_not_finite_names_the_first_layer():
    """KF202, where only latents reach the fault."""
    flow = alone(
        kf.bijections.ElementwiseAffine(FEATURES, shift=[-10.0, 0.0, 0.0, 0.0]),
        kf.bijections.Permutation((1, 0, 2, 3)),
        Broken("forward"),
        kf.bijections.ElementwiseAffine(FEATURES, shift=[-10.0, 0.0, 0.0, 0.0]),
    )
    diagnosis = kf.doctor(flow, points())
    codes = {finding.code: finding for finding in diagnosis.findings}
    assert not diagnosis.ok and set(codes) == {"KF202", "KF213"}
    assert codes["KF202"].layer == "3 Broken"
    assert "not finite at 64 of the 64 points" in codes["KF202"].message


class Kinked(kf.Bijection):
    """The identity, with an inverse whose derivative is not finite at 6."""

    def forward(self, x, context=None):
        return x, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return 6 + (z - 6).sign() * (z - 6).abs().sqrt().square(), z.new_zeros(len(z))


def test_a_profile_that_is_not_finite_is_never_ok():
    """A missing singular value at one row is an error that names the layer."""
    diagnosis = kf.doctor(
        alone(kf.bijections.Permutation((1, 0, 2, 3)), Kinked()), with_one_point_at_6()
    )
    assert diagnosis.measured["status"] == "not finite"
    (finding,) = diagnosis.findings
    assert (finding.code, finding.severity, finding.layer) == ("KF201", "error", "2 Kinked")
    assert "singular values" in finding.message and "1 of the 64 points" in finding.message
    assert not diagnosis.ok


def test_a_value_that_is_not_finite_hides_no_other_fault():
    """The finite rows are checked separately."""
    flow = alone(Broken("inverse"), Scaled(forward_off=0.5))
    assert set(found(flow, with_one_point_at_6())) == {"KF201", "KF203"}


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ({"inverse_off": 0.5}, "of the inverse differs"),
        ({"forward_off": 0.5}, "of the forward direction differs"),
        ({"inverse_off": 0.5, "forward_off": 0.25}, "of both directions differs"),
        ({"inverse_off": -0.5, "forward_off": 0.5}, "of both directions differs"),
    ],
)
def test_a_wrong_log_det_is_found_in_either_direction(wrong, blamed):
    """KF203 says which direction disagrees with the Jacobian."""
    finding = found(with_layer(Scaled(**wrong)))["KF203"]
    assert finding.severity == "error" and blamed in finding.message
    assert finding.evidence["worst_nats"] == pytest.approx(0.5, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["inverse_off", "forward_off"])
def test_a_small_error_of_log_det_is_found_in_float64(direction):
    """The tolerance follows the conditioning: float64 shows what float32 hides."""
    flow = with_layer(Scaled(**{direction: 1e-6})).double()
    assert set(found(flow, points().double())) == {"KF203"}
    assert found(with_layer(Scaled(**{direction: 1e-7}))) == {}


@pytest.mark.slow
def test_the_rounding_of_many_layers_is_not_a_wrong_log_det():
    """Rotations scale nothing, but each rounds: 64 of them are off by more than one is."""
    turns = [kf.bijections.SVDLinear(FEATURES, condition_bound=1.0) for _ in range(64)]
    for parameter in kf.Chain(turns).parameters():
        torch.nn.init.normal_(parameter)
    flow = alone(*turns)
    expected = {"KF403", "KF404"}  # their shifts carry the points far out; no scale is used
    assert set(found(flow)) == expected
    flow = alone(*turns, Scaled(factor=1.0, forward_off=1e-4))
    assert set(found(flow)) == {"KF203", *expected}


class Cancelling(Scaled):
    """Its log_det is the difference of two large numbers."""

    def _log_det(self, x):
        return (1e4 + super()._log_det(x)) - 1e4


def test_a_log_det_that_loses_digits_is_distinguished_from_a_wrong_one():
    """KF203 is a warning if the formula is correct in float64, else an error."""
    finding = found(with_layer(Cancelling()))["KF203"]
    assert finding.severity == "warning" and "in float64 by" in finding.message
    assert finding.evidence["worst_nats"] > 1e-5
    assert finding.evidence["worst_nats_in_float64"] < 1e-10
    assert found(with_layer(Cancelling(forward_off=1e-3)))["KF203"].severity == "error"


class Rippled(kf.Bijection):
    """x + sin(800 x) / 1600, with quickly changing slopes from 1/2 to 3/2."""

    def __init__(self, inverse_off=0.0):
        super().__init__()
        self.inverse_off = inverse_off

    def forward(self, x, context=None):
        wide = x.double()
        slopes = 1 + (800 * wide).cos() / 2
        return (wide + (800 * wide).sin() / 1600).to(x), slopes.log().sum(1).to(x)

    def inverse(self, z, context=None):
        low, high = z.double() - 1e-3, z.double() + 1e-3
        for _ in range(50):
            middle = (low + high) / 2
            below = middle + (800 * middle).sin() / 1600 < z
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        log_det = (1 + (800 * low).cos() / 2).log().sum(1)
        return low.to(z), (self.inverse_off - log_det).to(z)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_log_det_that_changes_within_rounding_is_not_wrong(seed):
    """Rounding of the latent changes it by 1e-4 nats, though no condition number is above 3."""
    assert "KF203" not in found(alone(Rippled()), points(seed))
    assert "KF203" in found(alone(Rippled(inverse_off=0.02)), points(seed))


def test_log_dets_that_do_not_add_up_are_found_in_any_dimension():
    """Where no Jacobian is formed, the two directions are compared with each other."""
    n = 501
    flow = kf.Flow(kf.StandardNormal(n), kf.Chain([kf.bijections.ElementwiseAffine(n), Scaled()]))
    x = torch.randn(3, n)
    assert found(flow, x) == {}
    flow.bijection.bijections[1].inverse_off = 0.5
    finding = found(flow, x)["KF203"]
    assert "log_dets of the two directions add up to" in finding.message
    assert finding.evidence["worst_nats"] == pytest.approx(0.5, rel=1e-2)


@pytest.mark.slow
def test_a_wrong_inverse_is_not_blamed_for_its_log_det():
    """Where a round trip fails, log_dets belong to different points and cannot be compared."""
    assert set(found(with_layer(Scaled(inverse_error=0.1)))) == {"KF201", "KF202"}


@pytest.mark.slow
def test_each_part_keeps_its_own_mode():
    """A part in evaluation mode of a flow in training mode stays so, and vice versa."""
    flow = healthy().train()
    flow.bijection[1][0].eval()
    modes = [module.training for module in flow.modules()]
    kf.doctor(flow, points())
    assert [module.training for module in flow.modules()] == modes


@pytest.mark.slow
def test_a_diagnosis_has_the_profile_behind_it():
    """The numbers that `profile` returns at the same rows; JSON leaves them out."""
    x = torch.cat((points(), points(1)))
    diagnosis = kf.doctor(healthy(), x)
    reference = kf.profile(healthy(), x[:64])
    assert diagnosis.profile.to_dict() == reference.to_dict()
    assert "profile" not in diagnosis.to_dict() and "profile" not in json.loads(
        diagnosis.to_json()
    )
    assert diagnosis == kf.doctor(healthy(), x)


@pytest.mark.slow
def test_network_inputs_that_wait_for_a_standardization_are_noted():
    """KF401, also for the context."""
    flow = kf.real_nvp(FEATURES, depth=2, hidden=(8,), context_features=2)
    flow.bijection.bijections[0].fit(points())
    assert "embedding" in found_with_context(flow)["KF401"].layer
    flow.bijection.embedding.fit(torch.randn(64, 2))
    assert set(found_with_context(flow)) == {"KF210"}  # which only training can change


def found_with_context(flow, n=64):
    """The findings by code, at rows of N(0, I) with contexts of N(0, I)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, *flow.event_shape, generator=generator).to(flow.dtype)
    context = None
    if flow.context_features:
        context = torch.randn(n, flow.context_features, generator=generator).to(flow.dtype)
    return {finding.code: finding for finding in kf.doctor(flow, x, context).findings}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "depth", "context", "n", "dtype"),
    [
        (1, 1, 2, 2, torch.float32),
        (1, 6, 0, 64, torch.float64),
        (1, 6, 2, 2, torch.float64),
        (2, 1, 0, 2, torch.float64),
        (2, 1, 2, 64, torch.float32),
        (2, 6, 0, 2, torch.float32),
        (5, 1, 0, 64, torch.float32),
        (5, 6, 2, 64, torch.float64),
        (5, 6, 2, 2, torch.float32),
    ],
)
def test_small_and_conditional_flows_raise_no_false_alarm(features, depth, context, n, dtype):
    """Depth 1, one feature, two rows, contexts, both dtypes: nothing above a note."""
    flow = kf.real_nvp(features, depth=depth, hidden=(16,), context_features=context)
    with torch.no_grad():
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    findings = found_with_context(flow.to(dtype), n)
    assert {finding.severity for finding in findings.values()} <= {"note"}


def verdict(flow, x=None):
    """The verdict without its numbers."""
    text = kf.doctor(flow, points() if x is None else x).verdict
    return re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "#", text)


FIGURES = (
    " Its condition number has a median of # and reaches #. The reconstruction error is at most # "
    "from data and # from latents, in standardized units."
)


def test_verdicts_read_as_sentences():
    """Healthy, with care, not to be trusted, and not finite."""
    assert verdict(healthy()) == (
        "The doctor found no problem at # rows in float#. It checked: finite values, "
        "reconstruction, conditioning, parameters and state, log_prob in several ways, scale of "
        "the data, log_dets, log_dets of each layer, samples against the density, gradients, "
        "dtypes, a step of training, latents far out, features that never change." + FIGURES
    )
    assert "found no problem at 1 row in" in kf.doctor(healthy(), points()[:1]).verdict
    stretched = [
        kf.bijections.ElementwiseAffine(FEATURES, log_scale=[math.log(size), 0.0, 0.0, 0.0])
        for size in (1e4, 3e5)
    ]
    narrow = with_layer(stretched[0])
    own = narrow.sample(64, generator=torch.Generator().manual_seed(0))
    assert verdict(narrow, own) == (
        "Use this flow with care: the condition number reaches #, which leaves about # "
        "digits of a result at the worst point." + FIGURES
    )
    assert verdict(with_layer(Scaled(log_det_sign=-1.0))) == (
        "Do not trust this flow yet: the log_det of both directions differs from log|det| of the "
        "Jacobian by up to # nats." + FIGURES
    )
    assert verdict(alone(Broken("inverse")), with_one_point_at_6()) == (
        "Do not trust this flow yet: the reconstruction (data to latent to data) is not finite at "
        "# of the # points."
    )
    sick = healthy()
    sick.bijection.bijections[1].plain().bijections[3].conditioner.layers[-1].bias.data[0] = (
        math.nan
    )
    assert verdict(sick) == (
        "Do not trust this flow yet: log_prob is not finite at # of the # points."
    )


def test_samples_that_are_not_finite_are_findings():
    """Without rows the doctor uses the flow's own samples, whatever they are."""
    findings = kf.doctor(alone(Broken("inverse", above=0.0))).findings
    assert {finding.code for finding in findings} == {"KF101", "KF102"}


@pytest.mark.slow
def test_a_condition_number_that_leaves_no_digit_is_reported():
    """In whole digits, with the singular for one digit."""
    for stretch, left in ((1e5, "leaves about 1 digit of"), (1e9, "leaves no digit of")):
        layer = kf.bijections.ElementwiseAffine(
            FEATURES, log_scale=[math.log(stretch), 0.0, 0.0, 0.0]
        )
        assert left in found(with_layer(layer))["KF301"].message


def compared(difference, standard_error, *, components=1, nll=4.0, fair=True):
    """A comparison with a Gaussian, or with a mixture of several."""
    kind = "Gaussian" if components == 1 else "Gaussian mixture"
    return Comparison(kind, components, False, 500, nll, nll, difference, standard_error, fair)


@pytest.mark.parametrize(
    ("difference", "standard_error", "nll", "fair", "found"),
    [
        (1.0, 0.1, 4.0, True, [("KF501", "warning")]),
        (1.0, 0.1, 4.0, False, [("KF501", "warning")]),
        (0.02, 0.02, 4.0, True, [("KF501", "note")]),
        (0.02, 0.2, 4.0, True, [("KF505", "warning")]),
        (0.02, 0.2, 4.0, False, []),
        (-1.0, 0.1, 4.0, True, []),
        (math.inf, math.nan, 4.0, True, [("KF501", "warning")]),
        (1.0, 0.1, math.nan, True, []),
    ],
)
def test_a_flow_is_compared_with_a_gaussian(difference, standard_error, nll, fair, found):
    """Worse by two standard errors of the paired difference, not better, or not known."""
    one = compared(difference, standard_error, nll=nll, fair=fair)
    assert [(finding.code, finding.severity) for finding in comparison_findings([one])] == found


def test_a_flow_better_than_a_gaussian_and_worse_than_a_mixture_is_found():
    """KF504 names the mixture; a mixture of one component is the Gaussian and not named twice."""
    gaussian = compared(-1.0, 0.1)
    (finding,) = comparison_findings([gaussian, compared(0.5, 0.1, components=4)])
    assert finding.code == "KF504" and "a Gaussian mixture (4 components)" in finding.message
    assert (
        "0.50 ± 0.10 nats per row worse" in finding.message and "500 held-out" in finding.message
    )
    same = Comparison("Gaussian mixture", 1, False, 500, 4.0, 4.0, 1.0, 0.1)
    assert [one.code for one in comparison_findings([compared(1.0, 0.1), same])] == ["KF501"]


def test_few_rows_leave_the_likelihood_uncertain():
    """KF505, where the flow is better than both but the mean of few rows is uncertain."""
    better = [compared(-1.0, 0.1)]
    (finding,) = comparison_findings(better, standard_error=0.4, rows=20)
    assert finding.code == "KF505" and "too few held-out rows (20)" in finding.message
    assert not list(comparison_findings(better, standard_error=0.1, rows=20))
    assert not list(comparison_findings(better, standard_error=0.4, rows=2000))


@pytest.mark.slow
def test_a_finding_from_elsewhere_changes_the_verdict():
    """The verdict follows from all findings, and the worst comes first."""
    diagnosis = kf.doctor(healthy(), points())
    assert diagnosis.verdict.startswith("The doctor found no problem")
    more = with_findings(diagnosis, comparison_findings([compared(1.0, 0.1)]), ["a Gaussian"])
    assert more.verdict.startswith("Use this flow with care: on 500 held-out rows")
    assert more.measured["checked"].endswith(", a Gaussian")
    assert more.ok
    assert more.profile is diagnosis.profile
