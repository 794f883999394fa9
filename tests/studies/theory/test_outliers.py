"""Theorems 6 and 7 of the page on conditioning: their constants in fractions and intervals."""

from fractions import Fraction

import numpy as np
import pytest
from mpmath import iv

from kappaflow.errors import ArgumentError
from kappaflow_studies.theory import outlier_lower_bound, scaled_lower_bound
from kappaflow_studies.theory.conditioning import ordered_outlier_bounds
from studies.theory.exact import (
    LEFT,
    RIGHT,
    at_least,
    condition,
    coupling,
    drawn,
    eye,
    interval,
    norm,
    product,
    root,
    smallest,
)

SIZES = [Fraction(10) ** i for i in range(-4, 5)]
PRODUCTS = [
    pytest.param(8, id="few"),
    pytest.param(350, id="many", marks=pytest.mark.slow),  # for each of three lengths
]


@pytest.fixture(autouse=True)
def _precise():
    """Intervals of 60 digits."""
    before, iv.dps = iv.dps, 60
    yield
    iv.dps = before


def extreme_couplings(count):
    """Returns blocks and scales that attain the powers of K = 10^9 in both theorems."""
    large, small = Fraction(10) ** 9, Fraction(1, 10**9)
    blocks = [np.diag([Fraction(0), (Fraction(1), large)[i % 2 == 0]]) for i in range(count)]
    return blocks, [(small, large)[i % 2 == 0] for i in range(count)]


def instances(count, number):
    """Yields factors, their inverses in reverse, scales with product 1, and the largest k."""
    generator = np.random.default_rng(count)
    for instance in range(number):
        scales = [SIZES[i] for i in generator.integers(9, size=count - 1)]
        scales.append(1 / Fraction(np.prod(scales)))
        whole = generator.integers(-2, 3, (count, 2, 2)).tolist()
        blocks = [
            SIZES[generator.integers(9)] * np.array([[Fraction(x) for x in row] for row in block])
            for block in whole
        ]
        if instance == 0:
            blocks, scales = extreme_couplings(count)
        both = list(zip(blocks, scales, strict=True))
        pairs = [coupling(i % 2 == 0, *pair) for i, pair in enumerate(both)]
        k = max((condition(*pair) for pair in both), key=lambda k: k.a)
        yield [pair[0] for pair in pairs], [pair[1] for pair in pairs][::-1], scales, k


@pytest.mark.parametrize("number", PRODUCTS)
@pytest.mark.parametrize("count", [4, 6, 8])
def test_theorems_1_and_2_hold_for_products_of_fractions(count, number):
    """With scales for the norms of T and its inverse, without for two of their blocks.

    Shears by turns attain the first.
    """
    generator = np.random.default_rng(count)
    for factors, back, _, k in instances(count, number):
        for matrix in (product(factors), product(back)):
            assert interval(at_least(matrix)).a <= (k**count).b
        blocks = [drawn(generator, 2, 2, zeros=0.3) for _ in range(count)]
        pairs = [coupling(i % 2 == 0, block, Fraction(1)) for i, block in enumerate(blocks)]
        k = max((condition(block, Fraction(1)) for block in blocks), key=lambda k: k.a)
        T, back = product([pair[0] for pair in pairs]), product([pair[1] for pair in pairs][::-1])
        for block in (T[LEFT, LEFT], back[RIGHT, RIGHT]):
            assert norm(block).a <= (iv.sqrt(k) ** (count - 2)).b
    x = Fraction(int(generator.integers(1, 9))) * eye(2)
    shears = product([coupling(i % 2 == 0, x, Fraction(1))[0] for i in range(count)])
    assert interval(at_least(shears)) > condition(x, Fraction(1)) ** count * (1 - iv.mpf("1e-9"))


def check_bounds(bounds, *, attained):
    """Checks norms and their bounds; attained are those that the root of K would exceed."""
    for size, bound in bounds:
        assert size.a <= bound.b
        assert not attained or (bound < size * 10**4.5)


