"""Far latents of flows that a search has trained decode to finite points."""

import numpy as np
import polars as pl
import pytest
from benchmarks.known_tables import TABLES
from scipy import stats

import kappaflow as kf
from kappaflow.testing.flows import check_far_latents


def t_copula(rows=20_000, seed=0):
    """Returns eight columns with dependent tails: a t copula with three degrees of freedom."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(8) + 0.4 * rng.normal(size=(8, 8))
    covariance = mixing @ mixing.T
    scales = np.sqrt(np.diag(covariance))
    normal = rng.multivariate_normal(np.zeros(8), covariance / np.outer(scales, scales), rows)
    shares = stats.t(3).cdf(normal / np.sqrt(rng.chisquare(3, rows) / 3)[:, None])
    margins = [stats.lognorm(0.8), stats.lognorm(0.3), stats.gamma(2), stats.gamma(5)]
    margins += [stats.gamma(1.5), stats.norm(), stats.norm(3, 2), stats.logistic()]
    return np.stack([law.ppf(shares[:, i]) for i, law in enumerate(margins)], 1)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["t copula", "Cauchy", "heavy 6", "lognormal 3", "spirals"])
def test_far_latents_of_trained_flows_have_finite_points_and_densities(table):
    """A column with heavy tails, domains and gaps; 6 % of those of the t copula had none once."""
    known = TABLES.get(table)
    rng = np.random.default_rng(0)
    rows = t_copula() if known is None else known.density.sample(5000, rng)
    frame = pl.DataFrame(rows, schema=[f"x{i + 1}" for i in range(rows.shape[1])])
    options = {} if known is None else known.options
    flow = kf.fit_auto(frame, max_time_s=15, progress=False, **options).flow
    check_far_latents(flow.eval(), None)
