"""The equation of theorem E, Newton's method on it, and the refinement of the last digits."""

import numpy as np
import pytest

from kappaflow.factor.algebra import (
    FactorTarget,
    Pattern,
    all_blocks,
    defect,
    linearize,
    move,
    newton,
    product,
    refine,
)

PATTERNS = [
    Pattern(4, 0),
    Pattern(5, 0),
    Pattern(6, 0),
    Pattern(6, 2),
    Pattern(7, 2),
    Pattern(9, 4),
    Pattern(10, 4),
]


def random_blocks(n, couplings, seed=0, size=0.7):
    """Returns blocks for halves of n features, L first."""
    generator, d = np.random.default_rng(seed), n // 2
    shapes = [(d, n - d) if i % 2 else (n - d, d) for i in range(couplings)]
    return [size * generator.standard_normal(shape) for shape in shapes]


def target_of(matrix):
    """Returns a matrix and its inverse."""
    return FactorTarget(matrix, np.linalg.inv(matrix))


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 6, 7])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_product_satisfies_the_equation_which_returns_its_blocks(pattern, n):
    """For halves d and d, and d and d + 1, the unknown blocks determine the other three."""
    blocks = random_blocks(n, pattern.couplings)
    target = target_of(product(blocks))
    values = pattern.unknowns(blocks)
    assert np.linalg.norm(defect(pattern, target, values)) < 1e-9
    for result, expected in zip(all_blocks(pattern, target, values), blocks, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-8)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_a_solution_of_the_equation_is_a_factorization(n):
    """Newton's method from nearby values finds blocks whose product is a new map."""
    pattern = Pattern(6, 2)
    blocks = random_blocks(n, 6)
    generator = np.random.default_rng(1)
    near = product(blocks) @ (np.eye(n) + 0.003 * generator.standard_normal((n, n)))
    near /= np.linalg.det(near) ** (1 / n)
    target = target_of(near)
    values, error, steps = newton(
        pattern, target, pattern.unknowns(blocks), tolerance=1e-11, steps=20
    )
    assert error < 1e-11
    assert 0 < steps < 20
    np.testing.assert_allclose(product(all_blocks(pattern, target, values)), near, atol=1e-9)


def test_a_determinant_other_than_one_leaves_no_solution():
    """The determinant of a product of unit couplings is 1."""
    pattern, blocks = Pattern(6, 2), random_blocks(4, 6)
    target = target_of(1.3 * product(blocks))
    assert newton(pattern, target, pattern.unknowns(blocks), tolerance=1e-9, steps=30)[1] > 1e-3


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_derivative_agrees_with_differences(pattern, n):
    """Central differences at a solution; for square blocks also away from it."""
    blocks = random_blocks(n, pattern.couplings)
    values, step = (pattern.unknowns(random_blocks(n, pattern.couplings, seed)) for seed in (0, 1))
    target = target_of(product(blocks))
    for off in (0.0, 0.01) if n % 2 == 0 else (0.0,):
        at = move(values, step, off)
        after, before = (defect(pattern, target, move(at, step, t)) for t in (1e-6, -1e-6))
        difference = (after - before) / 2e-6
        result = linearize(pattern, target, at).derivative(step)
        np.testing.assert_allclose(result, difference, atol=1e-5 * np.linalg.norm(difference))


def test_no_step_moves_the_missed_direction_at_a_solution():
    """The determinant of square blocks is fixed: one equation follows from the others."""
    pattern, blocks = Pattern(6, 2), random_blocks(8, 6)
    linear = linearize(pattern, target_of(product(blocks)), pattern.unknowns(blocks))
    parts = linear.derivative.adjoint(linear.missed / np.linalg.norm(linear.missed))
    size = np.linalg.norm(linear.derivative.gram(), 2) ** 0.5
    assert max(np.linalg.norm(part) for part in parts) < 1e-9 * size
    others = np.linalg.eigvalsh(linear.derivative.gram())
    assert others[1] > 1e-6 > others[0]
    blocks = random_blocks(7, 6)  # with d and d + 1 features all equations are independent
    linear = linearize(pattern, target_of(product(blocks)), pattern.unknowns(blocks))
    assert linear.missed is None
    assert np.linalg.eigvalsh(linear.derivative.gram())[0] > 1e-6


def error(blocks, matrix):
    """Returns the relative residual of a product."""
    return np.linalg.norm(product(blocks) - matrix) / np.linalg.norm(matrix)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 8, 9])
@pytest.mark.parametrize("count", [6, 7, 8])
def test_refine_makes_an_approximate_factorization_exact(n, count):
    """From a residual of 1e-5 to rounding, by small changes of all blocks."""
    right = random_blocks(n, count, size=n**-0.5)
    rng = np.random.default_rng(1)
    wrong = [block + 1e-5 * rng.standard_normal(block.shape) for block in right]
    matrix = product(right)
    result = refine(wrong, matrix)
    assert error(wrong, matrix) > 1e-7
    growth = np.prod([1 + np.linalg.norm(block, 2) for block in right])
    rounding = np.finfo(float).eps * growth / np.linalg.norm(matrix, 2)
    assert error(result, matrix) < min(30 * rounding, 1e-12)
    assert max(np.abs(a - b).max() for a, b in zip(result, wrong, strict=True)) < 1e-3


def test_refine_keeps_an_exact_factorization():
    """The residual does not grow, and the given arrays are not modified."""
    right = random_blocks(6, 6, size=6**-0.5)
    kept = [block.copy() for block in right]
    result = refine(right, product(right))
    assert all(np.array_equal(a, b) for a, b in zip(result, kept, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(right, kept, strict=True))


def test_refine_never_makes_the_residual_worse():
    """Four couplings do not make this map; the best round is returned."""
    blocks, matrix = random_blocks(6, 4, size=0.4), product(random_blocks(6, 6, seed=3, size=0.4))
    assert error(refine(blocks, matrix), matrix) <= error(blocks, matrix)


def test_refine_continues_while_it_gains_digits():
    """From a residual of a third to rounding."""
    right = random_blocks(4, 6, size=0.5)
    wrong = [block + 0.05 for block in right]
    matrix = product(right)
    assert error(wrong, matrix) > 0.1
    assert error(refine(wrong, matrix), matrix) < 1e-14
