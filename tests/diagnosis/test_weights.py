"""Checks that compare rows with a flow count each row by its weight."""

import numpy as np
import pytest
import torch
from scipy import stats
from tests.goodness.exact_flows import normal, table

import kappaflow as kf
from kappaflow.diagnosis import comparisons_of
from kappaflow.diagnosis.checks.samples import kolmogorov_smirnov
from kappaflow.diagnosis.tensors import effective_rows, mean_of, median_of, shares_of, spread_of

NARROW, WIDE = normal(columns=2), normal(scale=2.0, location=0.5, columns=2)


def weighted_rows(rows, seed):
    """Returns rows of the wide flow, and weights with which they follow the narrow one."""
    x = WIDE.sample(rows, generator=torch.Generator().manual_seed(seed))
    return x, (NARROW.log_prob(x) - WIDE.log_prob(x)).exp().double().numpy()


def test_an_exact_flow_of_the_weighted_rows_is_good():
    """The rows alone are from another density, which all that compares them finds."""
    (x, weights), (train, of_train) = weighted_rows(6000, 0), weighted_rows(6000, 1)
    result = kf.doctor(NARROW, table(x, weights), train=table(train, of_train))
    assert result.level == "good", result
    codes = {finding.code for finding in result.findings}
    assert codes <= {"KF501"}  # the flow is a Gaussian, so no better than one
    assert result.ok
    alone = kf.doctor(NARROW, x, train=train)
    assert alone.level == "bad"
    assert {"KF216", "KF501"} <= {finding.code for finding in alone.findings}


def test_a_wrong_flow_of_the_weighted_rows_is_not():
    """The flow of the rows without their weights."""
    x, weights = weighted_rows(6000, 0)
    result = kf.doctor(WIDE, table(x, weights))
    assert "KF216" in {finding.code for finding in result.findings}
    assert kf.doctor(WIDE, x).level == "good"


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_integer_weights_are_repeated_rows(shift):
    """All distances and differences are the same; repeated rows alone look like more rows."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(1500, 2)) + shift).float()
    counts = rng.integers(0, 4, 1500)
    repeated = x.repeat_interleave(torch.from_numpy(counts), 0)
    flow = normal(scale=1.5, columns=2)
    found = [
        {f.code: f.evidence for f in kf.doctor(flow, each).findings}
        for each in (table(x, counts.astype(float)), repeated)
    ]
    distances = [each["KF216"]["kolmogorov_smirnov"] for each in found]
    assert distances[0] == pytest.approx(distances[1], abs=1e-9)
    train = x[:700], None
    both = (
        comparisons_of(flow, x, None, train, weights=counts.astype(float), thorough=True),
        comparisons_of(flow, repeated, None, train, thorough=True),
    )
    for one, other in zip(*both, strict=True):
        assert one.difference == pytest.approx(other.difference, rel=1e-6)
        assert one.nll == pytest.approx(other.nll, rel=1e-6)


def test_references_are_fitted_to_weighted_rows():
    """With training rows of their own, and with one half of the rows."""
    x, weights = weighted_rows(4000, 2)
    for train in ((x, None), None):
        options = {} if train is None else {"train_weights": weights}
        gaussian = comparisons_of(NARROW, x, None, train, weights=weights, **options)[0]
        assert abs(gaussian.difference) < 0.03
        unweighted = comparisons_of(NARROW, x, None, train)[0]
        assert unweighted.difference > 1


def test_statistics_by_shares_are_those_of_repeated_rows():
    """Without weights they are those of torch and scipy."""
    rng = np.random.default_rng(0)
    values, other = (torch.from_numpy(rng.normal(size=(n, 3))) for n in (60, 90))
    counts = torch.from_numpy(rng.integers(0, 4, 60))
    shares, repeated = shares_of(counts, 60), values.repeat_interleave(counts, 0)
    equal = shares_of(None, 60)
    torch.testing.assert_close(mean_of(values, shares), repeated.mean(0))
    torch.testing.assert_close(spread_of(values, equal), values.std(0))
    assert effective_rows(equal) == 60
    assert effective_rows(shares) == pytest.approx(counts.sum() ** 2 / (counts**2).sum())
    assert median_of(values[:, 0], equal) == values[:, 0].median()
    assert median_of(values[:, 0], shares) == repeated[:, 0].median()
    a, b = values[:, 0], other[:, 0]
    distance, p_value = kolmogorov_smirnov(a, b, equal)
    plain = stats.ks_2samp(a.numpy(), b.numpy(), method="asymp")
    assert distance == pytest.approx(plain.statistic)
    assert p_value == pytest.approx(plain.pvalue, rel=0.3)
    assert kolmogorov_smirnov(a, b, shares)[0] == pytest.approx(
        kolmogorov_smirnov(repeated[:, 0], b)[0]
    )


def test_rows_without_weight_are_nobodys_fault():
    """Most rows are far away; nothing but their weights tells."""
    x = NARROW.sample(2000, generator=torch.Generator().manual_seed(0))
    x[np.arange(2000) % 4 < 3] += 40
    weights = np.tile([0.0, 0.0, 0.0, 1.0], 500)
    assert kf.doctor(NARROW, table(x, weights)).ok
    assert "KF403" in {finding.code for finding in kf.doctor(NARROW, x).findings}
    few = np.where(np.arange(2000) % 200 == 0, 1.0, weights)
    (finding,) = [f for f in kf.doctor(NARROW, table(x, few)).findings if f.code == "KF503"]
    assert finding.evidence["far"] == 10
    assert finding.evidence["mean_without"] == pytest.approx(
        NARROW.log_prob(x[3::4]).mean().item(), abs=1e-3
    )
