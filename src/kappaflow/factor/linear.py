"""`factor_linear`: an invertible linear map as a few couplings of one partition."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from kappaflow._checks import natural_int, one_of, positive_int
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.continuation import continue_to, continue_to_five
from kappaflow.factor.coupling import (
    Factor,
    flip_last,
    to_layers,
    unit_factors,
    weight_and_diagonal,
)
from kappaflow.factor.direct import direct_factors
from kappaflow.factor.factorization import Factorization, ranking_key, relative_residual
from kappaflow.factor.problem import FactorProblem, factor_problem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import ORTHOGONAL, uneven_rotation_blocks
from kappaflow.factor.svd import factor_svd
from kappaflow.factor.uneven import continue_uneven, enough_couplings
from kappaflow.partition import Partition

METHODS = ("auto", "rotation", "svd", "continuation")
DIRECT_NOTES = (
    "the identity needs no coupling",
    "only the identity needs fewer than one",
    "one would leave a part of the features unchanged",
    "two would need a diagonal block with a diagonal Schur complement",
    "three would need an off-diagonal entry, or a positive diagonal",
)
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
MOST_SEARCHED = 24  # largest number of couplings for a search; closed forms may have more
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
LARGEST = 1e290  # largest scale of a matrix: intermediate results of the residual stay finite
EXACT = 1e-12  # largest relative residual if the structure is present
SIX, ELEVEN = 6, 11
ONE_THREAD = 256  # largest number of features for which searches gain nothing from two threads
BETTER = 0.97  # ratio of the worst condition numbers above which two more factors do not pay


def factor_linear(
    matrix: Tensor | np.ndarray,
    *,
    couplings: int | None = 6,
    partition: str | int | Partition = "half",
    seed: int = 0,
    method: str = "auto",
) -> Factorization:
    """Factors an invertible linear map into couplings that alternate between two parts.

    Args:
        matrix: T, (n, n), n at least 2, acting on columns: z = T x.
        couplings: Largest number of couplings; None for the fewest that the methods find. Six are
            enough for equal halves, and sometimes needed; other parts may need more.
        partition: The kept and the changed features: "half", "alternating", the number of
            features of the first part, or a partition.
        seed: Seed for the methods that search.
        method: "rotation": six couplings in closed form, for orthogonal matrices times a number.
            "svd": eleven in closed form, for any matrix; if `couplings` allows more, they share
            the condition number of T. "continuation": six or more, by a search. "auto": one or two
            couplings if the matrix allows, else the best conditioned result within `couplings`.

    Returns:
        The couplings with their residual and their condition numbers.

    Raises:
        ArgumentError: The matrix is singular, not square or not finite; an argument is invalid; or
            the matrix needs more couplings.
        NumericalError: A search failed.

    Source:
        Ours. Urschel 2023 proves that six are enough for equal halves and a positive determinant;
        a negative one costs one negative diagonal entry. Koehler, Mehta, Risteski 2021 proved 47.

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
    problem = factor_problem(matrix, partition)
    if problem.scale > LARGEST:
        raise _out_of_range(problem)
    if method == "auto":
        return _best(problem, couplings, seed)
    return _by_method(method, problem, couplings, seed)


def _best(problem: FactorProblem, couplings: int | None, seed: int) -> Factorization:
    """Returns the best-conditioned factorization within `couplings`; the fewest for None."""
    found = [_direct(problem, couplings)]
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
    if couplings is None or couplings >= SIX:
        try:
            found += _six_or_more(problem, couplings or enough_for(problem), seed)
        except NumericalError:
            if not any(found):
                raise
    there = [one for one in found if one is not None]
    if not there:
        raise _too_few(problem, couplings or SIX)
    best = min(there, key=ranking_key)
    if couplings is None and best.note == SIX_NOTE:
        return dataclasses.replace(best, note=LOST_NOTE if lost else FEWEST_NOTE)
    return best


def _six_or_more(problem: FactorProblem, couplings: int, seed: int) -> list[Factorization]:
    """Returns the results of the methods for six couplings and more: at least one, or an error."""
    found = []
    names = ("rotation", "svd") if is_rotation(problem) else ("svd",)
    for name in names:
        if couplings >= min_couplings(problem, name):
            factors = _closed_form(name, problem, couplings)
            if len(factors) <= couplings:
                found.append(_restore_sign(factors, problem, name))
    trouble = None
    most = min(couplings, max(MOST_SEARCHED, enough_for(problem)))
    for count in dict.fromkeys((most, min(most, enough_for(problem)))):
        try:
            factors = by_continuation(problem, count, seed)
            return [*found, _restore_sign(factors, problem, "continuation")]
        except NumericalError as error:
            trouble = trouble or error
    if not found and trouble:
        raise trouble
    return found


def _by_method(
    method: str, problem: FactorProblem, couplings: int | None, seed: int
) -> Factorization:
    """Returns the factorization of one method; raises ArgumentError if it needs more couplings."""
    if method == "continuation":
        factors = by_continuation(problem, couplings or enough_for(problem), seed)
    else:
        factors = _closed_form(method, problem, couplings)
    if couplings is not None and couplings < len(factors):
        raise ArgumentError(
            f"'couplings' should be at least {len(factors)} for method={method!r} and this "
            f"partition, got {couplings}."
        )
    return _restore_sign(factors, problem, method)


