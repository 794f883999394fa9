"""Hard edges and circles of columns: ends at which the density does not fall to zero."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from kappaflow.data.naming import FloatArray
from kappaflow.data.rounding import POINT_MASS_ROWS, point_masses, resolution
from kappaflow.data.table import Table
from kappaflow.domains import Interval

EDGE_ROWS, LARGEST = 500, 1e150  # fewest values that tell an edge from a tail, and their size
WINDOW = 8  # times sqrt(rows): the outermost values, which are compared with a flat density
SMALLEST_WINDOW = 40
FLAT = 0.82  # a flat density has 1; of gamma(3) columns of 500 rows, 1 in 1,000 exceeds it
DENSE = 1.3  # above it, the outermost values may be a cluster with a tail
ALMOST = 0.55  # least flatness of the second end of a circle; a normal tail hardly ever has it
ERRORS = 3.8  # standard errors of the flatness in a smaller window
GAPS = 10.0  # mean distances of values within which an end nearly always is
PILED_GAPS = 30.0  # the same for 0, as the end of a positive column that piles up
APART = 25.0  # mean distances between neighbors: the lower of them are a cluster, or outliers
STEPS = 10  # of rounding that a window spans at least
CIRCLES = ((0.0, 360.0), (-180.0, 180.0), (0.0, 24.0), (0.0, math.tau), (-math.pi, math.pi))
LOG_ROWS = 100  # fewest rows to compare a column with its logarithms
SKEWED = 0.25  # nats by which a normal distribution fits the logarithms better
AWAY = 2.0  # largest factor from the least value to the 5 % quantile of a column that ends there
NEAR_ZERO = 0.2  # largest 5 % quantile of a column that piles up, in standard deviations


@dataclass(frozen=True)
class _End:
    """The lower end of a column; the upper one is that of the negative column."""

    values: FloatArray  # the lowest, ascending, rounding spread out
    least: float  # value of the column
    step: float  # of rounding
    noise: float  # width of uniform noise that was added

    @property
    def can_tell(self) -> bool:
        """Whether it holds enough different values to compare their distances."""
        reach = self.values[-1] - self.values[0]
        return len(self.values) >= SMALLEST_WINDOW and reach > STEPS * max(self.step, self.noise)

    @property
    def gap(self) -> float:
        """The mean distance of neighbors next to the end."""
        number = len(self.values) // 4
        return float(self.values[number] - self.values[0]) / number

    @property
    def range(self) -> tuple[float, float]:
        """The numbers between which the density can end; noise can have crossed the end."""
        return self.least - GAPS * self.gap, self.least + self.noise / 2

    @property
    def is_hard(self) -> bool:
        """Whether the density is as high at the end as further in, in windows of all sizes."""
        end, least = self, FLAT
        while end.can_tell:
            flatness, half = _flatness(end.values), len(end.values) // 2
            if flatness < least:
                return False
            least = 1 - ERRORS / math.sqrt(half) if flatness < DENSE else FLAT + half**-0.5
            end = replace(end, values=end.values[:half])
        return end is not self

    def may_end(self, at: float) -> bool:
        """Returns whether the density can end at a number without falling to zero before."""
        low, high = self.range
        return low <= at <= high and _flatness(self.values) > ALMOST

    def simplest(self) -> float:
        """Returns the number with the fewest digits at which the density can end."""
        low, high = self.range
        unit = 10.0 ** math.ceil(math.log10(max(-low, high)))
        for digits in range(16):
            first, last = np.ceil(low / unit), np.floor(high / unit)
            if first <= last:
                likely = np.clip(np.round((self.least - self.gap) / unit), first, last)
                return float(f"{likely * unit:.{digits + 1}g}") + 0.0
            unit /= 10
        return low


def edges_of(table: Table, bounded: Collection[str] = ()) -> dict[str, Interval]:
    """Returns the bounds that columns without domains show: hard edges, circles, positive ones."""
    result = {}
    for name, column in table.by_column.items():
        if name not in bounded and name not in table.integer_columns:
            edges = _edges(column[np.isfinite(column)], table.widths.get(name, 0.0))
            result |= {} if edges is None else {name: edges}
    return result


def bound_text(domain: Interval) -> str:
    """Returns a domain in the shortest notation for an option, such as "positive" or "1,"."""
    if domain == Interval(0.0, None):
        return "positive"
    if domain.circular and domain.high == math.tau:
        return "circular:0,2pi"
    return "circular" if domain.circular and domain.high == math.pi else domain.text


def _edges(column: FloatArray, noise: float) -> Interval | None:
    """Returns the bounds that a column with uniform noise shows; None if there are none."""
    piles_up = _piles_up(column)
    low, high = _end(column, noise), _end(-column, noise)
    hard_low, hard_high = (end if end is not None and end.is_hard else None for end in (low, high))
    if low is not None and high is not None and (hard_low or hard_high):
        for start, end in CIRCLES:
            if low.may_end(start) and high.may_end(-end):
                return Interval(start, end, circular=True)
    start = None if hard_low is None else hard_low.simplest()
    if piles_up and (hard_low is None or hard_low.least < PILED_GAPS * hard_low.gap):
        start = 0.0
    end = None if hard_high is None else 0.0 - hard_high.simplest()
    return None if start is end is None else Interval(start, end)


def _end(column: FloatArray, noise: float) -> _End | None:
    """Returns the lower end of a column; None if the rows do not show how the density ends."""
    if len(column) < EDGE_ROWS or not np.abs(column).max() < LARGEST:
        return None
    size = round(WINDOW * math.sqrt(len(column)))
    values = np.sort(np.partition(column, size)[:size])
    least, repeats = float(values[0]), int((values == values[0]).sum())
    step = resolution(column) if len(np.unique(values)) < size else None
    if step is not None:  # as many values as it takes to tell, up to a quarter of them
        near = int((column <= least + 2 * STEPS * step).sum())
        size = max(size, min(near, len(column) // 4))
        values = np.sort(np.partition(column, size)[:size])
    values = np.unique(values) if step is None else _spread(values, step)
    end = _End(values, least, step or 0.0, noise)
    if not end.can_tell or np.diff(values).max() * len(values) > APART * np.ptp(values):
        return None
    is_point_mass = repeats >= POINT_MASS_ROWS and least in point_masses(column).values
    return None if is_point_mass else end


def _spread(values: FloatArray, step: float) -> FloatArray:
    """Returns ascending values with those that rounding made equal at equal distances."""
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    places = np.arange(len(values)) - np.repeat(first, counts)
    return values + step * ((places + 0.5) / np.repeat(counts, counts) - 0.5)


def _flatness(values: FloatArray) -> float:
    """Returns 1 on average for values of a flat density above its edge, and less for a tail.

    It is 1 / a for the density (x - edge)^(a - 1), after Hill 1975, with the least value as edge.
    """
    shares = (values[1:-1] - values[0]) / (values[-1] - values[0])
    return float(-np.log(np.maximum(shares, 0.5 / len(values))).mean())


def _piles_up(column: FloatArray) -> bool:
    """Returns whether a column is positive, skewed, and has many values near 0."""
    if len(column) < LOG_ROWS or not column.min() > 0:
        return False
    scaled = column / column.max()
    if not scaled.min() > 0:
        return False
    logs, deviation = np.log(scaled), scaled.std()
    if not (deviation > 0 and logs.std() > 0):
        return False
    gain = math.log(deviation) - math.log(logs.std()) - logs.mean()
    low = np.quantile(scaled, 0.05)
    return bool(gain > SKEWED and AWAY * scaled.min() < low < NEAR_ZERO * deviation)
