"""The ways to factor a problem; each returns factors of its matrix, or says why it cannot."""

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from kappaflow.errors import ArgumentError
from kappaflow.factor.eleven import factor_eleven
from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.peel import rotation_blocks
from kappaflow.factor.problem import Problem
from kappaflow.factor.rotation import ORTHOGONAL
from kappaflow.factor.spread import spread
from kappaflow.factor.tracking import track, track_five
from kappaflow.factor.uneven import enough_couplings, track_uneven

SIX, ELEVEN = 6, 11
ONE_THREAD = 256  # features up to which searches, made of small products, gain nothing from two
BETTER = 0.97  # two more factors should gain that much


def is_rotation(problem: Problem) -> bool:
    """Returns whether the map is a rotation, times its scale, to rounding."""
    unit = problem.matrix / problem.scale
    return bool(np.abs(unit.T @ unit - np.eye(len(unit))).max() <= ORTHOGONAL)


def enough(problem: Problem) -> int:
    """Returns how many couplings tracking was seen to need at most: six for two halves."""
    first, second = problem.first, len(problem.matrix) - problem.first
    return SIX if abs(first - second) <= 1 else enough_couplings(first, second)


def least(problem: Problem, method: str) -> int:
    """Returns how many couplings a closed form takes at least."""
    excess = abs(len(problem.matrix) - 2 * problem.first)
    return SIX + 2 * excess if method == "rotation" else ELEVEN + 4 * excess


def by_rotation(problem: Problem) -> list[Factor]:
    """Returns six factors of a rotation (more in parts of different sizes), in closed form."""
    if not is_rotation(problem):
        raise ArgumentError(
            "'method' should not be 'rotation' for this matrix: it is not orthogonal, even up to "
            "a factor; method='auto' takes any."
        )
    matrix, small, turn = _small_first(problem)
    blocks = rotation_blocks(matrix / problem.scale, small)
    return spread(turn(unit_factors(blocks)), scale=problem.scale)


def by_eleven(problem: Problem, couplings: int | None = None) -> list[Factor]:
    """Returns eleven factors (more in parts of different sizes), in closed form.

    More, where allowed, as long as the worst of them gets better: two more carry a part each.
    """
    matrix, small, turn = _small_first(problem)
    best = factor_eleven(matrix, small)
    most = 2 if couplings is None else 2 + max(0, couplings - least(problem, "eleven"))
    for carriers in range(4, most + 1, 2):
        trial = factor_eleven(matrix, small, carriers=carriers)
        if len(trial) > (couplings or 0):
            continue
        if _worst(trial) > BETTER * _worst(best) and len(best) <= (couplings or 0):
            break
        best = trial
    return turn(best)


def by_tracking(problem: Problem, couplings: int, seed: int) -> list[Factor]:
    """Returns at most so many factors, six or more, found by following a path."""
    matrix, small, turn = _small_first(problem)
    unit = matrix / problem.scale
    with _few_threads(problem):
        if small != len(unit) // 2:
            count = min(couplings, enough_couplings(small, len(unit) - small))
            found = track_uneven(unit, small, couplings=count, seed=seed)
            factors = [Factor(not one.upper, one.weight, one.diagonal) for one in found]
        else:
            factors = unit_factors(track(unit, couplings, seed=seed))
    return spread(turn(factors), scale=problem.scale)


def by_five(problem: Problem, seed: int) -> list[Factor]:
    """Returns five factors: L U L U L by the upper right block, U L U L U by the lower left.

    The one that is farther from singular; `track_five` says so where both are singular.
    """
    matrix, d = problem.matrix / problem.scale, problem.first
    lower_first = bool(np.linalg.cond(matrix[:d, d:]) <= np.linalg.cond(matrix[d:, :d]))
    if not lower_first:
        matrix = np.roll(matrix, (d, d), (0, 1))
    with _few_threads(problem):
        blocks = track_five(matrix, seed=seed)
    return spread(unit_factors(blocks, lower_first=lower_first), scale=problem.scale)


def _few_threads(problem: Problem) -> threadpool_limits:
    """Returns a context in which products of small matrices take no more threads than they use.

    The pools of numpy and scipy wait for each other's, and for all else on the machine: with two
    threads a product of 32 x 32 was seen to take a hundred times as long.
    """
    small = len(problem.matrix) <= ONE_THREAD
    return threadpool_limits(1 if small else None, user_api="blas")


def _worst(factors: list[Factor]) -> float:
    """Returns the largest condition number of a factor."""
    return max(float(np.linalg.cond(factor.matrix)) for factor in factors)


def _small_first(
    problem: Problem,
) -> tuple[np.ndarray, int, Callable[[list[Factor]], list[Factor]]]:
    """Returns the map with its smaller part first, the size of that, and the way back."""
    n, first = len(problem.matrix), problem.first
    if 2 * first <= n:
        return problem.matrix, first, list
    order = np.roll(np.arange(n), -first)
    matrix = problem.matrix[np.ix_(order, order)]
    return matrix, n - first, lambda found: [f._replace(lower=not f.lower) for f in found]
