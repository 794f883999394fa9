"""How the conditioning of the factors of a map improves with the number of couplings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.factorization import Factorization, ranking_key
from kappaflow.factor.linear import factor_linear
from kappaflow.factor.problem import factor_problem
from kappaflow.factor.strategies import is_small
from kappaflow.partition import Partition

COUNTS = (6, 8, 11, 12, 16)


@dataclass(frozen=True)
class CountResult:
    """The result for one count."""

    couplings: int
    # The best-conditioned exact one so far, else the most accurate
    factorization: Factorization | None
    why_not: str = ""  # why the search for this count found nothing exact; empty if it did


def trade_off(
    matrix: Tensor | np.ndarray,
    *,
    counts: Sequence[int] = COUNTS,
    partition: str | int | Partition = "half",
    seed: int = 0,
    known: Mapping[int, Factorization] | None = None,
    max_time_s: float | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[CountResult]:
    """Returns the best factorization with at most so many couplings, for each count."""
    problem = factor_problem(matrix, partition)  # raises once, not for each count
    if max_time_s is None and not is_small(problem):
        max_time_s = 0.0
    natural_int("seed", seed)
    for count in counts:
        positive_int("counts", count)
    trials: list[CountResult] = []
    best: Factorization | None = None
    for count in sorted(counts):
        candidate, why_not = (known or {}).get(count), ""
        if candidate is None:
            progress(f"looking for {count} couplings")
            try:
                candidate = factor_linear(
                    matrix,
                    couplings=count,
                    partition=partition,
                    seed=seed,
                    max_time_s=max_time_s,
                )
            except (ArgumentError, NumericalError) as error:
                why_not = str(error)
        if candidate is not None and not candidate.is_exact:
            why_not = (
                f"the residual is {candidate.residual:.1g}, that of the inverse "
                f"{candidate.inverse_residual:.1g}."
            )
        best = _better(best, candidate)
        trials.append(CountResult(count, best, why_not))
    return trials


def _better(first: Factorization | None, second: Factorization | None) -> Factorization | None:
    candidates = [candidate for candidate in (first, second) if candidate is not None]
    return min(candidates, key=ranking_key, default=None)
