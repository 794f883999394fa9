"""Columns with a domain in a table: whose they are, what is refused, what a repair does."""

import math

import numpy as np
import pytest

from kappaflow.data import load_table
from kappaflow.data.domains import (
    bounds_of,
    clip_to_domain,
    domains_of,
    unwrap_circles,
)
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError

POSITIVE, SHARE = Interval(0.0, None), Interval(0.0, 1.0)
DEGREES = Interval(0.0, 360.0, circular=True)


def table(*columns):
    """A table of columns x0, x1, ..."""
    return load_table(np.stack([np.asarray(column, dtype=float) for column in columns], 1))


def test_domains_go_by_names_places_and_texts():
    """All three ways say the same."""
    rows = table([0.5, 0.7], [0.1, 0.2])
    expected = {"x0": POSITIVE, "x1": SHARE}
    assert domains_of({"x0": "positive", "x1": (0, 1)}, rows) == expected
    assert domains_of({0: "positive", 1: "0,1"}, rows) == expected
    assert domains_of(["x0=positive", "x1=0,1"], rows) == expected
    assert bounds_of({"x1": SHARE}, rows.columns) == [None, "0,1"]
    assert bounds_of({}, rows.columns) is None


def test_a_circle_of_radians_is_read_as_its_values_are():
    """From -pi to pi, or from 0 to 2 pi where that holds them all and the other does not."""
    assert domains_of({0: "circular"}, table([-1.0, 1.0]))["x0"].low == -math.pi
    assert domains_of({0: "circular"}, table([1.0, 2.0]))["x0"].low == -math.pi
    assert domains_of({0: "circular"}, table([1.0, 5.0]))["x0"].low == 0
    assert domains_of({0: "circular"}, table([-1.0, 5.0]))["x0"].low == -math.pi  # refused later


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"mass": "positive"}, "'bounds' names column 'mass', which is not modeled"),
        ({7: "positive"}, "'bounds' names column '7'"),
        (["x0"], "'bounds' should map columns .*or list texts like mass=positive.*got 'x0'"),
        ([None, "positive"], "should map columns to domains.*got None"),
        (["x0=positive", "x0=0,1"], "'x0' is there twice"),
        ("x0=positive", "'bounds' should map columns"),
        ({"x0": "big"}, "'bounds' should be 'positive'"),
    ],
    ids=str,
)
def test_bounds_of_no_column_are_refused(bounds, message):
    """In one sentence."""
    with pytest.raises(ArgumentError, match=message):
        domains_of(bounds, table([1.0, 2.0]))


@pytest.mark.parametrize("repair", [None, "jitter"])
def test_a_value_outside_is_refused_with_column_row_and_value(repair):
    """Noise does not make it right."""
    message = r"column 'x0' of .* should lie above 0, row 2 has -0.25, as have 1 more rows"
    with pytest.raises(DataError, match=message):
        clip_to_domain(table([1.0, -0.25, 3.0, -1.0]), {"x0": POSITIVE}, repair=repair)


def test_an_angle_outside_is_to_be_wrapped_by_who_gives_it():
    """370 degrees are refused; 0 and 360 are one place, and taken."""
    with pytest.raises(DataError, match="row 2 has 370: wrap the column first, modulo 360"):
        clip_to_domain(table([0.0, 370.0]), {"x0": DEGREES})
    kept = table([0.0, 360.0, 180.0])
    assert clip_to_domain(kept, {"x0": DEGREES}) == (kept, ())


def test_values_on_an_end_are_refused_with_their_count_and_a_cure():
    """Zeros have no logarithm, and no density above 0 has a value there."""
    with pytest.raises(DataError, match=r"2 rows hold an end of that, 0 \(first row 2\)") as error:
        clip_to_domain(table([1.0, 0.0, 3.0, 0.0]), {"x0": POSITIVE})
    assert "repair='jitter'" in str(error.value) and "repair='drop'" in str(error.value)
    with pytest.raises(DataError, match="1 row holds an end of that, 1 "):
        clip_to_domain(table([0.5, 1.0, 0.25]), {"x0": SHARE})


def test_drop_leaves_out_rows_beyond_and_on_an_end():
    """And says how many, and where."""
    left, notes = clip_to_domain(table([1.0, 0.0, -3.0, 2.0]), {"x0": POSITIVE}, repair="drop")
    assert left.rows.tolist() == [1, 4] and len(notes) == 2
    assert "dropped 1 row with 'x0' outside of its domain, above 0 (row 3)" in notes


def test_jitter_moves_values_on_an_end_inside_short_of_all_others():
    """The others stay what they are; the same seed makes the same noise."""
    rows = table([0.0, 0.5, 1.0, 1e-9, 0.0, 1.0, 0.999])
    moved, notes = clip_to_domain(rows, {"x0": SHARE}, repair="jitter")
    values = moved.values[:, 0]
    assert ((values > 0) & (values < 1)).all() and len(set(values)) == 7
    assert values[[1, 3, 6]].tolist() == [0.5, 1e-9, 0.999]
    assert (values[[0, 4]] < 1e-9).all() and (values[[2, 5]] > 0.999).all()
    assert notes == (
        "moved 4 values of 'x0' from an end of its domain, between 0 and 1, inside, short of all "
        "others",
    )
    again = clip_to_domain(rows, {"x0": SHARE}, repair="jitter")[0]
    np.testing.assert_array_equal(again.values, moved.values)


def test_noise_that_crosses_an_end_is_mirrored_and_on_a_circle_wrapped():
    """What jittering a whole column does stays in its domain."""
    rows = table([-0.01, 0.5], [1.02, 0.5], [-1.0, 5.0])
    put = unwrap_circles(rows, {"x0": POSITIVE, "x1": SHARE, "x2": DEGREES}).values
    np.testing.assert_allclose(put, [[0.01, 0.98, 359.0], [0.5, 0.5, 5.0]])


def test_missing_values_are_left_to_what_looks_for_them():
    """They lie in no domain and outside of none."""
    rows = table([1.0, float("nan")])
    assert clip_to_domain(rows, {"x0": POSITIVE}) == (rows, ())
