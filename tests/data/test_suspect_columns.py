"""Columns that are not measurements: identifiers, weights and one-hot codes are recognized."""

import numpy as np
import pandas as pd
import pytest

from kappaflow.data import examine, load_table
from kappaflow.data.raw import identifiers

G = np.random.default_rng(0)
X = G.normal(size=(200, 2))
KEPT = np.sort(G.choice(1000, 200, replace=False))


@pytest.mark.parametrize("numbers", [KEPT, 10 * KEPT, G.permutation(np.arange(5000, 5200))])
def test_identifiers_with_gaps_are_left_out_of_frames(numbers):
    """Rows were dropped, or are in any order: all differ, where random numbers would repeat."""
    table = load_table(pd.DataFrame({"number": numbers, "a": X[:, 0], "b": X[:, 1]}))
    assert table.columns == ("a", "b")
    (note,) = table.notes
    assert "a different whole number in each row" in note and "columns= to model it" in note
    array = load_table(np.column_stack([X, numbers]))
    (problem,) = (problem for problem in examine(array) if problem.columns == ("x2",))
    assert problem.code == "counts-rows" and "exclude=['x2']" in problem.message


@pytest.mark.parametrize(
    "numbers",
    [
        G.integers(0, 300, 200),
        G.choice(100_000, 200, replace=False),  # as it happens without a cause too
        np.arange(19),
        X[:, 0],
        [*range(199), np.nan],
    ],
)
def test_measured_numbers_are_no_identifiers(numbers):
    """They repeat, or lie so far apart that they would not."""
    assert identifiers(np.array(numbers, dtype=float)) is None


def test_one_hot_columns_are_distinguished_from_other_dependent_ones():
    """Shares that add up to 1 are no code."""
    kinds = np.eye(3)[np.arange(200) % 3]
    frame = pd.DataFrame(np.hstack([X, kinds]), columns=["a", "b", "red", "green", "blue"])
    shares = load_table(G.dirichlet([1, 1, 1], 200))
    for table, words in ((load_table(frame), "drop='first'"), (shares, "linearly")):
        (problem,) = (problem for problem in examine(table) if problem.severity == "error")
        assert words in problem.message


@pytest.mark.parametrize("name", ["weight", "w", "sample_weight", "mc_weight_total", "wgt"])
def test_a_column_named_like_a_weight_gets_a_question(name):
    """Not if it was named, or is negative somewhere."""
    frame = pd.DataFrame({name: X[:, 0] ** 2 + 0.1, "a": X[:, 1]})
    (note,) = load_table(frame).notes
    assert f"weights='{name}'" in note and "sample_weight=" in note
    for options in ({"columns": [name, "a"]}, {"context": [name]}):
        assert load_table(frame, **options).notes == ()
    assert load_table(frame.assign(**{name: X[:, 0]})).notes == ()
    assert load_table(pd.DataFrame({"weightless": frame[name], "window": frame["a"]})).notes == ()
