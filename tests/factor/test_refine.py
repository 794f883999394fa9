"""The last digits of a factorization."""

import numpy as np
import pytest

from kappaflow.factor.refine import refined
from kappaflow.factor.word import product


def blocks_of(n, count, seed=0):
    """Returns random blocks of couplings, L first."""
    rng = np.random.default_rng(seed)
    d = n // 2
    shapes = [(n - d, d), (d, n - d)]
    return [rng.standard_normal(shapes[i % 2]) / n**0.5 for i in range(count)]


def error(blocks, matrix):
    """Returns the relative residual of a product."""
    return np.linalg.norm(product(blocks) - matrix) / np.linalg.norm(matrix)


@pytest.mark.parametrize("n", [2, 3, 8, 9])
@pytest.mark.parametrize("count", [6, 7, 8])
def test_what_is_nearly_a_factorization_becomes_one(n, count):
    """From 1e-5 to rounding, by small changes of all blocks."""
    right = blocks_of(n, count)
    rng = np.random.default_rng(1)
    wrong = [block + 1e-5 * rng.standard_normal(block.shape) for block in right]
    matrix = product(right)
    found = refined(wrong, matrix)
    assert error(wrong, matrix) > 1e-7
    growth = np.prod([1 + np.linalg.norm(block, 2) for block in right])
    rounding = np.finfo(float).eps * growth / np.linalg.norm(matrix, 2)
    assert error(found, matrix) < min(30 * rounding, 1e-12)
    assert max(np.abs(a - b).max() for a, b in zip(found, wrong, strict=True)) < 1e-3


def test_what_is_right_is_left_as_it_is():
    """Nothing is made worse, and the given blocks are not written to."""
    right = blocks_of(6, 6)
    kept = [block.copy() for block in right]
    found = refined(right, product(right))
    assert all(np.array_equal(a, b) for a, b in zip(found, kept, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(right, kept, strict=True))


def test_what_cannot_be_reached_is_not_made_worse():
    """Four couplings do not make this map; the best of the rounds is returned."""
    blocks, matrix = blocks_of(6, 4), product(blocks_of(6, 6, seed=3))
    assert error(refined(blocks, matrix), matrix) <= error(blocks, matrix)


def test_from_far_off_it_goes_on_while_it_gains():
    """As where no place of the equation could be solved: from a third to rounding."""
    right = blocks_of(4, 6)
    wrong = [block + 0.05 for block in right]
    matrix = product(right)
    assert error(wrong, matrix) > 0.1
    assert error(refined(wrong, matrix), matrix) < 1e-14
