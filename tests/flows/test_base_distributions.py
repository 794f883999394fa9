"""Base distributions to take, and sentences about mistakes in one of your own."""

import pytest
import torch
from torch.distributions import Independent, Normal, StudentT

import kappaflow as kf
from cases import public_classes
from kappaflow.errors import ArgumentError
from kappaflow.flows import Base
from kappaflow.testing import check_base
from kappaflow.testing.contract import jittered


def fitted_mixture():
    base = kf.flows.NormalMixture(2, components=2)
    generator = torch.Generator().manual_seed(0)
    side = 4.0 * torch.randint(0, 2, (500, 1), generator=generator)
    base.fit(side + torch.randn(500, 2, generator=generator))
    return base


BASES = {
    "standard normal": (lambda: kf.StandardNormal(2), 0),
    "mixture": (fitted_mixture, 0),
    "diagonal normal of images": (lambda: jittered(kf.flows.DiagonalNormal((1, 2, 2))), 0),
    "classes": (lambda: jittered(kf.flows.ClassConditionalNormal(2, classes=3)), 3),
    "student": (lambda: jittered(kf.flows.StudentT(2, degrees=2.0)), 0),
    "box": (lambda: kf.flows.UniformBox(2, low=[0.5, -2], high=3), 0),
}


@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", BASES)
def test_every_base_keeps_the_contract(name, dtype):
    """Its density integrates to 1, and its samples follow it."""
    make, classes = BASES[name]
    check_base(make().to(dtype), torch.eye(classes, dtype=dtype) if classes else None)


def test_every_exported_base_has_a_case():
    """A base that is exported cannot be left out of the contract."""
    tested = {type(make()) for make, _ in BASES.values()}
    assert public_classes(Base) - {Base} == tested


def test_log_probs_are_those_of_torch_distributions():
    z, classes = torch.randn(6, 3).double(), torch.arange(6) % 2
    normal = jittered(kf.flows.DiagonalNormal(3)).double()
    student = jittered(kf.flows.StudentT(3, degrees=3.0)).double()
    each = jittered(kf.flows.ClassConditionalNormal(3, classes=2)).double()
    loc, scale = each.loc[classes], each.log_scale[classes].exp()
    for actual, expected in (
        (normal.log_prob(z), Normal(normal.loc, normal.log_scale.exp())),
        (student.log_prob(z), StudentT(student.degrees)),
        (each.log_prob(z, torch.eye(2)[classes].double()), Normal(loc, scale)),
    ):
        torch.testing.assert_close(actual, Independent(expected, 1).log_prob(z))


def test_many_degrees_of_freedom_are_a_normal_in_float32():
    """Differences of lgamma would cancel: 0.4 nats at a million degrees."""
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    base = kf.flows.StudentT(2, degrees=1e6)
    torch.testing.assert_close(
        base.log_prob(z), kf.StandardNormal(2).log_prob(z), rtol=0, atol=1e-4
    )


def class_flow():
    """Returns a flow whose bijection reads no context, on a base that reads the class."""
    bijection = kf.real_nvp(2, depth=2, hidden=(8,)).bijection
    return kf.Flow(kf.flows.ClassConditionalNormal(2, classes=2), bijection)


