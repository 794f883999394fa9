"""Plots of flows and factorizations: conditioning, training, pairs of columns, latents."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from kappaflow._checks import batch, one_of, positive_int
from kappaflow.conditioning import Profile, Spectrum
from kappaflow.conditioning import profile as measure_profile
from kappaflow.conditioning import spectrum as measure_spectrum
from kappaflow.conditioning.points import checked_flow, checked_points, measuring
from kappaflow.conditioning.spectrum import MATRIX_FREE_ABOVE
from kappaflow.data import Table
from kappaflow.data.dataset import kind_of
from kappaflow.diagnosis import DepthGains
from kappaflow.diagnosis import depth_gains as measure_gains
from kappaflow.errors import ArgumentError
from kappaflow.factor import Factorization
from kappaflow.flows import Flow
from kappaflow.goodness.corner import corner_of
from kappaflow.report.charts import Chart
from kappaflow.report.charts.matplotlib import axes_of
from kappaflow.report.charts.plotly import to_plotly
from kappaflow.report.conditioning import (
    condition_chart,
    gains_chart,
    round_trip_chart,
    singular_value_chart,
    spectrum_chart,
)
from kappaflow.report.depth import DepthCurve, depth_chart
from kappaflow.report.factorization import factorization_chart
from kappaflow.report.goodness import corner_chart
from kappaflow.report.table_charts import latent_charts
from kappaflow.report.training import learning_curves
from kappaflow.runs.table_content import GAIN_ROWS, in_proportion, latent_of, samples_like
from kappaflow.summary import register_view
from kappaflow.training import Batch, EnergyResult, FitResult, batch_of
from kappaflow.training.rows import rows_for

MEASURED_ROWS = 64  # rows at which conditioning is measured
LATENT_ROWS = 10_000
MOST_COLUMNS = 10  # columns of `pairs` if none are named
ENDS = 4  # singular values at each end above `MATRIX_FREE_ABOVE` dimensions
QUANTITIES = {
    "condition_number": condition_chart,
    "singular_values": singular_value_chart,
    "round_trip": round_trip_chart,
}
Quantity = Literal["condition_number", "singular_values", "round_trip"]


@register_view("plot", Profile)
def depth_profile(
    profile: Profile | Flow | FitResult | EnergyResult,
    x: Any = None,
    *,
    quantity: Quantity = "condition_number",
    ax: Any = None,
    interactive: bool = False,
) -> Any:
    """Plots the conditioning of a flow over its depth.

    Args:
        profile: The result of `kappaflow.profile`, or a flow.
        x: Data to measure a flow at; at most 64 of its rows are used. Left out for a profile.
        quantity: "condition_number", of each layer and of all layers up to each depth;
            "singular_values", the largest and the smallest of all layers up to each depth; or
            "round_trip", the reconstruction errors from data and from latents.
        ax: Axes of matplotlib to draw on. New ones by default.
        interactive: Return a figure of plotly.

    Returns:
        The axes, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=4, hidden=(8,))
        >>> figure = kf.plot.depth_profile(flow, torch.randn(100, 2), interactive=True)
        >>> figure.data[1].name
        'all layers so far'
    """
    one_of("quantity", quantity, tuple(QUANTITIES))
    if not isinstance(profile, Profile):
        flow, rows = flow_and_rows(profile, x, MEASURED_ROWS)
        profile = measure_profile(flow, rows.x, context=rows.context)
    elif x is not None:
        raise ArgumentError("'x' should be left out: a profile was measured at data already.")
    chart = QUANTITIES[quantity](profile.quantiles())
    return drawn(chart, ax, interactive=interactive)


@register_view("plot", DepthCurve)
def depth_curve(curve: DepthCurve, *, ax: Any = None, interactive: bool = False) -> Any:
    """Plots likelihood and conditioning against depth, for each partition.

    Args:
        curve: The result of `kappaflow.depth_curve`.
        ax: Two axes of matplotlib to draw on. New ones by default.
        interactive: Return a figure of plotly.

    Returns:
        The axes, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> curve = kf.depth_curve(x, partitions=["half"], hidden=(8,), max_epochs=1)
        >>> kf.plot.depth_curve(curve, interactive=True).data[1].name
        'half'
    """
    if not isinstance(curve, DepthCurve):
        raise ArgumentError(
            f"'curve' should be a result of kappaflow.depth_curve, got {type(curve).__name__}."
        )
    return drawn(depth_chart(curve), ax, interactive=interactive)


@register_view("plot", DepthGains)
def depth_gains(
    gains: DepthGains | Flow | FitResult,
    x: Any = None,
    *,
    ax: Any = None,
    interactive: bool = False,
) -> Any:
    """Plots the nats that a flow gains up to each depth, above the condition number there.

    Args:
        gains: The result of `kappaflow.depth_gains`, or a flow.
        x: Rows to measure a flow at; at most 1,000 are used. Left out for gains.
        ax: Two axes of matplotlib to draw on. New ones by default.
        interactive: Return a figure of plotly.

    Returns:
        The axes, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=4, hidden=(8,))
        >>> figure = kf.plot.depth_gains(flow, torch.randn(100, 2), interactive=True)
        >>> figure.data[1].name
        'gained so far'
    """
    if not isinstance(gains, DepthGains):
        flow, rows = flow_and_rows(gains, x, GAIN_ROWS)
        gains = measure_gains(flow, rows.x, context=rows.context)
    elif x is not None:
        raise ArgumentError("'x' should be left out: gains were measured at data already.")
    return drawn(gains_chart(gains.figures()), ax, interactive=interactive)


@register_view("plot", Spectrum)
def spectrum(
    spectrum: Spectrum | Flow | FitResult | EnergyResult,
    x: Any = None,
    *,
    ax: Any = None,
    interactive: bool = False,
) -> Any:
    """Plots the singular values of a Jacobian, with their spread over the rows.

    For a flow they are measured without its standardization: all of them up to 128 dimensions, and
    the four largest and four smallest above.

    Args:
        spectrum: The result of `kappaflow.spectrum`, or a flow.
        x: Data to measure a flow at; at most 64 of its rows are used. Left out for a spectrum.
        ax: Axes of matplotlib to draw on. New ones by default.
        interactive: Return a figure of plotly.

    Returns:
        The axes, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(3, depth=4, hidden=(8,))
        >>> figure = kf.plot.spectrum(flow, torch.randn(100, 3), interactive=True)
        >>> [trace.name for trace in figure.data if trace.name]
        ['largest', 'smallest']
    """
    if not isinstance(spectrum, Spectrum):
        flow, rows = flow_and_rows(spectrum, x, MEASURED_ROWS)
        points, context = checked_points(flow, rows.x, rows.context)
        with measuring(flow):
            points = flow.standardization(points)[0]
        dimensions = points.shape[1:].numel()
        ends = dimensions if dimensions <= MATRIX_FREE_ABOVE else ENDS
        spectrum = measure_spectrum(flow.core, points, context=context, k=ends)
    elif x is not None:
        raise ArgumentError("'x' should be left out: a spectrum was measured at data already.")
    return drawn(spectrum_chart(spectrum), ax, interactive=interactive)


@register_view("plot", FitResult, EnergyResult)
def training(result: FitResult | EnergyResult, *, interactive: bool = False) -> Any:
    """Plots the learning curves of a training: loss, conditioning, round trips, learning rate.

    Args:
        result: What `kappaflow.fit`, `fit_auto` or `fit_energy` returned.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes, or the figure.

    Raises:
        ArgumentError: `result` is of another type, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> result = kf.fit(kf.real_nvp(2, depth=2, hidden=(8,)), x, max_epochs=3)
        >>> kf.plot.training(result, interactive=True).data[0].name
        'training'
    """
    if not isinstance(result, FitResult | EnergyResult):
        raise ArgumentError(
            f"'result' should be what fit or fit_energy returns, got {type(result).__name__}."
        )
    charts = learning_curves(result.history, result.best_epoch)
    return drawn(side_by_side("training", "Learning curves", charts), interactive=interactive)


def pairs(
    flow: Flow | FitResult,
    data: Any,
    *,
    columns: Sequence[str | int] | None = None,
    rows: int = 2000,
    interactive: bool = False,
) -> Any:
    """Plots data and as many samples of a flow, for each pair of columns.

    The diagonal shows the density of each column, and each pair names its rank correlation
    (Spearman) in the data and in the samples. A conditional flow is sampled once for the context
    of each row.

    Args:
        flow: The flow.
        data: The data, preferably held out.
        columns: Names or numbers, from 0, of the columns to show; the first ten by default.
        rows: The largest number of rows to show.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes (columns, columns), or the figure. One column has one panel.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.
        DataError: A value is not finite.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(3, depth=2, hidden=(8,))
        >>> x = torch.randn(100, 3)
        >>> figure = kf.plot.pairs(flow, x, columns=["x0", "x2"], interactive=True)
        >>> len(figure.data)  # two for each density, and for the pair
        6
    """
    own = flow_of(flow)
    positive_int("rows", rows)
    table = in_proportion(rows_for(own, data, trained_on(flow)))
    table = table.select(spread(len(table), rows))
    chosen = _columns(table, columns)
    with measuring(own):
        samples = samples_like(own, batch_of(table, own))
    shown = [table.columns.index(name) for name in chosen]
    corner = corner_of(chosen, table.values[:, shown], samples[:, shown], points=len(table))
    return drawn(corner_chart(corner, "data"), interactive=interactive)


def latent(flow: Flow | FitResult | EnergyResult, x: Any, *, interactive: bool = False) -> Any:
    """Plots the latents of data, which follow the base distribution if the flow fits.

    One panel has the histogram of all coordinates and the density of the base, the other the mean
    and the standard deviation of each coordinate.

    Args:
        flow: The flow.
        x: The data; at most 10,000 rows are used.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes, or the figure.

    Raises:
        ArgumentError: An argument is wrong, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> figure = kf.plot.latent(flow, torch.randn(100, 2), interactive=True)
        >>> [trace.name for trace in figure.data][:2]
        ['rows', 'N(0, 1)']
    """
    own, rows = flow_and_rows(flow, x, LATENT_ROWS)
    with measuring(own):
        charts = latent_charts(latent_of(own, rows), "rows")
    return drawn(side_by_side("latent", "Latent", charts), interactive=interactive)


@register_view("plot", Factorization)
def factorization(factorization: Factorization, *, interactive: bool = False) -> Any:
    """Plots a linear map and its couplings as heat maps, with their condition numbers.

    Args:
        factorization: What `kappaflow.factor_linear` returned. The first 24 couplings are shown.
        interactive: Return a figure of plotly.

    Returns:
        An array of axes, or the figure. There is one panel for the identity, which needs no
        coupling.

    Raises:
        ArgumentError: The argument is of another type, or matplotlib is not installed.

    Example:
        >>> import torch, kappaflow as kf
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> figure = kf.plot.factorization(kf.factor_linear(turn), interactive=True)
        >>> figure.layout.annotations[0].text
        'The map T'
    """
    if not isinstance(factorization, Factorization):
        raise ArgumentError(
            "'factorization' should be what factor_linear returns, got "
            f"{type(factorization).__name__}."
        )
    return drawn(factorization_chart(factorization), interactive=interactive)


def _columns(table: Table, columns: Sequence[str | int] | None) -> list[str]:
    """Returns the names of the columns to show."""
    if columns is None:
        return list(table.columns[:MOST_COLUMNS])
    return chosen_columns(columns, table.columns)


def drawn(chart: Chart, ax: Any = None, *, interactive: bool) -> Any:
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


def flow_and_rows(flow: object, data: Any, most: int) -> tuple[Flow, Batch]:
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
