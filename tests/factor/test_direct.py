"""Maps that one to three couplings make are seen, and nothing else is."""

import numpy as np
import pytest

from factor.ensembles import cycle, orthogonal, relative
from factor.ensembles import product as product_of
from kappaflow.factor.coupling import Factor
from kappaflow.factor.direct import direct_factors


def random_factors(rng, count, sizes, *, lower_first=True, negative=False):
    """Returns factors with random weights and diagonals, positive ones but for one sign."""
    first, second = sizes
    factors = []
    for i in range(count):
        lower = (i % 2 == 0) == lower_first
        changed, kept = (second, first) if lower else (first, second)
        diagonal = np.exp(0.5 * rng.standard_normal(changed))
        if negative and i == 0:
            diagonal[0] *= -1
        factors.append(Factor(lower, rng.standard_normal((changed, kept)), diagonal))
    return factors


@pytest.mark.slow
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("lower_first", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("half", [2, 3, 5])
def test_a_product_of_few_couplings_is_recovered(half, count, lower_first, negative):
    """In the same order, with the same number of couplings, up to rounding."""
    rng = np.random.default_rng(10 * half + count)
    original = random_factors(rng, count, (half, half), lower_first=lower_first, negative=negative)
    matrix = product_of(original)
    result = direct_factors(matrix, half)
    assert [factor.lower for factor in result] == [factor.lower for factor in original]
    assert relative(product_of(result), matrix) < 1e-12


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1), (2, 3)])
@pytest.mark.parametrize("count", [1, 2])
def test_products_for_different_sizes_are_recovered(sizes, count):
    """One and two couplings."""
    matrix = product_of(random_factors(np.random.default_rng(count), count, sizes))
    result = direct_factors(matrix, sizes[0])
    assert len(result) == count
    assert relative(product_of(result), matrix) < 1e-13


def test_only_the_identity_needs_no_coupling():
    """Any other map has at least one factor."""
    assert direct_factors(np.eye(4), 2) == []
    assert len(direct_factors(np.diag([1.0, 1.0, 1.0, 2.0]), 2)) == 1
    assert len(direct_factors(np.diag([3.0, 1.0, 1.0, 2.0]), 2)) == 2


def test_an_exchange_of_the_halves_is_three_shears():
    """(0, -1; 1, 0) on each pair of features is three shears of condition number 2.62."""
    swap = np.kron([[0.0, -1.0], [1.0, 0.0]], np.eye(3))
    result = direct_factors(swap, 3)
    assert len(result) == 3
    assert max(np.linalg.cond(factor.matrix) for factor in result) < 2.7


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_map_that_differs_by_more_than_rounding_has_no_direct_factors(count):
    """One entry moved by 1e-9."""
    rng = np.random.default_rng(count)
    matrix = product_of(random_factors(rng, count, (3, 3)))
    assert direct_factors(matrix, 3) is not None
    for row, column in ((0, 1), (4, 5)):
        moved = matrix.copy()
        moved[row, column] += 1e-9
        result = direct_factors(moved, 3)
        assert result is None or len(result) > count


def test_maps_without_the_structure_have_no_direct_factors():
    """Rotations, permutations, the sharp case, and -1, which positive diagonals do not make."""
    assert direct_factors(orthogonal(6, np.random.default_rng(0)), 3) is None
    assert direct_factors(cycle(6, 3), 3) is None
    assert direct_factors(-np.eye(4), 2) is None


def test_minus_one_in_two_features_needs_four():
    """Theorem A for d = 1: positive diagonals need four."""
    result = direct_factors(-np.eye(2), 1)
    assert len(result) == 4
    np.testing.assert_allclose(product_of(result), -np.eye(2), atol=1e-14)
    assert max(np.linalg.cond(factor.matrix) for factor in result) < 10
    assert direct_factors(-np.eye(2), 1, most=3) is None


def test_zeros_between_the_halves_leave_scales_free():
    """The features form groups that do not interact."""
    rng = np.random.default_rng(7)
    original = random_factors(rng, 3, (3, 3))
    diagonal = [Factor(f.lower, np.diag(np.diag(f.weight)), f.diagonal) for f in original]
    matrix = product_of(diagonal)
    result = direct_factors(matrix, 3)
    assert len(result) <= 3
    assert relative(product_of(result), matrix) < 1e-13
