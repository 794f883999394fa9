"""From raw results to the series of a chart: quantiles over draws, seeds or restarts."""

from collections.abc import Iterable
from typing import Literal

import polars as pl

from kappaflow.report.charts import Series


def quantile_series(
    frame: pl.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    tone: int,
    dash: Literal["solid", "dash", "dot", "none"] = "solid",
    spread: tuple[float, float] | None = (0.25, 0.75),
) -> Series:
    """Returns the median of a column at each value of another, with two quantiles as a band.

    Args:
        frame: Raw results; rows whose y is missing have no part, those that are nan count as
            the largest.
        x: Column of the horizontal axis.
        y: Column of the vertical axis.
        name: Of the series.
        tone: Its colour.
        dash: How the line is drawn.
        spread: Levels of the band; None for none.

    Returns:
        The series, x ascending.

    Example:
        >>> raw = pl.DataFrame({"depth": [1, 1, 1, 2], "loss": [3.0, 1.0, 2.0, 5.0]})
        >>> line = quantile_series(raw, "depth", "loss", name="Adam", tone=0)
        >>> line.x, line.y, line.low
        ([1.0, 2.0], [2.0, 5.0], [1.5, 5.0])
    """
    value = pl.col(y).fill_nan(float("inf"))
    levels = {"y": 0.5} | ({"low": spread[0], "high": spread[1]} if spread else {})
    found = (
        frame.drop_nulls(y)
        .group_by(x)
        .agg(*(value.quantile(level, "linear").alias(end) for end, level in levels.items()))
        .sort(x)
    )
    columns = {end: _floats(found[end]) for end in levels}
    return Series(name=name, x=_floats(found[x]), tone=tone, dash=dash, **columns)


def _floats(values: Iterable[float]) -> list[float | None]:
    return [float(value) for value in values]
