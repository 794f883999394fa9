"""What plots have in common: flows, rows and columns in any form, and how a chart is drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kappaflow._checks import batch, one_of
from kappaflow.conditioning.points import checked_flow
from kappaflow.data import Table
from kappaflow.data.dataset import kind_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.report.charts import Chart
from kappaflow.report.charts.matplotlib import axes_of
from kappaflow.report.charts.plotly import to_plotly
from kappaflow.runs.table_content import (
    in_proportion,
)
from kappaflow.training import Batch, EnergyResult, FitResult, batch_of
from kappaflow.training.rows import rows_for


def drawn(chart: Chart, ax: Any = None, *, interactive: bool) -> Any:  # noqa: ANN401
    """Returns a chart as axes of matplotlib or as a figure of plotly."""
    if not interactive:
        return axes_of(chart, ax)
    if ax is not None:
        raise ArgumentError("'ax' should be left out with interactive=True.")
    return to_plotly(chart)


def side_by_side(name: str, title: str, charts: Iterable[Chart]) -> Chart:
    """Returns the panels of several charts as one chart; each has the title of its chart."""
    panels = [
        replace(panel, title=panel.title or chart.title)
        for chart in charts
        for _, _, panel in chart.placed
    ]
    return Chart(name=name, title=title, panels=panels)


def flow_of(flow: object) -> Flow:
    """Returns the flow of a training, or the flow itself."""
    return checked_flow(flow.flow if isinstance(flow, FitResult | EnergyResult) else flow)


def trained_on(flow: object) -> Table | None:
    """Returns the training rows of a training if they are a table."""
    train = flow.train if isinstance(flow, FitResult) else None
    return train if isinstance(train, Table) else None


def flow_and_rows(flow: object, data: Any, most: int) -> tuple[Flow, Batch]:  # noqa: ANN401
    """Returns a flow and rows of data, evenly spaced and `most` at most, as tensors."""
    own = flow_of(flow)
    if data is None:
        raise ArgumentError("'x' should be given with a flow: the data to measure it at.")
    if len(own.event_shape) == 1:
        rows = batch_of(in_proportion(rows_for(own, data, trained_on(flow))), own)
    elif (kind := kind_of(data)) is not None:
        rows = kind.load(data, own).batches(own)
    else:
        x, context = data if isinstance(data, tuple) else (data, None)
        rows = Batch(batch("x", x, own.event_shape).to(own.device, own.dtype), context)
    return own, rows.at(torch.from_numpy(spread(len(rows), most)))


def spread(count: int, most: int) -> np.ndarray:
    """Returns the positions of evenly spaced rows, all of them if there are few."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def chosen_columns(columns: Sequence[str | int], known: Sequence[str]) -> list[str]:
    """Returns the names of columns that are given by name or by number."""
    if isinstance(columns, str) or not columns:
        raise ArgumentError(f"'columns' should be a list of columns, got {columns!r}.")
    numbers = dict(enumerate(known))
    names = [
        numbers.get(column, column) if isinstance(column, int) else column for column in columns
    ]
    for name in names:
        one_of("columns", str(name), tuple(known))
    return [str(name) for name in dict.fromkeys(names)]
