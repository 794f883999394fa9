"""The theorems of the paper on couplings, in fractions, their formulas written out again."""

from fractions import Fraction

import numpy as np
import pytest
from mpmath import iv

from kappaflow_studies.theory import (
    ROTATION_BLOCK_NORMS,
    positive_definite_bound,
    rotation_bound,
)
from kappaflow_studies.theory.exact import determinant, reduced_rows
from studies.theory.exact import (
    at_least,
    condition,
    drawn,
    exact,
    extreme_squares,
    eye,
    interval,
    inverse,
    product,
)

NUMBERS = [40, pytest.param(1000, marks=pytest.mark.slow)]  # of instances
MIRROR, TINY = exact([[1, 0], [0, -1]]), Fraction(1, 10**12)


def unit(block, *, lower):
    """Returns a coupling with unit diagonals."""
    changed, kept = block.shape
    M, own, other = eye(changed + kept), slice(kept, None), slice(kept)
    if not lower:
        own, other = slice(changed), slice(changed, None)
    M[own, other] = block
    return M


def product_of(blocks):
    """Returns L U L U L U."""
    return product([unit(block, lower=i % 2 == 0) for i, block in enumerate(blocks)])


def quarters(T):
    """Returns P, Q, R, S."""
    d = len(T) // 2
    return T[:d, :d], T[:d, d:], T[d:, :d], T[d:, d:]


def six_blocks(T, X, K, Z):
    """Returns A1, X1, A2, X2, A3, X3 of Theorem 2.1."""
    P, Q, R, S = quarters(T)
    Q1, S1 = P @ X + Q, R @ X + S
    A3, X1 = inverse(Q1) @ (P - K), inverse(Z) @ Q1
    A2 = inverse(X1) @ (K - eye(len(K)))
    return (R - S1 @ A3 - A2) @ inverse(K), X1, A2, inverse(K) @ (Q1 - X1), A3, -X


def equation(T, X, K, Z):
    """Returns both sides of the equation of Theorem 2.1."""
    P, Q, _, _ = quarters(T)
    _, Qh, _, Sh = quarters(inverse(T))
    return K @ (X @ Sh - Qh), Z @ K @ inverse(Z) @ (P @ X + Q)


def equal(a, b):
    """Returns whether matrices of fractions are equal."""
    return bool((a == b).all())


@pytest.mark.parametrize("number", NUMBERS)
def test_singular_values_of_a_coupling_come_in_the_pairs_of_lemma_1(number):
    """det(x - M M^T) is that of pairs with sum 1 + a^2 + g^2 and product g^2, for any shape.

    The larger a, the farther apart are the two, and kappa is at most (a + 1)^2 for g = 1.
    """
    rng = np.random.default_rng(0)
    for _ in range(number):
        d, e = rng.integers(1, 4, 2)
        A, (g, x) = drawn(rng, e, d, zeros=0.2), drawn(rng, 2) + 5
        M = unit(A, lower=True)
        M[d:, d:] *= g
        gram = A.T @ A if d <= e else A @ A.T
        pairs = determinant((x - 1) * (x - g * g) * eye(min(d, e)) - x * gram)
        others = (x - 1) ** max(d - e, 0) * (x - g * g) ** max(e - d, 0)
        assert determinant(x * eye(d + e) - M @ M.T) == pairs * others
        w = abs(A[0, 0])
        kappa = condition(exact([[w, 0], [0, 0]]), Fraction(1))
        assert kappa < interval((w + 1) ** 2 + TINY)


def solution(rng, d):
    """Returns six blocks with the product T, and T, X, K and Z of Theorem 2.1."""
    while True:
        blocks = [drawn(rng, d, d, zeros=0.4) for _ in range(6)]
        T, X, K = product_of(blocks), -blocks[5], eye(d) + blocks[1] @ blocks[2]
        Q1 = (T @ unit(X, lower=False))[:d, d:]
        if all(inverse(M) is not None for M in (blocks[1], K, Q1)):
            return blocks, T, X, K, Q1 @ inverse(blocks[1])


