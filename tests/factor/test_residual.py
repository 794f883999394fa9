"""The residual, against 200 bits and against fractions."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from factor.ensembles import orthogonal
from kappaflow.factor.factors import Factor, unit_factors
from kappaflow.factor.residual import relative_residual
from kappaflow.factor.rotation import factor_rotation


def in_200_bits(factors, matrix):
    """Returns the relative residual by mpmath."""
    with mpmath.workprec(200):
        result = mpmath.eye(len(matrix))
        for factor in factors:
            result = result * mpmath.matrix(factor.matrix.tolist())
        wanted = mpmath.matrix(matrix.tolist())
        return float(mpmath.mnorm(result - wanted, "f") / mpmath.mnorm(wanted, "f"))


@pytest.mark.parametrize("n", [2, 5, 16])
def test_rounding_errors_of_the_factors_are_measured_to_many_digits(n):
    """A float64 product would add its own, which are as large."""
    rng = np.random.default_rng(n)
    if n % 2:
        shapes, diagonals = [(3, 2), (2, 3), (3, 2)], [rng.standard_normal(k) for k in (3, 2, 3)]
        factors = [
            Factor(i % 2 == 0, rng.standard_normal(shape), diagonals[i])
            for i, shape in enumerate(shapes)
        ]
        matrix = factors[0].matrix @ factors[1].matrix @ factors[2].matrix
    else:
        matrix = orthogonal(n, rng)
        factors = unit_factors(factor_rotation(matrix))
    found = relative_residual(factors, matrix)
    assert found == pytest.approx(in_200_bits(factors, matrix), rel=1e-5)
    assert 0 < found < 1e-13


def test_cancelling_factors_are_measured_where_a_plain_product_is_not():
    """Weights of 1e6 that cancel: float64 loses six digits on the way."""
    rng = np.random.default_rng(1)
    big = 1e6 * rng.standard_normal((4, 4))
    factors = unit_factors([big, np.eye(4), -big + 1e-3 * np.eye(4), -np.eye(4)])
    matrix = np.eye(8)
    for factor in factors:
        matrix = matrix @ factor.matrix
    matrix = matrix.round(3)
    found = relative_residual(factors, matrix)
    assert found == pytest.approx(in_200_bits(factors, matrix), rel=1e-5)


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 960])
def test_a_scale_whose_square_leaves_the_range_changes_nothing(exponent):
    """A power of two in one factor and in the map; neither zero nor nan."""
    factors = unit_factors([np.array([[3.0]]), np.array([[1 / 3]]), np.array([[0.1]])])
    matrix = factors[0].matrix @ factors[1].matrix @ factors[2].matrix
    matrix[0, 0] += 1e-3
    plain = relative_residual(factors, matrix)
    scale = 2.0**exponent
    both = [Factor(lower, np.zeros((1, 1)), np.array([scale])) for lower in (True, False)]
    assert relative_residual([*both, *factors], scale * matrix) == plain > 1e-5


def test_whole_numbers_have_no_residual():
    """As fractions say."""
    rng = np.random.default_rng(2)
    factors = unit_factors(rng.integers(-9, 10, (6, 3, 3)).astype(float))
    exact = [[Fraction(int(i == j)) for j in range(6)] for i in range(6)]
    for factor in factors:
        rows = factor.matrix.tolist()
        exact = [
            [sum(row[k] * Fraction(rows[k][j]) for k in range(6)) for j in range(6)]
            for row in exact
        ]
    matrix = np.array([[float(entry) for entry in row] for row in exact])
    assert relative_residual(factors, matrix) == 0.0
    matrix[0, 0] += 1
    assert relative_residual(factors, matrix) == pytest.approx(1 / np.linalg.norm(matrix))


def test_the_small_part_of_the_product_is_carried_along():
    """Scales that are no powers of two, and many factors: what is left of each product counts."""
    rng = np.random.default_rng(3)
    scales = (np.full(3, 1.1), np.full(3, 1 / 1.1))
    factors = [
        Factor(i % 2 == 0, 30 * rng.standard_normal((3, 3)), scales[i // 2 % 2]) for i in range(8)
    ]
    matrix = np.array(in_full(factors))
    found = relative_residual(factors, matrix)
    assert found == pytest.approx(in_200_bits(factors, matrix), rel=1e-6)
    assert 0 < found < 2e-16


def in_full(factors):
    """Returns the product, rounded once."""
    with mpmath.workprec(400):
        result = mpmath.eye(6)
        for factor in factors:
            result = result * mpmath.matrix(factor.matrix.tolist())
        return [[float(result[i, j]) for j in range(6)] for i in range(6)]


def test_the_rounding_of_a_product_of_scales_is_seen():
    """1.1 times 1.1 is no float64: the residual is the error of the rounded product."""
    twice = [Factor(True, np.zeros((1, 1)), np.array([1.1]))] * 2
    matrix = np.diag([1.0, 1.1 * 1.1])
    error = float(Fraction(1.1) ** 2 - Fraction(1.1 * 1.1))
    found = relative_residual(twice, matrix)
    assert found == pytest.approx(abs(error) / np.linalg.norm(matrix), rel=1e-10, abs=0)
    assert found > 0
