"""Draws of missing numbers."""

import numpy as np
import torch

from kappaflow.mixed.proposals import Proposals


def test_a_table_without_numbers_has_nothing_to_draw():
    """Rows of labels alone stay as they are, with a density of 1."""
    proposals = Proposals([], 2).fit(np.zeros((3, 0)), np.eye(3)[:, :2])
    numbers, missing = torch.zeros(3, 0, dtype=torch.float64), torch.zeros(3, 0, dtype=torch.bool)
    drawn, log_q = proposals.drawn(numbers, torch.eye(3)[:, :2], missing, torch.Generator())
    assert drawn.shape == (3, 0) and log_q.tolist() == [0.0, 0.0, 0.0]
