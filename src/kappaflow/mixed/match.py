"""Whether sampled labels and counts match those of held-out rows, by chi-squared tests."""

from itertools import combinations
from typing import Any

import numpy as np

from kappaflow.data.naming import IntArray

MOST_PAIRS = 100  # of columns that are tested
BINS = 10  # of a column of more values
LEAST = 5  # expected rows of a cell; smaller ones are joined


def worst_match(rows: IntArray, samples: IntArray) -> tuple[float, tuple[int, ...]]:
    """Returns the smallest p-value of tests of all columns and pairs, and where it was.

    It is multiplied by the number of tests (Bonferroni), so it is valid for all together.

    Args:
        rows: Codes of held-out rows (N, L).
        samples: Codes of samples (M, L).

    Example:
        >>> codes = np.random.default_rng(0).integers(0, 3, (4000, 2))
        >>> p, _ = worst_match(codes[:2000], codes[2000:])
        >>> p > 0.05
        True
    """
    binned = [_binned(a, b) for a, b in zip(rows.T, samples.T, strict=True)]
    tests = [(i,) for i in range(len(binned))]
    tests += [*combinations(range(len(binned)), 2)][:MOST_PAIRS]
    results = [(_p_value([binned[i] for i in columns]), columns) for columns in tests]
    p, worst = min(results, default=(1.0, ()))
    return min(1.0, p * max(1, len(results))), worst


def _binned(rows: IntArray, samples: IntArray) -> tuple[IntArray, IntArray]:
    """Returns codes as positions of their values, or of about equally frequent bins of these."""
    values = np.unique(samples)
    if len(values) > BINS:
        values = np.unique(
            np.quantile(samples, np.linspace(0, 1, BINS + 1)[:-1], method="nearest")
        )
    cells = [np.searchsorted(values, part, side="right") for part in (rows, samples)]
    return cells[0].astype(np.int64), cells[1].astype(np.int64)


def _p_value(columns: list[tuple[IntArray, IntArray]]) -> float:
    """Returns the p-value of a test that the cells of rows and samples have the same shares."""
    counts = []
    width = 1 + max(int(part.max(initial=0)) for column in columns for part in column)
    for parts in zip(*columns, strict=True):
        cells = sum(part * width**i for i, part in enumerate(parts))
        counts.append(np.bincount(cells, minlength=width ** len(columns)))
    table = np.stack(counts)
    expected = table.sum(0) * table[0].sum() / max(1, table.sum())
    small = expected < LEAST
    table = np.c_[table[:, ~small], table[:, small].sum(1)]
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return 1.0
    from scipy.stats import chi2_contingency  # takes as long to load as the rest of the command

    result: Any = chi2_contingency(table)
    return float(result.pvalue)
