"""The closed forms for a checked matrix, each as a list of factors."""

from collections.abc import Callable

import numpy as np

from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor.coupling import Factor, two_by_two_condition, unit_factors
from kappaflow.factor.problem import FactorProblem
from kappaflow.factor.rescale import rescale
from kappaflow.factor.rotation import ORTHOGONAL, six_blocks, uneven_rotation_blocks
from kappaflow.factor.svd import factor_svd, singular_value_pairs

SYMMETRIC = 1e-14  # largest difference of opposite entries, in units of the largest entry


def is_positive_definite(matrix: np.ndarray) -> bool:
    """Returns whether a matrix is symmetric up to rounding, and positive definite."""
    if np.abs(matrix - matrix.T).max() > SYMMETRIC * np.abs(matrix).max():
        return False
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def factor_positive_definite(matrix: np.ndarray, *, scale: float = 1.0) -> list[Factor]:
    """Returns six factors of `scale` times a symmetric positive definite map, (2d, 2d), det 1."""
    # The condition numbers of the factors grow with that of the map: by a power of 0.25 to 0.8 in
    # tests. The order of partial sums: Steinitz 1913.
    d = len(matrix) // 2
    p, u = np.linalg.eigh(matrix[:d, :d])
    s, v = np.linalg.eigh(np.linalg.inv(matrix)[d:, d:])
    if not (p[0] > 0 and s[0] > 0):  # also if they are nan
        raise NumericalError(
            "the matrix is too ill-conditioned for the closed form of positive definite maps: its "
            "blocks have eigenvalues that are not positive in float64. method='svd' accepts any "
            "invertible matrix."
        )
    logs = np.log(s) - np.log(p)
    cycle = _order(logs - logs.mean())
    k = np.zeros(d)
    k[cycle[1:]] = np.cumsum(logs[cycle])[:-1]
    z = np.zeros((d, d))
    z[cycle, np.roll(cycle, -1)] = 1
    z = u @ z @ u.T
    best_factors, best_condition = [], np.inf
    for e, shift in ((np.ones(d), np.ptp(k) / 2), (p**0.5, np.ptp(k) / 2), (s**-0.5, 0.0)):
        x = np.linalg.solve(matrix[:d, :d], u * e @ v.T - matrix[:d, d:])
        factors = unit_factors(six_blocks(matrix, x, u * np.exp(k - k.min() - shift) @ u.T, z))
        factors = rescale(factors, scale=scale)
        worst = max(factor.condition_number for factor in factors)
        if worst < best_condition:
            best_factors, best_condition = factors, worst
    return best_factors


def _order(logs: np.ndarray) -> np.ndarray:
    """Returns an order whose partial sums never exceed the largest absolute value, for sum 0."""
    up, down = (list(np.flatnonzero(sign)) for sign in (logs > 0, logs <= 0))
    up.sort(key=lambda i: logs[i])
    down.sort(key=lambda i: -logs[i])
    order, total = [], 0.0
    while up or down:
        order.append((down if (total > 0 and down) or not up else up).pop())
        total += logs[order[-1]]
    return np.array(order)


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
