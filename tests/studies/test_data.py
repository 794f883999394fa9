"""The tables that flows of experiments are trained on."""

import math

import numpy as np
import pytest
import torch

from kappaflow.errors import ArgumentError
from kappaflow_studies import ensembles
from kappaflow_studies.data import bananas, table_parts


def test_the_density_of_bananas_is_that_of_what_made_them():
    """Turned back and unbent they are normal, with that log-density: nothing changes volume."""
    x, log_prob = bananas(4000, 6, torch.Generator().manual_seed(1))
    turn = torch.from_numpy(ensembles.draw("orthogonal", 6, 0).copy())
    z = x @ turn
    z[:, 1::2] -= z[:, ::2].square() - 1
    expected = -0.5 * z.square().sum(1) - 3 * math.log(2 * math.pi)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(6).double(), rtol=0, atol=0.1)
    assert abs(z.mean(0)).max() < 0.1
    # Not a Gaussian of the same covariance, which has less entropy only if it is normal itself.
    gaussian = 0.5 * torch.logdet(2 * math.pi * math.e * torch.cov(x.T))
    assert gaussian + log_prob.mean() > 0.5


def test_bananas_come_in_three_parts():
    """Drawn from one seed, the density of the last one known."""
    parts = table_parts("bananas-4", 100, 3)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [100, 2000, 2000]
    assert parts.train.values.shape == (100, 4) and parts.log_prob.shape == (2000,)
    again = table_parts("bananas-4", 100, 3)
    assert np.array_equal(parts.test.values, again.test.values)
    assert not np.array_equal(parts.test.values, table_parts("bananas-4", 100, 4).test.values)
    with pytest.raises(ArgumentError, match="even number of features, got 'bananas-3'"):
        table_parts("bananas-3", 100, 0)


@pytest.mark.slow
def test_a_shipped_table_is_split_as_a_fit_splits_it():
    """So many rows to train on, others to judge by."""
    parts = table_parts("magic", 500, 0)
    assert len(parts.train) == 500 and len(parts.test) > 1000 and parts.log_prob is None
    assert not set(parts.train.rows) & set(parts.test.rows)
