"""The resolution that the values of a column are rounded to, and values that hold a point mass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import pdtrc

from kappaflow.data.naming import BoolArray, FloatArray, IntArray
from kappaflow.data.table import Grid, Table, whole_columns
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError

POINT_MASS_SHARE = 0.001  # of the rows: the likelihood of fewer hardly shows
POINT_MASS_ROWS = 5
POINT_MASS_FACTOR = 2.0  # times the expected count: densities are not flat between neighbors
FALSE_ALARM = 1e-3  # of a column in which no value holds a point mass
NEIGHBORS = 50  # rows on each side of a value that estimate the density there
SMALLEST_STEP = 100  # float errors: a finer grid cannot be detected
FLOAT_ERRORS = 4  # units in the last place that a value may be off its grid
COARSE = 0.005  # of the spread: a flow resolves steps of this width
COARSE_ROWS = 50  # fewest rows whose values are called few
NEAR = 1e-3  # steps that a number may be off the grid by rounding errors
CENTRAL = (0.16, 0.84)  # levels of the quantiles that are two standard deviations apart
STREAM = 0xD1B54A32D192ED03  # noise must not repeat the draws of data made with a small seed


@dataclass(frozen=True)
class PointMasses:
    """Values of one column that hold a point mass, the most frequent first."""

    values: FloatArray
    counts: IntArray  # rows that hold each
    expected: FloatArray  # rows that the resolution and the density around it predict


def resolution(column: FloatArray) -> float | None:
    """Returns the step of the grid that all finite values of a column lie on, or None.

    It is the largest step of which all differences of values are multiples, up to float rounding.
    Any step is found, such as 0.1, 0.25 or 1/3, also if values were computed or stored as float32.
    """
    values = np.unique(np.asarray(column[np.isfinite(column)], dtype=np.float64))
    if len(values) < 2 or not np.isfinite(values[-1] - values[0]):
        return None
    if len(values) == 2:  # lie on a grid whatever they are
        step = values[1] - values[0]
        return float(step) if np.array_equal(values, np.rint(values)) else None
    size = float(max(abs(values[0]), abs(values[-1])))
    exact = _step_of(values, FLOAT_ERRORS * float(np.spacing(size)))
    if not _is_float32(values):
        return exact
    single = float(np.spacing(np.float32(size)))
    if exact is not None and exact > single:
        return exact
    return _step_of(values, single)


def _is_float32(values: FloatArray) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        return np.array_equal(values, values.astype(np.float32))


def _step_of(values: FloatArray, error: float) -> float | None:
    """Returns the common step of distinct, ascending values, each off its grid by `error` at most.

    Euclid's algorithm on the gaps between neighbors, then a check of all values.
    """
    gaps = np.diff(values)
    gaps = gaps[gaps > 2 * error]
    step = float(gaps.min()) if len(gaps) else 0.0
    while step > SMALLEST_STEP * error:
        with np.errstate(over="ignore"):
            multiples = np.rint(gaps / step)
        allowed = 2 * error * (1 + multiples)
        left = np.abs(gaps - multiples * step)
        off = (left > allowed) & (allowed < step / 4)  # the others decide nothing
        if not off.any():
            return _checked_step(values, step, float(multiples.sum()), error)
        step = float(left[off].min())
    return None


def _checked_step(values: FloatArray, step: float, steps: float, error: float) -> float | None:
    """Returns the step, refined by the range of all values; None unless all lie on its grid."""
    refined = float(values[-1] - values[0]) / steps
    for candidate in (*(float(f"{refined:.{digits}g}") for digits in range(1, 10)), refined):
        multiples = (values - values[0]) / candidate
        off = np.abs(multiples - np.rint(multiples)) * candidate
        if candidate > 0 and (off <= 2 * error).all():
            return candidate
    return None


def resolutions(table: Table) -> dict[str, float]:
    """Returns the resolution of every modeled column that has one.

    Args:
        table: The table.

    Returns:
        Steps by column, in the units of the column.

    Example:
        >>> from kappaflow.data import load_table
        >>> resolutions(load_table("magic", columns=["fWidth", "fConc", "fConc1"]))
        {'fConc': 0.0001, 'fConc1': 0.0001}
    """
    result = {name: resolution(column) for name, column in table.by_column.items()}
    return {name: step for name, step in result.items() if step is not None}


def coarse_columns(table: Table) -> dict[str, float]:
    """Returns the resolution of the columns whose steps a flow can resolve.

    There are 50 rows or more, two rows or more for each value on average, and a step is above
    0.5 % of the spread. The spread is the standard deviation, or half the range of the central
    68 % of the values if that is less: a few large counts do not hide that most are small.
    """
    result = {}
    for name, step in resolutions(table).items():
        column = table.by_column[name]
        steps = column[np.isfinite(column)] / step
        low, high = np.quantile(steps, CENTRAL)
        spread = min(float(np.std(steps)), (high - low) / 2 or math.inf)
        fewest = max(COARSE_ROWS, 2 * len(np.unique(steps)))
        if len(steps) >= fewest and COARSE * spread < 1:
            result[name] = step
    return result


def point_masses(column: FloatArray) -> PointMasses:
    """Returns the values that more rows hold than resolution and density of a column predict.

    A value is compared with the rows on each side of it: how many of them there are per step of
    the resolution, extrapolated where their density rises towards the value, and how often their
    values repeat. A point mass is in at least 0.1 % of the rows and in 5, in twice as many as
    expected, and its count is beyond chance (Poisson; 0.1 % for all values of the column).
    """
    finite = column[np.isfinite(column)]
    values, counts = np.unique(finite, return_counts=True)
    often = np.flatnonzero((counts > POINT_MASS_SHARE * len(column)) & (counts >= POINT_MASS_ROWS))
    step = resolution(finite) if len(often) else None
    float_type = np.float32 if _is_float32(values) else np.float64
    expected = np.empty(len(often))
    for i, index in enumerate(often.tolist()):
        width = float(np.spacing(float_type(abs(values[index])))) if step is None else step
        above = _expected_by_side(values, counts, index, width)
        below = _expected_by_side(-values[::-1], counts[::-1], len(values) - 1 - index, width)
        expected[i] = max(3 / NEIGHBORS, above, below)  # fewer repeats could go unseen
    chance = pdtrc(counts[often] - 2, expected) * len(values)
    beyond = (chance < FALSE_ALARM) & (counts[often] > POINT_MASS_FACTOR * expected)
    order = np.argsort(-counts[often[beyond]], kind="stable")
    result = often[beyond][order]
    return PointMasses(values[result], counts[result].astype(np.int64), expected[beyond][order])


def _expected_by_side(values: FloatArray, counts: IntArray, index: int, width: float) -> float:
    """Returns how many rows should hold a value, rounded to `width`, by the rows above it.

    `values` are distinct and ascending.
    """
    away, before = values - values[index], np.concatenate([[0], np.cumsum(counts)])
    start = index + 1
    if start >= len(away):
        return 0.0
    end = min(len(away), int(np.searchsorted(before, before[start] + NEIGHBORS)))
    near, reach = int(before[end] - before[start]), float(away[end - 1])
    further = int(np.searchsorted(away, 2 * reach + width / 2)) if np.isfinite(reach) else end
    beyond = int(before[max(further, end)] - before[end])
    rise = max(1.0, near / max(1, beyond)) ** ((1 + width / reach) / 2)
    repeats = (near - (end - start)) / (end - start)
    return max(repeats, width / reach * near * rise)


def point_masses_of(table: Table) -> dict[str, PointMasses]:
    """Returns the point masses of every column that has some."""
    result = {name: point_masses(column) for name, column in table.by_column.items()}
    return {name: masses for name, masses in result.items() if len(masses.values)}


def atom_rows(table: Table, reference: Table | None = None) -> BoolArray:
    """Returns a mask of rows with a point mass: a value in more rows than its neighbors predict.

    At such a value the data have probability, not density, and a log-likelihood says little.

    Args:
        table: The rows to mark.
        reference: The table in which values are counted, such as the training rows; `table`
            itself if None.

    Raises:
        ArgumentError: If the two tables have different columns.

    Example:
        >>> from kappaflow.data import load_table
        >>> bool(atom_rows(load_table("magic", columns=["fWidth"])).sum() == 98)
        True
    """
    counted = table if reference is None else reference
    if counted.columns != table.columns:
        raise ArgumentError(
            f"'reference' should have the columns of 'table', {', '.join(table.columns)}, got "
            f"{', '.join(counted.columns)}."
        )
    mask = np.zeros(len(table), dtype=np.bool_)
    for name, masses in point_masses_of(counted).items():
        mask |= np.isin(table.by_column[name], masses.values)
    return mask


def dequantize(table: Table, widths: dict[str, float], *, seed: int = 0) -> Table:
    """Returns a table with uniform noise, as wide as a step, on columns that are rounded.

    The values become continuous. The mean of log p at them is a lower bound on the mean logarithm
    of the probability of a step divided by its width, so that fits compare in the units of the
    columns, however these are rounded.

    Args:
        table: The table.
        widths: Steps by column, such as `resolutions` returns; other columns stay.
        seed: Seed of the noise, which depends on the row number and the position of the column
            alone: the same row gets the same noise, whichever other rows there are.

    Raises:
        ArgumentError: A column is missing, or a width is not a positive number.

    Source:
        Theis, van den Oord, Bethge 2016, A note on the evaluation of generative models, 3.1.

    Example:
        >>> from kappaflow.data import load_table
        >>> table = load_table(np.array([[1.0], [2.0], [2.0]]))
        >>> noisy = dequantize(table, {"x0": 1.0})
        >>> bool((abs(noisy.values - table.values) <= 0.5).all()), noisy.integer_columns
        (True, ())
    """
    values, grids = table.values.copy(), dict(table.grids)
    for name, width in widths.items():
        if name not in table.columns:
            raise ArgumentError(f"'widths' names column {name!r}, which is not modeled.")
        if not (math.isfinite(width) and width > 0):
            raise ArgumentError(f"'widths' should be positive, got {width!r} for {name!r}.")
        index = table.columns.index(name)
        grids[name] = Grid(width, _origin(values[:, index], width))
        values[:, index] += width * (_uniform(table.rows, index, seed) - 0.5)
    integers = whole_columns(values, table.columns)
    kept = tuple(name for name in table.integer_columns if name not in widths or name in integers)
    return replace(table, values=values, integer_columns=kept, grids=grids)


def grid_of(column: FloatArray, step: float, domain: Interval | None) -> Grid:
    """Returns the grid of a rounded column of finite values, with the ends that its samples have.

    The least and the greatest value are ends if at least 5 rows hold them, as not in a tail, or
    the domain of the column ends there. 0 is an end if no value is below.
    """
    least, greatest = float(column.min()), float(column.max())
    origin = _origin(column, step)
    start, end = (None, None) if domain is None else (domain.low, domain.high)
    if domain is not None and domain.circular:
        return Grid(step, origin, start, end, circular=True)
    low = origin % step if least >= 0 else None
    if start is not None or (column == least).sum() >= POINT_MASS_ROWS:
        low = least
    is_end = end is not None or (column == greatest).sum() >= POINT_MASS_ROWS
    return Grid(step, origin, low, greatest if is_end else None)


def _origin(column: FloatArray, step: float) -> float:
    """Returns a value of a grid: 0 if it is one, as of most grids."""
    value = float(next(iter(column[np.isfinite(column)]), 0.0))
    return 0.0 if abs(value - step * np.rint(value / step)) < NEAR * step else value


def rounded_samples(
    samples: FloatArray, columns: Sequence[str], grids: Mapping[str, Grid]
) -> FloatArray:
    """Returns samples (..., columns), those of rounded columns as the nearest values."""
    parts = zip(columns, np.moveaxis(samples, -1, 0), strict=True)
    values = [grids[name].nearest(part) if name in grids else part for name, part in parts]
    return np.stack(values, axis=-1) if grids else samples


def _uniform(rows: IntArray, index: int, seed: int) -> FloatArray:
    """Returns a number in (0, 1) for each row number: SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        key = np.uint64(STREAM) * np.uint64(seed + 1) + np.uint64(index)
        bits = splitmix64(rows.astype(np.uint64) + splitmix64(np.array([key])))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def splitmix64(bits: np.ndarray) -> np.ndarray:
    """Returns 64-bit integers scrambled one to one: the finalizer of SplitMix64."""
    with np.errstate(over="ignore"):
        bits = bits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return bits ^ (bits >> np.uint64(31))
