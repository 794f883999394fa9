"""What more couplings buy: the best factorization of one map within each of several counts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.factorization import Factorization, rank
from kappaflow.factor.linear import factor_linear
from kappaflow.factor.problem import problem_of
from kappaflow.partition import Partition

COUNTS = (6, 8, 11, 12, 16)


@dataclass(frozen=True)
class Trial:
    """What came of one count.

    Attributes:
        couplings: So many were allowed.
        found: The best conditioned of what was found so far within that count and is exact to
            rounding; if none is, the best conditioned; None if nothing was found.
        why_not: Why the search for this count found nothing, or nothing that is exact to
            rounding; empty where it did.
    """

    couplings: int
    found: Factorization | None
    why_not: str = ""


def trade_off(
    matrix: Tensor | np.ndarray,
    *,
    counts: Sequence[int] = COUNTS,
    partition: str | int | Partition = "half",
    seed: int = 0,
    known: Mapping[int, Factorization] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """Returns the best factorization of a map within each count, in ascending order.

    What was found for a count is allowed for each larger one, so the largest condition number of
    a factor never rises along the list, once there is one that is exact to rounding.

    Args:
        matrix: T, (n, n).
        counts: How many couplings are allowed.
        partition: As for `factor_linear`.
        seed: For searches.
        known: Factorizations that are there already, by the count that they were asked for.
        progress: Is told what is computed, before it is.

    Returns:
        One trial a count.

    Raises:
        ArgumentError: No number of couplings makes this matrix, or an argument cannot be used.

    Example:
        >>> import torch, kappaflow as kf
        >>> from kappaflow.factor.trade_off import trade_off
        >>> trials = trade_off(torch.eye(4)[[1, 2, 0, 3]], counts=(2, 6))
        >>> [trial.found is not None for trial in trials]
        [False, True]
    """
    problem_of(matrix, partition)  # what is wrong with it is wrong for each count
    natural_int("seed", seed)
    for count in counts:
        positive_int("counts", count)
    trials: list[Trial] = []
    best: Factorization | None = None
    for count in sorted(counts):
        found, why_not = (known or {}).get(count), ""
        if found is None:
            progress(f"looking for {count} couplings")
            try:
                found = factor_linear(matrix, couplings=count, partition=partition, seed=seed)
            except (ArgumentError, NumericalError) as error:
                why_not = str(error)
        if found is not None and not found.is_exact:
            why_not = f"the couplings found have a residual of {found.residual:.1g}, not rounding."
        best = _better(best, found)
        trials.append(Trial(count, best, why_not))
    return trials


def _better(one: Factorization | None, other: Factorization | None) -> Factorization | None:
    there = [found for found in (one, other) if found is not None]
    return min(there, key=rank, default=None)
