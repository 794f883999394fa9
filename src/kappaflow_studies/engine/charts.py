"""Lines, panels and text from tables of raw results."""

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from kappaflow.report.charts import Heat, Numbers, Panel, Series, SeriesKind
from kappaflow.report.numbers import significant

INFINITY = float("inf")


def quantile_series(
    frame: pl.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    tone: int,
    kind: SeriesKind = "line",
    spread: tuple[float, float] | None = (0.25, 0.75),
) -> Series:
    """Returns the median of y at each value of x, and a band; nan counts as the largest value."""
    value = pl.col(y).fill_nan(INFINITY)
    levels = {"y": 0.5} | ({"low": spread[0], "high": spread[1]} if spread else {})
    quantiles = {end: value.quantile(level, "linear") for end, level in levels.items()}
    table = frame.drop_nulls(y).group_by(x).agg(**quantiles).sort(x)
    band = ("low", "high") if spread else (None, None)
    return column_series(table, x, "y", name=name, tone=tone, kind=kind, band=band)


def column_series(
    table: pl.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    tone: int,
    kind: SeriesKind = "line",
    band: tuple[str | None, str | None] = (None, None),
    most: float = INFINITY,
) -> Series:
    """Returns a line from columns, cut off at `most`, with a band between two more."""
    low, high = (None if end is None else _numbers(table[end], most) for end in band)
    x_values, y_values = _numbers(table[x]), _numbers(table[y], most)
    return Series(name=name, x=x_values, y=y_values, low=low, high=high, tone=tone, kind=kind)


def _numbers(column: pl.Series, most: float = INFINITY) -> Numbers:
    return column.cast(pl.Float64).clip(upper_bound=most).to_list()


def level_series(
    values: pl.Series, ends: Sequence[float], *, name: str, tone: int, kind: SeriesKind
) -> list[Series]:
    """Returns a horizontal line at the median of values; none if there are no values."""
    level = median(values)
    if level is None:
        return []
    return [Series(name=name, x=[*ends], y=[level] * len(ends), tone=tone, kind=kind)]


def panel(
    title: str, x: str, y: str, series: Sequence[Series], *, log: str = "xy", **more: Any
) -> Panel:
    """Returns a panel of lines with logarithmic axes `log`; keywords are fields of `Panel`."""
    axes = {"x_log": "x" in log, "y_log": "y" in log}
    return Panel(title=title, x=x, y=y, series=list(series), **axes, **more)


def heat_panel(title: str, counts: Sequence[float | None], columns: int, end: float) -> Panel:
    """Returns a picture of numbers given row by row, from -end to end."""
    rows: list[Numbers] = [[*counts[i : i + columns]] for i in range(0, len(counts), columns)]
    return Panel(title=title, heat=Heat(values=rows, x=(-end, end), y=(-end, end)))


def cells(points: Tensor, end: float, bins: int) -> list[int]:
    """Returns the number of points (n, 2) in each cell of a grid, row by row from below."""
    edges = torch.linspace(-end, end, bins + 1, dtype=points.dtype).double()
    finite = points[points.isfinite().all(1)].double()
    counts = torch.histogramdd(finite.flip(1), [edges, edges]).hist  # rows: the second feature
    return counts.long().flatten().tolist()


def median(values: pl.Series) -> float | None:
    """Returns the median as a number, with nan as the largest value; None if there are none."""
    known = values.drop_nulls().cast(pl.Float64).fill_nan(INFINITY).median()
    return None if known is None else float(known)  # pyright: ignore[reportArgumentType]


def groups(frame: pl.DataFrame, column: str, order: Iterable[Any]) -> dict[Any, pl.DataFrame]:
    """Returns the rows of each value of a column in this order, without values that have none."""
    parts = {value: frame.filter(pl.col(column) == value) for value in order}
    return {value: rows for value, rows in parts.items() if not rows.is_empty()}


def filled(frame: pl.DataFrame, columns: dict[Any, Iterable[str]]) -> pl.DataFrame:
    """Returns the table with missing columns, given by type, filled with null."""
    named = [(name, kind) for kind, names in columns.items() for name in names]
    missing = [pl.lit(None, kind).alias(name) for name, kind in named if name not in frame.columns]
    return frame.with_columns(missing)


def ends(values: Iterable[Any], digits: int = 3) -> str:
    """Returns the smallest and the largest value as text."""
    numbers = list(values)
    return f"{significant(min(numbers), digits)} to {significant(max(numbers), digits)}"


def ranged(middle: str, low: str, high: str) -> str:
    """Returns a value with a range in brackets."""
    return f"{middle} ({low} to {high})"
