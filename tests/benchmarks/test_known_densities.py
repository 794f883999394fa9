"""Known densities: log p is that of the samples and integrates to one, and a fit is measured."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

NAMES = ("banana", "clusters", "rounded", "rounded, dequantized", "copies", "heavy")


@pytest.fixture
def known(benchmark):
    """Returns the module that makes the tables."""
    return benchmark("known_densities")


def test_all_tables_are_tested(known):
    assert tuple(known.KNOWN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_density_integrates_to_one_and_is_that_of_the_samples(known, name):
    """By importance sampling from a wide Student t, within five standard errors."""
    rng = np.random.default_rng(0)
    density = known.KNOWN[name].target()
    truth = density.sample(20_000, rng)
    mean, spread = truth.mean(0), 1.2 * truth.std(0)
    wide = scipy.stats.multivariate_t(np.zeros(len(mean)), np.eye(len(mean)), df=2)
    units = wide.rvs(20_000, random_state=rng)
    rows = mean + spread * units
    proposed = wide.logpdf(units) - np.log(spread).sum()
    weights = np.exp(density.log_prob(rows) - proposed)
    assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(len(weights))
    for direction in np.eye(len(mean)).tolist() + [np.ones(len(mean)).tolist()]:
        for wave in (np.sin, np.cos):

            def value(x, wave=wave, direction=direction):
                return wave(2 * ((x - mean) / spread) @ direction)

            ours, theirs = weights * value(rows), value(truth)
            error = math.hypot(ours.std(), theirs.std()) / math.sqrt(len(rows))
            assert abs(ours.mean() - theirs.mean()) < 5 * error


def test_a_cell_has_the_probability_of_a_box(known):
    """Differences of the distribution function, by scipy."""
    table = known.KNOWN["rounded, dequantized"]
    rows = table.target().sample(5, np.random.default_rng(0))
    centers = table.rounded(rows)
    deviations = np.array([0.3, 1.0, 1.0])
    correlation = np.array([[1.0, 0.7, -0.3], [0.7, 1.0, 0.2], [-0.3, 0.2, 1.0]])
    gaussian = scipy.stats.multivariate_normal(
        [1.0, 20.0, -5.0], correlation * np.outer(deviations, deviations), abseps=1e-12
    )
    half = table.widths / 2
    boxes = gaussian.cdf(centers + half, lower_limit=centers - half)
    expected = np.log(boxes / table.widths.prod())
    assert np.allclose(table.target().log_prob(rows), expected, atol=5e-4)


def test_rows_are_rounded_and_copied(known):
    rng = np.random.default_rng(0)
    rows = known.KNOWN["rounded"].training_rows(1000, rng)
    assert np.array_equal(rows, np.stack([rows[:, 0].round(2), *rows[:, 1:].T.round(1)], 1))
    copies = known.KNOWN["copies"].training_rows(1100, rng)
    assert len(copies) == 1100 and len(np.unique(copies, axis=0)) == 1000


def test_differences_are_in_true_standard_deviations(known):
    truth = np.random.default_rng(0).standard_normal((1000, 2)) * [0.01, 100.0]
    moved = truth * 1.1 + [0.005, 0.0]
    found = known.differences(moved, truth)
    mean = np.abs(moved.mean(0) - truth.mean(0)) / truth.std(0)
    assert found["mean"] == pytest.approx(mean.max())
    assert found["deviation"] == pytest.approx(0.1)
    assert found["correlation"] == pytest.approx(0, abs=1e-12)
    assert found["quantile 0.5"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_a_fit_is_measured_once_and_shown(known, benchmark, tmp_path):
    """A second call finds the result in the file; the page shows it."""
    for _ in range(2):
        known.known_densities(seconds=1, only=["heavy"], results=tmp_path)
    lines = (tmp_path / "known-densities.jsonl").read_text().splitlines()
    assert sum('"table"' in line for line in lines) == 1
    found = json.loads((tmp_path / "known-densities.json").read_text())
    line = found["lines"][0]
    assert 0 < line["kl"] < math.inf
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert "--max-time-s 1`" in text and f"| heavy | {line['kl']:.4f} ±" in text
    assert torch.get_num_threads() == 1
