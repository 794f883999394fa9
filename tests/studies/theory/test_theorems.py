"""Theorems A, B, C and E as the documentation states them, their formulas written out again."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.linalg import cossin, qr, schur

from kappaflow_studies.theory import ROTATION_BLOCK_NORMS, rotation_bound

I2 = np.eye(2)
QUARTER = np.array([[0.0, 1.0], [-1.0, 0.0]])
MIRROR = np.diag([1.0, -1.0])


def lower(block):
    """Returns L with unit diagonals."""
    eye = np.eye(len(block))
    return np.block([[eye, np.zeros_like(eye)], [block, eye]])


def upper(block):
    """Returns U with unit diagonals."""
    return lower(block.T).T


def quarters(T):
    """Returns P, Q, R, S."""
    d = len(T) // 2
    return T[:d, :d], T[:d, d:], T[d:, :d], T[d:, d:]


def six_blocks(T, X, K, Z):
    """Returns A1, X1, A2, X2, A3, X3 as in the proof of Theorem B."""
    P, Q, R, S = quarters(T)
    Q1, S1 = P @ X + Q, R @ X + S
    A3 = np.linalg.solve(Q1, P - K)
    X1 = np.linalg.solve(Z, Q1)
    A2 = np.linalg.solve(X1, K - np.eye(len(K)))
    A1 = np.linalg.solve(K.T, (R - S1 @ A3 - A2).T).T
    return A1, X1, A2, np.linalg.solve(K, Q1 - X1), A3, -X


def couplings_of(blocks):
    """Returns L U L U L U."""
    return [(lower, upper)[i % 2](block) for i, block in enumerate(blocks)]


def equation(T, X, K, Z):
    """Returns both sides of Theorem C."""
    P, Q, _, _ = quarters(T)
    _, Qh, _, Sh = quarters(np.linalg.inv(T))
    return K @ (X @ Sh - Qh), Z @ K @ np.linalg.inv(Z) @ (P @ X + Q)


def commutator(N):
    """Returns K and Z with N = K^-1 Z K Z^-1, for a rotation N."""
    block, basis = schur(N, output="real")
    K, Z = np.eye(len(N)), np.eye(len(N))
    minus = [i for i in range(len(N)) if is_alone(block, i) and block[i, i] < 0]
    planes = [[i, i + 1] for i in range(len(N) - 1) if abs(block[i + 1, i]) > 1e-9]
    for pair in planes + [minus[i : i + 2] for i in range(0, len(minus), 2)]:
        inside = block[np.ix_(pair, pair)] if pair in planes else -I2
        half = np.arctan2(inside[1, 0], inside[0, 0]) / 2
        K[np.ix_(pair, pair)] = [[np.cos(half), np.sin(half)], [-np.sin(half), np.cos(half)]]
        Z[np.ix_(pair, pair)] = MIRROR
    return basis @ K @ basis.T, basis @ Z @ basis.T


def is_alone(block, i):
    """Returns whether a real Schur form has an eigenvalue by itself there."""
    n = len(block)
    return not (i and abs(block[i, i - 1]) > 1e-9 or i < n - 1 and abs(block[i + 1, i]) > 1e-9)


def rotation_solution(T):
    """Returns X, K, Z of Theorem B."""
    d = len(T) // 2
    (U1, U2), angle, (V1t, V2t) = cossin(T, p=d, q=d, separate=True)
    c, s = np.cos(angle), np.sin(angle)
    X = -V1t.T @ np.diag(c / (1 + s)) @ V2t
    N = V1t.T @ U2.T @ V2t.T @ U1.T
    return X, *commutator(N)


def rotations(n, count):
    """Returns Haar rotations, permutations, and block diagonal ones."""
    generator = np.random.default_rng(n)
    for i in range(count):
        T = qr(generator.standard_normal((n, n)))[0]
        if i % 3 == 1:
            T = np.eye(n)[generator.permutation(n)]
        if i % 3 == 2:
            halves = [qr(generator.standard_normal((n // 2, n // 2)))[0] for _ in range(2)]
            T = np.kron(MIRROR * [1, 0], halves[0]) + np.kron(np.diag([0, 1]), halves[1])
        yield T if np.linalg.det(T) > 0 else np.vstack((-T[:1], T[1:]))


@pytest.mark.parametrize("n", [2, 4, 6, 10, 16])
def test_theorem_b_holds_for_rotations_of_all_kinds(n):
    """The product is T, and no block is larger than the theorem says."""
    for T in rotations(n, 60):
        blocks = six_blocks(T, *rotation_solution(T))
        couplings = couplings_of(blocks)
        np.testing.assert_allclose(np.linalg.multi_dot(couplings), T, atol=1e-12)
        for block, most in zip(blocks, ROTATION_BLOCK_NORMS, strict=True):
            assert np.linalg.norm(block, 2) <= most + 1e-9
        assert max(map(np.linalg.cond, couplings)) <= rotation_bound() + 1e-6


def test_the_bound_of_theorem_b_is_attained():
    """T = diag(-U', U), for the K and Z of the proof: there is no slack in 13.58."""
    M = QUARTER @ (I2 - MIRROR) + MIRROR
    left, values, right = np.linalg.svd(M)
    assert values[0] == pytest.approx(1 + 2**0.5)
    U = -left @ np.diag([1, np.linalg.det(left) * np.linalg.det(right)]) @ right
    T = np.kron(np.diag([1, 0]), -U.T) + np.kron(np.diag([0, 1]), U)
    blocks = six_blocks(T, U, QUARTER, MIRROR)
    couplings = couplings_of(blocks)
    np.testing.assert_allclose(np.linalg.multi_dot(couplings), T, atol=1e-14)
    assert np.linalg.norm(blocks[0], 2) == pytest.approx(2 + 2**0.5)
    assert np.linalg.cond(couplings[0]) == pytest.approx(rotation_bound())


def test_free_scales_bring_the_bound_to_6_98():
    """The scales of the paper, in fractions: no norm within its bound makes a coupling worse."""
    squares = [6 + 4 * Fraction(14143, 10000), 1, 2, 4, 4, 1]  # of the norms, sqrt 2 rounded up
    np.testing.assert_array_less(np.square(ROTATION_BLOCK_NORMS), np.array(squares, float) + 1e-9)
    scales = [Fraction(*pair) for pair in ((17, 5), (7, 2), (1, 2), (2, 5), (10, 17), (5, 7))]
    bound = Fraction(698, 100)
    sides = [Fraction(1), Fraction(1)]  # alpha, beta
    for position, (square, scale) in enumerate(zip(squares, scales, strict=True)):
        changed = 1 - position % 2  # L changes beta
        ratio = sides[1 - changed] / sides[changed]
        assert scale + 1 / scale + square * ratio**2 / scale < bound + 1 / bound
        sides[changed] *= scale
    assert sides == [1, 1]
    alone = 2 + 2**0.5 + (1 + (2 + 2**0.5) ** 2) ** 0.5
    assert 6.971 < alone < bound


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (2, 4), (3, 3)])
def test_the_condition_number_of_a_scaled_coupling_is_that_of_the_lemma(shape):
    """Kappa + 1/kappa = g + 1/g + w^2/g, for blocks of any shape and scales of any size."""
    generator = np.random.default_rng(shape[0])
    for scale in np.exp(generator.uniform(-3, 3, 20)):
        block = generator.standard_normal(shape)
        coupling = np.eye(sum(shape))
        coupling[shape[1] :, : shape[1]] = block
        coupling[shape[1] :, shape[1] :] *= scale
        kappa = np.linalg.cond(coupling)
        expected = scale + 1 / scale + np.linalg.norm(block, 2) ** 2 / scale
        assert kappa + 1 / kappa == pytest.approx(expected, rel=1e-10)


