"""The known distributions of the benchmark of mixed columns, its measures, and its page."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

ROWS = 40_000
TABLES = ("labels and counts", "zeros", "orders")


@pytest.fixture
def tables(benchmark):
    """Returns the module of the known distributions."""
    return benchmark("mixed_known")


def same_rows(table, names, rng):
    """Returns the columns before a column: one sampled row, many times."""
    row = table.sample(1, rng)
    before = {name: np.repeat(row[name].to_numpy(), ROWS) for name in names}
    return {"": np.zeros(ROWS), **before}


def total(column, before):
    """Returns the sum or the integral of p of a column given a row."""
    one = {name: values[:1] for name, values in before.items()}
    if hasattr(column, "labels"):
        return sum(np.exp(column.log_prob([label], one))[0] for label in column.labels)
    if column.kind == "count":
        return np.exp(column.log_prob(np.arange(6_000), before_of(before, 6_000))).sum()
    low, high = column.given(one).ppf([1e-9, 1 - 1e-9]).ravel()
    x = np.linspace(low, high, ROWS)
    return integrate.trapezoid(np.exp(column.log_prob(x, before)), x) + (
        np.exp(column.log_prob(np.zeros(1), one))[0] if column.zeros else 0
    )


def before_of(before, rows):
    """Returns the first of some equal rows."""
    return {name: values[:rows] for name, values in before.items()}


@pytest.mark.parametrize("name", TABLES)
def test_the_distribution_of_each_column_sums_to_one_and_is_that_of_its_samples(tables, name):
    """Given a row, 1 / p is on average the number of values, or the length, of a part of them."""
    table, rng, names = tables.KNOWN[name], np.random.default_rng(0), []
    for column_name, column in table.columns.items():
        before = same_rows(table, names, rng)
        assert total(column, before) == pytest.approx(1, abs=1e-4), column_name
        values = column.sample(before, rng)
        density = np.exp(column.log_prob(values, before))
        if hasattr(column, "labels"):
            inside, size = np.full(ROWS, True), len(column.labels)
        elif column.kind == "count":
            low, high = np.quantile(values, [0.25, 0.75]).round()
            inside, size = (values >= low) & (values <= high), high - low + 1
        else:
            low, high = np.quantile(values[values != 0], [0.25, 0.75])
            inside, size = (values > low) & (values < high), high - low
        weights = inside / density
        error = weights.std() / ROWS**0.5
        assert abs(weights.mean() - size) < 4 * error + 1e-9, column_name
        if not hasattr(column, "labels") and column.zeros:
            share = np.exp(column.log_prob(np.zeros(1), before_of(before, 1)))[0]
            assert abs((values == 0).mean() - share) < 4 * (share / ROWS) ** 0.5, column_name
        names.append(column_name)


@pytest.mark.parametrize("name", ["normal", "mixture"])
def test_the_density_of_an_incomplete_row_is_the_integral_over_its_missing_value(tables, name):
    """Its gaps come from samples whose density this is; an empty row has the density 1."""
    table, rng = tables.GAPS[name], np.random.default_rng(0)
    rows = table.sample(ROWS, rng)
    row, x = rows[:1], np.linspace(-12, 12, 4_001)
    line = np.repeat(row, len(x), 0)
    line[:, 1] = x
    row = np.where(np.arange(row.shape[1]) == 1, np.nan, row)
    integral = integrate.trapezoid(np.exp(table.log_prob(line)), x)
    assert table.log_prob(row)[0] == pytest.approx(np.log(integral), abs=1e-6)
    assert table.log_prob(np.full_like(row, np.nan)).tolist() == [0.0]
    inside = (abs(rows - np.median(rows, 0)) < 0.7).all(1)
    weights = inside / np.exp(table.log_prob(rows))
    error = weights.std() / ROWS**0.5
    assert inside.sum() > 100
    assert abs(weights.mean() - 1.4 ** rows.shape[1]) < 4 * error


def test_gaps_are_a_fifth_of_the_values_and_follow_the_first_column(tables):
    """Only those of the mixture do."""
    rng = np.random.default_rng(0)
    for name, (least, most) in {"normal": (0.9, 1.1), "mixture": (3, 1e6)}.items():
        table = tables.GAPS[name]
        rows = table.sample(ROWS, rng)
        gaps = np.isnan(table.with_gaps(rows, rng))[:, 1:]
        is_large = rows[:, 0] > rows[:, 0].mean()
        assert gaps.mean() == pytest.approx(0.2, abs=0.01)
        assert least < gaps[is_large].mean() / gaps[~is_large].mean() < most


@pytest.mark.parametrize("codes", [True, False])
def test_the_mean_over_noise_gives_back_the_density_of_mixed_columns(benchmark, tables, codes):
    """The truth, constant within each cell, loses nothing."""
    pytest.importorskip("sklearn")
    table, rng = tables.KNOWN["zeros"], np.random.default_rng(0)
    frame = table.sample(40, rng)
    cells = benchmark("mixed_peers").Cells(table, frame, codes=codes)
    rows, log_q = cells.numbers(frame, rng)
    numbers = table.log_prob(frame) + log_q  # of these rows; others differ in the noise alone

    def log_prob(noisy):
        is_zero = (frame["spent"] == 0).to_numpy(), (frame["donated"] == 0).to_numpy()
        assert noisy.shape == rows.shape
        if codes:
            return numbers
        of_noise = [
            np.where(zero, -0.5 * x**2 - 0.5 * np.log(2 * np.pi), 0.0)
            for zero, x in zip(is_zero, noisy[:, -2:].T, strict=True)
        ]
        return table.log_prob(frame) + sum(of_noise)

    mean = cells.mean_density(frame, log_prob)
    assert mean == pytest.approx(table.log_prob(frame), abs=1e-9)


def test_intervals_of_exchangeable_draws_cover_their_level(benchmark):
    """So do 39 draws of the true distribution; too narrow ones do not."""
    pytest.importorskip("sklearn")
    coverage, rng = benchmark("mixed_real").coverage, np.random.default_rng(0)
    draws, truth = rng.normal(size=(39, 20_000)), rng.normal(size=20_000)
    line = coverage(np.sort(draws, 0), truth)
    for level in (50, 80, 95):
        assert line[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.012)
    assert coverage(np.sort(0.5 * draws, 0), truth)["coverage_80"] < 0.55


def test_the_energy_distance_of_paired_rows_is_that_of_a_hand_computation(benchmark):
    """It is 0 on average for draws of the same distribution."""
    distance = benchmark("mixed_real").energy_distance
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [3.0]])
    assert distance(x, y)[0] == pytest.approx((3 + 1 - 1 - 3) / 1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1_000, 3))
    assert abs(distance(x, y)[0]) < 0.01 < distance(x, 1.5 * y)[0]


@pytest.mark.parametrize(
    ("nats", "gone", "bias", "holds"),
    [
        (0.01, 0, -0.01, ["yes", "yes", "yes"]),
        (0.03, 0, -0.02, ["no", "yes", "no"]),
        (0.01, 1, 0.06, ["no", "no", "no"]),
    ],
)
def test_goals_of_mixed_columns_hold_and_fail_where_they_should(
    benchmark, nats, gone, bias, holds
):
    """Rows without a density are left out of the mean, and fail the goal."""
    ours = {"model": "kappaflow", "seed": 0}
    known = {"what": "known", "table": "labels and counts", "nats": nats, "nats_error": 0.01}
    gaps = {"what": "gaps", "table": "normal", "bias": bias, "bias_error": 0.008}
    lines = [ours | known | {"not_finite_rows": gone}, ours | gaps]
    table = benchmark("mixed_report").goals_table(lines)
    assert [line.split(" | ")[1] for line in table.splitlines()[2:]] == holds


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mixed_columns_run_to_their_page_and_resume(benchmark, tmp_path, monkeypatch):
    """A known table, one with gaps, and completions."""
    pytest.importorskip("sklearn")
    command, real = benchmark("mixed"), benchmark("mixed_real")
    for name, rows in {"ROWS": 600, "FRESH": 100, "GAP_DRAWS": 8}.items():
        monkeypatch.setattr(benchmark("mixed_measures"), name, rows)
    monkeypatch.setattr(real, "COVERED", 10)
    monkeypatch.setattr(real, "COMPLETED", 40)
    rng = np.random.default_rng(0)
    parts = benchmark("tables_suite.data").Parts(*rng.normal(size=(3, 400, 2)), ("a", "b"))
    monkeypatch.setattr(benchmark("tables_suite.data"), "load", lambda name: parts)
    monkeypatch.setattr(command, "large_tables", lambda part: ["stocks"])
    options = {"tables": ["labels and counts", "normal", "stocks"], "seconds": 1.0}
    options["only"] = ["known", "gaps", "imputation"]
    for _ in range(2):
        command.mixed(**options, results=tmp_path)
    lines = json.loads((tmp_path / "mixed.json").read_text())["lines"]
    assert [line["what"] for line in lines] == 3 * ["known"] + ["gaps"] + 4 * ["imputation"]
    assert len((tmp_path / "mixed.jsonl").read_text().splitlines()) == len(lines) + 1
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    page = (tmp_path / "benchmarks-mixed.md").read_text("utf-8")
    for text in ("| labels and counts | ", "| normal | ", "| stocks | hot deck | "):
        assert text in page


@pytest.mark.parametrize("way", ["uniform noise", "noise of a tenth", "learned noise"])
def test_noise_of_any_width_gives_the_probability_of_a_whole_number(benchmark, monkeypatch, way):
    """Weighted by importance, with normals as the flow: those of narrow noise fill cells too."""
    pytest.importorskip("sklearn")
    module = benchmark("mixed_encodings")
    for name, value in {"TRAINED": 300, "TESTED": 40, "DRAWS": 400}.items():
        monkeypatch.setattr(module, name, value)
    module.rows_of.cache_clear()
    rows = module.rows_of("labels and counts")
    columns, normal = module.Mixed("labels and counts", way, module.ONE_HOT), stats.norm(0, 1.2)
    flow = SimpleNamespace(log_prob=lambda x, _: torch.tensor(normal.logpdf(x).sum(1)))
    counts = rows.test.codes[:, columns.counts] - module.OFFSET
    whole = np.hstack([rows.test.numbers, counts])
    mean, scale = columns.mean.numpy(), columns.scale.numpy()
    ends = [normal.cdf((whole + side - mean) / scale) for side in (-0.5, 0.5)]
    expected = np.log(ends[1] - ends[0]).sum(1) + columns.log_labels(rows.test).numpy()
    assert module._log_prob(flow, columns, rows) == pytest.approx(expected, abs=0.2)
    module.rows_of.cache_clear()


def test_pinball_losses_and_bands_are_those_of_a_hand_computation(benchmark):
    """A quantile of 2.5 % one below its target costs 0.025, one above it 0.975."""
    pytest.importorskip("sklearn")
    loss = benchmark("mixed_quantiles").pinball(
        np.array([9 * [1.0], 9 * [3.0]]), np.array([2.0, 2])
    )
    assert loss[:, 0] == pytest.approx([0.025, 0.975])
    cell = benchmark("mixed_report")._covered(80, 2.0)
    assert cell({"coverage_80": 0.84, "values": 400}) == "84.0 (± 4.0)"
    assert cell({"coverage_80": 0.845, "values": 400}) == "**84.5** (± 4.0)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_encodings_and_quantiles_run_to_their_page(benchmark, tmp_path, monkeypatch):
    """A few steps of each encoding, on tables of known distribution; and a column of three."""
    pytest.importorskip("sklearn")
    command, module, columns = map(benchmark, ("mixed", "mixed_encodings", "mixed_quantiles"))
    small = {
        "STEPS": 4,
        "LONGER": 1,
        "SHOWN": (0.5,),
        "TRAINED": 300,
        "TESTED": 40,
        "DRAWS": 4,
        "SAMPLES": 64,
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    tables = dict(
        zip(module.QUESTIONS, (*2 * ["orders"], "labels and counts", "mixture"), strict=True)
    )
    questions = {key: ((tables[key],), ways) for key, (_, ways) in module.QUESTIONS.items()}
    monkeypatch.setattr(module, "QUESTIONS", questions)
    monkeypatch.setattr(columns, "CACHE", tmp_path)
    parts = benchmark("tables_suite.data").Parts(
        *np.random.default_rng(0).normal(size=(3, 400, 3)), ("a", "b", "c")
    )
    monkeypatch.setattr(benchmark("tables_suite.data"), "load", lambda name: parts)
    monkeypatch.setattr(command, "TABLES", ("firms",))
    command.mixed(only=["encodings", "quantiles"], seconds=1.0, results=tmp_path)
    module.rows_of.cache_clear()
    lines = json.loads((tmp_path / "mixed.json").read_text())["lines"]
    encoded = [line for line in lines if line["what"] == "encodings"]
    assert len(encoded) == 34
    for line in encoded:
        assert line["condition_p95"] >= line["condition_median"] >= 1, line["model"]
        assert ("nats" in line) != ("no noise" in line["model"]), line["model"]
        assert line.get("nats", 0.1) > 0, line["model"]
    losses = [line["pinball"] for line in lines if line["what"] == "quantiles"]
    assert len(losses) >= 2 and max(losses) < 0.4 and lines[-1]["coverage_50"] > 0.3
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    page = (tmp_path / "benchmarks-mixed.md").read_text("utf-8")
    for text in ("| noise of a tenth | x ", "| orders | no noise | ", "| firms | kappaflow | "):
        assert text in page
