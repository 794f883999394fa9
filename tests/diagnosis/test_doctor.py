"""The doctor: each check finds its planted fault and is silent on correct flows."""

import dataclasses
import json
import math
import re

import pytest
import torch
from tests.goodness.exact_flows import Map

import kappaflow as kf
from diagnosis.faulty import (
    FEATURES,
    Scaled,
    alone,
    codes,
    findings,
    moved,
    points,
    stretching,
    with_layer,
)
from kappaflow.diagnosis import Comparison, comparison_findings, with_findings


def spoiled(layer):
    """A flow with a coupling that returns nan."""
    flow = moved()
    coupling = flow.bijection.bijections[1].plain().bijections[layer]
    coupling.conditioner.layers[-1].bias.data[0] = math.nan
    return flow


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


@pytest.mark.parametrize("seed", range(4))
def test_a_correct_flow_has_no_finding(seed):
    """At any seed."""
    assert findings(moved(seed), points(seed)) == {}


@pytest.mark.slow
def test_a_layer_that_is_not_its_own_inverse_is_blamed_on_both_sides():
    """KF201 and KF202 name the layer; its log_dets, of different points, are not compared."""
    result = findings(with_layer(Scaled(inverse_error=0.1)))
    assert set(result) == {"KF201", "KF202"}
    for finding in result.values():
        assert finding.layer == "3 Scaled" and "not its own inverse" in finding.cause


@pytest.mark.parametrize(
    ("std", "seed"), [(0.5, 19), pytest.param(0.8, 18, marks=pytest.mark.slow)]
)
def test_no_inverse_is_blamed_where_rounding_leaves_no_digit(std, seed):
    """Such a round trip may exceed eps times the condition number, which is not a bound."""
    torch.manual_seed(seed)
    flow = kf.real_nvp(FEATURES, depth=24, hidden=(16,), couplings={"scale_bound": 48.0})
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=std)
    flow.bijection.bijections[0].fit(points(seed))
    result = findings(flow, points(seed))
    assert result["KF202"].evidence["worst"] > 2 * result["KF202"].evidence["predicted"]
    for code in ("KF201", "KF202"):
        assert result[code].cause.endswith("amplifies rounding.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stretch", "severity", "left"),
    [
        (30.0, None, ""),
        (3e3, "warning", "about 2 digits"),
        (1e5, "error", "leaves about 1 digit of"),
        (1e9, "error", "leaves no digit of"),
    ],
)
def test_an_ill_conditioned_layer_is_an_error_or_a_warning_by_its_size(stretch, severity, left):
    """KF301 follows eps times the condition number, and names the layer; float64 has digits."""
    flow = with_layer(stretching(math.log(stretch)))
    finding = findings(flow).get("KF301")
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.layer == "3 ElementwiseAffine" and left in finding.message
        assert "KF301" not in findings(flow.double(), points().double())


@pytest.mark.slow
def test_one_layer_with_most_of_the_conditioning_is_noted():
    """KF302 names it in a note."""
    finding = findings(with_layer(stretching(math.log(800.0))))["KF302"]
    assert (finding.layer, finding.severity) == ("3 ElementwiseAffine", "note")


@pytest.mark.slow
def test_a_standardization_does_not_count_as_ill_conditioning():
    """Columns with scales that differ by 1e12 are fine once standardized."""
    flow, x = moved(), points() * torch.tensor([1e6, 1.0, 1e-6, 1.0])
    flow.bijection.bijections[0].fit(x)
    assert findings(flow, x) == {}


def test_a_value_that_is_not_finite_is_blamed_on_the_first_layer_with_one():
    """KF101 and KF102, without findings that follow from them; the JSON has no bare NaN."""
    diagnosis = kf.doctor(spoiled(3), points())
    assert codes(diagnosis) == {"KF101", "KF102"}
    assert diagnosis.findings[0].layer == "4 AffineCoupling"

    def refuse(token):
        raise AssertionError(token)

    content = json.loads(diagnosis.to_json(), parse_constant=refuse)
    assert content["ok"] is False and content["findings"][0]["code"] == "KF101"


