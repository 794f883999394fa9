"""The closed forms for a checked matrix, each as a list of factors."""

from collections.abc import Callable

import numpy as np

from kappaflow.errors import ArgumentError
from kappaflow.factor.coupling import Factor, two_by_two_condition, unit_factors
from kappaflow.factor.positive import factor_positive_definite, is_positive_definite
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import ORTHOGONAL, uneven_rotation_blocks
from kappaflow.factor.svd import factor_svd, singular_value_pairs

# The couplings that suffice for each map of two equal halves, and those of the form by its SVD.
HALVES_COUPLINGS, SVD_COUPLINGS = 6, 11
# Carriers are the couplings of that form that share the condition number of the map.
MAX_CARRIER_CONDITION = 2.5  # two more carriers hardly improve a better conditioned one
MAX_CARRIERS = 8  # if the number of couplings is free
MAX_IMPROVEMENT_RATIO = 0.97  # of the worst condition numbers, for two more factors to pay


def is_rotation(problem: FactorProblem) -> bool:
    """Returns whether the map is a rotation times its scale, up to rounding."""
    unit = problem.matrix / problem.scale
    return bool(np.abs(unit.T @ unit - np.eye(len(unit))).max() <= ORTHOGONAL)


def is_positive(problem: FactorProblem) -> bool:
    """Returns whether the map is symmetric positive definite, and the parts are equal halves."""
    return problem.even and is_positive_definite(problem.matrix)


def min_couplings(problem: FactorProblem, method: str) -> int:
    """Returns the smallest number of couplings of a closed form."""
    excess = abs(len(problem.matrix) - 2 * problem.first)
    counts = {"rotation": HALVES_COUPLINGS + 2 * excess, "svd": SVD_COUPLINGS + 4 * excess}
    return counts.get(method, HALVES_COUPLINGS)


def by_positive(problem: FactorProblem) -> list[Factor]:
    """Returns six factors of a symmetric positive definite map, in closed form."""
    if not is_positive(problem):
        raise ArgumentError(
            "'method' should not be 'positive' for this matrix: it is not symmetric positive "
            "definite, or the parts differ in size. method='auto' accepts any invertible matrix."
        )
    return factor_positive_definite(problem.matrix / problem.scale, scale=problem.scale)


def by_rotation(problem: FactorProblem) -> list[Factor]:
    """Returns six factors of a rotation (more for parts of different sizes), in closed form."""
    if not is_rotation(problem):
        raise ArgumentError(
            "'method' should not be 'rotation' for this matrix: it is not a multiple of an "
            "orthogonal matrix. method='auto' accepts any invertible matrix."
        )
    matrix, small, restore = small_first(problem)
    blocks = uneven_rotation_blocks(matrix / problem.scale, small)
    return rescale(restore(unit_factors(blocks)), scale=problem.scale)


def by_svd(problem: FactorProblem, couplings: int | None = None) -> list[Factor]:
    """Returns eleven factors in closed form; up to `couplings` if more improve the worst one."""
    matrix, small, restore = small_first(problem)
    most = 2 if couplings is None else 2 + max(0, couplings - min_couplings(problem, "svd"))
    carriers = min(enough_carriers(problem), most - most % 2)
    best = factor_svd(matrix, small, carriers=carriers)
    while len(best) > (couplings or 0) and carriers > 2:  # parts of different sizes may take more
        carriers -= 2
        best = factor_svd(matrix, small, carriers=carriers)
    for more in range(carriers + 2, most + 1, 2):
        trial = factor_svd(matrix, small, carriers=more)
        limit = MAX_IMPROVEMENT_RATIO * worst_condition_number(best)
        if worst_condition_number(trial) > limit or len(trial) > (couplings or 0):
            break
        best = trial
    return restore(best)


def enough_carriers(problem: FactorProblem) -> int:
    """Returns the smallest number of carriers, at most 8, that are all well-conditioned."""
    values = problem.singular_values / problem.scale
    small = min(problem.first, len(values) - problem.first)
    low, high = values[::-1][:small], values[:small]
    for carriers in range(2, MAX_CARRIERS, 2):
        pairs = singular_value_pairs(low, high, carriers - 1)
        couplings = zip([*pairs.shear, *pairs.shear], [*pairs.upper, *pairs.lower], strict=True)
        worst = max(two_by_two_condition(shear, scale) for shear, scale in couplings)
        if worst <= MAX_CARRIER_CONDITION:
            return carriers
    return MAX_CARRIERS


def worst_condition_number(factors: list[Factor]) -> float:
    """Returns the largest condition number of a factor."""
    return max(factor.condition_number for factor in factors)


def small_first(
    problem: FactorProblem,
) -> tuple[np.ndarray, int, Callable[[list[Factor]], list[Factor]]]:
    """Returns the map with its smaller part first, its size, and what undoes the swap."""
    n, first = len(problem.matrix), problem.first
    if 2 * first <= n:
        return problem.matrix, first, lambda factors: factors
    order = np.roll(np.arange(n), -first)
    matrix = problem.matrix[np.ix_(order, order)]
    return matrix, n - first, lambda factors: [f._replace(lower=not f.lower) for f in factors]
