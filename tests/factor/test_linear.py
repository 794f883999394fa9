"""`factor_linear`: any map, any partition; what it refuses, and why."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kappaflow as kf
from factor.ensembles import block_diagonal, cycle, geometric, orthogonal, sharp
from kappaflow.factor import strategies

ENSEMBLES = {
    "gaussian": lambda n, rng: rng.standard_normal((n, n)),
    "orthogonal": lambda n, rng: orthogonal(n, rng, sign=rng.choice([-1, 1])),
    "permutation": lambda n, rng: np.eye(n)[rng.permutation(n)],
    "triangular": lambda n, rng: np.tril(rng.standard_normal((n, n)), -1) / n**0.5 + np.eye(n),
    "block diagonal": lambda n, rng: block_diagonal(
        geometric(n // 2, rng, 50.0), geometric(n - n // 2, rng, 50.0)
    ),
    "sharp": lambda n, _: sharp(n) if n > 2 and n % 2 == 0 else -np.eye(n),
    "geometric": lambda n, rng: geometric(n, rng, 10.0 ** rng.uniform(0, 6)),
    "scaled": lambda n, rng: 10.0 ** rng.uniform(-9, 9) * geometric(n, rng, 10.0),
    "negative": lambda n, rng: np.diag([*[1.0] * (n - 1), -1.0]) @ geometric(n, rng, 30.0),
}


def check(result, matrix, tolerance=1e-12):
    """Checks all properties that a factorization reports."""
    assert result.residual <= tolerance
    x = torch.randn(3, len(matrix), dtype=torch.float64)
    z, log_det = result.bijection()(x)
    expected = x @ torch.as_tensor(matrix, dtype=torch.float64).mT
    sizes = np.prod(result.condition_numbers)
    assert (z - expected).norm() <= 1e-13 * max(sizes, 100) * expected.norm()
    size = np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(log_det.detach(), size, atol=1e-10 * (1 + abs(size)))
    for coupling, number in zip(result.couplings, result.condition_numbers, strict=True):
        assert number == pytest.approx(torch.linalg.cond(coupling.matrix()).item(), rel=1e-4)
    negative = [i for i, c in enumerate(result.couplings) if (c.sign < 0).any()]
    flipped = np.linalg.slogdet(matrix)[0] < 0
    assert negative == ([result.flipped] if flipped else [])
    assert sum(int((c.sign < 0).sum()) for c in result.couplings) == int(flipped)
    for before, after in zip(result.couplings, result.couplings[1:], strict=False):
        assert before.partition == after.partition.swapped()


@st.composite
def problems(draw):
    """Returns a matrix of 2 to 40 features, and a partition of them."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = ENSEMBLES[draw(st.sampled_from(sorted(ENSEMBLES)))](n, rng)
    parts = ["half", "alternating", max(1, n // 2 - 1), min(n - 1, n // 2 + 2)]
    kept = tuple(rng.permutation(n)[: max(1, n // 2)].tolist())
    return matrix, draw(st.sampled_from([*parts, kf.Partition(n, kept)]))


@pytest.mark.slow
@settings(deadline=None, max_examples=50, derandomize=True)
@given(problems())
def test_any_map_in_any_partition_has_a_closed_form(problem):
    """Sizes, ensembles, partitions: product, determinant, condition numbers, signs, order."""
    matrix, partition = problem
    result = kf.factor_linear(matrix, method="svd", couplings=None, partition=partition)
    check(result, matrix)
    assert result.condition_number <= max(10 * np.linalg.cond(matrix), 300)


@pytest.mark.slow
@settings(deadline=None, max_examples=40, derandomize=True)
@given(problems())
def test_rotations_and_permutations_in_any_partition_are_bounded(problem):
    """Below 7.3: theorem B with free scales, and one direction after another for uneven parts."""
    matrix, partition = problem
    rotation = np.linalg.svd(matrix)
    rotation = rotation[0] @ rotation[2]
    result = kf.factor_linear(rotation, method="rotation", couplings=None, partition=partition)
    check(result, rotation)
    assert result.condition_number < 7.3
    n = len(matrix)
    if partition == "half" and n % 2 == 0:
        assert len(result) == 6


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 512])
def test_large_rotations_have_small_residuals(n):
    """1e-13 at 64 and 1e-12 at 512, for a rotation and for a permutation of either sign."""
    rng = np.random.default_rng(n)
    for matrix in (orthogonal(n, rng), np.eye(n)[rng.permutation(n)], cycle(n, 4)):
        result = kf.factor_linear(matrix, method="rotation")
        assert len(result) == 6
        assert result.residual <= {64: 1e-13, 512: 1e-12}[n]
        assert result.condition_number <= 6.98


@pytest.mark.slow
def test_more_couplings_than_eleven_share_the_condition_number():
    """The same method with at most 13, 15 and 20 couplings: no more than that, and no worse."""
    matrix = geometric(16, np.random.default_rng(2), 1e6)
    worst = []
    for couplings in (11, 12, 13, 15, 20):
        result = kf.factor_linear(matrix, method="svd", couplings=couplings)
        check(result, matrix)
        assert len(result) == couplings - (couplings + 1) % 2
        worst.append(result.condition_number)
    assert worst[0] == worst[1]
    assert worst[0] > 1000 > 60 > worst[2] > 20 > worst[3] > 12 > worst[4]


def test_the_given_partition_is_used():
    """The first coupling keeps what the partition keeps."""
    partition = kf.Partition(6, (4, 1, 2))
    result = kf.factor_linear(cycle(6, 3), partition=partition, method="rotation")
    assert result.couplings[0].partition == partition
    check(result, cycle(6, 3))
    by_number = kf.factor_linear(cycle(6, 3), partition=2, method="rotation", couplings=None)
    assert by_number.couplings[0].partition == kf.Partition(6, (0, 1))


@pytest.mark.parametrize(
    ("matrix", "count"),
    [
        (np.eye(6), 0),
        (np.eye(6) + np.diag([1.0, 2.0, 3.0], -3), 1),
        (np.diag([2.0, 3.0, 4.0, 5.0]), 2),
        (np.kron([[0.0, -1.0], [1.0, 0.0]], np.eye(3)), 3),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), 3),
        (-np.eye(2), 4),
    ],
    ids=["identity", "shear", "diagonal", "exchange", "swap of two", "minus one of two"],
)
def test_none_finds_the_fewest_and_explains_why(matrix, count):
    """For matrices whose structure shows the number."""
    result = kf.factor_linear(matrix, couplings=None)
    assert len(result) == count
    assert result.method == "direct"
    assert "need" in result.note or "would" in result.note
    check(result, matrix)
    if count > 1:
        with pytest.raises(kf.errors.ArgumentError, match=f"should be larger .* got {count - 1}"):
            kf.factor_linear(matrix, couplings=count - 1)


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "scale"), [(1, 1.0), (-1, 7.0)])
def test_five_couplings_begin_with_the_letter_that_the_corners_allow(sign, scale):
    """One corner is zero: L U L U L if the other one is T12, U L U L U if it is T21."""
    rng = np.random.default_rng(0)
    matrix = scale * block_diagonal(orthogonal(3, rng, sign=sign), orthogonal(3, rng))
    matrix[3:, :3] = scale * orthogonal(3, rng)
    for corner, kept in ((matrix.T, (0, 1, 2)), (matrix, (3, 4, 5))):
        result = kf.factor_linear(corner, couplings=5)
        assert len(result) == 5
        assert result.couplings[0].partition.kept == kept
        check(result, corner)
        assert len(kf.factor_linear(corner, couplings=None)) == 5


