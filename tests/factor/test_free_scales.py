"""All blocks and scales of the couplings of a small map: what the fifth free scale gains."""

import numpy as np
import pytest

import kappaflow as kf
from factor.ensembles import block_diagonal, geometric, orthogonal
from kappaflow.factor.continuation import continue_to
from kappaflow.factor.coupling import unit_factors
from kappaflow.factor.factorization import residuals
from kappaflow.factor.free_scales import _Program, follow_with_free_scales, free_scales
from kappaflow.factor.rotation import factor_rotation


def outliers(features, norm):
    """Returns the map of Theorem 7, with ones added to both halves."""
    return np.diag([1 / norm, norm, *[1.0] * (features // 2 - 2)] * 2)


@pytest.mark.parametrize(
    ("features", "norm", "figure"),
    [
        (4, 10.0, 4.44),
        (4, 100.0, 14.2),
        pytest.param(4, 1000.0, 44.7, marks=pytest.mark.slow),
        pytest.param(4, 1e4, 142.5, marks=pytest.mark.slow),
        pytest.param(6, 1000.0, 44.5, marks=pytest.mark.slow),
        pytest.param(8, 1000.0, 44.4, marks=pytest.mark.slow),
    ],
)
def test_outliers_grow_like_the_square_root_of_the_norm(features, norm, figure):
    """The figures of the page: above the bound of Theorem 7, and below 1.5 times the root."""
    result = kf.factor_linear(outliers(features, norm), method="continuation")
    assert result.condition_number == pytest.approx(figure, rel=0.02)
    assert (norm**2 / 2 - norm) ** 0.25 < result.condition_number < 1.5 * norm**0.5
    assert result.residual < 1e-13 and result.inverse_residual < 1e-8


@pytest.mark.slow
def test_without_the_path_outliers_are_worse(monkeypatch):
    """From one seed, for one of two maps: which one depends on rounding."""
    monkeypatch.setattr("kappaflow.factor.search.FAR", np.inf)
    monkeypatch.setattr("kappaflow.factor.search.SEEDS", 1)
    results = [
        kf.factor_linear(outliers(features, 1000.0), method="continuation") for features in (4, 6)
    ]
    assert max(result.condition_number for result in results) > 100


def test_the_product_stays_and_the_scale_of_the_map_is_shared():
    """A multiple of a map, in a partition, of negative determinant."""
    matrix = 7 * np.diag([-0.01, 100.0, 0.01, 100.0])
    result = kf.factor_linear(matrix, method="continuation", partition="alternating")
    assert result.residual < 1e-13 and result.flipped is not None
    plain = kf.factor_linear(matrix / 7, method="continuation", partition="alternating")
    assert result.condition_number < 2 * plain.condition_number


def test_derivatives_are_those_of_differences():
    """Of the product, and of the smooth costs."""
    rng = np.random.default_rng(0)
    matrix = orthogonal(4, rng)
    program = _Program(unit_factors(factor_rotation(matrix)), matrix)
    values = program.start + 0.3 * rng.standard_normal(len(program.start))
    step = 1e-6 * np.eye(len(values))
    for function, slope in (
        (program.residual, program.slope(values)),
        (lambda v: program.costs(v, 4)[0], program.costs(values, 4)[1]),
    ):
        numeric = [(function(values + shift) - function(values - shift)) / 2e-6 for shift in step]
        np.testing.assert_allclose(slope, np.transpose(numeric), atol=1e-7)


def test_couplings_that_cannot_improve_are_returned():
    """Those of the identity."""
    factors = unit_factors([np.zeros((2, 2))] * 6)
    assert free_scales(factors, np.eye(4)) == factors


def test_what_is_returned_is_no_worse():
    """Rotations, from their closed form."""
    matrix = orthogonal(4, np.random.default_rng(3))
    factors = unit_factors(factor_rotation(matrix))
    result = free_scales(factors, matrix)
    assert max(f.condition_number for f in result) < max(f.condition_number for f in factors)
    assert residuals(result, matrix)[0] < 1e-13


@pytest.mark.parametrize("features", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_a_path_of_free_scales_returns_the_better_factors(features, monkeypatch):
    """It improves poor couplings of a map, and keeps good ones if its own are worse or missing."""
    rng = np.random.default_rng(features)
    matrix = geometric(features, rng, 1e3)
    matrix /= np.linalg.det(matrix) ** (1 / features)
    poor = unit_factors(continue_to(matrix, 6, steps=0))

    def first(near):
        return unit_factors(continue_to(near, 6))

    better = follow_with_free_scales(poor, matrix, first)
    assert residuals(better, matrix)[0] < 1e-13
    worst, best = (max(f.condition_number for f in factors) for factors in (poor, better))
    assert best < 0.9 * worst
    monkeypatch.setattr(_Program, "solved", lambda program: poor)
    assert follow_with_free_scales(better, matrix, first) == better
    monkeypatch.setattr(_Program, "solved", lambda program: None)
    assert follow_with_free_scales(better, matrix, first) == better


@pytest.mark.slow
def test_the_figures_of_maps_with_a_cycle_are_those_of_the_page():
    """One small value and a cycle of three in four features, in both orders, and both at once."""
    for norm, figures in ((10, (5.3, 2.8, 4.8)), (100, (29, 4.8, 15.4)), (1000, (139, 10.07, 51))):
        matrix = np.zeros((4, 4))
        matrix[0, 0] = 1 / norm
        matrix[[1, 2, 3], [2, 3, 1]] = norm ** (1 / 3)
        exchanged = np.roll(matrix, (2, 2), (0, 1))
        order = [0, 1, 4, 5, 2, 3, 6, 7]
        both = block_diagonal(matrix, exchanged)[np.ix_(order, order)]
        for trial, figure in zip((matrix, exchanged, both), figures, strict=True):
            result = kf.factor_linear(trial, method="continuation")
            assert result.condition_number == pytest.approx(figure, rel=0.02)
