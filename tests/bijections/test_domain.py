"""Columns with a domain on the way to the line: log-dets, ends, circles."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import kappaflow as kf
from kappaflow.bijections.domain import wrapped
from kappaflow.domains import Interval, interval
from kappaflow.files import read_config, write_weights

BOUNDS = ["positive", (0, 1), None, ",5", "2,", "circular:0,360", "-3,-1"]
POINTS = [[1.3, 0.999, 7.0, 4.0, 3.0, 359.0, -1.01], [1e-5, 1e-6, -7.0, -400.0, 2.001, 0.1, -2.9]]


def dense_log_det(bijection, x):
    """log|det| of the Jacobian of each row, by autograd, in float64."""
    rows = [torch.autograd.functional.jacobian(lambda a: bijection(a[None])[0][0], r) for r in x]
    return torch.stack([torch.linalg.slogdet(row)[1] for row in rows])


def fitted_domain(laws, bounds, rows=5000):
    """Returns a domain in float64 that was fitted to rows of these laws."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.stack([law.rvs(rows, random_state=rng) for law in laws], 1))
    domain = kf.bijections.Domain(bounds, circle=5.0 if "circular" in bounds else None).double()
    domain.fit(x)
    return domain


FITTED = {
    "weibull": ((stats.weibull_min(0.6), stats.weibull_min(3, loc=-9)), ["positive", (-9, None)]),
    "lomax": ((stats.lomax(1.5), stats.beta(0.5, 3)), ["positive", (0, 1)]),
    "mirrored": ((stats.weibull_max(2, loc=9), stats.beta(3, 0.8)), [",9", (0, 1)]),
}


@pytest.mark.parametrize("name", FITTED)
def test_fitted_curves_keep_the_contract(name):
    """Also next to a bound and far from it, in float64."""
    laws, bounds = FITTED[name]
    domain = fitted_domain(laws, bounds)
    assert "log" not in repr(domain) and "near=" in repr(domain) and "far=" in repr(domain)
    quantiles = [1e-6, 1e-4, 0.3, 0.5, 0.9, 1 - 1e-6]
    x = torch.from_numpy(np.stack([law.ppf(quantiles) for law in laws], 1))
    z, log_det = domain(x)
    torch.testing.assert_close(log_det, dense_log_det(domain, x), rtol=1e-9, atol=1e-9)
    back, back_log_det = domain.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-9, atol=1e-9)
    far = domain.inverse(torch.tensor([[-1e3, 1e3], [1e3, -1e3]], dtype=torch.float64))[0]
    assert torch.isfinite(far).all() and not domain.outside(far).any()


# the largest error of log p in nats at the quantiles 1e-2, 1e-3, 1e-4 and 1e-5 from the bound
NEXT_TO_A_BOUND = {
    "exponential": (stats.expon(loc=1), "1,", 0.6),
    "half-normal": (stats.halfnorm(), "positive", 0.6),
    "gamma 0.5": (stats.gamma(0.5), "positive", 0.9),
    "lomax": (stats.lomax(1.5), "positive", 0.6),
    "log-normal": (stats.lognorm(1.0), "positive", 0.3),
    "uniform": (stats.uniform(), (0, 1), 0.3),
    "beta(1, 2)": (stats.beta(1, 2), (0, 1), 0.4),
    "beta(3, 0.8)": (stats.beta(3, 0.8), (0, 1), 0.7),
}


@pytest.mark.parametrize("start", ["identity", "gaussianize"])
@pytest.mark.parametrize("name", NEXT_TO_A_BOUND)
def test_log_prob_next_to_a_bound_is_that_of_the_distribution(name, start):
    """A normal tail after a logarithm is 14 nats too low for exponential rows at 1e-4."""
    law, bound, tolerance = NEXT_TO_A_BOUND[name]
    x = law.rvs(20_000, random_state=np.random.default_rng(1))[:, None]
    flow = kf.spline(1, bounds=[bound], start=start)
    flow.standardization.fit(torch.from_numpy(x).float())
    near = law.ppf([1e-2, 1e-3, 1e-4, 1e-5])
    log_prob = flow.double().log_prob(torch.from_numpy(near[:, None])).detach().numpy()
    np.testing.assert_allclose(log_prob, law.logpdf(near), atol=tolerance)


