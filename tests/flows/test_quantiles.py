"""Distribution functions and quantiles of flows of one column, against closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from tests.goodness.exact_flows import Map, draws, normal

import kappaflow as kf
from kappaflow.bijections import Domain, ElementwiseAffine
from kappaflow.errors import ArgumentError
from kappaflow.flows import NormalMixture, StudentT, UniformBox
from kappaflow.testing.contract import jittered

LEVELS = [1e-6, 0.01, 0.2, 0.5, 0.77, 0.999]
SMALL = {"depth": 2, "hidden": (8,)}


def mixture():
    """Returns a base of two normals of one column, and the same two for scipy."""
    base = NormalMixture(1, components=2)
    with torch.no_grad():
        base.logits.copy_(torch.tensor([0.3, 0.7]).log())
        base.means.copy_(torch.tensor([[-2.0], [1.5]]))
        base.factors.copy_(-torch.tensor([0.5, 2.0]).log()[:, None, None])
    return base


class TwoNormals:
    """The distribution of `mixture` by scipy, with quantiles by a search."""

    def cdf(self, x):
        """Returns the sum of both."""
        return 0.3 * stats.norm.cdf(x, -2, 0.5) + 0.7 * stats.norm.cdf(x, 1.5, 2)


BASES = {
    "standard normal": (lambda: kf.StandardNormal(1), stats.norm),
    "normal": (lambda: jittered(kf.flows.DiagonalNormal(1)), None),
    "student": (lambda: StudentT(1, degrees=2.5), stats.t(2.5)),
    "box": (lambda: UniformBox(1, low=-2.0, high=3.0), stats.uniform(-2, 5)),
    "mixture": (mixture, TwoNormals()),
}


@pytest.mark.parametrize("slope", [2.0, -0.5])
@pytest.mark.parametrize("name", BASES)
def test_each_base_has_the_distribution_function_of_scipy(name, slope):
    """After an increasing or a decreasing map x = 1 + slope z; quantiles are the inverse."""
    make, reference = BASES[name]
    base = make().double()
    if name == "normal":
        reference = stats.norm(base.loc.item(), base.log_scale.exp().item())
    flow = kf.Flow(base, Map(1.0, slope)).double()
    z = torch.linspace(-1.9, 2.9, 9, dtype=torch.float64)[:, None]
    expected = reference.cdf(z[:, 0].numpy())
    if slope < 0:
        expected = 1 - expected
    np.testing.assert_allclose(kf.cdf(flow, 1 + slope * z), expected, rtol=1e-7)
    values = kf.quantile(flow, LEVELS)
    np.testing.assert_allclose(kf.cdf(flow, values[:, None]), LEVELS, rtol=1e-7)
    assert (values.diff() > 0).all()


def test_quantiles_far_in_a_tail_are_those_of_scipy():
    """Where one minus a level rounds to one."""
    for base, reference in ((kf.StandardNormal(1), stats.norm), (StudentT(1), stats.t(10))):
        flow = kf.Flow(base, Map(0.0, 1.0)).double()
        q = [1e-30, 1e-12, 1 - 1e-12]
        np.testing.assert_allclose(kf.quantile(flow, q), reference.ppf(q), rtol=1e-5)
    above = 1 - kf.cdf(normal(), torch.tensor([[7.0]])).item()  # of a flow in float32
    assert above == pytest.approx(stats.norm.sf(7.0), rel=1e-3)


def test_outside_of_a_box_nothing_is_added():
    flow = kf.Flow(UniformBox(1, low=-2.0, high=3.0), Map(0.0, 1.0))
    assert kf.cdf(flow, torch.tensor([[-2.5], [3.5]])).tolist() == [0.0, 1.0]


def test_a_distribution_function_of_a_base_is_that_of_each_coordinate():
    """Of normals with a correlation, the marginal ones."""
    base = NormalMixture(2, components=1).double()
    lower = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    with torch.no_grad():
        base.factors.copy_(lower.tril(-1) + torch.diag(lower.diagonal().log()))
    deviation = torch.linalg.inv(lower.T @ lower).diagonal().sqrt()
    z = draws(0, 5, 2).double()
    expected = stats.norm.cdf(((z - base.means.detach()) / deviation).numpy())
    np.testing.assert_allclose(base.cdf(z).detach(), expected, rtol=1e-12)


def conditional(recipe, **options):
    """Returns a flow of one column given two, off its start, in float64."""
    return jittered(recipe(1, context_features=2, **SMALL, **options), seed=2).double()


def mirrored():
    """Returns a flow that increases at contexts above 0, and decreases at the others."""
    return normal(1, lambda c: 3 * c[:, :1], lambda c: c[:, :1].sign() * (1 + c[:, 1:] ** 2), 2)


FLOWS = {
    "spline": partial(conditional, kf.spline),
    "autoregressive": partial(conditional, kf.autoregressive),
    "real_nvp": partial(conditional, kf.real_nvp),
    "nice": partial(conditional, kf.nice),
    "positive": partial(conditional, kf.spline, bounds=["positive"]),
    "negative": partial(conditional, kf.spline, bounds=[",5"]),
    "bounded": partial(conditional, kf.autoregressive, bounds=[(0, 1)]),
    "decreasing at some contexts": lambda: mirrored().double(),
    "class": lambda: kf.Flow(
        jittered(kf.flows.ClassConditionalNormal(1, classes=2)), ElementwiseAffine(1)
    ).double(),
}


@pytest.mark.parametrize("name", FLOWS)
def test_quantiles_of_flows_are_inverse_increase_and_have_the_density_as_their_slope(name):
    """At each of several contexts, in float64; F' by central differences."""
    flow, context = FLOWS[name](), draws(1, 7, 2).double()
    q = torch.tensor([0.003, 0.1, 0.5, 0.6, 0.98], dtype=torch.float64)
    values = kf.quantile(flow, q, context)
    assert values.shape == (7, 5) and (values.diff() > 0).all()
    x = values.T[..., None]
    torch.testing.assert_close(
        kf.cdf(flow, x, context), q[:, None].expand(5, 7), rtol=0, atol=1e-9
    )
    density = flow.log_prob(x, context).exp().detach()
    step = (1e-4 * q[:, None] * (1 - q[:, None]) / density)[..., None]
    slope = (kf.cdf(flow, x + step, context) - kf.cdf(flow, x - step, context)) / (
        2 * step[..., 0]
    )
    torch.testing.assert_close(slope, density, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", FLOWS)
def test_quantiles_are_inverse_in_float32(name):
    """To 1e-5, and to what a value moves by rounding."""
    flow, context = FLOWS[name]().float(), draws(1, 7, 2)
    values = kf.quantile(flow, LEVELS[1:], context)
    assert values.dtype == torch.float32
    q = torch.tensor(LEVELS[1:], dtype=torch.float64).expand(7, 5)
    x = values[..., None]
    errors = (kf.cdf(flow, x, context[:, None]) - q).abs()
    rounding = 1e-6 * values.abs() * flow.log_prob(x, context[:, None]).exp()
    assert (errors <= 1e-5 + rounding).all()


def test_quantiles_are_those_of_samples():
    """Of a spline, at two contexts."""
    flow, context = FLOWS["spline"](), draws(3, 2, 2).double()
    samples = flow.sample(40_000, context, generator=torch.Generator().manual_seed(0))[..., 0]
    values = kf.quantile(flow, [0.1, 0.5, 0.9], context)
    shares = (samples[:, :, None] < values).double().mean(0)
    np.testing.assert_allclose(shares, np.tile([0.1, 0.5, 0.9], (2, 1)), atol=0.01)


def test_bounded_columns_have_their_closed_forms():
    """A log-normal, and values outside of the domain or that are not a number."""
    flow = kf.Flow(kf.StandardNormal(1), kf.Chain([Domain(["positive"]), Map(0.5, 2.0)])).double()
    x = torch.tensor([-1.0, 0.0, 0.1, 3.0, torch.inf, torch.nan], dtype=torch.float64)
    expected = stats.lognorm.cdf(x.numpy(), 2.0, scale=np.exp(0.5))
    np.testing.assert_allclose(kf.cdf(flow, x[:, None]), expected, rtol=1e-12)
    expected = stats.lognorm.ppf(LEVELS, 2.0, scale=np.exp(0.5))
    np.testing.assert_allclose(kf.quantile(flow, LEVELS), expected, rtol=1e-8)


def test_shapes_are_those_of_the_context_and_of_the_levels():
    """One level or several, with and without a context, and x that broadcasts."""
    flow, context = FLOWS["spline"](), draws(0, 4, 3, 2)
    assert kf.quantile(flow, 0.5, context).shape == (4, 3)
    assert kf.quantile(flow, [0.5], context).shape == (4, 3, 1)
    assert kf.quantile(flow, 0.5, context[0, 0]).shape == ()
    assert kf.interval(flow, 0.8, context).shape == (4, 3, 2)
    assert kf.cdf(flow, torch.zeros(5, 1, 1, 1), context).shape == (5, 4, 3)
    assert kf.quantile(flow, 0.5, context[:0]).shape == (0, 3)
    assert kf.quantile(normal(), 0.5).shape == () and kf.quantile(normal(), [0.5]).shape == (1,)
    assert torch.equal(kf.interval(normal(), 0.8), kf.quantile(normal(), [0.1, 0.9]))


def test_frames_select_columns_and_dropout_is_off():
    """As in `log_prob`; the mode of the flow is restored."""
    flow = conditional(kf.spline, network={"dropout": 0.5}).train()
    flow.columns, flow.context_columns = ("y",), ("a", "b")
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"b": [0.5, 1.0], "y": [0.25, 0.5], "a": [0.0, -1.0]})
    x, context = torch.tensor([[0.25], [0.5]]), torch.tensor([[0.0, 0.5], [-1.0, 1.0]])
    assert torch.equal(kf.cdf(flow, frame), kf.cdf(flow, x, context))
    assert torch.equal(kf.quantile(flow, 0.3, frame), kf.quantile(flow, 0.3, context))
    assert flow.training and not kf.cdf(flow, x, context).requires_grad


