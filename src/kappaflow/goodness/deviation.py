"""`Deviation`: a region where samples of a flow and held-out rows differ, as text and in figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "care", "bad"]
LEVELS: tuple[Level, ...] = ("good", "care", "bad")
Bounds = tuple[float, float]

FAMILY = 0.01  # probability that any test of a right flow reports a deviation
NATS_CARE, NATS_BAD = 0.01, 0.1  # divergence, in nats per row, from which a flow needs care
SHARE_CARE, RATIO_CARE = 0.002, 1.5  # of the rows or samples in a region, and their ratio
SHARE_BAD, RATIO_BAD = 0.01, 3.0


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
        text: The deviation as a sentence if it is not in a region of columns; else empty.
        place: Where it is, as text, if it is not in a region of columns; else empty.
    """

    test: str
    columns: tuple[str, ...]
    region: tuple[Bounds, ...]
    share: float
    expected: float
    rows: int
    p_value: float
    nats: float
    text: str = ""
    place: str = ""

    @property
    def level(self) -> Level:
        """How bad the deviation is; "good" if chance explains it or it is negligible."""
        if self.p_value > FAMILY:
            return "good"
        larger = max(self.share, self.expected)
        ratio = larger / max(min(self.share, self.expected), 1e-9)
        if self.nats >= NATS_BAD or (larger >= SHARE_BAD and ratio >= RATIO_BAD):
            return "bad"
        if self.nats >= NATS_CARE or (larger >= SHARE_CARE and ratio >= RATIO_CARE):
            return "care"
        return "good"

    @property
    def where(self) -> str:
        """The region as text, such as "mass between 91.1 and 91.3"."""
        if not self.columns:
            return self.place
        parts = zip(self.columns, self.region, strict=True)
        return " and ".join(f"{name} {interval_phrase(*bounds)}" for name, bounds in parts)

    @property
    def sentence(self) -> str:
        """The deviation as a sentence."""
        if self.text:
            return self.text
        few = "few" if self.expected < self.share else "many"
        return (
            f"Too {few} samples have {self.where}: {_count(self.expected * self.rows)} of "
            f"{self.rows:,}, where {_count(self.share * self.rows)} of as many held-out rows have."
        )


def worst_level(levels: Sequence[Level]) -> Level:
    """Returns the worst of some levels, "good" if there are none."""
    return LEVELS[max((LEVELS.index(level) for level in levels), default=0)]


def interval_phrase(low: float, high: float) -> str:
    """Returns an interval as text, such as "between 91.1 and 91.3"."""
    ends = [abs(end) for end in (low, high) if math.isfinite(end)]
    width = high - low if len(ends) == 2 else max(ends, default=1.0)
    if not ends:
        return "anywhere"
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
    if not 0 <= decimals <= 8:
        return f"{value:.6g}"
    return f"{value:,.{decimals}f}" if decimals else f"{value:,.0f}"


def _count(expected: float) -> str:
    return (
        f"{expected:,.0f}"
        if expected >= 10 or expected == 0
        else f"{expected:.1f}".removesuffix(".0")
    )
