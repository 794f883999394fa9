"""`factor_linear`: an invertible linear map as a few couplings of one partition.

The strategies compete: `STRATEGIES` says which couplings each of them finds, for which maps and at
what cost, and `_best` takes the best conditioned exact result.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import zip_longest
from typing import get_args

import numpy as np
from torch import Tensor

from kappaflow._checks import finite_float, natural_int, one_of, positive_int
from kappaflow.errors import ArgumentError, NumericalError, NumericalWarning
from kappaflow.factor.assembly import SIX_NOTE, assembled, out_of_range
from kappaflow.factor.budget import OutOfBudget, SearchBudget
from kappaflow.factor.closed_forms import min_couplings
from kappaflow.factor.coupling import Factor
from kappaflow.factor.factorization import EXACT, Factorization, ranking_key
from kappaflow.factor.problem import FactorProblem, factor_problem
from kappaflow.factor.strategies import STRATEGIES, Count, FactorRequest, Strategy, enough_for
from kappaflow.options import FactorMethod
from kappaflow.partition import Partition

METHODS: tuple[FactorMethod, ...] = get_args(FactorMethod)
FEWER_NOTE = "couplings=None gives {number} with a largest condition number of {condition:.3g}"
FEWEST_NOTE = (
    "three work for special matrices only; no five were found, and they may not exist: "
    "kappaflow.theory.check_count may prove that"
)
LOST_NOTE = (
    "three work for special matrices only; the search for five failed, so five may or may not "
    "exist: pass couplings=5 to see the error"
)
TOO_FEW = (
    "one leaves a part of the features unchanged, and this map does not",
    "two need a diagonal block whose Schur complement is also diagonal",
    "three need S Q^-1 P - R = B Q^-1 C with diagonal B and C, where T = (P, Q; R, S), or the "
    "same with the parts exchanged",
    "four exist for some maps only, and their condition numbers have no bound",
    "five need an upper right or a lower left block that is invertible and far from singular",
)
TOO_FEW_UNEVEN = "three to five are not tried for parts of different sizes"
ENDED = "the search ended at its limit"
GOOD = 3.0  # condition number of factors that more factors hardly improve
SMALLEST, LARGEST = 1e-290, 1e290  # scales of a matrix within which float64 holds the residual
ROUNDING = 2e-14  # inverse residual in units of cond(T) that rounding may explain


def factor_linear(
    matrix: Tensor | np.ndarray,
    *,
    couplings: Count = "auto",
    partition: str | int | Partition = "half",
    seed: int = 0,
    method: FactorMethod = "auto",
    max_time_s: float | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Factorization:
    """Factors an invertible linear map into couplings that alternate between two parts.

    Closed forms come first. Then a search improves the largest condition number of a coupling, or
    finds fewer couplings than a closed form has.

    Args:
        matrix: T, (n, n), n at least 2, acting on columns: z = T x.
        couplings: Largest number of couplings; None for the fewest that the methods find. Six are
            enough for halves, and sometimes needed; other parts may need more. "auto": six
            (or as many as these parts need) if a search of a few seconds finds them, else at most
            17 in closed form (or as many as these parts need).
        partition: The kept and the changed features: "half", "alternating", the number of
            features of the first part, or a partition.
        seed: Seed for the methods that search.
        method: "rotation": six couplings in closed form, for orthogonal matrices times a number.
            "positive": six in closed form, for symmetric positive definite matrices and equal
            halves. "svd": eleven in closed form, for any matrix; if `couplings` allows more, they
            share the condition number of T. "continuation": six or more, by a search. "auto": the
            best conditioned result within `couplings`, or the most accurate if none is exact.
        max_time_s: Time limit of the search in seconds; 0 for closed forms only. By default the
            search takes a few seconds at most, by a limit on its operations, and is left out above
            64 features; but if no closed form has so few couplings, it has no limit.
        progress: Receives a short text on each step of the search.

    Returns:
        The couplings with their residual and their condition numbers.

    Raises:
        ArgumentError: The matrix is singular, not square or not finite; an argument is invalid; or
            the matrix needs more couplings.
        NumericalError: A search failed or found nothing within its limit, and no closed form has
            so few couplings; or the scale of the matrix is beyond 1e-290 to 1e290.

    Note:
        Warns (NumericalWarning) if the result is not exact (`Factorization.is_exact`) for another
        reason than the rounding of the matrix. There is no search for matrices with a condition
        number above 2e9.

    Source:
        Ours. Urschel 2023 proves that six are enough for equal halves and a positive determinant
        (docs/theory/six-couplings.md: also for halves of an odd number of features); a negative
        determinant costs one negative diagonal entry. Koehler, Mehta, Risteski 2021 proved 47.

    Example:
        >>> import torch, kappaflow as kf
        >>> found = kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]])
        >>> len(found), found.residual < 1e-14, found.condition_number < 7
        (6, True, True)
    """
    one_of("method", method, METHODS)
    natural_int("seed", seed)
    if isinstance(couplings, str):
        one_of("couplings", couplings, ("auto",))
    elif couplings is not None:
        positive_int("couplings", couplings)
    if max_time_s is not None and finite_float("max_time_s", max_time_s) < 0:
        raise ArgumentError(f"'max_time_s' should be at least 0, got {max_time_s}.")
    problem = factor_problem(matrix, partition)
    if not SMALLEST <= problem.scale <= LARGEST:
        raise out_of_range(problem)
    request = FactorRequest(problem, couplings, seed, max_time_s, progress)
    result = _best(request) if method == "auto" else _by_method(method, request)
    rounded = result.inverse_residual <= ROUNDING * problem.condition_number
    if not result.is_exact and not (result.residual <= EXACT and rounded):
        warnings.warn(_inexact(result, problem), NumericalWarning, stacklevel=2)
    return result


def _best(request: FactorRequest) -> Factorization:
    """Returns the best-conditioned factorization within `couplings`; the fewest for None."""
    attempts = _Attempts(request)
    for strategy in STRATEGIES:
        if not attempts.may_need(strategy):
            continue
        counts = strategy.counts(request)
        for count, rival in zip_longest(counts, counts[1:], fillvalue=strategy.rival):
            result = attempts.result(strategy, count)
            if result is None or not rival:
                continue
            if request.couplings is None:
                return result
            if _is_enough(result, request.problem, rival):
                return result if strategy.method == "direct" else attempts.best()
    return attempts.best()


def _is_enough(result: Factorization, problem: FactorProblem, rival: int) -> bool:
    """Returns whether `rival` couplings could hardly be better conditioned than a result."""
    # The reason is that cond(T) is at most the product of the condition numbers.
    least = problem.condition_number ** (1 / rival)
    return result.is_exact and result.condition_number <= max(GOOD, 1.5 * least)


class _Attempts:
    """The results of the strategies that were tried, and what limited the searches."""

    def __init__(self, request: FactorRequest) -> None:
        self.request, self.problem = request, request.problem
        self.direct: list[Factorization] = []
        self.closed: list[Factorization] = []
        self.searched: list[Factorization] = []
        self.trouble: NumericalError | None = None

    @cached_property
    def search(self) -> tuple[SearchBudget | None, str]:
        """The budget of the searches, or None and why there are none; after the closed forms."""
        named = isinstance(self.request.couplings, int)
        return self.request.budget(needed=named and not [*self.direct, *self.closed])

    def may_need(self, strategy: Strategy) -> bool:
        """Returns whether a strategy may find a result, and there is no reason to leave it out."""
        if strategy.cost == "search" and self.search[0] is None:
            return False
        if strategy.cost == "last resort":
            others = [*self.closed, *self.searched]
            return not any(result.method == "rotation" or result.is_exact for result in others)
        return strategy.condition(self.problem)

    def result(self, strategy: Strategy, count: int) -> Factorization | None:
        """Returns and keeps what a strategy finds with this number of couplings, if anything."""
        try:
            factors = self._factors(strategy, count)
            result = None if factors is None else assembled(factors, self.problem, strategy.method)
        except NumericalError as error:
            if strategy.cost == "last resort":
                raise
            if strategy.cost == "search":
                self.trouble = self.trouble or error
            return None  # rounding spoilt a closed form: the next may be more accurate
        if result is not None:
            results = {"direct": self.direct, "continuation": self.searched}
            results.get(strategy.method, self.closed).append(result)
        return result

    def _factors(self, strategy: Strategy, count: int) -> Sequence[Factor] | None:
        budget = self.search[0] if strategy.cost == "search" else None
        if budget is not None and budget.is_over:
            return None
        try:
            factors = _run(strategy, self.request, count, budget)
        except OutOfBudget:
            text = f"the search for {count} couplings found none within its limit."
            raise NumericalError(text) from None
        is_many = strategy.cost == "arithmetic" and len(factors or ()) > count
        return None if is_many else factors

    def best(self) -> Factorization:
        """Returns the best result, with a note on the number of couplings and on the search."""
        candidates = [*self.direct, *self.closed, *self.searched]
        why_not = self._why_not_searched()
        if not candidates:
            raise _nothing(self.request, self.trouble, why_not)
        best = min(candidates, key=ranking_key)
        if best.method != "continuation" and not why_not:
            why_not = self._why_not_taken()
        note, before = best.note, None
        if self.direct and best is not self.direct[0]:
            fewer = self.direct[0]
            note = FEWER_NOTE.format(number=len(fewer), condition=fewer.condition_number)
        elif self.request.couplings is None and note == SIX_NOTE:
            note = LOST_NOTE if self.trouble or why_not else FEWEST_NOTE
        if best.method == "continuation" and self.closed:
            before = min(result.condition_number for result in self.closed)
        note = "; ".join(filter(None, [note, why_not and f"search: {why_not}"]))
        return dataclasses.replace(best, note=note, before_search=before)

    def _why_not_searched(self) -> str:
        """Returns what kept the searches from trying everything; empty if nothing did."""
        budget, reason = self.search
        is_over = budget is not None and budget.is_over
        return ENDED if is_over else reason

    def _why_not_taken(self) -> str:
        """Returns why the results of a search were not taken; empty if they were not better."""
        if self.searched and not any(result.is_exact for result in self.searched):
            poor = self.searched[0]
            also = f"that of the inverse is {poor.inverse_residual:.1g}"
            return f"{len(poor)} couplings have a residual of {poor.residual:.1g}, {also}"
        return "it found no solution" if self.trouble and not self.searched else ""


def _by_method(method: str, request: FactorRequest) -> Factorization:
    """Returns the factorization of one method; raises ArgumentError if it needs more couplings."""
    strategy = next(row for row in reversed(STRATEGIES[:-1]) if row.method == method)
    budget, why_not = None, ""
    if strategy.cost == "search":
        budget, why_not = request.budget(needed=True)
    if why_not:
        raise _nothing(request, None, why_not)
    try:
        factors = _run(strategy, request, request.limit, budget) or ()
    except OutOfBudget:
        raise _nothing(request, None, ENDED) from None
    if isinstance(request.couplings, int) and request.couplings < len(factors):
        raise ArgumentError(
            f"'couplings' should be at least {len(factors)} for method={method!r} and this "
            f"partition, got {request.couplings}."
        )
    return assembled(factors, request.problem, method)


def _run(
    strategy: Strategy, request: FactorRequest, count: int, budget: SearchBudget | None
) -> Sequence[Factor] | None:
    """Returns what a strategy finds with this number of couplings, within a budget if any."""
    with nullcontext() if budget is None else budget.active():
        return strategy.factors(request.problem, count, request.seed)


def _nothing(
    request: FactorRequest, trouble: NumericalError | None, why_not: str
) -> ArgumentError | NumericalError:
    """Returns the error if there is no result: too few couplings, or a search that failed."""
    problem, count = request.problem, request.limit
    if trouble is not None and not why_not:
        return trouble
    if count < 5 or (count == 5 and not why_not):
        return _too_few(problem, count)
    return NumericalError(
        f"{count} couplings of this matrix need a search, and {why_not}. Leave 'couplings' out, "
        f"or pass couplings={min_couplings(problem, 'svd')} for the fewest in closed form, which "
        "may be ill-conditioned."
    )


def _inexact(result: Factorization, problem: FactorProblem) -> str:
    return (
        "the product P of the couplings differs from the matrix T by "
        f"{result.residual:.1e} of its norm, and P^-1 T from the identity by "
        f"{result.inverse_residual:.1e}. Likely cause: the condition number of the matrix, "
        f"{problem.condition_number:.1g}. couplings={min_couplings(problem, 'svd')} allows a "
        "closed form, exact to rounding."
    )


def _too_few(problem: FactorProblem, couplings: int) -> ArgumentError:
    """Returns the error that explains why this number of couplings is not enough, or not tried."""
    enough = (
        "six are enough for any map."
        if abs(len(problem.matrix) - 2 * problem.first) <= 1
        else f"{enough_for(problem)} were enough for every map in our tests."
    )
    few = TOO_FEW if problem.even else [*TOO_FEW[:2], *[TOO_FEW_UNEVEN] * 3]
    reason = few[min(couplings, len(few)) - 1]
    return ArgumentError(
        f"'couplings' should be larger for this matrix, got {couplings}: {reason}; {enough}"
    )
