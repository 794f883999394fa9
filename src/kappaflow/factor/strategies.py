"""The strategies of `factor_linear`: which couplings each finds, for which maps, at what cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kappaflow.factor.budget import SearchBudget
from kappaflow.factor.closed_forms import (
    HALVES_COUPLINGS,
    MAX_CARRIERS,
    by_positive,
    by_rotation,
    by_svd,
    is_positive,
    is_rotation,
    min_couplings,
)
from kappaflow.factor.coupling import Factor
from kappaflow.factor.direct import direct_factors
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.search import by_continuation, by_five
from kappaflow.factor.uneven import enough_couplings

Count = int | Literal["auto"] | None  # None for the fewest

OPERATIONS = 4e10  # limit of a search by default: a few seconds on one core
LARGEST, LARGEST_UNEVEN = 64, 24  # most features for which such a search is worth starting
ILL_CONDITIONED = 2e9  # condition number above which no search is accurate in float64
COUNTS = (24, 16, 12, 8, 6)  # fewer couplings that are tried if the result for more is poor


@dataclass(frozen=True)
class FactorRequest:
    """A map to factor, with the number of couplings and the options of a search."""

    problem: FactorProblem
    couplings: Count
    seed: int = 0
    max_time_s: float | None = None
    progress: Callable[[str], None] = lambda text: None

    @property
    def limit(self) -> int:
        """The largest number of couplings of a strategy, except of the last one."""
        return self.couplings if isinstance(self.couplings, int) else enough_for(self.problem)

    def budget(self, *, needed: bool) -> tuple[SearchBudget | None, str]:
        """Returns the budget of a search, or None and the reason why there is no search."""
        # A needed search has no limit by default. Another one is limited by its operations, so
        # that its result does not depend on the speed of the machine.
        features, condition = len(self.problem.matrix), self.problem.condition_number
        if condition > ILL_CONDITIONED:
            number = f"the condition number of the matrix is {condition:.1g}"
            return None, f"{number}, too large for a search in float64"
        if self.max_time_s == 0:
            return None, "max_time_s gives it no time"
        if self.max_time_s is not None:
            return SearchBudget(max_time_s=self.max_time_s, progress=self.progress), ""
        if needed:
            return SearchBudget(progress=self.progress), ""
        if not is_small(self.problem):
            reason = f"a search takes long for {features} features: max_time_s=60 allows a minute"
            return None, reason
        return SearchBudget(operations=OPERATIONS, progress=self.progress), ""


def is_small(problem: FactorProblem) -> bool:
    """Returns whether a search may end within a few seconds."""
    near = abs(len(problem.matrix) - 2 * problem.first) <= 1
    return len(problem.matrix) <= (LARGEST if near else LARGEST_UNEVEN)


def enough_for(problem: FactorProblem) -> int:
    """Returns the largest number of couplings that a search needed in tests: six for halves."""
    first, second = problem.first, len(problem.matrix) - problem.first
    return HALVES_COUPLINGS if abs(first - second) <= 1 else enough_couplings(first, second)


class Strategy(NamedTuple):
    """A row of the table: the counts that `factors` tries, for maps that meet a condition.

    A result is final if it is nearly as well conditioned as the next count, or `rival`, could be.
    The last resort is tried if nothing before it is exact.
    """

    method: str
    counts: Callable[[FactorRequest], Sequence[int]]
    condition: Callable[[FactorProblem], bool]
    factors: Callable[[FactorProblem, int, int], list[Factor] | None]
    cost: Literal["arithmetic", "search", "last resort"] = "arithmetic"
    rival: int = 0


def _within_limit(method: str) -> Callable[[FactorRequest], Sequence[int]]:
    def counts(request: FactorRequest) -> Sequence[int]:
        enough = request.limit >= min_couplings(request.problem, method)
        return (request.limit,) if enough else ()

    return counts


def _five(request: FactorRequest) -> Sequence[int]:
    return (5,) if request.couplings in {None, 5} else ()


def _six_and_more(request: FactorRequest) -> Sequence[int]:
    """Returns the numbers of couplings to search for, in descending order."""
    if request.limit < HALVES_COUPLINGS:
        return ()
    enough = enough_for(request.problem)
    most = min(request.limit, max(*COUNTS, enough))
    return list(dict.fromkeys([most, *(n for n in (*COUNTS, enough) if enough <= n < most)]))


def _any(request: FactorRequest) -> Sequence[int]:
    if isinstance(request.couplings, int):
        return ()
    more = 0 if request.couplings is None else MAX_CARRIERS - 2
    return (min_couplings(request.problem, "svd") + more,)


STRATEGIES = (
    Strategy(
        method="direct",  # one to three couplings, for maps with their structure
        counts=lambda request: (request.limit,),
        condition=lambda problem: True,
        factors=lambda problem, n, seed: direct_factors(problem.blocks, problem.first, most=n),
        rival=HALVES_COUPLINGS,
    ),
    Strategy(
        method="rotation",  # six
        counts=_within_limit("rotation"),
        condition=is_rotation,
        factors=lambda problem, n, seed: by_rotation(problem),
    ),
    Strategy(
        method="positive",  # six
        counts=_within_limit("positive"),
        condition=lambda problem: not is_rotation(problem) and is_positive(problem),
        factors=lambda problem, n, seed: by_positive(problem),
    ),
    Strategy(
        method="svd",  # eleven and more
        counts=_within_limit("svd"),
        condition=lambda problem: not is_rotation(problem),
        factors=lambda problem, n, seed: by_svd(problem, n),
    ),
    Strategy(
        method="continuation",
        counts=_five,
        condition=lambda problem: problem.even,
        factors=lambda problem, n, seed: by_five(problem, seed),
        cost="search",
        rival=HALVES_COUPLINGS,
    ),
    Strategy(
        method="continuation",
        counts=_six_and_more,
        condition=lambda problem: True,
        factors=lambda problem, n, seed: by_continuation(problem, n, seed),
        cost="search",
    ),
    Strategy(
        method="svd",  # up to seventeen for halves
        counts=_any,
        condition=lambda problem: True,
        factors=lambda problem, n, seed: by_svd(problem, n),
        cost="last resort",
    ),
)
