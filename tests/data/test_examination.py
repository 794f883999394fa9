"""`examine`: what columns hold, and options that make a fit of the table work."""

import json

import numpy as np
import polars as pl
import pytest

import kappaflow as kf
from kappaflow.data import examine, load_table, prepare
from kappaflow.errors import ArgumentError

G = np.random.default_rng(0)
N = 1200
COLUMNS = {  # values, and what is described of them
    "id": (np.arange(N), "identifier", {"role": "left out", "least": 0.0}),
    "class": (np.array(["a", "b"])[G.integers(0, 2, N)], "text", {"distinct": 2, "least": None}),
    "seen": (G.random(N) < 0.5, "true and false", {"role": "left out"}),
    "mass": (1 + G.exponential(size=N), "continuous", {"bounds": "1,", "missing": 1}),
    "angle": (G.uniform(0, 360, N), "continuous", {"bounds": "circular:0,360"}),
    "count": (G.poisson(3, N), "whole numbers", {"step": 1.0, "least": 0.0, "bounds": None}),
    "size": (G.normal(size=N).round(1), "rounded", {"step": 0.1, "bounds": None}),
    "side": (G.integers(0, 2, N), "two values", {"distinct": 2, "median": None}),
    "code": (np.where(G.random(N) < 0.05, -999.0, G.normal(size=N)), "continuous", {}),
    "level": (np.full(N, 2.5), "constant", {"least": 2.5, "spread": 0.0}),
    "time": (G.normal(size=N), "continuous", {"role": "context", "step": None}),
}
COLUMNS["side"][2]["median"] = float(np.median(COLUMNS["side"][0]))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of these columns, with a missing mass."""
    path = tmp_path_factory.mktemp("examined") / "t.csv"
    frame = pl.DataFrame({name: values for name, (values, *_) in COLUMNS.items()})
    missing = pl.when(pl.col("id") != 7).then(pl.col("mass"))
    frame.with_columns(missing.alias("mass")).write_csv(path)
    return path


def test_each_column_is_described(path):
    """With its type, its range, its step and its bounds."""
    result = examine(path, context="time")
    columns = {column.name: column for column in result.columns}
    assert set(columns) == set(COLUMNS)
    for name, (values, kind, facts) in COLUMNS.items():
        column = columns[name]
        assert column.kind == kind, name
        assert {fact: getattr(column, fact) for fact in facts} == facts, name
        if column.kind not in ("text", "true and false", "constant"):
            kept = np.delete(values, 7) if name == "mass" else values
            assert column.greatest == kept.max() and column.distinct == len(np.unique(kept))
            assert column.median == pytest.approx(np.median(kept))
            assert column.spread and 0 < column.spread < np.ptp(kept)


def test_the_suggested_options_make_a_table_that_can_be_fitted(path):
    """They are arguments as `fit_auto` takes them."""
    result = examine(path, context="time")
    assert result.suggestions == {
        "exclude": ["level"],
        "context": ["time", "side"],
        "missing": ["-999"],
        "repair": "dequantize",
        "bounds": {"mass": "1,", "angle": "circular:0,360"},
    }
    again = examine(path, exclude=["level"], context=["side", "time"], missing=["-999"])
    codes = [problem.code for problem in again]
    assert codes == ["missing", "missing", "integer-valued", "rounded", "edge"]
    table, _ = prepare(again.table, repair="dequantize")
    assert [p.code for p in examine(table)] == ["edge"] and len(table) < N


def test_an_examination_is_the_sequence_of_its_problems(path):
    """The same for a path, a frame and a table; JSON has all of it."""
    result = examine(path)
    assert result == examine(load_table(path)) == tuple(result) and len(result) == len([*result])
    assert result[0].code == "missing" and result[:1] == (result[0],)
    values = {problem.code for problem in examine(pl.read_csv(path))}
    assert values == {problem.code for problem in result}
    assert examine("magic", columns=["fDist"]) == ()
    assert examine(G.normal(size=(400, 2))) == ()
    content = json.loads(json.dumps(result.to_dict()))
    assert content["rows"] == N and content["repeated_rows"] == 0
    assert [column["name"] for column in content["columns"]][-3:] == ["id", "class", "seen"]
    assert content["problems"][0]["message"] == "column 'mass' has a missing value at line 9"
    assert content["suggestions"] == result.suggestions
    assert "error missing" in repr(result) and "bounds=" in result._repr_html_()


def test_options_of_reading_are_not_for_a_table():
    """It was read already."""
    table = load_table("magic", where="class=g")
    assert len(examine("magic", where="class=g").table) == len(table)
    with pytest.raises(ArgumentError, match="'where' should be left out for a Table"):
        examine(table, where="class=g")


def test_no_suggestion_leaves_a_table_without_a_column():
    """A context needs a column to model; too few rows make all columns depend on each other."""
    assert examine(G.integers(0, 2, (200, 2))).suggestions == {} and kf.data.examine is examine
    assert examine(G.normal(size=(3, 5))).suggestions == {}