def letters(d, e, count, generator, *, lower_first=True):
    """Returns unit couplings for parts of d and e features, lower ones and upper ones in turn."""
    result = []
    for position in range(count):
        coupling = np.eye(d + e)
        if (position % 2 == 0) == lower_first:
            coupling[d:, :d] = generator.standard_normal((e, d))
        else:
            coupling[:d, d:] = generator.standard_normal((d, e))
        result.append(coupling)
    return result


def middle_blocks(M, d):
    """Returns L U L as the lemma before Theorem E has them."""
    X, H, eye = M[:d, d:], np.linalg.inv(M)[d:, d:], np.eye(len(M))
    right = np.linalg.pinv(X)
    first, second, third = eye.copy(), eye.copy(), eye.copy()
    first[d:, :d] = (M[d:, d:] - eye[d:, d:]) @ right
    second[:d, d:] = X
    third[d:, :d] = (H - eye[d:, d:]) @ right
    return first @ second @ third


def sum_of_corners(M, d):
    """Returns M12 + (M^-1)12."""
    return M[:d, d:] + np.linalg.inv(M)[:d, d:]


@pytest.mark.parametrize(("d", "e"), [(1, 1), (1, 2), (3, 3), (3, 4)])
@pytest.mark.parametrize(("before", "behind"), [(0, 0), (0, 1), (2, 1), (2, 2), (4, 3)])
def test_theorem_e_holds_for_every_word_around_the_three(d, e, before, behind):
    """Three to ten couplings, halves equal or one apart: the equation, and the three back."""
    generator = np.random.default_rng(10 * before + behind)
    one, three, other = (
        np.linalg.multi_dot([np.eye(d + e), np.eye(d + e), *result])
        for result in (
            letters(d, e, before, generator),
            letters(d, e, 3, generator),
            letters(d, e, behind, generator, lower_first=False),
        )
    )
    T = one @ three @ other
    M = np.linalg.inv(one) @ T @ np.linalg.inv(other)
    size = np.linalg.norm(one) * np.linalg.norm(T) * np.linalg.norm(other)
    assert abs(sum_of_corners(M, d)).max() < 1e-10 * size**2
    np.testing.assert_allclose(one @ middle_blocks(M, d) @ other, T, atol=1e-10 * size**2)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_theorem_c_holds_in_both_directions(d):
    """Six couplings satisfy the equation, which gives their blocks back; off it, T is missed."""
    generator = np.random.default_rng(d)
    blocks = [generator.standard_normal((d, d)) for _ in range(6)]
    T = np.linalg.multi_dot(couplings_of(blocks))
    X = -blocks[5]
    K = np.eye(d) + blocks[1] @ blocks[2]
    P, Q, _, _ = quarters(T)
    Z = (P @ X + Q) @ np.linalg.inv(blocks[1])
    left, right = equation(T, X, K, Z)
    np.testing.assert_allclose(left, right, atol=1e-9 * abs(left).max())
    for result, block in zip(six_blocks(T, X, K, Z), blocks, strict=True):
        np.testing.assert_allclose(result, block, atol=1e-8)
    off = np.linalg.multi_dot(couplings_of(six_blocks(T, X, K + 1e-3 * K.T, Z))) - T
    assert abs(off).max() > 1e-4 or d == 1  # numbers commute: one K is as good as another
