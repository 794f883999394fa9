"""The comparison on real tables: paired differences, goals, the log of looks, resuming."""

import json
import time

import numpy as np
import pytest

BEST = "zuko NSF, fair"


@pytest.fixture
def report(benchmark):
    """Returns the module that compares results."""
    return benchmark("tables_suite.report")


def line_of(table, model, test, *, seed=0, seconds=60.0, condition=10.0):
    """Returns a result, as the command appends it."""
    return {
        "table": table,
        "model": model,
        "seed": seed,
        "seconds": seconds,
        "test": test,
        "test_error": 0.1,
        "condition_p95": condition,
    }


def save(report, cache, line, log_p):
    """Writes log p of each test row where the comparison looks for it."""
    cache.mkdir(exist_ok=True)
    np.savez(report.npz_of(cache, line), log_p=np.asarray(log_p, np.float32))


def results(report, cache, ours=(-1.0, -2.0, -3.0)):
    """Returns results on one table, with log p of three test rows."""
    rows = {"kappaflow": ours, BEST: (-1.5, -3.5, -3.0), "mixture": (-2.0, -2.0, -6.5)}
    lines = []
    for model, log_p in rows.items():
        line = line_of("magic", model, -float(np.mean(log_p)), condition=5.0 * len(lines))
        save(report, cache, line, log_p)
        lines.append(line)
    return lines


def test_a_paired_difference_is_that_of_a_hand_computation(report, tmp_path):
    """Differences 0.5, 1.5, 0 have the mean 2/3 and the deviation sqrt(7/12)."""
    found = report.summary(results(report, tmp_path), tmp_path, 60.0)
    (line,) = found["against"][BEST]
    assert line["difference"] == pytest.approx(2 / 3)
    assert line["error"] == pytest.approx(np.sqrt(7 / 12 / 3))


def test_rows_are_averaged_over_seeds_before_they_are_paired(report, tmp_path):
    """A second seed that does one nat better everywhere raises the difference by half a nat."""
    lines = results(report, tmp_path)
    again = line_of("magic", "kappaflow", 1.0, seed=1)
    save(report, tmp_path, again, (0.0, -1.0, -2.0))
    found = report.summary([*lines, again], tmp_path, 60.0)
    assert found["against"][BEST][0]["difference"] == pytest.approx(2 / 3 + 0.5)
    assert found["nll"]["magic: kappaflow"] == pytest.approx(1.5)


def test_without_the_rows_there_is_a_difference_but_no_error(report, tmp_path):
    """The files of log p are not kept with the code, so that they may be missing."""
    lines = [line_of("magic", "kappaflow", 1.0), line_of("magic", BEST, 1.25)]
    found = report.summary(lines, tmp_path, 60.0)
    assert found["against"][BEST] == [{"table": "magic", "difference": 0.25, "error": None}]


def test_goals_hold_and_fail_where_they_should(report, tmp_path):
    """A model that is better everywhere reaches all four; one that is worse reaches none."""
    found = report.summary(results(report, tmp_path), tmp_path, 60.0)
    assert [goal["holds"] for goal in found["goals"].values()] == [True] * 4
    worse = results(report, tmp_path, ours=(-7.0, -7.0, -7.1))
    worse[0]["condition_p95"] = 1e6
    found = report.summary(worse, tmp_path, 60.0)
    assert [goal["holds"] for goal in found["goals"].values()] == [False] * 4
    assert "| magic |" in report.tables_text(found)


def test_a_result_that_is_not_finite_ranks_last_and_is_never_the_best(report, tmp_path):
    """Its NLL is None in the file."""
    lines = [
        line_of("magic", "zuko MAF, fair", None),
        line_of("magic", BEST, 9.0),
        line_of("magic", "kappaflow", 3.0),
    ]
    found = report.summary(lines, tmp_path, 60.0)
    assert found["best"] == BEST
    assert found["ranks"] == {"kappaflow": 1.0, BEST: 2.0, "zuko MAF, fair": 3.0}