@pytest.mark.parametrize("number", PRODUCTS)
@pytest.mark.parametrize("count", [4, 6, 8])
def test_theorem_6_holds_for_products_of_fractions(count, number):
    """Both inequalities for T and its inverse; the first product attains all of them."""
    for instance, (factors, back, _, k) in enumerate(instances(count, number)):
        for matrix, half in ((product(factors), LEFT), (product(back), RIGHT)):
            rows, columns, block = matrix[half], matrix[:, half], matrix[half, half]
            least = smallest(rows) * smallest(columns)
            bounds = [(norm(part), smallest(part) * k ** (count - 1)) for part in (rows, columns)]
            bounds.append((norm(block), least * iv.sqrt(k) ** (3 * count - 4)))
            check_bounds(bounds, attained=instance == 0)


@pytest.mark.parametrize("number", PRODUCTS)
@pytest.mark.parametrize("count", [4, 6, 8])
def test_the_table_in_the_proof_of_theorem_7_holds_for_products_of_fractions(count, number):
    """T11, and the blocks of the product without its outer couplings, and of its inverse."""
    for instance, (factors, back, g, k) in enumerate(instances(count, number)):
        second, second_last, middle = g[1], g[-2], Fraction(np.prod(g[2:-2]))
        T, V, W = product(factors), product(factors[1:-1]), product(back[1:-1])
        half = iv.sqrt(k)
        bounds = (
            (T[LEFT, LEFT], root(g[-1] / g[0]), count - 2),
            (V[LEFT, RIGHT], interval(second_last) * root(second * middle), count - 3),
            (V[RIGHT, LEFT], root(second_last * middle), count - 3),
            (V[RIGHT, RIGHT], interval(second_last) * root(middle), count - 4),
            (W[LEFT, RIGHT], 1 / root(second * middle), count - 3),
            (W[RIGHT, LEFT], 1 / (interval(second) * root(second_last * middle)), count - 3),
            (W[LEFT, LEFT], 1 / (interval(second) * root(middle)), count - 4),
        )
        check_bounds(
            [(norm(block), scale * half**power) for block, scale, power in bounds],
            attained=instance == 0,
        )


