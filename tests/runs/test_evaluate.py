"""The numbers of a report against independent computations."""

import json
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal

import kappaflow as kf
from kappaflow.diagnosis import Comparison
from kappaflow.options import COMMAND, kinds_option
from kappaflow.report.files import read_report
from kappaflow.report.result import Likelihood, Result, figures_of
from kappaflow.results import to_plain
from kappaflow.runs import ModelConfig, TableConfig, diagnose_run, fit_run, score_run
from kappaflow.runs.stored import read_finished, read_run
from kappaflow.runs.table_content import auc_of, worst_rows


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A csv of 900 rows with duplicates, an atom and a text column."""
    path = tmp_path_factory.mktemp("table") / "data.csv"
    x = np.random.default_rng(0).normal(size=(900, 3))
    x[:60, 2] = 0.0
    x[-20:] = x[100:120]
    kind = np.where(x[:, 0] > 0.5, "far", "near")
    rows = [f"{a!r},{b!r},{c!r},{k}" for (a, b, c), k in zip(x.tolist(), kind, strict=True)]
    path.write_text("\n".join(["a,b,c,kind", *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def summary(table, tmp_path_factory):
    """A run on the table."""
    return fit_run(
        TableConfig(table),
        ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)}),
        tmp_path_factory.mktemp("runs") / "run",
        progress=False,
        max_epochs=3,
    )


def test_percentiles_of_new_rows_are_uniform_and_right_next_to_a_bound(tmp_path):
    """They are percentiles of validation and test rows: a flow scores training rows higher."""
    rng = np.random.default_rng(0)
    x, new = (np.stack([1 + rng.exponential(size=n), rng.normal(size=n)], 1) for n in (4000, 2000))
    new[:100, 0] = 1 + np.geomspace(1e-6, 1e-2, 100)  # next to the bound
    for name, rows in {"x": x, "new": new}.items():
        np.save(tmp_path / f"{name}.npy", rows)
    source = TableConfig(str(tmp_path / "x.npy"), bounds=["x0=1,"])
    model = ModelConfig("spline", {"depth": 2, "hidden": (16,), "start": "gaussianize"})
    run = fit_run(source, model, tmp_path / "run", progress=False, max_epochs=2)
    parts, flow = source.load(), kf.load(run.folder)
    held_out = np.concatenate([parts.validation.values, parts.test.values])
    with torch.no_grad():
        scores = flow.log_prob(torch.from_numpy(held_out).float()).double().numpy()
    stored = json.loads((run.folder / "result.json").read_text())["calibration"]
    quantiles = np.quantile(scores, np.linspace(0, 1, 1001))
    np.testing.assert_allclose(stored["log_prob_quantiles"], quantiles, atol=1e-5)
    percentile = score_run(run.folder, str(tmp_path / "new.npy"))["percentile"] / 100
    assert kstest(percentile[100:], "uniform").statistic < 0.06  # 800 rows leave about 0.03
    density = 1 - new[:, 0] - new[:, 1] ** 2 / 2  # log p up to a constant
    share = np.searchsorted(np.sort(density[100:]), density[:100]) / 1900
    assert np.abs(percentile[:100] - share).mean() < 0.1


def test_no_row_is_in_two_parts_and_all_are_kept(table):
    """80, 10 and 10 per cent of the rows, the same for the same seed."""
    tables = TableConfig(table).load()
    parts = [set(map(tuple, t.values)) for t in (tables.train, tables.validation, tables.test)]
    lengths = [len(part) for part in (tables.train, tables.validation, tables.test)]
    assert tables.repeats == 20 and sum(map(len, parts)) == 880 and sum(lengths) == 900
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert np.abs(np.array(lengths) - [720, 90, 90]).max() <= 1
    assert np.array_equal(TableConfig(table).load().test.values, tables.test.values)


def test_duplicates_are_dropped_or_weighed_on_request(table):
    """Weighed ones train once each, with a weight; held-out rows are the same."""
    dropped = TableConfig(table, duplicates="drop").load()
    assert [len(t) for t in (dropped.train, dropped.validation, dropped.test)] == [704, 88, 88]
    clean, _ = kf.data.drop_duplicate_rows(kf.load_table(table))
    assert dropped.test.fingerprint() == kf.data.split(clean)[2].fingerprint()
    kept, weighed = (TableConfig(table, duplicates=how).load() for how in ("keep", "weigh"))
    assert weighed.test.fingerprint() == kept.test.fingerprint()
    rows = weighed.trained_on
    assert rows.weights.sum() == len(kept.trained_on) > len(rows)
    np.testing.assert_allclose(
        np.average(rows.values, axis=0, weights=rows.weights), kept.train.values.mean(0)
    )


def test_the_test_likelihood_is_that_of_the_loaded_flow(summary, table):
    """result.json and the report agree with log_prob of the saved model on the test rows."""
    tables = TableConfig(table).load()
    flow = kf.load(summary.folder)
    with torch.no_grad():
        nll = -flow.log_prob(torch.from_numpy(tables.test.values).float()).double().numpy()
    result = read_report(summary.folder).result
    test, (without, on) = result.test, result.parts
    assert summary.result.test.nll == pytest.approx(nll.mean(), abs=1e-5)
    assert test.standard_error == pytest.approx(nll.std() / np.sqrt(len(nll)), rel=1e-4)
    atom = tables.test.values[:, 2] == 0
    assert (without.rows, on.rows) == ((~atom).sum(), atom.sum())
    assert without.nll == pytest.approx(nll[~atom].mean(), abs=1e-5)


def test_the_gaussian_baseline_is_the_one_fitted_to_the_standardized_training_rows(summary, table):
    """Its NLL is computed here on standardized columns from the start."""
    tables = TableConfig(table).load()
    mean, std = tables.train.values.mean(0), tables.train.values.std(0)
    train, test = ((t.values - mean) / std for t in (tables.train, tables.test))
    expected = -multivariate_normal(train.mean(0), np.cov(train.T, ddof=0)).logpdf(test).mean()
    assert summary.result.references[0].nll_standardized == pytest.approx(expected, abs=1e-4)


def test_charts_have_the_marginals_and_the_latent_of_all_rows(summary, table):
    """Bins hold the share of rows in them, and the first and the last what lies beyond."""
    rows, charts = TableConfig(table).load().test.values, read_report(summary.folder).charts
    marginal = charts.two_sample.marginals[0]
    values = np.clip(rows[:, 0], marginal.edges[0], marginal.edges[-1])
    counts = np.histogram(values, marginal.edges)[0]
    np.testing.assert_allclose(marginal.rows, counts / len(rows))
    x = torch.from_numpy(rows).float()
    z = kf.load(summary.folder).bijection(x)[0].detach().double().numpy()
    moments = np.stack([z.mean(0), z.std(0)], 1)
    assert np.allclose(charts.latent.coordinates, moments, atol=1e-5)
    assert charts.latent.beyond_four == (np.abs(z) > 4).mean()


def test_latents_are_compared_with_the_base_that_the_flow_has(tmp_path):
    """Latents of a flow on a mixture have two modes, and so has its base."""
    x = np.random.default_rng(0).normal(size=(600, 2))
    x[:, 0] += 12 * (np.arange(600) % 2)
    np.save(tmp_path / "clusters.npy", x)
    model = ModelConfig("real_nvp", {"depth": 2, "hidden": (4,), "components": 2})
    source = TableConfig(str(tmp_path / "clusters.npy"))
    folder = fit_run(source, model, tmp_path / "run", progress=False, max_epochs=1).folder
    latent = read_report(folder).charts.latent
    assert latent.base == "mixture of 2 normals"
    assert np.abs(np.array(latent.coordinates) - [0, 1]).max() < 0.3
    middle = len(latent.density) // 2
    assert max(latent.normal[middle - 1 : middle + 1]) < 0.5 * max(latent.normal)
    assert np.abs(np.subtract(latent.normal, latent.density)).mean() < 0.05
    assert "its base, a mixture of 2 normals" in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("where", [["kind=near"], []])
def test_rows_to_compare_with_are_never_trained_on(table, tmp_path, where):
    """They leave the modeled rows without --where too, which a note counts; they are scored."""
    source = TableConfig(table, where=where, against="kind=far")
    data = source.load()
    for part in (data.train, data.validation, data.test):
        assert (part.values[:, 0] <= 0.5).all()
    assert (data.against.values[:, 0] > 0.5).all()
    assert any("compared with, and not trained on" in n for n in data.notes) == (not where)
    model = ModelConfig(arguments={"depth": 2, "hidden": (8,)})
    (separation,) = fit_run(source, model, tmp_path / "run", max_epochs=3).result.separations
    assert 0.8 < separation.auc <= 1 and separation.auc_standard_error < 0.1


def test_auc_agrees_with_counting_pairs():
    """Ties count half; the error is that of Hanley and McNeil, from their formula."""
    random = np.random.default_rng(0)
    inside, outside = random.integers(3, 12, 50) * 1.0, random.integers(0, 7, 40) * 1.0
    pairs = inside[:, None] - outside[None, :]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    auc, error = auc_of(inside, outside)
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + 49 * (q1 - auc**2) + 39 * (q2 - auc**2)
    assert auc == pytest.approx(expected) and auc > 0.5
    assert error == pytest.approx((variance / (50 * 40)) ** 0.5)


def test_planted_outliers_are_the_worst_rows(tmp_path):
    """With their line of the file, their values and the column that is far off."""
    x = np.random.default_rng(0).normal(size=(300, 14))
    x[::10, 13] += 40
    lines = [",".join(map(repr, row)) for row in x.tolist()]
    names = ",".join(f"c{i}" for i in range(14))
    (tmp_path / "rows.csv").write_text("\n".join([names, *lines]) + "\n")
    data = TableConfig(str(tmp_path / "rows.csv"), context=["c0"]).load()
    nll = torch.from_numpy(data.test.values).square().sum(1)
    worst = worst_rows(data, nll)
    assert (len(worst.columns), worst.left_out) == (12, 2)
    train = data.train.values[:, 12]
    outliers = int((data.test.values[:, 12] > 30).sum())
    assert 0 < outliers < len(worst.rows)
    for number, row in enumerate(worst.rows):
        expected = x[int(row.name.removeprefix("line ")) - 2]  # line 1 is the header
        assert row.values == expected[1:13].tolist()
        assert row.log_prob == pytest.approx(-np.square(expected[1:]).sum())
        assert (expected[13] > 30) == (number < outliers)
    column, value, deviations = worst.rows[0].unusual
    assert column == "c13" and value > 30
    assert deviations == pytest.approx((value - train.mean()) / train.std())


def test_the_facts_of_a_report_have_no_syntax_of_python(summary, table):
    """Values of settings are as a reader would write them; date, command and data are there."""
    about = read_report(summary.folder).about
    assert about.fingerprint == kf.load_table(table).fingerprint()
    assert about.command == "from Python" and about.finished_at.endswith("+00:00")
    facts = dict(about.model + about.training)
    assert (facts["hidden"], facts["residual"]) == ("8", "no")
    assert (facts["weight decay"], facts["max epochs"]) == ("0.0001", "3")
    values = [value for name, value in facts.items() if name not in ("versions", "epochs")]
    assert not [v for v in values if re.search(r"None|True|False|[()'\[\]{}]|\de-", v)], values


@pytest.mark.slow
def test_a_run_interrupted_between_training_and_report_is_completed(summary, table):
    """A command that adds the missing report has the same numbers, and names its own options."""
    before = json.loads((summary.folder / "result.json").read_text())
    trained = {k: v for k, v in before.items() if not k.startswith(("test", "verdict"))}
    (summary.folder / "result.json").write_text(json.dumps(trained))
    report = (summary.folder / "report.json").read_bytes()
    report = report.replace(f"{kinds_option()} can model it, and ".encode(), b"")
    before_command = COMMAND.set("another command")
    (summary.folder / "report.json").unlink()
    again = fit_run(
        TableConfig(table),
        ModelConfig("real_nvp", {"depth": 2, "hidden": (8,)}),
        summary.folder,
        max_epochs=3,
    )
    COMMAND.reset(before_command)
    assert again.result.test.nll == before["test"]["nll"]
    completed = (summary.folder / "report.json").read_bytes()  # with the same date and command
    assert completed.replace(b"--where", b"where=") == report  # it has no kinds to offer
    assert read_report(summary.folder).result.ok is before["ok"]


def test_a_gap_in_the_rows_to_compare_with_stops_before_training(table, tmp_path):
    """Row and column are named."""
    with open(table) as file:
        lines = file.read().splitlines()
    far = next(i for i, line in enumerate(lines) if line.endswith(",far"))
    lines[far] = "," + lines[far].split(",", 1)[1]
    gappy = tmp_path / "gappy.csv"
    gappy.write_text("\n".join(lines) + "\n")
    source = TableConfig(str(gappy), where=["kind=near"], against="kind=far")
    with pytest.raises(kf.errors.DataError, match=f"column 'a' .* line {far + 1} "):
        source.load()


@pytest.mark.slow
def test_a_column_that_is_constant_among_the_training_rows_has_no_gaussian(tmp_path):
    """The run is finished all the same; the Gaussian's NLL is reported as not finite."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:, 1] = 0.1  # no float32: rounding alone is no variation
    seen = TableConfig(_written(tmp_path, x + np.eye(60, 2))).load()
    rare = int(seen.test.rows[0]) - 1
    x[rare, 1] = 2.0
    result = quick(tmp_path, x, max_epochs=1).result
    assert result.references == [] and np.isfinite(result.test.nll_standardized)
    assert "not finite for a Gaussian" in (tmp_path / "run/report.html").read_text()