def test_few_rows_and_few_values_keep_the_plain_maps():
    """Curves are fitted to 50 values or more, between two ends to 1,000 rows."""
    domain = kf.bijections.Domain(["positive", (0, 9), ",9"])
    domain.fit(1 + torch.arange(3000).remainder(8)[:, None].repeat(1, 3).float())
    assert "curves=[log, (near=1, far=1), log]" in repr(domain)
    x = 0.5 + torch.rand(40, 3)
    torch.testing.assert_close(domain(x)[0][:, 0], x[:, 0].log())


def test_files_without_curves_load_with_the_maps_they_were_made_with(tmp_path):
    """A logarithm and a normal quantile, as before curves were fitted."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,), bounds=["positive", (0, 1)])
    flow.standardization.fit(torch.rand(40, 2))  # too few rows for a curve
    kf.save(flow, tmp_path / "model")
    state = {name: value for name, value in flow.state_dict().items() if "curves" not in name}
    assert len(state) == len(flow.state_dict()) - 1
    config = read_config(tmp_path / "model" / "config.json")
    write_weights(tmp_path / "model" / "model.safetensors", state, config)
    x = torch.rand(9, 2)
    assert torch.equal(kf.load(tmp_path / "model").log_prob(x), flow.eval().log_prob(x))


def test_log_dets_are_those_of_the_dense_jacobian():
    """In both directions, for each kind of domain."""
    domain = kf.bijections.Domain(BOUNDS, circle=5.0).double()
    x = torch.tensor(POINTS, dtype=torch.float64)
    z, log_det = domain(x)
    back, back_log_det = domain.inverse(z)
    torch.testing.assert_close(log_det, dense_log_det(domain, x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-12, atol=1e-12)


def test_the_middle_of_an_interval_has_a_slope():
    """Where the nearer end changes, the derivative is that of both sides."""
    domain = kf.bijections.Domain([(0, 1)]).double()
    x = torch.tensor([[0.5]], dtype=torch.float64)
    assert dense_log_det(domain, x).item() == pytest.approx(0.5 * math.log(2 * math.pi))
    z = torch.zeros(1, 1, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda a: domain.inverse(a)[0], z).item()
    assert slope == pytest.approx(1 / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_never_leaves_the_domain(dtype):
    """Not even from latents that round to an end, to infinity, or wind round a circle."""
    bounds = [*BOUNDS, (0.1, 0.3), "0.7,", "circular"]
    domain = kf.bijections.Domain(bounds, circle=5.0).to(dtype)
    z = torch.randn(2000, len(bounds), generator=torch.Generator().manual_seed(0)).to(dtype)
    z = torch.cat((z, 10 * z, 1000 * z))
    z[0, -1], z[1, -1] = 5.0, -5.0  # the same point of the circle
    x = domain.inverse(z)[0]
    assert torch.isfinite(x).all() and not domain.outside(x).any()
    assert x[0, -1] == x[1, -1]
    assert not domain.outside(torch.tensor([domain.inside])).any()
    for column, bound in zip(x.double().T, domain.domains, strict=True):
        low, high = (None, None) if bound is None else (bound.low, bound.high)
        assert low is None or (column > low).all() or (bound.circular and (column >= low).all())
        assert high is None or (column < high).all()


def test_float32_is_exact_next_to_an_end_that_float32_cannot_hold():
    """The end is the number that was given, not the one that it rounds to."""
    domain = kf.bijections.Domain(["0.1,"])
    x = torch.tensor([[0.1]])  # in float32 a little above 0.1
    z = domain(x)[0]
    assert not domain.outside(x).any()
    assert z.item() == pytest.approx(math.log(x.double().item() - 0.1), rel=1e-6)


def test_log_dets_of_float32_are_those_of_float64():
    """To float32's rounding of x, deep in the tails too."""
    x = torch.tensor([[1e-30, 1e-20], [1e30, 0.25]])
    single, double = (
        kf.bijections.Domain(["positive", (0, 1)]),
        kf.bijections.Domain(["positive", (0, 1)]).double(),
    )
    torch.testing.assert_close(single(x)[1].double(), double(x.double())[1], rtol=1e-6, atol=1e-6)


