"""Which rows of a table on disk are for what: a draw by the seed, before any row is read."""

from dataclasses import dataclass

import numpy as np

from kappaflow.data.pieces import piece_size
from kappaflow.data.split import sizes_of_parts
from kappaflow.data.table import IntArray

MOST_HELD_OUT = 100_000  # rows of a part, which stay in memory and are scored in each epoch
STREAM = 40961  # other draws than those of data made with default_rng(seed)


@dataclass(frozen=True, eq=False)
class Division:
    """Rows of a table, counted from 0, by what they are for.

    Attributes:
        rows: How many there are.
        held_out: The rows of each part that is not trained on, in random order.
        sample: Some of the rows to train on, or all of a few, in random order.
    """

    rows: int
    held_out: tuple[IntArray, ...]
    sample: IntArray

    @property
    def train(self) -> int:
        """How many rows are trained on, those of the sample too: all that are not held out."""
        return self.rows - sum(map(len, self.held_out))

    @property
    def not_trained_on(self) -> IntArray:
        """The rows of all parts that are held out, ascending."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *self.held_out]))

    @property
    def kept(self) -> IntArray:
        """All rows that stay in memory: the parts one after the other, then the sample."""
        return np.concatenate([*self.held_out, self.sample])


def division(rows: int, width: int, fractions: tuple[float, ...], seed: int) -> Division:
    """Returns a division of rows, which depends on these arguments alone.

    Args:
        rows: How many rows there are.
        width: How many columns, of which depends how many rows are kept in memory.
        fractions: Shares of the rows to train on, and of each part that is held out; of all but
            the first no more than 100,000 rows. None of them: all rows are trained on.
        seed: Of the draw.

    Returns:
        The division; no row is in two parts.

    Example:
        >>> found = division(50, 3, (0.8, 0.1, 0.1), seed=0)
        >>> found.train, [len(part) for part in found.held_out], len(found.sample)
        (40, [5, 5], 40)
    """
    wanted = sizes_of_parts(rows, fractions) if fractions else [rows]
    most = min(MOST_HELD_OUT, piece_size(width))
    held_out = [min(size, most) for size in wanted[1:]]
    sample = min(rows - sum(held_out), piece_size(width))
    generator = np.random.Generator(np.random.PCG64((seed, STREAM)))
    drawn = generator.choice(rows, sum(held_out), replace=False)
    parts = np.split(drawn, np.cumsum(held_out, dtype=np.int64))[:-1]
    few = generator.choice(rows - len(drawn), sample, replace=False)
    return Division(rows, tuple(parts), places_of(few, np.sort(drawn)))


def places_of(numbers: IntArray, held_out: IntArray) -> IntArray:
    """Returns where rows that are trained on are among all.

    Args:
        numbers: Which of the rows that are trained on, from 0.
        held_out: Places of the others, ascending.

    Returns:
        Their places from 0.

    Example:
        >>> places_of(np.array([0, 1, 2]), held_out=np.array([1, 2])).tolist()
        [0, 3, 4]
    """
    before = held_out - np.arange(len(held_out))  # rows trained on before each that is not
    return numbers + np.searchsorted(before, numbers, side="right")
