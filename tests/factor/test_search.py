"""When `factor_linear` searches, what the search gains, and what limits it."""

import time

import numpy as np
import pytest
from scipy.linalg import hilbert

import kappaflow as kf
from factor.ensembles import geometric, orthogonal
from kappaflow.errors import NumericalError, NumericalWarning
from kappaflow.factor import search, strategies
from kappaflow.factor.budget import OutOfBudget, SearchBudget, report, spend
from kappaflow.factor.closed_forms import by_positive, factor_positive_definite
from kappaflow.factor.coupling import Factor
from kappaflow.factor.problem import factor_problem


def gaussian(n, seed=0):
    """Returns a Gaussian map."""
    return np.random.default_rng(seed).standard_normal((n, n))


def dense(result):
    """Returns the product of the couplings by numpy."""
    built = np.eye(len(result.matrix))
    for coupling in result.couplings:
        built = built @ coupling.matrix().numpy()
    return built


def no_search(monkeypatch):
    """Makes every search fail the test."""
    for name in ("by_continuation", "by_five"):
        monkeypatch.setattr(strategies, name, lambda *_: pytest.fail("there was a search"))


@pytest.mark.parametrize(
    ("matrix", "couplings", "method", "worst"),
    [
        (orthogonal(66, np.random.default_rng(0)), 6, "rotation", 6),
        (gaussian(66), 11, "svd", 200),
        (gaussian(66), "auto", "svd", 6),
        (gaussian(66), None, "svd", 200),
        (orthogonal(66, np.random.default_rng(0)), "auto", "rotation", 6),
    ],
    ids=["rotation", "eleven", "auto", "fewest", "auto for a rotation"],
)
def test_large_maps_have_the_closed_form(monkeypatch, matrix, couplings, method, worst):
    """Without a search, whose time limit the note names."""
    no_search(monkeypatch)
    result = kf.factor_linear(matrix, couplings=couplings)
    assert result.method == method and result.condition_number < worst
    assert np.linalg.norm(dense(result) - matrix) < 1e-12 * np.linalg.norm(matrix)
    assert "max_time_s=60 allows a minute" in result.note and result.before_search is None


def test_a_time_limit_starts_the_search_of_a_large_map(monkeypatch):
    """And a limit of zero ends that of a small one."""
    calls = []
    monkeypatch.setattr(
        strategies, "by_continuation", lambda problem, n, seed: calls.append(n) or no()
    )
    kf.factor_linear(gaussian(66), couplings=11, max_time_s=1e3)
    assert calls == [11, 8, 6]
    result = kf.factor_linear(gaussian(8), max_time_s=0)
    assert result.method == "svd" and len(calls) == 3


def no():
    """Fails as a search that finds nothing."""
    raise NumericalError("nothing was found")


def test_the_result_says_what_the_search_gained():
    """The closed form of a rotation, and the couplings of the search."""
    matrix = orthogonal(6, np.random.default_rng(0))
    closed = kf.factor_linear(matrix, method="rotation")
    result = kf.factor_linear(matrix)
    assert result.before_search == closed.condition_number > result.condition_number
    assert (
        f"{result.before_search:.3g} in closed form, then {result.condition_number:.3g}"
        in repr(result)
    )


def test_a_search_without_time_gives_the_closed_form():
    """The limit ends the search before it has found anything; with six there is none."""
    matrix = orthogonal(8, np.random.default_rng(0))
    result = kf.factor_linear(matrix, max_time_s=1e-9)
    assert result.method == "rotation" and "the search ended at its limit" in result.note
    with pytest.raises(NumericalError, match=r"ended at its limit. .* pass couplings=11"):
        kf.factor_linear(gaussian(8), couplings=6, max_time_s=1e-9)
    with pytest.raises(NumericalError, match=r"ended at its limit. .* pass couplings=11"):
        kf.factor_linear(gaussian(8), couplings=6, method="continuation", max_time_s=1e-9)


def test_a_search_that_is_cut_off_is_exact_and_better_than_the_closed_form(monkeypatch):
    """It stops during the descent and polishes; the same limit gives the same couplings."""
    matrix = orthogonal(8, np.random.default_rng(0))
    full = kf.factor_linear(matrix)
    monkeypatch.setattr(strategies, "OPERATIONS", 4e7)
    first, second = kf.factor_linear(matrix), kf.factor_linear(matrix)
    assert "ended at its limit" in first.note and "limit" not in full.note
    assert full.condition_number < first.condition_number < first.before_search
    assert first.is_exact and np.array_equal(dense(first), dense(second))


