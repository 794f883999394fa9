"""Sums of Kronecker products against dense matrices."""

import numpy as np
import pytest

from kappaflow.factor import kronecker
from kappaflow.factor.kronecker import KroneckerMap, NearestInverse, NormalEquations


def random_map(p, q, seed=0):
    """Returns a map of three blocks onto (p, q) matrices."""
    g = np.random.default_rng(seed)
    shapes = [(p, q), (q, p), (p, q)]
    terms = [
        [(g.standard_normal((p, rows)), g.standard_normal((columns, q))) for _ in range(2)]
        for rows, columns in shapes
    ]
    return KroneckerMap(terms), [g.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(("p", "q"), [(1, 1), (3, 3), (3, 4), (4, 3)])
def test_the_adjoint_and_the_gram_matrix_belong_to_the_map(p, q):
    """<J u, r> = <u, J^T r>, and the dense matrix is J J^T."""
    jacobian, step = random_map(p, q)
    r = np.random.default_rng(1).standard_normal((p, q))
    back = jacobian.adjoint(r)
    assert sum(map(np.vdot, step, back)) == pytest.approx(np.vdot(jacobian(step), r))
    np.testing.assert_allclose(jacobian.gram() @ r.ravel(), jacobian(back).ravel())


@pytest.mark.parametrize("largest", [0, 100])
def test_conjugate_gradients_and_the_dense_factor_agree(monkeypatch, largest):
    """Both find the step of least norm for a right-hand side."""
    monkeypatch.setattr(kronecker, "ALWAYS_DENSE", largest)
    monkeypatch.setattr(kronecker, "LARGEST_DENSE", largest)
    jacobian, _ = random_map(7, 8)
    b = np.random.default_rng(1).standard_normal((7, 8))
    step = NormalEquations(jacobian, None).least_norm(b, tolerance=1e-11)
    np.testing.assert_allclose(jacobian(step), b, atol=1e-8)
    least = np.linalg.solve(jacobian.gram(), b.ravel()).reshape(b.shape)
    for result, expected in zip(step, jacobian.adjoint(least), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-7)


@pytest.mark.parametrize("started", [False, True])
def test_loose_tolerances_start_in_float32(started):
    """The residual meets the tolerance; tighter tolerances use float64."""
    jacobian, _ = random_map(40, 40)
    b = np.random.default_rng(1).standard_normal((40, 40))
    equations, types = NormalEquations(jacobian, None), []
    apply = KroneckerMap.__call__
    guess = np.random.default_rng(2).standard_normal(b.shape) / 1e3 if started else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            KroneckerMap, "__call__", lambda m, u: types.append(u[0].dtype.name) or apply(m, u)
        )
        result = equations.solve(b, tolerance=1e-3, guess=guess)
        assert types.count("float32") > 2 >= types.count("float64") - started
        assert result.dtype == np.float64
        types.clear()
        exact = equations.solve(b, tolerance=1e-10)
        assert "float32" not in types
    for r, tolerance in ((result, 1e-3), (exact, 1e-10)):
        off = jacobian(jacobian.adjoint(r)) - b
        assert np.linalg.norm(off) <= 1.01 * tolerance * np.linalg.norm(b)


def test_what_float32_cannot_reach_is_reached_in_float64():
    """The condition number of these equations is too large for float32."""
    jacobian, _ = random_map(33, 33)
    scales = np.geomspace(1, 1e3, 33)
    spoilt = [[(a * scales[:, None], b * scales) for a, b in terms] for terms in jacobian.terms]
    jacobian = KroneckerMap(spoilt)
    b = jacobian(jacobian.adjoint(np.random.default_rng(1).standard_normal((33, 33))))
    r = NormalEquations(jacobian, None).solve(b, tolerance=1e-4)
    off = jacobian(jacobian.adjoint(r)) - b
    assert np.linalg.norm(off) <= 1.01e-4 * np.linalg.norm(b)


def test_slow_conjugate_gradients_are_replaced_by_the_dense_factor(monkeypatch):
    """Up to the size at which the dense factor is faster."""
    jacobian, _ = random_map(14, 14)
    b = np.random.default_rng(1).standard_normal((14, 14))
    monkeypatch.setattr(kronecker, "FEW_ITERATIONS", 2)
    step = NormalEquations(jacobian, None).least_norm(b, tolerance=1e-10)
    np.testing.assert_allclose(jacobian(step), b, atol=1e-8)


def test_the_nearest_product_of_a_product_is_itself():
    """With one term there is no remainder, and the preconditioner is the inverse."""
    g = np.random.default_rng(0)
    a, b = g.standard_normal((5, 5)), g.standard_normal((4, 4))
    jacobian = KroneckerMap([[(a, b)]])
    r = g.standard_normal((5, 4))
    result = NearestInverse(jacobian)(jacobian(jacobian.adjoint(r)))
    np.testing.assert_allclose(result, r, atol=1e-6)


def test_the_nearest_product_saves_most_of_the_iterations():
    """One large product and small terms, as in the equations of a path."""
    jacobian, _ = random_map(33, 33)
    a, b = jacobian.terms[0][0]
    jacobian.terms[0][0] = (a @ np.diag(np.geomspace(1, 1e3, 33)), b)
    right = np.random.default_rng(1).standard_normal((33, 33))
    counts = []
    for near in (None, lambda r: r):
        equations, count = NormalEquations(jacobian, None), [0]
        apply = equations._applied
        equations._applied = lambda r, c=count, f=apply: (c.__setitem__(0, c[0] + 1), f(r))[1]
        if near is not None:
            equations._near = near
        equations.solve(right, tolerance=kronecker.SINGLE / 2)
        counts.append(count[0])
    assert counts[0] < counts[1] / 3


def test_a_degenerate_map_is_solved_within_its_range():
    """The equations at the identity miss subspaces; the right-hand side lies outside them."""
    half = np.diag([1.0, 1.0, 0.0, 0.0])
    jacobian = KroneckerMap([[(half, np.eye(4))]])
    b = half @ np.arange(16.0).reshape(4, 4)
    step = NormalEquations(jacobian, None).least_norm(b, tolerance=1e-10)
    np.testing.assert_allclose(jacobian(step), b, atol=1e-9)