def test_the_doctor_changes_nothing():
    """State, the mode of each part and the global random generator are unchanged."""
    flow = with_layer(kf.bijections.ActNorm(FEATURES)).train()
    flow.bijection[1].eval()
    modes = [module.training for module in flow.modules()]
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    random_state = torch.get_rng_state()
    finding = findings(flow)["KF401"]
    assert finding.severity == "note" and "3" in finding.layer
    assert [module.training for module in flow.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.slow
def test_without_rows_a_flow_is_diagnosed_at_its_own_samples():
    """Also for a conditional flow with contexts."""
    assert kf.doctor(moved()).ok
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


class Kinked(kf.Bijection):
    """The identity, with an inverse whose derivative is not finite at 6."""

    def forward(self, x, context=None):
        return x, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return 6 + (z - 6).sign() * (z - 6).abs().sqrt().square(), z.new_zeros(len(z))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Broken("inverse"), "data) is not finite at 1 of the 64 points"),
        (Kinked(), "singular values of the Jacobian are not finite and positive at 1 of the 64"),
    ],
)
def test_a_value_that_is_not_finite_is_an_error_though_likelihoods_are_finite(layer, message):
    """KF201 alone counts the rows and names the first layer with such a value."""
    permutation = kf.bijections.Permutation((1, 0, 2, 3))
    diagnosis = kf.doctor(alone(permutation, layer), with_one_point_at_6())
    (finding,) = diagnosis.findings
    assert (finding.code, finding.severity) == ("KF201", "error") and message in finding.message
    assert finding.layer == f"2 {type(layer).__name__}" and not diagnosis.ok
    assert diagnosis.measured["status"] == "not finite"


def test_a_reconstruction_of_latents_that_is_not_finite_names_the_first_layer():
    """KF202, where only latents reach the fault."""
    shift = [-10.0, 0.0, 0.0, 0.0]
    affine = [kf.bijections.ElementwiseAffine(FEATURES, shift=shift) for _ in range(2)]
    permutation = kf.bijections.Permutation((1, 0, 2, 3))
    result = findings(alone(affine[0], permutation, Broken("forward"), affine[1]))
    assert set(result) == {"KF202", "KF213"} and result["KF202"].layer == "3 Broken"
    assert "not finite at 64 of the 64 points" in result["KF202"].message


def test_a_value_that_is_not_finite_hides_no_other_fault():
    """The finite rows are checked separately."""
    flow = alone(Broken("inverse"), Scaled(forward_off=0.5))
    assert set(findings(flow, with_one_point_at_6())) == {"KF201", "KF203"}


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ({"off": 0.5}, "of the inverse differs"),
        ({"forward_off": 0.5}, "of the forward direction differs"),
        ({"off": -0.5, "forward_off": 0.5}, "of both directions differs"),
    ],
)
def test_a_wrong_log_det_is_found_in_either_direction(wrong, blamed):
    """KF203 says which direction disagrees with the Jacobian."""
    finding = findings(with_layer(Scaled(**wrong)))["KF203"]
    assert finding.severity == "error" and blamed in finding.message
    assert finding.evidence["worst_nats"] == pytest.approx(0.5, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["off", "forward_off"])
def test_a_small_error_of_log_det_is_found_in_float64(direction):
    """The tolerance follows the conditioning: float64 shows what float32 hides."""
    flow = with_layer(Scaled(**{direction: 1e-6})).double()
    assert set(findings(flow, points().double())) == {"KF203"}
    assert findings(with_layer(Scaled(**{direction: 1e-7}))) == {}


