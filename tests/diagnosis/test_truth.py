"""The truth table of the doctor: planted defects are found, healthy flows are not accused."""

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    StudentT,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import AffineTransform, SigmoidTransform

import kappaflow as kf
from diagnosis import truth
from interop import foreign

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@pytest.mark.parametrize("source", truth.SOURCES)
def test_each_planted_defect_is_found(source):
    """With its code, in flows of each library."""
    missed = []
    for kind in truth.KINDS:
        case = truth.planted(kind, source)
        found = {one.code for one in kf.doctor(case.flow, case.x).findings}
        if case.code not in found:
            missed.append((case.name, case.code, found))
    assert not missed


@pytest.mark.parametrize("library", truth.LIBRARIES)
def test_the_layer_with_a_wrong_log_det_is_named(library):
    """Although the whole flow is what fails."""
    flow = truth.in_a_layer(library)
    found = kf.doctor(flow, truth.rows(kf.wrap(flow, torch.zeros(2, 4)), 64)).findings
    (wrong,) = [one for one in found if one.code == "KF203"]
    assert wrong.layer.split()[1].startswith("Wrong") and wrong.severity == "error"


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
    found = {one.code: one for one in kf.doctor(flow, torch.randn(4, 3, size, size)).findings}
    assert found["KF203"].layer == "1 Forgetful"
    assert found["KF203"].severity == ("error" if moved else "warning")
    right = kf.Flow(flow.base, kf.Chain([kf.bijections.InvertibleConv1x1(3)]))
    assert "KF203" not in {one.code for one in kf.doctor(right).findings}


def bounded(base, *transforms):
    """A distribution with a base of three features."""
    return TransformedDistribution(Independent(base, 1), list(transforms))


def mixture():
    """A base with two modes, whose coordinates depend on each other."""
    modes = Independent(Normal(torch.tensor([[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]]), 1.0), 1)
    both = MixtureSameFamily(Categorical(torch.ones(2)), modes)
    return TransformedDistribution(both, [AffineTransform(1.0, 2.0)])


HEALTHY = {
    "uniform base": lambda: bounded(Uniform(torch.zeros(3), 1.0), AffineTransform(1.0, 2.0)),
    "inverted transform": lambda: bounded(Uniform(torch.zeros(3), 1.0), SigmoidTransform().inv),
    "heavy tails": lambda: bounded(StudentT(torch.full((3,), 5.0)), AffineTransform(1.0, 2.0)),
    "mixture": mixture,
    "circles": lambda: foreign.zuko_flow("NCSF").float(),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.slow if one == "circles" else ()) for one in HEALTHY],
)
def test_other_bases_are_not_accused(name):
    """Bounded ones, and such as have no independent coordinates."""
    torch.manual_seed(0)
    flow = HEALTHY[name]()
    with torch.no_grad():
        x = flow.sample((128,)) if name != "circles" else flow().sample((128,))
    assert [one for one in kf.doctor(flow, x).findings if one.severity != "note"] == []


@pytest.mark.slow
def test_a_solver_is_as_exact_as_its_tolerance():
    """Neither its log_det nor its gradient is wrong."""
    flow = pytest.importorskip("zuko").flows.CNF(3, hidden_features=(8,))
    with torch.no_grad():
        x = flow().sample((64,))
    assert [one for one in kf.doctor(flow, x).findings if one.severity != "note"] == []


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
        torch.autograd.functional.jacobian(lambda one: norm.inv(one[None])[0], x[0])
    )[1]
    torch.testing.assert_close(wrapped.bijection(x)[1], expected.expand(4))
    torch.testing.assert_close(wrapped.log_prob(x), flow.log_prob(x))
