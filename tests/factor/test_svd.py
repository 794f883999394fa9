"""Any map in closed form by its singular values."""

import numpy as np
import pytest

from factor.ensembles import block_diagonal, cycle, geometric, orthogonal, positive, sharp
from kappaflow.factor.factorization import residuals
from kappaflow.factor.rotation import UNIT_BOUND
from kappaflow.factor.svd import factor_svd, singular_value_pairs

PAIRS = {
    "equal": (1.0, 1.0),
    "nearly equal": (1.0, 1 + 1e-12),
    "equal, small": (1e-4, 1e-4),
    "inverse": (1e-3, 1e3),
    "one large": (1.0, 1e6),
    "one small": (1e-6, 1.0),
    "both large": (30.0, 1000.0),
}


RNG = np.random.default_rng(0)
MAPS = {
    "gaussian": positive(RNG.standard_normal((12, 12))),
    "rotation": orthogonal(12, RNG),
    "two features": positive(RNG.standard_normal((2, 2))),
    "geometric, 1e2": geometric(16, RNG, 1e2),
    "geometric, 1e4": geometric(16, RNG, 1e4),
    "geometric, 1e6": geometric(16, RNG, 1e6),
    "one large": orthogonal(8, RNG) @ np.diag([1e6, *[1.0] * 7]) @ orthogonal(8, RNG),
    "one small": orthogonal(8, RNG) @ np.diag([1e-6, *[1.0] * 7]) @ orthogonal(8, RNG),
    "huge": 1e12 * orthogonal(6, RNG),
    "tiny": 1e-12 * geometric(6, RNG, 1e3),
    "triangular": positive(np.tril(RNG.standard_normal((10, 10)))),
    "diagonal": np.diag([1.0, 2.0, 3.0, 4.0]),
    "identity": np.eye(6),
    "minus identity": -np.eye(6),
    "sharp, four": sharp(4),
    "sharp, eight": sharp(8),
    "three-cycle, scaled": 7 * cycle(6, 3),
    "blocks": block_diagonal(geometric(4, RNG, 1e3), geometric(4, RNG, 1e3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("name", PAIRS)
def test_the_product_has_the_given_singular_values(name, count):
    """Up to rounding of the larger one, also if the two are nearly equal."""
    low, high = (np.array([value]) for value in PAIRS[name])
    pairs = singular_value_pairs(low, high, count)
    result = np.linalg.svd(pairs.product(count))[1][0]
    np.testing.assert_allclose(result, [high[0], low[0]], rtol=0, atol=1e-14 * high[0])
    assert (pairs.upper > 0).all() and (pairs.lower > 0).all() and (pairs.trailing > 0).all()


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_each_coupling_has_a_small_multiple_of_its_share(count):
    """At most four times the root of order count + 1 of the ratio 1e8."""
    pairs = singular_value_pairs(np.array([1e-4]), np.array([1e4]), count)
    upper = np.array([[pairs.upper[0], pairs.shear[0]], [0, 1]])
    lower = np.array([[1, 0], [pairs.shear[0], pairs.lower[0]]])
    worst = max(np.linalg.cond(upper), np.linalg.cond(lower), pairs.trailing[0])
    assert worst <= 4 * 1e8 ** (1 / (count + 1))


@pytest.mark.slow
@pytest.mark.parametrize("carriers", [2, 4, 6, 10])
@pytest.mark.parametrize(("small", "n"), [(1, 2), (5, 10), (2, 5), (1, 4)])
def test_any_number_of_carriers_makes_the_map(small, n, carriers):
    """Gaussian, rotation, and one outlying singular value, in even and uneven parts."""
    rng = np.random.default_rng(n)
    outlier = np.diag([1e5, *[1.0] * (n - 1)])
    for matrix in (
        positive(rng.standard_normal((n, n))),
        orthogonal(n, rng),
        orthogonal(n, rng) @ outlier @ orthogonal(n, rng),
    ):
        factors = factor_svd(matrix, small, carriers=carriers)
        assert residuals(factors, matrix)[0] < 3e-14
        assert all((factor.diagonal > 0).all() for factor in factors)
        if carriers == 10:
            assert max(np.linalg.cond(factor.matrix) for factor in factors) < 25


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_nine_are_bounded_and_two_carry_the_condition(name):
    """Eleven, lower first, positive; the carriers at most ten times cond(T)."""
    matrix = MAPS[name]
    factors = factor_svd(matrix)
    assert [factor.lower for factor in factors] == [i % 2 == 0 for i in range(11)]
    assert all((factor.diagonal > 0).all() for factor in factors)
    assert residuals(factors, matrix)[0] < 1e-14
    sizes = [np.linalg.cond(factor.matrix) for factor in factors]
    condition = np.linalg.cond(matrix)
    if name not in ("huge", "tiny"):  # more than nine bounded factors can make
        assert max(sizes[5:7]) <= 10 * condition
        assert max(sizes[:5] + sizes[7:]) <= UNIT_BOUND * (1 + 1e-6)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_an_even_spectrum_costs_its_square_root(condition):
    """Both carriers are about 2.2 sqrt(cond T): no two factors could share it much better."""
    factors = factor_svd(geometric(32, np.random.default_rng(1), condition))
    sizes = [np.linalg.cond(factor.matrix) for factor in factors]
    assert max(sizes) <= 3 * condition**0.5