@pytest.mark.slow
def test_the_rounding_of_many_layers_is_not_a_wrong_log_det():
    """Rotations scale nothing, but each rounds: 64 of them are off by more than one is."""
    turns = [kf.bijections.SVDLinear(FEATURES, condition_bound=1.0) for _ in range(64)]
    for parameter in kf.Chain(turns).parameters():
        torch.nn.init.normal_(parameter)
    expected = {"KF403", "KF404"}  # their shifts carry the points far out; no scale is used
    assert set(findings(alone(*turns))) == expected
    flow = alone(*turns, Scaled(factor=1.0, forward_off=1e-4))
    assert set(findings(flow)) == {"KF203", *expected}


class Cancelling(Scaled):
    """Its log_det is the difference of two large numbers."""

    def _log_det(self, x):
        return (1e4 + super()._log_det(x)) - 1e4


def test_a_log_det_that_loses_digits_is_distinguished_from_a_wrong_one():
    """KF203 is a warning if the formula is correct in float64, else an error."""
    finding = findings(with_layer(Cancelling()))["KF203"]
    assert finding.severity == "warning" and "in float64 by" in finding.message
    assert finding.evidence["worst_nats"] > 1e-5
    assert finding.evidence["worst_nats_in_float64"] < 1e-10
    assert findings(with_layer(Cancelling(forward_off=1e-3)))["KF203"].severity == "error"


class Rippled(kf.Bijection):
    """x + sin(800 x) / 1600, with quickly changing slopes from 1/2 to 3/2."""

    def __init__(self, inverse_off=0.0):
        super().__init__()
        self.inverse_off = inverse_off

    def forward(self, x, context=None):
        x64 = x.double()
        slopes = 1 + (800 * x64).cos() / 2
        return (x64 + (800 * x64).sin() / 1600).to(x), slopes.log().sum(1).to(x)

    def inverse(self, z, context=None):
        low, high = z.double() - 1e-3, z.double() + 1e-3
        for _ in range(50):
            middle = (low + high) / 2
            below = middle + (800 * middle).sin() / 1600 < z
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        log_det = (1 + (800 * low).cos() / 2).log().sum(1)
        return low.to(z), (self.inverse_off - log_det).to(z)


@pytest.mark.slow
def test_a_log_det_that_changes_within_rounding_is_not_wrong():
    """Rounding of the latent changes it by 1e-4 nats, though no condition number is above 3."""
    assert "KF203" not in findings(alone(Rippled()))
    assert "KF203" in findings(alone(Rippled(inverse_off=0.02)))


def test_log_dets_that_do_not_add_up_are_found_in_any_dimension():
    """Where no Jacobian is formed, the two directions are compared with each other."""
    flow = alone(kf.bijections.ElementwiseAffine(501), Scaled(), features=501)
    assert findings(flow, points(n=3, features=501)) == {}
    flow.bijection.bijections[1].inverse_off = 0.5
    finding = findings(flow, points(n=3, features=501))["KF203"]
    assert "log_dets of the two directions add up to" in finding.message
    assert finding.evidence["worst_nats"] == pytest.approx(0.5, rel=1e-2)


@pytest.mark.slow
def test_a_diagnosis_has_the_profile_behind_it():
    """The numbers that `profile` returns at the same rows; JSON leaves them out."""
    x = torch.cat((points(), points(1)))
    diagnosis = kf.doctor(moved(), x)
    assert diagnosis.profile.to_dict() == kf.profile(moved(), x[:64]).to_dict()
    assert "profile" not in json.loads(diagnosis.to_json())
    assert diagnosis == kf.doctor(moved(), x)


