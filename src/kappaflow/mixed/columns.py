"""`ColumnEncoding`: how one column becomes a number, a code, or both."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.data.labels import SIGN
from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.raw import Column, RawTable
from kappaflow.data.rounding import coarse_columns, grid_of, resolution
from kappaflow.data.table import Grid, Table
from kappaflow.domains import Interval
from kappaflow.errors import ArgumentError, DataError
from kappaflow.mixed.kinds import ColumnKind, Kind, frequent_values, time_scale
from kappaflow.mixed.values import (
    TICKS,
    SourceType,
    TimeScale,
    content,
    is_missing,
    number_text,
    source_type,
    texts_of,
    times_of,
)
from kappaflow.options import option

MOST_STEPS = 2_000  # from the least to the largest count: of more, the steps hardly show
SPARSE = 3  # times as many steps as values: such whole numbers are labels, if they are few
FEW = 12  # most different whole numbers that are labels
OTHER = "other"  # label of the rows in which no label stands for the number


class ColumnEncoding(BaseModel):
    """How a column becomes a number, a code, or both: a label where a few values are frequent.

    Args:
        name: The name of the column.
        kind: Its kind.
        about: What it holds and how it is modeled, for messages.
        type: The type that decoded values have.
        is_number: Whether it has a number.
        labels: Its labels, None for missing values; none if it has no label. A column with a
            number too has the label "other" first, for the rows that have the number.
        is_count: Whether its code counts steps, without labels.
        has_gaps: Whether values of a count were missing.
        grid: The values of a count, or the cells of a rounded number, in days for dates.
        domain: Where the number can lie, None for anywhere.
        time: The scale of a date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind
    about: str
    type: SourceType
    is_number: bool = False
    labels: tuple[str | None, ...] = ()
    is_count: bool = False
    has_gaps: bool = False
    grid: Grid | None = None
    domain: Interval | None = None
    time: TimeScale | None = None

    @property
    def is_modeled(self) -> bool:
        """Whether it has a number or a code."""
        return self.is_number or self.is_count or bool(self.labels)


