"""Permutations by swaps, triangular matrices by spectra, and the route through both."""

from itertools import permutations

import numpy as np
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.koehler2021 import (
    PAPER,
    across,
    eigenvectors,
    koehler_route,
    merged,
    permutation_couplings,
    swap_couplings,
    triangular_couplings,
    two_involutions,
)


def product(couplings, n):
    """Returns the product of matrices, the identity for none."""
    result = np.eye(n)
    for coupling in couplings:
        result = result @ coupling
    return result


def word(couplings):
    """Returns the word of L's and U's, or fails if a matrix is no coupling."""
    letters = ""
    for coupling in couplings:
        half = len(coupling) // 2
        lower = np.array_equal(coupling[:half], np.eye(half, 2 * half))
        own = coupling[half:, half:] if lower else coupling[:half, :half]
        kept = coupling[half:] if lower else coupling[:half]
        assert lower or np.array_equal(coupling[half:], np.eye(2 * half)[half:])
        assert np.array_equal(own, np.diag(np.diag(own))) and np.diag(own).all(), kept
        letters += "L" if lower else "U"
    return letters


def random_matrix(n, seed=0):
    """Returns a Gaussian matrix."""
    return np.random.default_rng(seed).standard_normal((n, n))


@pytest.mark.parametrize("n", [2, 4])
def test_every_small_permutation_is_exact_in_thirteen(n):
    """All of them, with the count, the word and no rounding at all."""
    for index in permutations(range(n)):
        couplings = permutation_couplings(index)
        assert np.array_equal(product(couplings, n), np.eye(n)[list(index)])
        assert len(couplings) <= 13
        assert word(couplings) in "LU" * 7


@pytest.mark.parametrize("n", [6, 16, 64, 128])
def test_permutations_of_any_size_are_exact_and_well_conditioned(n):
    """At most thirteen, each with condition number at most 3 + 2 sqrt 2."""
    for seed in range(3):
        index = np.random.default_rng(seed).permutation(n).tolist()
        couplings = permutation_couplings(index)
        assert np.array_equal(product(couplings, n), np.eye(n)[index])
        assert len(couplings) <= 13
        assert max(map(np.linalg.cond, couplings)) <= 3 + 2 * 2**0.5 + 1e-9


def test_thirteen_are_met_and_fewer_where_no_pair_is_carried():
    """A swap across the halves takes three, the identity none."""
    assert len(permutation_couplings(np.random.default_rng(0).permutation(64).tolist())) == 13
    assert len(permutation_couplings([2, 1, 0, 3])) == 3
    assert permutation_couplings([0, 1, 2, 3]) == []


@pytest.mark.parametrize("n", [1, 5, 9])
def test_two_reflections_make_a_rotation(n):
    """Each is its own inverse, and the second after the first is the permutation."""
    for seed in range(20):
        index = np.random.default_rng(seed).permutation(n).tolist()
        first, second = two_involutions(index)
        for involution in (first, second):
            assert [involution[i] for i in involution] == list(range(n))
        assert [second[i] for i in first] == index