def test_a_base_alone_may_read_the_context(tmp_path):
    """Such a flow is trained, sampled, stored and resumed as any conditional flow."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.eye(2)[torch.randint(0, 2, (400,), generator=generator)]
    x = torch.randn(400, 2, generator=generator) + 5 * classes[:, :1] * torch.eye(2)[0]
    flow = class_flow()
    assert flow.context_features == 2
    with pytest.raises(ArgumentError, match="'context' should be given, with 2 columns"):
        flow.sample(3)
    out = tmp_path / "run"
    result = kf.fit(flow, (x, classes), max_epochs=20, learning_rate=0.05, progress=False, out=out)
    samples = flow.sample(300, torch.eye(2), generator=generator)
    assert samples.shape == (300, 2, 2)
    difference = (samples[:, 0] - samples[:, 1]).mean(0)
    assert 3 < difference[0] < 7 and abs(difference[1]) < 1
    torch.testing.assert_close(kf.load(out).log_prob(x, classes), flow.log_prob(x, classes))
    modes = flow.sample(5, torch.eye(2), temperature=0.0)
    assert torch.equal(modes[0], modes[1])
    assert kf.fit(class_flow(), (x, classes), max_epochs=20, learning_rate=0.05, out=out).history
    assert result.flow is flow


class Logistic(Base):
    """A correct base of one's own, which mistakes below change."""

    def __init__(self, features=2):
        super().__init__()
        self.event_shape = (features,)

    def log_prob(self, z, context=None):
        return -(z.abs() + 2 * torch.nn.functional.softplus(-z.abs())).sum(1)

    def sample(self, n, *, context=None, dtype=torch.float32, device=None, generator=None):
        u = torch.rand(n, *self.event_shape, generator=generator, dtype=torch.float64)
        return u.clamp(1e-12, 1 - 1e-12).logit().to(dtype=dtype, device=device)


class NoShape(Logistic):
    """Has no event shape."""

    def __init__(self):
        super().__init__()
        del self.event_shape


class NoContext(Logistic):
    """Its log_prob takes no context."""

    def log_prob(self, z):
        return z.sum(1)


class OtherWidth(Logistic):
    """Reads a context of another width than the bijection."""

    context_features = 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (NoContext, r"have a method log_prob\(z, context\), got NoContext.log_prob\(z\)."),
        (NoShape, r"an event_shape such as \(2,\), got None from NoShape: set it in __init__."),
        (OtherWidth, "read a context of 2 columns, as the bijection does, got OtherWidth with 3"),
        (lambda: Normal(0.0, 1.0), "should be a Base, got Normal: derive its class from"),
    ],
)
def test_a_base_of_the_wrong_form_is_refused_in_one_sentence(make, sentence):
    bijection = kf.real_nvp(2, depth=2, hidden=(4,), context_features=2).bijection
    with pytest.raises(ArgumentError, match=sentence):
        kf.Flow(make(), bijection)


class PerFeature(Logistic):
    """Its log_prob has one number for each feature."""

    def log_prob(self, z, context=None):
        return -z.abs()


class OtherDtype(Logistic):
    """Samples in float32 only."""

    def sample(self, n, **named):
        return super().sample(n, **named).float()


def test_results_of_the_wrong_form_are_refused_in_one_sentence():
    """With as many rows as features, log_probs per feature would be added up wrongly."""
    flow = kf.Flow(PerFeature(), kf.Chain([]))
    with pytest.raises(ArgumentError, match=r"log_prob of PerFeature should have shape \(2,\)"):
        flow.log_prob(torch.zeros(2, 2))
    bijection = kf.Chain([kf.bijections.ElementwiseAffine(2)])
    double = kf.Flow(OtherDtype(), bijection).double()
    with pytest.raises(ArgumentError, match="sample of OtherDtype .* got .*float32"):
        double.sample(3)


def test_a_box_is_uniform_inside_and_empty_outside():
    box = kf.flows.UniformBox(2, low=[0.0, -1.0], high=2.0)
    z = torch.tensor([[0.0, -1.0], [2.0, 2.0], [1.0, 2.1], [-0.1, 0.0]])
    log_prob = -torch.tensor(6.0).log()
    expected = torch.tensor([log_prob, log_prob, -torch.inf, -torch.inf])
    torch.testing.assert_close(box.log_prob(z), expected)


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError, match="'high' should be above 'low'"):
        kf.flows.UniformBox(2, low=1.0, high=[2.0, 1.0])
    with pytest.raises(ArgumentError, match="'degrees' should be above 1"):
        kf.flows.StudentT(2, degrees=1.0)
    with pytest.raises(ArgumentError, match=r"one-hot classes of shape \(B, 3\), got none"):
        kf.flows.ClassConditionalNormal(2, classes=3).log_prob(torch.zeros(1, 2))
