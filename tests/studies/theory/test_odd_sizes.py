"""Theorem F, step by step: six unit couplings for every map of odd size, five for almost every."""

import numpy as np
import pytest


def lower(a):
    """Returns the unit coupling L with the block A, (q, p)."""
    q, p = a.shape
    return np.block([[np.eye(p), np.zeros((p, q))], [a, np.eye(q)]])


def upper(x):
    """Returns the unit coupling U with the block X, (p, q)."""
    return lower(x.T).T


def factored(n, diagonal, rng):
    """Returns matrices B and C with B C = N whose eigenvalues are the pairs of numbers.

    Sourour's proof: in a suitable basis, N has the products of the pairs as pivots of its LU.
    """
    basis = pivots(n, [b * c for b, c in diagonal], rng)
    inside, left = np.linalg.solve(basis, n @ basis), np.eye(len(n))
    for i in range(len(n)):
        left[i + 1 :, i] = inside[i + 1 :, i] / inside[i, i]
        inside[i + 1 :] -= np.outer(left[i + 1 :, i], inside[i])
    first, second = (np.diag(numbers) for numbers in zip(*diagonal, strict=True))
    back = np.linalg.inv(basis)
    return basis @ left @ first @ back, basis @ np.linalg.inv(first) @ inside @ back


def pivots(n, expected, rng):
    """Returns a basis in which a matrix has these pivots, whose product is its determinant."""
    if len(n) == 1:
        return np.eye(1)
    first = rng.standard_normal(len(n))
    others = rng.standard_normal((len(n), len(n) - 2))
    basis = np.column_stack([first, n @ first - expected[0] * first, others])
    inside = np.linalg.solve(basis, n @ basis)
    rest = inside[1:, 1:] - np.outer(inside[1:, 0], inside[0, 1:]) / inside[0, 0]
    after = np.eye(len(n))
    after[1:, 1:] = pivots(rest, expected[1:], rng)
    return basis @ after


def four(m, d):
    """Returns L, U, L, U with product M, whose blocks M11 + (1) and (M^-1)22 are similar."""
    one, other = np.eye(d + 1), np.linalg.inv(m)[d:, d:]
    one[:d, :d] = m[:d, :d]
    values, vectors = np.linalg.eig(one)
    others, images = np.linalg.eig(other)
    order, places = np.argsort(values.real), np.argsort(others.real)
    np.testing.assert_allclose(values[order], others[places], rtol=1e-5, atol=1e-6)
    similar = (images[:, places] @ np.linalg.inv(vectors[:, order])).real
    x = np.linalg.inv(similar)[:d]
    a = similar[:, :d] @ (m[:d, :d] - np.eye(d))
    middle = upper(x) @ lower(a)
    left = (m[d:, :d] - middle[d:, :d]) @ np.linalg.inv(m[:d, :d])
    right = np.linalg.inv(m[:d, :d]) @ (m[:d, d:] - middle[:d, d:])
    return [lower(left), upper(x), lower(a), upper(right)]


def five(t, d, rng):
    """Returns L, U, L, U, L with product T, whose block Q has full rank."""
    inverse, places = np.linalg.inv(t), np.eye(2 * d + 1)
    # The coordinates of the second half are Q y and a random function of y.
    places[d:, d:] = np.linalg.inv(np.vstack([t[:d, d:], rng.standard_normal(d + 1)]))
    t, inverse = (np.linalg.solve(places, matrix @ places) for matrix in (t, inverse))
    q_hat, s_hat = inverse[:d, d:], inverse[d:, d:]
    n = -q_hat[:, :d]
    a = -s_hat[-1:, :d] @ np.linalg.inv(q_hat[:, :d])
    gamma = (s_hat[-1:] + a @ q_hat)[0, -1]
    assert np.linalg.det(n) * gamma == pytest.approx(1)
    a3 = np.vstack([t[:d, :d] - chosen(n, gamma, rng), a])
    found = four(t @ lower(-a3), d)
    return [places @ one @ np.linalg.inv(places) for one in (*found, lower(a3))]