@pytest.mark.parametrize("n", [4, 6, 10])
def test_pairs_inside_a_half_are_carried_across(n):
    """E M E is the involution; the pairs of E, and those of M, are disjoint and go across."""
    for seed in range(30):
        involution = two_involutions(np.random.default_rng(seed).permutation(n).tolist())[0]
        carried, moved = across(involution)
        for pairs in (carried, moved):
            touched = [i for pair in pairs for i in pair]
            assert len(set(touched)) == len(touched)
            assert all(i < n // 2 <= j for i, j in pairs)
        couplings = [c for pairs in (carried, moved, carried) for c in swap_couplings(pairs, n)]
        assert np.array_equal(product(couplings, n), np.eye(n)[involution])


def test_merging_keeps_the_product_and_drops_identities():
    """Neighbors on one half are one; two that cancel make room for the next to merge."""
    L = np.array([[1.0, 0.0], [2.0, 1.0]])
    U = np.array([[1.0, 3.0], [0.0, 1.0]])
    inverse = np.array([[1.0, -3.0], [0.0, 1.0]])
    assert len(merged([L, L, U])) == 2
    assert [m.tolist() for m in merged([L, U, inverse, L])] == [(L @ L).tolist()]
    assert merged([np.eye(2), U, inverse]) == []


@pytest.mark.parametrize("n", [4, 10, 24])
@pytest.mark.parametrize("lower", [True, False])
def test_a_triangular_matrix_takes_four(n, lower):
    """L U L U or U L U L, with diagonals of the signs that the triangle has."""
    matrix = np.tril(random_matrix(n)) + 3 * np.diag(np.resize([1, -1], n))
    matrix = matrix if lower else matrix.T
    couplings = triangular_couplings(matrix, lower=lower)
    assert word(couplings) == ("LULU" if lower else "ULUL")
    kappa = max(map(np.linalg.cond, couplings))
    error = np.linalg.norm(product(couplings, n) - matrix) / np.linalg.norm(matrix)
    assert error <= 10 * np.finfo(float).eps * kappa


def test_upper_and_lower_triangles_are_mirror_images():
    """In the opposite order of features one is the other: the same condition numbers."""
    matrix = np.tril(random_matrix(16)) + 3 * np.eye(16)
    there = triangular_couplings(matrix[::-1, ::-1], lower=False)
    here = triangular_couplings(matrix, lower=True)
    kappas = [[np.linalg.cond(c) for c in couplings] for couplings in (here, there)]
    np.testing.assert_allclose(kappas[0], kappas[1], rtol=1e-6)


def test_a_diagonal_matrix_takes_two():
    """One for each half."""
    assert word(triangular_couplings(np.diag([2.0, 3.0, -4.0, 5.0]), lower=True)) == "LU"


@pytest.mark.parametrize("lower", [True, False])
def test_eigenvectors_of_a_triangle_follow_its_diagonal(lower):
    """M V = V D, V triangular with ones."""
    matrix = np.tril(random_matrix(6)) + np.diag(np.arange(6.0))
    matrix = matrix if lower else matrix.T
    vectors = eigenvectors(matrix, lower=lower)
    np.testing.assert_allclose(matrix @ vectors, vectors * np.diag(matrix), atol=1e-12)
    np.testing.assert_array_equal(np.diag(vectors), 1)
    assert not (np.triu(vectors, 1) if lower else np.tril(vectors, -1)).any()


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_the_route_takes_nineteen_at_most(n):
    """Thirteen and four and four, two of which merge; the product is T to its conditioning."""
    T = random_matrix(n, seed=n)
    route = koehler_route(T)
    assert len(route.couplings) <= 19 < sum(PAPER.values())
    assert word(route.couplings) in "LU" * 10
    np.testing.assert_allclose(product(route.couplings, n), T, atol=1e-3 / 2**n + 1e-8)
    assert route.residual <= 1e-15 * max(route.condition_numbers)
    assert route.counts["lower triangular"] == route.counts["upper triangular"] == 4 or n == 2


def test_the_route_is_the_badly_conditioned_one():
    """The price of triangular parts, at 32 features: a thousand times what six couplings have."""
    assert max(koehler_route(random_matrix(32)).condition_numbers) > 1e4


def test_the_paper_sums_to_47():
    """The one number that the source states, next to ours."""
    assert sum(PAPER.values()) == 47
    text = str(koehler_route(random_matrix(8)))
    assert "47" in text and "13     21" in text and "together              19" in text


def test_negative_numbers_in_diagonals_are_counted():
    """A swap of two features: one -1, or the determinant would be 1."""
    route = koehler_route([[0, 1], [1, 0]])
    assert route.negative == 1 and len(route.couplings) == 3
    assert route.residual == 0


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "even number of rows"),
        (np.ones((2, 4)), "square"),
        ([[1.0, np.inf], [0.0, 1.0]], "finite"),
        (np.ones((4, 4)), "invertible"),
        ("a matrix", "real numbers"),
        ([[1, 2], [3]], "numbers, got list"),
        (np.eye(2) * 1j, "real numbers, got complex128"),
    ],
)
def test_what_has_no_such_factors_is_refused(matrix, message):
    """With the reason."""
    with pytest.raises(ArgumentError, match=message):
        koehler_route(matrix)


@pytest.mark.parametrize("ratio", [1.0, 0.0, -1.3, float("nan"), float("inf")])
def test_eigenvalues_that_would_not_be_distinct_are_refused(ratio):
    """Equal, zero, of both signs, or no numbers."""
    with pytest.raises(ArgumentError, match="'ratio' should"):
        koehler_route(np.ones((4, 4)) + np.eye(4), ratio=ratio)


@pytest.mark.parametrize(
    ("matrix", "lower"),
    [
        (np.tril(np.ones((4, 4))), False),
        (np.ones((4, 4)), True),
        (np.tril(np.ones((3, 3))), True),
        (np.array([[0.0, 0.0], [1.0, 1.0]]), True),
    ],
    ids=["other triangle", "full", "odd", "singular"],
)
def test_what_is_not_triangular_is_not_taken_for_it(matrix, lower):
    """Its other entries would be passed over."""
    with pytest.raises(ArgumentError, match="'matrix' should be"):
        triangular_couplings(matrix, lower=lower)


@pytest.mark.parametrize("index", [[0, 0], [1, 5], [-1, 0], [1, 2, 0]])
def test_what_is_no_permutation_of_an_even_number_is_refused(index):
    """Twice the same, out of range, odd."""
    with pytest.raises(ArgumentError, match="'index' should hold"):
        permutation_couplings(index)
