"""Scans: rows and samples in the same order, counted in cells of every width and compared.

A cell is a run of consecutive rows and samples in a pooled order, for example by the value of a
column. If both have the same distribution, any order that does not depend on which is which makes
the number of rows in a cell hypergeometric, whatever that distribution is. Cells of equal counts
are narrow where either rows or samples are dense, so a narrow excess or hole shows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, chdtrc, gammaln

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FEWEST = 12  # rows and samples of the narrowest cells
SMOOTH_LEVELS = 6  # cells of up to 2**6 are also compared all together
SMOOTH_ROWS = 8  # fewest expected rows of each cell then
ENDS = (4, 8, 16, 32, 64, 128, 256)  # rows and samples at each end of the order
TINY = 1e-300
EQUAL_BELOW = 1e-250  # p-values that may be too small for floats


class Cell(NamedTuple):
    """A run of consecutive rows and samples, with the significance of their difference."""

    start: int
    stop: int
    share: float  # of the rows
    expected: float  # share of the samples
    p_value: float  # times the number of cells that it was chosen from


class AllCells(NamedTuple):
    """All cells of a level, compared together."""

    p_value: float
    nats: float
    cells: int


NOTHING = AllCells(1.0, 0.0, 1)


class Scan(NamedTuple):
    """The result of a scan."""

    cell: Cell  # the cell that differs most
    # Probability of a difference as large in any cell or in all of them, if rows and samples have
    # the same distribution
    p_value: float
    # Estimated divergence of the rows from the samples, in nats per row, as far as the cells show
    # it
    nats: float


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows and samples together, rows first."""

    rows: int  # number of rows
    samples: int  # number of samples
    # Weights of the rows, (rows,), with mean 1; None if all are equal
    weights: FloatArray | None = None

    @property
    def size(self) -> int:
        """Number of rows and samples."""
        return self.rows + self.samples

    @property
    def effective_rows(self) -> float:
        """Number of rows without weights that would be as informative."""
        return float(self.rows) if self.weights is None else effective_rows(self.weights)

    def scan(
        self, order: IntArray, coarsest: int = 1, finest: int = 64, *, sliced: bool = False
    ) -> Scan:
        """Returns the comparison of rows and samples in cells of several levels.

        Level k has 2**k cells, and the finest has 12 rows and samples in a cell at least. Unless
        the order is `sliced`, there are also cells that are shifted by half, and narrow ones at
        both ends.
        """
        finest = min(finest, int(math.log2(max(2, self.size / FEWEST))))
        tally = Tally(self, order)
        tests = [*_levels(tally, min(coarsest, finest), finest, shifted=not sliced)]
        tests += [] if sliced else [_ends(tally)]
        smooth = [tally.together(k) for k in range(coarsest, min(finest, SMOOTH_LEVELS) + 1)]
        number = len(tests) + len(smooth)
        cell = min(tests, key=_significance)
        level = min(smooth, default=NOTHING)
        if level.p_value < cell.p_value and cell.p_value > EQUAL_BELOW:
            edges = _edges(self.size, level.cells)
            cell = tally.worst(edges, level.cells)._replace(p_value=level.p_value)
        nats = max((level.nats for level in smooth), default=0.0)
        nats = max(0.0, nats, two_cells(cell.share, cell.expected, 0.5 / self.samples))
        return Scan(cell, min(1.0, cell.p_value * number), nats)


