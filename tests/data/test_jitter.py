"""Noise on columns that are named."""

import numpy as np
import pytest

from kappaflow.data import load_table
from kappaflow.data.prepare import jitter_columns
from kappaflow.errors import DataError


def test_a_column_gets_a_thousandth_of_its_spread_and_the_others_nothing():
    values = np.random.default_rng(0).normal(size=(4000, 3)) * (1, 50, 3)
    table = load_table(values)
    moved = jitter_columns(table, ["x1"]).values - table.values
    assert not moved[:, [0, 2]].any()
    assert moved[:, 1].std() == pytest.approx(0.05, rel=0.05)
    assert np.array_equal(jitter_columns(table, ["x1"]).values - table.values, moved)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(DataError, match="'nothing' cannot be given noise"):
        jitter_columns(load_table(np.random.default_rng(0).normal(size=(40, 2))), ["nothing"])