@pytest.mark.parametrize("number", NUMBERS)
def test_six_couplings_are_the_solutions_of_one_equation(number):
    """Theorem 2.1: they satisfy it and come back; for another K both hold or both fail."""
    rng, failures = np.random.default_rng(1), 0
    for _ in range(number):
        d = int(rng.integers(1, 3))
        blocks, T, X, K, Z = solution(rng, d)
        left, right = equation(T, X, K, Z)
        assert equal(left, right)
        assert all(map(equal, six_blocks(T, X, K, Z), blocks))
        P, Q, _, _ = quarters(T)
        Q1, Sh = P @ X + Q, quarters(inverse(T))[3]
        N = inverse(K) @ left @ inverse(Q1)
        assert determinant(N) == 1
        assert inverse(P) is None or equal(N, inverse(P) @ Q1 @ Sh @ inverse(Q1))
        other = K + drawn(rng, d, d, zeros=0.5)
        if inverse(other) is not None:
            solves = equal(*equation(T, X, other, Z))
            assert solves == equal(product_of(six_blocks(T, X, other, Z)), T)
            failures += not solves
    assert failures > number / 8


@pytest.mark.parametrize("number", NUMBERS)
def test_some_last_coupling_makes_the_corner_invertible(number):
    """Theorem 2.2: however singular Q is, P X + Q is invertible for some X."""
    rng, singular = np.random.default_rng(2), 0
    for _ in range(number):
        d = int(rng.integers(1, 4))
        T = product_of([drawn(rng, d, d, zeros=0.7) for _ in range(6)])
        T = T @ np.kron(exact([[0, -1], [1, 0]]), eye(d)) if rng.integers(2) else T
        P, Q, _, _ = quarters(T)
        singular += determinant(Q) == 0
        assert any(determinant(P @ drawn(rng, d, d) + Q) != 0 for _ in range(50))
    assert singular > number / 10


def turn(t):
    """Returns the rotation by twice the arc tangent of t."""
    return exact([[1 - t * t, -2 * t], [2 * t, 1 - t * t]]) / (1 + t * t)


def rotations(number):
    """Yields T in SO(4), and X, K and Z of Theorem 2.3, all of fractions."""
    rng = np.random.default_rng(3)
    for instance in range(number):
        a, b, e, half = (Fraction(int(t), 12) for t in rng.integers(-12, 13, 4))
        angles = [Fraction(int(t), 12) for t in rng.integers(0, 13, 2)]
        if instance % 4 == 0:  # diag(-O^T, O), for which the constant is sharp
            half, angles = Fraction(1), [Fraction(0)] * 2
        c, s = (np.diag([turn(t)[row, 0] for t in angles]) for row in (0, 1))
        mirror = MIRROR if instance % 3 == 1 else eye(2)
        U1, U2, V1 = turn(a) @ mirror, turn(e), turn(b)
        V2 = turn(half) @ turn(half) @ turn(a) @ turn(e) @ turn(-b) @ mirror
        T = np.block([[U1 @ c @ V1.T, -U1 @ s @ V2.T], [U2 @ s @ V1.T, U2 @ c @ V2.T]])
        X = -V1 @ c @ inverse(eye(2) + s) @ V2.T
        yield T, X, turn(-half), MIRROR if half else eye(2)


SCALES = [Fraction(*pair) for pair in ((17, 5), (7, 2), (1, 2), (2, 5), (10, 17), (5, 7))]


