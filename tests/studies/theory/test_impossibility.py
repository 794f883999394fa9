"""Proofs that couplings cannot do: they hold, they never exclude a product, they are stated."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from kappaflow.errors import ArgumentError
from kappaflow_studies.theory import check_count, check_pattern, fewest_couplings

TURN = np.array([[0, 1], [-1, 0]])
CYCLE = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
SHARP = {
    "two quarter turns": block_diag(TURN, [[1, 1], [-1, 0]]),
    "a cycle of three": block_diag(np.eye(3, dtype=int), CYCLE),
    "a cycle of three among five": block_diag(np.eye(5, dtype=int), CYCLE, np.eye(2, dtype=int)),
    "a cycle of four, of determinant -1": block_diag(
        np.eye(4, dtype=int), np.roll(np.eye(4, dtype=int), 1, axis=1)
    ),
}
# The diagonals of T11 and (T^-1)22 have opposite signs, and those of T22 and (T^-1)11.
FIVE = {
    2: np.kron([[1, 2], [2, 1]], np.eye(2, dtype=int)),
    3: np.array([
        [1, 1, 2, 1, 2, 1],
        [0, 1, -2, 0, 1, -1],
        [-1, -1, 2, -1, 0, -2],
        [2, 1, 0, -1, -1, 1],
        [1, 0, -2, -1, -1, 0],
        [-2, 2, -2, 0, -1, -2],
    ]),
}


def random_product(generator, word, first, second, *, positive, density):
    """Returns a product of couplings of small whole numbers, many of them zero."""
    n = first + second
    product = np.eye(n, dtype=int)
    for letter in word:
        kept, changed = (slice(0, first), slice(first, n))
        if letter == "U":
            kept, changed = changed, kept
        coupling = np.eye(n, dtype=int)
        size = coupling[changed, kept].shape
        scales = generator.choice([1, 2, 3] if positive else [1, -1, 2, -2], size[0])
        coupling[changed, changed] = np.diag(scales)
        dense = generator.random(size) < density
        coupling[changed, kept] = generator.integers(-2, 3, size) * dense
        product = product @ coupling
    return product


@pytest.mark.parametrize(
    ("name", "positive"), [(name, True) for name in list(SHARP)[:3]] + [(x, False) for x in SHARP]
)
def test_six_are_needed_for_the_sharp_cases(name, positive):
    """Theorem A: five are excluded in both orders, whatever the signs; six do."""
    verdict = check_count(SHARP[name], 5, positive=positive)
    assert verdict.verdict == "cannot" and verdict.exact
    assert verdict.patterns == ("LULUL", "ULULU")
    assert verdict.argument == ("trace" if name == "two quarter turns" else "reality")
    assert fewest_couplings(SHARP[name], positive=positive)[0] == 6


@pytest.mark.parametrize("seed", range(4))
def test_a_product_is_never_excluded(seed):
    """Soundness: products with many zeros, even and uneven, are never called impossible."""
    generator = np.random.default_rng(seed)
    certain = 0
    for trial in range(120):
        first = int(generator.integers(1, 5))
        second = first if trial % 2 else int(generator.integers(1, 5))
        length, start = int(generator.integers(1, 9)), int(generator.integers(2))
        word, positive = ("LU" * 5)[start : start + length], bool(generator.integers(2))
        density = generator.choice([0.0, 0.1, 0.2, 1.0])
        T = random_product(generator, word, first, second, positive=positive, density=density)
        verdict = check_pattern(T, word, first=first, positive=positive)
        assert verdict.verdict != "cannot", (T.tolist(), verdict)
        if length <= 2:
            assert verdict.verdict == "can"
        scaled = T * generator.uniform(0.5, 2, (len(T), 1))  # diagonals are free to be scaled
        if length > 1:
            verdict = check_pattern(scaled, word, first=first, positive=positive)
            assert verdict.verdict != "cannot", (scaled.tolist(), verdict)
        certain += verdict.verdict == "can"
    assert certain > 50  # it says something, too


@pytest.mark.parametrize("seed", range(3))
def test_dense_products_of_three_are_recognized_and_others_are_not(seed):
    """R - S Q^-1 P = -B Q^-1 C, in whole numbers: one entry off, and it is no product of three."""
    generator = np.random.default_rng(seed)
    T = random_product(generator, "LUL", 3, 3, positive=True, density=1.0)
    while abs(np.linalg.det(T[:3, 3:])) < 0.5:
        T = random_product(generator, "LUL", 3, 3, positive=True, density=1.0)
    assert check_pattern(T, "LUL").verdict == "can"
    T[4, 1] += 7
    verdict = check_pattern(T, "LUL", positive=False)
    assert verdict.verdict == "cannot" and "T12^-1" in verdict.reason


def test_what_a_singular_block_fixes_is_seen():
    """L U L with Q = 0 keeps T11 and T22 diagonal; with a kernel, T22 must be so on it."""
    assert check_pattern(np.eye(4, dtype=int), "LUL").verdict == "can"
    T = block_diag([[1, 1], [0, 1]], np.eye(2, dtype=int))
    assert check_pattern(T, "LUL").verdict == "cannot"
    T[0, 2] = 1  # now Q has rank one, and its left kernel is the second feature
    assert check_pattern(T, "LUL").verdict == "unknown"
    T[1, 0], T[0, 0] = 1, 3
    assert "kernel of T12 transposed" in check_pattern(T, "LUL").reason


def test_the_exact_criteria_for_one_and_two():
    """L, U, L U and U L, in any of their forms; the identity is all of them."""
    L = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [3, 4, 2, 0], [5, 6, 0, 7]])
    U = L[::-1, ::-1]
    can = {"L": L, "U": U, "LU": L @ U, "UL": U @ L}
    for word in can:
        for other, matrix in can.items():
            expected = "can" if other in word else "cannot"
            assert check_pattern(matrix, word).verdict == expected, (word, other)
        assert check_pattern(np.eye(4, dtype=int), word).verdict == "can"
        assert check_pattern(-np.eye(4, dtype=int), word).verdict == "cannot"


@pytest.mark.parametrize("half", FIVE)
def test_four_are_excluded_on_an_open_set_and_five_are_not(half):
    """Traces of opposite signs: every map near this one takes five with positive diagonals."""
    generator, T = np.random.default_rng(0), FIVE[half]
    assert check_count(T, 4).argument == "trace" and check_count(T, 4).exact
    assert check_count(T, 5).verdict == "can"
    assert check_count(T, 4, positive=False).verdict == "can"
    for _ in range(20):
        near = T + 1e-2 * generator.standard_normal(T.shape)
        assert check_count(near, 4).verdict == "cannot"
        assert check_count(near, 5).verdict == "can"


def test_five_are_enough_when_the_upper_right_block_is_invertible():
    """Theorem A (a), and in the mirrored order when the lower left one is."""
    T = np.block([[TURN, np.eye(2)], [np.zeros((2, 2)), TURN]]).astype(int)
    assert check_pattern(T, "LULUL").verdict == "can"
    assert check_pattern(T, "ULULU").verdict != "can"
    assert check_pattern(T.T, "ULULU").verdict == "can"


@pytest.mark.parametrize("count", range(1, 9))
def test_a_negative_determinant_excludes_positive_diagonals(count):
    """However many couplings; of any sign, six do."""
    swap = np.eye(4, dtype=int)[[1, 0, 2, 3]]
    assert check_count(swap, count).argument == "determinant"
    if count >= 6:
        assert check_count(swap, count, positive=False).verdict == "can"


def test_uneven_parts_use_ranks_traces_and_spectra():
    """(1, 2): a quarter turn takes six with positive diagonals, a 3-cycle five with any."""
    turned = block_diag(1, TURN)
    assert check_count(turned, 5).argument == "rank"
    assert check_count(turned, 5, positive=False).verdict == "unknown"
    verdict = check_count(CYCLE, 4, positive=False)
    assert verdict.verdict == "cannot" and "trace" in verdict.argument
    verdict = check_count(block_diag(np.eye(2, dtype=int), CYCLE), 5, positive=False)
    assert (verdict.verdict, verdict.argument) == ("cannot", "reality")


@pytest.mark.parametrize("first", [2, 3])
def test_an_odd_size_takes_six_and_five_if_two_kernels_differ(first):
    """Theorem F: five with the larger part at both ends; a negative determinant takes a sign."""
    rng = np.random.default_rng(first)
    T = rng.integers(-3, 4, (5, 5))
    T[0] *= round(np.sign(np.linalg.det(T)))
    larger_at_the_ends, other = ("LULUL", "ULULU")[:: 1 if first == 2 else -1]
    assert check_pattern(T, larger_at_the_ends, first=first).verdict == "can"
    assert check_pattern(T.astype(float) / 7, larger_at_the_ends, first=first).verdict == "can"
    assert check_pattern(T, other, first=first).verdict == "unknown"
    for couplings in (5, 6, 7):
        assert check_count(T, couplings, first=first).verdict == "can"
    T[0] *= -1
    assert check_count(T, 6, first=first).argument == "determinant"
    assert check_count(T, 6, first=first, positive=False).verdict == "can"


@pytest.mark.parametrize("second_row", [[0, 1, 1], [2, 4, 6], [0, 0, 0]])
def test_equal_kernels_and_dependent_rows_leave_five_open(second_row):
    """With (T^-1)22 = I the kernels agree; the rows of T12 may depend on each other. Six do."""
    T = np.diag([2, 2, 1, 1, 1])
    T[:2, 2:] = [1, 2, 3], second_row
    assert check_pattern(T, "LULUL").verdict == "unknown"
    assert check_pattern(T, "LULULU").argument == check_pattern(T, "ULULUL").argument == "theorem"


@pytest.mark.parametrize(
    ("word", "upper", "lower", "verdict"),
    [
        ("LULULU", 1, 1, "unknown"),  # three L's, each with a U to its right
        ("LULULU", 1, 0, "cannot"),  # T21 = 0: the last U, and then the last L, do not count
        ("LULULU", 0, 1, "cannot"),  # T12 = 0: the first L does not
        ("LULULUL", 1, 0, "unknown"),
        ("LULULUL", 0, 1, "cannot"),
        ("ULULULU", 1, 0, "cannot"),
        ("ULULULU", 0, 1, "unknown"),
        ("ULULUL", 1, 1, "cannot"),  # two L's with a U to their right
    ],
)
@pytest.mark.parametrize("cycle_first", [False, True])
def test_ranks_count_the_couplings_that_can_add_some(word, upper, lower, verdict, cycle_first):
    """A cycle of four is three ranks from diagonal; one other feature passes one a coupling."""
    cycle = np.eye(4, dtype=int)[[1, 2, 3, 0]]
    T = block_diag(2, cycle)
    T[0, 3], T[2, 0] = upper, lower
    first = 1
    if cycle_first:
        order = [1, 2, 3, 4, 0]
        T, first, word = T[np.ix_(order, order)], 4, word.translate(str.maketrans("LU", "UL"))
    result = check_pattern(T, word, first=first, positive=False)
    assert result.verdict == verdict
    assert verdict == "unknown" or result.argument == "rank"


def test_pivots_of_different_signs_do_not_fit_positive_diagonals():
    """T11 has pivots +, -, (T^-1)22 has -, +: no claim but with free signs."""
    T = block_diag([[1, 2], [2, -1]], [[-1, 2], [2, 1]])
    assert check_pattern(T, "LULU", positive=False).verdict == "can"
    assert check_pattern(T, "LULU").verdict == "unknown"


def test_triangular_blocks_keep_their_signs():
    """Two minuses in one half and none in the other: six with positive diagonals, one with any."""
    T = np.diag([-1, -1, 1, 1, 1, 1])
    assert check_count(T, 5).argument == "inertia"
    assert fewest_couplings(T)[0] == 6 and fewest_couplings(T, positive=False)[0] == 1
    assert check_count(np.diag([-1, 2, 1, 1, 3, -1]), 4).verdict == "can"


def test_a_singular_block_that_is_not_zero_leaves_five_open():
    """Q of rank one, and the other order excluded or open: no claim for either."""
    T = SHARP["a cycle of three"].copy()
    T[0, 3] = 1
    assert check_pattern(T, "LULUL").verdict == "unknown"
    assert check_pattern(T, "ULULU").verdict == "cannot"
    assert check_count(T, 5).verdict == "unknown"


def test_three_with_negative_numbers_need_free_signs():
    """B = -I, C = I: a product of three, but of none with positive diagonals."""
    ones, signs, X = np.eye(2, dtype=int), np.diag([1, 1, -1, -1]), np.array([[1, 2], [3, 5]])
    lower = np.block([[ones, 0 * ones], [ones, ones]])
    T = signs @ lower @ np.block([[ones, X], [0 * ones, ones]]) @ lower
    assert check_pattern(T, "LUL", positive=False).verdict == "can"
    assert check_pattern(T, "LUL").verdict == "cannot"


def test_floats_count_as_zero_to_rounding_and_the_verdict_says_so():
    """A quarter turn from cosines has a diagonal of 6e-17."""
    angle = np.pi / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    verdict = check_pattern(block_diag(turn, [[1.1, 1.1], [-1.1, 0.0]]), "LULUL")
    assert verdict.verdict == "cannot" and not verdict.exact
    assert "To rounding" in verdict.reason
    turn[0, 0] = 1e-3
    assert check_pattern(block_diag(turn, [[1.1, 1.1], [-1.1, 0.0]]), "LULUL").verdict == "unknown"


def test_fractions_and_tensors_are_taken_exactly():
    """The same matrix in thirds, as a tensor, and as lists."""
    T = SHARP["a cycle of three"]
    thirds = [[Fraction(int(x), 3) for x in row] for row in T]
    for form in (thirds, torch.tensor(T), torch.tensor(T, dtype=torch.float32), T.tolist()):
        verdict = check_count(form, 5)
        assert verdict.verdict == "cannot" and verdict.exact


def test_fewest_returns_the_proofs_on_the_way():
    """One verdict a count, all but the last of which exclude it."""
    count, verdicts = fewest_couplings(SHARP["two quarter turns"])
    assert count == len(verdicts) == 6
    assert [verdict.verdict for verdict in verdicts] == ["cannot"] * 5 + ["can"]
    assert "cannot" in str(verdicts[0])


@pytest.mark.parametrize(
    ("matrix", "arguments", "message"),
    [
        ([[1, 2, 3]], {}, "'matrix' should be square"),
        ([[1]], {}, "'matrix' should be square"),
        ([[1, 1], [1, 1]], {}, "'matrix' should be invertible"),
        ([[0.1, 0.2], [0.1, 0.2]], {}, "'matrix' should be invertible"),
        ([[1.0, float("nan")], [0.0, 1.0]], {}, "'matrix' should hold finite"),
        ([["a", "b"], ["c", "d"]], {}, "'matrix' should hold real"),
        ([[1, 2], [3]], {}, "'matrix' should be a square matrix of numbers, got list"),
        ([[1, 1j], [0, 1]], {}, "'matrix' should hold real numbers, got complex128"),
        ([[1, 10**400], [0, 0.5]], {}, "'matrix' should hold real numbers"),
        ([[1, 0], [0, 1]], {"first": 2}, "'first' should be below 2"),
        ([[1, 0], [0, 1]], {"tolerance": 0.0}, "'tolerance' should be"),
    ],
)
def test_what_cannot_be_judged_is_refused(matrix, arguments, message):
    """With the name of the argument."""
    with pytest.raises(ArgumentError, match=message):
        check_pattern(matrix, "LU", **arguments)


def test_any_kind_of_float_is_taken():
    """As the numbers that they are, also where NumPy has no such kind."""
    quarter_turns = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.5]])] * 2)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        matrix = quarter_turns.to(kind).requires_grad_()
        assert not check_pattern(matrix, "LULUL").exact
    assert check_pattern(torch.eye(2).bfloat16(), "L").verdict == "can"


@pytest.mark.boundary
@pytest.mark.parametrize("word", ["", "LL", "LUX", "lu", None])
def test_a_word_must_alternate(word):
    """L's and U's, in turn."""
    with pytest.raises(ArgumentError, match="'pattern' should alternate"):
        check_pattern([[1, 0], [0, 1]], word)
