"""Two columns at a time: which pairs to compare, and in which cells they differ."""

from typing import NamedTuple

import numpy as np

from kappaflow.goodness.deviation import Bounds
from kappaflow.goodness.pooled import Pooled
from kappaflow.goodness.scan import FloatArray, IntArray, Scan

MOST_PAIRS = 60  # of all pairs, those whose rank correlations differ most
SLICES = (2, 4, 16)  # of equal counts; powers of 2
FINEST = 8  # the second column is cut until there are 2**8 cells


class PairScan(NamedTuple):
    """The scan of a pair of columns, by their positions, with its worst region."""

    first: int
    second: int
    scan: Scan
    region: tuple[Bounds, Bounds]


def pairs_of(pooled: Pooled) -> list[tuple[int, int]]:
    """Returns the pairs to compare, at most 60; two columns of the context are no pair."""
    total, modeled = len(pooled.names), len(pooled.columns)
    pairs = [(j, i) for i in range(total) for j in range(i) if j < modeled]
    if len(pairs) <= MOST_PAIRS:
        return pairs
    difference = _correlation_difference(pooled)
    return sorted(pairs, key=lambda pair: -difference[pair])[:MOST_PAIRS]


def number_of_pairs(pooled: Pooled) -> int:
    """Returns the number of all pairs of which `pairs_of` selects some."""
    modeled, context = len(pooled.columns), len(pooled.context_columns)
    return modeled * (modeled - 1) // 2 + modeled * context


def scan_pair(pooled: Pooled, first: int, second: int) -> PairScan:
    """Returns the comparison in cells of two columns, with slices of either."""
    scans = [
        _scan_sliced(pooled, a, b, slices)
        for a, b in ((first, second), (second, first))
        for slices in SLICES
    ]
    best = min(scans, key=lambda result: result.scan.p_value)
    p_value = min(1.0, len(scans) * best.scan.p_value)
    return best._replace(scan=best.scan._replace(p_value=p_value))


def _scan_sliced(pooled: Pooled, first: int, second: int, slices: int) -> PairScan:
    """Returns the comparison in an order by slices of one column, then by the other."""
    number = pooled.positions(first) * slices // pooled.pool.size
    by_second = pooled.ordered(second)
    order = by_second[np.argsort(number[by_second].astype(np.uint8), kind="stable")]
    coarsest = slices.bit_length()
    result = pooled.pool.scan(order, coarsest, FINEST, sliced=True)
    region = _region(pooled.features[:, [first, second]], order, result)
    return PairScan(first, second, result, region)


def _region(values: FloatArray, order: IntArray, scan: Scan) -> tuple[Bounds, Bounds]:
    """Returns the box around the rows and samples of a cell."""
    inside = values[order[scan.cell.start : scan.cell.stop]]
    low, high = inside.min(axis=0), inside.max(axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _correlation_difference(pooled: Pooled) -> FloatArray:
    """Returns the differences of rank correlations, of values and of distances from the median."""
    from scipy.stats import rankdata  # takes half as long to load as torch

    ranks = np.apply_along_axis(rankdata, 0, pooled.features) / len(pooled.features) - 0.5
    n = pooled.pool.rows
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column
        differences = [
            np.abs(np.corrcoef(part[:n].T) - np.corrcoef(part[n:].T))
            for part in (ranks, np.abs(ranks))
        ]
    return np.nan_to_num(np.maximum(*differences))
