"""Rows of mixed columns as numbers and codes of labels, and the reverse."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal as pandas_equal
from polars.testing import assert_frame_equal as polars_equal

from kappaflow.data.load import read_source
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed import Encoded, Encoding, detect_kinds
from kappaflow.mixed.heads import MISSING, OFFSET

ROWS = 400


def read(frame):
    """Returns the columns of a data frame or a file."""
    return read_source(frame, Reading())


def fitted(frame, **kinds):
    """Returns the encoding of a data frame."""
    raw = read(frame)
    return Encoding.fit(raw, detect_kinds(raw, kinds))


def zeros(rows):
    """Returns encoded rows of one number, 0, and the first label of one column."""
    numbers = np.zeros((rows, 1))
    return Encoded(numbers, numbers.astype(np.int64), numbers > 0)


def with_gaps(values, generator, share=0.1):
    """Returns a list in which some values are missing."""
    return [None if generator.random() < share else value for value in values.tolist()]


def mixed_columns(seed=0):
    """Returns fourteen columns of all sorts, by name."""
    generator = np.random.default_rng(seed)
    days = generator.integers(0, 2000, ROWS)
    seconds = generator.integers(0, 10**8, ROWS)
    return {
        "customer": [f"c{row}" for row in range(ROWS)],
        "height": generator.normal(size=ROWS),
        "single": generator.normal(size=ROWS).astype(np.float32),
        "rounded": np.round(generator.normal(size=ROWS), 1),
        "age": generator.integers(17, 90, ROWS),
        "children": generator.integers(0, 4, ROWS).astype(np.int8),
        "member": generator.random(ROWS) < 0.3,
        "region": generator.choice(["north", "south", "east"], ROWS).tolist(),
        "answer": with_gaps(generator.choice(["yes", "no"], ROWS), generator),
        "joined": [dt.date(2019, 1, 1) + dt.timedelta(days=int(day)) for day in days],
        "seen": [dt.datetime(2019, 1, 1) + dt.timedelta(seconds=int(s)) for s in seconds],
        "gain": np.where(generator.random(ROWS) < 0.7, 0, generator.gamma(2, 1000, ROWS)),
        "weight": with_gaps(generator.gamma(2, 20, ROWS), generator),
        "debt": with_gaps(np.where(generator.random(ROWS) < 0.5, 0.0, days / 7), generator),
    }


def polars_frame(seed=0):
    """Returns the mixed columns as a frame of polars."""
    frame = pl.DataFrame(mixed_columns(seed))
    zone = pl.col("seen").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    kinds = {"answer": pl.Categorical, "region": pl.Enum(["south", "east", "north", "west"])}
    return frame.cast(kinds).with_columns(zone)


def pandas_frame(seed=0):
    """Returns the mixed columns as a frame of pandas, two of them in its nullable types."""
    frame = pd.DataFrame(mixed_columns(seed))
    seen = pd.to_datetime(frame["seen"]).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    return frame.assign(
        seen=seen.astype("datetime64[ns, Europe/Berlin]"),
        joined=pd.to_datetime(frame["joined"]).astype("datetime64[s]"),
        region=pd.Categorical(frame["region"], ["south", "east", "north", "west"]),
        age=frame["age"].astype("Int64"),
        member=frame["member"].astype("boolean").mask(frame["age"] < 20),
    )


def test_a_polars_frame_is_the_same_after_encoding_and_decoding():
    """Values, types and order of columns are equal; identifiers count the rows."""
    frame = polars_frame()
    encoding = fitted(frame)
    encoded = encoding.encode(read(frame))
    expected = frame.with_columns(customer=pl.int_range(1, ROWS + 1).cast(pl.String))
    polars_equal(encoding.decode(encoded), expected, rel_tol=0, abs_tol=0)
    polars_equal(encoding.decode(encoded, frame[:0]), expected, rel_tol=0, abs_tol=0)


def test_a_pandas_frame_is_the_same_after_encoding_and_decoding():
    """Nullable types, categories that no row has, units and zones of times are kept."""
    frame = pandas_frame()
    encoding = fitted(frame)
    expected = frame.assign(customer=[str(row + 1) for row in range(ROWS)])
    decoded = encoding.decode(encoding.encode(read(frame)), frame[:0])
    pandas_equal(decoded, expected, rtol=0, atol=0)


def test_columns_become_numbers_codes_or_both():
    """Frequent values are labels; cells are as wide as the resolution of rounded columns."""
    encoding = fitted(polars_frame())
    steps = dict(zip(encoding.numbers, encoding.steps, strict=True))
    assert steps == {
        "height": 0.0,
        "single": 0.0,
        "rounded": 0.1,
        "joined": 1.0,
        "seen": 0.0,
        "gain": 0.0,
        "weight": 0.0,
        "debt": 0.0,
    }
    assert dict(zip(encoding.label_columns, encoding.labels, strict=True)) == {
        "age": (),
        "children": (),
        "member": ("false", "true"),
        "region": ("east", "north", "south"),
        "answer": ("no", "yes", None),
        "gain": ("other", "0"),
        "debt": ("other", "0", None),
    }


@pytest.mark.parametrize(
    ("numbers", "is_count", "is_number"),
    [
        (np.arange(40) % 5, True, False),
        (np.arange(40) * 50 % 1950, True, False),
        (np.arange(40) % 2, False, False),  # two values
        (np.array([1, 10, 100, 1000] * 10), False, False),  # few, far apart
        (np.arange(40) * 7919 % 40_009, False, True),  # of so many the steps hardly show
    ],
)
def test_whole_numbers_are_counts_labels_or_rounded_numbers(numbers, is_count, is_number):
    """Counts keep steps and a range, so that a new value has a code too."""
    frame = pl.DataFrame({"n": numbers, "x": np.linspace(0, 1, 40) ** 2})
    column = fitted(frame, n="integer").columns[0]
    assert (column.is_count, column.is_number) == (is_count, is_number)
    assert bool(column.labels) == (not is_count and not is_number)


def test_counts_are_steps_from_the_least_one_and_missing_ones_are_minus_one():
    """A value beyond the range of the fitted rows has a code; one between the steps is refused."""
    frame = pl.DataFrame({"n": np.arange(40) % 8 * 5 + 10, "x": np.linspace(0, 1, 40) ** 2})
    encoding = fitted(frame)
    other = pl.DataFrame({"n": [10, 20, None, 100, 5], "x": [0.1, 0.2, 0.3, 0.4, 0.5]})
    encoded = encoding.encode(read(other))
    assert (encoded.codes[:, 0] - OFFSET).tolist() == [0, 2, MISSING - OFFSET, 18, -1]
    assert encoding.decode(encoded)["n"].to_list() == other["n"].to_list()
    with pytest.raises(DataError, match=r"'n' .* holds 12.0 at row 1, where .* steps of 5"):
        encoding.encode(read(other.with_columns(n=pl.lit(12))))


def test_a_table_of_counts_has_one_number_for_a_flow():
    """The one of most values; counts of few values stay counts."""
    frame = pl.DataFrame({
        "a": np.arange(60) % 30,
        "b": np.arange(60) % 20,
        "c": np.arange(60) % 5,
    })
    encoding = fitted(frame, a="integer", b="integer", c="integer")
    assert (encoding.numbers, encoding.label_columns) == (("a",), ("b", "c"))
    assert fitted(frame.select("c")).numbers == ()


def test_missing_numbers_differ_from_those_that_a_label_replaces():
    """Both are NaN; only the first are marked as missing."""
    frame = polars_frame()
    encoding = fitted(frame)
    encoded = encoding.encode(read(frame))
    for name in ("gain", "weight", "debt"):
        index = encoding.numbers.index(name)
        is_null = frame[name].is_null().to_numpy()
        is_zero = (frame[name] == 0).fill_null(value=False).to_numpy()
        np.testing.assert_array_equal(encoded.missing[:, index], is_null)
        np.testing.assert_array_equal(np.isnan(encoded.numbers[:, index]), is_null | is_zero)
    has_number = encoding.has_number(encoded.codes)
    assert has_number[:, encoding.numbers.index("weight")].all()
    labeled = encoding.numbers.index("debt")
    np.testing.assert_array_equal(has_number[:, labeled], (frame["debt"] > 0).fill_null(False))


def test_an_encoding_is_the_same_after_json():
    """Its fields are plain values."""
    for frame in (polars_frame(), pandas_frame()):
        encoding = fitted(frame, height="circular:-9,9", weight="positive")
        assert Encoding.model_validate_json(encoding.model_dump_json()) == encoding


def test_samples_of_rounded_columns_are_moved_to_values_within_the_range():
    """Dates lie between the first and the last one."""
    frame = polars_frame()
    encoding = fitted(frame)
    encoded = encoding.encode(read(frame))
    noise = np.random.default_rng(1).uniform(-0.04, 0.04, encoded.numbers.shape)
    noisy = encoding.decode(replace(encoded, numbers=encoded.numbers + noise))
    for name in ("rounded", "joined"):
        assert noisy[name].equals(frame[name])
    far = encoding.decode(replace(encoded, numbers=np.full_like(encoded.numbers, 1e6)))
    for name in ("joined", "seen"):
        assert far[name].unique().to_list() == [frame[name].max()]


def test_columns_are_found_in_any_order_among_others():
    """Only the fitted ones are read."""
    frame = polars_frame()
    encoding = fitted(frame)
    other = frame.select(reversed(frame.columns)).with_columns(extra=1)
    actual, expected = encoding.encode(read(other)), encoding.encode(read(frame))
    np.testing.assert_array_equal(actual.numbers, expected.numbers)
    np.testing.assert_array_equal(actual.codes, expected.codes)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_columns_are_the_same_after_encoding_and_decoding(data):
    """Whatever their values and gaps, as the kinds that are detected."""
    rows = data.draw(st.integers(4, 30))
    values = {
        "number": st.floats(-1e6, 1e6),
        "integer": st.integers(-(10**9), 10**9),
        "truth": st.booleans(),
        "text": st.sampled_from(["a", "b", "c c"]),
        "date": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
        "time": st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1)),
    }
    columns = {
        name: data.draw(st.lists(st.none() | value, min_size=rows, max_size=rows))
        for name, value in values.items()
    }
    types = [pl.Float64, pl.Int64, pl.Boolean, pl.String, pl.Date, pl.Datetime("us")]
    frame = pl.DataFrame(columns, schema=list(zip(values, types, strict=True)))
    encoding = fitted(frame)
    kept = [c.name for c in encoding.columns if c.kind not in {"left_out", "identifier"}]
    decoded = encoding.decode(encoding.encode(read(frame)))
    if kept:
        polars_equal(decoded.select(kept), frame.select(kept), abs_tol=0, rel_tol=1e-15)


def test_texts_of_files_keep_their_spelling_and_whole_numbers_are_integers(tmp_path):
    """A csv file has no types: dates are decoded as the texts they were."""
    path = tmp_path / "table.csv"
    members = ["false", "true", "true"] * 27
    rows = [f"{row % 20},{members[row]},2024-01-{row % 28 + 1:02}" for row in range(80)]
    path.write_text("\n".join(["visits,member,day", *rows]))
    raw = read(str(path))
    encoding = Encoding.fit(raw, detect_kinds(raw))
    decoded = encoding.decode(encoding.encode(raw))
    assert decoded.schema == {"visits": pl.Int64, "member": pl.Boolean, "day": pl.String}
    assert decoded.write_csv().strip() == path.read_text()


SMALL = pl.DataFrame({"x": np.linspace(0.1, 0.9, 40) ** 2, "region": ["a", "b"] * 20})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"region": ["a", "c"] * 20},
            r"the label 'c' at row 2, and 19 more.* are 'a', 'b'\.",
        ),
        ({"region": ["a", None] * 20}, r"'region' of the data frame has no value at row 2"),
        ({"x": ["u", "v"] * 20}, r"column 'x' .* of type String, where the fitted .* numbers"),
        ({"x": [1.0, np.inf] * 20}, r"column 'x' .* holds inf at row 2, where numbers should be"),
        ({"x": [1.0, 0.0] * 20}, r"column 'x' .* holds 0.0 at row 2, where values lie above 0"),
        ({"x": [1.0, -2.0] * 20}, r"column 'x' .* holds -2.0 at row 2, where values lie above 0"),
        ({"count": [20.5] * 40}, r"column 'count' .* 20.5 at row 1, where the fitted .* whole"),
        ({"day": ["2024-01-01"] * 39 + ["soon"]}, r"'day' .* soon at row 40, where dates are"),
    ],
)
def test_values_that_the_fitted_table_cannot_have_are_refused(change, message):
    """The message names the column, the value and the row."""
    days = [f"2024-01-{day % 28 + 1:02}" for day in range(40)]
    counts = np.random.default_rng(0).integers(0, 30, 40)
    frame = SMALL.with_columns(day=pl.Series(days), count=pl.Series(counts))
    encoding = fitted(frame, x="positive")
    changed = frame.with_columns(**{
        name: pl.Series(v, strict=False) for name, v in change.items()
    })
    with pytest.raises(DataError, match=message):
        encoding.encode(read(changed))


def test_labels_to_be_completed_have_the_code_minus_one():
    """They are the missing ones; decoded, they are missing. Unknown ones are still an error."""
    encoding = fitted(SMALL)
    changed = SMALL.with_columns(region=pl.Series(["a", None, None, "b"] * 10))
    encoded = encoding.encode(read(changed), completes=True)
    assert encoded.codes[:4, 0].tolist() == [0, -1, -1, 1]
    assert encoding.decode(encoded)["region"][:4].to_list() == ["a", None, None, "b"]
    other = changed.with_columns(region=pl.Series(["a", "c", None, "b"] * 10))
    with pytest.raises(DataError, match="the label 'c' at row 2"):
        encoding.encode(read(other), completes=True)
    again = fitted(changed)
    assert again.labels == (("a", "b", None),)
    assert again.encode(read(changed)).codes[2, 0] == 2
    assert again.encode(read(changed), completes=True).codes[2, 0] == -1


def test_a_table_without_a_fitted_column_is_refused():
    """The message lists those that are missing, and those that are there."""
    with pytest.raises(DataError, match=r"lacks column 'region', .* its columns are 'x'\."):
        fitted(SMALL).encode(read(SMALL.select("x")))


def test_a_frame_of_other_types_is_refused():
    """Decoded values have to fit the types of `like`."""
    encoding = fitted(SMALL)
    encoded = encoding.encode(read(SMALL))
    with pytest.raises(ArgumentError, match=r"'like' has column 'region' of type Int64"):
        encoding.decode(encoded, pl.DataFrame({"region": [1]}))
    with pytest.raises(ArgumentError, match=r"'like' has column 'region' of type float64"):
        encoding.decode(encoded, pd.DataFrame({"region": [1.5]}))
    with pytest.raises(ArgumentError, match=r"a data frame of pandas or polars, got dict\."):
        encoding.decode(encoded, {})


def test_infinite_numbers_are_refused_when_fitting():
    """No density holds them."""
    with pytest.raises(DataError, match=r"column 'x' .* holds inf at row 3"):
        fitted(pl.DataFrame({"x": [0.5, 0.7, np.inf, 1.2]}))


def test_columns_named_by_numbers_and_categories_of_numbers_are_kept():
    """As pandas has them; the types are those of the fitted frame."""
    generator = np.random.default_rng(0)
    ratings = pd.Categorical(generator.integers(1, 6, 40), ordered=True)
    frame = pd.DataFrame({0: generator.normal(size=40), 1: ratings})
    encoding = fitted(frame)
    pandas_equal(encoding.decode(encoding.encode(read(frame)), frame[:0]), frame, atol=0, rtol=0)


def test_identifiers_that_a_narrow_type_cannot_count_become_int64():
    """More samples than an Int8 has numbers."""
    frame = SMALL.with_columns(row=pl.int_range(40, dtype=pl.Int8))
    encoding = fitted(frame)
    few = zeros(100)
    many = zeros(200)
    assert encoding.decode(few)["row"].dtype == pl.Int8
    assert encoding.decode(many)["row"].to_list() == list(range(1, 201))


def test_frequent_values_of_float32_are_labels_with_their_shortest_text():
    """A missing value is an unknown label, unless it is to be completed."""
    values = np.random.default_rng(0).gamma(2, size=200).astype(np.float32)
    frame = pl.DataFrame({"x": np.where(np.arange(200) % 3, values, np.float32(0.1))})
    encoding = fitted(frame)
    assert encoding.labels == (("other", "0.1"),)
    polars_equal(encoding.decode(encoding.encode(read(frame))), frame, abs_tol=0, rel_tol=0)
    changed = frame.with_columns(x=pl.when(pl.int_range(200) != 5).then("x"))
    with pytest.raises(DataError, match=r"no value at row 6; the labels .* are '0\.1'\."):
        encoding.encode(read(changed))
    encoded = encoding.encode(read(changed), completes=True)
    assert encoded.codes[:7, 0].tolist() == [1, 0, 0, 1, 0, -1, 1]
    assert encoded.missing[:, 0].nonzero()[0].tolist() == [5]
    assert fitted(frame, x="circular:0,20").labels == ()


def test_samples_of_integers_modeled_as_continuous_are_rounded():
    """Their type holds whole numbers only, within its range."""
    frame = pl.DataFrame({"x": np.arange(40) % 20}, schema={"x": pl.UInt8})
    samples = Encoded(
        np.array([[2.7], [-3.0], [300.0]]),
        np.zeros((3, 0), dtype=np.int64),
        np.zeros((3, 1), dtype=np.bool_),
    )
    encoding = fitted(frame, x="continuous")
    free = encoding.model_copy(
        update={"columns": (encoding.columns[0].model_copy(update={"grid": None}),)}
    )
    assert free.decode(samples)["x"].to_list() == [3, 0, 255]