@pytest.mark.parametrize("number", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_one_of_the_three_cases_of_theorem_7_holds_for_any_outer_couplings(number):
    """The blocks are those of the table, and their products as large as the proof says."""
    generator, cases = np.random.default_rng(7), set()
    for _ in range(number):
        tau = Fraction(int(generator.integers(5, 400)), int(generator.integers(1, 3)))
        g1, gm = (SIZES[i] for i in generator.integers(2, 7, 2))
        A, X = (
            np.array([
                [Fraction(int(x), 7) for x in row] for row in generator.integers(-9, 9, (2, 2))
            ])
            for _ in range(2)
        )
        extreme = generator.integers(3)
        if extreme == 1:  # large blocks, of which an entry may cancel
            X[1, 1] = -gm / A[1, 1] if A[1, 1] else gm
            X[0, 0] = -gm / A[0, 0] if A[0, 0] else gm
        elif extreme == 2:  # the smallest entries in the last case
            a, zero = Fraction(round(float(tau) ** 0.5)), Fraction(0)
            A = np.array([[zero, zero], [a, Fraction(1)]])
            X = -gm * np.array([[zero, tau / a * Fraction(9, 10)], [zero, Fraction(99, 200)]])
        D = np.array([[1 / tau, Fraction(0)], [Fraction(0), tau]])
        inverse_D = D[::-1, ::-1]
        T, back = (np.kron(np.array([[1, 0], [0, 1]]), block) for block in (D, inverse_D))
        (first, undo_first), (last, undo_last) = coupling(True, A, g1), coupling(False, X, gm)
        V, W = undo_first @ T @ undo_last, last @ back @ first
        assert (V[LEFT, RIGHT] == -D @ X / gm).all() and (V[RIGHT, LEFT] == -A @ D / g1 / gm).all()
        assert (V[RIGHT, RIGHT] == (D + A @ D @ X / gm) / g1).all()
        assert (W[LEFT, RIGHT] == g1 * X @ inverse_D).all() and (
            W[RIGHT, LEFT] == inverse_D @ A
        ).all()
        assert (W[LEFT, LEFT] == gm * inverse_D + X @ inverse_D @ A).all()
        rest = norm(A) * norm(X) / interval(gm * tau)
        if abs(A[1, 1] * X[1, 1]) >= gm / 2:
            cases.add("second")
            size, least = norm(V[LEFT, RIGHT]) * norm(V[RIGHT, LEFT]), tau**2 / (2 * g1 * gm)
        elif abs(A[0, 0] * X[0, 0]) >= gm / 2:
            cases.add("first")
            size, least = norm(W[LEFT, RIGHT]) * norm(W[RIGHT, LEFT]), g1 * gm * tau**2 / 2
        elif rest.b <= 1:
            cases.add("neither")
            assert V[3, 3] >= (tau / 2 - 1) / g1 and W[0, 0] >= gm * (tau / 2 - 1)
            continue
        else:
            continue
        assert size.b >= interval(least).a
    assert len(cases) == 3


def test_the_six_couplings_of_theorem_7_have_their_product_and_their_condition_numbers():
    """1,000 roots s of tau at which p is a fraction, from sqrt 5 on; in units that make xi 1."""
    golden, eye = (
        (1 + iv.sqrt(5)) / 2,
        np.array([[Fraction(i == j) for j in (0, 1)] for i in (0, 1)]),
    )
    for step in range(1000):
        q = Fraction(2236, 1000) - Fraction(1, 2) * Fraction(1000 - step, 1000) ** 6
        s = 4 * q / (5 - q * q)  # then 5 s^2 + 4 is the square of 2 + q s
        assert s * s >= 5
        p, built = (q * s - s - 2 / s + 2) / 2, eye
        outer = -(1 / s + p + s) / s**2
        for (a, g), (x, h) in (
            ((p * outer, 1), (1, 1 / s)),
            ((p, s), (1, 1 / s)),
            ((p, s), (s * outer, 1)),
        ):
            built = built @ np.array([[1, 0], [a, g]]) @ np.array([[h, x], [0, 1]])
        assert (built == np.diag([s * s, 1 / s**2])).all()
        inner, most = s + 1 / s + p, golden * interval(s)  # kappa + 1 / kappa of the inner four
        assert interval(inner) < most + 1 / most
        assert 2 + p * s * outer**2 < Fraction(34, 10) + Fraction(10, 34)  # of the outer two
        assert most > iv.mpf("3.4")


@pytest.mark.parametrize("lower_first", [True, False])
@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_no_product_of_couplings_beats_the_bound_for_outliers(count, lower_first):
    """In each order; two couplings attain nine tenths of it, in logarithms."""
    generator, shares = np.random.default_rng(count), []
    for _ in range(300):
        factors = []
        for position in range(count):
            factor = np.eye(4)
            own, kept = (RIGHT, LEFT) if (position % 2 == 0) == lower_first else (LEFT, RIGHT)
            factor[own, kept] = np.exp(generator.normal(0, 2)) * generator.standard_normal((2, 2))
            factor[own, own] *= np.exp(generator.normal())
            factors.append(factor)
        worst = np.log(max(map(np.linalg.cond, factors)))
        bounds = ordered_outlier_bounds(np.linalg.multi_dot(factors), count)
        shares.append(np.log(bounds[not lower_first]) / worst)
    assert max(shares) <= 1 + 1e-9
    assert max(shares) > {2: 0.9, 3: 0.5}.get(count, 0.25)


def test_two_outliers_of_a_half_exceed_the_cube_root_in_either_order():
    """The power 6 / (3m - 4) for even m of diag(1/t, t, 1/t, t), more than 2 / m."""
    t = 1e5
    T = np.diag([1 / t, t, 1 / t, t])
    for count in (4, 6, 8):
        assert outlier_lower_bound(T, count) == pytest.approx(t ** (6 / (3 * count - 4)))
        assert scaled_lower_bound(T, count) == pytest.approx(t ** (2 / count))
    assert outlier_lower_bound(T, 7) == pytest.approx(t ** (1 / 3))  # the shared block is zero
    one_half = np.diag([1 / t, t, 1, 1])
    assert ordered_outlier_bounds(one_half)[1] == pytest.approx(t ** (3 / 7))  # of the inverse
    with pytest.raises(ArgumentError, match="'couplings' should be at least 2, got 1"):
        outlier_lower_bound(T, 1)
