"""How much better a flow scores its training rows than held-out rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtr

from kappaflow.goodness.scan import FloatArray

FOLDS = 4
MOST_SAMPLES, FEW = 20_000, 0.001  # samples, and the share of least log_prob that is left out
TREES, LEAVES_OF_EACH, QUADRATIC_COLUMNS = 60, 15, 60
NEGLIGIBLE = 0.02  # nats by which a flow may score its training rows higher
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
    tests: int = 1  # of which this difference is the most significant

    @property
    def p_value(self) -> float:
        """Probability of a gap as large for a flow that does not depend on the rows."""
        if self.standard_error <= 0:
            return 1.0
        chance = float(stdtr(max(1.0, self.informative - 1), -self.nats / self.standard_error))
        return min(1.0, self.tests * chance)


Scored = tuple[FloatArray, FloatArray]  # features of rows, and their log_prob


def gap_of(
    train: Scored,
    held_out: Scored,
    modeled: int,
    weights: FloatArray | None = None,
    train_weights: FloatArray | None = None,
    samples: Scored | None = None,
) -> Gap:
    """Returns the difference of the mean log_prob of training rows and of held-out rows.

    Most of its error is chance: some rows are more typical than others. A control variate says how
    typical a row is, and its difference is subtracted. One is a density fitted to some held-out
    rows for the others; it knows nothing of the training rows. With samples, another is a function
    fitted to their log_prob. It follows the flow more closely, but knows the training rows as the
    flow does and may subtract overfitting: all of it if the flow is a normal. Its difference
    counts if it is more significant and not negligible.
    """
    controls = [_from_rows(train[0], held_out[0], modeled)]
    if samples is not None:
        predicted = _from_samples(*samples)
        controls.append((predicted(train[0]), predicted(held_out[0])))
    gaps = [_gap(train[1], held_out[1], control, weights, train_weights) for control in controls]
    listed = [gaps[0], *(gap for gap in gaps[1:] if gap.nats >= NEGLIGIBLE)]
    return replace(min(listed, key=lambda gap: gap.p_value), tests=len(gaps))


def _gap(
    train_scores: FloatArray,
    scores: FloatArray,
    control: tuple[FloatArray, FloatArray],
    weights: FloatArray | None,
    train_weights: FloatArray | None,
) -> Gap:
    train_part, part = control
    slope = _slope(part, scores)
    train_mean, train_variance, _ = _mean(train_scores - slope * train_part, train_weights)
    mean, variance, informative = _mean(scores - slope * part, weights)
    return Gap(train_mean - mean, float(np.sqrt(train_variance + variance)), informative)


def _from_rows(train: FloatArray, rows: FloatArray, modeled: int) -> tuple[FloatArray, FloatArray]:
    """Returns the log-density of training and held-out rows under densities of other rows."""
    folds = np.random.default_rng(len(rows)).permutation(len(rows)) % FOLDS
    train_part, part = np.zeros(len(train)), np.empty(len(rows))
    for fold in range(FOLDS):
        own = folds == fold
        typical = _copula(rows[~own], modeled)
        part[own] = typical(rows[own])
        train_part += typical(train) / FOLDS
    return train_part, part


def _from_samples(features: FloatArray, scores: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Returns a smooth function of features that predicts log_prob: quadratic, then trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features, scores = features[:MOST_SAMPLES], scores[:MOST_SAMPLES]
    low, high = (float(end) for end in np.quantile(scores, [FEW, 1]))
    features, scores = features[scores >= low], scores[scores >= low]
    degree = 2 if features.shape[1] <= QUADRATIC_COLUMNS else 1
    smooth = make_pipeline(StandardScaler(), PolynomialFeatures(degree), LinearRegression())
    smooth.fit(features, scores)
    trees = HistGradientBoostingRegressor(
        max_iter=TREES, max_leaf_nodes=LEAVES_OF_EACH, random_state=0
    )
    trees.fit(features, scores - smooth.predict(features))
    return lambda rows: np.clip(smooth.predict(rows) + trees.predict(rows), low, high)


def _mean(values: FloatArray, weights: FloatArray | None) -> tuple[float, float, float]:
    """Returns a mean, its variance, and the number of equal weights that are as informative."""
    weights = np.ones(len(values)) if weights is None else weights
    shares = weights / weights.sum()
    mean, informative = float(shares @ values), float(1 / np.square(shares).sum())
    variance = float(np.square(shares * (values - mean)).sum())
    return mean, variance * informative / max(1.0, informative - 1), informative


def _copula(rows: FloatArray, modeled: int) -> Callable[[FloatArray], FloatArray]:
    """Returns an estimated log-density of the modeled columns, given the others, by a copula."""
    count, spread = len(rows), np.ptp(rows, axis=0)
    at = np.linspace(0, count - 1, max(4, int(np.sqrt(count))) + 1).round().astype(int)
    knots, levels = np.sort(rows, axis=0)[at], (at + 0.5) / count
    widths = np.maximum(np.diff(knots, axis=0), 1e-6 * spread + 1e-300)
    logs = np.log(np.diff(levels)[:, None] / widths)

    def normal_scores(values: FloatArray) -> FloatArray:
        pairs = zip(values.T, knots.T, strict=True)
        return ndtri(np.column_stack([np.interp(x, ends, levels) for x, ends in pairs]))

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
