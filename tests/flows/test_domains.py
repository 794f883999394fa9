"""Flows of columns with a domain: densities on it and next to it, the seam, distributions."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution

import kappaflow as kf
from kappaflow.errors import DataWarning
from kappaflow.flows import set_bounds
from kappaflow.testing.contract import jittered
from kappaflow.testing.flows import check_far_latents

BOUNDS = ["circular", "positive", (0, 1), None]
RECIPES = {"spline": kf.spline, "real_nvp": kf.real_nvp, "nice": kf.nice}


def flow_of(recipe=kf.spline, bounds=BOUNDS, **arguments):
    """A flow off its start, in float64; a circle is an interval without splines."""
    if recipe is not kf.spline:
        bounds = [(-math.pi, math.pi) if bound == "circular" else bound for bound in bounds]
    arguments = {"depth": 4, "hidden": (8,), **arguments}
    torch.manual_seed(0)
    flow = recipe(len(bounds), bounds=bounds, **arguments)
    if bounds == BOUNDS:
        angle, share = torch.rand(400, 1) - 0.5, torch.rand(400, 1)
        flow.standardization.fit(torch.cat([angle, share.exp(), share, torch.randn(400, 1)], 1))
    return jittered(flow, seed=1).double().eval()


@pytest.mark.parametrize("recipe", RECIPES)
def test_outside_of_the_domain_the_density_is_zero(recipe):
    """Beyond an end and on it log_prob is -inf, without a nan in value or gradient."""
    flow = flow_of(RECIPES[recipe])
    inside = [1.0, 2.0, 0.5, 0.0]
    x = torch.tensor([inside] * 7, dtype=torch.float64)
    x[1, 0], x[2, 1], x[3, 1], x[4, 2], x[5, 2] = 3.2, 0.0, -1.0, 1.0, 1.5
    x[6, 3] = float("nan")
    x.requires_grad_()
    with pytest.warns(DataWarning, match="1 of 7 rows hold NaN"):
        log_prob = flow.log_prob(x)
    assert torch.isneginf(log_prob).tolist() == [False] + [True] * 5 + [False]
    assert log_prob[6].isnan() and log_prob[0].isfinite()
    log_prob[:6].sum().backward()
    assert x.grad[:6].isfinite().all() and not x.grad[1:6].any() and x.grad[0].any()


def test_an_end_of_a_circle_that_float32_rounds_outward_is_on_it():
    """Pi in float32 is above pi."""
    flow = kf.spline(2, depth=2, hidden=(8,), bounds=["circular", None])
    assert flow.log_prob(torch.tensor([[math.pi, 0.0], [-math.pi, 0.0]])).isfinite().all()


OPTIONS = [
    *({"start": start} for start in ("identity", "whiten", "gaussianize", "whiten-gaussianize")),
    *({"couplings": {"mixing": mixing}} for mixing in ("plain", "lu", "qr", "svd", "orthogonal")),
    {"start": "whiten-gaussianize", "couplings": {"mixing": "lu"}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_splines_on_a_circle_have_no_seam(options):
    """Density and its slope are the same from both sides of every seam; of an interval, not."""
    step, other = 1e-6, [[1.5, 0.3, 0.2], [0.2, 0.9, -1.0]]
    ends = [-math.pi, -math.pi + step, math.pi - step, math.pi]
    x = torch.tensor([[end, *rest] for rest in other for end in ends], dtype=torch.float64)
    log_p = flow_of(kf.spline, **options).log_prob(x).reshape(2, 4)
    assert (log_p[:, 0] - log_p[:, 3]).abs().max() < 1e-9
    slopes = (log_p[:, 1] - log_p[:, 0]) / step, (log_p[:, 3] - log_p[:, 2]) / step
    assert (slopes[0] - slopes[1]).abs().max() < 1e-3
    assert slopes[0].abs().max() > 0.01  # there is something to be continuous
    cut = flow_of(kf.real_nvp).log_prob(x).reshape(2, 4)
    assert (cut[:, 1] - cut[:, 2]).abs().max() > 0.01


def test_the_density_on_a_circle_integrates_to_one():
    """By sums over the circle and over the share, whose normal quantiles are evenly spaced."""
    flow = flow_of(kf.spline, ["circular", (0, 1)], depth=6)
    angle = torch.linspace(-math.pi, math.pi, 161, dtype=torch.float64)[:-1]
    t = torch.linspace(-7, 7, 141, dtype=torch.float64)
    x = torch.cartesian_prod(angle, torch.special.ndtr(t))
    widths = torch.exp(-0.5 * t**2) / math.sqrt(2 * math.pi) * 0.1 * (2 * math.pi / 160)
    with torch.no_grad():
        total = (flow.log_prob(x).exp().reshape(160, 141) * widths).sum().item()
    assert total == pytest.approx(1.0, abs=2e-3)


def test_a_distribution_knows_its_support():
    """And a transform its codomain: torch's own classes work with them."""
    flow = flow_of(kf.real_nvp, ["positive", (0, 1), None, ",5", "2,"])
    density, transform = flow.as_distribution(), flow.as_transform()
    inside = torch.tensor([1.0, 0.5, 0.0, 4.0, 3.0], dtype=torch.float64)
    assert density.support.event_dim == 1
    for column, value in ((0, -1.0), (1, 1.5), (3, 6.0), (4, 1.0)):
        outside = inside.clone()
        outside[column] = value
        both = density.support.check(torch.stack([inside, outside]))
        assert both.reshape(2, -1).all(1).tolist() == [True, False]
    assert transform.codomain.check(inside).all()
    zeros, ones = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    other = TransformedDistribution(Independent(Normal(zeros, ones), 1), [transform])
    x = density.sample((6,))
    torch.testing.assert_close(other.log_prob(x), density.log_prob(x))
    plain = kf.real_nvp(2, depth=2, hidden=(8,)).as_distribution()
    assert str(plain.support) == "IndependentConstraint(Real(), 1)"