@pytest.mark.slow
def test_network_inputs_that_wait_for_a_standardization_are_noted():
    """KF401, also for the context."""
    flow = kf.real_nvp(FEATURES, depth=2, hidden=(8,), context_features=2)
    flow.bijection.bijections[0].fit(points())
    context = points(1, features=2)
    assert "embedding" in findings(flow, context=context)["KF401"].layer
    flow.bijection.embedding.fit(context)
    assert set(findings(flow, context=context)) == {"KF210"}  # which only training can change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "depth", "context", "n", "dtype"),
    [
        (1, 1, 2, 2, torch.float32),
        (1, 6, 0, 64, torch.float64),
        (2, 1, 2, 64, torch.float32),
        (2, 6, 0, 2, torch.float32),
        (5, 1, 0, 64, torch.float32),
        (5, 6, 2, 2, torch.float64),
    ],
)
def test_small_and_conditional_flows_raise_no_false_alarm(features, depth, context, n, dtype):
    """Depth 1, one feature, two rows, contexts, both dtypes: nothing above a note."""
    flow = kf.real_nvp(features, depth=depth, hidden=(16,), context_features=context).to(dtype)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    contexts = points(2, n, context).to(dtype) if context else None
    result = findings(flow, points(1, n, features).to(dtype), contexts)
    assert {finding.severity for finding in result.values()} <= {"note"}


def verdict(flow, x=None):
    """The verdict without its numbers."""
    text = kf.doctor(flow, points() if x is None else x).verdict
    return re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "#", text)


FIGURES = (
    " condition number reaches # (median #) and the reconstruction error # in standardized units, "
    "at # rows in float#."
)
MATCH = (
    "Samples match # held-out rows in all columns and pairs tested, and a classifier cannot "
    "separate them."
)
LIMITS = (
    " With # held-out rows, these tests see a line with # % of the rows, or a smooth deviation of "
    "one column by # nats. This is not a bound on the divergence: how several columns depend on "
    "each other can be off by more. Not checked: overfitting, because the training rows are not "
    "known."
)


def test_verdicts_read_as_sentences():
    """Good, with care, bad, not compared, not to be trusted, and not finite."""
    flow, generator = moved(), torch.Generator().manual_seed(0)
    own = flow.sample(64, generator=generator)
    assert verdict(flow, own) == (f"{MATCH} The flow is numerically sound: its{FIGURES}{LIMITS}")
    assert "data: there are fewer than 30 held-out rows." in kf.doctor(flow, own[:1]).verdict
    assert verdict(flow, 3 * own).startswith("Do not use this flow")
    narrow = with_layer(stretching(math.log(1e4)))
    assert verdict(narrow, narrow.sample(64, generator=generator)) == (
        "Use this flow with care. The condition number reaches #, which leaves about # "
        f"digits of a result at the worst point. There are # more warnings. {MATCH} "
        f"Its{FIGURES}{LIMITS}"
    )
    diagnosis = kf.doctor(with_layer(Scaled(log_det_sign=-1.0)), points())
    assert diagnosis.findings[0].evidence["worst_nats"] == pytest.approx(
        2 * FEATURES * math.log(2), rel=1e-3
    )
    assert diagnosis.verdict.startswith(
        "Do not trust this flow yet. The log_det of both directions differs from log|det| of the "
        "Jacobian by up to 5.5 nats."
    )
    error = dataclasses.replace(diagnosis.findings[0], message="Another.")
    warning = dataclasses.replace(error, severity="warning")
    for more, words in (
        ([error], "is 1 more error."),
        ([error, warning], "are 2 more problems."),
        ([warning] * 2, "are 2 more warnings."),
    ):
        alone = dataclasses.replace(diagnosis, findings=diagnosis.findings[:1])
        assert f"There {words}" in with_findings(alone, more).verdict
    assert verdict(spoiled(3)).startswith(
        "Do not trust this flow yet. log_prob is not finite at # of the # points."
    )


