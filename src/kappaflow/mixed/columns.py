"""`ColumnEncoding`: how one column becomes a number, a code, or both."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.raw import Column, RawTable
from kappaflow.data.rounding import coarse_columns, grid_of, resolution
from kappaflow.data.table import Grid, Table
from kappaflow.domains import Interval
from kappaflow.errors import DataError
from kappaflow.mixed.kinds import ColumnKind, Kind, frequent_values, time_scale
from kappaflow.mixed.values import (
    TICKS,
    SourceType,
    TimeScale,
    content,
    number_text,
    source_type,
    texts_of,
    times_of,
)

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


def described(column: ColumnEncoding) -> ColumnEncoding:
    """Returns a column that also says how it is modeled."""
    return column.model_copy(update={"about": column.about + _how(column)})


def _how(column: ColumnEncoding) -> str:
    """Returns a clause on how a column is modeled, where its kind does not tell."""
    if column.is_number and column.labels:
        values = [label for label in column.labels[1:] if label is not None]
        return f"; {' and '.join(values)} {'is a label' if len(values) == 1 else 'are labels'}"
    if column.labels and column.kind not in {"category", "boolean"}:
        return "; its values are labels"
    if column.is_number and column.grid is not None and column.time is None:
        return f"; rounded to {column.grid.step:g}"
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
