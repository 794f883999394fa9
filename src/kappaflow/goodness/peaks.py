"""Peaks of a column that are wider or narrower in samples than in held-out rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kappaflow.goodness.deviation import Bounds, Deviation, interval_phrase, number
from kappaflow.goodness.pooled import Pooled
from kappaflow.goodness.scan import FloatArray, Tally

REACH = (0.5, 1.0, 2.0, 4.0, 8.0)  # widths of a region on each side of it, where the sides may be
NARROW = 0.25  # largest width of a peak with its sides, in those of the central 90 % of the rows
ERRORS = 3.5  # standard errors by which the middle and both sides differ
BALANCE = 0.5  # least share of the middle's difference that is made up by the sides


class Part(NamedTuple):
    """A region of a column."""

    share: float  # of the rows
    expected: float  # share of the samples
    errors: float  # standard errors of the difference, positive where samples are missing
    width: float

    @property
    def excess(self) -> float:
        return self.share - self.expected


@dataclass(frozen=True)
class Peak:
    """A peak in a column: its middle, and its sides, where the difference has the other sign."""

    region: Bounds  # of the middle
    span: Bounds  # with the sides
    parts: tuple[Part, Part, Part]  # a side, the middle, and the other side

    @property
    def errors(self) -> float:
        """The standard errors of the part that differs least."""
        return min(abs(part.errors) for part in self.parts)

    @property
    def is_clear(self) -> bool:
        """Whether it is a peak of the rows, which the sides of the samples make up for."""
        left, middle, right = self.parts
        sides = abs(left.excess + right.excess)
        densities = [part.share / max(part.width, 1e-300) for part in self.parts]
        is_peak = densities[1] > max(densities[0], densities[2])
        return is_peak and self.errors > ERRORS and sides > BALANCE * abs(middle.excess)


def with_peaks(both: Pooled, deviations: Sequence[Deviation]) -> tuple[Deviation, ...]:
    """Returns deviations, those in the middle and at the sides of a peak as one that names it."""
    result: list[Deviation] = []
    spans: list[tuple[str, Bounds]] = []
    for deviation in deviations:
        name = deviation.columns[0] if len(deviation.columns) == 1 else ""
        if name not in both.columns or not deviation.is_located:
            result.append(deviation)
            continue
        low, high = deviation.region[0]
        if any(column == name and a <= low and high <= b for column, (a, b) in spans):
            continue
        peak = peak_at(both, both.columns.index(name), (low, high))
        if peak is None:
            result.append(deviation)
            continue
        spans.append((name, peak.span))
        result.append(_named(both, name, deviation, peak))
    return tuple(result)


def peak_at(both: Pooled, column: int, region: Bounds) -> Peak | None:
    """Returns the peak of a column that a region is the middle or a side of; None without one."""
    order, n = both.ordered(column), both.pool.rows
    values, tally = both.features[order, column], Tally(both.pool, order)
    low, high = np.quantile(both.features[:n, column], [0.05, 0.95])
    width, most = region[1] - region[0], NARROW * (high - low)
    if not 0 < width < most:
        return None
    windows = ((region[0] - reach * width, region[1] + reach * width) for reach in REACH)
    ends = [np.searchsorted(values, window) for window in windows if np.ptp(window) < most]
    peaks = [peak for start, stop in ends for peak in _peaks(values, tally, int(start), int(stop))]
    return max(
        filter(lambda peak: peak.is_clear, peaks), key=lambda peak: peak.errors, default=None
    )


def _peaks(values: FloatArray, tally: Tally, start: int, stop: int) -> Iterator[Peak]:
    """Yields the peak of a window: where rows gain on the samples most, and around it least."""
    shares = tally.mass / tally.mass[-1]
    samples = (np.arange(len(tally.counts)) - tally.counts) / tally.pool.samples
    gain = (shares - samples)[start : stop + 1]
    first, last = sorted((int(gain.argmin()), int(gain.argmax())))
    if first == 0 or last == stop - start:
        return
    sign = 1 if gain[first] < gain[last] else -1
    begin = int((sign * gain[: first + 1]).argmax())
    end = last + int((sign * gain[last:]).argmin())
    edges = np.array([begin, first, last, end]) + start
    if (np.diff(edges) < 1).any():
        return
    p, q = tally.shares(edges)
    n, m = tally.pool.effective_rows, tally.pool.samples
    joint = (n * p + m * q) / (n + m)
    errors = (p - q) / np.sqrt(joint * (1 - joint) * (1 / n + 1 / m))
    ends = values[np.minimum(edges, len(values) - 1)]
    left, middle, right = map(
        Part, p.tolist(), q.tolist(), errors.tolist(), np.diff(ends).tolist()
    )
    yield Peak(
        (float(ends[1]), float(ends[2])), (float(ends[0]), float(ends[3])), (left, middle, right)
    )


def _named(both: Pooled, name: str, deviation: Deviation, peak: Peak) -> Deviation:
    """Returns a deviation that names the peak, with the level of the one in it."""
    region = both.rounded(name, peak.region)
    middle = peak.parts[1]
    share, expected = both.shares([name], [region]) or (middle.share, middle.expected)
    wider = middle.excess > 0
    width = peak.region[1] - peak.region[0]
    center = number(sum(peak.region) / 2, 10 * width)
    how = "wider and lower" if wider else "narrower and higher"
    place = interval_phrase(*region)
    sentence = (
        f"The peak of {name} at {center} is {how} in the samples: {100 * expected:.2g} % of them "
        f"are {place}, and {100 * share:.2g} % of the rows."
    )
    return replace(
        deviation,
        region=(region,),
        share=share,
        expected=expected,
        place=f"{name} {place}",
        sentence=sentence,
        peak="wider" if wider else "narrower",
    )