def test_columns_and_training_rows_have_the_names_and_weights_of_tables():
    """As in `two_sample`; of images, samples are not compared, and the verdict says why."""
    x = points(0, 400, 3).double().numpy()
    rows, train = (kf.load_table(part, context=["x2"]) for part in (5 + x[:200], x[200:]))
    flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    goodness = kf.doctor(flow, rows, train=train).goodness
    assert {name for entry in goodness.deviations for name in entry.columns} >= {"x0", "x2"}
    assert goodness.two_sample.gap is not None
    images = kf.Flow(kf.StandardNormal((1, 2, 2)), Map(0.5, 1.0))
    assert "only possible for rows of a table." in verdict(images, torch.randn(64, 1, 2, 2))


def test_samples_that_are_not_finite_are_findings():
    """Without rows the doctor uses the flow's own samples, whatever they are."""
    assert set(findings(alone(Broken("inverse", above=0.0)), None)) == {"KF101", "KF102"}


def compared(difference, standard_error, *, components=1, nll=4.0, fair=True):
    """A comparison with a Gaussian, or with a mixture of several."""
    kind = "Gaussian" if components == 1 else "Gaussian mixture"
    return Comparison(kind, components, False, 500, nll, nll, difference, standard_error, fair)


@pytest.mark.parametrize(
    ("difference", "standard_error", "nll", "fair", "expected"),
    [
        (1.0, 0.1, 4.0, True, [("KF501", "warning")]),
        (1.0, 0.1, 4.0, False, [("KF501", "warning")]),
        (0.02, 0.02, 4.0, True, [("KF501", "note")]),
        (0.02, 0.2, 4.0, True, [("KF505", "note")]),
        (0.02, 0.2, 4.0, False, []),
        (-1.0, 0.1, 4.0, True, []),
        (math.inf, math.nan, 4.0, True, [("KF501", "warning")]),
        (1.0, 0.1, math.nan, True, []),
    ],
)
def test_a_flow_is_compared_with_a_gaussian(difference, standard_error, nll, fair, expected):
    """Worse by two standard errors of the paired difference, not better, or not known."""
    comparison = compared(difference, standard_error, nll=nll, fair=fair)
    reported = comparison_findings([comparison])
    assert [(finding.code, finding.severity) for finding in reported] == expected


def test_a_flow_better_than_a_gaussian_and_worse_than_a_mixture_is_found():
    """KF504 names the mixture; a mixture of one component is the Gaussian and not named twice."""
    gaussian = compared(-1.0, 0.1)
    (finding,) = comparison_findings([gaussian, compared(0.5, 0.1, components=4)])
    assert finding.code == "KF504" and finding.message == (
        "On 500 held-out rows the flow is 0.50 ± 0.10 nats per row worse than a Gaussian mixture "
        "(4 components)."
    )
    same = Comparison("Gaussian mixture", 1, False, 500, 4.0, 4.0, 1.0, 0.1)
    assert [finding.code for finding in comparison_findings([compared(1.0, 0.1), same])] == [
        "KF501"
    ]


def test_few_rows_leave_the_likelihood_uncertain():
    """KF505, where the flow is better than both but the mean of few rows is uncertain."""
    better = [compared(-1.0, 0.1)]
    (finding,) = comparison_findings(better, standard_error=0.4, rows=20)
    assert finding.code == "KF505" and "too few held-out rows (20)" in finding.message
    assert not list(comparison_findings(better, standard_error=0.1, rows=20))
    assert not list(comparison_findings(better, standard_error=0.4, rows=2000))


@pytest.mark.slow
def test_a_finding_from_elsewhere_changes_the_verdict():
    """The verdict follows from all findings, the most severe first."""
    flow = moved()
    diagnosis = kf.doctor(flow, flow.sample(64, generator=torch.Generator().manual_seed(0)))
    more = with_findings(diagnosis, comparison_findings([compared(1.0, 0.1)]))
    assert more.verdict.startswith("Use this flow with care. On 500 held-out rows")
    assert (diagnosis.level, more.level) == ("good", "care") and "KF501" in codes(more)
    order = [("error", "warning", "note").index(finding.severity) for finding in more.findings]
    assert order == sorted(order) and more.profile is diagnosis.profile
