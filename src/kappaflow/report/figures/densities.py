"""Histograms beside each other: the latent beside its Gaussian, scores of two kinds of rows."""

from kappaflow.report.content import Latent, Separation
from kappaflow.report.figures.base import (
    DATA,
    DATA_BAND,
    INK,
    SAMPLES,
    Figure,
    Trace,
    axis,
    empty_note,
    filled_steps,
    layout,
    line,
    nothing_to_draw,
    outlined_steps,
)
from kappaflow.report.numbers import drawable, fixed, significant, what_is_not_drawn


def latent_histogram(latent: Latent) -> Figure | None:
    """Returns all latent coordinates of held-out rows beside the Gaussian."""
    if not latent.density:
        return None
    traces = [
        filled_steps(latent.edges, latent.density, "held-out rows", DATA, DATA_BAND),
        _smooth(latent.edges, latent.normal, "N(0, 1)"),
    ]
    return Figure(
        name="latent",
        title="All latent coordinates",
        alt="Histogram of all latent coordinates of held-out rows beside the standard normal "
        f"density; a share of {significant(latent.beyond_four)} lies beyond 4 deviations.",
        caption="Good: the filled histogram fills the dashed curve and stops with it. Shoulders, "
        "holes or long tails are structure that the flow has not unfolded.",
        traces=traces,
        layout=layout(
            axis("latent coordinate (standard deviations)"),
            axis("density (per std. dev.)", rangemode="tozero"),
            hovermode=False,
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn([latent.density]),
        height=300,
    )


def latent_coordinates(latent: Latent) -> Figure | None:
    """Returns mean and standard deviation of each latent coordinate."""
    if not latent.coordinates:
        return None
    numbers = list(range(1, len(latent.coordinates) + 1))
    means = [mean for mean, _ in latent.coordinates]
    deviations = [deviation for _, deviation in latent.coordinates]
    traces = []
    for values, name, color, symbol in (
        (deviations, "standard deviation, 1 is right", DATA, "circle"),
        (means, "mean, 0 is right", SAMPLES, "diamond-open"),
    ):
        marker = {"color": color, "size": 7 if len(numbers) <= 100 else 4, "symbol": symbol}
        trace = line(numbers, drawable(values), name, color)
        traces.append({**trace, "mode": "markers", "marker": marker})
    x = axis("latent coordinate (number)", range=[0, len(numbers) + 1], nticks=8)
    if len(numbers) <= 6:
        x["dtick"] = 1
    y = axis("value (standard deviations)")
    shown = [v for trace in traces for v in trace["y"] if v is not None]
    y["range"] = [min([-0.25, *shown]) - 0.1, max([1.25, *shown]) + 0.1]
    return Figure(
        name="latent-coordinates",
        title="Each latent coordinate",
        alt=f"Mean and standard deviation of each of {len(numbers)} latent coordinates.",
        caption="Good: filled points on the line at 1 and open ones on the line at 0. A "
        "coordinate far from both is one that the flow has not made Gaussian.",
        traces=traces,
        layout=layout(
            x,
            y,
            shapes=[_level(0, len(numbers)), _level(1, len(numbers))],
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn([means, deviations]),
        height=300,
    )


def separation(part: Separation, number: int) -> Figure:
    """Returns the scores of two kinds of rows beside each other."""
    traces = [
        filled_steps(part.edges, part.density_in, "like the training data", DATA, DATA_BAND),
        outlined_steps(part.edges, part.density_out, "the others", SAMPLES, width=2),
    ]
    return Figure(
        name=f"separation-{number}",
        title=part.name,
        alt=f"Histograms of log_prob of {part.rows_in} rows like the training data and of "
        f"{part.rows_out} others: {part.name}. AUC {fixed(part.auc, 3)}.",
        caption="Good: two hills with little overlap, the filled one to the right. The AUC is the "
        "chance that a row of the first kind scores above one of the second: 0.5 is a coin, "
        "1 is perfect.",
        traces=traces,
        layout=layout(
            axis("log_prob (nats a row)"),
            axis("density (per nat)", rangemode="tozero"),
            hovermode=False,
            annotations=[empty_note()] if nothing_to_draw(traces) else [],
        ),
        remark=what_is_not_drawn([part.edges, part.density_in, part.density_out]),
        height=300,
    )


def _smooth(edges: list[float], density: list[float], name: str) -> Trace:
    """Returns a line through the middles of the bins."""
    middles = drawable((a + b) / 2 for a, b in zip(edges[:-1], edges[1:], strict=False))
    return line(middles, drawable(density), name, INK, dash="dash", width=1.5)


def _level(y: float, count: int) -> dict:
    return {
        "type": "line",
        "x0": 0,
        "x1": count + 1,
        "y0": y,
        "y1": y,
        "layer": "below",
        "line": {"color": INK, "width": 1, "dash": "dash"},
    }
