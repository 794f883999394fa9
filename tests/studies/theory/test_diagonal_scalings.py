"""What patterns say of spectra, against spectra under many scalings."""

import numpy as np
import pytest
from scipy.linalg import block_diag

from kappaflow_studies.theory.diagonal_scalings import (
    always_not_real,
    always_real,
    coefficient_signs,
    components,
    is_triangular,
    pivot_signs,
    ranks_above_diagonal,
)
from kappaflow_studies.theory.exact import Numbers, fractions

CYCLE = np.array([[0, 2, 0], [0, 0, -3], [1, 0, 0]])


def scalings(generator, size, positive, count=30):
    """Returns diagonals of very different entries."""
    for _ in range(count):
        diagonal = np.exp(3 * generator.standard_normal(size))
        yield diagonal if positive else diagonal * generator.choice([-1, 1], size)


def coefficients(matrix):
    """Returns e_1, ..., e_d of a matrix."""
    signs = (-1) ** np.arange(len(matrix) + 1)
    return (np.poly(matrix) * signs)[1:]


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_claims_hold_for_every_scaling(seed, positive):
    """Real, not real, and the signs of coefficients: sparse matrices, random diagonals."""
    generator, claims = np.random.default_rng(seed), [0, 0, 0]
    for _ in range(100):
        size = int(generator.integers(2, 5))
        matrix = generator.integers(-2, 3, (size, size)) * (generator.random((size, size)) < 0.5)
        if generator.random() < 0.3:
            matrix = matrix + generator.choice([-1, 1]) * matrix.T
        elif generator.random() < 0.3:
            matrix = np.diag(generator.integers(1, 3, size))[generator.permutation(size)]
        real, not_real = always_real(matrix, positive), always_not_real(matrix, positive)
        assert not (real and not_real)
        allowed = [
            coefficient_signs(fractions(matrix), k, positive, Numbers(None))
            for k in range(1, size + 1)
        ]
        for diagonal in scalings(generator, size, positive, count=4):
            scaled = diagonal[:, None] * matrix
            imaginary = abs(np.linalg.eigvals(scaled).imag).max() / abs(scaled).max(initial=1)
            assert not real or imaginary < 1e-4  # multiple eigenvalues are found to a root of eps
            assert not not_real or imaginary > 0
            for value, signs in zip(coefficients(scaled), allowed, strict=True):
                assert signs != {0} or abs(value) <= 1e-9 * abs(scaled).max() ** size
                assert len(signs) == 3 or 0 in signs or np.sign(value) in signs
        claims = [c + bool(x) for c, x in zip(claims, (real, not_real, True), strict=True)]
    assert min(claims) >= 3


def test_components_are_strongly_connected():
    """A triangle falls into its entries, whatever the order; a cycle does not."""
    triangle = np.triu(np.ones((4, 4)))[[2, 0, 3, 1]][:, [2, 0, 3, 1]]
    assert [len(block) for block in components(triangle)] == [1] * 4
    assert is_triangular(triangle) and not is_triangular(CYCLE)
    assert always_real(triangle, False) == "triangular up to the order of the features"
    assert always_real(np.diag([1, 2]), False) == "diagonal"


def test_symmetric_matrices_are_real_for_positive_scalings_only():
    """A swap scaled by (1, -1) has eigenvalues i and -i."""
    swap = np.array([[0, 1], [1, 0]])
    assert always_real(swap, True) and not always_real(swap, False)
    assert always_real(np.array([[1, 2, 0], [2, 0, 3], [0, 3, 1]]), True)


def test_cycles_are_never_real():
    """Three features with any signs; two only for opposite signs and positive scalings."""
    assert "3-cycle" in str(always_not_real(CYCLE, False))
    turn = np.array([[0, 1], [-1, 0]])
    assert always_not_real(turn, True) and not always_not_real(turn, False)
    assert not always_not_real(abs(turn), True)
    skew = np.array([[0, 1, 2], [-1, 0, 3], [-2, -3, 0]])
    assert "skew" in str(always_not_real(skew, True)) and not always_not_real(skew, False)


def test_one_entry_can_have_both_signs_but_not_vanish():
    """The trace of D M with a single diagonal entry, for D of any sign."""
    first, second = fractions(np.diag([0, 5])), fractions(np.diag([3, 5]))
    numbers = Numbers(None)
    assert coefficient_signs(first, 1, False, numbers) == {-1, 1}
    assert coefficient_signs(second, 1, False, numbers) == {-1, 0, 1}
    assert coefficient_signs(second, 1, True, numbers) == {1}
    assert coefficient_signs(fractions(np.diag([3, -5])), 1, True, numbers) == {-1, 0, 1}
    assert coefficient_signs(first, 2, True, numbers) == {0}


def test_cycles_are_ranks_away_from_diagonal_matrices():
    """One less than their length, or all of it against positive diagonals; blocks add up."""
    turn, swap = np.array([[0, 1], [-1, 0]]), np.array([[0, 1], [1, 0]])
    assert ranks_above_diagonal(turn, True) == 2 and ranks_above_diagonal(turn, False) == 1
    assert ranks_above_diagonal(swap, True) == 1
    assert ranks_above_diagonal(np.diag([1, -1, 0]), True) == 2
    assert ranks_above_diagonal(np.diag([1, -1, 0]), False) == 1
    assert ranks_above_diagonal(block_diag(CYCLE, turn, 5), False) == 3
    assert ranks_above_diagonal(np.ones((4, 4)), True) == 0


def test_pivots_need_minors_that_are_not_zero():
    """Signs of quotients of leading minors, or none; rounding is no sign."""
    assert pivot_signs(fractions(np.array([[1, 2], [2, 1]])), Numbers(None)) == [1, -1]
    assert pivot_signs(fractions(np.array([[0, 2], [2, 1]])), Numbers(None)) is None
    assert pivot_signs(np.array([[1.0, 1.0], [1.0, 1 + 1e-14]]), Numbers(1e-10)) is None
    assert pivot_signs(fractions(np.eye(9)), Numbers(None)) is None  # too many minors
