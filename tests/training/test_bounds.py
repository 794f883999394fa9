"""Flows fitted to laws that have a domain: their likelihood, their samples, what is refused."""

import numpy as np
import polars
import pytest
import torch
from scipy import stats

import kappaflow as kf
from kappaflow.errors import DataWarning

ROWS = 3000
BOUNDS = {"angle": "circular", "mass": "positive", "share": (0, 1)}
LAWS = {
    "angle": stats.vonmises(2.0, loc=np.pi),  # the seam of (-pi, pi) is where it is densest
    "mass": stats.lognorm(2.0),
    "share": stats.beta(3.0, 0.8),
}
COLUMNS = tuple(LAWS)


def sample(seed=0, rows=ROWS):
    """Rows of independent columns, angles between -pi and pi, and their mean log-density."""
    rng = np.random.default_rng(seed)
    drawn = {name: law.rvs(rows, random_state=rng) for name, law in LAWS.items()}
    drawn["angle"] = (drawn["angle"] + np.pi) % (2 * np.pi) - np.pi
    log_p = sum(law.logpdf(drawn[name]) for name, law in LAWS.items())
    return kf.load_table(polars.DataFrame(drawn)), float(log_p.mean())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A spline flow fitted to the laws in a run folder, with that folder."""
    out = tmp_path_factory.mktemp("run") / "run"
    torch.manual_seed(0)
    flow = kf.spline(3, depth=4, hidden=(32,))
    table, _ = sample()
    result = kf.fit(
        flow, table, bounds=BOUNDS, max_epochs=12, batch_size=128, learning_rate=5e-3, out=out
    )
    return result, out


@pytest.mark.slow
def test_laws_with_a_domain_are_learnt_to_their_entropy(fitted):
    """Of new rows the log-density is that of the laws within 0.1 nats, in their units."""
    flow = fitted[0].flow
    table, log_p = sample(seed=1)
    with torch.no_grad():
        result = flow.log_prob(torch.from_numpy(table.values).float()).double().mean().item()
        seam = flow.log_prob(torch.tensor([[-np.pi, 1.0, 0.7], [np.pi, 1.0, 0.7]]))
    assert abs(result - log_p) < 0.1
    assert (seam[0] - seam[1]).abs() < 1e-3  # where the data is densest
    assert fitted[0].history[-1]["validation_nll_standardized"] < 3.0


@pytest.mark.slow
def test_samples_of_a_fitted_flow_stay_in_the_domain(fitted):
    """100,000 of them; and they follow the laws."""
    flow = fitted[0].flow
    drawn = flow.sample(100_000, generator=torch.Generator().manual_seed(0)).double().numpy()
    assert np.isfinite(drawn).all()
    assert (np.abs(drawn[:, 0]) <= np.pi).all()
    assert (drawn[:, 1] > 0).all() and ((drawn[:, 2] > 0) & (drawn[:, 2] < 1)).all()
    means = np.cos(drawn[:, 0]).mean(), np.log(drawn[:, 1]).mean(), drawn[:, 2].mean()
    expected = -stats.vonmises(2.0).expect(np.cos), 0.0, LAWS["share"].mean()
    np.testing.assert_allclose(means, expected, atol=0.12)


def test_repairs_are_said_and_noise_stays_inside():
    """Zeros are moved inside; a constant column of an interval is jittered within it."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.random(300), np.full(300, 0.9999), rng.normal(size=300)], 1)
    x[:5, 0] = 0.0
    flow = kf.real_nvp(3, depth=2, hidden=(8,))
    with pytest.warns(DataWarning):
        result = kf.fit(flow, x, bounds={0: (0, 1), 1: (0, 1)}, repair="jitter", max_epochs=1)
    assert any("moved 5 values of 'x0' from an end" in note for note in result.notes)
    assert np.isfinite(result.validation_nll)


def test_figures_on_standardized_columns_can_be_compared_with_those_of_other_flows():
    """With bounds or without, they differ from those in units of the data by the same number."""
    x = np.random.default_rng(0).lognormal(0, 1, (300, 2)) * (1.0, 50.0)
    history = [
        kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, bounds=bounds, max_epochs=1).history[-1]
        for bounds in (None, {0: "positive", 1: "positive"})
    ]
    by_units = [line["validation_nll_standardized"] - line["validation_nll"] for line in history]
    assert by_units[0] == pytest.approx(by_units[1], abs=1e-4)


@pytest.mark.slow
def test_a_condition_budget_is_kept_behind_a_domain():
    """It is measured from the standardized columns on the line on."""
    table, _ = sample(rows=600)
    flow = kf.spline(3, depth=2, hidden=(8,))
    result = kf.fit(flow, table, bounds=BOUNDS, max_epochs=2, condition_budget=100.0)
    assert result.history[-1]["condition_number_p95"] < 100


def line_of(column):
    """Returns the share of the rows in a line at 50, and its standard deviation."""
    away = np.abs(column - 50)
    line, near = away < 0.75, (away > 1) & (away < 2.5)
    below = near.sum() / 2  # rows of the continuum below the line
    count = line.sum() - below
    variance = ((away[line] ** 2).sum() - below * 0.75**2 / 3) / count
    return count / len(column), variance**0.5


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [None, {"x1": "circular"}], ids=["line", "circle"])
def test_a_circle_leaves_a_narrow_line_in_another_column(bounds):
    """Of 3 % of the rows; without a start nearly all of it would be lost."""
    rng = np.random.default_rng(0)
    rows, is_line = 20_000, rng.random(20_000) < 0.03
    energy = np.where(is_line, rng.normal(50, 0.25, rows), 20 + rng.exponential(30, rows))
    x = np.stack([energy, rng.vonmises(1, 2, rows), rng.gamma(3, 1, rows)], 1)
    model = kf.candidates(x, bounds=bounds)[0]
    result = kf.fit(model.build(x, bounds), x, max_epochs=5, **model.settings)
    with torch.no_grad():
        samples = result.flow.sample(200_000, generator=torch.Generator().manual_seed(0))
    share, deviation = line_of(samples[:, 0].double().numpy())
    assert share == pytest.approx(0.03, abs=0.005)
    assert deviation == pytest.approx(0.25, abs=0.03)


def test_the_models_of_a_table_with_circles_are_those_that_keep_them():
    """Both spline couplings; the only one for circles alone has no start."""
    x, _ = sample(rows=400)
    models = kf.candidates(x, bounds=BOUNDS)
    assert [model.arguments["start"] for model in models] == ["gaussianize", "whiten-gaussianize"]
    assert all(model.recipe == "spline" for model in models)
    angles = np.random.default_rng(0).uniform(-3, 3, (400, 2))
    (alone,) = kf.candidates(angles, bounds={0: "circular", 1: "circular"})
    assert alone.arguments["start"] == "identity"
