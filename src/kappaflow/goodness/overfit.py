"""How much better a flow scores its training rows than held-out rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from kappaflow.goodness.scan import FloatArray

FOLDS = 4
RIDGE = 1e-3  # added to the correlations of a copula


@dataclass(frozen=True)
class Gap:
    """Mean log_prob of training rows minus that of held-out rows, in nats per row.

    A flow that was fitted by maximum likelihood has about half of it as divergence from the truth
    by overfitting alone (Akaike 1973).
    """

    nats: float
    standard_error: float
    informative: float  # number of held-out rows, or fewer if their weights differ

    @property
    def p_value(self) -> float:
        """Probability of a gap as large for a flow that does not depend on the rows."""
        if self.standard_error <= 0:
            return 1.0
        return float(t.sf(self.nats / self.standard_error, max(1.0, self.informative - 1)))


Scored = tuple[FloatArray, FloatArray]  # features of rows, and their log_prob


def gap_of(
    train: Scored,
    held_out: Scored,
    modeled: int,
    weights: FloatArray | None = None,
    train_weights: FloatArray | None = None,
) -> Gap:
    """Returns the difference of the mean log_prob of training rows and of held-out rows.

    Most of its error is chance: some rows are more typical than others. A density that is fitted
    to some held-out rows says how typical the other rows are, and its difference is subtracted as
    a control variate. It knows nothing of the training rows. A function that is fitted to the flow
    itself would know them as the flow does, and subtract the overfitting as well.
    """
    (train_features, train_scores), (features, scores) = train, held_out
    folds = np.random.default_rng(len(features)).permutation(len(features)) % FOLDS
    train_part, part = np.zeros(len(train_scores)), np.empty(len(scores))
    for fold in range(FOLDS):
        own = folds == fold
        typical = _copula(features[~own], modeled)
        part[own] = typical(features[own])
        train_part += typical(train_features) / FOLDS
    slope = _slope(part, scores)
    train_mean, train_variance, _ = _mean(train_scores - slope * train_part, train_weights)
    mean, variance, informative = _mean(scores - slope * part, weights)
    return Gap(train_mean - mean, float(np.sqrt(train_variance + variance)), informative)


def _mean(values: FloatArray, weights: FloatArray | None) -> tuple[float, float, float]:
    """Returns a mean, its variance, and the number of equal weights that are as informative."""
    weights = np.ones(len(values)) if weights is None else weights
    shares = weights / weights.sum()
    mean, informative = float(shares @ values), float(1 / np.square(shares).sum())
    variance = float(np.square(shares * (values - mean)).sum())
    return mean, variance * informative / max(1.0, informative - 1), informative


def _copula(rows: FloatArray, modeled: int) -> Callable[[FloatArray], FloatArray]:
    """Returns an estimated log-density of the modeled columns, given the others.

    Each column has a histogram of equal counts, and all together a Gaussian copula.
    """
    count, spread = len(rows), np.ptp(rows, axis=0)
    at = np.linspace(0, count - 1, max(4, int(np.sqrt(count))) + 1).round().astype(int)
    knots, levels = np.sort(rows, axis=0)[at], (at + 0.5) / count
    widths = np.maximum(np.diff(knots, axis=0), 1e-6 * spread + 1e-300)
    logs = np.log(np.diff(levels)[:, None] / widths)

    def normal_scores(values: FloatArray) -> FloatArray:
        pairs = zip(values.T, knots.T, strict=True)
        return norm.ppf(np.column_stack([np.interp(x, ends, levels) for x, ends in pairs]))

    z = normal_scores(rows)
    covariance = np.atleast_2d(np.cov(z.T)) + RIDGE * np.eye(z.shape[1])
    precision = np.linalg.inv(covariance)
    precision[:modeled, :modeled] -= np.eye(modeled)
    if modeled < len(covariance):
        precision[modeled:, modeled:] -= np.linalg.inv(covariance[modeled:, modeled:])

    def log_density(values: FloatArray) -> FloatArray:
        z = normal_scores(values)
        result: FloatArray = -0.5 * ((z @ precision) * z).sum(axis=1)
        for j in range(modeled):
            result += logs[np.searchsorted(knots[1:-1, j], values[:, j]), j]
        return result

    return log_density


def _slope(part: FloatArray, scores: FloatArray) -> float:
    centered = part - part.mean()
    total = float(centered @ centered)
    return float(centered @ scores) / total if total > 0 else 0.0