def _written(folder, x):
    path = folder / "x.csv"
    np.savetxt(path, x, delimiter=",", header="a,b", comments="")
    return str(path)


def quick(folder, x, **settings):
    """Returns a run of a tiny flow on rows."""
    model = ModelConfig(arguments={"depth": 2, "hidden": (4,)})
    source = TableConfig(_written(folder, x))
    return fit_run(source, model, folder / "run", progress=False, **settings)


@pytest.mark.slow
def test_a_flow_worse_than_a_gaussian_has_no_green_verdict(tmp_path):
    """An untrained flow on strongly correlated columns."""
    base = np.random.default_rng(0).normal(size=(400, 1))
    x = base + 0.01 * np.random.default_rng(1).normal(size=(400, 2))
    run = quick(tmp_path, x, max_epochs=1, learning_rate=1e-9)
    assert run.result.level == "bad" and "worse than a Gaussian" in run.result.verdict
    codes = [finding.code for finding in read_report(run.folder).result.findings]
    assert codes == ["KF509", "KF501", "KF506", "KF508"]


@pytest.mark.slow
def test_a_flow_worse_than_a_mixture_has_it_in_its_verdict(tmp_path):
    """Three clusters of 600 rows: the numbers are in result.json, report and summary."""
    random = np.random.default_rng(0)
    x = 0.05 * random.normal(size=(600, 2)) + random.integers(0, 3, (600, 1)) * [[3.0, -2.0]]
    run = quick(tmp_path, x, max_epochs=2)
    messages = " ".join(finding.message for finding in run.result.findings)
    assert re.search(r"worse than a Gaussian mixture \([24] components\)", messages)
    gaussian, mixture = run.result.references
    assert mixture.rows == run.result.test.rows == 60 and mixture.components > 1
    flow_nll = run.result.test.nll_standardized
    assert flow_nll - mixture.nll_standardized == pytest.approx(mixture.difference)
    assert read_report(run.folder).result.references == run.result.references
    assert gaussian.name == "a Gaussian"
    page = (run.folder / "report.html").read_text()
    assert "Compared row by row with a Gaussian mixture" in page
    assert diagnose_run(run.folder)[0].verdict == run.result.verdict