def test_padding_stands_behind_columns_with_a_domain():
    """A circle alone is read by way of its padding; bounds on log_prob are bounds still."""
    flow = flow_of(kf.spline, ["circular"], padding=1)
    x = flow.sample(100, generator=torch.Generator().manual_seed(0))
    assert x.shape == (100, 1) and not (x.abs() > math.pi).any()
    assert flow.log_prob(x).isfinite().all()
    assert torch.isneginf(flow.log_prob(torch.full((1, 1), 4.0, dtype=torch.float64))).all()


def test_bounds_are_given_to_a_flow_in_place_once():
    """It becomes what its recipe makes; a second time nothing happens, others are refused."""
    flow = kf.spline(2, depth=2, hidden=(8,)).double()
    set_bounds(flow, ["circular", (0, 1)], seed=3)
    torch.manual_seed(3)
    same = kf.spline(2, depth=2, hidden=(8,), bounds=["circular", (0, 1)]).double()
    state = flow.state_dict()
    assert all(torch.equal(state[name], value) for name, value in same.state_dict().items())
    assert flow.dtype == torch.float64
    set_bounds(flow, ["circular", "0,1"])
    assert all(torch.equal(state[name], value) for name, value in flow.state_dict().items())
    with pytest.raises(kf.errors.ArgumentError, match="the flow already has other"):
        set_bounds(flow, ["circular", None])
    by_hand = kf.Flow(kf.StandardNormal(2), kf.bijections.Permutation((1, 0)))
    with pytest.raises(kf.errors.ArgumentError, match=r"kappaflow.bijections.Domain before"):
        set_bounds(by_hand, ["positive", None])