class ContextColumn(ColumnEncoding):
    """How a column becomes numbers that a density is given: 0 and 1 for labels.

    Missing values are a label of their own, or a column of 0 and 1 and the mean of the others.

    Args:
        center: The mean of a number.
        scale: Its standard deviation.
    """

    center: float = 0.0
    scale: float = 1.0

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the numbers."""
        texts = ["missing" if label is None else label for label in self.labels]
        texts += ["missing"] if self.has_gaps and not self.labels else []
        names = [] if self.labels else [self.name]
        if self.domain is not None and self.domain.circular:
            names = [f"{self.name}, cosine", f"{self.name}, sine"]
        return (*names, *(f"{self.name}{SIGN}{text}" for text in texts))

    def scaled(self, numbers: FloatArray) -> list[FloatArray]:
        """Returns the columns of numbers (N,): with mean 0 and deviation 1, or on a circle."""
        gone, domain = np.isnan(numbers), self.domain
        columns = [(numbers - self.center) / self.scale]
        if domain is not None and domain.circular:
            low, high = domain.low or 0.0, domain.high or 0.0
            angle = 2 * np.pi * (numbers - low) / (high - low)
            columns = [np.cos(angle), np.sin(angle)]
        columns = [np.where(gone, 0.0, column) for column in columns]
        return [*columns, gone.astype(np.float64)] if self.has_gaps else columns


def fit_context(raw: RawTable, column: Column, kind: ColumnKind) -> ContextColumn:
    """Returns the encoding of a column of the context; ArgumentError if there is none."""
    if kind.kind in {"identifier", "left_out"}:
        way_out = f"; {option('kinds', {column.name: 'integer'})} takes it as a number"
        why = f"it is an identifier{way_out if column.is_number else ''}"
        why = f"{column.name!r}: {why if kind.kind == 'identifier' else kind.reason}"
        raise ArgumentError(
            f"'context' should name columns that a density can depend on, got {why}."
        )
    is_date = kind.kind == "date"
    base = ContextColumn(
        name=column.name,
        kind=kind.kind,
        about=f"{kind}; context",
        type=source_type(column, is_date=is_date),
        domain=kind.domain,
        has_gaps=bool(is_missing(column).any()),
        time=time_scale(column) if is_date else None,
    )
    if kind.kind in {"boolean", "category"}:
        fields, how = {"labels": _labels(column)}, "the label missing"
    else:
        numbers, how = numbers_of(raw, column, base), "the mean, and a column marks it"
        fields = {"center": np.nanmean(numbers), "scale": np.nanstd(numbers) or 1.0}
    about = f"{base.about}; a missing value is {how}" if base.has_gaps else base.about
    return base.model_copy(update={"about": about, **fields})


def numbers_of(raw: RawTable, source: Column, column: ColumnEncoding) -> FloatArray:
    """Returns the numbers of a column, dates as days; NaN where they are missing."""
    time, actual, missing = column.time, content(source), is_missing(source)
    expected = "number" if time is None else "text" if column.type.pattern else "date"
    if missing.all():
        return np.full(raw.row_count, np.nan)
    if actual != expected:
        kinds = {"number": "numbers", "date": "dates", "text": "dates as text"}
        raise DataError(
            f"column '{column.name}' of {raw.subject} holds values of type "
            f"{source.series.dtype}, where the fitted table has {kinds[expected]}."
        )
    if time is not None:
        pattern = column.type.pattern
        times, gaps = times_of(source, pattern, time.unit)
        wrong = gaps & ~missing
        if wrong.any():
            refuse(raw, column, wrong, texts_of(source), f"dates are written like {pattern}")
        return np.where(gaps, np.nan, time.days(times))
    numbers = source.numbers()
    refuse(raw, column, np.isinf(numbers), numbers.tolist(), "numbers should be finite")
    return numbers


def described(column: ColumnEncoding) -> ColumnEncoding:
    """Returns a column that also says how it is modeled."""
    return column.model_copy(update={"about": column.about + _how(column)})


def _how(column: ColumnEncoding) -> str:
    """Returns a clause on how a column is modeled, where its kind does not tell."""
    if column.is_number and column.labels:
        *values, last = [label for label in column.labels[1:] if label is not None]
        return f"; {', '.join(values)} and {last} are labels" if values else f"; {last} is a label"
    if column.labels and column.kind not in {"category", "boolean"}:
        return "; its values are labels"
    if column.is_number and column.grid is not None and column.time is None:
        how = "modeled as a number in steps of" if column.kind == "integer" else "rounded to"
        return f"; {how} {column.grid.step:g}"
    return ""


def with_a_number(columns: list[ColumnEncoding]) -> list[ColumnEncoding]:
    """Returns columns of which one has a number for a flow, if one is a count of many values."""
    counts = [c for c in columns if c.is_count and c.grid is not None]
    if not counts or any(column.is_number for column in columns):
        return columns

    def steps(column: ColumnEncoding) -> float:
        grid = column.grid or Grid(1.0)
        return ((grid.high or 0.0) - (grid.low or 0.0)) / grid.step

    widest = max(counts, key=steps)
    if steps(widest) < FEW:
        return columns
    number = widest.model_copy(update={"is_count": False, "has_gaps": False, "is_number": True})
    return [number if column is widest else column for column in columns]


def fit_column(raw: RawTable, column: Column, kind: ColumnKind) -> ColumnEncoding:
    """Returns the encoding of a column."""
    is_date = kind.kind == "date"
    base = ColumnEncoding(
        name=column.name,
        kind=kind.kind,
        about=str(kind),
        type=source_type(column, is_date=is_date),
    )
    if kind.kind in {"identifier", "left_out"}:
        return base
    if kind.kind in {"boolean", "category"}:
        return base.model_copy(update={"labels": _labels(column)})
    if is_date:
        return base.model_copy(update=_fit_date(column))
    numbers = column.numbers()
    refuse(raw, base, np.isinf(numbers), numbers.tolist(), "numbers should be finite")
    return base.model_copy(update=_fit_number(column, numbers, kind))


def _labels(column: Column, first: tuple[str, ...] = ()) -> tuple[str | None, ...]:
    """Returns the labels of a column: numbers ascend, texts are in order, None is last."""
    texts = set(texts_of(column))
    present = [text for text in texts if text is not None]
    order = sorted(present, key=float) if content(column) == "number" else sorted(present)
    return (*first, *order, *([None] if None in texts else []))


def _fit_date(column: Column) -> dict[str, Any]:
    """Returns the fields of a date: cells if all are whole days, or are rounded coarsely."""
    time = time_scale(column)
    step = time.tick_days
    if not step.is_integer():
        pattern = source_type(column, is_date=True).pattern
        times, gaps = times_of(column, pattern, time.unit)
        step = 0.0 if _coarse_step(time.days(times[~gaps])) is None else step
    last = (time.last - time.first) / TICKS[time.unit]
    grid = Grid(step, 0.0, 0.0, last) if step else None
    return {"is_number": True, "time": time, "grid": grid}


def _fit_number(column: Column, numbers: FloatArray, kind: ColumnKind) -> dict[str, Any]:
    """Returns the fields of a number: labels for frequent values, cells if it is rounded."""
    present = numbers[np.isfinite(numbers)]
    frequent = frequent_values(numbers, kind.kind)
    rest = present[~np.isin(present, frequent)]
    is_whole = kind.kind == "integer"
    if is_whole and _is_count(present):
        low, high = float(present.min()), float(present.max())
        grid = Grid(resolution(present) or 1.0, low, low, high)
        return {"is_count": True, "has_gaps": len(present) < len(numbers), "grid": grid}
    if len(np.unique(rest)) < 2 or (is_whole and len(np.unique(present)) <= FEW):
        return {"labels": _labels(column)}
    labels: tuple[str | None, ...] = ()
    if len(frequent):
        texts = [number_text(float(n), single=column.is_single) for n in frequent]
        labels = (OTHER, *texts, *([None] if len(present) < len(numbers) else []))
    domain = kind.domain
    if is_whole:
        grid = grid_of(rest, resolution(rest) or 1.0, None)
        grid = replace(grid, low=float(rest.min()), high=float(rest.max()))
    else:
        step = _coarse_step(rest)
        grid = None if step is None else grid_of(rest, step, domain)
    return {"is_number": True, "labels": labels, "grid": grid, "domain": domain}


def _is_count(numbers: FloatArray) -> bool:
    """Returns whether whole numbers are counts: not two values, few far apart, or very many."""
    values = np.unique(numbers)
    if len(values) < 3:
        return False
    steps = (values[-1] - values[0]) / (resolution(numbers) or 1.0) + 1
    return steps <= (SPARSE * len(values) if len(values) <= FEW else MOST_STEPS)


def _coarse_step(numbers: FloatArray) -> float | None:
    """Returns the resolution of numbers whose steps a flow can resolve, else None."""
    rows = np.arange(len(numbers), dtype=np.int64)
    return coarse_columns(Table(numbers[:, None], ("x",), rows, "")).get("x")


def refuse(
    raw: RawTable, column: ColumnEncoding, wrong: BoolArray, values: Sequence[Any], expected: str
) -> None:
    """Raises DataError for the first of some wrong values."""
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"column '{column.name}' of {raw.subject} holds {values[row]} at {raw.name_row(row)}, "
            f"where {expected}."
        )
