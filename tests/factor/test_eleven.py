"""The corollary: eleven couplings of any map, nine of them bounded."""

import numpy as np
import pytest

from factor.ensembles import block_diagonal, cycle, geometric, orthogonal, positive, sharp
from kappaflow.factor.eleven import factor_eleven
from kappaflow.factor.residual import relative_residual
from kappaflow.factor.rotation import UNIT_BOUND

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


@pytest.mark.parametrize("name", MAPS)
def test_nine_are_bounded_and_two_carry_the_condition(name):
    """Eleven, lower first, positive; the carriers at most ten times cond(T)."""
    matrix = MAPS[name]
    factors = factor_eleven(matrix)
    assert [factor.lower for factor in factors] == [i % 2 == 0 for i in range(11)]
    assert all((factor.diagonal > 0).all() for factor in factors)
    assert relative_residual(factors, matrix) < 1e-14
    sizes = [np.linalg.cond(factor.matrix) for factor in factors]
    condition = np.linalg.cond(matrix)
    if name not in ("huge", "tiny"):  # more than nine bounded factors can make
        assert max(sizes[5:7]) <= 10 * condition
        assert max(sizes[:5] + sizes[7:]) <= UNIT_BOUND * (1 + 1e-6)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_an_even_spectrum_costs_its_square_root(condition):
    """Both carriers are about 2.2 sqrt(cond T): no two factors could share it much better."""
    factors = factor_eleven(geometric(32, np.random.default_rng(1), condition))
    sizes = [np.linalg.cond(factor.matrix) for factor in factors]
    assert max(sizes) <= 3 * condition**0.5


def test_an_extreme_scale_is_shared_by_all():
    """1e12 on eleven factors is some hundreds each, not 1e8 on two."""
    factors = factor_eleven(1e12 * orthogonal(6, np.random.default_rng(2)))
    assert max(np.linalg.cond(factor.matrix) for factor in factors) < 1e3


def test_the_inverse_is_right_to_the_condition_number():
    """|T^-1 product - 1| is eps cond(T), at cond(T) = 1e6."""
    matrix = geometric(24, np.random.default_rng(3), 1e6)
    made = np.eye(24)
    for factor in factor_eleven(matrix):
        made = made @ factor.matrix
    assert np.abs(np.linalg.solve(matrix, made) - np.eye(24)).max() < 1e-8
