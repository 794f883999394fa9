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

SIX, ELEVEN = 6, 11
BETTER = 0.97  # ratio of the worst condition numbers above which two more factors do not pay
SHARED = 2.5  # condition number of a carrier for a pair that two more hardly improve
CARRIERS = 8  # most carriers if the number of couplings is free


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
    return {"rotation": SIX + 2 * excess, "svd": ELEVEN + 4 * excess}.get(method, SIX)


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
    matrix, small, turn = small_first(problem)
    blocks = uneven_rotation_blocks(matrix / problem.scale, small)
    return rescale(turn(unit_factors(blocks)), scale=problem.scale)


def by_svd(problem: FactorProblem, couplings: int | None = None) -> list[Factor]:
    """Returns eleven factors in closed form, and more as long as they improve the worst one."""
    matrix, small, turn = small_first(problem)
    most = 2 if couplings is None else 2 + max(0, couplings - min_couplings(problem, "svd"))
    fewest = min(enough_carriers(problem), most - most % 2)
    best = factor_svd(matrix, small, carriers=fewest)
    while len(best) > (couplings or 0) and fewest > 2:  # parts of different sizes may take more
        fewest -= 2
        best = factor_svd(matrix, small, carriers=fewest)
    for carriers in range(fewest + 2, most + 1, 2):
        trial = factor_svd(matrix, small, carriers=carriers)
        enough = worst_condition_number(trial) > BETTER * worst_condition_number(best)
        if enough or len(trial) > (couplings or 0):
            break
        best = trial
    return turn(best)


def enough_carriers(problem: FactorProblem) -> int:
    """Returns the smallest number of carriers, at most 8, that are all well-conditioned."""
    values = problem.singular_values / problem.scale
    first = min(problem.first, len(values) - problem.first)
    low, high = values[::-1][:first], values[:first]
    for carriers in range(2, CARRIERS, 2):
        pairs = singular_value_pairs(low, high, carriers - 1)
        both = zip([*pairs.shear, *pairs.shear], [*pairs.upper, *pairs.lower], strict=True)
        if max(two_by_two_condition(shear, scale) for shear, scale in both) <= SHARED:
            return carriers
    return CARRIERS


def worst_condition_number(factors: list[Factor]) -> float:
    """Returns the largest condition number of a factor."""
    return max(factor.condition_number for factor in factors)


def small_first(
    problem: FactorProblem,
) -> tuple[np.ndarray, int, Callable[[list[Factor]], list[Factor]]]:
    """Returns the map with its smaller part first, the size of that part, and the way back."""
    n, first = len(problem.matrix), problem.first
    if 2 * first <= n:
        return problem.matrix, first, list
    order = np.roll(np.arange(n), -first)
    matrix = problem.matrix[np.ix_(order, order)]
    return matrix, n - first, lambda factors: [f._replace(lower=not f.lower) for f in factors]