def test_few_rows_to_train_on_keep_the_verdict_from_being_green(tmp_path):
    """Fewer than 50 after the split; the sentence is a note as well."""
    x = np.random.default_rng(0).normal(size=(70, 2))
    few = TableConfig(_written(tmp_path, x[:60])).load()
    assert few.warnings[0].startswith("48 rows are left to train on, fewer than 50")
    assert set(few.warnings) <= set(few.notes)
    assert TableConfig(_written(tmp_path, x)).load().warnings == ()


@pytest.mark.slow
def test_few_rows_and_a_training_cut_short_are_in_the_verdict(tmp_path):
    """Forty rows and two epochs: no green light, also when the run is examined again."""
    run = quick(tmp_path, np.random.default_rng(0).normal(size=(40, 2)), max_epochs=1)
    assert "32 rows are left to train on" in run.result.verdict
    assert "Training stopped at max_epochs after 1 epoch" in run.result.verdict
    codes = {finding.code for finding in read_report(run.folder).result.findings}
    assert {"KF505", "KF506", "KF607"} <= codes | {"KF505"} and codes & {"KF501", "KF505"}
    assert diagnose_run(run.folder)[0].verdict == run.result.verdict


def test_the_table_of_a_run_is_no_other_data(summary):
    """Its training rows are not held out."""
    source = read_run(summary.folder).source.data
    assert diagnose_run(summary.folder, source)[1] == "held-out rows of the run"


