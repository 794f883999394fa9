"""Six and more couplings by continuation: products, conditioning, determinism, errors."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import kappaflow as kf
from factor.ensembles import cycle, gaussian, geometric, orthogonal, unit
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.factor import search
from kappaflow.factor.algebra import product
from kappaflow.factor.continuation import (
    continue_to,
    continue_to_five,
    worst_condition_number,
)
from kappaflow.factor.paths import FiveCouplingPath, Path


def spectrum(n, condition, seed=0):
    """Returns a map of determinant 1 with a geometric spectrum."""
    return unit(geometric(n, np.random.default_rng(seed), condition))


def rotation(n, seed=0):
    """Returns a random rotation."""
    return orthogonal(n, np.random.default_rng(seed))


CASES = {
    "gaussian 2": gaussian(2),
    "gaussian 3": gaussian(3),
    "gaussian 4": gaussian(4),
    "gaussian 15": gaussian(15),
    "gaussian 20": gaussian(20),
    "geometric 1e4": spectrum(12, 1e4),
    "geometric 1e6": spectrum(10, 1e6),
    "identity": np.eye(6),
    "minus identity": -np.eye(6),
    "three-cycle": cycle(8, 3),
    "three-cycle, odd": cycle(7, 3),
    "triangular": unit(np.triu(gaussian(8)) + 2 * np.eye(8)),
    "block diagonal": np.kron(np.eye(2), gaussian(3)),
    "rotation": rotation(16),
    "odd rotation": rotation(9),
    "last axis turned back": np.diag([1.0, -1.0, 1.0, 1.0, -1.0]),
    "upper coupling": np.block([[np.eye(3), gaussian(3)], [np.zeros((3, 3)), np.eye(3)]]),
}


@pytest.mark.parametrize("matrix", CASES.values(), ids=CASES)
def test_six_couplings_make_every_map(matrix):
    """The product is the map, whatever its structure, and the conditioning is bounded."""
    six = continue_to(matrix, 6, steps=60)
    assert len(six) == 6
    off = np.linalg.norm(product(six) - matrix) / np.linalg.norm(matrix)
    assert off < 1e-11
    assert worst_condition_number(six) >= np.linalg.cond(matrix) ** (1 / 6) * (1 - 1e-6)
    assert worst_condition_number(six) < 13.6 + 2 * np.linalg.cond(matrix) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("n", "couplings"), [(6, 7), (7, 7), (6, 8), (6, 11), (7, 12)])
def test_more_couplings_make_every_map_too(n, couplings):
    """Odd and even counts, L first."""
    matrix = gaussian(n)
    blocks = continue_to(matrix, couplings, steps=30)
    assert len(blocks) == couplings
    np.testing.assert_allclose(product(blocks), matrix, atol=1e-9)


@pytest.mark.slow
def test_more_couplings_are_better_conditioned():
    """Six, eight and twelve couplings at condition number 1e4."""
    matrix = spectrum(12, 1e4)
    result = [worst_condition_number(continue_to(matrix, couplings)) for couplings in (6, 8, 12)]
    assert result[0] < 20
    assert result[1] < 0.8 * result[0]
    assert result[2] < 0.8 * result[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("matrix", "couplings", "residual", "bound"),
    [
        (rotation(64), 6, 1e-13, 4.5),
        (gaussian(64), 6, 1e-12, 8),
        (spectrum(64, 1e6), 6, 1e-8, 80),  # what counts here is the product times T^-1
        (spectrum(64, 1e6), 8, 1e-8, 40),
    ],
    ids=["rotation", "gaussian", "1e6", "1e6, eight"],
)
def test_large_maps_reach_the_documented_numbers(matrix, couplings, residual, bound):
    """One draw each; the benchmark has the medians."""
    blocks = continue_to(matrix, couplings)
    built = product(blocks)
    assert np.linalg.norm(built - matrix) < residual * np.linalg.norm(matrix)
    assert np.linalg.norm(built @ np.linalg.inv(matrix) - np.eye(len(matrix)), 2) < 1e-8
    assert worst_condition_number(blocks) <= bound


@pytest.mark.slow
def test_the_same_seed_gives_the_same_blocks():
    """Bit for bit; another seed gives other blocks."""
    matrix = gaussian(6)
    one, two, other = (np.stack(continue_to(matrix, 6, seed=s, steps=20)) for s in (3, 3, 4))
    assert (one == two).all()
    assert not np.allclose(one, other)


@pytest.mark.slow
def test_five_couplings_make_maps_with_an_invertible_corner():
    """Their conditioning is worse than that of six."""
    for seed in range(2):
        matrix = gaussian(8, seed)
        five = continue_to_five(matrix)
        assert len(five) == 5
        np.testing.assert_allclose(product(five), matrix, atol=1e-8)
        assert worst_condition_number(five) > worst_condition_number(continue_to(matrix, 6))


def test_five_couplings_are_refused_where_the_corner_is_singular():
    """Theorem A: the 3-cycle needs six."""
    with pytest.raises(ArgumentError, match="upper right block"):
        continue_to_five(cycle(8, 3))
    with pytest.raises(ArgumentError, match="even size"):
        continue_to_five(gaussian(5))


def test_fewer_than_six_are_refused():
    """They do not represent every map."""
    with pytest.raises(ArgumentError, match="at least 6"):
        continue_to(np.eye(4), 5)


def test_a_lost_path_raises_an_error_with_likely_causes(monkeypatch):
    """The error names the symptom, the likely causes and the way out."""
    monkeypatch.setattr("kappaflow.factor.continuation.SHORTEST", 2.0)
    monkeypatch.setattr("kappaflow.factor.continuation.ON_THE_PATH", 1e-30)
    with pytest.raises(NumericalError, match="attempts.*Likely causes.*Eleven"):
        continue_to(gaussian(4), 6)


@pytest.mark.parametrize(
    "path", [Path(gaussian(6)), Path(gaussian(7)), FiveCouplingPath(gaussian(6))]
)
def test_a_path_runs_from_its_closed_form_to_the_map(path):
    """Every point of the path has determinant 1 and the right inverse."""
    start = path.at(path.begin)
    np.testing.assert_allclose(product(path.blocks()), start.matrix, atol=1e-12)
    last = start.matrix
    for t in np.linspace(path.begin, 1, 101):
        point = path.at(t)
        np.testing.assert_allclose(point.matrix @ point.inverse, np.eye(len(last)), atol=1e-9)
        assert np.linalg.det(point.matrix) == pytest.approx(1)
        assert np.linalg.norm(point.matrix - last) < 0.5
        last = point.matrix
    target = gaussian(len(last))
    np.testing.assert_allclose(last, target, atol=1e-10)


def test_a_search_of_small_matrices_keeps_to_one_thread(monkeypatch):
    """Afterwards BLAS has its threads again."""
    small = gaussian(4)
    blocks, seen = continue_to(small, 6), []

    def spy(matrix, couplings, **settings):  # two threads that wait take as long as they search
        seen.append(blas_threads())
        return blocks

    monkeypatch.setattr(search, "continue_to", spy)
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        kf.factor_linear(small, couplings=6, method="continuation")
        assert blas_threads() == before
    assert max(before) == 2
    assert set(seen[0]) == {1}


def blas_threads():
    """Returns the number of threads of each pool."""
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