@pytest.mark.parametrize(
    ("matrix", "couplings", "partition", "reason", "enough"),
    [
        (sharp(6), 1, "half", "one leaves", "six are enough for any map"),
        (sharp(6), 2, "half", "two need", "six are enough"),
        (sharp(6), 3, "half", "three need", "six are enough"),
        (sharp(6), 4, "half", "four exist", "six are enough"),
        (cycle(7, 3), 1, "half", "one leaves", "six are enough"),
        (cycle(7, 3), 5, "half", "not tried", "six are enough"),
        (cycle(7, 3), 2, 2, "two need", "8 were enough for every map"),
    ],
)
def test_too_few_couplings_are_refused(matrix, couplings, partition, reason, enough):
    """Theorem A says which maps this number of couplings can make; blocks may not be square."""
    with pytest.raises(kf.errors.ArgumentError, match=f"{reason}.*{enough}"):
        kf.factor_linear(matrix, couplings=couplings, partition=partition)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"should be square, got shape \(2, 3\)"),
        (np.ones((1, 1)), "should have at least 2 rows, got 1"),
        (np.full((2, 2), np.inf), "should hold finite numbers"),
        (np.ones((4, 4)), "should be invertible"),
        (np.diag([1.0, 1e-17, 1.0, 1.0]), "should be invertible"),
        (np.zeros((2, 2)), "should be invertible"),
        ("a matrix", "should hold real numbers, got <U8"),
        (None, "should be square, got shape"),
        ([[1.0, 2.0], [3.0]], "should be a square matrix of numbers, got list"),
        (np.eye(2) + 1j * np.ones((2, 2)), "should hold real numbers, got complex128"),
        (torch.eye(2) * (1 + 1j), "should hold real numbers, got complex64"),
        (torch.eye(3)[None], r"should be square, got shape \(1, 3, 3\)"),
    ],
)
@pytest.mark.boundary
def test_invalid_matrices_are_refused(matrix, message):
    """The error names the expected and the given value, and the reason."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.factor_linear(matrix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lu"}, "'method' should be one of"),
        ({"partition": "third"}, "'partition' should be one of"),
        ({"partition": 4}, "'partition' should split 4 features into two parts, got 4"),
        ({"partition": 0}, "'partition' should be at least 1"),
        ({"partition": kf.Partition(5, (0,))}, "'partition' should split 4 features"),
        ({"partition": kf.Partition(4, ())}, "'partition' should split 4 features"),
        ({"couplings": 0}, "'couplings' should be at least 1"),
        ({"couplings": 2.5}, "'couplings' should be a whole number"),
        ({"seed": -1}, "'seed' should be at least 0"),
        ({"method": "rotation", "couplings": 5}, "'couplings' should be at least 6"),
        ({"method": "svd", "couplings": 10}, "'couplings' should be at least 11"),
        ({"method": "rotation", "partition": 1, "couplings": 6}, "should be at least"),
        ({"couplings": "six"}, "'couplings' should be one of 'auto', got 'six'"),
        ({"max_time_s": -1}, "'max_time_s' should be at least 0, got -1"),
        ({"max_time_s": float("nan")}, "'max_time_s' should be a finite number"),
    ],
)
@pytest.mark.boundary
def test_invalid_arguments_are_refused(arguments, message):
    """The error names the argument."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        kf.factor_linear(-np.eye(4), **arguments)


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e200])
def test_an_extreme_scale_has_an_honest_residual(scale):
    """Squares of such numbers would overflow in float64."""
    for matrix, method in ((np.diag([1.0, 2, 3, 4]), "auto"), (sharp(4), "svd")):
        result = kf.factor_linear(scale * matrix, method=method, couplings=None)
        assert 0 < result.residual < 1e-12
        assert np.isfinite(result.condition_number)