@pytest.mark.parametrize("number", NUMBERS)
def test_rotations_have_the_bounds_of_both_theorems(number):
    """Theorems 2.3 and 2.5: the product, the norms of blocks, 13.6, and 6.98 with scales."""
    squares = [6 + 4 * iv.sqrt(2), *map(iv.mpf, (1, 2, 4, 4, 1))]
    plain, scaled = [], []
    for T, X, K, Z in rotations(number):
        assert equal(T @ T.T, eye(4)) and determinant(T) == 1
        blocks, sides = six_blocks(T, X, K, Z), [Fraction(1), Fraction(1)]  # alpha, beta
        assert equal(product_of(blocks), T)
        for position, (block, square) in enumerate(zip(blocks, squares, strict=True)):
            assert extreme_squares(block)[0].a <= square.b
            changed = 1 - position % 2  # L changes beta
            plain.append(condition(block, Fraction(1)).b)
            block = block * sides[1 - changed] / sides[changed]
            scaled.append(condition(block, SCALES[position]).b)
            sides[changed] *= SCALES[position]
    assert 13.4 < max(plain) < rotation_bound() + 1e-12
    assert 6.9 < max(scaled) < 6.98


def test_the_scales_of_the_paper_bring_the_bound_to_6_98():
    """The scales of the paper, in fractions: no norm within its bound makes a coupling worse."""
    squares = [6 + 4 * Fraction(14143, 10000), 1, 2, 4, 4, 1]  # of the norms, sqrt 2 rounded up
    np.testing.assert_array_less(np.square(ROTATION_BLOCK_NORMS), np.array(squares, float) + 1e-9)
    bound = Fraction(698, 100)
    sides = [Fraction(1), Fraction(1)]  # alpha, beta
    for position, (square, scale) in enumerate(zip(squares, SCALES, strict=True)):
        changed = 1 - position % 2  # L changes beta
        ratio = sides[1 - changed] / sides[changed]
        assert scale + 1 / scale + square * ratio**2 / scale < bound + 1 / bound
        sides[changed] *= scale
    assert sides == [1, 1]
    alone = 2 + 2**0.5 + (1 + (2 + 2**0.5) ** 2) ** 0.5
    assert 6.971 < alone < bound


@pytest.mark.parametrize("number", NUMBERS)
def test_the_couplings_next_to_the_singular_values_merge(number):
    """Corollary 2.6: U(X) S U(Y) L(A) is an upper and a lower coupling."""
    rng = np.random.default_rng(4)
    for _ in range(number):
        d = int(rng.integers(1, 4))
        X, Y, A = (drawn(rng, d, d, zeros=0.3) for _ in range(3))
        first, second = (np.diag(abs(drawn(rng, d)) + Fraction(1, 9)) for _ in range(2))
        sigma = np.kron(exact([[1, 0], [0, 0]]), first) + np.kron(exact([[0, 0], [0, 1]]), second)
        upper, lower = unit(X + first @ Y @ inverse(second), lower=False), unit(A, lower=True)
        upper[:d, :d], lower[d:, :d], lower[d:, d:] = first, second @ A, second
        both = (unit(X, lower=False), sigma, unit(Y, lower=False), unit(A, lower=True))
        assert equal(upper @ lower, product(both))


def letters(rng, d, e, count, *, lower_first=True):
    """Returns blocks of couplings for parts of d and e features, and whether each is lower."""
    kinds = [(i % 2 == 0) == lower_first for i in range(count)]
    return [(drawn(rng, *((e, d) if lower else (d, e)), zeros=0.2), lower) for lower in kinds]


def multiplied(size, pairs, *, back=False):
    """Returns the product of couplings, or its inverse."""
    factors = [unit(-block if back else block, lower=lower) for block, lower in pairs]
    return product([eye(size), *(factors[::-1] if back else factors)])


def corners(T, d, before, after):
    """Returns both sides of equation (6), added, and M."""
    size = len(T)
    M = multiplied(size, before, back=True) @ T @ multiplied(size, after, back=True)
    other = multiplied(size, after) @ inverse(T) @ multiplied(size, before)
    return M[:d, d:] + other[:d, d:], M


