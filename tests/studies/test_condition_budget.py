"""What budgets cost: trainings that are kept, compared row by row, and drawn."""

import numpy as np
import pytest

import kappaflow as kf
from kappaflow.runs import ModelConfig, TableConfig
from kappaflow.training import batch_of, log_prob_of
from kappaflow_studies.condition_budget.measure import trade_off
from kappaflow_studies.condition_budget.page import (
    Budgeted,
    TradeOff,
    render_trade_off,
    trade_off_chart,
)

SMALL = ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)})
SETTINGS = {"max_epochs": 6, "batch_size": 64, "learning_rate": 2e-2, "progress": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of two correlated columns."""
    path = tmp_path_factory.mktemp("data") / "data.csv"
    a, b = np.random.default_rng(0).normal(size=(2, 500))
    np.savetxt(path, np.c_[a, a + 0.2 * b], delimiter=",", header="a,b", comments="")
    return str(path)


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    """A finished trade-off and its folder."""
    out = tmp_path_factory.mktemp("tradeoff") / "out"
    return trade_off(TableConfig(data), SMALL, [100.0, 2.0], out, **SETTINGS), out


def test_each_budget_has_a_run_and_the_last_has_none(done):
    """In their order, with what was measured on held-out rows."""
    report, out = done
    assert [flow.budget for flow in report.flows] == [2.0, 100.0, None]
    assert report.flows[0].condition_number_p95 < 2.2
    assert report.flows[2].condition_number_p95 > 2.5
    assert {flow.folder for flow in report.flows} <= {path.name for path in out.iterdir()}
    stored = TradeOff.model_validate_json((out / "report.json").read_text())
    assert stored == report
    assert (out / "figures" / "trade-off.svg").stat().st_size > 1000
    assert "What a condition number costs" in (out / "index.html").read_text()


def test_the_cost_is_the_mean_difference_of_the_two_likelihoods(done, data):
    """Row by row of the test rows, from the run folders themselves."""
    report, out = done
    flows = [kf.load(out / entry.folder) for entry in (report.flows[0], report.flows[2])]
    test = batch_of(TableConfig(data).load().test, flows[0])
    more = log_prob_of(flows[1], test) - log_prob_of(flows[0], test)
    assert report.flows[0].cost == pytest.approx(more.mean().item(), abs=1e-9)
    assert report.flows[0].cost_error == pytest.approx(
        more.std(correction=0).item() / len(more) ** 0.5, abs=1e-9
    )
    difference = report.flows[0].nll - report.flows[2].nll
    assert report.flows[0].cost == pytest.approx(difference, abs=1e-5)


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(done, data):
    """The same request changes no run folder; one more budget trains one more flow."""
    report, out = done
    before = {p: p.stat().st_mtime_ns for p in out.glob("budget-*/model.safetensors")}
    again = trade_off(TableConfig(data), SMALL, [2.0, 3.0, 100.0], out, **SETTINGS)
    assert [flow.budget for flow in again.flows] == [2.0, 3.0, 100.0, None]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again.flows[0] == report.flows[0]


def test_other_settings_in_the_same_folder_are_refused(done, data):
    """The error names the difference."""
    with pytest.raises(kf.errors.ArgumentError, match="seed"):
        trade_off(TableConfig(data), SMALL, [2.0], done[1], **SETTINGS, seed=1)


@pytest.mark.parametrize(
    ("budgets", "more", "message"),
    [
        ([], {}, "'budgets' should be at least one"),
        ([0.5], {}, "'budgets' should be greater than 1"),
        ([2.0, float("nan")], {}, "'budgets' should be a finite number"),
        ([2.0], {"max_epochs": 0}, "'max_epochs' should be"),
        ([2.0], {"condition_budget": 3.0}, "left out"),
        ([2.0], {"processes": 0}, "'processes'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_trained(
    data, tmp_path, budgets, more, message
):
    """In one sentence, and no folder is made."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        trade_off(TableConfig(data), SMALL, budgets, tmp_path / "out", **{**SETTINGS, **more})
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_of_others_is_refused_and_stays_as_it_was(data, tmp_path):
    """And no folder is left if the model is refused."""
    (tmp_path / "index.html").write_text("theirs")
    with pytest.raises(kf.errors.ArgumentError, match="holds other files"):
        trade_off(TableConfig(data), SMALL, [2.0], tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(kf.errors.ArgumentError, match="'depth'"):
        trade_off(
            TableConfig(data),
            ModelConfig("real_nvp", {"depth": 0}),
            [2.0],
            tmp_path / "o",
            **SETTINGS,
        )
    assert not (tmp_path / "o").exists()


def flow_of(budget, p95, nll, cost):
    """Returns the row of a flow."""
    return Budgeted(
        budget=budget, folder="x", condition_number_p95=p95, condition_number_median=2.0, rows=10,
        nll=nll, standard_error=0.1, cost=cost, cost_error=0.01, epochs=1, time_s=1.0,
    )  # fmt: skip


def test_what_is_found_is_said_in_either_direction():
    """Budgets kept, exceeded and failed, with their costs."""
    report = TradeOff(
        data="x",
        model=[],
        flows=[
            Budgeted(budget=2.0, folder="x", failed="no weights kept it."),
            flow_of(10.0, 9.9, 4.5, 0.5),
            flow_of(20.0, 23.0, 4.0, 0.01),
            flow_of(24.0, 25.0, 3.9, 0.0),
            flow_of(30.0, 25.0, 3.9, -0.1),
            flow_of(None, 25.0, 4.0, 0.0),
        ],
        notes=[],
    )
    failed, free, kept, exceeded, nearly, better = report.describe()
    assert failed == "Budget 2: no weights kept it."
    assert "25.0" in free
    assert "10 is kept, with 9.90" in kept and "costs 0.500 ± 0.010" in kept
    assert "20 is exceeded" in exceeded and "two standard errors" in exceeded
    assert "24 is kept within 10 %, with 25.0" in nearly
    assert "better by 0.100" in better
    curve = trade_off_chart(report).panels[0].series[0]
    assert curve.x == [9.9, 23.0, 25.0, 25.0]
    assert curve.low == pytest.approx([4.4, 3.9, 3.8, 3.8])


def test_budgets_that_nothing_kept_are_no_numbers_that_are_not_finite():
    """They are not drawn, and have no time."""
    failed = [Budgeted(budget=2.0, folder="x", failed="none."), flow_of(None, 25.0, 4.0, 0.0)]
    report = TradeOff(data="x", model=[], flows=failed, notes=[])
    (panel,) = trade_off_chart(report).panels
    assert [series.name for series in panel.series] == ["without a budget"]
    html = render_trade_off(report)
    assert '<td data-name="time">–</td>' in html and '<td data-name="time">1.00 s</td>' in html
    alone = TradeOff(data="x", model=[], flows=failed[:1], notes=[])
    assert trade_off_chart(alone).panels[0].series == []
    assert "Budget 2: none." in render_trade_off(alone)
