"""Two groups of rows, and the Lipschitz constant that they demand."""

import numpy as np
import pytest
from scipy.special import ndtr

from kappaflow.errors import ArgumentError
from kappaflow_studies.theory import least_lipschitz, separated_modes

STEEP = 60.0


def torn(rows, width, features=1, seed=0):
    """Returns normal rows whose first column is stretched by 60 on an interval from 0 on."""
    z = np.random.default_rng(seed).normal(size=(rows, features))
    z[:, 0] += (STEEP - 1) * np.clip(z[:, 0], 0, width)
    return z


def test_the_bound_is_the_constant_of_a_map_that_is_steep_only_between():
    """Half-spaces attain the isoperimetric inequality, whatever the share of the first."""
    for start in (-1.0, 0.0, 0.7):
        between = ndtr(start + 0.01) - ndtr(start)
        assert least_lipschitz(ndtr(start), between, 0.01 * STEEP) == pytest.approx(STEEP)


@pytest.mark.parametrize("features", [1, 4])
def test_of_rows_it_is_below_the_true_constant(features):
    """Up to the share between, which is known from few rows only."""
    modes = separated_modes(torn(2_000, 0.05, features), torn(4_000, 0.05, features, seed=1))
    assert 0.25 * STEEP < modes.lipschitz < STEEP
    assert sum(modes.shares) + (modes.groups < 0).mean() == pytest.approx(1)


def test_groups_need_not_be_separated_by_a_plane():
    """A ring around a point: distances to rows separate them."""

    def rings(rows, seed):
        rng = np.random.default_rng(seed)
        angle, radius = rng.uniform(0, 2 * np.pi, rows), 3.0 * rng.integers(2, size=rows)
        ring = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return ring + 0.1 * rng.normal(size=(rows, 2))

    modes = separated_modes(rings(2_000, 0), rings(2_000, 1))
    assert modes.lipschitz > 100
    assert {*modes.groups[modes.groups >= 0]} == {0, 1}


def test_one_group_demands_nothing():
    """Nor do too few rows."""
    rng = np.random.default_rng(0)
    modes = separated_modes(rng.normal(size=(2_000, 3)), rng.normal(size=(2_000, 3)))
    assert modes is None or modes.lipschitz < 1.5
    assert separated_modes(np.zeros((9, 1)), np.zeros((9, 1))) is None
    assert separated_modes(np.zeros((90, 1)), np.zeros((90, 1))) is None


@pytest.mark.parametrize("arguments", [(0.0, 0.1, 1.0), (0.5, 0.0, 1.0), (0.5, 0.5, 1.0)])
def test_shares_outside_their_range_are_refused(arguments):
    """A share of nothing, nothing between, or nothing left for the other region."""
    with pytest.raises(ArgumentError, match="'share' and 'between' should be"):
        least_lipschitz(*arguments)
