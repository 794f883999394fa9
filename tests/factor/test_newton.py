"""The equation for the middle three couplings, its derivative, and Newton's method."""

import numpy as np
import pytest

from kappaflow.factor.newton import defect, linearize, move, newton
from kappaflow.factor.word import Target, Word, all_blocks, product

WORDS = [Word(4, 0), Word(5, 0), Word(6, 0), Word(6, 2), Word(7, 2), Word(9, 4), Word(10, 4)]


def random_blocks(n, couplings, seed=0, size=0.7):
    """Returns blocks for halves of n features, L first."""
    generator, d = np.random.default_rng(seed), n // 2
    shapes = [(d, n - d) if i % 2 else (n - d, d) for i in range(couplings)]
    return [size * generator.standard_normal(shape) for shape in shapes]


def target_of(matrix):
    """Returns a matrix beside its inverse."""
    return Target(matrix, np.linalg.inv(matrix))


@pytest.mark.parametrize("n", [2, 3, 6, 7])
@pytest.mark.parametrize("word", WORDS)
def test_the_equation_holds_for_every_product_and_gives_its_blocks_back(word, n):
    """Halves d and d, and d and d + 1: what is left out is found from what is kept."""
    blocks = random_blocks(n, word.couplings)
    target = target_of(product(blocks))
    values = word.unknowns(blocks)
    assert np.linalg.norm(defect(word, target, values)) < 1e-9
    for found, wanted in zip(all_blocks(word, target, values), blocks, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_a_solution_of_the_equation_is_a_factorization(n):
    """Newton from nearby values: the blocks multiply to a map they were not made for."""
    word = Word(6, 2)
    blocks = random_blocks(n, 6)
    generator = np.random.default_rng(1)
    near = product(blocks) @ (np.eye(n) + 0.003 * generator.standard_normal((n, n)))
    near /= np.linalg.det(near) ** (1 / n)
    target = target_of(near)
    values, error, steps = newton(word, target, word.unknowns(blocks), tolerance=1e-11, steps=20)
    assert error < 1e-11
    assert 0 < steps < 20
    np.testing.assert_allclose(product(all_blocks(word, target, values)), near, atol=1e-9)


def test_a_determinant_other_than_one_leaves_no_solution():
    """The equation knows of the determinant: the couplings' is one."""
    word, blocks = Word(6, 2), random_blocks(4, 6)
    target = target_of(1.3 * product(blocks))
    assert newton(word, target, word.unknowns(blocks), tolerance=1e-9, steps=30)[1] > 1e-3


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("word", WORDS)
def test_the_derivative_agrees_with_differences(word, n):
    """Central differences at a solution; for square blocks also away from it."""
    blocks = random_blocks(n, word.couplings)
    values, step = (word.unknowns(random_blocks(n, word.couplings, seed)) for seed in (0, 1))
    target = target_of(product(blocks))
    for off in (0.0, 0.01) if n % 2 == 0 else (0.0,):
        at = move(values, step, off)
        ahead, behind = (defect(word, target, move(at, step, t)) for t in (1e-6, -1e-6))
        difference = (ahead - behind) / 2e-6
        found = linearize(word, target, at).derivative(step)
        np.testing.assert_allclose(found, difference, atol=1e-5 * np.linalg.norm(difference))


def test_no_step_moves_the_missed_direction_at_a_solution():
    """The determinant of square blocks is fixed: one equation follows from the others."""
    word, blocks = Word(6, 2), random_blocks(8, 6)
    linear = linearize(word, target_of(product(blocks)), word.unknowns(blocks))
    parts = linear.derivative.adjoint(linear.missed / np.linalg.norm(linear.missed))
    size = np.linalg.norm(linear.derivative.gram(), 2) ** 0.5
    assert max(np.linalg.norm(part) for part in parts) < 1e-9 * size
    others = np.linalg.eigvalsh(linear.derivative.gram())
    assert others[1] > 1e-6 > others[0]


def test_odd_halves_miss_no_direction():
    """With d and d + 1 features all equations count."""
    word, blocks = Word(6, 2), random_blocks(7, 6)
    linear = linearize(word, target_of(product(blocks)), word.unknowns(blocks))
    assert linear.missed is None
    assert np.linalg.eigvalsh(linear.derivative.gram())[0] > 1e-6
