"""Densities given a context that are not flows: mixtures of Gaussians and boosted quantiles."""

from time import process_time
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.tables_suite.data import Parts
from benchmarks.tables_suite.fitted import Fitted

Rows = np.ndarray
LEVELS = np.array([0.005, 0.02, *np.linspace(0.05, 0.95, 19), 0.98, 0.995])
LEAST_WIDTH = 1e-3  # of a bin between quantiles, over the distance of the outermost ones
SIZES = ((50, 8), (150, 8), (150, 31), (400, 31))  # iterations and leaves, in order of their cost
NEXT = 3.0  # times the cost of a size is at least about that of the next one


class MixtureGiven:
    """A mixture of Gaussians as the density of columns after their context."""

    def __init__(self, model: Any, context: int) -> None:  # noqa: ANN401
        self.model, self.context = model, context
        self.parts = list(zip(model.means_, model.covariances_, strict=True))

    def of_context(self, rows: Rows) -> Rows:
        """Returns the log-density of contexts jointly with each component, (n, components)."""
        k, logs = self.context, np.log(self.model.weights_)
        if not k:
            return np.broadcast_to(logs, (len(rows), len(logs)))
        normals = [multivariate_normal(mean[:k], spread[:k, :k]) for mean, spread in self.parts]
        return logs + np.stack([np.atleast_1d(p.logpdf(rows[:, :k])) for p in normals], 1)

    def log_prob(self, rows: Rows) -> Rows:
        """Returns log p of rows given their context."""
        return self.model.score_samples(rows) - logsumexp(self.of_context(rows), 1)

    def sample(self, rows: Rows, seed: int) -> Rows:
        """Returns as many samples as rows, at their context."""
        k, rng = self.context, np.random.default_rng(seed)
        logs = self.of_context(rows)
        component = (logs + rng.gumbel(size=logs.shape)).argmax(1)
        samples = np.empty((len(rows), len(self.parts[0][0]) - k))
        for j, (mean, spread) in enumerate(self.parts):
            chosen = component == j
            slope = np.linalg.solve(spread[:k, :k], spread[:k, k:])
            root = np.linalg.cholesky(spread[k:, k:] - spread[k:, :k] @ slope)
            noise = rng.standard_normal((int(chosen.sum()), samples.shape[1]))
            samples[chosen] = mean[k:] + (rows[chosen, :k] - mean[:k]) @ slope + noise @ root.T
        return samples


class BoostedQuantiles:
    """Columns given their context and the columns before, by boosted quantiles of each.

    The density is constant between quantiles and falls exponentially, without a jump, beyond the
    outermost ones.
    """

    def __init__(self, parts: Parts, iterations: int, leaves: int, seed: int) -> None:
        self.columns = range(parts.context, parts.train.shape[1])
        self.models = [
            [
                HistGradientBoostingRegressor(
                    loss="quantile",
                    quantile=level,
                    max_iter=iterations,
                    max_leaf_nodes=leaves,
                    random_state=seed,
                ).fit(parts.train[:, :column], parts.train[:, column])
                for level in LEVELS
            ]
            for column in self.columns
        ]

    def edges(self, rows: Rows, models: list[Any], column: int) -> tuple[Rows, Rows]:
        """Returns quantiles in ascending order, (n, levels), and the densities between them."""
        raw = np.sort(np.stack([m.predict(rows[:, :column]) for m in models], 1), 1)
        least = LEAST_WIDTH * (raw[:, -1:] - raw[:, :1]) + 1e-9
        gaps = np.maximum(np.diff(raw), least)
        edges = raw[:, :1] + np.cumsum(np.hstack([np.zeros((len(rows), 1)), gaps]), 1)
        return edges, np.diff(LEVELS) / gaps

    def log_prob(self, rows: Rows) -> Rows:
        """Returns log p of rows given their context."""
        total, every = np.zeros(len(rows)), np.arange(len(rows))
        for column, models in zip(self.columns, self.models, strict=True):
            edges, density = self.edges(rows, models, column)
            x = rows[:, column]
            inside = np.clip((x[:, None] > edges).sum(1) - 1, 0, len(LEVELS) - 2)
            beyond = np.maximum(edges[:, 0] - x, x - edges[:, -1]).clip(min=0)
            rate = density[every, inside] / LEVELS[0]  # both tails have the same mass
            total += np.log(density[every, inside]) - rate * beyond
        return total


def boosted(parts: Parts, seconds: float, seed: int) -> Fitted:
    """Fits boosted quantiles of each size that the time allows, and keeps what validates best."""
    start, best, best_score, tried, cost = process_time(), None, np.inf, {}, 0.0
    for iterations, leaves in SIZES:
        before = process_time()
        if best is not None and before - start + NEXT * cost > seconds:
            break
        density = BoostedQuantiles(parts, iterations, leaves, seed)
        score = -float(density.log_prob(parts.validation).mean())
        cost = process_time() - before
        tried[f"{iterations} of {leaves} leaves"] = round(score, 4)
        if best is None or score < best_score:
            best, best_score = density, score
    if best is None:
        raise ValueError(f"'seconds' should be above 0, got {seconds}.")
    return Fitted(best.log_prob, None, {"tuning": tried})