def middle(M, d):
    """Returns L U L of Lemma 3.1; None where it makes no statement."""
    X, back = M[:d, d:], inverse(M)
    if (
        inverse(X @ X.T) is None
        or 2 * d < len(M)
        and (inverse(M[:d, :d]) is None or inverse(back[:d, :d]) is None)
    ):
        return None
    right = X.T @ inverse(X @ X.T)
    first, last = ((N[d:, d:] - eye(len(M) - d)) @ right for N in (M, back))
    return product([unit(first, lower=True), unit(X, lower=False), unit(last, lower=True)])


@pytest.mark.parametrize("number", NUMBERS)
def test_any_number_of_couplings_solves_an_equation_without_inverses(number):
    """Lemma 3.1 and Theorem 3.2: the equation, the three couplings back, and degree one.

    For another map of determinant 1 both fail.
    """
    rng, returned = np.random.default_rng(5), 0
    for _ in range(number):
        d, e = ((1, 1), (1, 2), (2, 2), (2, 3))[int(rng.integers(4))]
        ends = rng.integers(0, 3, 2)
        before = letters(rng, d, e, int(ends[0]), lower_first=ends[0] % 2 == 0)
        after = letters(rng, d, e, int(ends[1]), lower_first=False)
        T = multiplied(d + e, [*before, *letters(rng, d, e, 3), *after])
        total, M = corners(T, d, before, after)
        assert not total.any()
        built = middle(M, d)
        returned += built is not None
        assert built is None or equal(built, M)
        other = T @ multiplied(d + e, letters(rng, d, e, 2))
        total, M = corners(other, d, before, after)
        built = middle(M, d)
        assert built is None or equal(built, M) == (not total.any())
        if before:  # in its last block
            block, lower = before[-1]
            at = [
                corners(other, d, [*before[:-1], (factor * block, lower)], after)[0]
                for factor in (0, 1, 2)
            ]
            assert equal(at[0] + at[2], 2 * at[1])
    assert returned > number / 2


def cayley(rng, d):
    """Returns a rotation of d features."""
    A = drawn(rng, d, d)
    return (eye(d) - A + A.T) @ inverse(eye(d) + A - A.T)


def positive_definite(rng, d, *, extreme):
    """Returns T, X, K and Z of Theorem 4.4, with spectra of any shape, or two opposite ones."""
    V, Y, Q = cayley(rng, d), cayley(rng, d), drawn(rng, d, d, zeros=0.3)
    p, h = ([Fraction(int(x), int(y)) for x, y in rng.integers(1, 30, (d, 2))] for _ in "ph")
    h[-1] *= Fraction(np.prod(p)) / Fraction(np.prod(h))
    if extreme:
        p, Q = [Fraction(1, 30), *[Fraction(1)] * (d - 2), Fraction(30)][:d], 0 * Q
        h = p[::-1]
    P, inner = V @ np.diag(p) @ V.T, Y @ np.diag(h) @ Y.T
    T = np.block([[P, Q], [Q.T, inverse(inner) + Q.T @ inverse(P) @ Q]])
    ratios = [a / b for a, b in zip(h, p, strict=True)]
    left, order, total, k = sorted(range(d), key=ratios.__getitem__), [], Fraction(1), {}
    while left:
        order.append(left.pop(0 if total > 1 else -1))
        k[order[-1]] = total
        total *= ratios[order[-1]]
    cycle = eye(d) * 0
    cycle[order, np.roll(order, -1)] = Fraction(1)
    K = V @ np.diag([k[i] for i in range(d)]) @ V.T
    return T, inverse(P) @ (V @ Y.T - Q), K, V @ cycle @ V.T


