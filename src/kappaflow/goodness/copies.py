"""`copies`: do samples of a flow repeat the rows that it was trained on?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from kappaflow._checks import natural_int
from kappaflow.errors import ArgumentError
from kappaflow.flows.rows import Data
from kappaflow.goodness.inputs import same_columns
from kappaflow.goodness.scan import FloatArray, IntArray
from kappaflow.results import to_plain
from kappaflow.summary import Facts, Summary

MOST_ROWS, MOST_SAMPLES = 20_000, 5_000  # of each part; more are left out at random
TREE_COLUMNS = 10  # up to which a tree is faster than all distances
PERMUTATIONS = 9_999
SIGNIFICANT = 0.01  # the largest p-value that is called copying
POWER = 2.0  # standard errors above what is significant at which copies are seen nearly always
ROUNDING = 1e-6  # relative difference of two values that are called equal: float32 has 6e-8


@dataclass(frozen=True, repr=False)
class Copies(Summary):
    """Samples of a flow, compared with training rows and with rows that it has not seen.

    Attributes:
        samples: Number of samples.
        train_rows: Number of different training rows.
        held_out_rows: Number of different held-out rows.
        share: Share of the samples whose nearest row is a training row.
        expected: This share without copying: that of the training rows among all rows.
        standard_error: Standard error of `share` without copying.
        p_value: Probability of a share as large without copying.
        copied: Share of copies among samples that explains `share`, 0 or more.
        smallest: Share of copies that would nearly always have been seen.
        exact: Share of the samples that equal a training row. A value of rows of both parts counts
            by the share of training rows among them.
        exact_by_chance: This share without copying, estimated from held-out rows.
        distance: Median distance of samples to the nearest training row: the root mean square
            difference of ranks between 0 and 1.
        held_out_distance: The same of held-out rows.
        verdict: The result as a sentence.
    """

    samples: int
    train_rows: int
    held_out_rows: int
    share: float
    expected: float
    standard_error: float
    p_value: float
    copied: float
    smallest: float
    exact: float
    exact_by_chance: float
    distance: float
    held_out_distance: float
    verdict: str

    def _facts(self) -> Facts:
        share = f"{self.share:.1%} ± {self.standard_error:.1%}"
        return [
            ("nearest to a training row", f"{share} of {self.samples:,} samples"),
            ("without copying", f"{self.expected:.1%}"),
            ("p-value", f"{self.p_value:.2g}"),
            ("equal to a training row", f"{self.exact:.1%}, {self.exact_by_chance:.1%} by chance"),
            ("distance", f"{self.distance:.2g}, of held-out rows {self.held_out_distance:.2g}"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain values for JSON."""
        return to_plain(self)


