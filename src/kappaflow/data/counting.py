"""Whole numbers that count the rows of a table, or identify them."""

from dataclasses import dataclass

import numpy as np

from kappaflow.data.naming import FloatArray

COUNTED = 20  # fewest rows of a progression that is no accident
CHANCE_REPEATS = 7.0  # expected repeats of random numbers: a probability of 1e-3 that none occurs
HEAD_ROWS = 1000  # rows that rule out most columns


@dataclass(frozen=True)
class Progression:
    """Whole numbers at equal distances, ascending or descending, such as 1, 2, 3 or 10, 8, 6."""

    first: float
    last: float
    step: float
    rows: int

    def then(self, other: "Progression | None") -> "Progression | None":
        """Returns this progression and the one of the rows after it, if they are one."""
        if other is None or other.first != self.last + self.step:
            return None
        if other.rows > 1 and other.step != self.step:
            return None
        return Progression(self.first, other.last, self.step, self.rows + other.rows)


def progression(numbers: FloatArray) -> Progression | None:
    """Returns the progression that numbers form; None if they form none."""
    if not len(numbers) or not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        return None
    steps = np.diff(numbers)
    step = float(steps[0]) if len(steps) else 1.0
    if step == 0 or (steps != step).any():
        return None
    return Progression(float(numbers[0]), float(numbers[-1]), step, len(numbers))


def identifiers(numbers: FloatArray) -> tuple[float, float] | None:
    """Returns the ends of whole numbers that are all different, as identifiers are; else None.

    Random numbers between these ends would repeat seven times on average, so chance is no cause.
    """
    few = numbers[:HEAD_ROWS]
    if len(numbers) < COUNTED or (few != np.rint(few)).any() or len(np.unique(few)) < len(few):
        return None
    ordered = np.unique(numbers)  # NaN and infinity come last
    is_whole = np.array_equal(ordered, np.rint(ordered)) and np.abs(ordered[[0, -1]]).max() < 2**53
    if len(ordered) < len(numbers) or not is_whole:
        return None
    step = int(np.gcd.reduce(np.diff(ordered).astype(np.int64)))
    length = (ordered[-1] - ordered[0]) / step + 1
    if len(numbers) * (len(numbers) - 1) / 2 < CHANCE_REPEATS * length:
        return None
    return float(ordered[0]), float(ordered[-1])
