"""The classifier two-sample test: can boosted trees separate rows from samples?"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kappaflow.goodness.deviation import Bounds
from kappaflow.goodness.scan import FloatArray, IntArray, Pool

FOLDS = 4
MOST_TRAINED = 16_000  # rows, and as many samples, of each training
TREES, LEAVES_OF_EACH = 100, 15  # of the boosted trees
LEAVES, LEAF_SHARE = 12, 0.002  # of the tree that describes where the classifier is sure
LOGITS = -6.0 - math.log(2), 6.0 - math.log(2)  # the ends, as there are two samples for a row


@dataclass(frozen=True)
class Classified:
    """Held-out rows and samples with the score of a classifier that has not seen them."""

    # Estimated log of the density of the rows over that of the samples, up to a constant, (n + m,)
    logits: FloatArray
    order: IntArray  # the order of rows and samples by the score
    auc: float  # probability that a row has a larger score than a sample
    standard_error: float  # standard error of the AUC (DeLong, DeLong, Clarke-Pearson 1988)
    # Divergence that the classifier shows, in nats per row: a lower bound (Donsker, Varadhan 1975)
    nats: float


class Leaf(NamedTuple):
    """A box of the features, with the positions of the rows and samples in it."""

    bounds: dict[int, Bounds]
    inside: IntArray


def classified(
    features: FloatArray,
    pool: Pool,
    train: tuple[FloatArray, FloatArray, FloatArray | None] | None = None,
    owners: IntArray | None = None,
    seed: int = 0,
) -> Classified:
    """Returns the scores of rows and samples.

    `train` has other rows and samples to train the classifier on, and weights of the rows. Without
    them it is cross-fitted: each quarter of rows and samples is scored by a classifier trained on
    the others. `owners` is the row of each sample with the same context: both are in the same
    quarter, or the contexts would show which rows are missing in the training.
    """
    from scipy.stats import rankdata  # takes half as long to load as torch

    rng = np.random.default_rng(seed)
    n, m = pool.rows, pool.samples
    logits, ranks = np.empty(n + m), np.empty(n + m)
    if train is not None:
        model = _trained(*train, rng)
        logits = np.clip(model.decision_function(features), *LOGITS)
        ranks = logits
    else:
        of_rows = rng.permutation(n) % FOLDS
        of_samples = rng.permutation(m) % FOLDS if owners is None else of_rows[owners]
        folds = np.concatenate([of_rows, of_samples])
        is_row = np.arange(n + m) < n
        for fold in range(FOLDS):
            others, own = folds != fold, np.flatnonzero(folds == fold)
            weights = None if pool.weights is None else pool.weights[others[:n]]
            model = _trained(features[others & is_row], features[others & ~is_row], weights, rng)
            logits[own] = np.clip(model.decision_function(features[own]), *LOGITS)
            # scores of different models are compared by their ranks in a quarter
            ranks[own] = rankdata(logits[own]) / len(own)
    order = np.lexsort((rng.random(n + m), ranks))
    auc, error = _auc(order, pool)
    nats = _divergence(logits[:n], logits[n:], pool.weights)
    return Classified(logits, order, auc, error, nats)


def leaves(features: FloatArray, logits: FloatArray) -> list[Leaf]:
    """Returns the boxes of a small tree that describes the score of a classifier."""
    from sklearn.tree import DecisionTreeRegressor

    least = max(8, int(LEAF_SHARE * len(features)))
    fitted = DecisionTreeRegressor(max_leaf_nodes=LEAVES, min_samples_leaf=least, random_state=0)
    fitted.fit(features, logits)
    tree: Any = fitted.tree_
    home = fitted.apply(features)
    return [Leaf(bounds, np.flatnonzero(home == node)) for node, bounds in _boxes(tree).items()]


def _boxes(tree: Any) -> dict[int, dict[int, Bounds]]:
    """Returns the bounds of the features in each leaf, by its number."""
    boxes: dict[int, dict[int, Bounds]] = {}
    queue: list[tuple[int, dict[int, Bounds]]] = [(0, {})]
    for node, bounds in queue:
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            boxes[node] = bounds
            continue
        feature, cut = int(tree.feature[node]), float(tree.threshold[node])
        low, high = bounds.get(feature, (-np.inf, np.inf))
        queue += [
            (left, {**bounds, feature: (low, cut)}),
            (right, {**bounds, feature: (cut, high)}),
        ]
    return boxes


def _trained(
    rows: FloatArray, samples: FloatArray, weights: FloatArray | None, rng: np.random.Generator
) -> Any:
    """Returns a classifier; rows with weights are drawn in proportion to them."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    shares = None if weights is None else weights / weights.sum()
    most = min(MOST_TRAINED, len(rows))
    rows = rows[rng.choice(len(rows), most, replace=weights is not None, p=shares)]
    samples = samples[rng.permutation(len(samples))[: 2 * most]]
    options: dict[str, Any] = {"early_stopping": False, "random_state": 0}
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_leaf_nodes=LEAVES_OF_EACH, **options
    )
    model.fit(np.concatenate([rows, samples]), np.repeat([1, 0], [len(rows), len(samples)]))
    return model


def _auc(order: IntArray, pool: Pool) -> tuple[float, float]:
    """Returns the AUC and its standard error, by what each row and sample contributes."""
    weights = np.ones(pool.rows) if pool.weights is None else pool.weights
    ranked = np.concatenate([weights, np.zeros(pool.samples)])[order]
    shares, is_sample = ranked / ranked.sum(), order >= pool.rows
    below = (np.cumsum(is_sample) / pool.samples)[~is_sample]
    above = (1 - np.cumsum(shares))[is_sample]
    auc, n = float(shares[~is_sample] @ below), pool.effective_rows
    variance = np.square(shares[~is_sample] * (below - auc)).sum() * n / max(1.0, n - 1)
    return auc, float(np.sqrt(variance + above.var() / pool.samples))


def _divergence(rows: FloatArray, samples: FloatArray, weights: FloatArray | None) -> float:
    """Returns the bound of the divergence, in nats per row, that these log-ratios give."""
    return float(np.average(rows, weights=weights)) - float(np.log(np.exp(samples).mean()))
