"""`factor_linear`: an invertible linear map as a few couplings of one partition."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kappaflow._checks import finite_float, natural_int, one_of, positive_int
from kappaflow.errors import ArgumentError, NumericalError, NumericalWarning
from kappaflow.factor.budget import OutOfBudget, SearchBudget
from kappaflow.factor.closed_forms import CARRIERS, SIX, applicable, closed_form, min_couplings
from kappaflow.factor.coupling import Factor, flip_last, to_layers, weight_and_diagonal
from kappaflow.factor.direct import direct_factors
from kappaflow.factor.factorization import EXACT, Factorization, ranking_key, residuals
from kappaflow.factor.problem import FactorProblem, factor_problem
from kappaflow.factor.search import (
    SearchOptions,
    budget_for,
    by_continuation,
    by_five,
    counts_to_try,
    enough_for,
)
from kappaflow.options import FactorMethod
from kappaflow.partition import Partition

Count = int | Literal["auto"] | None  # None for the fewest

METHODS: tuple[FactorMethod, ...] = get_args(FactorMethod)
DIRECT_NOTES = (
    "the identity needs no coupling",
    "only the identity needs fewer than one",
    "one would leave a part of the features unchanged",
    "two would need a diagonal block with a diagonal Schur complement",
    "three would need an off-diagonal entry, or a positive diagonal",
)
FEWER_NOTE = "couplings=None gives {number} with a largest condition number of {condition:.3g}"
SIX_NOTE = (
    "three work for special matrices only, and this is not one; five may work, with larger "
    "condition numbers: pass couplings=5, or couplings=None for the fewest"
)
FIVE_NOTE = "three work for special matrices only; so do four, which are not tried"
UNEVEN_NOTE = "one or two work for special matrices only; three to five are not tried"
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
GOOD = 3.0  # condition number of factors that more factors hardly improve
SMALLEST, LARGEST = 1e-290, 1e290  # scales of a matrix within which float64 holds the residual
STRUCTURE = 1e-12  # largest relative residual if the structure is present
ROUNDING = 2e-14  # inverse residual in units of cond(T) that rounding may explain
USELESS = 0.1  # inverse residual at which an inexact product is not a factorization


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
        >>> import kappaflow as kf
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
        raise _out_of_range(problem)
    options = SearchOptions(seed, max_time_s, progress)
    if method == "auto":
        found = _best(problem, couplings, options)
    else:
        found = _by_method(method, problem, None if couplings == "auto" else couplings, options)
    rounded = found.inverse_residual <= ROUNDING * problem.condition_number
    if not found.is_exact and not (found.residual <= EXACT and rounded):
        warnings.warn(_inexact(found, problem), NumericalWarning, stacklevel=2)
    return found


def _best(problem: FactorProblem, couplings: Count, options: SearchOptions) -> Factorization:
    """Returns the best-conditioned factorization within `couplings`; the fewest for None."""
    direct = _direct(problem, couplings)
    if direct is not None and (couplings is None or _is_enough(direct, problem, SIX)):
        return direct
    known = [] if direct is None else [direct]
    count = couplings if isinstance(couplings, int) else enough_for(problem)
    closed = _closed_forms(problem, count)
    needed = isinstance(couplings, int) and not [*known, *closed]
    budget, why_not = budget_for(problem, options, needed=needed)
    found, trouble = [], None
    if budget is not None:
        found, trouble = _searched(problem, couplings, count, budget, options.seed)
        why_not = "the search ended at its limit" if budget.is_over else ""
    if couplings is None and found and len(found[0]) == 5:
        return found[0]
    if not isinstance(couplings, int) and not any(
        one.method == "rotation" or one.is_exact for one in [*closed, *found]
    ):
        most = min_couplings(problem, "svd") + (0 if couplings is None else CARRIERS - 2)
        closed.append(_restore_sign(closed_form("svd", problem, most), problem, "svd"))
    candidates = [*known, *closed, *found]
    if not candidates:
        raise _nothing(problem, count, trouble, why_not)
    best = min(candidates, key=ranking_key)
    if best.method != "continuation" and not why_not:
        why_not = _why_not_searched(found, trouble)
    before = min((one.condition_number for one in closed), default=None)
    if direct is not None and best is not direct:
        fewer = FEWER_NOTE.format(number=len(direct), condition=direct.condition_number)
        best = dataclasses.replace(best, note=fewer)
    note = _note_of(best, couplings, trouble, why_not)
    gained = best.method == "continuation" and before is not None
    return dataclasses.replace(best, note=note, before_search=before if gained else None)


def _searched(
    problem: FactorProblem, couplings: Count, count: int, budget: SearchBudget, seed: int
) -> tuple[list[Factorization], NumericalError | None]:
    """Returns what the searches within `couplings` find, and the error of the first that failed.

    Five couplings are tried if they are named, or for the fewest; then six and more. A poor result
    is compared with those for fewer couplings.
    """
    found: list[Factorization] = []
    trouble = None
    counts = list(counts_to_try(problem, count)) if count >= SIX else []
    if couplings in {None, 5} and problem.even:
        counts = [5, *counts]
    with budget.active():
        for number, following in zip_longest(counts, counts[1:], fillvalue=0):
            try:
                one = _by_search(problem, number, seed)
            except NumericalError as error:
                trouble = trouble or error
                continue
            except OutOfBudget:
                trouble = trouble or NumericalError(
                    f"the search for {number} couplings found none within its limit."
                )
                break
            found += [] if one is None else [one]
            enough = one is not None and (number == 5 or _is_enough(one, problem, following))
            if enough or budget.is_over:
                break
    return found, trouble


def _by_search(problem: FactorProblem, couplings: int, seed: int) -> Factorization | None:
    """Returns the result of a search; None for five if both off-diagonal blocks are singular."""
    if couplings >= SIX:
        factors = by_continuation(problem, couplings, seed)
    else:
        try:
            factors = by_five(problem, seed)
        except ArgumentError:
            return None
    return _restore_sign(factors, problem, "continuation")


def _closed_forms(problem: FactorProblem, couplings: int) -> list[Factorization]:
    """Returns the closed forms with at most this many couplings."""
    found = []
    for name in applicable(problem):
        if couplings >= min_couplings(problem, name):
            try:
                factors = closed_form(name, problem, couplings)
                if len(factors) <= couplings:
                    found.append(_restore_sign(factors, problem, name))
            except NumericalError:  # rounding spoilt it: the next may be more accurate
                continue
    return found


def _by_method(
    method: str, problem: FactorProblem, couplings: int | None, options: SearchOptions
) -> Factorization:
    """Returns the factorization of one method; raises ArgumentError if it needs more couplings."""
    if method == "continuation":
        factors = _continued(problem, couplings or enough_for(problem), options)
    else:
        factors = closed_form(method, problem, couplings)
    if couplings is not None and couplings < len(factors):
        raise ArgumentError(
            f"'couplings' should be at least {len(factors)} for method={method!r} and this "
            f"partition, got {couplings}."
        )
    return _restore_sign(factors, problem, method)


def _continued(problem: FactorProblem, count: int, options: SearchOptions) -> list[Factor]:
    """Returns the factors of a search alone."""
    budget, why_not = budget_for(problem, options, needed=True)
    if budget is None:
        raise _nothing(problem, count, None, why_not)
    try:
        with budget.active():
            return by_continuation(problem, count, options.seed)
    except OutOfBudget:
        raise _nothing(problem, count, None, "the search ended at its limit") from None


def _direct(problem: FactorProblem, couplings: Count) -> Factorization | None:
    """Returns the fewest couplings if the map has the structure of `direct_factors`, else None."""
    most = couplings if isinstance(couplings, int) else SIX
    factors = direct_factors(problem.blocks, problem.first, most=most)
    if factors is None:
        return None
    negative = [i for i, factor in enumerate(factors) if (factor.diagonal < 0).any()]
    try:
        found = _assemble(factors, problem, "direct", negative[0] if negative else None)
    except NumericalError:  # a tiny off-diagonal entry makes the factors overflow
        return None
    return found if found.residual <= STRUCTURE else None


def _is_enough(found: Factorization, problem: FactorProblem, other: int) -> bool:
    """Returns whether `other` couplings could hardly be better conditioned than a result.

    The reason is that cond(T) is at most the product of the condition numbers.
    """
    if not other:
        return True
    least = problem.condition_number ** (1 / other)
    return found.is_exact and found.condition_number <= max(GOOD, 1.5 * least)


def _nothing(
    problem: FactorProblem, count: int, trouble: NumericalError | None, why_not: str
) -> ArgumentError | NumericalError:
    """Returns the error if there is no result: too few couplings, or a search that failed."""
    if trouble is not None and not why_not:
        return trouble
    if count < 5 or (count == 5 and not why_not):
        return _too_few(problem, count)
    return NumericalError(
        f"{count} couplings of this matrix need a search, and {why_not}. Leave 'couplings' out, "
        f"or pass couplings={min_couplings(problem, 'svd')} for the fewest in closed form, which "
        "may be ill-conditioned."
    )


def _inexact(found: Factorization, problem: FactorProblem) -> str:
    return (
        f"the product P of the couplings differs from the matrix T by {found.residual:.1e} of its "
        f"norm, and P^-1 T from the identity by {found.inverse_residual:.1e}. Likely cause: the "
        f"condition number of the matrix, {problem.condition_number:.1g}. "
        f"couplings={min_couplings(problem, 'svd')} allows a closed form, exact to rounding."
    )


def _why_not_searched(found: list[Factorization], trouble: NumericalError | None) -> str:
    """Returns why the results of a search were not taken; empty if they were not better."""
    if found and not any(one.is_exact for one in found):
        poor = found[0]
        also = f"that of the inverse is {poor.inverse_residual:.1g}"
        return f"{len(poor)} couplings have a residual of {poor.residual:.1g}, {also}"
    return "it found no solution" if trouble and not found else ""


def _note_of(
    best: Factorization, couplings: Count, trouble: NumericalError | None, why_not: str
) -> str:
    """Returns the note on the number of couplings, and on a search that was limited."""
    note = best.note
    if couplings is None and note == SIX_NOTE:
        note = LOST_NOTE if trouble or why_not else FEWEST_NOTE
    return "; ".join(filter(None, [note, why_not and f"search: {why_not}"]))


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


def _restore_sign(factors: Sequence[Factor], problem: FactorProblem, method: str) -> Factorization:
    """Returns the factorization with the sign of the determinant restored."""
    if not problem.flipped:
        return _assemble(factors, problem, method, None)
    signed, number = flip_last(factors)
    return _assemble(signed, problem, method, number)


def _assemble(
    factors: Sequence[Factor], problem: FactorProblem, method: str, flipped: int | None
) -> Factorization:
    """Returns the factors as layers, with the residual of the layers."""
    couplings = to_layers(factors, problem.partition)
    made = [
        Factor(f.lower, *weight_and_diagonal(c)) for f, c in zip(factors, couplings, strict=True)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        residual, inverse = residuals(made, problem.blocks)
    if not np.isfinite(residual):
        raise _out_of_range(problem)
    found = Factorization(
        torch.from_numpy(problem.given.copy()),
        couplings,
        residual,
        inverse,
        method,
        flipped,
        _note(len(couplings), method, even=problem.even),
    )
    if residual > EXACT and not inverse <= USELESS:
        raise NumericalError(
            f"method={method!r} lost this matrix T to rounding: with the product P of its "
            f"couplings, P^-1 T differs from the identity by {inverse:.1g}. Likely cause: the "
            f"condition number of the matrix, {problem.condition_number:.1g}. Pass "
            f"couplings={min_couplings(problem, 'svd')}, the fewest in closed form."
        )
    return found


def _out_of_range(problem: FactorProblem) -> NumericalError:
    return NumericalError(
        f"the product of the couplings leaves the range of float64. Likely cause: the scale "
        f"of the matrix, |det T|^(1/n) = {problem.scale:.1g}; divide the matrix by that."
    )


def _note(count: int, method: str, *, even: bool) -> str:
    """Returns a note on the number of couplings."""
    if method == "direct":
        return DIRECT_NOTES[count]
    if not even:
        return UNEVEN_NOTE if count >= SIX else ""
    return {5: FIVE_NOTE, SIX: SIX_NOTE}.get(count, "")
