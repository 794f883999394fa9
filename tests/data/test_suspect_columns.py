"""Columns that are not measurements: identifiers, weights and one-hot codes are recognized."""

import numpy as np
import pandas as pd
import pytest

from kappaflow.data import examine, load_table
from kappaflow.data.counting import identifiers

G = np.random.default_rng(0)
X = G.normal(size=(200, 2))
KEPT = np.sort(G.choice(1000, 200, replace=False))
ORDERS = {
    "after most rows were dropped": KEPT,
    "after some rows were dropped": np.delete(np.arange(206), [3, 7, 50, 51, 120, 200]),
    "in any order": G.permutation(np.arange(5000, 5200)),
    "in steps of 10": 10 * KEPT,
}


@pytest.mark.parametrize("name", ORDERS)
def test_identifiers_with_gaps_are_left_out_of_frames(name):
    """Whole numbers, all different, where random ones would repeat."""
    numbers = ORDERS[name]
    table = load_table(pd.DataFrame({"number": numbers, "a": X[:, 0], "b": X[:, 1]}))
    assert table.columns == ("a", "b")
    assert table.notes == (
        "column 'number' is left out: it has a different whole number in each row, from "
        f"{numbers.min()} to {numbers.max()}, as identifiers have; name it in columns= to model "
        "it",
    )
    array = load_table(np.column_stack([X, numbers]))
    (problem,) = (one for one in examine(array) if one.columns == ("x2",))
    assert problem.code == "counts-rows"
    assert "a different whole number in each row" in problem.message
    assert "exclude=['x2']" in problem.message


@pytest.mark.parametrize(
    "numbers",
    [
        G.integers(0, 300, 200),
        G.choice(100_000, 200, replace=False),  # as it happens without a cause too
        np.arange(19),
        [*range(199), 7],
        X[:, 0],
        [*range(199), np.nan],
    ],
)
def test_measured_numbers_are_no_identifiers(numbers):
    """They repeat, or lie so far apart that they would not."""
    assert identifiers(np.array(numbers, dtype=float)) is None


@pytest.mark.parametrize(
    "name", ["weight", "Weights", "w", "sample_weight", "mc_weight_total", "eventweight", "wgt"]
)
def test_a_column_named_like_a_weight_gets_a_question(name):
    """With the arguments that take weights; not if it was named, or is negative somewhere."""
    frame = pd.DataFrame({name: X[:, 0] ** 2 + 0.1, "a": X[:, 1]})
    (note,) = load_table(frame).notes
    assert note.startswith(f"column {name!r} is named like a weight of rows, and is modeled")
    assert f"exclude=['{name}']" in note and "weights=" in note and "sample_weight=" in note
    for options in ({"columns": [name, "a"]}, {"context": [name]}):
        assert load_table(frame, **options).notes == ()
    assert load_table(frame.assign(**{name: X[:, 0]})).notes == ()
    other = {"v": frame[name], "weightless": frame[name], "window": frame["a"]}
    assert load_table(pd.DataFrame(other)).notes == ()


def test_one_hot_columns_are_distinguished_from_other_dependent_ones():
    """Two categories; shares that add up to 1 are no code."""
    kinds = np.eye(3)[np.arange(200) % 3]
    sides = np.eye(2)[np.arange(200) // 100]
    names = ["a", "b", "red", "green", "blue", "left", "right"]
    frame = pd.DataFrame(np.hstack([X, kinds, sides]), columns=names)
    messages = [one.message for one in examine(load_table(frame)) if one.severity == "error"]
    assert len(messages) == 2
    assert messages[0].startswith("columns 'red', 'green', 'blue' are one category, one-hot")
    assert "drop='first' (OneHotEncoder) or drop_first=True (get_dummies)" in messages[1]
    shares = G.dirichlet([1, 1, 1], 200)
    (problem,) = (one for one in examine(load_table(shares)) if one.severity == "error")
    assert "depend on each other linearly" in problem.message
