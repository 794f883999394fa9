"""`Deviation`: a region where samples of a flow and held-out rows differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["good", "care", "bad"]
LEVELS: tuple[Level, ...] = ("good", "care", "bad")
Bounds = tuple[float, float]

FAMILY = 0.01  # probability that any test of a right flow reports a deviation
NATS_CARE, NATS_BAD = 0.01, 0.1  # divergence, in nats per row, from which a flow needs care
SHARE_CARE, RATIO_CARE = 0.002, 1.5  # of the rows or samples in a region, and their ratio
SHARE_BAD, RATIO_BAD = 0.01, 3.0
LARGEST, DECIMALS = 1e15, 4  # the largest number with all digits, and decimals of tiny ones


@dataclass(frozen=True)
class Deviation:
    """A region where the share of samples differs from that of held-out rows.

    Attributes:
        test: What found it: "column", "pair", "score" (log_prob), "classifier", "overfitting", or
            for conditional flows "pit" and "coverage".
        columns: The columns that bound the region; empty if it is not one of columns.
        region: Least and largest value of each of these columns; infinite where there is none.
        share: Share of the held-out rows in the region.
        expected: Share of the samples in it.
        rows: Number of held-out rows that the test compared.
        p_value: Probability of such a deviation anywhere, for a flow that is right: the p-value
            times the number of all tests.
        nats: Estimated divergence that the test shows, in nats per row.
        sentence: The deviation as a sentence.
        place: Where it is, as text.
        histogram: For "pit" and "coverage" the share of the rows in 16 bins of their ranks.
        peak: Whether a peak, whose middle is the region, is "wider" or "narrower" in the samples;
            empty if the region is not a peak.
        level: "good" if chance explains the deviation or it is negligible, else "care" or "bad".
    """

    test: str
    columns: tuple[str, ...]
    region: tuple[Bounds, ...]
    share: float
    expected: float
    rows: int
    p_value: float
    nats: float
    sentence: str = ""
    place: str = ""
    histogram: tuple[float, ...] = ()
    peak: Literal["", "wider", "narrower"] = ""
    level: Level = "good"

    def among(self, tests: int) -> "Deviation":
        """Returns the deviation with its place, sentence and level, as the worst of many tests."""
        result = replace(self, p_value=min(1.0, self.p_value * tests))
        parts = zip(self.columns, self.region, strict=True)
        *most, last = [f"{name} {interval_phrase(*bounds)}" for name, bounds in parts] or [""]
        place = f"{', '.join(most)} and {last}" if most else last
        result = replace(result, place=self.place or place, level=_level(result))
        sentence = f"Too {self.few} samples have {place}: {self.counts}."
        return replace(result, sentence=self.sentence or sentence)

    @property
    def is_located(self) -> bool:
        """Whether it is in a region of columns of the data."""
        return bool(self.columns) and self.test != "score"

    @property
    def few(self) -> str:
        """Whether there are too "few" or too "many" samples."""
        return "few" if self.expected < self.share else "many"

    @property
    def counts(self) -> str:
        """The numbers of samples, scaled to as many as the rows, and of rows in the region."""
        samples, rows = (_count(part * self.rows) for part in (self.expected, self.share))
        total = f"{self.rows:,}"
        return f"{samples} of {total}, compared with {rows} of {total} held-out rows"


def worst_level(levels: Sequence[Level]) -> Level:
    """Returns the worst of some levels, "good" if there are none."""
    return LEVELS[max((LEVELS.index(level) for level in levels), default=0)]


def _level(deviation: Deviation) -> Level:
    if deviation.p_value > FAMILY:
        return "good"
    shares = (deviation.share, deviation.expected)
    ratio = max(shares) / max(min(shares), 1e-9)
    if deviation.nats >= NATS_BAD or (max(shares) >= SHARE_BAD and ratio >= RATIO_BAD):
        return "bad"
    if deviation.nats >= NATS_CARE or (max(shares) >= SHARE_CARE and ratio >= RATIO_CARE):
        return "care"
    return "good"


def interval_phrase(low: float, high: float) -> str:
    """Returns an interval as text, such as "between 91.1 and 91.3"."""
    ends = [abs(end) for end in (low, high) if math.isfinite(end)]
    width = high - low if len(ends) == 2 else max(ends, default=1.0)
    if not ends:
        return "anywhere"
    if low == high:
        return f"equal to {low:.6g}"
    if math.isinf(low):
        return f"below {number(high, width)}"
    if math.isinf(high):
        return f"above {number(low, width)}"
    return f"between {number(low, width)} and {number(high, width)}"


def number(value: float, width: float) -> str:
    """Returns a number with as many decimals as resolve a hundredth of a width."""
    if not math.isfinite(value):
        return ""
    decimals = 1 - math.floor(math.log10(width)) if width > 0 else 6
    is_tiny = decimals > DECIMALS and abs(value) < 10.0**-DECIMALS
    if is_tiny or decimals > 8 or abs(value) >= LARGEST:
        return f"{value:.3g}" if is_tiny else f"{value:.6g}"
    rounded = round(value, decimals if decimals >= 0 else decimals + 1)
    return f"{rounded + 0.0:,.{max(0, decimals)}f}"


def _count(expected: float) -> str:
    return f"{expected:,.0f}" if expected >= 1 else f"{expected:.1f}".removesuffix(".0")


class Family:
    """The tests of one comparison; a right flow fails any of them with a probability of 1 %."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.deviations: list[Deviation] = []

    def add(self, deviation: Deviation, tests: int) -> Deviation:
        """Returns one of several tests of a group as the worst of all; significant ones are kept.

        The groups have equal shares of the probability, and so have the tests of a group.
        """
        deviation = deviation.among(tests * self.groups)
        if deviation.p_value <= FAMILY:
            self.deviations.append(deviation)
        return deviation

    def sorted(self) -> tuple[Deviation, ...]:
        """Returns the significant deviations, the worst first."""
        return tuple(sorted(self.deviations, key=lambda e: (-LEVELS.index(e.level), -e.nats)))