def test_a_budget_has_a_part_for_polishing():
    """Operations are counted, and the clock is read."""
    budget = SearchBudget(operations=3e9)
    with budget.active():
        spend(1.5e9)
        with pytest.raises(OutOfBudget):
            spend(1e9)
        assert budget.is_over
        spend(0.1e9)
        with pytest.raises(OutOfBudget):
            spend(1e9)
    spend(1e12)  # without a budget there is no limit
    late = SearchBudget(max_time_s=1e-9)
    time.sleep(1e-3)
    with late.active(), pytest.raises(OutOfBudget):
        spend(0)


def test_progress_tells_the_steps():
    """At the start, on the path, then during the descent."""
    texts = []
    kf.factor_linear(gaussian(3), progress=texts.append)
    assert texts[:2] == ["looking for a start", "following the path, 0%"]
    assert texts[-1].startswith("improving the largest condition number, now ")
    report("without a budget, nobody listens")


@pytest.mark.parametrize("condition", [1e10, 1e13])
@pytest.mark.parametrize("n", [4, 16])
def test_ill_conditioned_maps_have_the_closed_form(monkeypatch, n, condition):
    """By default and with eleven; with six the error names the way out. There is no search."""
    no_search(monkeypatch)
    matrix = geometric(n, np.random.default_rng(0), condition)
    for couplings in ("auto", 11, None):
        result = kf.factor_linear(matrix, couplings=couplings)
        assert result.method == "svd" and result.residual < 1e-13
    with pytest.raises(NumericalError, match=r"too large for a search .* pass couplings=11"):
        kf.factor_linear(matrix, couplings=6)
    with pytest.raises(NumericalError, match="too large for a search"):
        kf.factor_linear(matrix, couplings=6, method="continuation")


def test_all_scales_free_reach_rounding_near_that_condition_number():
    """The last step solves for the couplings with their scales: the residual was 1e-8."""
    result = kf.factor_linear(geometric(4, np.random.default_rng(0), 1e9), couplings=6)
    assert result.residual < 1e-13 and result.is_exact


def test_a_closed_form_that_rounding_spoils_is_passed_over():
    """Six couplings of the Hilbert matrix, condition number 2e13: an error, no wrong product."""
    matrix = hilbert(10)
    with pytest.raises(NumericalError, match=r"too large for a search .* pass couplings=11"):
        kf.factor_linear(matrix, couplings=6)
    with pytest.raises(NumericalError, match="positive"):
        kf.factor_linear(matrix, method="positive")
    for couplings in ("auto", 11):
        result = kf.factor_linear(matrix, couplings=couplings)
        assert result.method == "svd" and result.residual < 1e-13
    with pytest.raises(NumericalError, match="eigenvalues that are not positive"):
        factor_positive_definite(np.diag([-1e-20, 1.0, 1.0, 1.0]))


def test_exactness_is_judged_by_the_inverse_too():
    """The residual of six couplings of the Hilbert matrix is 8e-11, that of the inverse 1e-5."""
    matrix = hilbert(6)
    with pytest.warns(NumericalWarning, match=r"P\^-1 T from the identity by .*couplings=11"):
        result = kf.factor_linear(matrix, method="positive")
    error = np.linalg.norm(np.linalg.inv(dense(result)) @ matrix - np.eye(6)) / 6**0.5
    assert not result.is_exact and result.residual < 1e-9 and result.inverse_residual > 1e-6
    assert result.inverse_residual == pytest.approx(error, rel=0.1)
    assert kf.factor_linear(matrix).is_exact


@pytest.mark.parametrize("couplings", [6, "auto"])
def test_two_ill_conditioned_couplings_do_not_replace_six(couplings):
    """This map is two couplings, which a nearly zero entry makes ill-conditioned."""
    matrix = np.array([[0.01, -1.0], [1.0, 0.5]])
    few = kf.factor_linear(matrix, couplings=None)
    result = kf.factor_linear(matrix, couplings=couplings)
    assert len(few) == 2 and few.condition_number > 100
    assert len(result) == 6 and result.condition_number < 4
    number = f"{few.condition_number:.3g}"
    assert f"couplings=None gives 2 with a largest condition number of {number}" in result.note