class Own(kf.flows.Base):
    """A base without a distribution function."""

    event_shape = (1,)

    def log_prob(self, z, context=None):
        return z.sum(1)

    def sample(self, n, *, context=None, dtype=torch.float32, device=None, generator=None):
        return torch.zeros(n, 1, dtype=dtype, device=device)


CIRCLE = kf.spline(1, context_features=2, bounds=["circular"], **SMALL)


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [
        (kf.real_nvp(3, **SMALL), r"model one column, got events of shape \(3,\)"),
        (kf.real_nvp(1, padding=1, **SMALL), "no padding and no dequantization, got one with Pad"),
        (CIRCLE, "should not model a circular column"),
        (kf.Flow(Own(), kf.Chain([])), r"a method cdf\(z, context\), got Own without one"),
        (stats.norm, "should be a Flow, got norm_gen: kappaflow.convert"),
    ],
)
def test_flows_without_a_distribution_function_are_refused_in_one_sentence(flow, sentence):
    for call in (lambda: kf.cdf(flow, torch.zeros(2, 1)), lambda: kf.quantile(flow, 0.5)):
        with pytest.raises(ArgumentError, match=sentence):
            call()


@pytest.mark.parametrize("q", [0.0, 1, -0.5, [0.5, float("nan")], [[0.5]], "half", None])
def test_other_levels_are_refused(q):
    with pytest.raises(ArgumentError, match="'q' should be one or more numbers between 0 and 1"):
        kf.quantile(normal(), q)
    with pytest.raises(ArgumentError, match="'coverage' should be a number between 0 and 1"):
        kf.interval(normal(), q)


def test_contexts_that_do_not_fit_are_refused_as_by_log_prob():
    flow = FLOWS["spline"]()
    for call in (lambda c: kf.cdf(flow, torch.zeros(2, 1), c), partial(kf.quantile, flow, 0.5)):
        with pytest.raises(ArgumentError, match="'context' should be given, with 2 columns"):
            call(None)
        with pytest.raises(ArgumentError, match=r"'context' should have shape \(\.\.\., 2\)"):
            call(torch.zeros(2, 3))
