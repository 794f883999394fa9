"""The searches on a checked matrix: six and more couplings, or five, by continuation."""

import numpy as np
from threadpoolctl import threadpool_limits

from kappaflow.errors import ArgumentError
from kappaflow.factor.budget import OutOfBudget
from kappaflow.factor.closed_forms import small_first, worst_condition_number
from kappaflow.factor.continuation import continue_to, continue_to_five
from kappaflow.factor.coupling import Factor, unit_factors
from kappaflow.factor.free_scales import free_scales
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.uneven import continue_uneven, enough_couplings

LARGEST_FREE = 6  # most features for which all scales are unknowns; the time grows like n^6
WELL_CONDITIONED, NEAR = 3.0, 1.5  # condition number, and ratio to the lower bound, that suffice
ONE_THREAD = 256  # largest number of features for which searches gain nothing from two threads


def by_continuation(problem: FactorProblem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most this many factors, six or more, by numerical continuation."""
    matrix, small, restore = small_first(problem)
    unit = matrix / problem.scale
    with _few_threads(problem):
        if small != len(unit) // 2:
            count = min(couplings, enough_couplings(small, len(unit) - small))
            factors = continue_uneven(unit, small, couplings=count, seed=seed)
        else:
            factors = unit_factors(continue_to(unit, couplings, seed=seed))
    if problem.even and len(unit) <= LARGEST_FREE:
        factors = _with_free_scales(rescale(factors), problem)
    return rescale(restore(factors), scale=problem.scale)


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
