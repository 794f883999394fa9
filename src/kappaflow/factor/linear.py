"""`factor_linear`: any invertible linear map as a few couplings of one partition."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor import routes
from kappaflow.factor.direct import direct_factors
from kappaflow.factor.factorization import Factorization, rank
from kappaflow.factor.factors import Factor, flip_last, layers, numbers
from kappaflow.factor.problem import Problem, problem_of
from kappaflow.factor.residual import relative_residual
from kappaflow.partition import Partition

METHODS = ("auto", "rotation", "eleven", "tracking")
DIRECT_NOTES = (
    "the identity needs no coupling",
    "only the identity needs fewer than one",
    "one would leave a part of the features as it is",
    "two would need a diagonal block with a diagonal Schur complement",
    "three would need a number beside the diagonal, or a diagonal of positive ones",
)
SIX_NOTE = (
    "three work for special matrices only, and this is none of them; five may, less well "
    "conditioned: ask for five, or for the fewest"
)
FIVE_NOTE = "three work for special matrices only; so do four, which are not looked for"
UNEVEN_NOTE = "one or two work for special matrices only; three to five are not looked for"
FEWEST_NOTE = (
    "three work for special matrices only; no five were found, and need not exist: "
    "kappaflow.theory.check_count may prove it"
)
LOST_NOTE = (
    "three work for special matrices only; the search for five lost its way, which says nothing "
    "about them: ask for five to see where"
)
MOST_TRACKED = 24  # couplings that are searched for; a closed form has more at once
TOO_FEW = (
    "one leaves a part of the features as it is, and this map does not",
    "two need a diagonal block whose Schur complement is diagonal too",
    "three need S Q^-1 P - R = B Q^-1 C with diagonal B and C, where T = (P, Q; R, S), or the "
    "same with the parts exchanged",
    "four exist for some maps only, and their condition numbers have no bound",
    "five are had where the upper right or the lower left block is invertible, and far from "
    "singular",
)
TOO_FEW_UNEVEN = "three to five are not looked for in parts of different sizes"
GOOD = 3.0  # a condition number of factors that more of them hardly improve on
LARGEST = 1e290  # scale of a matrix: its products with a residual's splitters are finite
EXACT = 1e-12  # relative residual beyond which a structure was only nearly there


def factor_linear(
    matrix: Tensor | np.ndarray,
    *,
    couplings: int | None = 6,
    partition: str | int | Partition = "half",
    seed: int = 0,
    method: str = "auto",
) -> Factorization:
    """Factors an invertible linear map into couplings that take turns in what they change.

    Args:
        matrix: T, (n, n), n at least 2, acting on columns: z = T x.
        couplings: At most so many; None for the fewest that can be had. For two equal halves six
            are always enough, and sometimes needed.
        partition: What the couplings keep and change: "half", "alternating", the number of
            features of the first part, or a partition.
        seed: For the routes that search.
        method: "rotation": six, in closed form, of orthogonal matrices (times a number).
            "eleven": in closed form, of any matrix; more than eleven, where `couplings` allows
            it, share the condition number of T. "tracking": six or more, searched for. "auto":
            the best conditioned of those that `couplings` allows, but one or two if they do.

    Returns:
        The couplings with their residual and their condition numbers.

    Raises:
        ArgumentError: The matrix is singular, not square or not finite; an argument has no such
            value; or so few couplings cannot do it.
        NumericalError: A search did not get there.

    Source:
        Ours; that six are enough: Urschel 2023, after Koehler, Mehta, Risteski 2021, who have 47.

    Example:
        >>> import kappaflow as kf
        >>> found = kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]])
        >>> len(found), found.residual < 1e-14, found.condition_number < 7
        (6, True, True)
    """
    one_of("method", method, METHODS)
    natural_int("seed", seed)
    if couplings is not None:
        positive_int("couplings", couplings)
    problem = problem_of(matrix, partition)
    if problem.scale > LARGEST:
        raise _out_of_range(problem)
    if method == "auto":
        return _best(problem, couplings, seed)
    return _by(method, problem, couplings, seed)


def _best(problem: Problem, couplings: int | None, seed: int) -> Factorization:
    """Returns the best conditioned factorization within so many couplings; the fewest for None."""
    found = [_by_structure(problem, couplings)]
    if found[0] is not None and (couplings is None or _is_enough(found[0], problem)):
        return found[0]
    lost = False
    if couplings in (None, 5):
        try:
            found.append(_five(problem, seed))
        except NumericalError:
            if couplings == 5 and found[0] is None:
                raise
            lost = True
        if couplings is None and len(found) > 1 and found[-1] is not None:
            return found[-1]
    if couplings is None or couplings >= routes.SIX:
        try:
            found += _searched(problem, couplings or routes.enough(problem), seed)
        except NumericalError:
            if not any(found):
                raise
    there = [one for one in found if one is not None]
    if not there:
        raise _too_few(problem, couplings or routes.SIX)
    best = min(there, key=rank)
    if couplings is None and best.note == SIX_NOTE:
        return dataclasses.replace(best, note=LOST_NOTE if lost else FEWEST_NOTE)
    return best


def _searched(problem: Problem, couplings: int, seed: int) -> list[Factorization]:
    """Returns what the routes of six couplings and more find; at least one, or an error."""
    found = []
    names = ("rotation", "eleven") if routes.is_rotation(problem) else ("eleven",)
    for name in names:
        if couplings >= routes.least(problem, name):
            factors = _closed(name, problem, couplings)
            if len(factors) <= couplings:
                found.append(_finished(factors, problem, name))
    trouble = None
    most = min(couplings, max(MOST_TRACKED, routes.enough(problem)))
    for count in dict.fromkeys((most, min(most, routes.enough(problem)))):
        try:
            factors = routes.by_tracking(problem, count, seed)
            return [*found, _finished(factors, problem, "tracking")]
        except NumericalError as error:
            trouble = trouble or error
    if not found and trouble:
        raise trouble
    return found


def _by(method: str, problem: Problem, couplings: int | None, seed: int) -> Factorization:
    """Returns the factorization of a route, if it needs no more couplings than allowed."""
    if method == "tracking":
        factors = routes.by_tracking(problem, couplings or routes.enough(problem), seed)
    else:
        factors = _closed(method, problem, couplings)
    if couplings is not None and couplings < len(factors):
        raise ArgumentError(
            f"'couplings' should be at least {len(factors)} for method={method!r} and this "
            f"partition, got {couplings}."
        )
    return _finished(factors, problem, method)


def _closed(method: str, problem: Problem, couplings: int | None) -> list[Factor]:
    """Returns the factors of a closed form; it may have no fewer than it needs."""
    if method == "rotation":
        return routes.by_rotation(problem)
    return routes.by_eleven(problem, couplings)


def _by_structure(problem: Problem, couplings: int | None) -> Factorization | None:
    """Returns one to three couplings, or four of two features, where the map has that form."""
    most = routes.SIX if couplings is None else couplings
    factors = direct_factors(problem.blocks, problem.first, most=most)
    if factors is None:
        return None
    negative = [i for i, factor in enumerate(factors) if (factor.diagonal < 0).any()]
    try:
        found = _assembled(factors, problem, "direct", negative[0] if negative else None)
    except NumericalError:  # a number beside the diagonal is there, and far too small
        return None
    return found if found.residual <= EXACT else None


def _is_enough(found: Factorization, problem: Problem) -> bool:
    """Returns whether no more couplings are tried: one or two are what anybody would write.

    Three are enough if six could hardly do better: cond(T) is at most the product of theirs.
    """
    if len(found) <= 2:
        return True
    least = np.linalg.cond(problem.matrix) ** (1 / routes.SIX)
    return bool(found.condition_number <= max(GOOD, 1.5 * least))


def _five(problem: Problem, seed: int) -> Factorization | None:
    """Returns five couplings, or None where both corners of the map are singular, or nearly."""
    if not problem.even:
        return None
    try:
        factors = routes.by_five(problem, seed)
    except ArgumentError:
        return None
    return _finished(factors, problem, "tracking")


def _too_few(problem: Problem, couplings: int) -> ArgumentError:
    """Returns the error that says why so few couplings cannot do it, or are not tried."""
    enough = (
        "six are enough for any map."
        if problem.even
        else f"{routes.enough(problem)} were enough for every map that was tried."
    )
    few = TOO_FEW if problem.even else [*TOO_FEW[:2], *[TOO_FEW_UNEVEN] * 3]
    reason = few[min(couplings, len(few)) - 1]
    return ArgumentError(
        f"'couplings' should be larger for this matrix, got {couplings}: {reason}; {enough}"
    )


def _finished(factors: Sequence[Factor], problem: Problem, method: str) -> Factorization:
    """Returns the factorization, the sign of the determinant put back."""
    if not problem.flipped:
        return _assembled(factors, problem, method, None)
    signed, number = flip_last(factors)
    return _assembled(signed, problem, method, number)


def _assembled(
    factors: Sequence[Factor], problem: Problem, method: str, flipped: int | None
) -> Factorization:
    """Returns factors as layers, with the residual of the layers."""
    couplings = layers(factors, problem.partition)
    made = [Factor(f.lower, *numbers(c)) for f, c in zip(factors, couplings, strict=True)]
    with np.errstate(over="ignore", invalid="ignore"):
        residual = relative_residual(made, problem.blocks)
    if not np.isfinite(residual):
        raise _out_of_range(problem)
    return Factorization(
        torch.from_numpy(problem.given.copy()),
        couplings,
        residual,
        method,
        flipped,
        _note(len(couplings), method, even=problem.even),
    )


def _out_of_range(problem: Problem) -> NumericalError:
    return NumericalError(
        f"the product of the couplings leaves the range of float64. Likely cause: the scale "
        f"of the matrix, |det T|^(1/n) = {problem.scale:.1g}; divide the matrix by that."
    )


def _note(count: int, method: str, *, even: bool) -> str:
    """Returns why so many couplings."""
    if method == "direct":
        return DIRECT_NOTES[count]
    if not even:
        return UNEVEN_NOTE if count >= routes.SIX else ""
    return {5: FIVE_NOTE, routes.SIX: SIX_NOTE}.get(count, "")
