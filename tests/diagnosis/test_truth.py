"""The truth table of the doctor: planted defects are found, healthy flows are not accused."""

import runpy
from pathlib import Path

import pytest
import torch

import kappaflow as kf
from diagnosis import healthy, truth
from diagnosis.faulty import doctor

QUICK = {"uniform base", "inverted transform", "heavy tails", "mixture"}
pytestmark = pytest.mark.filterwarnings("ignore")


def outcome(case):
    """Returns what the doctor found: the code, the layer, and whether both are right."""
    results = doctor(case.flow, case.x, make=case.make).findings
    right = [finding for finding in results if finding.code == case.code]
    if case.layer is not None:
        right = [finding for finding in right if case.layer in (finding.layer or "")]
    return right, {(finding.code, finding.layer) for finding in results}


@pytest.mark.slow
@pytest.mark.parametrize("source", truth.SOURCES)
def test_each_planted_defect_is_found(source):
    """With its code, in flows of each library."""
    missed = []
    for kind in [kind for kind in truth.KINDS if (kind, source) not in truth.SKIPPED]:
        case = truth.planted(kind, source)
        right, reported = outcome(case)
        if not right:
            missed.append((case.name, case.code, reported))
    assert not missed


@pytest.mark.parametrize("library", truth.LIBRARIES)
def test_the_layer_with_a_wrong_log_det_is_named(library):
    """Although the whole flow is what fails."""
    (right, *others), _ = outcome(truth.in_a_layer(library))
    assert not others and right.severity == "error"


@pytest.mark.slow
@pytest.mark.parametrize("library", truth.LIBRARIES)
def test_each_defect_of_a_layer_is_found_in_that_layer(library):
    """With its code."""
    cases = [truth.in_a_layer(library, kind) for kind in truth.IN_A_LAYER]
    assert [(case.name, outcome(case)[1]) for case in cases if not outcome(case)[0]] == []


def test_the_page_of_the_truth_table_has_each_flow():
    """As `python docs/doctor_truth.py` measured them."""
    page = runpy.run_path(str(Path(__file__).parents[2] / "docs/doctor_truth.py"))
    text = page["truth_page"]()
    assert all(f"| {(kind.__doc__ or '').strip().rstrip('.')} |" in text for kind in truth.KINDS)


class Forgetful(kf.bijections.InvertibleConv1x1):
    """Forgets that the same matrix acts at each pixel, in both directions."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x)
        return z, log_det / x[0, 0].numel()

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z)
        return x, log_det / z[0, 0].numel()


@pytest.mark.parametrize(("size", "moved"), [(8, True), (16, True), (16, False)])
def test_a_consistent_error_is_found_in_any_dimension(size, moved):
    """Also in a new flow, whose rotation has no volume to forget: a warning."""
    torch.manual_seed(0)
    layer = Forgetful(3)
    if moved:
        for parameter in layer.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    flow = kf.Flow(kf.StandardNormal((3, size, size)), kf.Chain([layer]))
    by_code = {
        finding.code: finding for finding in doctor(flow, torch.randn(4, 3, size, size)).findings
    }
    assert by_code["KF203"].layer == "1 Forgetful"
    assert by_code["KF203"].severity == ("error" if moved else "warning")
    right = kf.Flow(flow.base, kf.Chain([kf.bijections.InvertibleConv1x1(3)]))
    assert "KF203" not in {finding.code for finding in doctor(right).findings}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in healthy.HEALTHY
    ],
)
def test_a_healthy_flow_has_no_finding_above_a_note(name):
    """Trained or not, on images, conditional, of any library, with any base."""
    flow, x, context = healthy.healthy(name)
    results = doctor(flow, x, context).findings
    assert [finding for finding in results if finding.severity != "note"] == []


@pytest.mark.slow
def test_a_solver_is_as_exact_as_its_tolerance():
    """Neither its log_det nor its gradient is wrong."""
    flow = pytest.importorskip("zuko").flows.CNF(3, hidden_features=(8,))
    with torch.no_grad():
        x = flow().sample((64,))
    assert [finding for finding in doctor(flow, x).findings if finding.severity != "note"] == []


def test_one_log_det_for_each_feature_is_not_one_for_each_row():
    """As many rows as features once gave a silent wrong number."""
    pyro = pytest.importorskip("pyro")
    from pyro.distributions.transforms import BatchNorm

    norm = BatchNorm(4)
    norm.gamma.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    norm.moving_variance.copy_(torch.tensor([1.0, 0.5, 2.0, 0.1]))
    norm.eval()
    base = pyro.distributions.Normal(torch.zeros(4), 1.0).to_event(1)
    flow = pyro.distributions.TransformedDistribution(base, [norm])
    x = torch.randn(4, 4)
    wrapped = kf.wrap(flow, x)
    expected = torch.linalg.slogdet(
        torch.autograd.functional.jacobian(lambda row: norm.inv(row[None])[0], x[0])
    )[1]
    torch.testing.assert_close(wrapped.bijection(x)[1], expected.expand(4))
    torch.testing.assert_close(wrapped.log_prob(x), flow.log_prob(x))