def _closed_form(method: str, problem: FactorProblem, couplings: int | None) -> list[Factor]:
    """Returns the factors of a closed form; there may be more of them than `couplings`."""
    if method == "rotation":
        return by_rotation(problem)
    return by_svd(problem, couplings)


def _direct(problem: FactorProblem, couplings: int | None) -> Factorization | None:
    """Returns the fewest couplings if the map has the structure of `direct_factors`, else None."""
    most = SIX if couplings is None else couplings
    factors = direct_factors(problem.blocks, problem.first, most=most)
    if factors is None:
        return None
    negative = [i for i, factor in enumerate(factors) if (factor.diagonal < 0).any()]
    try:
        found = _assemble(factors, problem, "direct", negative[0] if negative else None)
    except NumericalError:  # a tiny off-diagonal entry makes the factors overflow
        return None
    return found if found.residual <= EXACT else None


def _is_enough(found: Factorization, problem: FactorProblem) -> bool:
    """Returns whether more couplings are not worth trying.

    One or two couplings always are. Three are enough if six could hardly be better
    conditioned: cond(T) is at most the product of the condition numbers.
    """
    if len(found) <= 2:
        return True
    least = np.linalg.cond(problem.matrix) ** (1 / SIX)
    return bool(found.condition_number <= max(GOOD, 1.5 * least))


def _five(problem: FactorProblem, seed: int) -> Factorization | None:
    """Returns five couplings, or None if both off-diagonal blocks are singular or nearly so."""
    if not problem.even:
        return None
    try:
        factors = by_five(problem, seed)
    except ArgumentError:
        return None
    return _restore_sign(factors, problem, "continuation")


def _too_few(problem: FactorProblem, couplings: int) -> ArgumentError:
    """Returns the error that explains why this number of couplings is not enough, or not tried."""
    enough = (
        "six are enough for any map of even size."
        if problem.even
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


def is_rotation(problem: FactorProblem) -> bool:
    """Returns whether the map is a rotation times its scale, up to rounding."""
    unit = problem.matrix / problem.scale
    return bool(np.abs(unit.T @ unit - np.eye(len(unit))).max() <= ORTHOGONAL)


def enough_for(problem: FactorProblem) -> int:
    """Returns the largest number of couplings that a search needed in tests: six for halves."""
    first, second = problem.first, len(problem.matrix) - problem.first
    return SIX if abs(first - second) <= 1 else enough_couplings(first, second)


def min_couplings(problem: FactorProblem, method: str) -> int:
    """Returns the smallest number of couplings of a closed form."""
    excess = abs(len(problem.matrix) - 2 * problem.first)
    return SIX + 2 * excess if method == "rotation" else ELEVEN + 4 * excess


def by_rotation(problem: FactorProblem) -> list[Factor]:
    """Returns six factors of a rotation (more for parts of different sizes), in closed form."""
    if not is_rotation(problem):
        raise ArgumentError(
            "'method' should not be 'rotation' for this matrix: it is not a multiple of an "
            "orthogonal matrix. method='auto' accepts any invertible matrix."
        )
    matrix, small, turn = _small_first(problem)
    blocks = uneven_rotation_blocks(matrix / problem.scale, small)
    return rescale(turn(unit_factors(blocks)), scale=problem.scale)


def by_svd(problem: FactorProblem, couplings: int | None = None) -> list[Factor]:
    """Returns eleven factors (more for parts of different sizes), in closed form.

    Adds two more factors, which share the condition number of T, as long as `couplings` allows it
    and the worst factor improves.
    """
    matrix, small, turn = _small_first(problem)
    best = factor_svd(matrix, small)
    most = 2 if couplings is None else 2 + max(0, couplings - min_couplings(problem, "svd"))
    for carriers in range(4, most + 1, 2):
        trial = factor_svd(matrix, small, carriers=carriers)
        if len(trial) > (couplings or 0):
            continue
        if _worst(trial) > BETTER * _worst(best) and len(best) <= (couplings or 0):
            break
        best = trial
    return turn(best)


def by_continuation(problem: FactorProblem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most this many factors, six or more, by numerical continuation."""
    matrix, small, turn = _small_first(problem)
    unit = matrix / problem.scale
    with _few_threads(problem):
        if small != len(unit) // 2:
            count = min(couplings, enough_couplings(small, len(unit) - small))
            factors = continue_uneven(unit, small, couplings=count, seed=seed)
        else:
            factors = unit_factors(continue_to(unit, couplings, seed=seed))
    return rescale(turn(factors), scale=problem.scale)


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


def _worst(factors: list[Factor]) -> float:
    """Returns the largest condition number of a factor."""
    return max(float(np.linalg.cond(factor.matrix)) for factor in factors)


def _small_first(
    problem: FactorProblem,
) -> tuple[np.ndarray, int, Callable[[list[Factor]], list[Factor]]]:
    """Returns the map with its smaller part first, the size of that part, and the way back."""
    n, first = len(problem.matrix), problem.first
    if 2 * first <= n:
        return problem.matrix, first, list
    order = np.roll(np.arange(n), -first)
    matrix = problem.matrix[np.ix_(order, order)]
    return matrix, n - first, lambda found: [f._replace(lower=not f.lower) for f in found]
