"""The values of a column as texts, numbers and times, and as a column of the same type again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.data.naming import BoolArray, FloatArray, IntArray
from kappaflow.data.raw import Column, RawTable
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    import polars as pl

DATE_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
)
TRUTHS = ("false", "true")
LARGEST = 2.0**53  # float64 holds all whole numbers up to it
TICKS = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}  # in a day
TimeUnit = Literal["ms", "us", "ns"]
Content = Literal["number", "truth", "date", "text", "other"]


class SourceType(BaseModel):
    """The type of a column: its name, and what belongs to times, categories and texts of dates.

    `pattern` is the format of dates that are written as text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    unit: TimeUnit | None = None
    zone: str | None = None
    categories: tuple[str, ...] | None = None
    pattern: str | None = None

    def polars_type(self) -> "pl.DataType | type[pl.DataType]":
        """Returns the type of polars; numbers that it has no type for become Float64."""
        import polars as pl

        if self.name == "Datetime":
            return pl.Datetime(self.unit or "us", self.zone)
        if self.name == "Enum":
            return pl.Enum(self.categories or ())
        return pl.Float64 if self.name == "Decimal" else getattr(pl, self.name)


class TimeScale(BaseModel):
    """Times as days since the first one; all are multiples of `tick` units away from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    unit: TimeUnit
    first: int
    last: int
    tick: int

    @property
    def tick_days(self) -> float:
        """The tick in days."""
        return self.tick / TICKS[self.unit]

    def days(self, times: IntArray) -> FloatArray:
        """Returns times as days since the first one."""
        return (times - self.first) / TICKS[self.unit]

    def times(self, days: FloatArray) -> IntArray:
        """Returns the nearest times between the first and the last one."""
        steps = np.rint(days * (TICKS[self.unit] / self.tick))
        steps = np.clip(steps, 0, (self.last - self.first) // self.tick).astype(np.int64)
        return self.first + steps * self.tick


def plain(column: Column) -> Column:
    """Returns a column of Python objects as one of truth values or dates, if it holds these."""
    import narwhals as nw
    import polars as pl

    if column.series.dtype != nw.Object:
        return column
    gaps = is_missing(column)
    values = [
        None if gap else value for value, gap in zip(column.series.to_list(), gaps, strict=True)
    ]
    try:
        series = pl.Series(column.name, values, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        return column
    if series.dtype not in {pl.Boolean, pl.Date}:
        return column
    return replace(column, series=nw.from_native(series, series_only=True))


def content(column: Column) -> Content:
    """Returns what the values of a column are; dates written as text are text."""
    import narwhals as nw

    dtype = column.series.dtype
    if column.is_truth:
        return "truth"
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, nw.Date | nw.Datetime):
        return "date"
    return "text" if isinstance(dtype, nw.String | nw.Categorical | nw.Enum) else "other"


def is_missing(column: Column) -> BoolArray:
    """Returns a mask of the missing values: null, and NaN among numbers."""
    if column.is_number:
        return np.isnan(column.numbers())
    return np.asarray(column.series.is_null().to_numpy(), dtype=np.bool_)


def texts_of(column: Column) -> list[str | None]:
    """Returns each value as the text of its label, None for missing ones."""
    if column.is_truth:
        return [None if np.isnan(number) else TRUTHS[int(number)] for number in column.numbers()]
    if column.is_number:
        values, index = np.unique(column.numbers(), return_inverse=True)
        texts = [number_text(float(value), single=column.is_single) for value in values]
        return [texts[i] for i in index.tolist()]
    pairs = zip(column.series.to_list(), is_missing(column).tolist(), strict=True)
    return [None if gap else str(value) for value, gap in pairs]


def number_text(number: float, *, single: bool = False) -> str | None:
    """Returns the shortest text that `float` reads as the same number, None for NaN."""
    if np.isnan(number):
        return None
    if number.is_integer() and abs(number) < LARGEST:
        return str(int(number))
    return str(np.float32(number)) if single else repr(number)


def date_pattern(column: Column) -> str | None:
    """Returns the one format in which all texts of a column are dates, None if there is none.

    Nor is there one if day and month could be exchanged.
    """
    import polars as pl

    if content(column) != "text":
        return None
    texts = pl.Series(texts_of(column), dtype=pl.String).drop_nulls()
    found = []
    for pattern in DATE_FORMATS if len(texts) else ():
        if all(_is_written_as(pattern, some) for some in (texts[:1], texts)):  # first: it is cheap
            found.append(pattern)
    return found[0] if len(found) == 1 else None


def _is_written_as(pattern: str, texts: "pl.Series") -> bool:
    """Returns whether all texts are dates that would be written in the same way again."""
    parsed = texts.str.to_datetime(pattern, strict=False, time_unit="us")
    return not parsed.has_nulls() and bool((parsed.dt.strftime(pattern) == texts).all())


def times_of(column: Column, pattern: str | None, unit: TimeUnit) -> tuple[IntArray, BoolArray]:
    """Returns dates in units since 1970, in UTC, and a mask of those that are missing.

    So are texts that do not follow the pattern. The time of a missing date is 0.
    """
    import narwhals as nw
    import polars as pl

    series: Any = column.series
    if pattern is not None:
        texts = pl.Series(texts_of(column), dtype=pl.String)
        parsed = texts.str.to_datetime(pattern, strict=False, time_unit=unit)
        series = nw.from_native(parsed, series_only=True)
    gaps = np.asarray(series.is_null().to_numpy(), dtype=np.bool_)
    return series.dt.timestamp(unit).fill_null(0).to_numpy().astype(np.int64), gaps


def source_type(column: Column, *, is_date: bool) -> SourceType:
    """Returns the type of a column; whole numbers of a text file are integers."""
    import narwhals as nw

    dtype: Any = column.series.dtype
    name = type(dtype).__name__
    if isinstance(dtype, nw.Datetime):
        return SourceType(name=name, unit=_unit(dtype.time_unit), zone=dtype.time_zone)
    if isinstance(dtype, nw.Date):
        return SourceType(name=name, unit="ms")
    if isinstance(dtype, nw.Enum):
        return SourceType(name=name, categories=tuple(map(str, dtype.categories)))
    if is_date:
        return SourceType(name=name, unit="us", pattern=date_pattern(column))
    if column.origin == "text" and dtype.is_numeric():
        finite = column.numbers()
        finite = finite[np.isfinite(finite)]
        if (finite == np.rint(finite)).all() and (abs(finite) < LARGEST).all():
            return SourceType(name="Int64")
    return SourceType(name=name)


def _unit(unit: str) -> TimeUnit:
    """Returns the unit in which times are counted; seconds are counted in milliseconds."""
    return "ns" if unit == "ns" else "us" if unit == "us" else "ms"


def series_of_numbers(name: str, numbers: FloatArray, dtype: SourceType) -> "pl.Series":
    """Returns numbers as a column, rounded and within its range if it is of integers."""
    import polars as pl

    series = pl.Series(name, numbers, dtype=pl.Float64).fill_nan(None)
    target: Any = dtype.polars_type()
    if target.is_integer():
        least, most = target.min().cast(pl.Float64), target.max().cast(pl.Float64)
        bounds = pl.select(least.alias("least"), most.alias("most")).row(0)
        series = series.round().clip(max(bounds[0], -LARGEST), min(bounds[1], LARGEST))
    return series.cast(target)


def series_of_texts(name: str, texts: Sequence[str | None], dtype: SourceType) -> "pl.Series":
    """Returns labels as a column, None as null."""
    import polars as pl

    target: Any = dtype.polars_type()
    if target == pl.Boolean:
        truths = [None if text is None else text == TRUTHS[1] for text in texts]
        return pl.Series(name, truths, dtype=target)
    if target.is_numeric():
        numbers = np.array([np.nan if text is None else float(text) for text in texts])
        return series_of_numbers(name, numbers, dtype)
    return pl.Series(name, texts, dtype=pl.String).cast(target)


def row_numbers(name: str, rows: int, dtype: SourceType) -> "pl.Series":
    """Returns the numbers of rows, from 1, as Int64 where the type is too narrow for them."""
    import polars as pl

    target: Any = dtype.polars_type()
    numbers = pl.Series(name, np.arange(1, rows + 1))
    narrow = target.is_integer() and rows > pl.select(target.max().cast(pl.Float64)).item()
    return numbers if narrow else numbers.cast(target)


def series_of_times(
    name: str, times: IntArray, missing: BoolArray, dtype: SourceType
) -> "pl.Series":
    """Returns times in the units of their type as a column."""
    import polars as pl

    series = pl.Series(name, times, dtype=pl.Int64)
    series = series.set(pl.Series(missing), None)
    series = series.cast(pl.Datetime(dtype.unit or "us", dtype.zone))
    if dtype.pattern is not None:
        series = series.dt.strftime(dtype.pattern)
    return series.cast(dtype.polars_type())


def frame_like(frame: "pl.DataFrame", like: Any) -> Any:  # noqa: ANN401 - of any library
    """Returns the columns as a data frame of the library and with the types of another one."""
    import narwhals as nw
    import polars as pl

    try:
        target = nw.from_native(like, eager_only=True)
    except TypeError:
        target = None
    if target is None or not (
        target.implementation.is_polars() or target.implementation.is_pandas()
    ):
        raise ArgumentError(
            f"'like' should be a data frame of pandas or polars, got {type(like).__name__}."
        )
    convert = _pandas_series if target.implementation.is_pandas() else _polars_series
    names: dict[str, Any] = {str(name): name for name in target.columns}
    columns: dict[Any, Any] = {}
    for series in frame.get_columns():
        name = names.get(series.name, series.name)
        dtype = like[name].dtype if series.name in names else None
        try:
            columns[name] = convert(series, dtype, target.implementation)
        except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
            raise ArgumentError(
                f"'like' has column '{series.name}' of type {dtype}, in which the values of the "
                f"fitted column ({series.dtype}) cannot be stored: give a frame with the types "
                "of the fitted table."
            ) from None
    return target.implementation.to_native_namespace().DataFrame(columns)


def source_frame(raw: RawTable, data: Any, completed: "pl.DataFrame") -> Any:  # noqa: ANN401
    """Returns a frame of pandas or polars itself, and other sources as a frame of polars.

    Text files hold all numbers as floats: whole ones become integers.
    """
    import narwhals as nw
    import polars as pl

    source = nw.from_native(data, eager_only=True, pass_through=True)
    if isinstance(source, nw.DataFrame):
        library = source.implementation
        if library.is_polars() or library.is_pandas():
            return data
    series = [own_series(name, raw, completed.schema.get(name)) for name in raw.columns]
    return pl.DataFrame(series)


def own_series(name: str, raw: RawTable, drawn: Any = None) -> "pl.Series":  # noqa: ANN401
    """Returns a column of a source; whole numbers of a text file are integers."""
    import polars as pl

    column = raw.columns[name]
    own: Any = column.series.rename(name)
    if own.implementation.is_polars():
        own = own.to_polars()
    else:
        pairs = zip(own.to_list(), is_missing(column), strict=True)
        own = pl.Series(name, [None if gone else value for value, gone in pairs])
    integer: Any = source_type(column, is_date=False).polars_type()
    is_float = (drawn or integer).is_float() or not own.dtype.is_numeric()
    return own if is_float else own.cast(integer)


def filled_in(source: Any, missing: Mapping[str, BoolArray], completed: "pl.DataFrame") -> Any:  # noqa: ANN401
    """Returns a frame whose missing values are those of the completed rows, in its own types."""
    import polars as pl

    gaps = {name: np.flatnonzero(gone) for name, gone in missing.items() if gone.any()}
    if not gaps:
        return source
    drawn = frame_like(completed.select(list(gaps)), source)
    if isinstance(source, pl.DataFrame):
        columns = [source[n].scatter(i, drawn[n].gather(i)) for n, i in gaps.items()]
        return source.with_columns(columns)
    result = source.copy()
    for name, index in gaps.items():
        column = result.columns[[str(column) for column in result.columns].index(name)]
        values = result[column].copy()
        values.iloc[index] = drawn[column].array[index]
        result[column] = values
    return result


def _polars_series(series: "pl.Series", dtype: Any, _: Any) -> "pl.Series":  # noqa: ANN401
    """Returns a column of another type of polars; by way of text between those of labels."""
    import polars as pl

    if dtype is None or series.dtype == dtype:
        return series
    is_label = series.dtype in {pl.Categorical, pl.Enum}
    return (series.cast(pl.String) if is_label else series).cast(dtype)


def _pandas_series(series: "pl.Series", dtype: Any, library: Any) -> Any:  # noqa: ANN401
    """Returns a column of pandas, of a type if one is given."""
    import polars as pl

    pandas = library.to_native_namespace()
    values: Any = series.to_list()
    categories = getattr(dtype, "categories", None)
    if series.dtype.is_numeric() and not series.has_nulls():
        values = series.to_numpy()
    elif series.dtype.is_temporal() and dtype != np.dtype(object):
        zone = getattr(series.dtype, "time_zone", None)
        if zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        values = pandas.Series(series.to_numpy())
        if zone is not None:
            values = values.dt.tz_localize("UTC").dt.tz_convert(zone)
    elif categories is not None:
        by_text = {str(category): category for category in categories}
        values = [None if value is None else by_text[str(value)] for value in values]
    if isinstance(values, list):
        if dtype is None:
            return pandas.Series(values)
        values = pandas.Series(values, dtype=object)
    result = pandas.Series(values)
    if dtype is None and series.dtype in {pl.Categorical, pl.Enum}:
        return result.astype("category")
    return result if dtype is None else result.astype(dtype)
