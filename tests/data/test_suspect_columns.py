"""Columns that are named like weights get a question."""

import numpy as np
import pandas as pd
import pytest

from kappaflow.data import load_table

G = np.random.default_rng(0)
X = G.normal(size=(200, 2))


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
