"""Calibration: ranks, coverage and p-values against other implementations and closed forms."""

from importlib import import_module

import numpy as np
import pytest
import torch
from scipy import stats
from tarp import get_tarp_coverage
from tests.goodness.exact_flows import draws, kept, normal, table

import kappaflow as kf
from kappaflow.goodness.calibration import HIGHEST, RANDOM

module = import_module("kappaflow.goodness.calibration")


@pytest.fixture
def samples(monkeypatch):
    """Returns the list of all samples that a calibration draws."""
    drawn, original = [], module.samples_of

    def recorded(*args):
        drawn.append(original(*args))
        return drawn[-1]

    monkeypatch.setattr(module, "samples_of", recorded)
    return drawn


def wrong_at(scale):
    """Returns a conditional flow of x = c + noise whose scale is a function of the context."""
    return normal(1, lambda c: c[:, :1], lambda c: scale(c[:, :1]), 1)


def test_ranks_and_coverage_are_those_of_sbi(samples):
    """SBC, TARP and coverage of the same samples; TARP also by the ten lines of its paper."""
    from sbi.diagnostics import sbc, tarp

    c = draws(0, 200, 2)
    x = c + draws(1, 200, 2)
    flow = normal(2, lambda c: c, lambda c: 1.3 + 0 * c, 2)
    result = kf.calibration(flow, x, c, samples=100)
    posterior = torch.cat(samples).reshape(200, 100, 2).transpose(0, 1)
    ranks = sbc._run_sbc(x, c, posterior, show_progress_bar=False)
    assert np.array_equal(np.column_stack([result.ranks["x0"], result.ranks["x1"]]), ranks)
    theirs = sbc.check_uniformity_frequentist(ranks, 100)
    ours = [result.p_values[name] for name in ("x0", "x1")]
    assert ours == pytest.approx(theirs.tolist(), rel=0.5)  # the noise on ranks differs
    density = [lambda theta, c: flow.log_prob(theta, c.expand(len(theta), 2))]
    ranks = sbc._run_sbc(x, c, posterior, density, show_progress_bar=False)[:, 0]
    assert result.ranks[HIGHEST] == pytest.approx(ranks.numpy(), abs=1)  # rounding of densities

    cycle = np.random.default_rng(0).permutation(200)
    references = torch.empty_like(x)
    references[cycle] = x[np.roll(cycle, 1)]
    spread = x.std(0, correction=0)
    own = ((x - references) / spread).norm(dim=1)
    credible = (((posterior - references) / spread).norm(dim=2) < own).double().mean(0)
    assert result.ranks[RANDOM] / 100 == pytest.approx(credible.numpy())
    ecp, levels = tarp._run_tarp(posterior / spread, x / spread, references / spread, num_bins=500)
    shares = np.interp(result.coverages, levels, ecp)
    assert result.covered[RANDOM] == pytest.approx(shares.tolist(), abs=0.02)
    scaled = ((part / spread).numpy() for part in (posterior, x, references))
    ecp, levels = get_tarp_coverage(*scaled, norm=False, num_alpha_bins=100)
    shares = np.interp(result.coverages, levels, ecp)
    assert result.covered[RANDOM] == pytest.approx(shares.tolist(), abs=0.02)


def test_ranks_are_those_of_scipy_and_p_values_those_of_its_test(samples):
    """Without a context each row has its own samples."""
    x = draws(0, 100, 1)
    result = kf.calibration(normal(), x)
    values = np.concatenate([x, torch.cat(samples).reshape(100, 63)], axis=1)
    assert np.array_equal(result.ranks["x0"], stats.rankdata(values, axis=1)[:, 0] - 1)
    noise = np.random.default_rng(0).random(100)  # of the first name
    expected = stats.kstest((result.ranks["x0"] + noise) / 64, "uniform").pvalue
    assert result.p_values["x0"] == pytest.approx(expected, abs=0.15)
    assert kf.calibration(normal(), x, seed=1).ranks["x0"].tolist() != result.ranks["x0"].tolist()


