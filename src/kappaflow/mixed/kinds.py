"""What each column of a table holds: a number, a label, a date or an identifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from kappaflow.data.columns import find_column
from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.raw import Column, RawTable, identifiers, no_rows, quoted, running
from kappaflow.data.rounding import point_masses
from kappaflow.data.table import whole_columns
from kappaflow.domains import Interval, interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed.values import (
    LARGEST,
    TICKS,
    TimeScale,
    content,
    date_pattern,
    is_missing,
    plain,
    source_type,
    texts_of,
    times_of,
)
from kappaflow.options import option

Kind = Literal[
    "continuous",
    "positive",
    "circular",
    "integer",
    "category",
    "boolean",
    "date",
    "identifier",
    "left_out",
]
KINDS = tuple(kind for kind in get_args(Kind) if kind != "left_out")
FITTING: dict[str, tuple[Kind, ...]] = {  # the kinds that values of a sort can have
    "number": tuple(kind for kind in KINDS if kind != "date"),
    "truth": ("boolean", "category"),
    "text": ("category", "boolean", "identifier"),
    "categories": ("category", "boolean"),
    "date as text": ("date", "category", "identifier"),
    "date": ("date",),
}
SPOKEN = {  # what the values are called in messages
    "number": "numbers",
    "truth": "true and false",
    "text": "text",
    "categories": "categories",
    "date as text": "dates",
    "date": "dates",
    "other": "values of another type",
}
LABELS = 200  # most labels of a category that is detected
MOST_LABELS = 2000  # most labels of a category that the user names
REPEATS = 2  # fewest rows for each label on average
SHARE = 0.01  # of the rows, at least, of a value that becomes a label
PAIRS = ({"false", "true"}, {"no", "yes"})
SAMPLES_NUMBERED = "not modeled; samples are numbered"


@dataclass(frozen=True)
class ColumnKind:
    """The kind of a column, and what led to it; the text is a line for the user.

    Example:
        >>> print(ColumnKind("visits", "integer", "0 to 31"))
        visits: integer, 0 to 31
    """

    name: str
    kind: Kind
    reason: str
    domain: Interval | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.kind.replace('_', ' ')}, {self.reason}"


def detect_kinds(raw: RawTable, kinds: Mapping[str, str] | None = None) -> tuple[ColumnKind, ...]:
    """Returns the kind of each column of a source.

    Args:
        raw: The columns.
        kinds: Kinds by column that replace the detected ones: continuous, positive, circular (or
            with its ends, as in "circular:0,360"), integer, category, boolean, date, identifier.

    Raises:
        ArgumentError: A column or a kind in `kinds` is unknown, or the values contradict it.
        DataError: The table has no rows, or a column mixes numbers and texts.

    Example:
        >>> import numpy as np
        >>> from kappaflow.data.memory import read_memory
        >>> print(detect_kinds(read_memory(np.array([[0.5], [1.5], [2.5]])))[0])
        x0: continuous, 0.5 to 2.5
    """
    if raw.row_count == 0:
        raise no_rows(raw.subject, "fit")
    named = {} if kinds is None else dict(kinds)
    for name in named:
        find_column(raw, name, "kinds")
    return tuple(
        _named_kind(raw, plain(column), named[name])
        if name in named
        else _detected_kind(raw, plain(column))
        for name, column in raw.columns.items()
    )


def _detected_kind(raw: RawTable, column: Column) -> ColumnKind:
    """Returns the kind that the values of a column show."""
    if column.problem is not None:
        raise DataError(f"{column.problem}.")
    sort, missing = _sort(column), is_missing(column)
    if missing.all():
        return ColumnKind(column.name, "left_out", "it holds no values")
    if sort == "other":
        reason = f"it holds values of type {column.series.dtype}"
        return ColumnKind(column.name, "left_out", reason)
    if sort == "number":
        return _number_kind(column)
    labels = _labels(column)
    if len(labels) == 1 and not missing.any():
        return ColumnKind(column.name, "left_out", f"it holds {labels[0]} only")
    if sort.startswith("date"):
        if len(labels) == 1:
            return ColumnKind(column.name, "left_out", f"it holds {labels[0]} only")
        return _with_reason(column, "date")
    return _label_kind(raw, column, labels)


def _label_kind(raw: RawTable, column: Column, labels: list[str]) -> ColumnKind:
    """Returns the kind of a column of truth values or texts."""
    folded = {label.casefold() for label in labels}
    if column.is_truth or (len(folded) == len(labels) and any(folded <= pair for pair in PAIRS)):
        return _with_reason(column, "boolean")
    present = int((~is_missing(column)).sum())
    if len(labels) <= LABELS and len(labels) * REPEATS <= present:
        return _with_reason(column, "category")
    can_number = _sort(column) == "text" and len(labels) == raw.row_count
    if can_number and not any(len(label.split()) > 1 for label in labels):
        return ColumnKind(column.name, "identifier", SAMPLES_NUMBERED)
    reason = f"{len(labels):,} different texts in {present:,} rows"
    if len(labels) < present and len(labels) <= MOST_LABELS:
        reason += f"; {option('kinds', {column.name: 'category'})} models it"
    return ColumnKind(column.name, "left_out", reason)


def _number_kind(column: Column) -> ColumnKind:
    """Returns the kind of a column of numbers."""
    numbers = column.numbers()
    finite = numbers[np.isfinite(numbers)]
    is_whole = bool(whole_columns(numbers[:, None], (column.name,)))
    values = np.unique(finite)
    if len(values) <= 1 and (not is_whole or len(finite) == len(numbers)):
        reason = f"it holds {values[0]:.10g} only" if len(values) else "it holds no finite number"
        return ColumnKind(column.name, "left_out", reason)
    if _counts_rows(column, numbers):
        return ColumnKind(column.name, "identifier", SAMPLES_NUMBERED)
    if column.series.dtype.is_integer() and not is_whole:
        return ColumnKind(column.name, "left_out", "it holds whole numbers of 2**53 or more")
    kind = "integer" if is_whole else "continuous"
    return ColumnKind(column.name, kind, _range(numbers, is_whole=is_whole))


def _counts_rows(column: Column, numbers: FloatArray) -> bool:
    """Returns whether numbers count the rows, or identify them."""
    if column.origin == "array":
        return False
    if column.is_index or column.ends is not None:
        return True
    if column.can_count and running([numbers]) is not None:
        return True
    if column.series.dtype.is_integer() and np.nanmax(abs(numbers)) >= LARGEST:
        return bool(column.series.n_unique() == len(numbers))
    return identifiers(numbers) is not None


def _named_kind(raw: RawTable, column: Column, text: str) -> ColumnKind:
    """Returns the kind that the user named; raises ArgumentError if the values contradict it."""
    name, _, ends = str(text).partition(":")
    kind = next((known for known in KINDS if known == name), None)
    if kind is None or (ends and kind != "circular"):
        raise ArgumentError(
            f"'kinds' should name one of {', '.join(KINDS)} for column '{column.name}', got "
            f"{text!r}."
        )
    sort = _sort(column)
    possible = FITTING.get(sort, ())
    if column.problem is not None and kind not in possible:
        raise DataError(f"{column.problem}.")
    if kind not in possible:
        way_out = f"name it {' or '.join(possible)}" if possible else "leave it out of 'kinds'"
        raise _contradiction(raw, column, kind, ~is_missing(column), SPOKEN[sort], way_out)
    if kind == "identifier":
        return ColumnKind(column.name, kind, SAMPLES_NUMBERED)
    if kind in {"category", "boolean"}:
        _check_labels(column, kind)
        return _with_reason(column, kind)
    if len(_labels(column)) < 2:
        raise ArgumentError(
            f"'kinds' names column '{column.name}' {kind}, and it has fewer than two different "
            "values: leave it out of 'kinds'."
        )
    if kind == "date":
        return _with_reason(column, kind)
    return _named_number(raw, column, kind, str(text))


def _named_number(raw: RawTable, column: Column, kind: Kind, text: str) -> ColumnKind:
    """Returns a kind of numbers that the user named; raises ArgumentError at values outside."""
    numbers, domain = column.numbers(), None
    if kind == "integer":
        wrong = np.isfinite(numbers) & ((numbers != np.rint(numbers)) | (abs(numbers) >= LARGEST))
        if wrong.any():
            raise _contradiction(raw, column, kind, wrong, "", "name it continuous")
    if kind == "positive":
        domain = Interval(0.0, None)
        wrong = (numbers < 0) | (
            (numbers == 0) & ~np.isin(numbers, frequent_values(numbers, kind))
        )
        if wrong.any():
            raise _contradiction(raw, column, kind, wrong, "", "name it continuous")
    if kind == "circular":
        domain = interval("kinds", text)
        from_zero = Interval(0.0, 2 * np.pi, circular=True)
        if domain and text == "circular" and domain.outside(numbers).any():
            domain = domain if from_zero.outside(numbers).any() else from_zero
        if domain and domain.outside(numbers).any():
            way_out = "name the ends of the circle, as in 'circular:0,360'"
            raise _contradiction(raw, column, kind, domain.outside(numbers), "", way_out)
    reason = _range(numbers, is_whole=kind == "integer")
    return ColumnKind(column.name, kind, reason, domain)


def _contradiction(
    raw: RawTable, column: Column, kind: Kind, wrong: BoolArray, what: str, way_out: str
) -> ArgumentError:
    """Returns the error for a kind that does not fit the first of the wrong values."""
    if not wrong.any():
        return ArgumentError(f"'kinds' names column '{column.name}' {kind}, and it is empty.")
    row = int(wrong.argmax())
    value = texts_of(column)[row] if column.is_truth else str(column.series[row])
    if content(column) == "number":
        value = f"{column.numbers()[row]:.10g}"
    values = f"{what}, such as {value!r}" if what else f"{value}"
    return ArgumentError(
        f"'kinds' names column '{column.name}' {kind}, and it holds {values} at "
        f"{raw.name_row(row)}: {way_out}."
    )


def _check_labels(column: Column, kind: Kind) -> None:
    """Raises ArgumentError for more labels than a column of a kind can have."""
    labels, most = _labels(column), 2 if kind == "boolean" else MOST_LABELS
    if len(labels) > most:
        way_out = "identifier" if kind == "category" else "category"
        raise ArgumentError(
            f"'kinds' names column '{column.name}' {kind}, and it holds {len(labels):,} different "
            f"values ({quoted(labels, 3)}), where at most {most:,} can be modeled: name it "
            f"{way_out}, or merge rare labels."
        )
    if not labels:
        raise ArgumentError(f"'kinds' names column '{column.name}' {kind}, and it is empty.")


def frequent_values(numbers: FloatArray, kind: Kind) -> FloatArray:
    """Returns the values that hold a point mass of at least 1 % of the rows, in order.

    A circle has none. Among positive numbers, a 0 in so many rows is one. Values that stand out
    once others are taken out, as those of a price list, count too.
    """
    if kind == "circular":
        return np.empty(0)
    values, found = np.empty(0), None
    while found is None or len(found):
        masses = point_masses(numbers[~np.isin(numbers, values)])
        found = masses.values[masses.counts >= SHARE * len(numbers)]
        values = np.union1d(values, found)
    has_zeros = kind == "positive" and (numbers == 0).mean() >= SHARE
    return np.union1d(values, [0.0] if has_zeros else [])


def time_scale(column: Column) -> TimeScale:
    """Returns the scale of days on which the dates of a column lie."""
    dtype = source_type(column, is_date=True)
    unit = dtype.unit or "us"
    times, gaps = times_of(column, dtype.pattern, unit)
    times = np.unique(times[~gaps])
    tick = int(np.gcd.reduce(np.diff(times))) if len(times) > 1 else TICKS[unit]
    return TimeScale(unit=unit, first=int(times[0]), last=int(times[-1]), tick=tick)


def _sort(column: Column) -> str:
    """Returns the key of `FITTING` for a column."""
    import narwhals as nw

    sort = content(column)
    if sort != "text":
        return sort
    if column.series.dtype != nw.String:
        return "categories"
    return "text" if date_pattern(column) is None else "date as text"


def _labels(column: Column) -> list[str]:
    """Returns the different values of a column as texts, in order."""
    return sorted({text for text in texts_of(column) if text is not None})


def _with_reason(column: Column, kind: Kind) -> ColumnKind:
    """Returns a kind of labels or dates with what the values are."""
    missing = _missing_text(is_missing(column))
    if kind == "date":
        return ColumnKind(column.name, kind, _dates_text(column) + missing)
    labels = _labels(column)
    text = " or ".join(labels) if kind == "boolean" else f"{len(labels):,} labels"
    return ColumnKind(column.name, kind, text + missing)


def _dates_text(column: Column) -> str:
    """Returns the first and the last date, and the unit of time in which they differ."""
    scale = time_scale(column)
    sizes = {"days": 1, "hours": 24, "minutes": 1440, "seconds": 86400}
    day = TICKS[scale.unit]
    unit = next((name for name, part in sizes.items() if not scale.tick % (day // part)), None)
    ends = (np.datetime64(time, scale.unit) for time in (scale.first, scale.last))
    shown = [
        str(end.astype("datetime64[D]" if unit == "days" else "datetime64[s]")) for end in ends
    ]
    return f"{shown[0]} to {shown[1]}" + (f", in {unit}" if unit else "")


def _range(numbers: FloatArray, *, is_whole: bool) -> str:
    """Returns the least and the greatest number, and how many are missing."""
    finite = numbers[np.isfinite(numbers)]
    form = ",.0f" if is_whole else ".6g"
    ends = f"{finite.min():{form}} to {finite.max():{form}}"
    return ends + _missing_text(np.isnan(numbers))


def _missing_text(missing: BoolArray) -> str:
    return f", {int(missing.sum()):,} missing" if missing.any() else ""