def effective_rows(weights: FloatArray) -> float:
    """Returns the number of rows without weights that would be as informative (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


class Tally:
    """Cumulative counts of rows and samples along an order."""

    def __init__(self, pool: Pool, order: IntArray) -> None:
        is_row = order < pool.rows
        self.pool = pool
        self.counts = _cumulative(is_row.astype(np.float64))
        self.mass, self.squares = self.counts, self.counts
        if pool.weights is not None:
            weights = np.zeros(pool.size)
            weights[: pool.rows] = pool.weights
            self.mass, self.squares = _cumulative(weights[order]), _cumulative(weights[order] ** 2)

    def shares(self, edges: IntArray) -> tuple[FloatArray, FloatArray]:
        """Returns the shares of rows and of samples between consecutive edges."""
        samples = np.diff(edges) - np.diff(self.counts[edges])
        return np.diff(self.mass[edges]) / self.mass[-1], samples / self.pool.samples

    def worst(self, edges: IntArray, number: int) -> Cell:
        """Returns the cell that differs most; `number` is that of all cells it is one of."""
        chances, (shares, samples) = self._chances(edges), self.shares(edges)
        worst = int(np.lexsort((-np.abs(shares - samples), chances))[0])
        share, expected = float(shares[worst]), float(samples[worst])
        p_value = min(1.0, float(chances[worst]) * number)
        return Cell(int(edges[worst]), int(edges[worst + 1]), share, expected, p_value)

    def together(self, level: int) -> "AllCells":
        """Returns the comparison of all cells of a level.

        The statistic is twice the log-likelihood ratio (Wilks 1938), and the divergence has its
        expected value for equal distributions subtracted.
        """
        cells = 2**level
        rows, samples = self.pool.effective_rows, self.pool.samples
        if rows < SMOOTH_ROWS * cells:
            return NOTHING
        p, q = self.shares(_edges(self.pool.size, cells))
        joint = (rows * p + samples * q) / (rows + samples)
        ratio = rows * relative_entropy(p, joint) + samples * relative_entropy(q, joint)
        bias = (cells - 1) / 2 * (1 / rows + 1 / samples)
        smoothed = (samples * q + 0.5) / (samples + 0.5 * cells)
        scale, degrees = 1.0, cells - 1.0
        if self.pool.weights is not None:
            weight = self._cell_weights(_edges(self.pool.size, cells), p < joint)
            scale, degrees = _scaled(weight / self.mass[-1] + 1 / samples, 1 / rows + 1 / samples)
            degrees *= (cells - 1) / cells
        p_value = max(TINY, float(chdtrc(degrees, 2 * ratio / scale)))
        return AllCells(p_value, relative_entropy(p, smoothed) - bias, cells)

    def _chances(self, edges: IntArray) -> FloatArray:
        """Returns the two-sided p-value of each cell."""
        pool, sizes = self.pool, np.diff(edges)
        if pool.weights is None:
            rows = np.diff(self.counts[edges]).astype(int)
            chances = np.empty(len(sizes))
            for size in np.unique(sizes):
                at = sizes == size
                chances[at] = _hypergeometric(pool.size, pool.rows, int(size))[rows[at]]
            return chances
        p, q = self.shares(edges)
        joint = (pool.effective_rows * p + pool.samples * q) / (pool.effective_rows + pool.samples)
        joint = np.clip(joint, 1 / pool.size, 1 - 1 / pool.size)
        weight = self._cell_weights(edges, p < joint)
        variance = joint * (1 - joint) * (weight / self.mass[-1] + 1 / pool.samples)
        trials = joint * (1 - joint) / variance
        return _binomial(p - q + joint, trials, joint)

    def _cell_weights(self, edges: IntArray, holes: NDArray[np.bool_]) -> FloatArray:
        mass, squares = np.diff(self.mass[edges]), np.diff(self.squares[edges])
        least = float(self.squares[-1] / self.mass[-1])
        return _cell_weights(mass, squares, least, holes, self.pool.weights)


def scan_uniform(
    ranks: IntArray, ends: int, slices: IntArray, weights: FloatArray | None = None
) -> Scan | None:
    """Returns the comparison of ranks in each slice of the rows with uniform ones below `ends`.

    `slices` is the number of the slice of each row, (n,). Cells are ranges of ranks in a slice;
    `Cell.start` is the slice, and shares are those of all rows. None if there are too few rows.
    """
    total = np.ones(len(ranks)) if weights is None else weights / weights.mean()
    groups = int(slices.max()) + 1
    masses = np.bincount(slices, total, groups).astype(float)[:, None]
    least = np.bincount(slices, total**2, groups)[:, None] / masses
    informative = (masses / least)[:, 0]
    tests, smooth = [], [NOTHING]
    for cells in (2, 4, 8, 16, 32):
        if cells > ends or informative.min() < SMOOTH_ROWS * cells:
            break
        home = slices * cells + ranks * cells // ends
        mass, squares = (
            np.bincount(home, total**power, groups * cells).reshape(groups, cells).astype(float)
            for power in (1, 2)
        )
        uniform = np.bincount(np.arange(ends) * cells // ends) / ends
        shares, expected = mass / masses, np.broadcast_to(uniform, mass.shape)
        weight = _cell_weights(mass, squares, least, shares < expected, weights)
        chances = _binomial(shares, masses / weight, expected)
        group, cell = divmod(int(chances.argmin()), cells)
        part = float(masses[group, 0] / masses.sum())
        chance = min(1.0, float(chances.min()) * chances.size)
        share = float(shares[group, cell]) * part
        tests.append(Cell(group, cell, share, float(uniform[cell]) * part, chance))
        scale = _scaled(weight / least, 1.0)
        smooth.append(_uniform_cells(shares, uniform, masses[:, 0], informative, scale))
    if not tests:
        return None
    number = len(tests) + len(smooth) - 1
    worst, level = min(tests, key=lambda test: test.p_value), min(smooth)
    p_value = min(1.0, number * min(worst.p_value, level.p_value))
    nats = max(0.0, *(level.nats for level in smooth), two_cells(worst.share, worst.expected))
    return Scan(worst, p_value, nats)


def _uniform_cells(
    shares: FloatArray,
    uniform: FloatArray,
    masses: FloatArray,
    informative: FloatArray,
    scaled: tuple[float, float],
) -> AllCells:
    groups, cells = shares.shape
    relative = np.array([relative_entropy(p, uniform) for p in shares])
    parts = masses / masses.sum()
    statistic = float(2 * (informative * relative).sum()) / scaled[0]
    bias = float((parts * (cells - 1) / (2 * informative)).sum())
    p_value = max(TINY, float(chdtrc(scaled[1] * (cells - 1) / cells, statistic)))
    return AllCells(p_value, float(parts @ relative) - bias, cells)


def _cell_weights(
    mass: FloatArray,
    squares: FloatArray,
    least: FloatArray | float,
    holes: NDArray[np.bool_],
    weights: FloatArray | None,
) -> FloatArray:
    """Returns the mean weight of rows in each cell, or of all: holes may miss heavy rows."""
    weight = np.maximum(squares / np.maximum(mass, TINY), least)
    if weights is None:
        return weight
    heavy = float((weights**3).sum() / (weights**2).sum())
    return np.where(holes, np.maximum(weight, heavy), weight)


def _scaled(variances: FloatArray, equal: float) -> tuple[float, float]:
    """Returns the scale and the degrees of freedom of a sum of squares of unequal variances.

    `equal` is the variance that the sum assumes (Satterthwaite 1946; Rao, Scott 1984).
    """
    ratios = variances / equal
    total, squares = float(ratios.sum()), float(np.square(ratios).sum())
    return squares / total, total**2 / squares


def _levels(tally: Tally, coarsest: int, finest: int, *, shifted: bool) -> Iterator[Cell]:
    size = tally.pool.size
    for level in range(coarsest, finest + 1):
        cells = 2**level
        yield tally.worst(_edges(size, cells), cells)
        if shifted and cells > 1:
            yield tally.worst(_edges(size, 2 * cells)[1::2], cells)


def _ends(tally: Tally) -> Cell:
    """Returns the worst of narrow cells at both ends of the order."""
    size = tally.pool.size
    sizes = [width for width in ENDS if 2 * width < size]
    cells = [
        tally.worst(np.array(edges), 2 * len(sizes))
        for width in sizes
        for edges in ((0, width), (size - width, size))
    ]
    return min(cells, key=_significance, default=Cell(0, size, 1.0, 1.0, 1.0))


def _significance(cell: Cell) -> tuple[float, float]:
    """Returns what sorts cells; p-values that are too small to represent are equal."""
    return max(cell.p_value, EQUAL_BELOW), -two_cells(cell.share, cell.expected)


def _edges(size: int, cells: int) -> IntArray:
    return np.arange(cells + 1) * size // cells


def _cumulative(values: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(values)])


def relative_entropy(p: FloatArray, q: FloatArray) -> float:
    """Returns the relative entropy of two lists of shares."""
    positive = p > 0
    return float((p[positive] * np.log(p[positive] / q[positive])).sum())


def two_cells(p: float, q: float, least: float = 1e-6) -> float:
    """Returns the relative entropy of a cell and its complement, with shares p and q."""
    q = min(max(q, least), 1 - least)
    return relative_entropy(np.array([p, 1 - p]), np.array([q, 1 - q]))


def _binomial(share: FloatArray, trials: FloatArray, expected: FloatArray) -> FloatArray:
    """Returns two-sided p-values of shares of trials; the number of trials need not be whole."""
    successes = np.clip(share, 0, 1) * trials
    above = np.where(
        successes > 0, betainc(np.maximum(successes, TINY), trials - successes + 1, expected), 1.0
    )
    failures = trials - successes
    below = np.where(
        failures > 0, betainc(np.maximum(failures, TINY), successes + 1, 1 - expected), 1.0
    )
    return np.clip(2 * np.minimum(above, below), TINY, 1.0)


@lru_cache(maxsize=512)
def _hypergeometric(size: int, rows: int, cell: int) -> FloatArray:
    """Returns the two-sided p-value of each number of rows in a cell."""
    k = np.arange(cell + 1)
    possible = (k <= rows) & (cell - k <= size - rows)
    with np.errstate(invalid="ignore"):
        logs = _log_choose(rows, k) + _log_choose(size - rows, cell - k) - _log_choose(size, cell)
    mass = np.where(possible, np.exp(np.where(possible, logs, -np.inf)), 0.0)
    below, above = np.cumsum(mass), np.cumsum(mass[::-1])[::-1]
    return np.clip(2 * np.minimum(below, above), TINY, 1.0)


def _log_choose(n: int, k: IntArray | int) -> FloatArray:
    chosen = np.asarray(k, dtype=np.float64)
    chosen = np.where((chosen >= 0) & (chosen <= n), chosen, 0)
    return gammaln(n + 1.0) - gammaln(chosen + 1) - gammaln(n - chosen + 1)
