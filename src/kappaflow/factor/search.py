"""When to search, with which numbers of couplings and for how long; the searches on a problem."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from kappaflow.factor.budget import OutOfBudget, SearchBudget
from kappaflow.factor.closed_forms import SIX, small_first, worst_condition_number
from kappaflow.factor.continuation import continue_to, continue_to_five
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.free_scales import free_scales
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.uneven import continue_uneven, enough_couplings

OPERATIONS = 4e10  # limit of a search by default: a few seconds on one core
LARGEST, LARGEST_UNEVEN = 64, 24  # most features for which such a search is worth starting
ILL_CONDITIONED = 2e9  # condition number above which no search is accurate in float64
LARGEST_FREE = 6  # most features for which all scales are unknowns; the time grows like n^6
WELL_CONDITIONED, NEAR = 3.0, 1.5  # condition number, and ratio to the lower bound, that suffice
COUNTS = (24, 16, 12, 8, 6)  # fewer couplings that are tried if the result for more is poor
ONE_THREAD = 256  # largest number of features for which searches gain nothing from two threads


@dataclass(frozen=True)
class SearchOptions:
    """The seed, the time limit (None for the default) and where progress is shown."""

    seed: int = 0
    max_time_s: float | None = None
    progress: Callable[[str], None] = lambda text: None


def budget_for(
    problem: FactorProblem, options: SearchOptions, *, needed: bool
) -> tuple[SearchBudget | None, str]:
    """Returns the budget of a search, or None and the reason why there is no search.

    If no time limit is given, a needed search has no limit. Any other search is limited by the
    number of operations, so that its result does not depend on the speed of the machine.
    """
    if problem.condition_number > ILL_CONDITIONED:
        number = f"the condition number of the matrix is {problem.condition_number:.1g}"
        return None, f"{number}, too large for a search in float64"
    if options.max_time_s == 0:
        return None, "max_time_s gives it no time"
    if options.max_time_s is not None:
        return SearchBudget(max_time_s=options.max_time_s, progress=options.progress), ""
    if needed:
        return SearchBudget(progress=options.progress), ""
    if not is_small(problem):
        features = len(problem.matrix)
        return None, f"a search takes long for {features} features: max_time_s=60 allows a minute"
    return SearchBudget(operations=OPERATIONS, progress=options.progress), ""


def is_small(problem: FactorProblem) -> bool:
    """Returns whether a search may end within a few seconds."""
    near = abs(len(problem.matrix) - 2 * problem.first) <= 1
    return len(problem.matrix) <= (LARGEST if near else LARGEST_UNEVEN)


def enough_for(problem: FactorProblem) -> int:
    """Returns the largest number of couplings that a search needed in tests: six for halves."""
    first, second = problem.first, len(problem.matrix) - problem.first
    return SIX if abs(first - second) <= 1 else enough_couplings(first, second)


def counts_to_try(problem: FactorProblem, couplings: int) -> Iterator[int]:
    """Yields the numbers of couplings to search for, in descending order."""
    enough = enough_for(problem)
    most = min(couplings, max(*COUNTS, enough))
    yield from dict.fromkeys([most, *(n for n in (*COUNTS, enough) if enough <= n < most)])


def by_continuation(problem: FactorProblem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most this many factors, six or more, by numerical continuation."""
    matrix, small, turn = small_first(problem)
    unit = matrix / problem.scale
    with _few_threads(problem):
        if small != len(unit) // 2:
            count = min(couplings, enough_couplings(small, len(unit) - small))
            factors = continue_uneven(unit, small, couplings=count, seed=seed)
        else:
            factors = unit_factors(continue_to(unit, couplings, seed=seed))
    if problem.even and len(unit) <= LARGEST_FREE:
        factors = _with_free_scales(rescale(factors), problem)
    return rescale(turn(factors), scale=problem.scale)


def _with_free_scales(factors: list[Factor], problem: FactorProblem) -> list[Factor]:
    """Returns the factors, improved by `free_scales` if they are far from a lower bound."""
    values = problem.singular_values / problem.scale
    least = max(values[0], 1 / values[-1]) ** (2 / len(factors))
    if worst_condition_number(factors) <= max(WELL_CONDITIONED, NEAR * least):
        return factors
    try:
        return free_scales(factors, problem.matrix / problem.scale)
    except OutOfBudget:
        return factors


def by_five(problem: FactorProblem, seed: int) -> list[Factor]:
    """Returns five factors, beginning with L if T12 is better conditioned than T21."""
    matrix, d = problem.matrix / problem.scale, problem.first
    lower_first = bool(np.linalg.cond(matrix[:d, d:]) <= np.linalg.cond(matrix[d:, :d]))
    if not lower_first:
        matrix = np.roll(matrix, (d, d), (0, 1))
    with _few_threads(problem):
        blocks = continue_to_five(matrix, seed=seed)
    return rescale(unit_factors(blocks, lower_first=lower_first), scale=problem.scale)


def _few_threads(problem: FactorProblem) -> threadpool_limits:
    """Returns a context that limits BLAS to one thread for small matrices.

    The thread pools of numpy and scipy wait for each other, and for everything else on the
    machine: with two threads a product of 32 x 32 can take a hundred times as long.
    """
    small = len(problem.matrix) <= ONE_THREAD
    return threadpool_limits(1 if small else None, user_api="blas")