def test_a_circle_that_is_uniform_is_normal_on_the_line():
    """The log-density of the base and the log_det add up to that of the uniform law."""
    layer, base = (
        kf.bijections.CircleToLine(1, [0], half_period=5.0).double(),
        kf.StandardNormal(1),
    )
    x = torch.linspace(-4.9999, 4.9999, 101, dtype=torch.float64)[:, None]
    z, log_det = layer(x)
    expected = torch.full((101,), -math.log(10.0), dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z) + log_det, expected)
    torch.testing.assert_close(log_det, dense_log_det(layer, x))


def test_a_rotation_can_wind_round_the_circle():
    """A vector that goes round its origin turns by all angles: the shift is that of its angle."""
    turn = torch.nn.Linear(2, 2)
    with torch.no_grad():
        turn.weight.copy_(torch.eye(2))
        turn.bias.copy_(torch.tensor([-1.0, 0.0]))
    network = kf.nets.SinCosEmbedding(turn, [0], half_period=5.0)
    coupling = kf.bijections.RotationCoupling(kf.Partition.half(2), network, half_period=5.0)
    x = torch.tensor([[-4.9, 0.0], [-1.0, 0.5], [2.0, 4.0], [4.9, -4.0]])
    z, log_det = coupling(x)
    torch.testing.assert_close(z[:, 1], wrapped(x[:, 1] + x[:, 0], 5.0))
    assert not log_det.any()
    torch.testing.assert_close(coupling.inverse(z)[0], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("positive", Interval(0.0, None)),
        (",5", Interval(None, 5.0)),
        ([0, None], Interval(0.0, None)),
        ("circular", Interval(-math.pi, math.pi, circular=True)),
        ("circular:0,2pi", Interval(0.0, 2 * math.pi, circular=True)),
        (("circular", 0, 360), Interval(0.0, 360.0, circular=True)),
        (("circular",), Interval(-math.pi, math.pi, circular=True)),
        ((-math.inf, 2), Interval(None, 2.0)),
        ("-pi, pi", Interval(-math.pi, math.pi)),
        ("real", None),
        (" real ", None),
        (None, None),
    ],
    ids=str,
)
def test_domains_are_read(value, expected):
    """From words, texts and pairs; what is written of one is read as the same."""
    domain = interval("bounds", value)
    assert domain == expected
    assert domain is None or interval("bounds", domain.text) == domain


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("above", "'bounds' should be 'positive', .*, got 'above'"),
        ((1, 1), "below the upper one"),
        ((None, None), "should be"),
        ("circular:0,", "should be"),
        ("1,2,3", "should be"),
        ("a,b", "should be"),
        (3, "should be"),
        ((0, float("nan")), "should be"),
    ],
    ids=str,
)
def test_what_is_no_domain_is_refused(value, message):
    """In one sentence that names the forms."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        interval("bounds", value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.bijections.Domain([None, None]), "should hold a domain"),
        (lambda: kf.bijections.Domain(["circular"]), "'circle' should be"),
        (lambda: kf.bijections.CircleToLine(2, [2], half_period=1.0), "'angles'"),
        (lambda: kf.bijections.CircleToLine(2, [], half_period=1.0), "'angles'"),
        (lambda: kf.bijections.Standardize(2, left=[2]), "'left'"),
        (lambda: kf.real_nvp(2, bounds=["positive"]), "one for each feature"),
        (lambda: kf.bijections.OnFeatures(2, [2], kf.bijections.Linear(1)), "'changed'"),
        (lambda: kf.bijections.OnFeatures(2, [], kf.bijections.Linear(1)), "'changed'"),
        (
            lambda: kf.spline(2, bounds=["circular", None], start={"components": 2}),
            "components=1",
        ),
        (
            lambda: kf.spline(2, bounds=["circular", None], partition="random"),
            "other than 'random'",
        ),
        (lambda: kf.spline(1, bounds=["circular"]), "padding=1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, message):
    """In one sentence."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()