def test_coverage_of_regions_of_a_normal_is_that_of_its_closed_form():
    """Of a normal that is too narrow by 1.5, in two columns: |x|^2 has a chi2 distribution."""
    rows = 1.5 * draws(0, 2_000, 2)
    result = kf.calibration(normal(2), rows, samples=127)
    levels = np.array(result.coverages)
    regions = stats.chi2.cdf(stats.chi2.ppf(levels, 2) / 1.5**2, 2)
    central = 2 * stats.norm.cdf(stats.norm.ppf((1 + levels) / 2) / 1.5) - 1
    assert result.covered[HIGHEST] == pytest.approx(regions.tolist(), abs=result.band)
    assert result.covered["x0"] == pytest.approx(central.tolist(), abs=result.band)
    assert result.band == pytest.approx(np.sqrt(np.log(40) / 4_000))
    assert result.level == "bad"
    right = kf.calibration(normal(2), rows / 1.5)
    assert right.level == "good"
    for covered in right.covered.values():
        assert covered == pytest.approx(right.coverages, abs=right.band)


def test_a_width_that_is_right_on_average_is_found_at_its_contexts():
    """1.5 times too wide in one half of the contexts, too narrow in the other; or shifted."""
    c = draws(0, 2_000, 1)
    x = c + draws(1, 2_000, 1)
    result = kf.calibration(wrong_at(lambda c: torch.where(c > 0, 1.5, 1 / 1.5)), x, c)
    assert result.p_values["x0"] > 0.01
    first = result.deviations[0]
    assert "context_x0 is" in first.place
    assert result.level in {"care", "bad"}
    right, wrong = result.contexts[:4], result.contexts[4:]
    assert min(one.central_half for one in wrong) > 0.55 > 0.45
    assert max(one.central_half for one in right) < 0.45
    assert kf.calibration(wrong_at(torch.ones_like), x, c).level == "good"
    shifted = kf.calibration(wrong_at(torch.ones_like), x + 0.3, c)
    assert "Predictions of x0 are too low" in shifted.deviations[0].sentence
    assert shifted.p_values["x0"] < 1e-10


def test_weights_count_in_ranks_coverage_and_p_values():
    """Rows that are kept by their value match the flow with their weights alone."""
    x, weights = kept(draws(0, 4_000, 1), 1)
    x, weights = x[:1_500], weights[:1_500]
    assert kf.calibration(normal(), x).level == "bad"
    weighted = kf.calibration(normal(), table(x, weights))
    assert weighted.level == "good"
    assert weighted.p_values["x0"] > 0.01
    assert weighted.covered["x0"] == pytest.approx(weighted.coverages, abs=weighted.band)
    equal = kf.calibration(normal(), table(x, np.full(1_500, 2.0)))
    plain = kf.calibration(normal(), x)
    assert equal.covered == {name: pytest.approx(own) for name, own in plain.covered.items()}
    assert equal.level == plain.level


@pytest.mark.parametrize("samples", [20, 50, 63, 100])
def test_sorted_rows_and_any_number_of_samples_are_right(samples):
    """Sorted by value within equal contexts; more than are used; rounded to whole numbers."""
    c = (draws(0, 3_000, 1) > 0).float()
    x = c + draws(1, 3_000, 1)
    order = x[:, 0].argsort()
    flow = wrong_at(torch.ones_like)
    result = kf.calibration(flow, x[order], c[order], samples=samples)
    assert result.level == "good"
    assert [(one.low, one.high) for one in result.contexts] == [(0, 0), (1, 1)]
    whole = (3 * draws(2, 1_000, 1)).round()
    assert kf.calibration(normal(scale=3.0), whole, samples=samples).level == "good"


@pytest.mark.slow
def test_p_values_of_right_flows_are_uniform():
    """Over 200 repeats, of each column and each kind of coverage."""
    p_values = []
    for seed in range(200):
        x = draws(seed, 200, 2)
        p_values.append(list(kf.calibration(normal(2), x, seed=seed).p_values.values()))
    for own in np.transpose(p_values):
        assert stats.kstest(own, "uniform").pvalue > 1e-3


def test_sentences_name_what_deviates():
    """A shape that has the right center and width, and the worst region of highest density."""
    rng = np.random.default_rng(0)
    u = np.concatenate([rng.uniform(size=1_000), rng.choice([0.1, 0.4, 0.6, 0.9], 1_000)])
    assert "Predictions of x0 have another shape" in module._sentence("x0", u, None, "")
    assert "are too low where c is 1: 48 %" in module._sentence(
        "x0", u**0.5, None, " where c is 1"
    )
    assert "are too narrow" in module._sentence("x0", np.round(u), None, "")
    u = np.append(rng.uniform(size=900), np.full(100, 0.95))
    assert module._sentence(HIGHEST, u, None, "") == (
        "The regions of highest density that should hold 10 % of the held-out rows hold 19 %."
    )
