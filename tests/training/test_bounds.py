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
        found = flow.log_prob(torch.from_numpy(table.values).float()).double().mean().item()
    assert abs(found - log_p) < 0.1
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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small spline flow, its rows and the settings of its training."""
    table, _ = sample(rows=300)
    out = tmp_path_factory.mktemp("small") / "run"
    settings = {"max_epochs": 2, "batch_size": 128, "learning_rate": 5e-3, "out": out}
    return kf.fit(kf.spline(3, depth=2, hidden=(8,)), table, bounds=BOUNDS, **settings), settings


@pytest.mark.slow
def test_the_density_has_no_seam_where_the_data_is_densest(small):
    """Both sides of pi are one place to the trained flow."""
    ends = torch.tensor([[-np.pi, 1.0, 0.7], [np.pi, 1.0, 0.7]])
    with torch.no_grad():
        log_p = small[0].flow.log_prob(ends)
    assert (log_p[0] - log_p[1]).abs() < 1e-3


def test_a_finished_run_is_found_again_by_its_bounds(small):
    """The same call returns the stored result; another bound is another run."""
    (result, settings), (table, _) = small, sample(rows=300)
    out = settings["out"]
    again = kf.fit(kf.spline(3, depth=2, hidden=(8,)), table, bounds=BOUNDS, **settings)
    assert again.validation_nll == result.validation_nll
    x = torch.from_numpy(table.values[:9]).float()
    assert torch.equal(again.flow.log_prob(x), result.flow.log_prob(x))
    assert torch.equal(kf.load(out).log_prob(x), result.flow.log_prob(x))
    other, flow = {**BOUNDS, "mass": "-1,"}, kf.spline(3, depth=2, hidden=(8,))
    with pytest.raises(kf.errors.ArgumentError, match="bounds"):
        kf.fit(flow, table, bounds=other, **settings)


def test_what_lies_outside_is_refused_before_training(tmp_path):
    """By fit with bounds, by a recipe's own bounds, and of validation rows; nothing is written."""
    x = torch.rand(200, 2) + 0.5
    x[6, 1] = -3.0
    with pytest.raises(kf.errors.DataError, match="column 'x1' .* row 7 has -3"):
        kf.fit(kf.real_nvp(2), x, bounds={1: "positive"}, out=tmp_path / "run")
    own = kf.real_nvp(2, bounds=[None, "positive"])
    with pytest.raises(kf.errors.DataError, match="row 7 has -3"):
        kf.fit(own, x)
    with pytest.raises(kf.errors.DataError, match="row 7 has -3"):
        kf.fit(own, x.abs(), validation=x)
    assert not (tmp_path / "run").exists()


def test_a_value_that_the_float_type_rounds_to_an_end_is_refused():
    """float32 has no number between 1 - 6e-8 and 1; a float64 flow takes it."""
    x = np.random.default_rng(0).random((200, 2)) * 0.9 + 0.05
    x[3, 0] = 1 - 1e-12
    settings = {"bounds": {0: (0, 1)}, "max_epochs": 1}
    with pytest.raises(kf.errors.DataError, match="float32 rounds 1 of its values to an end"):
        kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, **settings)
    result = kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)).double(), x, **settings)
    assert np.isfinite(result.validation_nll)


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


def test_bounds_of_a_fitted_flow_and_of_a_context_are_refused():
    """One is too late, the other has no place."""
    x = np.random.default_rng(0).random((200, 2)) + 0.5
    flow = kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, max_epochs=1).flow
    with pytest.raises(kf.errors.ArgumentError, match="before a flow is fitted"):
        kf.fit(flow, x, bounds={0: "positive"})
    conditional = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
    with pytest.raises(kf.errors.ArgumentError, match="'context_x0' is one of the context"):
        kf.fit(conditional, (x, x[:, :1]), bounds={"context_x0": "positive"})


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


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_its_bounds(tmp_path, monkeypatch):
    """To the same weights, bit for bit, as one that was not interrupted."""
    monkeypatch.setattr("kappaflow.training.run_folder.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    table, _ = sample(rows=300)

    def fit(out, **more):
        flow = kf.spline(3, depth=2, hidden=(8,))
        return kf.fit(flow, table, bounds=BOUNDS, max_epochs=3, out=out, **more).flow

    class Stop(kf.training.Callback):
        def on_epoch(self, flow, figures):
            if figures["epoch"] == 2:
                raise KeyboardInterrupt

    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", callbacks=[Stop()])
    resumed = fit(tmp_path / "run")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
