"""Which padding is better, case by case, with sign tests."""

from dataclasses import dataclass

import polars as pl
from scipy.stats import binomtest

from kappaflow_studies.padding.cases import spec_of

LEVEL = 0.05
CLAIMED = ("zero", "none", "gaussian")  # from the worst conditioned to the best


@dataclass(frozen=True)
class Signs:
    """How often the first of two is above the second, with the same seed.

    Attributes:
        above: In how many pairs.
        pairs: Of how many, equal ones left out.
    """

    above: int
    pairs: int

    @property
    def p_value(self) -> float:
        """Two-sided, of as many signs or more on one side if both were as likely.

        Source:
            The sign test, exact by the binomial distribution.
        """
        return float(binomtest(self.above, self.pairs).pvalue) if self.pairs else 1.0

    @property
    def verdict(self) -> int:
        """1 if the first is above at the level of 5 %, -1 if below, 0 if that is open."""
        if self.p_value > LEVEL:
            return 0
        return 1 if 2 * self.above > self.pairs else -1

    @property
    def in_words(self) -> str:
        """For a table.

        Example:
            >>> Signs(9, 10).in_words
            '9 of 10, p = 0.021'
        """
        return f"{self.above} of {self.pairs}, p = {self.p_value:.2g}"


def signs(frame: pl.DataFrame, upper: str, lower: str, value: str) -> Signs:
    """Returns the sign test of a value between two paddings, paired by seed.

    Args:
        frame: Rows of one set.
        upper: Padding that is claimed to be above.
        lower: The other.
        value: The column; a value that is not finite, or missing, is above all others.

    Returns:
        The signs.
    """
    of_one, of_other = (
        frame.filter(pl.col("padding") == padding).select(
            "seed", pl.col(value).fill_null(float("inf")).fill_nan(float("inf")).alias(name)
        )
        for padding, name in ((upper, "one"), (lower, "other"))
    )
    both = of_one.join(of_other, on="seed").filter(pl.col("one") != pl.col("other"))
    return Signs(int((both["one"] > both["other"]).sum()), len(both))


def ordered(steps: list[Signs]) -> int:
    """Returns 1 if each step of an ordering is confirmed, -1 if one is reversed, else 0.

    Example:
        >>> ordered([Signs(10, 10), Signs(9, 10)]), ordered([Signs(10, 10), Signs(0, 10)])
        (1, -1)
    """
    verdicts = [step.verdict for step in steps]
    return -1 if -1 in verdicts else int(all(verdicts))


def claimed_order(paddings: tuple[str, ...]) -> list[str] | None:
    """Returns zero, none and Gaussian padding as settings name them, None if one is missing."""
    by_kind = {spec_of(name).kind: name for name in reversed(paddings)}
    return [by_kind[kind] for kind in CLAIMED] if set(CLAIMED) <= set(by_kind) else None


def claimed_steps(frame: pl.DataFrame, paddings: tuple[str, ...]) -> list[Signs]:
    """Returns the sign tests of zero above none and of none above Gaussian padding, on a set.

    Args:
        frame: Trainings on the set.
        paddings: As settings name them; one of each of the three kinds at least.

    Returns:
        Two tests; none where a kind is missing.
    """
    order = claimed_order(paddings)
    if order is None:
        return []
    zero, none, gaussian = order
    return [signs(frame, *pair, "kappa_median") for pair in ((zero, none), (none, gaussian))]
