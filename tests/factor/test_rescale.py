"""Scales between factors: the product stays, the worst factor gets better."""

import numpy as np
import pytest

from factor.ensembles import orthogonal, product, relative
from kappaflow.factor.coupling import Factor, flip_last, two_by_two_condition, unit_factors
from kappaflow.factor.rescale import _ScaleProgram, rescale
from kappaflow.factor.rotation import UNIT_BOUND, factor_rotation

FREE_BOUND = 6.98


def worst_condition_number(factors):
    """Returns the largest condition number of dense factors."""
    return max(np.linalg.cond(factor.matrix) for factor in factors)


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e-3, 1e8, 1e-30])
def test_the_product_is_scaled_and_no_worse_than_with_even_scales(scale):
    """Even scales: each of six factors has the cube root of the whole."""
    rng = np.random.default_rng(0)
    for n in (2, 4, 10):
        rotation = orthogonal(n, rng)
        factors = unit_factors(factor_rotation(rotation))
        even = np.cbrt(scale)
        plain = [
            Factor(f.lower, f.weight * (1 if f.lower else even), f.diagonal * even)
            for f in factors
        ]
        assert relative(product(plain), scale * rotation) < 1e-12
        result = rescale(factors, scale=scale)
        assert relative(product(result), scale * rotation) < 1e-13
        assert all((factor.diagonal > 0).all() for factor in result)
        assert worst_condition_number(result) <= worst_condition_number(plain) * (1 + 1e-6)


def test_the_bound_on_rotations_is_6_98_once_scales_are_free():
    """The norms of theorem B at their bounds; the first factor alone could have 6.972."""
    blocks = [np.array([[norm]]) for norm in (2 + 2**0.5, 1, 2**0.5, 2, 2, 1)]
    result = rescale(unit_factors(blocks))
    alone = np.sqrt(1 + (2 + 2**0.5) ** 2) + 2 + 2**0.5
    assert alone < worst_condition_number(result) < FREE_BOUND < UNIT_BOUND


@pytest.mark.slow
def test_random_rotations_keep_the_better_bound():
    """Unit diagonals reach 11."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        factors = unit_factors(factor_rotation(orthogonal(2 * rng.integers(1, 9), rng)))
        assert worst_condition_number(rescale(factors)) <= FREE_BOUND


def test_the_costs_are_those_of_the_matrices_and_their_slopes_are_right():
    """log(cond + 1/cond) exactly for one size of a diagonal, a bound for several."""
    rng = np.random.default_rng(2)
    factors = [
        Factor(i % 2 == 0, rng.standard_normal((3, 3)), np.full(3, scale))
        for i, scale in enumerate((0.5, 1.0, 4.0, 2.0))
    ]
    problem, y = _ScaleProgram(factors), 0.3 * rng.standard_normal(4)
    value, slope = problem.costs(np.zeros(4))
    dense = np.array([np.linalg.cond(factor.matrix) for factor in factors])
    np.testing.assert_allclose(value, np.log(dense + 1 / dense), rtol=1e-10)
    value, slope = problem.costs(y)
    for i in range(4):
        step = 1e-6 * np.eye(4)[i]
        numeric = (problem.costs(y + step)[0] - problem.costs(y - step)[0]) / 2e-6
        np.testing.assert_allclose(slope[:, i], numeric, atol=1e-8)
    several = [Factor(True, rng.standard_normal((3, 3)), np.array([0.1, 1.0, 7.0]))]
    bound = np.exp(_ScaleProgram(several).costs(np.zeros(1))[0][0])
    assert np.linalg.cond(several[0].matrix) <= bound


def test_no_other_scales_do_better():
    """The problem is convex: random steps that keep the product never lower the worst."""
    rng = np.random.default_rng(3)
    factors = unit_factors(factor_rotation(orthogonal(8, rng)))
    problem = _ScaleProgram(factors)
    best = problem.solved(0.0)
    least = problem.costs(best)[0].max()
    for _ in range(300):
        step = rng.standard_normal(6) * rng.choice([1e-3, 1e-2, 1e-1])
        step[::2] -= step[::2].mean()
        step[1::2] -= step[1::2].mean()
        assert problem.costs(best + step)[0].max() >= least - 1e-4


def test_the_limit_holds_for_all_factors_that_are_not_free():
    """Nine stay within the limit; two of different sizes take the rest."""
    rng = np.random.default_rng(4)
    blocks = [0.8 * orthogonal(3, rng) for _ in range(6)]
    factors = unit_factors(blocks)
    factors[2] = Factor(True, factors[2].weight, np.array([1.0, 30.0, 1000.0]))
    factors[2] = Factor(True, factors[2].diagonal[:, None] * blocks[2], factors[2].diagonal)
    unlimited, result = rescale(factors), rescale(factors, limit=5.0, free=[2])
    problem = _ScaleProgram(factors, limit=5.0, free=[2])
    assert np.isinf(problem.limits).tolist() == [i == 2 for i in range(6)]
    assert max(np.linalg.cond(f.matrix) for f in unlimited[3:]) > 5
    sizes = [two_by_two_condition(np.linalg.norm(f.weight, 2), f.diagonal[0]) for f in result]
    assert max(size for i, size in enumerate(sizes) if i != 2) <= 5 * (1 + 1e-6)


@pytest.mark.parametrize("lower_first", [True, False])
def test_a_flip_negates_the_last_row_of_the_product(lower_first):
    """The first lower factor gets one negative entry in its diagonal."""
    rng = np.random.default_rng(5)
    factors = unit_factors(rng.standard_normal((5, 3, 3)), lower_first=lower_first)
    flipped, number = flip_last(factors)
    expected = product(factors)
    expected[-1] *= -1
    np.testing.assert_allclose(product(flipped), expected, atol=1e-12)
    assert number == (0 if lower_first else 1)
    assert sum((factor.diagonal < 0).sum() for factor in flipped) == 1
