"""`Corner`: some columns of held-out rows and samples, two at a time, for charts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kappaflow.goodness.deviation import Deviation
from kappaflow.goodness.pooled import Pooled
from kappaflow.goodness.scan import FloatArray, IntArray

MOST_COLUMNS = 5
POINTS = 500
FEWEST = 4  # samples that are finite, for a correlation
CELLS = 24  # along each column
BEYOND, MARGIN = 0.005, 0.2  # share of the rows outside of the frame at each end; its margin
Shares = tuple[float, ...]


@dataclass(frozen=True)
class Corner:
    """Some held-out rows and samples, and how all samples are spread over each pair of columns."""

    columns: tuple[str, ...]  # names of the columns
    frames: tuple[tuple[float, float], ...]  # the ends of the 24 cells of each column
    rows: tuple[tuple[float, ...], ...]  # values of some held-out rows
    samples: tuple[tuple[float, ...], ...]  # values of as many samples
    row_shares: tuple[Shares, ...]  # for each column, the share of all rows in each cell
    sample_shares: tuple[Shares, ...]  # the same of all samples
    # For each pair, (1, 0), (2, 0), (2, 1) and so on, the share of all samples in 24 x 24 cells:
    # 24 of the second column of the pair for each cell of the first
    densities: tuple[Shares, ...]
    # For each pair, the rank correlation (Spearman) of rows and of samples
    correlations: tuple[tuple[float, float], ...]


def corner_of(
    columns: Sequence[str],
    rows: FloatArray,
    samples: FloatArray,
    weights: FloatArray | None = None,
    points: int = POINTS,
) -> Corner:
    """Returns rows and samples of these columns, (n, columns) and (m, columns), for charts."""
    rng = np.random.default_rng(0)
    if weights is not None:  # rows that repeat in proportion to their weights
        rows = rows[rng.choice(len(rows), len(rows), p=weights / weights.sum())]
    frames = [_frame(column) for column in rows.T]
    row_cells, cells = (_cells(values, frames) for values in (rows, samples))
    of_rows, of_samples = map(_rank_correlations, (rows, samples))
    pairs = [(i, j) for i in range(len(columns)) for j in range(i)]
    return Corner(
        tuple(columns),
        tuple(frames),
        _points(rows[:points]),
        _points(samples[:points]),
        tuple(_shares(own, len(rows)) for own in row_cells),
        tuple(_shares(own, len(samples)) for own in cells),
        tuple(_shares(cells[i], len(samples), cells[j]) for i, j in pairs),
        tuple((float(of_rows[pair]), float(of_samples[pair])) for pair in pairs),
    )


def corner_of_deviations(both: Pooled, deviations: Sequence[Deviation]) -> Corner:
    """Returns the columns of the worst deviations, and the first others, in their order."""
    listed = [name for deviation in deviations for name in deviation.columns]
    known = [name for name in dict.fromkeys([*listed, *both.names]) if name in both.names]
    index = [i for i, name in enumerate(both.names) if name in known[:MOST_COLUMNS]]
    values, n = both.features[:, index], both.pool.rows
    return corner_of([both.names[i] for i in index], values[:n], values[n:], both.weights)


def _rank_correlations(values: FloatArray) -> FloatArray:
    from scipy.stats import rankdata  # takes half as long to load as torch

    finite = values[np.isfinite(values).all(1)]
    if len(finite) < FEWEST:
        return np.full((values.shape[1],) * 2, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column
        return np.atleast_2d(np.corrcoef(rankdata(finite, axis=0), rowvar=False))


def _frame(values: FloatArray) -> tuple[float, float]:
    low, high = map(float, np.quantile(values, [BEYOND, 1 - BEYOND]))
    margin = MARGIN * (high - low) or 0.5
    return low - margin, high + margin


def _cells(values: FloatArray, frames: Sequence[tuple[float, float]]) -> list[IntArray]:
    """Returns the number of the cell of each value by columns; -1 outside of the frame."""
    results = []
    for column, (low, high) in zip(values.T, frames, strict=True):
        position = np.nan_to_num((column - low) / (high - low), nan=-1.0, posinf=-1.0, neginf=-1.0)
        inside = (position >= 0) & (position < 1)
        results.append(np.where(inside, np.floor(position * CELLS), -1).astype(np.int64))
    return results


def _shares(cells: IntArray, total: int, others: IntArray | None = None) -> Shares:
    inside, size = cells >= 0, CELLS
    if others is not None:
        inside, cells, size = inside & (others >= 0), cells * CELLS + others, CELLS**2
    return tuple((np.bincount(cells[inside], minlength=size) / total).round(6).tolist())


def _points(values: FloatArray) -> tuple[tuple[float, ...], ...]:
    """Returns rows with five significant digits, enough for a chart."""
    return tuple(tuple(float(f"{value:.5g}") for value in row) for row in values)
