"""Bounds on the conditioning of couplings, against products of couplings and constructions."""

import numpy as np
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.theory import (
    additive_lower_bound,
    outlier_lower_bound,
    scaled_lower_bound,
)
from kappaflow_studies.theory.conditioning import ordered_outlier_bounds


def couplings(d, count, generator, *, scaled, lower_first=True):
    """Returns couplings with random blocks, and one random scale each if `scaled`."""
    result = []
    for position in range(count):
        coupling = np.eye(2 * d)
        own, kept = slice(d, None), slice(d)
        if (position % 2 == 0) != lower_first:
            own, kept = kept, own
        coupling[own, kept] = np.exp(generator.normal(0, 2)) * generator.standard_normal((d, d))
        coupling[own, own] *= np.exp(generator.normal()) if scaled else 1
        result.append(coupling)
    return result


@pytest.mark.parametrize(("d", "count"), [(1, 3), (1, 6), (2, 2), (2, 6), (3, 8)])
def test_no_product_of_scaled_couplings_beats_the_lower_bound(d, count):
    """Random couplings of any size; for some it is half of the truth, in logarithms."""
    generator = np.random.default_rng(count)
    shares = []
    for _ in range(60):
        factors = couplings(d, count, generator, scaled=True)
        worst = max(map(np.linalg.cond, factors))
        bound = scaled_lower_bound(np.linalg.multi_dot(factors), count)
        shares.append(np.log(bound) / np.log(worst))
    assert 0.5 < max(shares) <= 1 + 1e-9


@pytest.mark.parametrize("x", [0.5, 3.0, 8.0])
def test_the_lower_bound_is_attained_by_alternating_shears(x):
    """(U(x) L(x))^3 = (U(x) U(x)^T)^3, which stretches by the product of its factors."""
    first, second = np.array([[1, x], [0, 1.0]]), np.array([[1, 0], [x, 1.0]])
    T = np.linalg.multi_dot([first, second] * 3)
    assert scaled_lower_bound(T, 6) == pytest.approx(np.linalg.cond(first), rel=1e-6)


@pytest.mark.parametrize("lower_first", [True, False])
@pytest.mark.parametrize("count", [4, 6, 8])
def test_no_product_of_additive_couplings_beats_their_lower_bound(count, lower_first):
    """In either order of the kinds."""
    generator = np.random.default_rng(count)
    for _ in range(30):
        factors = couplings(2, count, generator, scaled=False, lower_first=lower_first)
        worst = max(map(np.linalg.cond, factors))
        assert additive_lower_bound(np.linalg.multi_dot(factors), count) <= worst * (1 + 1e-9)


def test_scales_alone_need_no_more_than_the_cube_root():
    """A large and a small singular value in different halves are no obstacle."""
    t = 1e6
    lower, upper = np.diag([1, t ** (1 / 3)]), np.diag([t ** (-1 / 3), 1])
    T = np.linalg.multi_dot([lower, upper] * 3)
    np.testing.assert_allclose(T, np.diag([1 / t, t]))
    assert max(ordered_outlier_bounds(T)) == pytest.approx(t ** (1 / 7))
    assert scaled_lower_bound(T, 6) == pytest.approx(t ** (1 / 3))


@pytest.mark.parametrize("norm", [5.0, 1e2, 1e4, 1e6])
def test_two_outliers_of_a_half_take_the_square_root(norm):
    """The golden ratio times it, by the six couplings of the proof."""
    s = norm**0.5
    p = (np.sqrt(5 * s * s + 4) - s - 2 / s) / 2
    xi, alpha = np.sqrt(p / s), np.sqrt(p * s)
    a, x = -alpha / norm * (1 / s + p + s), -xi / norm * (1 + s * (p + s))
    blocks, factors = (a, xi, alpha, xi, alpha, x), []
    for position, (block, g) in enumerate(zip(blocks, (1, 1 / s, s, 1 / s, s, 1), strict=True)):
        factor = np.diag([g, g, 1.0, 1.0] if position % 2 else [1.0, 1.0, g, g])
        factor[(1, 2) if position % 2 else (2, 1)] = block
        factors.append(factor)
    built = np.linalg.multi_dot(factors)
    np.testing.assert_allclose(built, np.diag([1 / norm, norm, 1 / norm, norm]), atol=1e-12 * norm)
    worst = max(map(np.linalg.cond, factors))
    assert (norm**2 / 2 - norm) ** 0.25 <= worst <= (1 + 5**0.5) / 2 * s


def test_additive_couplings_are_not_bounded_by_the_cube_root():
    """Exponent 3/8 of the condition number for eight features, whatever the order."""
    for t in (1e3, 1e6):
        T = np.diag([1.0, 1, 1, 1 / t, 1, 1, 1, 1 / t])
        assert additive_lower_bound(T, 6) == pytest.approx(t ** (3 / 8))
    one = np.diag([1.0, 1, 1, 1e-6])  # in one order only
    back = np.linalg.inv(one * 1e6**0.25)
    assert np.linalg.norm(back[2:, 2:], 2) ** 0.5 == pytest.approx(1e6 ** (3 / 8))
    assert additive_lower_bound(one, 6) < 10


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.zeros((4, 4)), "invertible"), (np.eye(3), "of even size, got 3"), ([1.0], "square")],
)
@pytest.mark.parametrize("bound", [scaled_lower_bound, additive_lower_bound, outlier_lower_bound])
def test_what_has_no_bound_is_refused(bound, matrix, message):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=message):
        bound(matrix, 6)


@pytest.mark.parametrize("count", [2, 5])
def test_additive_couplings_are_counted_in_pairs(count):
    """Four and more."""
    with pytest.raises(ArgumentError, match="'couplings' should be even and at least 4"):
        additive_lower_bound(np.eye(4), count)
