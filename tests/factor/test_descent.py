"""The surrogate's gradient, and descent within the solution set."""

import numpy as np
import pytest

from kappaflow.factor.algebra import FactorTarget, Pattern, all_blocks, defect, move, product
from kappaflow.factor.descent import descend, smooth_norm, smooth_norm_gradient

PATTERNS = [Pattern(5, 0), Pattern(6, 2), Pattern(9, 4)]


def problem(n, pattern, seed=0):
    """Returns a product of random couplings as a target, and the unknown blocks."""
    generator, d = np.random.default_rng(seed), n // 2
    shapes = [(d, n - d) if i % 2 else (n - d, d) for i in range(pattern.couplings)]
    blocks = [0.7 * generator.standard_normal(shape) for shape in shapes]
    matrix = product(blocks)
    return FactorTarget(matrix, np.linalg.inv(matrix)), pattern.unknowns(blocks)


@pytest.mark.parametrize("power", [1, 2, 8])
@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_gradient_agrees_with_differences(pattern, n, power):
    """Also away from the set of solutions, where the line search evaluates it."""
    target, values = problem(n, pattern)
    generator = np.random.default_rng(3)
    values = [v + 0.01 * generator.standard_normal(v.shape) for v in values]
    step = [generator.standard_normal(v.shape) for v in values]
    value, gradient = smooth_norm_gradient(pattern, target, values, power)
    after, before = (
        smooth_norm(all_blocks(pattern, target, move(values, step, t)), power)
        for t in (1e-6, -1e-6)
    )
    assert value == pytest.approx(
        smooth_norm(all_blocks(pattern, target, values), power), rel=1e-13
    )
    slope = sum(map(np.vdot, gradient, step))
    assert slope == pytest.approx((after - before) / 2e-6, rel=1e-5, abs=1e-6)


def test_the_smooth_norm_bounds_the_largest_singular_value():
    """From above, by the number of singular values to the power 1 / (2 p)."""
    generator = np.random.default_rng(0)
    blocks = [generator.standard_normal((5, 5)) for _ in range(6)]
    largest = np.log(max(np.linalg.norm(b, 2) for b in blocks))
    for power in (1, 2, 4, 32):
        assert largest < smooth_norm(blocks, power) <= largest + np.log(30) / (2 * power)
    assert smooth_norm([1e9 * b for b in blocks], 64) == pytest.approx(
        smooth_norm(blocks, 64) + np.log(1e9)
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 9])
def test_descent_lowers_the_norm_and_stays_on_the_solution_set(n):
    """It gains much more than its first step, and the defect stays within the tolerance."""
    pattern = Pattern(6, 2)
    target, values = problem(n, pattern)
    before = smooth_norm(all_blocks(pattern, target, values), 4)
    result, taken = descend(pattern, target, values, power=4, steps=40)
    after = smooth_norm(all_blocks(pattern, target, result), 4)
    assert 0 < taken <= 40
    assert after < before - 0.3
    assert np.linalg.norm(defect(pattern, target, result)) < 0.01
    first, _ = descend(pattern, target, values, power=4, steps=1)
    assert after < smooth_norm(all_blocks(pattern, target, first), 4) - 0.1