@pytest.mark.parametrize(("conditions", "seeds"), [((9, 2, 1), [5, 6]), ((9, 8, 7), [5, 6, 7])])
def test_other_seeds_follow_while_the_result_is_far_from_the_bound(conditions, seeds, monkeypatch):
    """The best result is kept. The bound of the identity is 1."""
    calls = []

    def one_search(problem, couplings, seed):
        calls.append(seed)
        return [Factor(True, np.zeros((1, 1)), np.array([float(conditions[len(calls) - 1])]))]

    monkeypatch.setattr(search, "_continued", one_search)
    factors = search.by_continuation(factor_problem(np.eye(2), "half"), 6, 5)
    assert calls == seeds and factors[0].diagonal == min(conditions[: len(seeds)])


@pytest.mark.parametrize("scale", [1e-310, 1e-295, 1e295])
def test_scales_at_the_ends_of_float64_are_refused(scale):
    """The message says which scale it is, and what to do."""
    with pytest.raises(NumericalError, match="divide the matrix by that"):
        kf.factor_linear(scale * gaussian(6) / 10)


def test_a_poor_result_is_compared_with_fewer_couplings(monkeypatch):
    """Six are better than failed searches for more, and than a closed form of eleven."""
    matrix, real = geometric(4, np.random.default_rng(0), 1e3), search.by_continuation
    calls = []

    def by_continuation(problem, couplings, seed):
        calls.append(couplings)
        return no() if couplings > 6 else real(problem, couplings, seed)

    monkeypatch.setattr(strategies, "by_continuation", by_continuation)
    result = kf.factor_linear(matrix, couplings=11)
    assert calls == [11, 8, 6] and len(result) == 6
    assert result.condition_number < 10 < 30 < result.before_search


@pytest.mark.parametrize("n", [4, 12, 66])
@pytest.mark.parametrize("kind", ["geometric", "outlier", "small", "two"])
def test_positive_definite_maps_have_six_in_closed_form(n, kind):
    """Any spectrum of condition number 100, not only of determinant 1."""
    values = {
        "geometric": np.geomspace(1, 100, n),
        "outlier": np.r_[np.ones(n - 1), 100],
        "small": np.r_[np.ones(n - 1), 0.01],
        "two": np.repeat([1.0, 100], n // 2),
    }[kind]
    turn = orthogonal(n, np.random.default_rng(1))
    matrix = (turn * values) @ turn.T
    result = kf.factor_linear((matrix + matrix.T) / 2, method="positive")
    assert len(result) == 6 and result.flipped is None
    assert np.linalg.norm(dense(result) - matrix) < 1e-12 * np.linalg.norm(matrix)
    assert result.lower_bound < result.condition_number < 100


def test_six_couplings_of_a_large_positive_definite_map_need_no_search(monkeypatch):
    """As `Whiten` asks for; other maps have no such closed form."""
    no_search(monkeypatch)
    matrix = np.cov(gaussian(66).cumsum(0), bias=True) + np.eye(66)
    assert kf.factor_linear(matrix, couplings=6).method == "positive"
    with pytest.raises(kf.errors.ArgumentError, match="not symmetric positive definite"):
        by_positive(factor_problem(gaussian(4), "half"))


def test_the_lower_bound_is_that_of_one_size_a_diagonal():
    """It is stronger than the root of cond(T) if one singular value is small."""
    turn = orthogonal(4, np.random.default_rng(2))
    matrix = turn * np.r_[np.ones(3), 1e-4]
    result = kf.factor_linear(matrix, couplings=6)
    strong, plain = 1e4 ** (2 * (1 - 1 / 4) / 6), 1e4 ** (1 / 6)
    assert result.lower_bound == pytest.approx(strong) and strong > 2 * plain
    assert result.condition_number > result.lower_bound
    assert result.lower_bound == pytest.approx(kf.theory.scaled_lower_bound(matrix, 6))
    scaled = kf.factor_linear(1e6 * turn, couplings=6, method="rotation")
    assert scaled.condition_number > scaled.lower_bound == pytest.approx(100)
    eleven = kf.factor_linear(matrix, method="svd")  # its carriers have diagonals of many sizes
    assert eleven.lower_bound == pytest.approx(1e4 ** (1 / 11))