@pytest.mark.parametrize("recipe", [kf.real_nvp, kf.nice, kf.planar, kf.invertible_network])
def test_models_that_would_cut_a_circle_refuse_it(recipe):
    """The error names the model that keeps circles, also where bounds are set later."""
    with pytest.raises(kf.errors.ArgumentError, match="for feature 1: .* Use the model 'spline'"):
        recipe(2, bounds=[None, "circular"])
    with pytest.raises(kf.errors.ArgumentError, match="Use the model 'spline'"):
        set_bounds(recipe(2), ["circular", None])


def test_points_outside_are_not_measured():
    """They have no latent: one sentence names the row."""
    flow = flow_of()
    flow.columns = ("angle", "mass", "share", "other")
    x = torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.0, -1.0, 0.5, 0.0]], dtype=torch.float64)
    for measure in (kf.doctor, kf.profile, kf.round_trip):
        with pytest.raises(
            kf.errors.ArgumentError, match=r"'x' should lie in .*mass above 0.*: row 1 does"
        ):
            measure(flow, x)


def test_conditioning_is_that_of_standardized_columns():
    """The profile is the same in any units of the ends: they are changes of units."""
    x = torch.tensor([[0.3], [0.9], [0.5]], dtype=torch.float64).repeat(1, 2)
    profiles = [
        kf.profile(flow_of(kf.real_nvp, [(0, 1), (0, 1)]), x),
        kf.profile(flow_of(kf.real_nvp, [(0, 1000), (0, 1)]), x * torch.tensor([1e3, 1])),
    ]
    torch.testing.assert_close(profiles[0].condition_number, profiles[1].condition_number)
    assert "Domain" not in " ".join(profiles[0].layers)


def test_angles_are_turned_in_front_of_each_spline_that_changes_them():
    """By all other features: what a spline with fixed ends cannot do."""
    flow = kf.spline(3, depth=4, hidden=(8,), bounds=["circular", None, "circular"])
    splines = [part for part in flow.modules() if isinstance(part, kf.bijections.SplineCoupling)]
    turns = [part for part in flow.modules() if isinstance(part, kf.bijections.RotationCoupling)]
    changed = [sorted({0, 2} & set(part.partition.changed)) for part in splines]
    assert [list(part.partition.changed) for part in turns] == [
        features for features in changed if features
    ]


HEAVY = {  # a domain, and rows that reach far in it, from normal numbers g and shares u
    "line, straight tails": (None, lambda g, u: g),
    "line, tails of a power": (None, lambda g, u: u.pow(-2)),
    "line, Cauchy": (None, lambda g, u: (math.pi * (u - 0.5)).tan()),
    "positive, log-normal": ("positive", lambda g, u: (3 * g).exp()),
    "positive, tail of a power": ("positive", lambda g, u: u.pow(-4) - 1),
    "above 10": ("10,", lambda g, u: 10 * u.pow(-3)),
    "below 5": (",5", lambda g, u: 5 - (2 * g).exp()),
    "interval": ((0, 1), lambda g, u: u.pow(8)),
    "circle": ("circular", lambda g, u: (6 * u).sin() * 3),
}


@pytest.mark.parametrize("start", ["identity", "whiten", "gaussianize", "whiten-gaussianize"])
@pytest.mark.parametrize("recipe", [kf.spline, kf.real_nvp])
def test_far_latents_have_finite_points_and_densities_on_any_domain(recipe, start):
    """Within 8 standard deviations and in float32, whatever rows the layers are fitted to."""
    columns = {name: HEAVY[name] for name in HEAVY if recipe is kf.spline or name != "circle"}
    torch.manual_seed(0)
    g, u = torch.randn(2000, len(columns)), torch.rand(2000, len(columns)).clamp_min(1e-4)
    rows = torch.stack([make(g[:, i], u[:, i]) for i, (_, make) in enumerate(columns.values())], 1)
    bounds = [bound for bound, _ in columns.values()]
    flow = recipe(len(columns), depth=4, hidden=(8,), bounds=bounds, start=start)
    flow.standardization.fit(rows)
    check_far_latents(jittered(flow, seed=1).eval(), None)
