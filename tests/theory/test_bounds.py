"""The constants of Theorem B, in exact arithmetic."""

import mpmath
import numpy as np
import pytest
import sympy

from kappaflow.errors import ArgumentError
from kappaflow.theory import (
    ROTATION_BLOCK_NORMS,
    least_condition_number,
    rotation_bound,
    unit_condition_number,
)


def test_a_unit_coupling_has_the_condition_number_of_its_norm():
    """The characteristic polynomial of M^T M, for one singular value a, in symbols."""
    a = sympy.symbols("a", positive=True)
    shear = sympy.Matrix([[1, 0], [a, 1]])
    larger = ((a + sympy.sqrt(a**2 + 4)) / 2) ** 2
    for square in (larger, 1 / larger):  # of the singular values, whose quotient is `larger`
        assert sympy.simplify((shear.T * shear - square * sympy.eye(2)).det()) == 0


@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.7, 3.0, 1e4])
def test_it_is_what_a_dense_computation_finds(norm):
    """For a block of several singular values the largest decides."""
    block = np.diag([norm, norm / 2, 0.0])
    coupling = np.block([[np.eye(3), np.zeros((3, 3))], [block, np.eye(3)]])
    assert unit_condition_number(norm) == pytest.approx(np.linalg.cond(coupling), rel=1e-7)


def test_the_bound_for_rotations_has_its_exact_value():
    """((2 + sqrt 2 + sqrt((2 + sqrt 2)^2 + 4)) / 2)^2 = 13.58..., with 50 digits."""
    root = sympy.sqrt(2)
    exact = ((2 + root + sympy.sqrt((2 + root) ** 2 + 4)) / 2) ** 2
    with mpmath.workdps(50):
        digits = mpmath.mpf(str(sympy.N(exact, 50)))
        assert abs(digits - rotation_bound()) < 4e-15
    assert 13.58 < rotation_bound() < 13.6
    assert sympy.simplify(sympy.sqrt(exact) - 1 / sympy.sqrt(exact) - (2 + root)) == 0


def test_the_first_block_is_the_worst():
    """A1 of norm 2 + sqrt 2; the others are at most 2, of condition number 5.83."""
    assert max(ROTATION_BLOCK_NORMS) == ROTATION_BLOCK_NORMS[0]
    second = sorted(map(unit_condition_number, ROTATION_BLOCK_NORMS))[-2]
    assert second == pytest.approx(3 + 2 * 2**0.5)


@pytest.mark.parametrize(("kappa", "bound"), [(1e2, 2.15), (1e4, 4.64), (1e6, 10.0)])
def test_a_factor_has_at_least_the_root(kappa, bound):
    """Six factors of this condition number just make the product's."""
    assert least_condition_number(kappa, 6) == pytest.approx(bound, rel=3e-3)
    assert least_condition_number(kappa, 6) ** 6 == pytest.approx(kappa)


@pytest.mark.parametrize("bad", [0.5, -1.0, float("nan"), float("inf")])
def test_a_condition_number_below_one_is_refused(bad):
    """It is a ratio of the largest to the smallest."""
    with pytest.raises(ArgumentError, match="'condition_number' should be"):
        least_condition_number(bad, 6)


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_negative_norm_is_refused(bad):
    """Norms are not negative."""
    with pytest.raises(ArgumentError, match="'norm' should be"):
        unit_condition_number(bad)