def test_a_look_at_the_judged_tables_is_logged_before_anything_is_printed(benchmark, tmp_path):
    """Also where there are no results to print."""
    command = benchmark("tables_suite.command")
    with pytest.raises(SystemExit, match="no results of 60 seconds"):
        command.tables(part="judged", show=True, results=tmp_path, cache=tmp_path)
    (line,) = (tmp_path / "judged-looks.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"date", "commit", "compared"}
    with pytest.raises(SystemExit):
        command.tables(part="development", show=True, results=tmp_path, cache=tmp_path)
    assert len((tmp_path / "judged-looks.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "given", [{"only": ["diamonds"]}, {"models": ["zuko"]}, {"again": ["mixtures"]}]
)
def test_an_unknown_name_is_refused_with_the_known_ones(benchmark, tmp_path, given):
    """A judged table is unknown among the development tables."""
    with pytest.raises(SystemExit, match="should be among"):
        benchmark("tables_suite.command").tables(**given, results=tmp_path, cache=tmp_path)


def test_what_is_in_the_file_is_not_trained_again(benchmark, tmp_path, monkeypatch):
    """Unless the model is named by `again`."""
    command = benchmark("tables_suite.command")
    trained = []

    def measured(jobs, cache, at_once):
        for job in jobs:
            trained.append(job["model"])
            yield {**line_of(**job, test=1.0), "processor_s": 1.0}

    monkeypatch.setattr(command, "_measured", measured)
    options = {"only": ["magic"], "results": tmp_path, "cache": tmp_path}
    command.tables(models=["Gaussian", "mixture"], **options)
    command.tables(models=["Gaussian", "mixture"], **options)
    assert trained == ["Gaussian", "mixture"]
    command.tables(again=["mixture"], **options)
    assert trained == ["Gaussian", "mixture", "mixture"]


def test_the_condition_number_is_that_of_the_jacobian(benchmark):
    """A linear map has the condition number of its matrix at every row."""
    import torch

    fitted = benchmark("tables_suite.fitted")
    matrix = torch.tensor([[3.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    density = fitted.Fitted(lambda rows: rows[:, 0], lambda x: x @ matrix.T)
    found = fitted.condition_numbers(density, np.random.default_rng(0).normal(size=(100, 2)))
    assert found.shape == (64,)
    assert found == pytest.approx(torch.linalg.cond(matrix).item())


@pytest.mark.slow
def test_a_small_comparison_runs_end_to_end_and_resumes(benchmark, tmp_path, monkeypatch, ticking):
    """Two seconds of each model on a generated table, where a step takes a fiftieth."""
    pytest.importorskip("sklearn")
    pytest.importorskip("zuko")
    command, data = benchmark("tables_suite.command"), benchmark("tables_suite.data")
    x = np.random.default_rng(0).normal(size=(1500, 2))
    rows = np.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1]], 1)
    parts = data.Parts(rows[:1200], rows[1200:1350], rows[1350:], ("x", "y"))
    monkeypatch.setattr(data, "load", lambda name: parts)

    def here(jobs, cache, at_once):
        yield from (command.measured(job, cache) for job in jobs)

    monkeypatch.setattr(command, "_measured", here)
    ticking(0.02)
    monkeypatch.setattr(benchmark("tables_suite.peers"), "process_time", time.process_time)
    options = {"seconds": 2.0, "only": ["magic"], "results": tmp_path, "cache": tmp_path}
    command.tables(**options)
    file = tmp_path / "tables-development.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()][1:]
    found = {line["model"]: line for line in lines}
    assert tuple(found) == command.MODELS
    for model, line in found.items():
        assert line["test"] is not None and line["processor_s"] < 4, model
        assert (line["condition_p95"] is None) == (model in ("Gaussian", "mixture")), model
    assert found["zuko NSF, fair"]["test"] < found["Gaussian"]["test"] - 0.3
    before = file.read_text()
    command.tables(**options)
    assert file.read_text() == before


def test_our_density_is_that_of_standardized_rows(benchmark, monkeypatch):
    """Means, deviations and the log-determinant of the change of units are right."""
    import kappaflow as kf

    ours, fitted = benchmark("tables_suite.ours"), benchmark("tables_suite.fitted")
    data = benchmark("tables_suite.data")
    mean, deviation = np.array([5.0, -300.0]), np.array([0.1, 40.0])
    rows = np.random.default_rng(0).normal(size=(300, 2))
    rows = mean + deviation * (rows - rows.mean(0)) / rows.std(0)
    scale, shift = (-np.log(deviation)).tolist(), (-mean / deviation).tolist()
    affine = kf.bijections.ElementwiseAffine(2, log_scale=scale, shift=shift)
    default = benchmark("tables_suite.default_flow").Default
    flow = kf.Flow(kf.StandardNormal(2), affine)
    found = default(flow, steps=0, chosen="affine", history=[], stopped_because="max_time_s")
    monkeypatch.setattr(ours, "default_flow", lambda *given: found)
    parts = data.Parts(rows, rows[:100], rows[100:200], ("a", "b"))
    density = ours.kappaflow_default(parts, 1.0, 0)
    z = fitted.standardized(parts).test
    expected = -0.5 * (z**2).sum(1) - np.log(2 * np.pi)
    assert density.log_prob(z) == pytest.approx(expected, abs=1e-3)
    assert fitted.condition_numbers(density, z) == pytest.approx(1.0, abs=1e-5)
