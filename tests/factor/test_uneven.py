"""Couplings of uneven partitions, with positive diagonals."""

import numpy as np
import pytest

import kappaflow as kf
from kappaflow.errors import NumericalError
from kappaflow.factor.uneven import continue_uneven, enough_couplings

PARTITIONS = [
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 3),
    (3, 2),
    (2, 4),
    (1, 3),
    (3, 1),
    (2, 6),
    (6, 2),
    (1, 5),
]


def cycle(p, q):
    """Returns the hardest map of a partition: a cycle of odd length in the second part."""
    matrix, length = np.eye(p + q), q - 1 + q % 2
    matrix[p : p + length] = np.roll(matrix[p : p + length], 1, axis=0)
    return matrix


def gaussian(n, seed=0):
    """Returns a Gaussian matrix with a positive determinant."""
    matrix = np.random.default_rng(seed).standard_normal((n, n))
    matrix[0] *= np.sign(np.linalg.det(matrix))
    return matrix


@pytest.mark.slow
@pytest.mark.parametrize(("p", "q"), PARTITIONS)
def test_as_many_couplings_as_the_guide_says_make_every_map(p, q):
    """Gaussian maps and the cycles that need most, with positive diagonals."""
    for matrix in (gaussian(p + q), cycle(p, q)):
        result = continue_uneven(matrix, p)
        assert len(result) == enough_couplings(p, q)
        built = np.eye(p + q)
        for position, coupling in enumerate(result):
            assert coupling.lower == (position % 2 == 0)
            assert coupling.weight.shape == ((q, p) if coupling.lower else (p, q))
            assert (coupling.diagonal > 0).all()
            built = built @ coupling.matrix
        np.testing.assert_allclose(built, matrix, atol=1e-9 * np.linalg.norm(matrix))
        worst = max(np.linalg.cond(coupling.matrix) for coupling in result)
        assert worst < 10 + np.linalg.cond(matrix)


def test_the_same_seed_gives_the_same_couplings():
    """Bit for bit."""
    first, second = (continue_uneven(gaussian(5), 2, seed=1) for _ in range(2))
    assert all((a.weight == b.weight).all() for a, b in zip(first, second, strict=True))


def test_too_few_couplings_are_reported():
    """A (1, 3) cycle is not a product of three; the message says how many were enough."""
    with pytest.raises(NumericalError, match="8 were enough"):
        continue_uneven(cycle(1, 3), 1, couplings=3)


def test_too_many_features_are_refused_at_once():
    """Also by factor_linear if no closed form fits; the message names it as the way out."""
    matrix = gaussian(96)
    with pytest.raises(NumericalError, match="method='svd'"):
        continue_uneven(matrix, 32)
    with pytest.raises(NumericalError, match="too many for a search"):
        kf.factor_linear(matrix, partition=32, couplings=6)
    result = kf.factor_linear(matrix, partition=47, couplings=27)
    assert result.method == "svd" and result.residual < 1e-12