def test_a_finding_on_a_row_names_line_and_values(summary, tmp_path):
    """KF503 of the doctor on a table with one row far out."""
    x = np.random.default_rng(5).normal(size=(600, 3))
    x[10] = 60.0
    path = tmp_path / "x.csv"
    np.savetxt(path, x, delimiter=",", header="a,b,c", comments="")
    findings = {f.code: f for f in diagnose_run(summary.folder, str(path))[0].findings}
    assert "the worst, line 12 (a = 60, b = 60, c = 60)," in findings["KF503"].message


def test_each_figure_of_a_result_is_in_all_files_and_on_the_page(summary):
    """The fields of the classes, from `Result` to `Comparison`, are declared once."""
    result = read_finished(summary.folder)
    plain = to_plain(result)
    assert set(plain) == set(Result.model_fields)
    assert set(plain["test"]) == set(Likelihood.model_fields)
    assert [set(r) for r in plain["references"]] == 2 * [{f.name for f in fields(Comparison)}]
    assert json.loads((summary.folder / "report.json").read_text())["result"] == plain
    assert plain.items() <= json.loads((summary.folder / "result.json").read_text()).items()
    findings = json.loads((summary.folder / "diagnosis.json").read_text())["findings"]
    assert findings == plain["findings"]
    page = (summary.folder / "report.html").read_text()
    names = {name for name, _ in figures_of(result)}
    assert {"test nll", "references 1 difference", "condition number p95"} <= names
    assert all(f'<th scope="row">{name}</th>' in page for name in names)
