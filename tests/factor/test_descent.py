"""The surrogate's gradient, and descent within the solution set."""

import numpy as np
import pytest

from kappaflow.factor.descent import descend
from kappaflow.factor.newton import defect, move
from kappaflow.factor.surrogate import power_norm, power_norm_gradient
from kappaflow.factor.word import Target, Word, all_blocks, product

WORDS = [Word(5, 0), Word(6, 2), Word(9, 4)]


def problem(n, word, seed=0):
    """Returns a product of random couplings as a target, and the unknown blocks."""
    generator, d = np.random.default_rng(seed), n // 2
    shapes = [(d, n - d) if i % 2 else (n - d, d) for i in range(word.couplings)]
    blocks = [0.7 * generator.standard_normal(shape) for shape in shapes]
    matrix = product(blocks)
    return Target(matrix, np.linalg.inv(matrix)), word.unknowns(blocks)


@pytest.mark.parametrize("power", [1, 2, 8])
@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("word", WORDS)
def test_the_gradient_agrees_with_differences(word, n, power):
    """Also away from the solution set, where the descent makes its trials."""
    target, values = problem(n, word)
    generator = np.random.default_rng(3)
    values = [v + 0.01 * generator.standard_normal(v.shape) for v in values]
    step = [generator.standard_normal(v.shape) for v in values]
    value, gradient = power_norm_gradient(word, target, values, power)
    ahead, behind = (
        power_norm(all_blocks(word, target, move(values, step, t)), power) for t in (1e-6, -1e-6)
    )
    assert value == pytest.approx(power_norm(all_blocks(word, target, values), power), rel=1e-13)
    slope = sum(map(np.vdot, gradient, step))
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-6)


def test_the_power_norm_bounds_the_largest_singular_value():
    """From above, by the number of singular values to the power 1 / (2 p)."""
    generator = np.random.default_rng(0)
    blocks = [generator.standard_normal((5, 5)) for _ in range(6)]
    largest = np.log(max(np.linalg.norm(b, 2) for b in blocks))
    for power in (1, 2, 4, 32):
        assert largest < power_norm(blocks, power) <= largest + np.log(30) / (2 * power)
    assert power_norm([1e9 * b for b in blocks], 64) == pytest.approx(
        power_norm(blocks, 64) + np.log(1e9)
    )


@pytest.mark.parametrize("n", [8, 9])
def test_descent_lowers_the_norm_and_stays_on_the_solution_set(n):
    """By much more than the gradient's first step, and within what the set allows off it."""
    word = Word(6, 2)
    target, values = problem(n, word)
    before = power_norm(all_blocks(word, target, values), 4)
    found, taken = descend(word, target, values, power=4, steps=40)
    after = power_norm(all_blocks(word, target, found), 4)
    assert 0 < taken <= 40
    assert after < before - 0.3
    assert np.linalg.norm(defect(word, target, found)) < 0.01
    first, _ = descend(word, target, values, power=4, steps=1)
    assert after < power_norm(all_blocks(word, target, first), 4) - 0.1


def test_descent_ends_where_nothing_is_gained():
    """From its own result, with an unreachable gain, it takes ten steps or fewer."""
    word = Word(6, 2)
    target, values = problem(6, word)
    assert descend(word, target, values, power=2, steps=100, least_gain=10.0)[1] <= 10
    assert descend(word, target, values, power=2, steps=0)[1] == 0
