"""Counts of couplings and bounds on their condition numbers."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
from scipy.linalg import block_diag

from kappaflow import factor_linear
from kappaflow.errors import ArgumentError
from kappaflow_studies.theory import (
    check_count,
    couplings_needed,
    min_condition_number,
    rotation_bound,
    unit_condition_number,
)


def hardest(first, second, *, positive):
    """Returns a map whose block is a cycle, at odds with positive diagonals if they are asked."""
    cycle = np.eye(second, dtype=int)[np.roll(np.arange(second), -1)]
    cycle[0] *= -1 if positive else 1
    sign = round(np.linalg.det(cycle))
    return block_diag(np.diag([sign] + [1] * (first - 1)), cycle)


def random_word(generator, first, second, length, *, last):
    """Returns a product of couplings of random whole numbers, and its diagonal part."""
    n = first + second
    product, diagonal = np.eye(n, dtype=int), np.ones(n, dtype=int)
    for step in range(length):
        lower = (step % 2 == 0) == (last == "L")
        own, other = slice(first, n), slice(0, first)
        if not lower:
            own, other = other, own
        coupling = np.eye(n, dtype=int)
        scales = generator.integers(1, 3, own.stop - own.start)
        coupling[own, own] = np.diag(scales)
        coupling[own, other] = generator.integers(-2, 3, coupling[own, other].shape)
        diagonal[own] *= scales
        product = coupling @ product
    return product, diagonal


@pytest.mark.parametrize("half", [2, 3, 64])
@pytest.mark.parametrize(("positive", "generic"), [(True, 5), (False, 4)])
def test_halves_take_six_and_mostly_fewer(half, positive, generic):
    """Six are enough and needed, whatever the size; five or four reach almost all maps."""
    needed = couplings_needed(half, half, positive=positive)
    assert (needed.every.least, needed.every.most) == (6, 6)
    assert (needed.almost_every.least, needed.almost_every.most) == (generic, generic)
    assert needed.guide == 6


@pytest.mark.parametrize(("positive", "every", "almost"), [(True, 4, 3), (False, 3, 2)])
def test_the_plane_takes_fewer(positive, every, almost):
    """Shears of the plane: four with positive diagonals, three with any."""
    needed = couplings_needed(1, 1, positive=positive)
    assert needed.every.least == needed.every.most == needed.guide == every
    assert needed.almost_every.least == needed.almost_every.most == almost


@pytest.mark.parametrize("parts", [(1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (1, 7), (5, 2)])
@pytest.mark.parametrize("positive", [True, False])
def test_one_coupling_less_is_proved_impossible(parts, positive):
    """The checker excludes all counts below the bound, in both orders, for one map."""
    small, large = sorted(parts)
    T = hardest(small, large, positive=positive)
    if parts != (small, large):
        order = np.roll(np.arange(len(T)), -small)
        T = T[np.ix_(order, order)]
    least = couplings_needed(*parts, positive=positive).every.least
    if parts == (1, 2) and not positive:
        T = np.eye(3, dtype=int)[[1, 2, 0]]  # where traces say more than ranks
    for count in range(1, least):
        verdict = check_count(T, count, first=parts[0], positive=positive)
        assert verdict.verdict == "cannot", (count, verdict)
    enough = "can" if abs(parts[0] - parts[1]) == 1 else "unknown"
    assert check_count(T, least, first=parts[0], positive=positive).verdict == enough


LEAST = {(1, 2): 6, (2, 3): 6, (2, 4): 6, (1, 3): 8, (1, 4): 10, (2, 6): 8, (1, 5): 12, (3, 6): 6}


@pytest.mark.parametrize("parts", LEAST)
def test_the_hardest_map_is_reached_with_as_many_couplings_as_are_needed(parts):
    """With positive diagonals, by a search along a path, well conditioned."""
    for order in (parts, parts[::-1]):
        assert couplings_needed(*order).every.least == LEAST[parts]
    factorization = factor_linear(
        hardest(*parts, positive=True), couplings=LEAST[parts], partition=parts[0]
    )
    assert factorization.is_exact and factorization.condition_number < 10
    assert all((coupling.diagonal > 0).all() for coupling in factorization.couplings)


def special_maps(d, rng):
    """Yields maps of each case in the proof of Theorem F: of d and d + 1 features."""
    cycle = np.eye(2 * d + 1)
    cycle[d:, d:] = np.roll(np.eye(d + 1), 1, 0)
    yield cycle  # Q and R are zero
    singular = rng.standard_normal((2 * d + 1, 2 * d + 1))
    singular[:d, :d] = 0  # so that (T^-1)22 is singular too
    yield singular
    nilpotent = np.zeros((2 * d + 1, 2 * d + 1))  # (T^-1)22 has the square zero
    nilpotent[:d, d : 2 * d] = nilpotent[d + 1 :, :d] = np.eye(d)
    nilpotent[d, -1] = 1
    yield np.linalg.inv(nilpotent)
    for sigma in (2.0, -1.0, 1.0):  # (T^-1)22 is a multiple of the identity
        inverse = rng.standard_normal((2 * d + 1, 2 * d + 1))
        inverse[d:, d:] = sigma * np.eye(d + 1)
        yield np.linalg.inv(inverse)


@pytest.mark.parametrize("d", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_six_couplings_make_every_map_of_odd_size(d):
    """Theorem F, in each case of its proof."""
    for T in special_maps(d, np.random.default_rng(10 + d)):
        T[0] *= np.sign(np.linalg.det(T))
        assert factor_linear(T, couplings=6, partition=d).is_exact


def lower_and_upper(N, numbers):
    """Returns N = L U where L has the inverses of these numbers on its diagonal."""
    d, rest = len(N), N.copy()
    lower, upper = (np.array([[Fraction(0)] * d for _ in range(d)]) for _ in range(2))
    for i, number in enumerate(numbers):
        lower[:, i], upper[i] = rest[:, i] / rest[i, i] / number, rest[i] * number
        rest = rest - np.outer(lower[:, i], upper[i])
    return lower, upper


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_one_basis_is_enough_for_all_maps_near_a_map_of_odd_size(d):
    """K = L^-1 and K N = U have the spectra of Theorem F, in fractions, for 300 matrices N."""
    rng = np.random.default_rng(d)
    for _ in range(300):
        whole = rng.integers(1, 9, (d, d)) + 20 * np.eye(d, dtype=int)  # minors are not zero
        N = np.array([[Fraction(int(x), 7) for x in row] for row in whole])
        pivots = np.diag(lower_and_upper(N, [1] * d)[1])
        t = [1 / Fraction(np.prod(pivots))]  # gamma
        for pivot in pivots:
            t.append(t[-1] * pivot)
        lower, upper = lower_and_upper(N, t[:-1])
        assert (lower @ upper == N).all() and not np.triu(lower, 1).any()
        assert list(1 / np.diag(lower)) == t[:-1] and list(np.diag(upper)) == t[1:]
        assert t[-1] == 1 and not np.tril(upper, -1).any()


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_maps_of_odd_size_near_the_identity_are_well_conditioned(n):
    """For which there is no proof: at most 1.7, and 1.2 from a distance of 0.01 on."""
    rng = np.random.default_rng(n)
    for distance, most in ((0.1, 1.7), (1e-2, 1.2), (1e-4, 1.2), (1e-6, 1.2)):
        T = np.eye(n) + distance * rng.standard_normal((n, n))
        assert 1 < factor_linear(T, method="continuation").condition_number < most


@pytest.mark.parametrize("half", [1, 2, 9])
def test_halves_of_an_odd_size_take_six_and_mostly_five(half):
    """Theorem F, in either order of the parts."""
    for parts in ((half, half + 1), (half + 1, half)):
        needed = couplings_needed(*parts)
        assert (needed.every.least, needed.every.most, needed.guide) == (6, 6, 6)
        assert needed.almost_every.most == 5 >= needed.almost_every.least
        assert couplings_needed(*parts, positive=False).every.most == 6


def test_other_parts_have_no_proved_upper_bound():
    """The guide is what the lower bound says, and at least six; it is no theorem."""
    needed = couplings_needed(3, 9)
    assert needed.every.most is None and needed.almost_every.most is None
    assert needed.every.least == 2 * 3 + 2 == needed.guide
    assert couplings_needed(3, 10).every.least == 2 * 4 + 2
    assert couplings_needed(3, 10, positive=False).every.least == 2 * 3 + 2
    assert needed.almost_every.least <= needed.every.least


@pytest.mark.parametrize(("first", "second"), [(1, 4), (2, 5), (3, 7)])
@pytest.mark.parametrize("last", ["L", "U"])
def test_couplings_add_few_ranks_to_a_diagonal_block(first, second, last):
    """T22 is diagonal plus `first` ranks for each L that has a U to its right."""
    generator = np.random.default_rng(0)
    for length in range(1, 9):
        product, diagonal = random_word(generator, first, second, length, last=last)
        useful = length // 2 if last == "U" else (length - 1) // 2
        off = product[first:, first:] - np.diag(diagonal[first:])
        assert np.linalg.matrix_rank(off.astype(float)) <= first * useful


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_cycle_is_far_from_every_diagonal_matrix(size):
    """By size - 1 ranks from any, by size from a positive one if its weights multiply to -1."""
    cycle = np.eye(size)[np.roll(np.arange(size), -1)]
    for scale in (0.0, 1.0, -2.0):
        inner = (cycle - scale * np.diag(np.arange(1.0, size + 1)))[:-1, 1:]
        assert abs(np.linalg.det(inner)) == pytest.approx(1)
    cycle[0] *= -1
    for seed in range(5):
        positive = np.diag(np.random.default_rng(seed).uniform(0.1, 10, size))
        assert abs(np.linalg.det(positive - cycle)) == pytest.approx(np.linalg.det(positive) + 1)


def test_parameters_bound_the_generic_count():
    """Maps of uneven parts have n^2 entries, m couplings have m p q + n."""
    for first, second in [(1, 2), (2, 3), (2, 7), (5, 11)]:
        n, least = first + second, couplings_needed(first, second).almost_every.least
        assert least * first * second + n >= n * n


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_part_without_features_is_refused(bad):
    """The message names the argument."""
    with pytest.raises(ArgumentError, match="'second' should be"):
        couplings_needed(1, bad)


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


@pytest.mark.parametrize(("kappa", "bound"), [(1e2, 2.15), (1e4, 4.64), (1e6, 10.0)])
def test_a_factor_has_at_least_the_root(kappa, bound):
    """Six factors of this condition number just make the product's."""
    assert min_condition_number(kappa, 6) == pytest.approx(bound, rel=3e-3)
    assert min_condition_number(kappa, 6) ** 6 == pytest.approx(kappa)


@pytest.mark.parametrize("bad", [0.5, -1.0, float("nan"), float("inf")])
def test_a_condition_number_below_one_is_refused(bad):
    """It is a ratio of the largest to the smallest."""
    with pytest.raises(ArgumentError, match="'condition_number' should be"):
        min_condition_number(bad, 6)
