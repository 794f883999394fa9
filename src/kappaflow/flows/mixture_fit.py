"""Fits of mixtures of normals by EM: how many components, and from which start."""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

EM_ROWS, EM_STEPS = 10_000, 20  # largest numbers of rows and EM steps
GROWTH = 2.2  # factor on the time when the number of components doubles
IN_VAIN = 16  # factor on the number of components that ends the search if it gains nothing
WORTH = 0.005  # smallest gain, in nats per row, that justifies doubling the components
FLOOR = 1e-6  # added to the variances
MOST_COMPONENTS = 128
LEAST_ROWS = 20  # fewest rows for comparing numbers of components
TINY = 1e-12  # smallest standard deviation to divide by
DENSE_SHARE = 0.002  # of the rows, in the densest place
MOST_DENSE = 8  # components; more of them find a small cluster by k-means
CENTERS = 1_000  # rows around which a dense place is looked for


def best_components(
    rows: np.ndarray,
    seconds: float = math.inf,
    weights: np.ndarray | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Returns the number of components, a power of 2, with which a mixture fits rows (N, D) best.

    Each number is fitted to four fifths of the rows and scored on the rest, with their `weights`,
    (N,). The search ends when 16 times the components gain less than `WORTH` nats per row.
    `seconds` is the approximate time by the clock for the search and for fitting the mixture
    afterwards: numbers that would take longer are not tried.
    """
    started, step = clock(), 0.0
    if len(rows) < LEAST_ROWS:
        return 1
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:EM_ROWS]
    some, fifth = rows[order.numpy()], len(order) // 5
    some = (some - some.mean(0)) / np.maximum(some.std(0), TINY)
    held_out, fitted, shares = some[:fifth], some[fifth:], None
    if weights is not None:
        shares = weights[order.numpy()]
        fitted = fitted[sample_of(len(fitted), torch.from_numpy(shares[fifth:])).numpy()]
        shares = shares[:fifth]
    columns, best, score, count = rows.shape[1], 1, -math.inf, 1
    dense = densest(fitted)
    while count <= MOST_COMPONENTS and 2 * count * (columns + 1) <= len(fitted):
        begun = clock()
        if begun - started + 2 * GROWTH * step > seconds:
            break
        try:
            each = normal_mixture(fitted, count, dense).score_samples(held_out)
            result = float(np.average(each, weights=shares))
        except ValueError:  # a component with too few distinct rows has no covariance
            break
        if result >= score + WORTH:
            best, score = count, result
        elif count >= IN_VAIN * best:  # fewer may not find a small cluster
            break
        count *= 2
        step = clock() - begun
    return best


def sample_of(count: int, weights: Tensor | None = None, most: int = EM_ROWS) -> Tensor:
    """Returns the indices of at most `most` rows, in ascending order, the same in every call.

    With weights, (count,), rows repeat in proportion to them: a row of twice the smallest
    weight comes twice, if that gives no more than `most` rows.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    if weights is None:
        return order[:most].sort().values
    shares = weights.double().cpu()[order]
    total = shares.sum()
    copies = min(round((total / shares[shares > 0].min()).item()), most)
    ends = (shares.cumsum(0) / total * copies).round().long()
    return order.repeat_interleave(ends.diff(prepend=ends.new_zeros(1))).sort().values


def normal_mixture(rows: np.ndarray, components: int, dense: np.ndarray | None = None) -> Any:
    """Returns scikit-learn's mixture of normal distributions, fitted to rows (N, D).

    EM starts from k-means clusters. With few components it starts again with the densest place in
    the rows as one of them, since k-means divides the bulk and misses a small cluster; the
    likelier mixture is returned. `dense` are the indices of that place if they are known.
    """
    first = _fitted(rows, components)
    if not 1 < components <= MOST_DENSE:
        return first
    dense = densest(rows) if dense is None else dense
    try:
        second = _fitted(rows, components, **_dense_start(rows, components, dense))
    except ValueError:  # the densest place is a whole cluster, or has too few distinct rows
        return first
    return max(first, second, key=lambda mixture: mixture.lower_bound_)


def densest(rows: np.ndarray) -> np.ndarray:
    """Returns the indices of rows (N, D) that are next to each other where most are."""
    from scipy.spatial import KDTree

    count, features = rows.shape
    nearest = min(count, max(features + 2, round(DENSE_SHARE * count)))
    centers = rows[:: -(-count // CENTERS)]
    distances, members = map(np.asarray, KDTree(rows).query(centers, nearest))
    return members[distances[:, -1].argmin()]


def _fitted(rows: np.ndarray, components: int, **start: Any) -> Any:  # noqa: ANN401
    """Returns a mixture after EM from a start, by default k-means clusters."""
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        components, reg_covar=FLOOR, max_iter=EM_STEPS, random_state=0, **start
    )
    with warnings.catch_warnings(action="ignore"):  # a fit that has not converged is still usable
        return mixture.fit(rows)


def _dense_start(rows: np.ndarray, components: int, dense: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the start of EM from a dense place in the rows and clusters of the others."""
    from sklearn.cluster import KMeans

    labels = np.asarray(KMeans(components - 1, random_state=0).fit_predict(rows))
    labels[dense] = components - 1
    clusters = [rows[labels == label] for label in range(components)]
    if min(map(len, clusters)) < 2:
        raise ValueError("a cluster has too few rows")
    covariances = [np.atleast_2d(np.cov(cluster.T)) for cluster in clusters]
    return {
        "weights_init": np.array([len(cluster) / len(rows) for cluster in clusters]),
        "means_init": np.array([cluster.mean(0) for cluster in clusters]),
        "precisions_init": np.linalg.inv(np.array(covariances) + FLOOR * np.eye(rows.shape[1])),
    }