@pytest.mark.parametrize("number", NUMBERS)
def test_positive_definite_maps_have_the_blocks_of_the_theorem(number):
    """Theorem 4.4: the product, each norm within its power of tau, and the bound."""
    rng, nearest = np.random.default_rng(6), 0.0
    for instance in range(number):
        d = int(rng.integers(1, 4))
        T, X, K, Z = positive_definite(rng, d, extreme=instance % 5 == 0)
        assert determinant(T) == 1
        blocks = six_blocks(T, X, K, Z)
        assert equal(product_of(blocks), T)
        square = max(at_least(T), at_least(inverse(T))) * (1 + TINY)  # tau^2, from below
        root = Fraction(float(square) ** 0.5 * (1 + 1e-12))
        limit = positive_definite_bound(T.astype(float)) * (1 + 1e-9)
        most = (2 * square + 2 * root, 1, square, 2 * square, square, 2 * root)
        for block, bound in zip(blocks, most, strict=True):
            assert at_least(block) <= bound**2 * (1 + TINY)
            cost = 2 + float(at_least(block))  # kappa + 1 / kappa
            assert cost + (cost**2 - 4) ** 0.5 <= 2 * limit
        nearest = max(nearest, float(at_least(blocks[2]) / most[2] ** 2))
    assert nearest > 0.9


@pytest.mark.parametrize("number", NUMBERS)
def test_the_traces_near_a_map_have_independent_derivatives(number):
    """Lemma 4.5: where each column of L but the last has an entry below its diagonal."""
    rng = np.random.default_rng(7)
    for instance in range(number):
        d = 2 + instance % 3
        L, U = eye(d), eye(d) + np.triu(drawn(rng, d, d, zeros=0.5), 1)
        for column in range(d - 1):
            L[int(rng.integers(column + 1, d)), column] = Fraction(int(rng.integers(1, 5)))
        D = np.diag(exact(rng.permutation(np.arange(1, d + 1)).tolist()))
        for N, expected in ((L @ U, d - 1), (eye(d), None)):
            K, rows = D @ (inverse(L) if expected else eye(d)), []
            powers = [eye(d), eye(d)]  # of K N and of K
            for _ in range(d - 1):
                rows.append((N @ powers[0] - powers[1]).ravel())
                powers = [powers[0] @ K @ N, powers[1] @ K]
            rank = len(reduced_rows(np.array(rows), d * d)[1])
            assert rank == expected if expected else rank < d - 1


def scaled_two_block(s, first, second):
    """Returns the largest condition number in the proof of Theorem 4.3 for two features."""
    turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in (first, second)]
    (P, Q), (R, S) = turns[0] @ np.diag([s, 1 / s]) @ turns[1]
    k, corner = s ** (1 / 3), s ** (2 / 3)
    X = (corner - Q) / P
    A3, X1 = (P - k) / corner, corner / k**0.5
    A2, S1 = (k - 1) / X1, R * X + S
    blocks = ((R - S1 * A3 - A2) / k, X1, A2, (corner - X1) / k, A3, -X)
    sides, worst = [1.0, 1.0], 1.0
    for position, (block, g) in enumerate(zip(blocks, (1 / k, 1, 1, 1 / k, k, k), strict=True)):
        changed = 1 - position % 2
        cost = g + 1 / g + (block * sides[1 - changed] / sides[changed]) ** 2 / g
        sides[changed] *= g
        worst = max(worst, (cost + (cost * cost - 4) ** 0.5) / 2)
    assert sides == pytest.approx([1, 1])
    return worst


def test_two_block_spectra_keep_to_the_cube_root():
    """Theorem 4.3: 1,000 pairs of rotations with cosines from 0.3 on, norms from 10 to 1e6."""
    rng, ratios = np.random.default_rng(8), []
    for _ in range(1000):
        s, signs = 10 ** rng.uniform(1, 6), rng.choice([-1, 1], 2)
        first, second = signs * rng.uniform(0, np.arccos(0.3), 2)
        ratios.append(scaled_two_block(s, first, second) / s ** (1 / 3))
    assert 1 <= min(ratios) and max(ratios) < 40
