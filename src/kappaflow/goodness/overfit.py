"""How much better a flow scores its training rows than held-out rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kappaflow.goodness.scan import FloatArray

SURROGATE_ROWS = 20_000
TREES, LEAVES_OF_EACH = 60, 15  # of the boosted trees


@dataclass(frozen=True)
class Gap:
    """Mean log_prob of training rows minus that of held-out rows, in nats per row.

    A flow that was fitted by maximum likelihood has about half of it as divergence from the truth
    by overfitting alone (Akaike 1973).
    """

    nats: float
    standard_error: float


Scored = tuple[FloatArray, FloatArray]  # features of rows, and their log_prob


def gap_of(
    train: Scored, held_out: Scored, samples: Scored, weights: FloatArray | None = None
) -> Gap:
    """Returns the difference of the mean log_prob of training rows and of held-out rows.

    Most of its error is chance: some rows are more typical than others. A smooth function that
    predicts log_prob is fitted to samples of the flow, which are no part of the data, and its
    difference is subtracted as a control variate. `weights` are those of the held-out rows.
    """
    (train_features, train_scores), (features, scores) = train, held_out
    predicted = _surrogate(*samples)
    train_part, part = (predicted(rows) for rows in (train_features, features))
    slope = _slope(part, scores)
    train_rest, rest = train_scores - slope * train_part, scores - slope * part
    shares = np.full(len(rest), 1 / len(rest)) if weights is None else weights / weights.sum()
    mean = float(shares @ rest)
    variance = float(np.square(shares * (rest - mean)).sum()) + train_rest.var() / len(train_rest)
    return Gap(float(train_rest.mean()) - mean, float(np.sqrt(variance)))


def _surrogate(features: FloatArray, scores: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Returns a smooth function of features that predicts scores."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features, scores = features[:SURROGATE_ROWS], scores[:SURROGATE_ROWS]
    low, high = np.quantile(scores, [0.001, 1])
    kept = scores >= low
    degree = 2 if features.shape[1] <= 60 else 1
    polynomial = make_pipeline(StandardScaler(), PolynomialFeatures(degree), LinearRegression())
    polynomial.fit(features[kept], scores[kept])
    trees = HistGradientBoostingRegressor(
        max_iter=TREES, max_leaf_nodes=LEAVES_OF_EACH, random_state=0
    )
    trees.fit(features[kept], scores[kept] - polynomial.predict(features[kept]))

    def predict(rows: FloatArray) -> FloatArray:
        return np.clip(polynomial.predict(rows) + trees.predict(rows), low, high)

    return predict


def _slope(part: FloatArray, scores: FloatArray) -> float:
    centered = part - part.mean()
    total = float(centered @ centered)
    return float(centered @ scores) / total if total > 0 else 0.0
