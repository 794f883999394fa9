"""Plots of comparisons of samples with held-out rows."""

from collections.abc import Sequence
from typing import Any

from kappaflow.data import Table
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.goodness import Calibration, TwoSample, calibration, two_sample
from kappaflow.plot.flows import chosen_columns, drawn, flow_of, side_by_side, trained_on
from kappaflow.report.calibration import coverage_chart, pit_chart
from kappaflow.report.table_charts import MOST_MARGINALS, marginals_chart
from kappaflow.summary import register_view
from kappaflow.training import FitResult
from kappaflow.training.rows import rows_for


@register_view("plot", TwoSample)
def marginals(
    result: TwoSample | Flow | FitResult,
    data: Any = None,
    *,
    columns: Sequence[str | int] | None = None,
    interactive: bool = False,
) -> Any:
    """Plots histograms of each column of held-out rows and of samples, with their differences.

    Differences are in standard errors, below the histograms. Bins are fine where a narrow region
    differs most. p counts all tests: below 0.01 the column deviates.

    Args:
        result: The result of `kappaflow.two_sample`, or a flow.
        data: Held-out rows to compare a flow with; left out for a result.
        columns: Names or numbers, from 0, of the columns to show; by default all of up to twelve,
            and the twelve that differ most of more.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes, histograms above differences, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> figure = kf.plot.marginals(flow, torch.randn(100, 2), interactive=True)
        >>> [trace.name for trace in figure.data][:2]
        ['held-out rows', 'samples']
    """
    if not isinstance(result, TwoSample):
        result = two_sample(*_flow_and_table(result, data))
    elif data is not None:
        raise ArgumentError("'data' should be left out: a result has been compared already.")
    names = [part.column for part in result.marginals]
    chosen = names if columns is None else chosen_columns(columns, names)
    parts = [result.marginals[names.index(name)] for name in chosen]
    most = MOST_MARGINALS if columns is None else len(parts)
    chart = marginals_chart(parts, most)
    return drawn(chart, interactive=interactive)


def pit(
    result: Calibration | Flow | FitResult, data: Any = None, *, interactive: bool = False
) -> Any:
    """Plots ranks of held-out rows among samples at their contexts (PIT), which should be flat.

    Args:
        result: The result of `kappaflow.calibration`, or a flow.
        data: Held-out rows for a flow; left out for a result.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes, or the figure: a panel for each column, for the density, and for the
        distance from random references. The bands contain 99 % of right flows.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(1, depth=2, hidden=(8,), context_features=1)
        >>> axes = kf.plot.pit(flow, (torch.randn(100, 1), torch.randn(100, 1)))
        >>> [ax.get_title() for ax in axes.flat]
        ['x0', 'highest density', 'random reference']
    """
    return drawn(pit_chart(_calibration(result, data)), interactive=interactive)


def coverage(
    result: Calibration | Flow | FitResult,
    data: Any = None,
    *,
    ax: Any = None,
    interactive: bool = False,
) -> Any:
    """Plots the share of held-out rows in intervals and regions against their nominal level.

    Args:
        result: The result of `kappaflow.calibration`, or a flow.
        data: Held-out rows for a flow; left out for a result.
        ax: Axes of matplotlib to draw on. New ones by default.
        interactive: Return a figure of plotly.

    Returns:
        The axes, or the figure. The band contains 99 % of right flows.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(1, depth=2, hidden=(8,), context_features=1)
        >>> ax = kf.plot.coverage(flow, (torch.randn(100, 1), torch.randn(100, 1)))
        >>> ax.get_xlabel()
        'nominal share'
    """
    return drawn(coverage_chart(_calibration(result, data)), ax, interactive=interactive)


@register_view("plot", Calibration)
def _coverage_and_pit(result: Calibration, *, interactive: bool = False) -> Any:
    charts = [coverage_chart(result), pit_chart(result)]
    return drawn(side_by_side("calibration", "Calibration", charts), interactive=interactive)


def _calibration(result: object, data: Any) -> Calibration:
    if not isinstance(result, Calibration):
        return calibration(*_flow_and_table(result, data))
    if data is not None:
        raise ArgumentError("'data' should be left out: a result has ranked rows already.")
    return result


def _flow_and_table(flow: object, data: Any) -> tuple[Flow, Table]:
    """Returns a flow and the rows to compare it with."""
    own = flow_of(flow)
    if data is None:
        raise ArgumentError("'data' should be given with a flow: held-out rows.")
    return own, rows_for(own, data, trained_on(flow))
