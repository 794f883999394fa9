"""Comparisons of paddings, set by set, with sign tests."""

from dataclasses import dataclass

import polars as pl
from scipy.stats import binomtest

from kappaflow_studies.padding.cases import spec_of

LEVEL = 0.05
NEAR = 1.25  # ratio of two values below which their difference does not matter
WITHIN = f"within {100 * (NEAR - 1):.0f} %"
CLAIMED = ("zero", "none", "gaussian")  # from the worst to the best conditioned


@dataclass(frozen=True)
class SignTest:
    """A sign test: how often the first of two different values is above the second."""

    above: int
    pairs: int
    # Whether the first is surely above 1 / `NEAR` and below `NEAR` times the second
    near: bool = False

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the exact (binomial) sign test."""
        return float(binomtest(self.above, self.pairs).pvalue) if self.pairs else 1.0

    @property
    def verdict(self) -> int:
        """1 if the first is above the second at the 5 % level, -1 if below, 0 if undecided."""
        return self.verdict_at(LEVEL)

    def verdict_at(self, level: float) -> int:
        """Returns the verdict at another level."""
        if self.p_value > level:
            return 0
        return 1 if 2 * self.above > self.pairs else -1

    @property
    def description(self) -> str:
        """The result in a table, such as "9 of 10, p = 0.021"."""
        near = f", {WITHIN}" if self.near else ""
        return f"{self.above} of {self.pairs}, p = {self.p_value:.2g}{near}"


def sign_test(frame: pl.DataFrame, upper: str, lower: str, value: str) -> SignTest:
    """Returns the sign test of a column, paired by seed; missing values are the largest."""
    upper_rows, lower_rows = (
        frame.filter(pl.col("padding") == padding).select(
            "seed", pl.col(value).fill_null(float("inf")).fill_nan(float("inf")).alias(name)
        )
        for padding, name in ((upper, "upper"), (lower, "lower"))
    )
    paired = upper_rows.join(lower_rows, on="seed")
    less, same, more = (_sign_test(paired, factor) for factor in (1 / NEAR, 1, NEAR))
    return SignTest(same.above, same.pairs, near=less.verdict == 1 and more.verdict == -1)


def _sign_test(paired: pl.DataFrame, factor: float) -> SignTest:
    """Returns the sign test of a first column against a multiple of a second one."""
    different = paired.filter(pl.col("upper") != factor * pl.col("lower"))
    return SignTest(int((different["upper"] > factor * different["lower"]).sum()), len(different))


def ordered(steps: list[SignTest], level: float = LEVEL) -> str:
    """Returns the verdict on an order: confirmed, reversed, alike or open."""
    verdicts = [step.verdict_at(level) for step in steps]
    if -1 in verdicts:
        return "reversed"
    if all(verdicts):
        return "confirmed"
    alike = all(verdict or step.near for verdict, step in zip(verdicts, steps, strict=True))
    return "alike" if alike else "open"


def claimed_order(paddings: tuple[str, ...]) -> list[str] | None:
    """Returns zero, none and Gaussian padding as named in settings; None if one is missing."""
    by_kind = {spec_of(name).kind: name for name in reversed(paddings)}
    return [by_kind[kind] for kind in CLAIMED] if set(CLAIMED) <= set(by_kind) else None


def claimed_steps(frame: pl.DataFrame, paddings: tuple[str, ...]) -> list[SignTest]:
    """Returns the sign tests on one set of zero above none and none above Gaussian, if trained."""
    order = claimed_order(paddings)
    if order is None:
        return []
    zero, none, gaussian = order
    return [sign_test(frame, *pair, "kappa_median") for pair in ((zero, none), (none, gaussian))]
