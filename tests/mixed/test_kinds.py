"""What each column of a table holds, and kinds that the user names."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from kappaflow.data.load import read_source
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed import detect_kinds
from kappaflow.mixed.kinds import frequent_values

ROWS = 60


def kinds_of(frame, **kinds):
    """Returns the line about each column of a data frame, by name."""
    return {kind.name: str(kind) for kind in detect_kinds(read_source(frame, Reading()), kinds)}


def frame():
    """Returns a data frame with a column for each rule."""
    generator = np.random.default_rng(0)
    rows = range(ROWS)
    return pl.DataFrame({
        "height": np.linspace(0.1, 2.0, ROWS) ** 2,
        "visits": [row % 32 for row in rows],
        "salary": [float(row % 7 * 1000) for row in rows],
        "row": list(rows),
        "number": generator.permutation(np.arange(1000, 1000 + ROWS)),
        "large": [10**17 + row for row in rows],
        "region": ["north", "south", "east", "west"] * (ROWS // 4),
        "customer": [f"c{row}" for row in rows],
        "comment": [f"comment {row}" for row in rows],
        "member": [row % 3 == 0 for row in rows],
        "answer": ["Yes", "No"] * (ROWS // 2),
        "joined": [dt.date(2019, 1, 1) + dt.timedelta(days=row % 50) for row in rows],
        "day": [f"2024-01-{row % 28 + 1:02}" for row in rows],
        "seen": [dt.datetime(2024, 1, 1) + dt.timedelta(hours=row % 50) for row in rows],
        "gap": [row % 4 + 1 if row % 5 else None for row in rows],
        "same": [1.5] * ROWS,
        "one": ["a"] * ROWS,
        "empty": pl.Series([None] * ROWS, dtype=pl.String),
        "lists": [[row] for row in rows],
    })


def test_each_column_has_a_kind_and_a_line_about_it():
    """Numbers, labels, dates, identifiers, and what no density can hold."""
    assert list(kinds_of(frame()).values()) == [
        "height: continuous, 0.01 to 4",
        "visits: integer, 0 to 31",
        "salary: integer, 0 to 6,000",
        "row: identifier, not modeled; samples are numbered",
        "number: identifier, not modeled; samples are numbered",
        "large: identifier, not modeled; samples are numbered",
        "region: category, 4 labels",
        "customer: identifier, not modeled; samples are numbered",
        "comment: left out, 60 different texts in 60 rows",
        "member: boolean, false or true",
        "answer: boolean, No or Yes",
        "joined: date, 2019-01-01 to 2019-02-19, in days",
        "day: date, 2024-01-01 to 2024-01-28, in days",
        "seen: date, 2024-01-01T00:00:00 to 2024-01-03T01:00:00, in hours",
        "gap: integer, 1 to 4, 12 missing",
        "same: left out, it holds 1.5 only",
        "one: left out, it holds a only",
        "empty: left out, it holds no values",
        "lists: left out, it holds values of type List(Int64)",
    ]


def test_objects_of_pandas_are_truth_values_and_dates():
    """As it stores columns with gaps."""
    days = [dt.date(2024, 1, 1), None, dt.date(2024, 1, 3)]
    objects = {"member": [True, False, None], "day": days, "mixed": [1, "a", None]}
    lines = kinds_of(pd.DataFrame(objects, dtype=object))
    assert lines["member"] == "member: boolean, false or true, 1 missing"
    assert lines["day"] == "day: date, 2024-01-01 to 2024-01-03, in days, 1 missing"
    assert lines["mixed"] == "mixed: left out, it holds values of type Object"


def test_columns_of_arrays_are_no_identifiers():
    """An array has no column that only counts its rows."""
    array = np.stack([np.arange(30.0), np.linspace(0, 1, 30) ** 2], axis=1)
    assert kinds_of(array)["x0"] == "x0: integer, 0 to 29"


def test_named_kinds_replace_the_detected_ones():
    """The circle of angles has the ends that hold the values, or those that are named."""
    named = {
        "height": "circular",
        "visits": "category",
        "salary": "positive",
        "row": "continuous",
        "comment": "category",
        "day": "category",
        "answer": "identifier",
    }
    lines = kinds_of(frame(), **named)
    assert lines["visits"] == "visits: category, 32 labels"
    assert lines["row"] == "row: continuous, 0 to 59"
    assert lines["comment"] == "comment: category, 60 labels"
    raw = read_source(frame(), Reading())
    domains = [kind.domain and kind.domain.text for kind in detect_kinds(raw, named)[:3]]
    assert domains == [f"circular:0,{2 * np.pi!r}", None, "0,"]
    degrees = detect_kinds(raw, {"visits": "circular:0,360"})[1]
    assert degrees.domain is not None and degrees.domain.text == "circular:0,360"


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"hight": "integer"}, r"'kinds' names column 'hight', .*did you mean 'height'\?"),
        (
            {"height": "float"},
            r"one of continuous, .*, identifier for column 'height', got 'float'",
        ),
        ({"height": "left_out"}, r"one of continuous, .* got 'left_out'"),
        ({"region": "integer"}, r"'region' integer, and it holds text, such as 'north' at row 1"),
        ({"height": "integer"}, r"it holds 0\.01 at row 1: name it continuous\."),
        (
            {"height": "date"},
            r"'height' date, and it holds numbers, such as '0.01' at row 1: name",
        ),
        ({"member": "continuous"}, r"holds true and false, such as 'true' .* boolean or category"),
        ({"joined": "category"}, r"holds dates, such as '2019-01-01' at row 1: name it date\."),
        ({"lists": "category"}, r"another type, such as .*: leave it out of 'kinds'\."),
        ({"visits": "circular"}, r"it holds 4 at row 5: name the ends .*'circular:0,360'"),
        (
            {"region": "boolean"},
            r"holds 4 different values .* at most 2 can be modeled: name it c",
        ),
        ({"same": "continuous"}, r"it has fewer than two different values"),
        ({"empty": "category"}, r"'empty' category, and it is empty"),
    ],
)
def test_kinds_that_the_values_contradict_are_refused(kinds, message):
    """The message names the first value and the way out."""
    with pytest.raises(ArgumentError, match=message):
        kinds_of(frame(), **kinds)


def test_a_category_of_ten_thousand_labels_is_refused():
    """No model learns so many."""
    texts = pl.DataFrame({"name": [f"n{row}" for row in range(10_000)]})
    with pytest.raises(
        ArgumentError, match=r"holds 10,000 .* at most 2,000 .* name it identifier"
    ):
        kinds_of(texts, name="category")


def test_numbers_mixed_with_texts_are_refused_unless_they_are_labels(tmp_path):
    """A text among numbers is a typing error, or all of them are labels."""
    path = tmp_path / "table.csv"
    path.write_text("code\n" + "\n".join(["1", "2", "1", "A", "2", "1"]))
    with pytest.raises(DataError, match=r"holds numbers and a text 'A' at line 5"):
        kinds_of(str(path))
    with pytest.raises(DataError, match=r"holds numbers and a text 'A' at line 5"):
        kinds_of(str(path), code="integer")
    assert kinds_of(str(path), code="category")["code"] == "code: category, 3 labels"


def test_a_table_without_rows_is_refused():
    """Nothing can be learned from it."""
    with pytest.raises(DataError, match="has no rows"):
        kinds_of(pl.DataFrame({"x": []}, schema={"x": pl.Float64}))


def test_spellings_that_could_not_be_restored_are_categories():
    """Two spellings of yes are two labels, and a date without its zeros is a text."""
    columns = {"answer": ["yes", "Yes", "no"] * 4, "day": ["2024-1-5", "2024-11-25"] * 6}
    assert list(kinds_of(pl.DataFrame(columns)).values()) == [
        "answer: category, 3 labels",
        "day: category, 2 labels",
    ]


@pytest.mark.parametrize("pattern", ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d"])
def test_dates_may_be_written_as_people_write_them(pattern):
    """Samples are written in the same way; days up to 12 alone do not tell day from month."""
    days = [dt.date(2024, 2, 1) + dt.timedelta(days=row % 28) for row in range(200)]
    lines = kinds_of(pl.DataFrame({"day": [f"{day:{pattern}}" for day in days]}))
    assert lines["day"] == "day: date, 2024-02-01 to 2024-02-28, in days"
    early = [f"{day:{pattern}}" for day in days if day.day <= 12]
    is_clear = pattern in {"%d.%m.%Y", "%Y/%m/%d"}
    assert kinds_of(pl.DataFrame({"day": early}))["day"].startswith(
        "day: date" if is_clear else "day: category"
    )


def test_a_text_of_many_labels_that_repeat_is_left_out_with_the_way_to_model_it():
    """Not one of as many texts as rows, of which no label would be learned."""
    frame = pl.DataFrame({"city": [f"c{i % 250}" for i in range(600)]})
    (kind,) = detect_kinds(read_source(frame, Reading()))
    assert str(kind).endswith(
        "250 different texts in 600 rows; kinds={'city': 'category'} models it"
    )


def test_rarer_prices_of_a_list_stand_out_once_the_frequent_ones_are_taken_out():
    """Next to others that many rows share, a price in 3 % of the rows looks usual at first."""
    rng = np.random.default_rng(0)
    known = rng.choice([9.9, 19.9, 29.9, 49.9], 640, p=[0.4, 0.3, 0.2, 0.1])
    known = np.round(known * rng.choice([1, 2, 3], 640, p=[0.7, 0.2, 0.1]), 2)
    prices = np.where(rng.random(640) < 0.3, rng.lognormal(3.5, 0.6, 640), known)
    labels = frequent_values(prices, "continuous")
    values, counts = np.unique(prices, return_counts=True)
    assert set(values[counts >= 20]) <= set(labels) <= set(known)