@pytest.mark.parametrize("scale", [1e-200, 1e200, -1e200, 1e280])
def test_structure_is_seen_at_any_scale(scale):
    """Products of three entries would overflow in float64."""
    for matrix, most in (([[0.0, 1.0], [1.0, 0.0]], 3), ([[1.0, 1e-200], [1e-200, 1.0]], 6)):
        result = kf.factor_linear(scale * np.array(matrix), couplings=most)
        assert len(result) <= most and result.residual < 1e-12
    with pytest.raises(kf.errors.ArgumentError, match="should be invertible"):
        kf.factor_linear(np.full((2, 2), 1.7e308))


def test_a_failed_search_is_not_reported_as_impossible():
    """Five couplings exist, since a corner is invertible; only the search failed."""
    matrix = geometric(4, np.random.default_rng(0), 1e9)
    with pytest.raises(kf.errors.NumericalError, match="found no 5 couplings .* lost"):
        kf.factor_linear(matrix, couplings=5)


def test_the_note_reports_a_failed_search_for_five(monkeypatch):
    """Six are found, and the note does not say that five may not exist."""

    def lost(*_):
        raise kf.errors.NumericalError("lost")

    monkeypatch.setattr(strategies, "by_five", lost)
    result = kf.factor_linear(np.random.default_rng(0).standard_normal((4, 4)), couplings=None)
    assert len(result) == 6 and "search for five failed" in result.note