def copies(samples: Data, train: Data, held_out: Data, *, seed: int = 0) -> Copies:
    """Tests whether samples are nearer to training rows than to rows that the flow has not seen.

    If the flow copies nothing, the nearest row of a sample is a training row as often as any row
    is. All rows count, so no training row is left out to have as many of both. The p-value is
    that of permutations of which rows are training rows. It holds for any flow, right or wrong,
    and although several samples share a nearest row. If some samples equal a row, these are
    tested once more on their own, and the smaller p-value is doubled.

    Columns are compared by their ranks among all rows: units, heavy tails and increasing maps of
    a column change nothing. Columns that are constant are left out. Equal rows count as one,
    which is a training row if one of them, drawn at random, is: repeated and rounded rows are
    then no evidence, whether or not a split keeps them together.

    Args:
        samples: Samples of the flow, (M, D), at least 30: an array, a tensor, a data frame, a
            `Table` or a path, in any units. 5,000 are compared at most.
        train: Rows that the flow was trained on, (N, D), at least 30. 20,000 are compared at
            most: of more, only the copies of these are seen.
        held_out: Rows that had no influence on the flow, (K, D), at least 30, and 20,000 at most.
            Training and held-out rows should be one table that was split at random.
        seed: Seed of the permutations, and of which rows are left out.

    Returns:
        The shares and distances, and a verdict. An estimate of the share of copies, `copied`,
        counts a sample that is nearer to a training row than chance explains as a copy. Weights
        of rows are not used.

    Raises:
        ArgumentError: The columns differ, all are constant, there are fewer than 30 rows, or a
            value is not finite.

    Source:
        Meehan, Chaudhuri, Dasgupta 2020, A non-parametric test to detect data-copying in
        generative models. Distance to the closest record: Park et al. 2018, Data synthesis based
        on generative adversarial networks. The test by permutations of the labels: ours.

    Example:
        >>> import numpy as np, kappaflow as kf
        >>> rows = np.random.default_rng(0).normal(size=(3000, 4))
        >>> train, held_out, fresh = rows[:1000], rows[1000:2000], rows[2000:]
        >>> kf.copies(fresh, train, held_out).p_value > 0.01
        True
        >>> result = kf.copies(np.concatenate([fresh, train]), train, held_out)
        >>> round(result.share, 1), round(result.exact, 1), result.p_value
        (0.8, 0.5, 0.0002)
    """
    natural_int("seed", seed)
    _, sources = same_columns(samples=samples, train=train, held_out=held_out)
    rng = np.random.default_rng(seed)
    limits = (MOST_SAMPLES, MOST_ROWS, MOST_ROWS)
    samples, train, held_out = (
        part[rng.permutation(len(part))[:most]] for part, most in zip(sources, limits, strict=True)
    )
    rows = np.concatenate([train, held_out])
    varies = np.ptp(rows, axis=0) > 0
    if not varies.any():
        raise ArgumentError("'train' should have a column that is not constant, got none.")
    rows, samples = rows[:, varies], samples[:, varies]
    ranks, sample_ranks = _ranks(rows, rows), _ranks(rows, samples)

    order = rng.permutation(len(rows))
    _, first, group = np.unique(ranks[order], return_index=True, return_inverse=True, axis=0)
    chosen, trained, group = order[first], order[first] < len(train), group.ravel()
    parts = np.bincount(group, order < len(train)) / np.bincount(group)  # from the training rows
    _, nearest = _nearest(ranks[chosen], sample_ranks)
    share, error, p_value = _permuted(nearest, trained, rng)
    expected = float(trained.mean())
    pair = samples, rows[chosen[nearest]]
    equal = np.isclose(*pair, rtol=ROUNDING, atol=ROUNDING * rows.std(axis=0)).all(axis=1)
    if equal.any():  # few exact copies show among the samples that equal any row
        p_value = min(1.0, 2 * min(p_value, _permuted(nearest[equal], trained, rng)[2]))
    exact = float((equal * parts[nearest]).mean())
    by_chance = float((equal * (1 - parts[nearest])).mean()) * len(train) / len(held_out)
    by_chance = min(1.0, by_chance)
    both = np.concatenate([sample_ranks, ranks[len(train) :]])
    distances, _ = _nearest(ranks[: len(train)], both)
    copied = max(0.0, (share - expected) / (1 - expected))
    smallest = min(1.0, (float(ndtri(1 - SIGNIFICANT)) + POWER) * error / (1 - expected))
    near = f"{share:.1%} ± {error:.1%} of them are nearest to a training row"
    near += f", and {expected:.1%} would be without copying"
    if p_value > SIGNIFICANT:
        verdict = f"Samples show no copies of training rows: {near}. Copies would nearly always "
        verdict += f"have been seen from a share of {smallest:.1%}."
    else:
        verdict = f"Samples are too near to training rows: {near} (p = {p_value:.1g}), as if "
        verdict += f"{copied:.0%} of them were copies."
    if equal.any():
        verdict += f" {exact:.1%} equal a training row, and {by_chance:.1%} would by chance."
    return Copies(
        samples=len(samples),
        train_rows=int(trained.sum()),
        held_out_rows=int((~trained).sum()),
        share=share,
        expected=expected,
        standard_error=error,
        p_value=p_value,
        copied=copied,
        smallest=smallest,
        exact=exact,
        exact_by_chance=by_chance,
        distance=float(np.median(distances[: len(samples)])),
        held_out_distance=float(np.median(distances[len(samples) :])),
        verdict=verdict,
    )


def _permuted(
    nearest: IntArray, trained: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Returns the share of samples at training rows, its standard error, and its p-value.

    `nearest` is the nearest row of each sample. Error and p-value are those without copying: any
    rows could then have been the training rows.
    """
    counts = np.bincount(nearest, minlength=len(trained))
    total, number, n = len(nearest), int(trained.sum()), len(trained)
    near = int(counts @ trained)
    values, sizes = np.unique(counts, return_counts=True)
    drawn = rng.multivariate_hypergeometric(sizes, number, PERMUTATIONS, method="marginals")
    p_value = (1 + int((drawn @ values >= near).sum())) / (1 + PERMUTATIONS)
    variance = number * (n - number) / n * float(counts.var(ddof=1))
    return near / total, math.sqrt(variance) / total, p_value


def _ranks(rows: FloatArray, values: FloatArray) -> FloatArray:
    """Returns the share of the rows below each value, by column; linear between the rows."""
    results = np.empty(values.shape)
    for j, column in enumerate(rows.T):
        knots, counts = np.unique(column, return_counts=True)
        results[:, j] = np.interp(values[:, j], knots, (counts.cumsum() - counts / 2) / len(rows))
    return results


def _nearest(rows: FloatArray, values: FloatArray) -> tuple[FloatArray, IntArray]:
    """Returns the distance to the nearest row of each value, and which row it is."""
    from sklearn.neighbors import NearestNeighbors

    columns = rows.shape[1]
    algorithm = "kd_tree" if columns <= TREE_COLUMNS else "brute"
    search = NearestNeighbors(n_neighbors=1, algorithm=algorithm).fit(rows)
    distances, index = search.kneighbors(values)
    return distances[:, 0] / math.sqrt(columns), index[:, 0]
