"""The searches on a checked matrix: six and more couplings, or five, by continuation."""

import numpy as np
from threadpoolctl import threadpool_limits

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.budget import OutOfBudget
from kappaflow.factor.closed_forms import small_first, worst_condition_number
from kappaflow.factor.continuation import continue_to, continue_to_five
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.free_scales import follow_with_free_scales, free_scales
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.uneven import continue_uneven, enough_couplings

LARGEST_FREE, MOST_UNKNOWNS = 8, 240  # most features and unknowns for which all scales are free
WELL_CONDITIONED, NEAR = 3.0, 1.5  # condition number, and ratio to the lower bound, that suffice
SEEDS, SUSPECT = 3, 4.0  # most attempts, and ratio to the lower bound above which there are more
FAR = 5.0  # ratio to the lower bound above which a path with all scales free is followed
ONE_THREAD = 256  # largest number of features for which searches gain nothing from two threads


def by_continuation(problem: FactorProblem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most this many factors, six or more, by numerical continuation.

    Which minimum a search of few features ends in can depend on rounding. So other seeds follow
    while the result is far from a lower bound.
    """
    results = list[list[Factor]]()
    for attempt in range(SEEDS if len(problem.matrix) <= LARGEST_FREE else 1):
        try:
            results.append(_continued(problem, couplings, seed + attempt))
        except (OutOfBudget, NumericalError):
            if not results:
                raise
            break
        least = _lower_bound(problem.matrix / problem.scale, couplings)
        if worst_condition_number(results[-1]) <= SUSPECT * least:
            break
    return min(results, key=worst_condition_number)


def _lower_bound(unit: np.ndarray, couplings: int) -> float:
    """Returns a lower bound for the largest condition number of so many couplings of the map."""
    values = np.linalg.svd(unit, compute_uv=False)
    return max(values[0], 1 / values[-1]) ** (2 / couplings)


def _continued(problem: FactorProblem, couplings: int, seed: int) -> list[Factor]:
    """Returns the factors of one search from this seed."""
    matrix, small, restore = small_first(problem)
    unit = matrix / problem.scale
    with _few_threads(problem):
        if small != len(unit) // 2:
            count = min(couplings, enough_couplings(small, len(unit) - small))
            factors = continue_uneven(unit, small, couplings=count, seed=seed)
        else:
            factors = unit_factors(continue_to(unit, couplings, seed=seed))
        if problem.even and len(unit) <= LARGEST_FREE:
            factors = _with_free_scales(rescale(factors), unit, seed)
    return rescale(restore(factors), scale=problem.scale)


def _with_free_scales(factors: list[Factor], unit: np.ndarray, seed: int) -> list[Factor]:
    """Returns the factors, improved by `free_scales` if they are far from a lower bound."""
    least = _lower_bound(unit, len(factors))
    unknowns = len(factors) * (len(unit) ** 2 // 4 + 1)
    enough = max(WELL_CONDITIONED, NEAR * least)
    if worst_condition_number(factors) <= enough or unknowns > MOST_UNKNOWNS:
        return factors

    def first(matrix: np.ndarray) -> list[Factor]:
        return rescale(unit_factors(continue_to(matrix, len(factors), seed=seed)))

    try:
        factors = free_scales(factors, unit)
        if worst_condition_number(factors) > FAR * least:
            factors = follow_with_free_scales(factors, unit, first)
    except (OutOfBudget, NumericalError):
        pass
    return factors


def by_five(problem: FactorProblem, seed: int) -> list[Factor] | None:
    """Returns five factors, L first if T12 is better conditioned, or None if both are singular."""
    matrix, d = problem.matrix / problem.scale, problem.first
    lower_first = bool(np.linalg.cond(matrix[:d, d:]) <= np.linalg.cond(matrix[d:, :d]))
    if not lower_first:
        matrix = np.roll(matrix, (d, d), (0, 1))
    try:
        with _few_threads(problem):
            blocks = continue_to_five(matrix, seed=seed)
    except ArgumentError:
        return None
    return rescale(unit_factors(blocks, lower_first=lower_first), scale=problem.scale)


def _few_threads(problem: FactorProblem) -> threadpool_limits:
    """Returns a context that limits BLAS to one thread for small matrices."""
    # The thread pools of numpy and scipy wait for each other: with two threads a product of 32 x
    # 32 can take a hundred times as long.
    small = len(problem.matrix) <= ONE_THREAD
    return threadpool_limits(1 if small else None, user_api="blas")
