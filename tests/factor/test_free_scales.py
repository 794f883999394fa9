"""All blocks and scales of the couplings of a small map: what the fifth free scale gains."""

import numpy as np
import pytest

import kappaflow as kf
from factor.ensembles import orthogonal
from kappaflow.factor.coupling import unit_factors
from kappaflow.factor.factorization import residuals
from kappaflow.factor.free_scales import _Program, free_scales
from kappaflow.factor.rotation import factor_rotation


@pytest.mark.parametrize(
    ("norm", "worst"),
    [(10.0, 4.6), (100.0, 14.6), pytest.param(1000.0, 50.0, marks=pytest.mark.slow)],
)
def test_outliers_grow_like_the_square_root_of_the_norm(norm, worst):
    """5.05, 20.8 and 2034 if the scales of the three L, and of the three U, have product one."""
    matrix = np.diag([1 / norm, norm, 1 / norm, norm])
    result = kf.factor_linear(matrix, method="continuation")
    assert result.condition_number < worst < 1.6 * norm**0.5
    assert result.residual < 1e-13 and result.inverse_residual < 1e-9


def test_the_product_stays_and_the_scale_of_the_map_is_shared():
    """A multiple of a map, in a partition, of negative determinant."""
    matrix = 7 * np.diag([-0.01, 100.0, 0.01, 100.0])
    result = kf.factor_linear(matrix, method="continuation", partition="alternating")
    assert result.residual < 1e-13 and result.flipped is not None
    plain = kf.factor_linear(matrix / 7, method="continuation", partition="alternating")
    assert result.condition_number < 2 * plain.condition_number


def test_derivatives_are_those_of_differences():
    """Of the product, and of the smooth costs."""
    rng = np.random.default_rng(0)
    matrix = orthogonal(4, rng)
    program = _Program(unit_factors(factor_rotation(matrix)), matrix)
    values = program.start + 0.3 * rng.standard_normal(len(program.start))
    step = 1e-6 * np.eye(len(values))
    for function, slope in (
        (program.residual, program.slope(values)),
        (lambda v: program.costs(v, 4)[0], program.costs(values, 4)[1]),
    ):
        numeric = [(function(values + shift) - function(values - shift)) / 2e-6 for shift in step]
        np.testing.assert_allclose(slope, np.transpose(numeric), atol=1e-7)


def test_couplings_that_cannot_improve_are_returned():
    """Those of the identity."""
    factors = unit_factors([np.zeros((2, 2))] * 6)
    assert free_scales(factors, np.eye(4)) == factors


def test_what_is_returned_is_no_worse():
    """Rotations, from their closed form."""
    matrix = orthogonal(4, np.random.default_rng(3))
    factors = unit_factors(factor_rotation(matrix))
    result = free_scales(factors, matrix)
    assert max(f.condition_number for f in result) < max(f.condition_number for f in factors)
    assert residuals(result, matrix)[0] < 1e-13