def chosen(n, gamma, rng):
    """Returns K such that the eigenvalues of K and 1 are those of K N and gamma."""
    d, s = len(n), 1.3 * 1.7 ** np.arange(len(n))
    if np.allclose(n, np.eye(d)):  # then any K will do, and gamma is 1
        return np.diag(s)
    if np.allclose(n, n[0, 0] * np.eye(d)):
        return np.diag(gamma * n[0, 0] ** np.arange(d))
    pairs = [(1 / one, one) for one in s]
    if abs(gamma - 1) > 1e-6:
        pairs[0] = (1 / gamma, 1.0)
    return np.linalg.inv(factored(n, pairs, rng)[0])


def six(t, d, rng):
    """Returns L, U, L, U, L, U with product T."""
    x = rng.standard_normal((d, d + 1))
    return [*five(t @ upper(x), d, rng), upper(-x)]


def of_determinant(t, expected=1.0):
    """Returns a multiple of a matrix with one row negated if necessary."""
    t = t.copy()
    t[0] *= np.sign(np.linalg.det(t) * expected)
    return t * (expected / np.linalg.det(t)) ** (1 / len(t))


def gaussian(d, rng):
    """In general position."""
    return of_determinant(rng.standard_normal((2 * d + 1, 2 * d + 1)))


def block_diagonal(d, rng):
    """Q and R are zero, and S is a cyclic shift: six are needed if d is at least 2."""
    t = np.eye(2 * d + 1)
    t[d:, d:] = np.roll(np.eye(d + 1), 1, 0)
    return of_determinant(t)


def singular(d, rng):
    """P = 0, so that the lower right block of the inverse is singular too."""
    t = rng.standard_normal((2 * d + 1, 2 * d + 1))
    t[:d, :d] = 0
    return of_determinant(t)


def nilpotent(d, rng):
    """The lower right block of the inverse has the square zero."""
    t = np.zeros((2 * d + 1, 2 * d + 1))
    t[:d, d : 2 * d] = t[d + 1 :, :d] = np.eye(d)
    t[d, -1] = 1
    return of_determinant(np.linalg.inv(t))


def scalar(sigma):
    """Returns maps whose inverse has sigma I as its lower right block."""

    def of(d, rng):
        r = rng.standard_normal((2 * d + 1, 2 * d + 1))
        r[d:, d:] = sigma * np.eye(d + 1)
        corner = r[:d, d:] @ r[d:, :d] / sigma
        inner = of_determinant(rng.standard_normal((d, d)), sigma ** -(d + 1))
        r[:d, :d] = inner + corner
        return np.linalg.inv(r)

    return of


def both_scalar(d, rng):
    """P is a multiple of the identity, and so is the lower right block of the inverse."""
    sigma = 2.0
    r = rng.standard_normal((2 * d + 1, 2 * d + 1))
    r[d:, d:] = sigma * np.eye(d + 1)
    r[:d, :d] = sigma ** (-(d + 1) / d) * np.eye(d) + r[:d, d:] @ r[d:, :d] / sigma
    return np.linalg.inv(r)


def checked(factors, t, d):
    """Unit couplings L, U, L, ... with product T."""
    for place, factor in enumerate(factors):
        unit = lower(factor[d:, :d]) if place % 2 == 0 else upper(factor[:d, d:])
        np.testing.assert_allclose(factor, unit, atol=1e-10 * np.abs(factor).max())
    error = np.abs(np.linalg.multi_dot(factors) - t).max()
    norms = np.prod([np.linalg.norm(factor, 2) for factor in factors])
    assert error < 1e-7 and error < 1e-14 * norms * len(t)


def best(build, t, d):
    """Returns the factors with the smallest norms among several random choices of K and beta."""
    found = [build(t, d, np.random.default_rng(seed)) for seed in range(12)]
    return min(found, key=lambda factors: np.prod([np.linalg.norm(one, 2) for one in factors]))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_five_couplings_make_a_map_in_general_position(d):
    """The larger half comes second."""
    t = gaussian(d, np.random.default_rng(d))
    checked(best(five, t, d), t, d)


@pytest.mark.parametrize(
    "kind",
    [
        gaussian,
        block_diagonal,
        singular,
        nilpotent,
        scalar(2.0),
        scalar(-1.0),
        scalar(1.0),
        both_scalar,
    ],
)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_six_couplings_make_every_map(kind, d):
    """In each case of the proof."""
    t = kind(d, np.random.default_rng(10 + d))
    checked(best(six, t, d), t, d)