@pytest.mark.slow
def test_the_note_says_why_fewer_are_not_taken():
    """Six have a residual above rounding level, eleven in closed form have not."""
    result = kf.factor_linear(geometric(12, np.random.default_rng(0), 1e9))
    assert result.method == "svd" and result.residual < 1e-13
    assert "search: 6 couplings have a residual of " in result.note


def test_few_couplings_are_enough_only_if_six_could_hardly_be_better():
    """A product of three couplings, where six have half their condition number."""
    blocks = np.random.default_rng(1).standard_normal((3, 2, 2))
    factors = np.tile(np.eye(4), (3, 1, 1))
    factors[0, 2:, :2], factors[1, :2, 2:] = 1.5 * blocks[0], blocks[1]
    factors[2, 2:, :2] = blocks[2] - 1.5 * blocks[0]
    T = np.linalg.multi_dot(factors)
    best, fewest = kf.factor_linear(T), kf.factor_linear(T, couplings=None)
    assert (len(best), len(fewest)) == (6, 3)
    assert best.condition_number < 0.6 * fewest.condition_number


@pytest.mark.parametrize(
    ("n", "partition", "printed"),
    [(4, "half", "so do four"), (5, "half", "are not tried"), (4, 1, "are not tried")],
)
def test_the_note_explains_why_not_fewer(n, partition, printed):
    """Five couplings for Gaussian maps in two halves; otherwise as many as are always found."""
    matrix = np.random.default_rng(0).standard_normal((n, n))
    result = kf.factor_linear(matrix, couplings=None, partition=partition)
    assert printed in result.note


def test_the_rotation_method_refuses_other_matrices():
    """The message names the way out."""
    with pytest.raises(kf.errors.ArgumentError, match="method='auto' accepts any"):
        kf.factor_linear(np.diag([1.0, 2.0, 3.0, 4.0]), method="rotation")


def test_integers_and_float32_are_accepted():
    """In any memory layout; the couplings are float64."""
    turn = torch.eye(4)[[1, 2, 0, 3]]
    numbers = turn.int().numpy()
    for matrix in (
        turn,
        numbers,
        numbers[::-1],
        np.asfortranarray(numbers),
        numbers.astype(object),
    ):
        result = kf.factor_linear(matrix, method="rotation")
        check(result, np.asarray(matrix, dtype=float), tolerance=1e-14)
        assert result.couplings[0].weight.dtype == torch.float64
        assert result.matrix.dtype == torch.float64


def test_the_couplings_can_be_trained():
    """Gradients reach every weight and scale."""
    result = kf.factor_linear(orthogonal(4, np.random.default_rng(1)), method="rotation")
    flow = kf.Flow(kf.StandardNormal(4), result.bijection())
    flow.log_prob(torch.randn(8, 4, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


@pytest.mark.parametrize("features", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(ENSEMBLES))
def test_auto_finds_six_couplings_of_any_map(name, features):
    """For every ensemble."""
    matrix = ENSEMBLES[name](features, np.random.default_rng(5))
    result = kf.factor_linear(matrix)
    assert len(result) <= 6
    check(result, matrix)
